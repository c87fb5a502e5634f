"""The night: nothing but the verbs in order, under one lock, with a report whatever happens."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from patchstack.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    CompositionError,
    GateFailed,
    MachineError,
    PatchstackError,
    UsageError,
)
from patchstack.git import without_secret
from patchstack.model import (
    Candidates,
    Composition,
    GuardReport,
    LedgerLine,
    MergePlan,
    NightReport,
    Promotion,
    RangeDiff,
    Refusal,
    Status,
    Timing,
    Verdict,
)
from patchstack.release.remote import RemoteState
from patchstack.report.markdown import render_markdown
from patchstack.report.rangediff import range_diffs
from patchstack.store import Run, now_utc, write_whole
from patchstack.verbs.author import validate
from patchstack.verbs.plan import merge, plan, require_token
from patchstack.verbs.promote import promote, repair
from patchstack.verbs.remote import list_remote, open_remote
from patchstack.verbs.test import gate, raise_for, run_guards
from patchstack.workplace import Clock, Workplace


@dataclass
class _Sofar:
    """What the night knows when it ends, wherever it ends."""

    plan: MergePlan | None = None
    composition: Composition | None = None
    tests: GuardReport | None = None
    verdicts: tuple[Verdict, ...] = ()
    promotion: Promotion | None = None
    previous: LedgerLine | None = None
    range_diffs: tuple[RangeDiff, ...] = ()
    notes: list[str] = field(default_factory=list)
    nothing_to_do: bool = False


def night(work: Workplace, *, force: bool = False, jobs: int | None = None) -> NightReport:
    """Run a whole night in a new run folder. The caller holds the lock.

    Wrong input is refused before anything is made. After that a failure that stops the night is in the report
    with its exit code.
    """
    require_token(work)
    validate(work.config_path)
    run = work.state.new_run()
    clock = Clock(time.monotonic)
    sofar = _Sofar()
    failure: BaseException | None = None
    try:
        _verbs_in_order(work, run, clock, sofar, force, jobs)
    except (Exception, KeyboardInterrupt) as error:
        failure = error
        if not isinstance(error, PatchstackError | KeyboardInterrupt):
            write_whole(run.folder / "traceback.txt", "".join(traceback.format_exception(error)))
    report = _report(work, run, clock, sofar, failure)
    run.write(report)
    write_whole(run.folder / "report.md", render_markdown(report))
    return report


def _verbs_in_order(work: Workplace, run: Run, clock: Clock, sofar: _Sofar, force: bool, jobs: int | None) -> None:
    with clock.stage("remote"), work.progress.stage("remote"):
        listed = list_remote(work)
        remote = open_remote(work, listed)
        sofar.previous = remote.history.last.line if remote.history.last else None
        repaired = repair(work, remote)
        sofar.notes += [f"tag {name} was missing and is made again" for name in repaired.made]
        sofar.notes += [
            f"tag {fault.name} holds something else than its night: not moved" for fault in repaired.elsewhere
        ]
    with clock.stage("plan"), work.progress.stage("plan"):
        sofar.plan = plan(work, run, listed=listed)
    if not force and _is_settled(work, sofar.plan, remote):
        sofar.nothing_to_do = True
        return
    with clock.stage("merge"), work.progress.stage("merge"):
        sofar.composition = merge(work, run)
        sofar.range_diffs = range_diffs(work.store(), sofar.previous, sofar.composition)
    with clock.stage("test"), work.progress.stage("test"):
        sofar.tests = run_guards(work, run, sofar.composition, jobs=jobs)
    verdicts = gate(work, run, sofar.composition, sofar.tests)
    sofar.verdicts = verdicts.verdicts
    raise_for(verdicts, run.id)
    with clock.stage("promote"), work.progress.stage("promote"):
        promoted = promote(work, run)
    sofar.promotion = promoted.promotion
    sofar.notes += promoted.notes


def _is_settled(work: Workplace, planned: MergePlan, remote: RemoteState) -> bool:
    """Whether this very plan is deployed, its proof is young enough, and no night has been red since."""
    last = remote.history.last
    if last is None or last.line.fingerprint != planned.fingerprint.digest or remote.history.foreign_on_top:
        return False
    if now_utc() - datetime.fromisoformat(last.line.at) > timedelta(days=work.config.max_age_days):
        return False
    try:
        newest = work.newest_report()
    except UsageError:  # damaged, or another version's: how that night ended is not known
        return False
    return newest is None or newest.exit_code == 0


def _report(work: Workplace, run: Run, clock: Clock, sofar: _Sofar, failure: BaseException | None) -> NightReport:
    notes = tuple(sofar.notes)
    if work.local:
        notes = (*notes, "no GitHub was asked: the candidates are the remote's refs/pull/*/head")
    return NightReport(
        night=run.id,
        at=now_utc().isoformat(),
        lane=work.lane_name,
        remote="the embedded remote" if work.embedded else without_secret(work.remote),
        headline=_headline(failure),
        nothing_to_do=sofar.nothing_to_do,
        composition=sofar.composition,
        tests=sofar.tests,
        verdicts=sofar.verdicts,
        promotion=sofar.promotion,
        previous=sofar.previous,
        range_diffs=sofar.range_diffs,
        timings=tuple(Timing(stage, seconds) for stage, seconds in clock.stages),
        notes=notes,
        failure=_said(failure),
        exit_code=_exit_code(failure),
        left_out=sofar.plan.left_out if sofar.plan and not sofar.composition else (),
        planned=sofar.plan.steps if sofar.plan and not sofar.composition else (),
        refused=_refused(failure),
        asked=run.read(Candidates).asked if run.has(Candidates) else (),
    )


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
