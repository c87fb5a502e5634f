"""Everything on the fake GitHub: its users, its tokens, its repositories, and the one lock over all of it."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from tests.support.github_server import bare
from tests.support.github_server.clock import Clock
from tests.support.github_server.permissions import check_permissions
from tests.support.github_server.records import Token, User
from tests.support.github_server.repository import Repository

BOT = "github-actions[bot]"


class Hub:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.clock = Clock()
        self.users: dict[str, User] = {}
        self.gone: set[str] = set()
        """Logins of accounts that were deleted."""
        self.tokens: dict[str, Token] = {}
        self.repositories: dict[str, Repository] = {}
        self._ids = itertools.count(1001)
        self._secrets = itertools.count(1)

    def new_id(self) -> int:
        return next(self._ids)

    def repository(
        self, name: str, *, fork_of: str | None = None, private: bool = False, default_branch: str = "main"
    ) -> Repository:
        """The repository ``owner/name``, made when it is not there yet; a fork begins with its parent's branches."""
        with self.lock:
            if name in self.repositories:
                return self.repositories[name]
            parent = self.repositories[fork_of] if fork_of else None
            self.user(name.split("/")[0], organisation=parent is None)
            found = Repository(
                self,
                name,
                self.folder / f"{name}.git",
                parent=parent,
                private=private,
                default_branch=parent.default_branch if parent else default_branch,
            )
            self.repositories[name] = found
            return found

    def delete_repository(self, name: str) -> None:
        """Its pull requests elsewhere stay open, with the head that they had."""
        with self.lock:
            gone = self.repositories[name]
            if any(repository.parent is gone for repository in self.repositories.values()):
                raise ValueError(f"{name} has forks")
            gone.notice(None)
            for repository in self.repositories.values():
                repository.forget_heads_of(gone)
            del self.repositories[name]
            shutil.rmtree(gone.path)

    def user(
        self, login: str, *, write: Collection[str] = (), admin: Collection[str] = (), organisation: bool = False
    ) -> User:
        """An account; made when it is not there yet. Whoever does something here is made so, too."""
        with self.lock:
            if login not in self.users:
                kind = "Bot" if login.endswith("[bot]") else "Organization" if organisation else "User"
                self.users[login] = User(login, self.new_id(), kind)
            found = self.users[login]
            found.write |= set(write)
            found.admin |= set(admin)
            return found

    def delete_user(self, login: str) -> None:
        """What they wrote stays, by nobody. Their repositories are deleted one by one."""
        with self.lock:
            self.gone.add(login)

    def token(self, login: str = BOT, *, repo: str | None = None, permissions: Mapping[str, str] | None = None) -> str:
        """A new token of ``login``; for one repository with ``repo``, with these permissions only with ``permissions``.

        A workflow's own token is one of ``github-actions[bot]``, for one repository, with the job's permissions.
        """
        if login == BOT and (repo is None or permissions is None):
            raise ValueError(f"a token of {BOT} is for one repository and has permissions")
        check_permissions(permissions or {})
        with self.lock:
            self.user(login)
            number = next(self._secrets)
            kind = "ghs" if login.endswith("[bot]") else "ghp"
            secret = f"{kind}_{number:06d}{'faketoken' * 4}"[:40]
            self.tokens[secret] = Token(secret, login, repo, None if permissions is None else dict(permissions))
            return secret

    def revoke(self, secret: str) -> None:
        with self.lock:
            self.tokens[secret].revoked = True

    def settle(self, repository: Repository) -> None:
        """Notice what was pushed to ``repository``, and to the heads of its pull requests, past this server."""
        heads = {issue.pull.head_repo for issue in repository.open_pulls() if issue.pull is not None}
        for name in sorted({repository.name, *(head for head in heads if head)}):
            self.repositories[name].notice(None)

    def read_workflow(self, workflow: str, repo: str) -> str:
        """A workflow file: an absolute path on this disk, or a path in the default branch of ``repo``."""
        if Path(workflow).is_absolute():
            return Path(workflow).read_text()
        repository = self.repositories[repo]
        return bare.git(repository.path, "show", f"{bare.HEADS}{repository.default_branch}:{workflow}")
