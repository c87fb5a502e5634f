"""What the fake GitHub remembers, as plain records; `repository` changes them, `shapes` shows them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class User:
    login: str
    id: int
    kind: str = "User"
    write: set[str] = field(default_factory=set)
    """Repositories that this user may push to, besides those of their own."""
    admin: set[str] = field(default_factory=set)

    def permission(self, repo: str) -> str:
        """``admin``, ``write`` or ``read``."""
        if repo in self.admin or repo.split("/")[0] == self.login:
            return "admin"
        return "write" if repo in self.write else "read"


@dataclass
class Token:
    secret: str
    login: str
    repo: str | None
    """The one repository that it is for; None: all that its user may."""
    permissions: dict[str, str] | None
    """Scope to ``read`` or ``write``; None: all that its user may."""
    revoked: bool = False
    used: int = 0
    """Requests that it made."""

    @property
    def is_bot(self) -> bool:
        return self.login.endswith("[bot]")

    def has(self, scope: str, level: str) -> bool:
        if self.permissions is None:
            return True
        given = self.permissions.get(scope, "none")
        return given == "write" or given == level


@dataclass
class Label:
    id: int
    name: str
    color: str = "ededed"
    description: str | None = None


@dataclass
class Event:
    """One line of an issue's history."""

    id: int
    kind: str
    by: str
    at: str
    label: str | None = None
    commit: str | None = None


@dataclass
class Comment:
    id: int
    author: str
    body: str
    created_at: str
    updated_at: str


@dataclass
class Review:
    id: int
    author: str
    state: str
    commit: str
    at: str
    body: str = ""


@dataclass
class Activity:
    """One push to one branch."""

    id: int
    before: str
    after: str
    ref: str
    at: str
    kind: str
    by: str | None


@dataclass
class Pull:
    """What a pull request is besides an issue."""

    head: str
    head_ref: str
    head_repo: str | None
    """None: that repository is deleted."""
    head_owner: str
    base: str
    base_ref: str
    draft: bool = False
    reviews: list[Review] = field(default_factory=list)
    merged_at: str | None = None
    merged_by: str | None = None
    merge_commit: str | None = None


@dataclass
class Issue:
    """An issue, or a pull request."""

    id: int
    number: int
    title: str
    body: str | None
    author: str
    created_at: str
    updated_at: str
    state: str = "open"
    closed_at: str | None = None
    labels: list[str] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    pull: Pull | None = None
