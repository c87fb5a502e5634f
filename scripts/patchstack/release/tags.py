"""Dated tags: derived from the ledger, made where one is missing, and never moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchstack.model import Action, Sha
from patchstack.release.ledger import Entry


@dataclass(frozen=True)
class TagFault:
    """A tag that is not where the ledger says."""

    name: str
    expected: Sha
    found: Sha | None
    """None: it is missing. Otherwise something that is no night of this tag holds the name."""


def tag_faults(entries: Sequence[Entry], tags: Sequence[tuple[str, Sha]]) -> tuple[TagFault, ...]:
    """Compare the ledger (newest first) with the tags of the remote; the faults by name.

    Nights and rollbacks have a tag, what holds or releases has none. Two of one day with one tree share a name: it
    stays with the older, and either target is right.
    """
    holders: dict[str, list[Sha]] = {}
    for entry in reversed(entries):
        if entry.line.action in {Action.NIGHT, Action.ROLLBACK}:
            holders.setdefault(entry.line.tag, []).append(entry.commit)
    found = dict(tags)
    return tuple(
        TagFault(name, commits[0], found.get(name))
        for name, commits in sorted(holders.items())
        if found.get(name) not in commits
    )
