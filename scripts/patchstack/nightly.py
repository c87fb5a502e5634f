"""The night: nothing but the verbs in order, under one lock, with a report whatever happens.

It can be done in parts, by several processes on several machines: each packs its run (`pack.py`), the next one
goes on from there, and the report grows along the way.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from patchstack.deadline import Deadline
from patchstack.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    CompositionError,
    GateFailed,
    ImageError,
    MachineError,
    PatchstackError,
    UsageError,
)
from patchstack.git import without_secret
from patchstack.model import (
    Action,
    Bar,
    Blame,
    Candidates,
    Composition,
    GuardReport,
    ImageResult,
    ImageTests,
    LaneRuns,
    LedgerLine,
    MergePlan,
    NightReport,
    Promotion,
    Refusal,
    Status,
    Timing,
)
from patchstack.pack import REPORT_TEXT, keep_run, read_value, read_value_if_there, unpacked, write_pack
from patchstack.release.hold import require_unbarred
from patchstack.release.ledger import History
from patchstack.release.loss import require_few
from patchstack.release.remote import RemoteState
from patchstack.release.repair import next_moment
from patchstack.report.hotfix import hotfix_notes
from patchstack.report.markdown import render_markdown
from patchstack.report.rangediff import range_diffs
from patchstack.store import Run, now_utc, write_whole
from patchstack.verbs.author import validate
from patchstack.verbs.barred import bars_in_force
from patchstack.verbs.handed_answers import NO_ANSWERS, Answers, with_answers
from patchstack.verbs.history import read_past, remember_night
from patchstack.verbs.image import image_settings
from patchstack.verbs.image_tags import follow_ledger, image_is_due, tags_to_move
from patchstack.verbs.losses import write_losses
from patchstack.verbs.plan import merge, plan, read_composition, require_token
from patchstack.verbs.promote import promote
from patchstack.verbs.remote import list_remote, open_remote
from patchstack.verbs.repair import repair
from patchstack.verbs.rounds import Handed, Means, Tested, hand_over, make_the_image, test_until_settled
from patchstack.verbs.settled import remember_settled
from patchstack.workplace import Clock, Workplace


class Until(StrEnum):
    """The last stage that a process does of a night."""

    MERGE = "merge"
    IMAGE = "image"
    TEST = "test"
    PROMOTE = "promote"


@dataclass(frozen=True)
class Part:
    """Which part of a night a process does, and what it takes from the one before and hands to the next."""

    until: Until = Until.PROMOTE
    unpack: Path | None = None
    """The pack to go on from; None: a new night."""
    tests: Path | None = None
    """The pack with what the guards said; None: they are run here."""
    pack: Path | None = None
    answers: Answers = NO_ANSWERS
    """What GitHub's runners said of other lanes, beside ``tests``."""


WHOLE = Part()

NO_GITHUB = "no GitHub was asked: the candidates are the remote's refs/pull/*/head"
NOT_OVER = {
    Until.MERGE: "the night is composed and goes on elsewhere: no guard has run yet",
    Until.IMAGE: "the image is pushed and the night goes on elsewhere: no guard has run yet",
    Until.TEST: "the night is tested and goes on elsewhere: nothing was moved yet",
}


@dataclass
class _Sofar:
    """What the night knows when it ends, wherever it ends."""

    plan: MergePlan | None = None
    tested: Tested = field(default_factory=Tested)
    promotion: Promotion | None = None
    previous: LedgerLine | None = None
    held: LedgerLine | None = None
    bars: tuple[tuple[str, Bar], ...] = ()
    notes: list[str] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    nothing_to_do: bool = False
    no_github: bool = False
    remote: str = ""
    """Where the part before this one says that its candidates are from."""
    may_write: bool = False
    """This process has looked after the remote's tags, and may therefore write there."""
    ended: NightReport | None = None
    """The report of a night that is over."""

    @classmethod
    def of(
        cls,
        report: NightReport,
        composition: Composition | None,
        plan: MergePlan | None,
        image: ImageResult | None,
    ) -> _Sofar:
        """What a pack tells of its night; what is promoted is read from its stage, and not from its report."""
        over = report.nothing_to_do or report.exit_code != EXIT_OK or report.promotion is not None
        return cls(
            plan=plan,
            tested=Tested(composition, report.losses, report.range_diffs, image),
            previous=report.previous,
            held=report.held,
            bars=report.bars,
            notes=[note for note in report.notes if note not in {NO_GITHUB, *NOT_OVER.values()}],
            timings=list(report.timings),
            no_github=NO_GITHUB in report.notes,
            remote=report.remote,
            ended=report if over else None,
        )


def night(
    work: Workplace,
    *,
    force: bool = False,
    accept_lost: bool = False,
    only: Sequence[str] = (),
    jobs: int | None = None,
    part: Part = WHOLE,
    deadline_min: int | None = None,
    notes: Sequence[str] = (),
) -> NightReport:
    """Run a night, or a part of it. The caller holds the lock, and ``notes`` say what was done when it got it.

    A new night gets a new run folder; one that is unpacked goes on where its pack ends, and one that has ended
    there stays as it is. ``only``: a hotfix, which adds these pull requests (`pull_names`) to what is deployed. Wrong
    input is refused before anything is made, and a hotfix that cannot be meant so leaves no run. After that a failure
    that stops the night is in the report with its exit code. The pack has the report, however the part ended.
    """
    run, sofar, handed = _begin(work, part)
    sofar.notes += notes
    if sofar.ended is not None:
        report = sofar.ended
    else:
        spent_s = sum(timing.seconds for timing in sofar.timings)
        minutes = work.config.deadline_min if deadline_min is None else deadline_min
        deadline = Deadline.after(minutes, spent_s=spent_s)
        resumed = part.unpack is not None
        doing = _Doing(force, jobs, part.until, handed, deadline, resumed, accept_lost, tuple(only))
        report = _go_on(work, run, sofar, doing)
    if part.pack is not None:
        write_pack(run, work.state, work.store(), part.pack)
    return report


def _begin(work: Workplace, part: Part) -> tuple[Run, _Sofar, Handed | None]:
    """The run, what is known of its night, and what was found out about it on another machine."""
    image_settings(work)  # what the environment says of them may be wrong
    if part.unpack is None:
        require_token(work)
        validate(work.config_path)
        return work.state.new_run(), _Sofar(no_github=work.local), None
    validate(work.config_path)
    handed: Handed | None = None
    with unpacked(part.unpack, work.state, work.store(), work.lane_name) as fresh:
        composition = read_composition(work, fresh) if fresh.has(Composition) else None
        report = fresh.read(NightReport)
        sofar = _Sofar.of(
            report,
            composition,
            fresh.read(MergePlan) if fresh.has(MergePlan) else None,
            fresh.read(ImageResult) if fresh.has(ImageResult) else None,
        )
        if sofar.ended is None:
            if composition is None:
                raise UsageError(f"{part.unpack} is of a night that was not composed: run `patchstack nightly`")
            if part.tests is not None:
                tests, looked = read_value(part.tests, GuardReport), read_value_if_there(part.tests, ImageTests)
                blame, lanes = read_value_if_there(part.tests, Blame), read_value_if_there(part.tests, LaneRuns)
                handed = hand_over(work, fresh, composition, report.previous, tests, looked, blame, lanes)
                handed, said = with_answers(work, fresh, composition, handed, part.answers)
                sofar.notes += said
        run = keep_run(fresh, work.state)
        write_whole(run.folder / REPORT_TEXT, render_markdown(report))
    return run, sofar, handed


@dataclass(frozen=True)
class _Doing:
    """What this process is to do of a night."""

    force: bool
    jobs: int | None
    until: Until
    handed: Handed | None
    deadline: Deadline
    resumed: bool = False
    """It goes on with a night that another process began."""
    accept_lost: bool = False
    """It goes on whatever of the deployed night is missing."""
    only: tuple[str, ...] = ()
    """A hotfix: the pull requests that it adds to what is deployed."""


def _go_on(work: Workplace, run: Run, sofar: _Sofar, doing: _Doing) -> NightReport:
    clock = Clock(time.monotonic)
    failure: BaseException | None = None
    try:
        _verbs_in_order(work, run, clock, sofar, doing)
    except (Exception, KeyboardInterrupt) as error:
        if doing.only and sofar.plan is None and isinstance(error, UsageError):
            shutil.rmtree(run.folder)  # what was asked for is no night
            raise
        failure = error
        if not isinstance(error, PatchstackError | KeyboardInterrupt):
            with suppress(OSError):  # the same that failed already, most likely: a full disk
                write_whole(run.folder / "traceback.txt", "".join(traceback.format_exception(error)))
    if doing.until is Until.PROMOTE and not isinstance(failure, KeyboardInterrupt):  # else it may not write there
        promoted = sofar.promotion is not None
        known = sofar.tested
        sofar.notes += remember_night(work, run, known.composition, known.tests, promoted=promoted, blame=known.blame)
    sofar.timings += [Timing(stage, seconds) for stage, seconds in clock.stages]
    report = _report(work, run, sofar, failure, doing.until)
    try:
        run.write(report)
        write_whole(run.folder / REPORT_TEXT, render_markdown(report))
    except OSError:
        if failure is None:
            raise
    if report.nothing_to_do:
        remember_settled(work, report)
    return report


def _verbs_in_order(work: Workplace, run: Run, clock: Clock, sofar: _Sofar, doing: _Doing) -> None:
    if sofar.tested.composition is None:
        sofar.tested.composition = _compose(work, run, clock, sofar, doing)
    if sofar.tested.composition is None or doing.until is Until.MERGE:
        return
    hands_on_no_image = doing.resumed and doing.until is Until.TEST
    means = Means(sofar.previous, doing.deadline, doing.jobs, doing.handed, makes_image=not hands_on_no_image)
    make_the_image(work, run, clock, sofar.tested, means)
    if doing.until is Until.IMAGE:
        return
    test_until_settled(work, run, clock, sofar.tested, means)
    if doing.until is Until.TEST:
        return
    if not sofar.may_write:  # the part that composed could only read
        with clock.stage("remote"), work.progress.stage("remote"):
            _repair(work, sofar, open_remote(work))
    with clock.stage("promote"), work.progress.stage("promote"):
        _look_at_orders(sofar, open_remote(work).history)
        if sofar.held is not None:
            return
        promoted = promote(work, run)
        sofar.promotion = promoted.promotion
        sofar.notes += promoted.notes
        sofar.notes += follow_ledger(work, open_remote(work).history).notes


def _compose(work: Workplace, run: Run, clock: Clock, sofar: _Sofar, doing: _Doing) -> Composition | None:
    """Plan and merge; None where there is nothing to do."""
    with clock.stage("remote"), work.progress.stage("remote"):
        listed = list_remote(work)
        remote = open_remote(work, listed)
        next_moment(remote.history, now_utc())  # with a wrong clock nothing would come of the night
        sofar.previous = remote.history.last.line if remote.history.last else None
        _look_at_orders(sofar, remote.history)
        sofar.notes += read_past(work, run, remote, listed).notes
        may_write = doing.until is Until.PROMOTE
        if may_write:
            _repair(work, sofar, remote)
    with clock.stage("plan"), work.progress.stage("plan"):
        sofar.plan = plan(work, run, listed=listed, only=doing.only)
        require_unbarred(remote.history, sofar.plan.fingerprint, sofar.plan.steps)
    if doing.only:
        sofar.notes += hotfix_notes(remote.history.foreign_on_top, remote.branch)
    elif not doing.force and _is_settled(work, sofar.plan, remote):
        late = () if may_write else _late_tags(work, sofar, remote)
        sofar.nothing_to_do = not late
        if sofar.nothing_to_do:
            return None
        sofar.notes.append(f"nothing has changed, and image tags lag ({', '.join(late)}): the night moves them")
    with clock.stage("merge"), work.progress.stage("merge"):
        made = merge(work, run)
        sofar.tested.composition = made
        sofar.tested.range_diffs = range_diffs(work.store(), sofar.previous, made)
        sofar.tested.losses = losses = write_losses(work, run, made, remote.history, accept=doing.accept_lost)
        require_few(losses)
    return made


def _look_at_orders(sofar: _Sofar, history: History) -> None:
    """What operators have said that this night obeys, as far as it is in force now."""
    sofar.held = history.hold.line if history.hold else None
    sofar.bars = bars_in_force(history)


def _repair(work: Workplace, sofar: _Sofar, remote: RemoteState) -> None:
    sofar.may_write = True
    sofar.notes += repair(work, remote)
    sofar.notes += follow_ledger(work, remote.history).notes


def _is_settled(work: Workplace, planned: MergePlan, remote: RemoteState) -> bool:
    """Whether this very plan is deployed, its proof is young enough, and no night has been red since.

    After a rollback or a release it is not: whoever said so waits for a night.
    """
    last = remote.history.last
    newest_said = next((one for one in remote.history.entries if one.line.action is not Action.HOLD), None)
    if newest_said is None or newest_said.line.action is not Action.NIGHT:
        return False
    if last is None or last.line.fingerprint != planned.fingerprint.digest or remote.history.foreign_on_top:
        return False
    if now_utc() - datetime.fromisoformat(last.line.at) > timedelta(days=work.config.max_age_days):
        return False
    try:
        newest = work.newest_report()
    except UsageError:  # damaged, or another version's: how that night ended is not known
        return False
    return (newest is None or newest.headline is Status.PASS) and not image_is_due(work, last.line, planned.base)


def _late_tags(work: Workplace, sofar: _Sofar, remote: RemoteState) -> tuple[str, ...]:
    """Image tags that a part which may write would move: without one they would lag until something changes."""
    try:
        return tags_to_move(work, remote.history)
    except ImageError as error:  # it may be for those alone who have the login
        sofar.notes.append(f"where the image tags are could not be asked: {error}")
        return ()


def _report(work: Workplace, run: Run, sofar: _Sofar, failure: BaseException | None, until: Until) -> NightReport:
    goes_on = failure is None and not sofar.nothing_to_do and until is not Until.PROMOTE
    tested = sofar.tested
    notes = [
        *sofar.notes,
        *tested.notes,
        *([NOT_OVER[until]] if goes_on else []),
        *([NO_GITHUB] if sofar.no_github else []),
    ]
    return NightReport(
        night=run.id,
        at=now_utc().isoformat(),
        lane=work.lane_name,
        remote=sofar.remote if sofar.remote and not sofar.may_write else _remote_of(work),
        headline=Status.INCOMPLETE if goes_on else _headline(failure),
        nothing_to_do=sofar.nothing_to_do,
        composition=tested.composition,
        hotfix=known.hotfix if (known := tested.composition or sofar.plan) else None,
        losses=tested.losses,
        held=sofar.held,
        bars=sofar.bars,
        image=tested.image,
        tests=tested.tests,
        image_tests=tested.image_tests,
        lanes=tested.lanes,
        verdicts=tested.verdicts,
        blame=tested.blame,
        measures=tested.measures,
        quarantined_green=tested.quarantined_green,
        promotion=sofar.promotion,
        previous=sofar.previous,
        range_diffs=tested.range_diffs,
        timings=tuple(sofar.timings),
        notes=tuple(notes),
        failure=_said(failure),
        exit_code=_exit_code(failure),
        left_out=sofar.plan.left_out if sofar.plan and not tested.composition else (),
        planned=sofar.plan.steps if sofar.plan and not tested.composition else (),
        refused=_refused(failure),
        asked=run.read(Candidates).asked if run.has(Candidates) else (),
    )


def _remote_of(work: Workplace) -> str:
    return "the embedded remote" if work.embedded else without_secret(work.remote)


def _refused(failure: BaseException | None) -> Refusal | None:
    if isinstance(failure, CompositionError) and failure.patch:
        return Refusal(failure.patch, failure.files)
    return None


def _exit_code(failure: BaseException | None) -> int:
    if failure is None:
        return EXIT_OK
    if isinstance(failure, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(failure, OSError):
        return MachineError.exit_code
    return failure.exit_code if isinstance(failure, PatchstackError) else PatchstackError.exit_code


def _said(failure: BaseException | None) -> str:
    if failure is None or isinstance(failure, PatchstackError):
        return str(failure) if failure else ""
    if isinstance(failure, KeyboardInterrupt):
        return "interrupted"
    if isinstance(failure, OSError):
        return f"this machine did not allow it: {failure}; traceback.txt in the run's folder shows where"
    return f"a bug in patchstack ({type(failure).__name__}: {failure}); traceback.txt in the run's folder shows where"


def _headline(failure: BaseException | None) -> Status:
    """FAIL when the night found something wrong in its inputs, INCOMPLETE when it could not find out."""
    if failure is None:
        return Status.PASS
    return Status.FAIL if isinstance(failure, GateFailed | CompositionError) else Status.INCOMPLETE


def read_report(work: Workplace, run_id: str | None) -> NightReport:
    """The report of a run, or of the newest night."""
    run = work.state.run(run_id) if run_id is not None else work.state.latest_run(having=NightReport)
    if run is None:
        raise UsageError(f"no night has run in {work.state.root} yet: run `patchstack nightly`")
    return run.read(NightReport)
