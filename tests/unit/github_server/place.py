"""A fake GitHub with one fork, and what a client sees of it: by HTTP, and by git in a folder."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from tests.support.github_server import GitHubServer, Repository

from patchstack import git

FORK = "acme/sglang"
ALICE = "alice/sglang"
PULLS = f"/repos/{FORK}/pulls"
ACTIVITY = f"/repos/{FORK}/activity"


@dataclass
class Place:
    """A hub with a fork that has one branch, ``main``, and ann, who may write to it."""

    hub: GitHubServer
    fork: Repository
    folder: Path
    root: str

    def commit(self, subject: str, *parents: str, text: str | None = None) -> str:
        store = git.Repository(self.fork.path)
        blob = store.write_blob((text or subject).encode())
        tree = store.edit_tree(store.tree_of(parents[0]) if parents else git.EMPTY_TREE, [("100644", blob, subject)])
        return store.commit(
            tree, [git.Sha(parent) for parent in parents], f"{subject}\n", git.Signature("A", "a@b", "@1 +0000")
        )

    def branch(self, name: str) -> str:
        """A new branch with one commit of its own."""
        sha = self.commit(name, self.root)
        self.fork.push(name, sha, by="ann")
        return sha

    def ask(
        self, path: str, token: str | None = None, *, method: str = "GET", json: Any = None, **query: object
    ) -> requests.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = f"{self.hub.api_url}{path}"
        return requests.request(method, url, headers=headers, params=dict(query), json=json, timeout=120)  # type: ignore[arg-type]

    def url(self, token: str | None = None, repo: str = FORK) -> str:
        who = f"x-access-token:{token}@" if token else ""
        return f"{self.hub.server_url.replace('://', f'://{who}')}/{repo}.git"

    def git(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *argv], cwd=self.folder, capture_output=True, text=True, check=False)
