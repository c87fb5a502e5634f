"""What a token may do, and which permissions a workflow gives the token of a job.

https://docs.github.com/en/rest/authentication/permissions-required-for-github-apps
https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#permissions

Stricter than GitHub in one thing: in the token's own repository every read needs its permission, as if the
repository were private; GitHub lets any token read a public one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml
from tests.support.github_server.answers import Refused

if TYPE_CHECKING:
    from tests.support.github_server.records import Token, User
    from tests.support.github_server.repository import Repository

SCOPES = (
    "actions",
    "administration",  # not for workflows: a person's token may have it
    "artifact-metadata",
    "attestations",
    "checks",
    "contents",
    "deployments",
    "discussions",
    "id-token",
    "issues",
    "metadata",
    "models",
    "packages",
    "pages",
    "pull-requests",
    "security-events",
    "statuses",
)
_NOT_FOR_WORKFLOWS = {"administration", "metadata"}
LEVELS = ("read", "write", "none")
DEFAULT_FOR_JOBS = {"contents": "read", "packages": "read"}
"""What a workflow without ``permissions`` gets, in a repository made since 2023."""
FREE = "metadata"
"""The scope that every token has."""


def check_permissions(permissions: Mapping[str, str]) -> None:
    """`ValueError` for a scope or a level that there is not."""
    for scope, level in permissions.items():
        if scope not in SCOPES or level not in LEVELS:
            raise ValueError(f"GitHub knows no permission `{scope}: {level}`")


def may_see(token: Token | None, user: User | None, repository: Repository) -> bool:
    if not repository.private or (token is not None and token.repo == repository.name):
        return True
    if token is None or user is None or token.repo is not None:
        return False
    return user.permission(repository.name) != "read"


def require(token: Token, user: User, repository: Repository, scopes: tuple[str, ...], level: str) -> None:
    """`Refused` unless the token may read or write (``level``) something of which one of ``scopes`` is enough."""
    if not may_see(token, user, repository):
        raise Refused(404, "Not Found")
    if FREE in scopes:
        return
    own = token.repo in (None, repository.name)
    if level == "read" and not own:
        return
    holder = "integration" if token.is_bot else "personal access token"
    if not own or not any(token.has(scope, level) for scope in scopes):
        raise Refused(403, f"Resource not accessible by {holder}")
    if level == "write" and not token.is_bot and not _user_may(user, repository, scopes):
        raise Refused(403, f"Resource not accessible by {holder}")


def _user_may(user: User, repository: Repository, scopes: tuple[str, ...]) -> bool:
    """Anybody may open issues and comment where they may look; the rest is for those with write access."""
    permission = user.permission(repository.name)
    if "administration" in scopes:
        return permission == "admin"
    return "issues" in scopes or permission != "read"


def permissions_of_job(workflow: str, job: str, *, from_fork: bool = False) -> dict[str, str]:
    """The permissions that a workflow file gives the token of one of its jobs.

    A job's own ``permissions`` replace the workflow's as a whole; a scope that is not named in either is none.
    For a pull request from a fork (``from_fork``) every write is a read.
    """
    document: dict[str, Any] = yaml.safe_load(workflow)
    jobs = document.get("jobs", {})
    if job not in jobs:
        raise ValueError(f"the workflow has no job {job}; it has {', '.join(jobs)}")
    declared = jobs[job].get("permissions", document.get("permissions", DEFAULT_FOR_JOBS))
    if isinstance(declared, str):
        if declared not in ("read-all", "write-all"):
            raise ValueError(f"GitHub knows no permissions `{declared}`")
        level = declared.removesuffix("-all")
        given = {scope: level for scope in SCOPES if scope not in _NOT_FOR_WORKFLOWS}
    else:
        given = dict(declared or {})
    check_permissions(given)
    if wrong := _NOT_FOR_WORKFLOWS & given.keys():
        raise ValueError(f"a workflow cannot ask for {', '.join(sorted(wrong))}")
    if from_fork:
        given = {scope: "read" if level == "write" else level for scope, level in given.items()}
    return given
