"""GitHub, through PyGithub; nothing else in this package talks to its API.

Every call is counted, every failure is a `RemoteError` that names what was asked, and the token is in no
text: `Token` cannot be printed, and what GitHub said is searched for it before it is told.

PyGithub waits between requests and repeats what failed for want of a server or of rate
(https://pygithub.readthedocs.io/en/stable/examples/MainClass.html): nothing here repeats it again.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from patchstack import __version__
from patchstack.errors import RemoteError, UsageError
from patchstack.model import Sha

if TYPE_CHECKING:
    import github
    from github.IssueEvent import IssueEvent
    from github.PullRequest import PullRequest
    from github.PullRequestReview import PullRequestReview

API = "https://api.github.com"
SERVER = "https://github.com"
PAGE = 100
TOKEN_VARIABLES = ("PATCHSTACK_TOKEN", "GITHUB_TOKEN", "GH_TOKEN")
ACTIONS_LOGIN = "github-actions[bot]"
"""Who writes with a workflow's own token; such a token may not ask for its login."""
COMMENT_LIMIT = 65_536
"""Characters that GitHub takes in a comment or in an issue's body."""


class Token:
    """A credential that shows itself to nobody but to `reveal`'s caller."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def reveal(self) -> str:
        return self._secret

    def out_of(self, text: str) -> str:
        """``text`` without the token."""
        return text.replace(self._secret, "***") if self._secret else text

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


class GitHub:
    """One GitHub, asked with one token. Repositories are ``owner/name``; every method may raise `RemoteError`."""

    def __init__(self, url: str, token: Token) -> None:
        import github
        from github.GithubRetry import GithubRetry

        local = _is_loopback(url)
        self.url = url
        self.token = token
        self.calls = 0
        """Requests that were answered or failed, each page for one; what PyGithub repeats is not counted again."""
        self._github = github.Github(
            auth=github.Auth.Token(token.reveal()),
            base_url=url,
            per_page=PAGE,
            timeout=30,
            user_agent=f"patchstack/{__version__}",
            lazy=True,
            # The pauses are for the public service; a server on this machine is a test's.
            seconds_between_requests=0 if local else 0.25,
            seconds_between_writes=0 if local else 1.0,
            retry=GithubRetry(total=2, backoff_factor=0.01, secondary_rate_wait=0.01)
            if local
            else GithubRetry(total=4),
        )
        self._count_calls()

    def _count_calls(self) -> None:
        requester = self._github.requester
        ask = requester.requestJsonAndCheck

        def counted(*argv: Any, **options: Any) -> Any:
            self.calls += 1
            return ask(*argv, **options)

        # Every typed call and every page of a PaginatedList goes through this one method.
        setattr(requester, "requestJsonAndCheck", counted)  # noqa: B010

    # --- pull requests ---

    def open_pulls(self, repo: str, *, into: str | None = None) -> tuple[OpenPull, ...]:
        """Every open pull request, all pages, oldest first; ``into``: only those into that branch.

        A failure on any page is the failure of all: what is returned is whole.
        """
        wanted = {} if into is None else {"base": into}
        with self._asking(f"the open pull requests of {repo}"):
            pages = self._repo(repo).get_pulls(state="open", sort="created", direction="asc", **wanted)
            # A pull request that is opened or closed between two pages can shift one onto both.
            return tuple({pull.number: pull for pull in map(_pull, pages)}.values())

    def pull(self, repo: str, number: int) -> OpenPull:
        """One pull request, open or not."""
        with self._asking(f"pull request {repo}#{number}"):
            return _pull(self._repo(repo).get_pull(number))

    def reviews(self, repo: str, number: int) -> tuple[Review, ...]:
        """Its reviews, oldest first."""
        from github.PullRequest import PullRequest as LazyPull

        with self._asking(f"the reviews of {repo}#{number}"):
            where = {"url": f"/repos/{repo}/pulls/{number}", "number": number}
            lazy = LazyPull(requester=self._github.requester, attributes=where, completed=True)
            return tuple(map(_review, lazy.get_reviews()))

    def label_events(self, repo: str, number: int) -> tuple[LabelEvent, ...]:
        """Each time that a label was put on it or taken off, oldest first."""
        with self._asking(f"the labels of {repo}#{number}"):
            events = self._issue(repo, number).get_events()
            return tuple(_label_event(event) for event in events if event.event in {"labeled", "unlabeled"})

    def pushes(self, repo: str, branch: str) -> tuple[Push, ...]:
        """The newest pushes to a branch (at most 100), newest first.

        https://docs.github.com/en/rest/repos/repos#list-repository-activities
        """
        with self._asking(f"the pushes to {branch} of {repo}"):
            asked = {"ref": f"refs/heads/{branch}", "per_page": str(PAGE), "direction": "desc"}
            _, rows = self._github.requester.requestJsonAndCheck("GET", f"/repos/{repo}/activity", parameters=asked)
            return tuple(Push(Sha(row["before"]), Sha(row["after"]), row["timestamp"]) for row in rows)

    def can_write(self, repo: str, login: str) -> bool:
        """Whether that account may push to ``repo``."""
        with self._asking(f"what {login} may do in {repo}"):
            return self._repo(repo).get_collaborator_permission(login) in {"admin", "write"}

    # --- issues and comments ---

    def viewer(self) -> str:
        """The login that this token writes under."""
        import github

        try:
            with self._asking("who the token belongs to"):
                return str(self._github.get_user().login)
        except RemoteError as error:
            cause = error.__cause__
            if isinstance(cause, github.GithubException) and cause.status == 403:
                return ACTIONS_LOGIN
            raise

    def issues(self, repo: str, *, creator: str) -> tuple[Issue, ...]:
        """The issues that ``creator`` opened, open and closed, those changed last first; no pull requests."""
        from github.NamedUser import NamedUser

        with self._asking(f"the issues of {creator} in {repo}"):
            who = NamedUser(requester=self._github.requester, attributes={"login": creator}, completed=True)
            found = self._repo(repo).get_issues(creator=who, state="all", sort="updated", direction="desc")
            return tuple(
                Issue(issue.number, issue.title, issue.body or "", issue.state == "open", issue.user.login)
                for issue in found
                if "/pull/" not in issue.html_url  # GitHub lists pull requests among the issues
            )

    def open_issue(self, repo: str, title: str, body: str) -> int:
        with self._asking(f"a new issue in {repo}"):
            return self._repo(repo).create_issue(title=title, body=body).number

    def edit_issue(self, repo: str, number: int, *, title: str, body: str, is_open: bool) -> None:
        with self._asking(f"a change of {repo}#{number}"):
            state = "open" if is_open else "closed"
            self._issue(repo, number).edit(title=title, body=body, state=state)

    def comments(self, repo: str, number: int) -> tuple[Comment, ...]:
        """The comments on an issue or a pull request, oldest first."""
        with self._asking(f"the comments on {repo}#{number}"):
            found = self._issue(repo, number).get_comments()
            return tuple(Comment(one.id, one.body or "", one.user.login if one.user else "") for one in found)

    def comment(self, repo: str, number: int, body: str) -> None:
        with self._asking(f"a comment on {repo}#{number}"):
            self._issue(repo, number).create_comment(body)

    # --- inside ---

    def _repo(self, repo: str) -> github.Repository.Repository:
        return self._github.get_repo(repo, lazy=True)

    def _issue(self, repo: str, number: int) -> github.Issue.Issue:
        """An issue that is not asked for itself, only for what is below it."""
        from github.Issue import Issue as LazyIssue

        where = {"url": f"/repos/{repo}/issues/{number}", "number": number}
        return LazyIssue(requester=self._github.requester, attributes=where, completed=True)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Whatever PyGithub and what is below it raise, as one `RemoteError` about ``what``."""
        import github
        import requests

        try:
            yield
        except github.GithubException as error:
            raise RemoteError(self._said(what, error)) from error
        except (requests.RequestException, OSError) as error:
            why = self.token.out_of(str(error))
            raise RemoteError(f"{self.url} did not answer about {what}: {why}; run again when it does") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = self.token.out_of(f"{type(error).__name__}: {error}")
            raise RemoteError(f"{self.url} answered something else than GitHub does about {what}: {why}") from error

    def _said(self, what: str, error: github.GithubException) -> str:
        data = error.data if isinstance(error.data, dict) else {}
        message = self.token.out_of(str(data.get("message") or error.message or "nothing said"))
        fix = {
            401: "the token is not accepted: make a new one, or look whether it was revoked",
            403: "the token lacks a permission, or its rate is used up",
            404: "it is not there, or the token may not see it",
            429: "its rate is used up: run again later",
        }.get(error.status, "run again when it does")
        return f"{self.url} answered {error.status} about {what}: {message}; {fix}"


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


def _pull(pull: PullRequest) -> OpenPull:
    # Only what a listing holds: any other attribute would cost one more request for each.
    head_repo = pull.head.repo
    return OpenPull(
        number=pull.number,
        title=pull.title,
        author=pull.user.login if pull.user else "",
        draft=pull.draft,
        labels=tuple(sorted(label.name for label in pull.labels)),
        head=Sha(pull.head.sha),
        head_ref=pull.head.ref,
        head_repo=head_repo.full_name if head_repo else "",
        base_ref=pull.base.ref,
        updated_at=pull.updated_at.isoformat() if pull.updated_at else "",
        url=pull.html_url,
        state=pull.state,
        merged=pull.merged_at is not None,
    )


def _review(review: PullRequestReview) -> Review:
    at = review.submitted_at
    author = review.user.login if review.user else ""
    return Review(author, review.state, Sha(review.commit_id or ""), at.isoformat() if at else "")


def _label_event(event: IssueEvent) -> LabelEvent:
    by = event.actor.login if event.actor else ""
    return LabelEvent(event.label.name, event.event == "labeled", by, event.created_at.isoformat())
