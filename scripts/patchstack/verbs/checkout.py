"""The checkout that a review works in: what it is compared with, and that side laid out as files.

The repository is the person's own, or the one that a workflow checked out: it is only read, by commands that
see none of the user's configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import UsageError
from patchstack.git import Repository
from patchstack.model import Sha
from patchstack.store import write_whole

_PLAIN_FILES = {"100644", "100755"}


@dataclass(frozen=True)
class Checkout:
    repository: Repository
    prefix: str
    """Where deploy.yaml's folder is below the top of the work tree: empty, or with a slash at its end."""
    base: Sha
    """What the work tree is compared with."""
    head: Sha
    """The commit that is reviewed: in a merge of it into ``base``, as GitHub makes one, its second parent."""
    behind: bool
    """Whether ``base`` has commits that the work tree's commit lacks."""

    def lay_out(self, names: tuple[str, ...], folder: Path) -> None:
        """Write the files below ``names`` (files or folders) as they are at ``base`` into ``folder``; no links."""
        for entry in self.repository.list_tree(self.base, *(f"{self.prefix}{name}" for name in names)):
            target = folder / entry.path.removeprefix(self.prefix)
            if entry.mode in _PLAIN_FILES and ".." not in target.parts:
                write_whole(target, self.repository.read_blob(entry.sha) or b"")


def open_checkout(root: Path, against: str) -> Checkout:
    """The checkout around ``root``; `UsageError` if it is in none, or ``against`` is no commit of it."""
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), None)
    if top is None:
        raise UsageError(f"{root} is in no git work tree: run it in a clone of the fork")
    repository = Repository(_git_folder(top / ".git"))
    base, now = (repository.resolve(f"{revision}^{{commit}}") for revision in (against, "HEAD"))
    if base is None:
        raise UsageError(
            f"--against {against!r} is no commit of {top}: fetch it first (actions/checkout: fetch-depth: 2 has HEAD^1)"
        )
    if now is None:
        raise UsageError(f"{top} has no commit yet: commit the patch, and review it then")
    parents = repository.parents(now)
    head = parents[1] if len(parents) == 2 and parents[0] == base else now
    prefix = "" if root == top else f"{root.relative_to(top).as_posix()}/"
    return Checkout(repository, prefix, base, head, behind=not repository.is_ancestor(base, now))


def _git_folder(path: Path) -> Path:
    """The repository of a work tree; that of a further one (`git worktree add`) is named in a file."""
    if path.is_dir():
        return path
    # https://git-scm.com/docs/gitrepository-layout
    return (path.parent / path.read_text().removeprefix("gitdir:").strip()).resolve()


def links_below(*paths: Path) -> tuple[Path, ...]:
    """Every symbolic link at or below ``paths``, itself not followed."""
    found: list[Path] = []
    for path in paths:
        if path.is_symlink():
            found.append(path)
        elif path.is_dir():
            found += links_below(*sorted(path.iterdir()))
    return tuple(found)
