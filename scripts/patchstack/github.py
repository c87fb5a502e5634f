"""GitHub, through PyGithub; nothing else in this package talks to its API.

Every call is counted, every failure is a `RemoteError` that says what was asked and what to do, and the
token is in no text: `Token` cannot be printed, what GitHub said is searched for it before it is told, and
no failure keeps the frames of the libraries below, whose variables hold the request's headers.

Waiting is bounded (`patience.py`): what would take longer is an error at once.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from patchstack import __version__
from patchstack.errors import RemoteError, UsageError
from patchstack.model import Sha
from patchstack.paging import PAGE, read_overlapping

if TYPE_CHECKING:
    import github
    from github.IssueEvent import IssueEvent
    from github.NamedUser import NamedUser
    from github.Organization import Organization
    from github.PullRequest import PullRequest
    from github.PullRequestReview import PullRequestReview

API = "https://api.github.com"
SERVER = "https://github.com"
TOKEN_VARIABLES = ("PATCHSTACK_TOKEN", "GITHUB_TOKEN", "GH_TOKEN")
ACTIONS_LOGIN = "github-actions[bot]"
"""Who writes with a workflow's own token; such a token may not ask for its login."""
RESTARTS = 2
"""How often a listing that moves while it is read is begun again."""
COMMENT_LIMIT = 65_536
"""Characters that GitHub takes in a comment or in an issue's body."""


class Token:
    """A credential that shows itself to nobody but to `reveal`'s caller."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def reveal(self) -> str:
        return self._secret

    def out_of(self, text: str) -> str:
        """``text`` without the token, also as git sends it over HTTP."""
        if not self._secret:
            return text
        basic = base64.b64encode(f"x-access-token:{self._secret}".encode()).decode()
        return text.replace(self._secret, "***").replace(basic, "***")

    def __repr__(self) -> str:
        return "Token(***)"

    def __reduce__(self) -> str:
        raise TypeError("a token is not written down")


def token_of_environment() -> Token | None:
    """The first of `TOKEN_VARIABLES` that is set and not empty."""
    return next((Token(value) for name in TOKEN_VARIABLES if (value := os.environ.get(name, "").strip())), None)


def api_url() -> str:
    """Where GitHub's API is: ``GITHUB_API_URL``, as workflows set it, else the public one."""
    return os.environ.get("GITHUB_API_URL", "").rstrip("/") or API


def server_url() -> str:
    """Where its repositories are: ``GITHUB_SERVER_URL``, else the public one."""
    return os.environ.get("GITHUB_SERVER_URL", "").rstrip("/") or SERVER


@dataclass(frozen=True)
class OpenPull:
    """A pull request as a listing shows it."""

    number: int
    title: str
    author: str
    """Its author's login; empty for an account that is gone."""
    draft: bool
    labels: tuple[str, ...]
    head: Sha
    head_ref: str
    """The branch's name in the repository that it is in."""
    head_repo: str
    """``owner/name``; empty when that repository is gone."""
    head_owner: str
    """Whose repository that is, or was; empty when the account is gone too."""
    base_ref: str
    updated_at: str
    """ISO 8601; a push, a label, a review and a comment each change it."""
    url: str
    state: str = "open"
    merged: bool = False


@dataclass(frozen=True)
class Review:
    author: str
    state: str
    """``APPROVED``, ``CHANGES_REQUESTED``, ``COMMENTED``, ``DISMISSED``."""
    commit: Sha
    """The head that was reviewed."""
    at: str


@dataclass(frozen=True)
class LabelEvent:
    label: str
    added: bool
    """Or taken off."""
    by: str
    at: str


@dataclass(frozen=True)
class Events:
    """What happened to a pull request, as far as it matters to who admitted it; each oldest first."""

    labels: tuple[LabelEvent, ...] = ()
    """Each time that a label was put on it or taken off."""
    retargeted: tuple[str, ...] = ()
    """Each time that it was given another target, by a person or because GitHub deleted the branch."""


@dataclass(frozen=True)
class Push:
    """One push to a branch, as the repository's activity shows it."""

    before: Sha
    after: Sha
    at: str


@dataclass(frozen=True)
class Issue:
    number: int
    title: str
    body: str
    open: bool
    author: str


@dataclass(frozen=True)
class Comment:
    id: int
    body: str
    author: str


@dataclass(frozen=True)
class RepositoryFacts:
    name: str
    """``owner/name`` as GitHub spells it."""
    default_branch: str
    archived: bool
    has_issues: bool
    can_push: bool
    """The token's account may; whether the token may is known only when it is used."""
    scopes: tuple[str, ...] | None
    """Of a classic token; None for every other kind, whose permissions cannot be asked for."""


@dataclass(frozen=True)
class Runner:
    """A self-hosted runner."""

    name: str
    online: bool
    labels: tuple[str, ...]


class Refused(RemoteError):
    """GitHub answered, and not with what was asked for; ``status`` is that of HTTP."""

    def __init__(self, message: str, status: int, *, limited: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.limited = limited
        """A rate limit, and not a permission, is in the way."""


_Found = TypeVar("_Found")
_RETARGETED = frozenset({"base_ref_changed", "automatic_base_change_succeeded"})
_LISTED = frozenset({"number", "user", "draft", "labels", "head", "base", "state", "merged_at", "updated_at"})


class GitHub:
    """One GitHub, asked with one token. Repositories are ``owner/name``; every method may raise `RemoteError`.

    What a method costs is said in requests; where pages are named, a page holds `PAGE`, and an empty listing is one.
    """

    def __init__(self, url: str, token: Token) -> None:
        """``url`` is that of the API; `UsageError` when it would send the token in the clear."""
        import github

        from patchstack.patience import TIMEOUT_S, Patience, Purse

        local = _is_loopback(url)
        _require_safe(url, local)
        self.url = url
        self.token = token
        self.calls = 0
        """Requests that were answered or failed, each page for one; what PyGithub repeats is not counted again."""
        self._github = github.Github(
            auth=github.Auth.Token(token.reveal()),
            base_url=url,
            per_page=PAGE,
            timeout=TIMEOUT_S,
            user_agent=f"patchstack/{__version__}",
            lazy=True,
            # The pauses are for the public service; a server on this machine is a test's.
            seconds_between_requests=0 if local else 0.25,
            seconds_between_writes=0 if local else 1.0,
            retry=Patience(purse=Purse(), unsaid_s=0.01, backoff_factor=0.01) if local else Patience(purse=Purse()),
        )
        self._shape: type = dict
        self._watch()

    def _watch(self) -> None:
        """Count each request, and take nothing for a listing, or for an object, that is none."""
        requester = self._github.requester
        ask = requester.requestJsonAndCheck

        def watched(verb: str, url: str, *argv: Any, **options: Any) -> Any:
            self.calls += 1
            if not url.startswith("/") and urlsplit(url)[:2] != urlsplit(self.url)[:2]:
                raise ValueError(f"it goes on at another server ({url})")
            headers, body = ask(verb, url, *argv, **options)
            # PyGithub would take no body, and `{}`, for an empty page, and wraps what is no JSON in a mapping
            # (PaginatedList._fetchNextPage, Requester.__structuredFromJson).
            if not isinstance(body, self._shape) or (isinstance(body, dict) and body.keys() <= {"data", "url"}):
                raise TypeError(f"a {self._shape.__name__} was asked for")
            return headers, body

        # Every typed call and every page of a PaginatedList goes through this one method.
        setattr(requester, "requestJsonAndCheck", watched)  # noqa: B010

    # --- pull requests ---

    def open_pulls(self, repo: str, *, into: str | None = None) -> tuple[OpenPull, ...]:
        """Every open pull request, oldest first; ``into``: only those into that branch. `pages_of` requests.

        A failure on any page is the failure of all. None that stays open is missed: where one that closed moved
        another out of the pages (`paging.py`) it is begun again, `RESTARTS` times, and then fails. One that is
        opened or reopened meanwhile may be in it or not.
        """
        wanted = {"state": "open", "sort": "created", "direction": "asc", **({} if into is None else {"base": into})}
        what = f"the open pull requests of {repo}"
        for _ in range(1 + RESTARTS):
            found = self._ask(what, lambda: self._listed(f"/repos/{repo}/pulls", wanted), list)
            if found is not None:
                return found
        meanwhile = f"so many closed while they were read that some may be missed, {1 + RESTARTS} times in a row"
        raise RemoteError(f"{self.url} lists {what}, and {meanwhile}; run again when fewer are closed at a time")

    def pull(self, repo: str, number: int) -> OpenPull:
        """One pull request, open or not. One request."""
        return self._ask(f"pull request {repo}#{number}", lambda: _pull(self._repo(repo).get_pull(number)))

    def reviews(self, repo: str, number: int) -> tuple[Review, ...]:
        """Its reviews, oldest first. As many as there are pages."""
        from github.PullRequest import PullRequest as LazyPull

        def ask() -> tuple[Review, ...]:
            where = {"url": f"/repos/{repo}/pulls/{number}", "number": number}
            lazy = LazyPull(requester=self._github.requester, attributes=where, completed=True)
            return tuple(map(_review, lazy.get_reviews()))

        return self._ask(f"the reviews of {repo}#{number}", ask, list)

    def events(self, repo: str, number: int) -> Events:
        """When it was labelled, and when it was given another target. As many as its events have pages.

        https://docs.github.com/en/rest/using-the-rest-api/issue-event-types
        """

        def ask() -> Events:
            every = tuple(self._issue(repo, number).get_events())
            return Events(
                tuple(_label_event(event) for event in every if event.event in {"labeled", "unlabeled"}),
                tuple(event.created_at.isoformat() for event in every if event.event in _RETARGETED),
            )

        return self._ask(f"what happened to {repo}#{number}", ask, list)

    def pushes(self, repo: str, branch: str) -> tuple[Push, ...] | None:
        """The newest pushes to a branch (at most 100), newest first; None when the token may not see them.

        That is so for a private repository that it was not made for, and for one that is gone. One request.
        https://docs.github.com/en/rest/repos/repos#list-repository-activities
        """

        def ask() -> tuple[Push, ...]:
            ref = f"refs/heads/{branch}"
            asked = {"ref": ref, "per_page": str(PAGE), "direction": "desc"}
            _, rows = self._github.requester.requestJsonAndCheck("GET", f"/repos/{repo}/activity", parameters=asked)
            if any(row["ref"] != ref for row in rows):
                raise ValueError("pushes to another branch")
            return tuple(Push(_sha(row["before"]), _sha(row["after"]), _moment(row["timestamp"])) for row in rows)

        return self._unless_absent(f"the pushes to {branch} of {repo}", ask, list)

    def can_write(self, repo: str, login: str) -> bool:
        """Whether that account may push to ``repo``; False for one that is gone, or no person's. One request."""
        ask = lambda: self._repo(repo).get_collaborator_permission(login)  # noqa: E731
        return self._unless_absent(f"what {login} may do in {repo}", ask) in {"admin", "write"}

    # --- issues and comments ---

    def viewer(self) -> str:
        """The login that this token writes under. One request."""
        try:
            return self._ask("who the token belongs to", lambda: str(self._github.get_user().login))
        except Refused as error:
            if error.status == 403 and not error.limited:
                return ACTIONS_LOGIN
            raise

    def issues(self, repo: str, *, creator: str) -> tuple[Issue, ...]:
        """The issues that ``creator`` opened, open and closed, those changed last first; no pull requests.

        As many as there are pages, the pull requests of ``creator`` among them.
        """
        from github.NamedUser import NamedUser

        def ask() -> tuple[Issue, ...]:
            who = NamedUser(requester=self._github.requester, attributes={"login": creator}, completed=True)
            found = self._repo(repo).get_issues(creator=who, state="all", sort="updated", direction="desc")
            return tuple(
                Issue(issue.number, _text(issue.title), _text(issue.body), issue.state == "open", _login(issue.user))
                for issue in found
                if "/pull/" not in issue.html_url  # GitHub lists pull requests among the issues
            )

        return self._ask(f"the issues of {creator} in {repo}", ask, list)

    def open_issue(self, repo: str, title: str, body: str) -> int:
        """Its number. One request, never repeated once it may have been heard."""
        ask = lambda: self._repo(repo).create_issue(title=title, body=body).number  # noqa: E731
        return self._ask(f"a new issue in {repo}", ask)

    def edit_issue(self, repo: str, number: int, *, title: str, body: str, is_open: bool) -> None:
        """One request."""
        state = "open" if is_open else "closed"
        ask = lambda: self._issue(repo, number).edit(title=title, body=body, state=state)  # noqa: E731
        self._ask(f"a change of {repo}#{number}", ask)

    def comments(self, repo: str, number: int) -> tuple[Comment, ...]:
        """The comments on an issue or a pull request, oldest first. As many as there are pages."""

        def ask() -> tuple[Comment, ...]:
            found = self._issue(repo, number).get_comments()
            return tuple(Comment(one.id, _text(one.body), _login(one.user)) for one in found)

        return self._ask(f"the comments on {repo}#{number}", ask, list)

    def comments_since(self, repo: str, since: datetime) -> tuple[tuple[int, Comment], ...]:
        """What was written or changed since below any issue or pull request, oldest first, each with its number.

        As many as there are pages.
        """

        def ask() -> tuple[tuple[int, Comment], ...]:
            found = self._repo(repo).get_issues_comments(sort="created", direction="asc", since=since)
            return tuple(
                (int(one.issue_url.rpartition("/")[2]), Comment(one.id, _text(one.body), _login(one.user)))
                for one in found
            )

        return self._ask(f"the newest comments of {repo}", ask, list)

    def comment(self, repo: str, number: int, body: str) -> None:
        """One request, never repeated once it may have been heard."""
        self._ask(f"a comment on {repo}#{number}", lambda: self._issue(repo, number).create_comment(body))

    def edit_comment(self, repo: str, comment_id: int, body: str) -> None:
        from github.IssueComment import IssueComment as LazyComment

        where = {"url": f"/repos/{repo}/issues/comments/{comment_id}", "id": comment_id}
        lazy = LazyComment(requester=self._github.requester, attributes=where, completed=True)
        self._ask(f"a change of comment {comment_id} of {repo}", lambda: lazy.edit(body))

    # --- the repository itself ---

    def facts(self, repo: str) -> RepositoryFacts:
        """The repository, and what the token's account may do in it. One request."""

        def ask() -> RepositoryFacts:
            found = self._repo(repo).complete()
            may = found.permissions
            scopes = self._github.oauth_scopes
            return RepositoryFacts(
                name=found.full_name,
                default_branch=_text(found.default_branch),
                archived=found.archived,
                has_issues=found.has_issues,
                can_push=bool(may and may.push),
                scopes=None if scopes is None else tuple(sorted(scopes)),
            )

        return self._ask(f"the repository {repo}", ask)

    def protected_branches(self, repo: str) -> tuple[str, ...]:
        """Names of the branches that a rule protects. As many as the branches have pages."""
        ask = lambda: tuple(_text(one.name) for one in self._repo(repo).get_branches() if one.protected)  # noqa: E731
        return self._ask(f"the branches of {repo}", ask, list)

    def labels(self, repo: str) -> tuple[str, ...]:
        """The labels that there are. As many as there are pages."""
        ask = lambda: tuple(_text(one.name) for one in self._repo(repo).get_labels())  # noqa: E731
        return self._ask(f"the labels of {repo}", ask, list)

    def runners(self, repo: str) -> tuple[Runner, ...]:
        """The repository's self-hosted runners. As many as there are pages."""

        def ask() -> tuple[Runner, ...]:
            found = self._repo(repo).get_self_hosted_runners()
            return tuple(
                Runner(
                    _text(one.name), one.status == "online", tuple(_text(str(label["name"])) for label in one.labels)
                )
                for one in found
            )

        return self._ask(f"the runners of {repo}", ask)

    # --- inside ---

    def _listed(self, path: str, wanted: Mapping[str, str]) -> tuple[OpenPull, ...] | None:
        """The pull requests on all pages; None if they moved so that one may be missing."""
        from github.PullRequest import PullRequest as LazyPull

        def ask(number: int, size: int) -> tuple[list[OpenPull], bool]:
            asked = {**wanted, "per_page": str(size), **({"page": str(number)} if number > 1 else {})}
            headers, rows = self._github.requester.requestJsonAndCheck("GET", path, parameters=asked)
            if any(not row.keys() >= _LISTED for row in rows):  # PyGithub takes what is missing for None
                raise ValueError("a pull request without some of what a listing holds")
            pulls = [_pull(LazyPull(self._github.requester, headers, row, completed=True)) for row in rows]
            return pulls, 'rel="next"' in str(headers.get("link", ""))

        return read_overlapping(ask, lambda pull: pull.number)

    def _repo(self, repo: str) -> github.Repository.Repository:
        return self._github.get_repo(repo)  # lazy: it is not asked for itself

    def _issue(self, repo: str, number: int) -> github.Issue.Issue:
        """An issue that is not asked for itself, only for what is below it."""
        from github.Issue import Issue as LazyIssue

        where = {"url": f"/repos/{repo}/issues/{number}", "number": number}
        return LazyIssue(requester=self._github.requester, attributes=where, completed=True)

    def _ask(self, what: str, ask: Callable[[], _Found], shape: type = dict) -> _Found:
        """What ``ask`` finds in answers of that shape; whatever it raises is one `RemoteError` about ``what``."""
        self._shape = shape
        try:
            return ask()
        except Exception as error:  # the libraries below raise a dozen kinds, assertions among them
            failure = self._failure(what, error)
        # Not where `error` is at hand: as its context it would bring along frames that hold the token.
        raise failure

    def _unless_absent(self, what: str, ask: Callable[[], _Found], shape: type = dict) -> _Found | None:
        try:
            return self._ask(what, ask, shape)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def _failure(self, what: str, error: Exception) -> RemoteError:
        import github
        import requests

        from patchstack.patience import Answered

        if isinstance(error, Answered):
            return self._said(what, error.status, error.message, limited=error.limited)
        if isinstance(error, github.GithubException):
            body = error.data if isinstance(error.data, dict) else {}
            return self._said(what, error.status, str(body.get("message") or error.message or ""))
        why = self.token.out_of(f"{type(error).__name__}: {error}")
        if isinstance(error, (requests.RequestException, OSError)):
            return RemoteError(f"{self.url} did not answer about {what}: {why}; run again when it does")
        return RemoteError(
            f"{self.url} answered something else than GitHub does about {what}: {why}; look whether GITHUB_API_URL "
            "is that of GitHub's API, and run again"
        )

    def _said(self, what: str, status: int, message: str, *, limited: bool = False) -> Refused:
        fixes = {
            401: "the token is not accepted: make a new one, or look whether it was revoked",
            403: "the token lacks a permission that docs/github.md names, or its owner's approval",
            404: "it is not there, or the token may not see it",
        }
        fix = fixes.get(status, "it does not take that: look into what it says")
        if limited:
            fix = "its rate is used up: run again later, what was read until now is kept"
        elif status >= 500:
            fix = "it has a problem of its own: run again when that is over"
        elif 300 <= status < 400:
            fix = "a repository that was renamed must be written by its new name"
        said = self.token.out_of(_text(message)) or "nothing said"
        return Refused(f"{self.url} answered {status} about {what}: {said}; {fix}", status, limited=limited)


def connect() -> GitHub:
    """GitHub as the environment names it; `UsageError` without a token."""
    token = token_of_environment()
    if token is None:
        raise UsageError(
            f"GitHub is asked with a token, and none of {', '.join(TOKEN_VARIABLES)} is set: set one, or use --local"
        )
    return GitHub(api_url(), token)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_safe(url: str, local: bool) -> None:
    parts = urlsplit(url)
    if "@" in parts.netloc or not parts.hostname or not (parts.scheme == "https" or (local and parts.scheme == "http")):
        raise UsageError(
            "GITHUB_API_URL must begin with https:// and hold no user: a token is sent there; "
            f"write it like {API}, or like https://github.example.com/api/v3"
        )


def _pull(pull: PullRequest) -> OpenPull:
    # Only what a listing holds: any other attribute would cost one more request for each.
    head_repo = pull.head.repo
    head_owner = head_repo.full_name.partition("/")[0] if head_repo else _login(pull.head.user)
    return OpenPull(
        number=pull.number,
        title=_text(pull.title),
        author=_login(pull.user),
        draft=pull.draft,
        labels=tuple(sorted(_text(label.name) for label in pull.labels)),
        head=_sha(pull.head.sha),
        head_ref=_text(pull.head.ref),
        head_repo=head_repo.full_name if head_repo else "",
        head_owner=head_owner,
        base_ref=_text(pull.base.ref),
        updated_at=pull.updated_at.isoformat() if pull.updated_at else "",
        url=_text(pull.html_url),
        state=pull.state,
        merged=pull.merged_at is not None,
    )


def _review(review: PullRequestReview) -> Review:
    at = review.submitted_at
    commit = _sha(review.commit_id) if review.commit_id else Sha("")
    return Review(_login(review.user), review.state, commit, at.isoformat() if at else "")


def _label_event(event: IssueEvent) -> LabelEvent:
    return LabelEvent(
        _text(event.label.name), event.event == "labeled", _login(event.actor), event.created_at.isoformat()
    )


def _sha(text: object) -> Sha:
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-f]{40}", text):
        raise ValueError(f"{text!r} is no commit id")
    return Sha(text)


def _login(user: NamedUser | Organization | None) -> str:
    """Whose account; empty for one that is gone."""
    return user.login if user else ""


def _text(text: str | None) -> str:
    """Text that can be written down: half of a surrogate pair, which JSON allows, as an escape."""
    return (text or "").encode(errors="backslashreplace").decode()


def _moment(text: str) -> str:
    return datetime.fromisoformat(text).isoformat()
