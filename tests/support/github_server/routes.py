"""The endpoints of the fake GitHub: who may ask each, and what it answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from tests.support.github_server import bare
from tests.support.github_server.answers import Answer, Asked, Refused, page_of
from tests.support.github_server.hub import Hub
from tests.support.github_server.permissions import FREE, permissions_of_job, require
from tests.support.github_server.records import Issue, Token
from tests.support.github_server.repository import Repository
from tests.support.github_server.shapes import Json, Shapes, token_limit

BODY_LIMIT = 65_536


@dataclass(frozen=True)
class Call:
    """One request, with all that its handler needs."""

    asked: Asked
    token: Token
    hub: Hub
    shapes: Shapes
    repository: Repository | None
    part: dict[str, str]
    """The variable parts of the path."""

    @property
    def here(self) -> Repository:
        assert self.repository is not None
        return self.repository

    @property
    def writes(self) -> bool:
        """Whether the token's user may push here; a workflow's always may."""
        return self.token.is_bot or self.hub.user(self.token.login).permission(self.here.name) != "read"

    def issue(self) -> Issue:
        found = self.here.all_issues.get(int(self.part["number"]))
        if found is None:
            raise Refused(404, "Not Found")
        return found

    def pull(self) -> Issue:
        found = self.issue()
        if found.pull is None:
            raise Refused(404, "Not Found")
        return found

    def page(self, found: list[Any], shape: Callable[[Any], Json]) -> Answer:
        rows, headers = page_of(self.asked, found, f"{self.shapes.api_url}{self.asked.path}")
        return Answer(200, [shape(row) for row in rows], headers)


Handler = Callable[[Call], Answer]


@dataclass(frozen=True)
class Route:
    method: str
    pattern: re.Pattern[str]
    scopes: tuple[str, ...]
    """Any of them is enough."""
    level: str
    handler: Handler


ROUTES: list[Route] = []
ISSUE_OR_PULL = ("issues", "pull-requests")


def route(method: str, path: str, *scopes: str) -> Callable[[Handler], Handler]:
    """Register an endpoint; ``{x}`` in ``path`` is one part of it, ``{x*}`` the whole rest, ``{number}`` digits."""
    pattern = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.+)", path)
    pattern = pattern.replace("{number}", r"(?P<number>\d+)")
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)

    def register(handler: Handler) -> Handler:
        level = "read" if method == "GET" else "write"
        ROUTES.append(Route(method, re.compile(pattern), scopes or (FREE,), level, handler))
        return handler

    return register


def answer(asked: Asked, token: Token, hub: Hub, shapes: Shapes) -> Answer:
    """What GitHub answers to ``asked``; `Refused` is an answer, too."""
    for found in ROUTES:
        if found.method != asked.method or (match := found.pattern.fullmatch(asked.path)) is None:
            continue
        part = {name: unquote(value) for name, value in match.groupdict().items()}
        repository = None
        if "owner" in part:
            repository = hub.repositories.get(f"{part['owner']}/{part['repo']}")
            if repository is None:
                raise Refused(404, "Not Found")
            require(token, hub.user(token.login), repository, found.scopes, found.level)
            hub.settle(repository)
        return found.handler(Call(asked, token, hub, shapes, repository, part))
    # Not a 404, which would be an answer that GitHub gives: here the test asks for more than the fake has.
    raise Refused(501, f"the fake GitHub has no {asked.method} {asked.path}")


# --- the token itself ---


@route("GET", "/user")
def viewer(call: Call) -> Answer:
    if call.token.is_bot:
        raise Refused(403, "Resource not accessible by integration")
    return Answer(200, call.shapes.person(call.token.login))


@route("GET", "/users/{login}")
def user(call: Call) -> Answer:
    if call.part["login"] not in call.hub.users:
        raise Refused(404, "Not Found")
    return Answer(200, call.shapes.person(call.part["login"]))


@route("GET", "/rate_limit")
def rate_limit(call: Call) -> Answer:
    return Answer(200, call.shapes.rate(token_limit(call.token), call.token.used))


@route("POST", "/_runner/job")
def begin_job(call: Call) -> Answer:
    """Not GitHub's: what its runner does before a job, to give the token the job's permissions."""
    workflow, job = call.asked.text("workflow", required=True), call.asked.text("job", required=True)
    assert workflow is not None
    assert job is not None
    from_fork = bool(call.asked.body.get("from_fork"))
    if call.token.repo is None or not call.token.is_bot:
        raise Refused(403, "no token of a job")
    try:
        text = call.hub.read_workflow(workflow, call.token.repo)
        given = permissions_of_job(text, job, from_fork=from_fork)
    except (OSError, ValueError, bare.GitRefused) as error:
        raise Refused(422, str(error)) from error
    call.token.permissions = given
    return Answer(200, {"permissions": given})


# --- repositories ---


@route("GET", "/repos/{owner}/{repo}")
def repository(call: Call) -> Answer:
    return Answer(200, call.shapes.whole_repository(call.here, call.token.login))


@route("GET", "/repos/{owner}/{repo}/activity", "contents")
def activity(call: Call) -> Answer:
    """https://docs.github.com/en/rest/repos/repos#list-repository-activities; one page, as its cursors are not here."""
    wanted = call.asked.query.get("ref", "")
    ref = wanted if wanted.startswith("refs/") else f"{bare.HEADS}{wanted}"
    found = [row for row in call.here.activity if not wanted or row.ref == ref]
    if actor := call.asked.query.get("actor"):
        found = [row for row in found if row.by == actor]
    if call.asked.chosen("direction", ("desc", "asc")) == "desc":
        found.reverse()
    size = min(call.asked.count("per_page", 30), 100)
    return Answer(200, [call.shapes.activity(row) for row in found[:size]])


@route("GET", "/repos/{owner}/{repo}/collaborators/{login}/permission")
def permission(call: Call) -> Answer:
    if not call.writes or call.token.repo not in (None, call.here.name):
        raise Refused(403, "Must have push access to view collaborator permission.")
    if call.part["login"] not in call.hub.users:
        raise Refused(404, f"{call.part['login']} is not a user")
    return Answer(200, call.shapes.collaborator(call.here, call.part["login"]))


@route("GET", "/repos/{owner}/{repo}/branches", "contents")
def branches(call: Call) -> Answer:
    found = list(call.here.branches.items())
    return call.page(found, lambda row: call.shapes.branch(call.here, *row))


@route("GET", "/repos/{owner}/{repo}/labels", *ISSUE_OR_PULL)
def labels(call: Call) -> Answer:
    return call.page(list(call.here.labels.values()), lambda row: call.shapes.label(call.here, row))


@route("POST", "/repos/{owner}/{repo}/labels", *ISSUE_OR_PULL)
def new_label(call: Call) -> Answer:
    name = call.asked.text("name", required=True)
    assert name is not None
    if name.casefold() in {known.casefold() for known in call.here.labels}:
        error = {"resource": "Label", "code": "already_exists", "field": "name"}
        raise Refused(422, "Validation Failed", errors=[error])
    color = call.asked.text("color") or "ededed"
    made = call.here.add_label(name, color=color, description=call.asked.text("description"))
    return Answer(201, call.shapes.label(call.here, made))


@route("GET", "/repos/{owner}/{repo}/actions/runners", "administration")
def runners(call: Call) -> Answer:
    rows, headers = page_of(call.asked, call.here.runners, f"{call.shapes.api_url}{call.asked.path}")
    shown = {"total_count": len(call.here.runners), "runners": [call.shapes.runner(*row) for row in rows]}
    return Answer(200, shown, headers)


# --- pull requests ---


@route("GET", "/repos/{owner}/{repo}/pulls", "pull-requests")
def pulls(call: Call) -> Answer:
    state = call.asked.chosen("state", ("open", "closed", "all"))
    found = [issue for issue in call.here.all_issues.values() if issue.pull is not None]
    found = [issue for issue in found if state in (issue.state, "all")]
    if base := call.asked.query.get("base"):
        found = [issue for issue in found if issue.pull and issue.pull.base_ref == base]
    if ":" in (head := call.asked.query.get("head", "")):
        found = [issue for issue in found if issue.pull and f"{issue.pull.head_owner}:{issue.pull.head_ref}" == head]
    ordered = _sorted(call, found, ("created", "updated", "popularity", "long-running"))
    return call.page(ordered, lambda row: call.shapes.pull(call.here, row))


@route("GET", "/repos/{owner}/{repo}/pulls/{number}", "pull-requests")
def pull(call: Call) -> Answer:
    return Answer(200, call.shapes.whole_pull(call.here, call.pull(), call.here.sizes(call.pull().number)))


@route("GET", "/repos/{owner}/{repo}/pulls/{number}/reviews", "pull-requests")
def reviews(call: Call) -> Answer:
    issue = call.pull()
    assert issue.pull is not None
    return call.page(issue.pull.reviews, lambda row: call.shapes.review(call.here, issue, row))


# --- issues ---


@route("GET", "/repos/{owner}/{repo}/issues", "issues")
def issues(call: Call) -> Answer:
    """https://docs.github.com/en/rest/issues/issues#list-repository-issues; pull requests are among them."""
    state = call.asked.chosen("state", ("open", "closed", "all"))
    found = [issue for issue in call.here.all_issues.values() if state in (issue.state, "all")]
    if creator := call.asked.query.get("creator"):
        found = [issue for issue in found if issue.author == creator]
    if wanted := call.asked.query.get("labels"):
        found = [issue for issue in found if set(wanted.split(",")) <= set(issue.labels)]
    ordered = _sorted(call, found, ("created", "updated", "comments"))
    return call.page(ordered, lambda row: call.shapes.issue(call.here, row))


@route("POST", "/repos/{owner}/{repo}/issues", "issues")
def new_issue(call: Call) -> Answer:
    title = call.asked.text("title", required=True)
    assert title is not None
    if not title.strip():
        raise Refused(
            422, "Validation Failed", errors=[{"resource": "Issue", "field": "title", "code": "missing_field"}]
        )
    number = call.here.open_issue(title, _body(call, "Issue"), call.token.login)
    # GitHub drops what somebody without write access says about labels, and makes no error of it.
    names = call.asked.names("labels")
    if call.writes:
        for name in names:
            call.here.label(number, name, call.token.login)
    return Answer(201, call.shapes.issue(call.here, call.here.all_issues[number]))


@route("GET", "/repos/{owner}/{repo}/issues/{number}", *ISSUE_OR_PULL)
def issue(call: Call) -> Answer:
    return Answer(200, call.shapes.issue(call.here, call.issue()))


@route("PATCH", "/repos/{owner}/{repo}/issues/{number}", *ISSUE_OR_PULL)
def edit_issue(call: Call) -> Answer:
    found = call.issue()
    _may_write(call, found)
    state = call.asked.text("state")
    if state not in (None, "open", "closed"):
        raise Refused(422, "Validation Failed", errors=[{"resource": "Issue", "field": "state", "code": "invalid"}])
    by = call.token.login
    if not call.writes and by != found.author:
        raise Refused(403, "Must have admin rights to Repository.")
    call.here.edit(found.number, by, title=call.asked.text("title"), body=_body(call, "Issue"))
    if state == "closed":
        call.here.close(found.number, by)
    elif state == "open":
        call.here.reopen(found.number, by)
    return Answer(200, call.shapes.issue(call.here, found))


@route("GET", "/repos/{owner}/{repo}/issues/{number}/events", *ISSUE_OR_PULL)
def events(call: Call) -> Answer:
    return call.page(call.issue().events, lambda row: call.shapes.event(call.here, row))


@route("GET", "/repos/{owner}/{repo}/issues/{number}/comments", *ISSUE_OR_PULL)
def comments(call: Call) -> Answer:
    found = call.issue()
    return call.page(found.comments, lambda row: call.shapes.comment(call.here, found, row))


@route("GET", "/repos/{owner}/{repo}/issues/comments", *ISSUE_OR_PULL)
def all_comments(call: Call) -> Answer:
    """https://docs.github.com/en/rest/issues/comments#list-issue-comments-for-a-repository."""
    since, sort = call.asked.query.get("since", ""), call.asked.chosen("sort", ("created", "updated"))
    every = [(found, one) for found in call.here.all_issues.values() for one in found.comments]
    found = [(issue, one) for issue, one in every if one.updated_at >= since]
    newest_first = call.asked.chosen("direction", ("asc", "desc")) == "desc"
    found.sort(key=lambda pair: getattr(pair[1], f"{sort}_at"), reverse=newest_first)
    return call.page(found, lambda pair: call.shapes.comment(call.here, *pair))


@route("POST", "/repos/{owner}/{repo}/issues/{number}/comments", *ISSUE_OR_PULL)
def new_comment(call: Call) -> Answer:
    found = call.issue()
    _may_write(call, found)
    call.asked.text("body", required=True)
    made = call.here.comment(found.number, _body(call, "IssueComment") or "", call.token.login)
    return Answer(201, call.shapes.comment(call.here, found, made))


@route("PATCH", "/repos/{owner}/{repo}/issues/comments/{number}", *ISSUE_OR_PULL)
def edit_comment(call: Call) -> Answer:
    located = call.here.comment_by_id(int(call.part["number"]))
    if located is None:
        raise Refused(404, "Not Found")
    found, comment = located
    _may_write(call, found)
    call.asked.text("body", required=True)
    comment.body, comment.updated_at = _body(call, "IssueComment") or "", call.hub.clock.tick()
    return Answer(200, call.shapes.comment(call.here, found, comment))


@route("POST", "/repos/{owner}/{repo}/issues/{number}/labels", *ISSUE_OR_PULL)
def put_labels_on(call: Call) -> Answer:
    found = call.issue()
    _may_write(call, found)
    _may_label(call)
    for name in call.asked.names("labels", required=True):
        call.here.label(found.number, name, call.token.login)
    return _labels_of(call, found)


@route("DELETE", "/repos/{owner}/{repo}/issues/{number}/labels/{name}", *ISSUE_OR_PULL)
def take_label_off(call: Call) -> Answer:
    found = call.issue()
    _may_write(call, found)
    _may_label(call)
    if call.part["name"] not in found.labels:
        raise Refused(404, "Label does not exist")
    call.here.unlabel(found.number, call.part["name"], call.token.login)
    return _labels_of(call, found)


# --- inside ---


def _labels_of(call: Call, found: Issue) -> Answer:
    return Answer(200, [call.shapes.label(call.here, call.here.labels[name]) for name in found.labels])


def _may_write(call: Call, found: Issue) -> None:
    """A pull request needs its own permission, an issue the other: one does not stand for both."""
    scope = "issues" if found.pull is None else "pull-requests"
    if not call.token.has(scope, "write"):
        raise Refused(403, "Resource not accessible by integration")


def _may_label(call: Call) -> None:
    if not call.writes:
        raise Refused(403, "Must have admin rights to Repository.")


def _body(call: Call, resource: str) -> str | None:
    body = call.asked.text("body")
    if body is not None and len(body) > BODY_LIMIT:
        error = {"resource": resource, "code": "unprocessable", "field": "data"}
        error["message"] = f"Body is too long (maximum is {BODY_LIMIT} characters)"
        raise Refused(422, "Validation Failed", errors=[error])
    return body


def _sorted(call: Call, found: list[Issue], keys: tuple[str, ...]) -> list[Issue]:
    key = call.asked.chosen("sort", keys)
    direction = call.asked.chosen("direction", ("desc", "asc"))
    order: dict[str, Callable[[Issue], Any]] = {
        "created": lambda issue: (issue.created_at, issue.number),
        "updated": lambda issue: (issue.updated_at, issue.number),
        "comments": lambda issue: (len(issue.comments), issue.number),
        "popularity": lambda issue: (len(issue.comments), issue.number),
        "long-running": lambda issue: (issue.created_at, issue.number),
    }
    return sorted(found, key=order[key], reverse=direction == "desc")
