"""The quarantine as it is in force now, and what a report is worth with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from patchstack.model import GuardOutcome, GuardReport, Quarantined
from patchstack.regress.declared import Declared
from patchstack.regress.gate import Lenience
from patchstack.regress.quarantine import excuse, is_meant, read_quarantine
from patchstack.store import now_utc
from patchstack.verbs.selection import Selection
from patchstack.workplace import Workplace


def quarantine_now(work: Workplace, declared: Iterable[Declared] | None = None) -> tuple[Quarantined, ...]:
    """Every entry; with ``declared``, all tests that there are, only of such. Raises `ConfigError`."""
    known = None if declared is None else {test.test for test in declared}
    return read_quarantine(work.root, now_utc().date(), known)


def with_quarantine(work: Workplace, report: GuardReport, selection: Selection) -> GuardReport:
    """``report`` with those of its guards excused that an entry means; the others are as they were."""
    return excuse(report, quarantine_now(work, selection.declared), selection.claims)


def lenience_now(work: Workplace) -> Lenience:
    """What deploy.yaml and the quarantine let pass."""
    holds = frozenset(name for name, channel in work.config.channels.items() if channel.flaky == "hold")
    return Lenience(holds, work.config.tests.max_flaky, quarantine_now(work))


def quarantine_inputs(work: Workplace) -> str:
    """What decides a night of it: the entries, and which of them have expired today."""
    entries = quarantine_now(work)
    return hashlib.sha256(repr(sorted(map(repr, entries))).encode()).hexdigest()


def problems_of_quarantine(work: Workplace, report: GuardReport) -> Sequence[str]:
    """What of ``report``, which somebody else has written, no entry of the file here excuses; and other entries.

    That one has expired since is none of its faults: the gate says that.
    """
    here = quarantine_now(work)
    problems = []
    if [_text(entry) for entry in report.quarantine] != [_text(entry) for entry in here]:
        problems.append("another quarantine than tests/regression/quarantine.yaml has excused them")
    for run in report.runs:
        for said in run.results:
            means = any(is_meant(said.test, entry.test) for entry in here)
            if said.outcome is GuardOutcome.QUARANTINED and not means:
                problems.append(f"{said.test} on {run.label} is in no quarantine")
    return problems


def _text(entry: Quarantined) -> tuple[str, ...]:
    return entry.test, entry.owner, entry.because, entry.since, entry.until, entry.back
