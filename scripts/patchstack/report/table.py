"""Tables of the README and of docs/gpu.md: the patches, and what runs on GPUs; generated, never written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from patchstack.model import GuardOutcome, GuardResult, Hardware, Sha
from patchstack.report import lane_words, words
from patchstack.report.markdown import code, prose

_NIGHT = "%Y%m%dT%H%M%SZ"


class HeardView(Protocol):
    """The newest record of a scenario, as the stage that reads them has it."""

    @property
    def record(self) -> str: ...
    @property
    def night(self) -> str: ...
    @property
    def tree(self) -> Sha: ...
    @property
    def hardware(self) -> Hardware: ...
    @property
    def in_image(self) -> bool: ...
    @property
    def results(self) -> tuple[GuardResult, ...]: ...


class ListedView(Protocol):
    """One scenario of another lane than `cpu`."""

    @property
    def test(self) -> str: ...
    @property
    def lane(self) -> str: ...
    @property
    def gpus(self) -> int: ...
    @property
    def shows(self) -> str: ...
    @property
    def form(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def est_s(self) -> float: ...
    @property
    def gpu_min(self) -> float: ...
    @property
    def heard(self) -> HeardView | None: ...


@dataclass(frozen=True)
class PatchRow:
    slug: str
    symptom: str
    """One sentence; backticks in it make code."""
    need: str
    """On the lane's base: ``needed``, ``hardening`` or why not at all."""
    upstream_status: str
    optional: bool = False
    scenarios: tuple[ListedView, ...] = ()
    """Those of other lanes that guard it."""


def patch_table(rows: Sequence[PatchRow]) -> str:
    """The table in Markdown, one row a patch in the given order, ending with a newline."""
    return _table(words.PATCH_COLUMNS, [_patch(row) for row in rows])


def _patch(row: PatchRow) -> tuple[str, ...]:
    name = f"{code(row.slug)} ({words.OPTIONAL})" if row.optional else code(row.slug)
    return (name, prose(row.symptom), prose(row.need), prose(row.upstream_status), in_sum(row.scenarios))


def in_sum(scenarios: Sequence[ListedView]) -> str:
    """How many of ``scenarios`` ran on their lane's machines, how they ended, and when the last one did."""
    heard = [one.heard for one in scenarios if one.heard is not None]
    if not heard:
        return words.NEVER_ON_GPU if not scenarios or any(one.gpus for one in scenarios) else words.NEVER
    passed = sum(all(said.outcome is GuardOutcome.PASS for said in one.results) for one in heard)
    day = max(map(_day, heard))
    return f"{passed} of {words.count(len(scenarios), 'scenario', 'scenarios')} passed, the newest on {day}"


# --- docs/gpu.md ---


def scenario_table(scenarios: Sequence[ListedView], records: str) -> str:
    """One row a scenario, those of a file together; ``records`` is the way from the page to the folder of records."""
    files = dict.fromkeys(_file(one) for one in scenarios)
    rows = []
    for file in files:
        mine = [one for one in scenarios if _file(one) == file]
        rows += [_scenario(one, records, shows=number == 0) for number, one in enumerate(mine)]
    return _table(words.SCENARIO_COLUMNS, rows)


def _scenario(one: ListedView, records: str, *, shows: bool) -> tuple[str, ...]:
    """What a file shows is said in the first of its rows."""
    name = one.test.rpartition("/")[2]
    size = ", ".join(code(part) for part in (one.form.rpartition(", ")[2], one.model) if part)
    return (
        code(name),
        prose(one.shows) if shows else "",
        code(one.lane),
        size,
        _minutes(one.gpu_min),
        _last(one, records),
    )


def _file(one: ListedView) -> str:
    return one.test.partition("::")[0]


def _last(one: ListedView, records: str) -> str:
    """When, how it ended, on what, on which tree; outside the night's image is said."""
    heard = one.heard
    if heard is None:
        return words.NEVER_ON_GPU if one.gpus else words.NEVER
    took = words.seconds(sum(said.duration_s for said in heard.results))
    place = "" if heard.in_image else f", {words.NOT_IN_THE_IMAGE}"
    ran_on = f"{code(lane_words.gpus(heard.hardware))}{place}, tree {code(heard.tree[:12])}"
    return f"[{_day(heard)}]({records}/{heard.record}): {lane_words.tally(heard.results)} in {took} s on {ran_on}"


def _day(heard: HeardView) -> str:
    return f"{datetime.strptime(heard.night.partition('-')[0], _NIGHT).replace(tzinfo=UTC):%Y-%m-%d}"


def model_table(scenarios: Sequence[ListedView]) -> str:
    """One row a model, by name: which lanes want it."""
    rows = []
    for model in sorted({one.model for one in scenarios if one.model}):
        lanes = dict.fromkeys(one.lane for one in scenarios if one.model == model)
        rows.append((code(model), ", ".join(map(code, lanes))))
    return _table(words.MODEL_COLUMNS, rows)


# --- the README ---


def lane_table(scenarios: Sequence[ListedView]) -> str:
    """One row a lane, in the order of ``scenarios``: what its whole selection costs, and what of it ever ran."""
    rows = []
    for lane in dict.fromkeys(one.lane for one in scenarios):
        mine = [one for one in scenarios if one.lane == lane]
        minutes = sum(one.est_s for one in mine) / 60
        cost = (_minutes(minutes), _minutes(sum(one.gpu_min for one in mine)))
        rows.append((code(lane), str(mine[0].gpus), str(len(mine)), *cost, in_sum(mine)))
    return _table(words.LANE_COLUMNS, rows)


def _minutes(value: float) -> str:
    return f"{value:.0f}" if value >= 1 or value == 0 else f"{value:.1f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
