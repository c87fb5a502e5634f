"""What was read of pull requests in earlier nights, so that those that did not change are not asked about again.

Only what GitHub said is kept, never what was made of it, nor who may write: without the file, or with a
damaged one, a night decides the same and asks more.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import UsageError
from patchstack.github import OpenPull
from patchstack.pulls.admission import Facts
from patchstack.store import decode, encode, write_whole


@dataclass(frozen=True)
class Entry:
    name: str
    """``owner/name#41``."""
    pull: OpenPull
    """As it was listed then; a push, a label and a review each change its `updated_at`."""
    facts: Facts


@dataclass(frozen=True)
class AdmissionMemo:
    entries: tuple[Entry, ...] = ()


class Memory:
    """The memo of one night: what the last one left, and what this one learns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = {entry.name: entry for entry in _read(path).entries}
        self._learnt: dict[str, Entry] = {}

    def recall(self, repo: str, pull: OpenPull) -> Facts | None:
        """What is known of exactly this state of the pull request."""
        entry = self._learnt.get(_key(repo, pull)) or self._known.get(_key(repo, pull))
        if entry is None or entry.pull != pull:
            return None
        self._learnt[entry.name] = entry
        return entry.facts

    def learn(self, repo: str, pull: OpenPull, facts: Facts) -> None:
        """Keep what cannot change unless the pull request does.

        GitHub may be late to tell of a push: only pushes that end at the head are the whole story.
        """
        if facts.pushes is not None and (not facts.pushes or facts.pushes[0].after != pull.head):
            facts = Facts(facts.reviews, facts.events)
        self._learnt[_key(repo, pull)] = Entry(_key(repo, pull), pull, facts)

    def write(self, *, finished: bool) -> None:
        """Keep what this night learnt and recalled; what it did not meet is forgotten, if it met all (``finished``)."""
        kept = self._learnt if finished else self._known | self._learnt
        body = encode(AdmissionMemo(tuple(entry for _, entry in sorted(kept.items()))))
        with suppress(OSError):  # a night without a memo asks more, and is none the worse
            write_whole(self._path, f"{_digest(body)}\n{body}")


def _key(repo: str, pull: OpenPull) -> str:
    return f"{repo}#{pull.number}"


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _read(path: Path) -> AdmissionMemo:
    try:
        digest, _, body = path.read_text().partition("\n")
        return decode(AdmissionMemo, body, str(path)) if digest == _digest(body) else AdmissionMemo()
    except (OSError, UnicodeDecodeError, UsageError):
        return AdmissionMemo()
