"""The remote that nights are published on: the embedded one, and what any remote holds of a lane right now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import MachineError
from patchstack.git import Repository
from patchstack.model import Sha
from patchstack.release.ledger import History, history, tag_prefix

_HEADS = "refs/heads/"
_TAGS = "refs/tags/"
_OURS = "refs/patchstack/remote/"
"""Where the store keeps the published branches that it has read, so that their history is at hand."""

_EMBEDDED_SETTINGS = {
    # Only branches are held to fast-forwards: whoever plays a pull request may still rewrite refs/pull/N/head.
    "receive.denyNonFastForwards": "true",
    "receive.denyDeletes": "true",
    # A collection that a push starts would outlive the night in the background.
    "receive.autogc": "false",
    # Its own, and not those that whoever pushes here has for all repositories of this machine.
    "core.hooksPath": "hooks",
}


@dataclass(frozen=True)
class Tip:
    """A published branch as it was read."""

    commit: Sha
    tree: Sha
    parents: tuple[Sha, ...]


@dataclass(frozen=True)
class RemoteState:
    """What the remote holds of one lane: the only memory that a promotion has."""

    lane: str
    branch: str
    deploy: Tip | None
    base: Tip | None
    stack: Tip | None
    history: History
    tags: tuple[tuple[str, Sha], ...]
    """Name and target of each tag of the lane's nights, by name."""

    @property
    def refs(self) -> tuple[tuple[str, Sha | None], ...]:
        """The branches that a promotion moves, with where each was, or None where it was not."""
        tips = (self.deploy, self.base, self.stack)
        names = published_refs(self.lane, self.branch)
        return tuple((name, tip.commit if tip else None) for name, tip in zip(names, tips, strict=True))


def published_refs(lane: str, branch: str) -> tuple[str, str, str]:
    """The full names of the deploy branch, ``base/LANE`` and ``stack/LANE``."""
    return f"{_HEADS}{branch}", f"{_HEADS}base/{lane}", f"{_HEADS}stack/{lane}"


def ensure_embedded_remote(path: Path, head: str = "deploy") -> str:
    """The URL of the bare repository at ``path``, made on first use; a clone of it checks out ``head``.

    Its branches only go forward and are not deleted. Raises `MachineError` when something else is there.
    """
    if path.is_dir() and any(path.iterdir()) and not (path / "HEAD").is_file():
        raise MachineError(f"{path} is not a git repository, and not empty; move it away and run again")
    remote = Repository.init(path)
    if remote.run("rev-parse", "--is-bare-repository") != "true":
        raise MachineError(f"{path} is not a bare repository; move it away and run again")
    for key, value in _EMBEDDED_SETTINGS.items():
        if remote.attempt("config", "--get", key).text != value:
            remote.run("config", key, value)
    if remote.run("symbolic-ref", "HEAD") != f"{_HEADS}{head}":
        remote.run("symbolic-ref", "HEAD", f"{_HEADS}{head}")
    return str(remote.folder)


def read_remote(
    store: Repository, url: str, *, lane: str, branch: str, listed: Mapping[str, Sha] | None = None
) -> RemoteState:
    """Ask the remote for the lane's branches and tags, and fetch the branches with their history.

    ``listed`` is what an `ls-remote` of it said already; what the store holds of that is not fetched again.
    Raises `RemoteError` when it cannot be asked; a branch that it does not have is None.
    """
    names = published_refs(lane, branch)
    if listed is None:
        listed = store.ls_remote(url, *names, f"{_TAGS}{tag_prefix(lane)}*")
    # ls-remote matches a pattern against the end of a name: keep exactly what was meant.
    found = {name: listed[name] for name in names if name in listed}
    ours = {f"{_OURS}{name.removeprefix('refs/')}": sha for name, sha in found.items()}
    kept = store.refs(_OURS)
    lacking = [f"+{sha}:{name}" for name, sha in ours.items() if kept.get(name) != sha]
    if lacking:
        store.fetch(url, lacking)
    deploy, base, stack = (_tip(store, found.get(name)) for name in names)
    prefix = _TAGS + tag_prefix(lane)
    return RemoteState(
        lane=lane,
        branch=branch,
        deploy=deploy,
        base=base,
        stack=stack,
        history=history(store, deploy.commit if deploy else None, lane),
        tags=tuple((name.removeprefix(_TAGS), sha) for name, sha in sorted(listed.items()) if name.startswith(prefix)),
    )


def _tip(store: Repository, commit: Sha | None) -> Tip | None:
    return Tip(commit, store.tree_of(commit), store.parents(commit)) if commit else None
