"""Results that need not be made again: an equal tree, guard, bed and tool gave them before.

Only an answer is kept: a pass, or a failure by the guard's own assertion, at the first attempt. A crash, a time-out
or a missing test says something about the machine or the moment, and is asked again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from patchstack.errors import UsageError
from patchstack.model import GuardOutcome, GuardResult, Sha
from patchstack.regress.suites import Suite
from patchstack.store import decode, encode, write_whole

_ANSWERS = {GuardOutcome.PASS, GuardOutcome.FAIL}


@dataclass(frozen=True)
class KeptResults:
    """What is written for one key."""

    key: str
    made_on: str
    """The day (ISO 8601, UTC) on which the guards ran."""
    results: tuple[GuardResult, ...]


def proof_key(tree: Sha, natives: str, suite: Suite, which: str, bed_key: str, tool: str) -> str:
    """SHA-256 over all that decides what ``suite`` says on ``tree``; ``which`` of its tests say something there."""
    parts = (tree, natives, suite.slug, *suite.paths, suite.digest, which, bed_key, tool)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_kept(folder: Path, key: str) -> KeptResults | None:
    """What is kept for ``key``, or None. A damaged file counts as none: the guards run again."""
    path = folder / f"{key}.json"
    try:
        kept = decode(KeptResults, path.read_text(), str(path))
    except (FileNotFoundError, UsageError, UnicodeDecodeError):
        return None
    return kept if kept.key == key else None


def keep(folder: Path, key: str, today: date, results: tuple[GuardResult, ...]) -> None:
    """Keep ``results`` if every one of them is an answer."""
    if results and all(result.outcome in _ANSWERS and not result.attempts for result in results):
        write_whole(folder / f"{key}.json", encode(KeptResults(key, today.isoformat(), results)))
