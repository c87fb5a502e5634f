"""What other lanes than `cpu` said, in words: who ran each, on what, how its jobs ended, and all that is not green.

A rehearsal ran on a CPU. Wherever its results are told that is told with them: no reader takes it for the lane's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from patchstack.model import Form, GuardOutcome, GuardResult, Hardware, JobEnd, JobState, LaneRun, LaneRuns
from patchstack.report import measure_words, words
from patchstack.report.page import Badge, Line, Prose, Quoted, Section, Table

TITLE = "Other lanes"
COLUMNS = ("Lane", "Run by", "Form", "Hardware", "Jobs", "Results")
ROWS = 30
REHEARSED = "rehearsed on a CPU, never run on a GPU"
_FORMS = {Form.DEVICE: "in the image", Form.REHEARSAL: "rehearsal"}
_RED = (GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.TIMEOUT)
_NO_GPU = "no GPU"


def section(lanes: LaneRuns | None) -> tuple[Section, ...]:
    """Every lane in a row; below it the machines, the jobs that gave no answer at once, and each test but the green.

    Then what each lane measured, a section for each kind of hardware.
    """
    if lanes is None or not lanes.runs:
        return ()
    intro = (words.of_composition(lanes.composition), *(rehearsed(run) for run in lanes.runs if _is_rehearsal(run)))
    told = [*_machines(lanes.runs), *_jobs(lanes.runs), *_not_green(lanes.runs)]
    more = words.more(max(len(told), len(lanes.runs)) - ROWS)
    whole = Section(TITLE, intro, Table(COLUMNS, tuple(map(_row, lanes.runs[:ROWS]))), tuple(told[:ROWS]), more)
    numbers = [
        part
        for run in lanes.runs
        for measures in run.measures
        for part in measure_words.section(measures, f"{measure_words.TITLE} of {run.lane}")
    ]
    return (whole, *numbers)


def standing(lanes: LaneRuns | None) -> tuple[Section, ...]:
    """One line a lane, for who asks where things stand."""
    lines = tuple(_in_short(run) for run in lanes.runs) if lanes else ()
    return (Section(TITLE, items=lines[:ROWS], more=words.more(len(lines) - ROWS)),) if lines else ()


def red(lanes: LaneRuns | None) -> tuple[Line, ...]:
    """Each lane that is red on what it is for, with its tests and numbers; a rehearsal keeps nothing from moving."""
    lines: list[Line] = []
    for run in lanes.runs if lanes else ():
        why = [_result(run, result) for result in run.results if result.outcome in _RED]
        why += [line for measures in run.measures for line in measure_words.worse(measures)]
        if why and not _is_rehearsal(run):
            lines.append(("Lane ", Quoted(run.lane), " is red on ", *_hardware(run), ": ", tally(run.results), "."))
            lines += why
    return tuple(lines)


def rehearsed(run: LaneRun) -> Line:
    return ("Lane ", Quoted(run.lane), f" was {REHEARSED}: that shows that its tests work, and proves no patch.")


def tally(results: Iterable[GuardResult]) -> str:
    """``11 pass, 1 fail``, in the order of `GuardOutcome`."""
    return _counts([result.outcome for result in results]) or "nothing ran"


def machine(hardware: Hardware) -> Line:
    """All that is known of it, in one line."""
    parts = [hardware.processor, f"{hardware.memory_gib} GiB", gpus(hardware)]
    named = (
        ("driver", hardware.driver),
        ("CUDA", hardware.cuda),
        ("NCCL", hardware.nccl),
        ("torch", hardware.torch),
        ("Mooncake", hardware.mooncake),
    )
    parts += [f"{word} {version}" for word, version in named if version]
    parts += list(hardware.nics)
    return (Quoted(hardware.node), ": ", Quoted("; ".join(parts)))


def gpus(hardware: Hardware) -> str:
    """``2 x NVIDIA H200, 140 GiB``, each model once."""
    each = dict.fromkeys(hardware.gpus)
    return "; ".join(f"{hardware.gpus.count(gpu)} x {gpu}" for gpu in each) or _NO_GPU


def render_recorded(
    written: Sequence[str], there: Sequence[str], refused: Sequence[tuple[str, str]], *, dry_run: bool
) -> str:
    """What `patchstack record` prints: paths, and lanes with why there is no record of them."""
    lines = [f"{path}: {'would be written' if dry_run else 'written'}" for path in written]
    lines += [f"{path}: is there already" for path in there]
    lines += [f"lane {lane}: no record: {why}" for lane, why in refused]
    then = "`make schema` writes the tables again; commit both"
    return "\n".join([*lines, *([then] if written and not dry_run else [])])


# --- the table ---


def _row(run: LaneRun) -> tuple[Line, ...]:
    return (
        (Quoted(run.lane),),
        (Quoted(run.executor),),
        (_FORMS[run.form],),
        _hardware(run),
        (_counts([job.state for job in run.jobs]),),
        (tally(run.results),),
    )


def _hardware(run: LaneRun) -> Line:
    """The GPUs of the lane's machines, each kind once."""
    kinds = dict.fromkeys(gpus(answer.hardware) for answer in run.answers if answer.hardware)
    return words.joined([(Quoted(each),) for each in kinds]) or ("unknown hardware",)


def _in_short(run: LaneRun) -> Line:
    place: Line = (f", {REHEARSED}",) if _is_rehearsal(run) else (" on ", *_hardware(run))
    return (Quoted(run.lane), ": ", tally(run.results), *place, " (", Quoted(run.executor), ")")


def _counts(values: Sequence[StrEnum]) -> str:
    tallied = {value: values.count(value) for value in (type(values[0]) if values else ())}
    return ", ".join(f"{number} {value.value}" for value, number in tallied.items() if number)


# --- below it ---


def _machines(runs: Iterable[LaneRun]) -> list[Line]:
    """Each once, with the lanes that ran on it."""
    found: dict[Hardware, list[str]] = {}
    for run in runs:
        for answer in run.answers:
            if answer.hardware and run.lane not in found.setdefault(answer.hardware, []):
                found[answer.hardware].append(run.lane)
    return [(*words.names(lanes), " ran on ", *machine(hardware)) for hardware, lanes in found.items()]


def _jobs(runs: Iterable[LaneRun]) -> list[Line]:
    every = [(run, end) for run in runs for end in run.jobs]
    return [_job(run, end) for run, end in every if end.state is not JobState.ANSWERED or end.begun > 1 or end.detail]


def _job(run: LaneRun, end: JobEnd) -> Line:
    node: Line = (" on ", Quoted(end.node)) if end.node else ()
    often = f", begun {end.begun} times" if end.begun else ", never begun"
    begun = often if end.begun != 1 else ""
    why: Line = (": ", Prose(end.detail)) if end.detail else ()
    return (
        "Job ",
        Quoted(str(end.job.shard)),
        " of ",
        Quoted(run.lane),
        *node,
        ": ",
        Badge(end.state.value),
        begun,
        *why,
    )


def _not_green(runs: Iterable[LaneRun]) -> list[Line]:
    """Of all lanes, what is red first."""
    every = [(run, result) for run in runs for result in run.results if result.outcome is not GuardOutcome.PASS]
    return [_result(run, result) for run, result in sorted(every, key=lambda pair: pair[1].outcome not in _RED)]


def _result(run: LaneRun, result: GuardResult) -> Line:
    where = ", in rehearsal" if _is_rehearsal(run) else ""
    before = f" after {words.count(len(result.attempts), 'attempt', 'attempts')}" if result.attempts else ""
    why: Line = (": ", Prose(result.reason)) if result.reason else ()
    return (Quoted(result.test), " of ", Quoted(run.lane), where, ": ", Badge(result.outcome.value), before, *why)


def _is_rehearsal(run: LaneRun) -> bool:
    return run.form is Form.REHEARSAL
