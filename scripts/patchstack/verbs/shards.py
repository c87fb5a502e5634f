"""`patchstack test --shard` and `--gather`: the guards of one composition on several machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from patchstack.errors import MachineError, UsageError
from patchstack.model import Composition, Division, GuardReport, Past, Sha, Shard
from patchstack.regress.declared import CPU
from patchstack.regress.durations import read_durations
from patchstack.regress.expected import NOT_HEARD, Due, completed
from patchstack.regress.prove import prove
from patchstack.regress.shards import Part, decide_shards, gather, weights
from patchstack.regress.suites import BED_SUITE, files_of
from patchstack.store import Run, decode
from patchstack.verbs.handed import require_said_of
from patchstack.verbs.selection import Selection, dues_elsewhere, dues_of, select
from patchstack.workplace import Workplace


def shard_of(work: Workplace, run: Run, selection: Selection, part: Part) -> Shard:
    """The files of ``part``; how they are divided is decided once for a run, and stands in its shards.json."""
    files = _files(work, selection)
    if not run.has(Division):
        run.write(Division(CPU, decide_shards(_seconds(work, selection), part.count)))
    division = run.read(Division)
    if len(division.shards) != part.count:
        raise UsageError(f"run {run.id} is divided into {len(division.shards)} shards already: --shard {part} is none")
    if sorted(file for shard in division.shards for file in shard) != sorted(files):
        raise UsageError(f"the shards of run {run.id} were decided for other guards: test in a new run")
    return Shard(part.number, part.count, division.shards[part.number - 1])


def answered(work: Workplace, report: GuardReport, selection: Selection, composed: Sha) -> GuardReport:
    """``report`` with a result for all that must answer: what pytest never spoke of is missing."""
    return _completed(report, selection, dues_of(selection, work.root, composed), lambda _: NOT_HEARD)


def with_absent(
    work: Workplace, report: GuardReport, selection: Selection, composed: Sha, shards: Sequence[Shard]
) -> GuardReport:
    """``report``, which is that of ``shards``, with all that others were to run as missing, on every tree."""
    mine = {file for shard in shards for file in shard.files}
    numbers = ", ".join(str(shard) for shard in sorted(shards, key=lambda shard: shard.number))
    why = f"shard{'s' if len(shards) > 1 else ''} {numbers} did not run it"
    return _completed(report, selection, dues_elsewhere(selection, work.root, composed, mine), lambda _: why)


def _completed(
    report: GuardReport, selection: Selection, dues: Sequence[Due], why: Callable[[str], str]
) -> GuardReport:
    runs = completed(report.runs, dues, why)
    return replace(report, runs=runs, proofs=prove(selection.claims, runs))


def gathered(work: Workplace, composition: Composition, paths: Sequence[Path], past: Past | None = None) -> GuardReport:
    """The reports in ``paths`` as the one of ``composition``; ``past`` is what its run has read of earlier nights.

    `UsageError` where they are not of it; a shard that is not among them is missing by the names of its tests.
    """
    selection = select(work, composition, ())
    reports = [_read(path) for path in paths]
    report = gather(reports, selection.claims)
    shards = [given.shard for given in reports if given.shard is not None]
    report = with_absent(work, report, selection, composition.tree, shards)
    report = answered(work, report, selection, composition.tree)
    require_said_of(work, composition, report, past=past)
    return report


def _files(work: Workplace, selection: Selection) -> list[str]:
    """Every test file of the selection, once."""
    return list(dict.fromkeys(file for suite in selection.suites for file in files_of(work.root, suite)))


def _seconds(work: Workplace, selection: Selection) -> dict[str, float | None]:
    said: dict[str, list[float | None]] = {}
    for test in selection.declared:
        said.setdefault(test.file, []).append(test.est_s)
    estimates = {
        file: sum(value for value in each if value is not None) for file, each in said.items() if None not in each
    }
    guards = [suite for suite in selection.suites if suite.slug != BED_SUITE]
    runs = [(file, True) for suite in guards for file in files_of(work.root, suite)]
    runs += [(file, False) for suite in selection.on_grounds for file in files_of(work.root, suite)]
    kills = {trial.name: files_of(work.root, trial.suite) for trial in selection.on_mutants}
    return weights(runs, read_durations(work.cache / "answers"), estimates, kills)


def _read(path: Path) -> GuardReport:
    try:
        return decode(GuardReport, path.read_text(), str(path))
    except FileNotFoundError:
        raise UsageError(f"there is no report {path}: name what `patchstack test --shard I/N --json` wrote") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: it is not text ({error.reason})") from error
    except OSError as error:
        raise MachineError(f"{path} cannot be read: {error.strerror}") from error
