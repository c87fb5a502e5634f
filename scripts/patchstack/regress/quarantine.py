"""``tests/regression/quarantine.yaml``: guards that hold no channel for a while, whatever they say.

Each has somebody who looks after it, a last day, and what lets it out again. It runs every night as before and its
end is shown; a pass stays a pass. From its last day on an entry excuses nothing and is red by itself, so that
nobody forgets it. All problems of the file are named at once, as in deploy.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from patchstack.errors import ConfigError
from patchstack.ids import OWNER
from patchstack.model import GuardOutcome, GuardReport, GuardResult, Quarantined, TreeRun
from patchstack.regress.prove import Claim, prove
from patchstack.regress.suites import BED_SUITE
from patchstack.yamltext import YamlProblem, compose_list, construct, line_of, repeated_keys, text_of

FILE = "tests/regression/quarantine.yaml"
MOST_DAYS = 30
_EXAMPLE = "- {test: ..., owner: ..., because: ..., since: 2026-11-20, until: 2026-12-04, back: ...}"
EXCUSABLE = frozenset({GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.TIMEOUT, GuardOutcome.FLAKY})
"""What did not run is still missing."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    test: str = Field(pattern=r"^tests/regression/[\w/-]*test_\w+\.py(::\w+)*$")
    owner: str = Field(pattern=OWNER)
    because: str = Field(min_length=1, max_length=400)
    since: date
    until: date
    back: str = Field(min_length=1, max_length=400)

    @field_validator("because", "back")
    @classmethod
    def _is_one_line(cls, value: str) -> str:
        if not value.strip() or not value.isprintable():
            raise ValueError("it is no line that can be read; write a sentence in one line")
        return value.strip()

    @model_validator(mode="after")
    def _has_an_end(self) -> _Entry:
        if self.until <= self.since:
            raise ValueError(f"until {self.until} is not after since {self.since}; write a later day")
        if (self.until - self.since).days > MOST_DAYS:
            raise ValueError(f"until {self.until} is more than {MOST_DAYS} days after since; write an earlier day")
        return self


_File = TypeAdapter(list[_Entry])

_FIXES = {
    "extra_forbidden": "remove the key, or mend its spelling",
    "missing": "add it",
    "string_type": "write it as text",
    "model_type": f"write {_EXAMPLE}",
    "string_too_short": "write why",
    "string_too_long": "write one sentence",
}


def read_quarantine(root: Path, today: date, known: Collection[str] | None = None) -> tuple[Quarantined, ...]:
    """Every entry of the repository at ``root``, in the file's order; none where there is no such file.

    ``today`` is the day in UTC; from an entry's ``until`` on it is ``expired``. ``known`` are the tests that there
    are, without parameters; None: nobody asks. Raises `ConfigError` with every problem, each as
    ``file:line: path: problem: fix``.
    """
    path = root / FILE
    text = text_of(path)
    if text is None:
        return ()
    try:
        node = compose_list(text)
        values = construct(node)
    except YamlProblem as problem:
        raise ConfigError([f"{path}:{problem.line}: : {problem}: write {_EXAMPLE}, or [] for none"]) from problem
    problems = [(line, f"{where}: it stands twice: keep one") for line, where in repeated_keys(node)]
    try:
        entries = _File.validate_json(json.dumps(values, default=str, ensure_ascii=False))
    except ValidationError as error:
        problems += _problems(node, error)
        entries = []
    problems += [
        (line_of(node, (at, key)), f"{at}.{key}: {said}") for at, key, said in _contradictions(entries, today, known)
    ]
    if problems:
        raise ConfigError([f"{path}:{line}: {said}" for line, said in sorted(problems)])
    return tuple(
        Quarantined(
            entry.test,
            entry.owner,
            entry.because,
            entry.since.isoformat(),
            entry.until.isoformat(),
            entry.back,
            expired=today >= entry.until,
        )
        for entry in entries
    )


def _problems(node: yaml.Node, error: ValidationError) -> Iterator[tuple[int, str]]:
    for detail in error.errors(include_url=False):
        where = ".".join(map(str, detail["loc"]))
        kind, said = detail["type"], detail["msg"].removeprefix("Value error, ")
        fix = _FIXES.get(kind)
        if kind == "string_pattern_mismatch":
            is_owner = detail["loc"][-1] == "owner"
            said = f"{detail['input']!r} is not of the right form"
            fix = 'write "@organisation/team"' if is_owner else "write pytest's node id, without parameters"
        elif kind.startswith("date"):
            fix = "write a day, such as 2026-12-04"
        elif kind == "value_error":
            said, _, fix = said.partition("; ")
        yield line_of(node, tuple(detail["loc"])), f"{where}: {said}: {fix or 'mend the value'}"


def _contradictions(
    entries: Sequence[_Entry], today: date, known: Collection[str] | None
) -> Iterator[tuple[int, str, str]]:
    for at, entry in enumerate(entries):
        if entry.since > today:
            yield at, "since", f"{entry.since} is yet to come, and today is {today}: write the day of the entry"
        if known is not None and not any(is_meant(test, entry.test) for test in known):
            yield at, "test", f"there is no {entry.test}: mend its name, or remove the entry"
        for before in entries[:at]:
            if is_meant(entry.test, before.test) or is_meant(before.test, entry.test):
                yield at, "test", f"an entry above means {before.test}: keep one"


def is_meant(test: str, entry: str) -> bool:
    """Whether ``entry`` means ``test``: by its file, its class, or its function with any parameters."""
    return test == entry or test.startswith((f"{entry}::", f"{entry}["))


def is_excused(result: GuardResult, quarantine: Sequence[Quarantined]) -> bool:
    """Whether an entry that has not expired means its test."""
    return any(not entry.expired and is_meant(result.test, entry.test) for entry in quarantine)


def excused(said: GuardResult, quarantine: Sequence[Quarantined]) -> GuardResult:
    """``said``, which is to pass: in quarantine, with its real end in the reason, where an entry means it."""
    if said.outcome not in EXCUSABLE or not is_excused(said, quarantine):
        return said
    end = f"{said.outcome.value}: {said.reason}" if said.reason else said.outcome.value
    return replace(said, outcome=GuardOutcome.QUARANTINED, reason=end)


def excuse(report: GuardReport, quarantine: tuple[Quarantined, ...], claims: Mapping[str, Claim]) -> GuardReport:
    """``report`` with what is in quarantine as that, its real end in the reason, and with what it proves then.

    Where guards are to fail nothing is excused; the bed's own controls are to pass everywhere.
    """

    def seen(run: TreeRun) -> TreeRun:
        must_pass = [run.composed or said.slug == BED_SUITE for said in run.results]
        results = (
            excused(said, quarantine) if must else said for said, must in zip(run.results, must_pass, strict=True)
        )
        return run if run.beside else replace(run, results=tuple(results))

    runs = tuple(map(seen, report.runs))
    proofs = prove(claims, runs) if runs != report.runs else report.proofs
    return replace(report, runs=runs, proofs=proofs, quarantine=quarantine)


def overdue(quarantine: Sequence[Quarantined]) -> tuple[str, ...]:
    """A sentence on each entry that has expired, with what to do."""
    return tuple(
        f"{FILE}: {entry.test} was to be out of quarantine on {entry.until} ({entry.owner}; out once: {entry.back}): "
        "mend it and remove the entry, or give it a new day"
        for entry in quarantine
        if entry.expired
    )
