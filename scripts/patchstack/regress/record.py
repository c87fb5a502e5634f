"""What the bed's pytest plugin has written of a run (`tests/support/testbed/plugin.py`), one JSON object a line.

What pytest collected and the record does not answer for is `missing`, never green. The record is a candidate's to
write to: it is not read without end, and what no plugin of ours would say is a crash.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeGuard

from patchstack.model import GuardOutcome, GuardResult, Hardware, Sample, Settings
from patchstack.regress.suites import Suite

_SAID = {
    "pass": GuardOutcome.PASS,
    "fail": GuardOutcome.FAIL,
    "crash": GuardOutcome.CRASH,
    "timeout": GuardOutcome.TIMEOUT,
    # A test that skips itself did not run, whatever its reason: it is missing, not green.
    "skip": GuardOutcome.MISSING,
}
"""What the plugin says, and nothing else: a child cannot put itself into quarantine."""

RECORD_BYTES = 64 << 20
LONGEST_REASON = 2000
MOST_SAMPLES = 1000
"""Of one test."""
_METRIC = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
MOST_SETTINGS = 64
"""Of one test."""
MOST_DEVICES = 64
MOST_GIB = 1 << 20
_LISTS = ("gpus", "nics")
_SETTING = re.compile(r"[a-z0-9][a-z0-9_. -]{0,99}")
_PLAIN = re.compile(r"[ -~]{0,300}")
"""What a machine, or one of a scenario's settings, is called."""


@dataclass(frozen=True)
class Said:
    """All that a record says."""

    results: tuple[GuardResult, ...]
    hardware: Hardware | None = None
    """None where nobody has looked at it."""
    settings: tuple[Settings, ...] = ()


def lines_of(record: Path) -> list[str]:
    """Its lines, and one that is none where it is longer than any plugin writes."""
    with record.open("rb") as stream:
        text = stream.read(RECORD_BYTES + 1)
    lines = text[:RECORD_BYTES].decode(errors="replace").splitlines()
    return [*lines, "{}"] if len(text) > RECORD_BYTES else lines


def unanswered(suite: Suite, reason: str) -> tuple[GuardResult, ...]:
    """What is said of a suite of which nobody knows the tests: each of its files or folders is missing."""
    return tuple(GuardResult(path, suite.slug, False, GuardOutcome.MISSING, 0.0, reason) for path in suite.paths)


@dataclass
class _Heard:
    """What the lines of a record have said so far."""

    collected: dict[str, None] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)
    left_out: int = 0
    results: dict[str, GuardResult] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    hardware: Hardware | None = None
    settings: dict[str, Settings] = field(default_factory=dict)
    out_of_time_s: float | None = None
    stacks: Sequence[object] = ()

    def runs(self, test: str) -> bool:
        return test in self.started and test not in self.results


@dataclass(frozen=True)
class _End:
    """How the process ended, for what it has not answered."""

    said: str
    late: bool
    cut: str
    killed: bool
    stacks: str


def read_record(
    suite: Suite,
    lines: Iterable[str],
    ended: str,
    *,
    cut: str = "",
    killed: bool = False,
    taken: Mapping[str, str] | None = None,
) -> tuple[GuardResult, ...]:
    """The results of `hear_record`."""
    return hear_record(suite, lines, ended, cut=cut, killed=killed, taken=taken).results


def hear_record(
    suite: Suite,
    lines: Iterable[str],
    ended: str,
    *,
    cut: str = "",
    killed: bool = False,
    taken: Mapping[str, str] | None = None,
) -> Said:
    """The record as results, with everything that was collected and not answered for as `missing`.

    A line is ``{"collected": [...]}``, ``{"left_out": [...]}``, ``{"started": id}``, a sample, a result, what the
    machine is, what a test runs with, or that the whole run was out of time. A torn last line (the process was
    killed while it wrote) is not a result; anything else that is none of these, and a second answer of one test, is
    a crash: somebody else than the plugin has written here.

    ``cut`` is why we ended the process ourselves: then a test that was running is no crash, but missing for it.
    ``killed``: it was ended by SIGKILL, which is what a machine without memory does. ``taken`` are the files with
    stacks that there are, and how results name them.
    """
    heard, broken = _Heard(), []
    files = taken or {}
    whole = list(lines)
    for number, line in enumerate(whole, start=1):
        entry = _entry(line)
        if not _hear(suite, heard, entry, files) and (entry is not None or number < len(whole)):
            broken.append(_damaged(suite, number))
    broken += [result for test, result in heard.results.items() if test not in heard.collected]
    late = heard.out_of_time_s is not None
    said = f"was ended after {heard.out_of_time_s:.0f} s" if late else ended
    end = _End(said, late or "after" in ended, cut, killed and not late, _named(heard.stacks, files))
    answered = [heard.results.get(test) or _unanswered(suite, test, heard, end) for test in heard.collected]
    if not answered and not broken and not heard.left_out:
        nothing = cut or f"nothing was collected; pytest {said}{end.stacks}"
        broken = [replace(result, by_machine=end.killed) for result in unanswered(suite, nothing)]
    return Said((*answered, *broken), heard.hardware, tuple(heard.settings.values()))


def _hear(suite: Suite, heard: _Heard, entry: object, taken: Mapping[str, str]) -> bool:
    """Take in one line; False where the plugin would not say it."""
    match entry:
        case {"collected": list(tests)}:
            heard.collected.update(dict.fromkeys(map(str, tests)))
        case {"left_out": list(tests)}:
            heard.left_out += len(tests)
        case {"started": str(test)}:
            heard.started.add(test)
        case {"sample": dict(said), **more} if not more:
            return _hear_sample(heard, said)
        case {"settings": dict(said), **more} if not more:
            return _hear_settings(heard, said)
        case {"hardware": dict(said), **more} if not more and heard.hardware is None:
            heard.hardware = _hardware(said)
            return heard.hardware is not None
        case {"out_of_time_s": seconds, "stacks": list(names)} if _finite(seconds) is not None:
            heard.out_of_time_s, heard.stacks = _finite(seconds), names
        case {"test": str(test), "outcome": str(said), **more} if said in _SAID:
            result = _result(suite, test, _SAID[said], more, taken)
            result = replace(result, samples=tuple(heard.samples.get(test, ())))
            if test in heard.results:
                result = replace(result, outcome=GuardOutcome.CRASH, reason="it answered twice")
            heard.results[test] = result
        case _:
            return False
    return True


def _entry(line: str) -> object:
    """What the line says; None where it is not JSON."""
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if found is not None else ()


def _finite(value: object) -> float | None:
    """A number that is one; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _hear_sample(heard: _Heard, said: Mapping[object, object]) -> bool:
    match said:
        case {"test": str(test), "metric": str(metric), "value": value, **more} if not more and heard.runs(test):
            number, mine = _finite(value), heard.samples.setdefault(test, [])
            if number is None or not _METRIC.fullmatch(metric) or len(mine) == MOST_SAMPLES:
                return False
            mine.append(Sample(metric, number))
            return True
    return False


def _hear_settings(heard: _Heard, said: Mapping[object, object]) -> bool:
    match said:
        case {"test": str(test), "values": dict(values), **more} if not more and heard.runs(test):
            pairs = tuple((name, value) for name, value in values.items() if _is_plain(name) and _is_plain(value))
            named = all(_SETTING.fullmatch(name) for name, _ in pairs)
            if test in heard.settings or not named or not len(pairs) == len(values) <= MOST_SETTINGS:
                return False
            heard.settings[test] = Settings(test, pairs)
            return True
    return False


def _hardware(said: Mapping[object, object]) -> Hardware | None:
    """None for what the plugin would not say: another key, a text that is none or has no end, a memory below 0."""
    values: dict[str, Any] = {}
    for each in fields(Hardware):
        match said.get(each.name):
            case list(names) if each.name in _LISTS and len(names) <= MOST_DEVICES and all(map(_is_plain, names)):
                values[each.name] = tuple(names)
            case bool():
                return None
            case int(number) if each.name == "memory_gib" and 0 <= number < MOST_GIB:
                values[each.name] = number
            case str(text) if each.name not in (*_LISTS, "memory_gib") and _is_plain(text):
                values[each.name] = text
            case _:
                return None
    return Hardware(**values) if len(values) == len(said) else None


def _is_plain(said: object) -> TypeGuard[str]:
    return isinstance(said, str) and _PLAIN.fullmatch(said) is not None


def _damaged(suite: Suite, line: int) -> GuardResult:
    reason = f"line {line} of the record is not the plugin's"
    return GuardResult(suite.paths[0], suite.slug, False, GuardOutcome.CRASH, 0.0, reason)


def _result(
    suite: Suite, test: str, outcome: GuardOutcome, entry: Mapping[object, object], taken: Mapping[str, str]
) -> GuardResult:
    kills, left = entry.get("kills"), entry.get("stacks")
    return GuardResult(
        test=test,
        slug=suite.slug,
        control=bool(entry.get("control", False)),
        outcome=outcome,
        duration_s=round(_finite(entry.get("duration_s")) or 0.0, 3),
        reason=str(entry.get("reason", ""))[:LONGEST_REASON] + (_named(left, taken) if isinstance(left, list) else ""),
        kills=tuple(map(str, kills)) if isinstance(kills, list) else (),
    )


def _named(names: Sequence[object], taken: Mapping[str, str]) -> str:
    """Where the stacks are; empty where there are none."""
    here = [taken[name] for name in names if isinstance(name, str) and name in taken]
    return f"; stacks of every process: {', '.join(here)}" if here else ""


def _unanswered(suite: Suite, test: str, heard: _Heard, end: _End) -> GuardResult:
    runs = test in heard.started
    if end.cut:
        outcome, reason = GuardOutcome.MISSING, end.cut
    elif not runs:
        outcome, reason = GuardOutcome.MISSING, f"collected, not run: pytest {end.said}{end.stacks}"
    else:
        outcome = GuardOutcome.TIMEOUT if end.late else GuardOutcome.CRASH
        reason = f"pytest {end.said} while it ran{end.stacks}"
    by_machine = not end.cut and (end.killed or not runs)
    return GuardResult(test, suite.slug, False, outcome, 0.0, reason, by_machine=by_machine)
