"""Rehearsals that need not be made again: an equal tree, scenario, bed and tool passed them before.

As with guards (`regress/steps.py`) a seventh of them is due each day and made again all the same. What was run on a
lane's own hardware is never kept: a night's image is new, and numbers are of the night in which they were measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from patchstack.errors import UsageError
from patchstack.model import Base, GuardOutcome, LaneAnswer, LaneJob
from patchstack.regress.bed import Bed
from patchstack.regress.steps import Rerun, is_due
from patchstack.regress.suites import lanes_digest
from patchstack.store import decode, encode, now_utc, write_whole
from patchstack.verbs.test import tool_key
from patchstack.workplace import Workplace


@dataclass(frozen=True)
class KeptAnswer:
    """What is written for one key."""

    key: str
    made_on: str
    """The day (ISO 8601, UTC) of the rehearsal."""
    answer: LaneAnswer


@dataclass(frozen=True)
class Rehearsals:
    """Where answers are kept, and what besides the job their key is made of."""

    folder: Path
    inputs: tuple[str, ...]
    rerun: Rerun
    today: date

    def known(self, job: LaneJob) -> KeptAnswer | None:
        """What passed before, as an answer to ``job``; None where it is to be asked. A damaged file counts as none."""
        key = self._key(job)
        path = self.folder / f"{key}.json"
        try:
            kept = decode(KeptAnswer, path.read_text(), path.name)
        except (FileNotFoundError, UsageError, UnicodeDecodeError):
            return None
        is_old = kept.made_on != self.today.isoformat()
        again = self.rerun is Rerun.ALL or (self.rerun is Rerun.DUE and is_old and is_due(key, self.today))
        return None if kept.key != key or again else replace(kept, answer=replace(kept.answer, job=job))

    def keep(self, answer: LaneAnswer) -> None:
        """Keep it if every test of it passed at the first attempt: all else says something of the machine, or of us."""
        said = answer.results
        if said and all(one.outcome is GuardOutcome.PASS and not one.attempts for one in said):
            key = self._key(answer.job)
            write_whole(self.folder / f"{key}.json", encode(KeptAnswer(key, self.today.isoformat(), answer)))

    def _key(self, job: LaneJob) -> str:
        parts: Sequence[str] = (*self.inputs, job.tree, job.lane, *job.shard.files)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def rehearsals(work: Workplace, base: Base, bed: Bed, rerun: Rerun) -> Rehearsals:
    """Those of this repository's scenarios, in this bed."""
    natives = " ".join(native.sha256 for native in base.natives)
    inputs = (lanes_digest(work.root), bed.key, natives, tool_key())
    return Rehearsals(work.cache / "rehearsals", inputs, rerun, now_utc().date())
