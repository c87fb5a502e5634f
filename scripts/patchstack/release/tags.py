"""Dated tags: derived from the ledger, made where one is missing, and never moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchstack.git import Repository
from patchstack.model import Sha
from patchstack.release.ledger import Entry
from patchstack.release.remote import RemoteState, read_remote


@dataclass(frozen=True)
class TagFault:
    """A tag that is not where the ledger says."""

    name: str
    expected: Sha
    found: Sha | None
    """None: it is missing. Otherwise something that is no night of this tag holds the name."""


@dataclass(frozen=True)
class TagRepair:
    made: tuple[str, ...]
    elsewhere: tuple[TagFault, ...]
    """Names that something else holds: reported, not moved."""


def tag_faults(nights: Sequence[Entry], tags: Sequence[tuple[str, Sha]]) -> tuple[TagFault, ...]:
    """Compare the ledger (newest first) with the tags of the remote; the faults by name.

    Two nights of one day with one tree share a name: it stays with the older, and either target is right.
    """
    holders: dict[str, list[Sha]] = {}
    for night in reversed(nights):
        holders.setdefault(night.line.tag, []).append(night.commit)
    found = dict(tags)
    return tuple(
        TagFault(name, commits[0], found.get(name))
        for name, commits in sorted(holders.items())
        if found.get(name) not in commits
    )


def repair_tags(store: Repository, url: str, *, lane: str, branch: str) -> TagRepair:
    """Make the tags that the ledger names and the remote lacks, in one atomic push.

    Raises `RemoteError` when the remote cannot be read or refuses; then none was made.
    """
    return push_missing_tags(store, url, read_remote(store, url, lane=lane, branch=branch))


def push_missing_tags(store: Repository, url: str, state: RemoteState) -> TagRepair:
    """`repair_tags` on a state that was just read."""
    faults = tag_faults(state.history.nights, state.tags)
    missing = {f"refs/tags/{fault.name}": fault.expected for fault in faults if fault.found is None}
    if missing:
        store.push(url, missing)
    return TagRepair(
        made=tuple(fault.name for fault in faults if fault.found is None),
        elsewhere=tuple(fault for fault in faults if fault.found is not None),
    )
