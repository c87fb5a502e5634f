"""`patchstack test`: the guards of lane `cpu` here, and those of other lanes on machines that have what they need."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
from click.core import ParameterSource

from patchstack.console import (
    Options,
    emit,
    with_deadline,
    with_dry_run,
    with_jobs,
    with_json,
    with_rerun,
    with_run,
    with_without,
    workplace,
)
from patchstack.errors import UsageError

if TYPE_CHECKING:
    from patchstack.deadline import Deadline
    from patchstack.model import Composition
    from patchstack.store import Run
    from patchstack.workplace import Workplace


@click.command()
@with_run
@with_without
@click.option(
    "--suite",
    "suites",
    multiple=True,
    metavar="NAME",
    help="Only the guards of this patch, or of a group: `pd` is every `pd-...`. May be repeated.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Only the I-th of N parts, by measured times; what the others run is missing. [default for N: deploy.yaml's]",
)
@click.option(
    "--gather",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="Run nothing: judge what the shards of this run said, each FILE the --json of one. May be repeated.",
)
@click.option(
    "--lane",
    "lanes",
    multiple=True,
    metavar="NAME",
    help="Not lane cpu: the tests of this one, by an executor. May be repeated.",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "slurm"]),
    help="Who runs --lane: this machine, or a Slurm cluster. [default: what deploy.yaml says of it]",
)
@click.option(
    "--rehearse",
    is_flag=True,
    help="Run --lane on a CPU with a tiny model, without an image: it shows that its tests work, and proves nothing.",
)
@with_rerun
@with_jobs
@with_deadline
@with_json
@with_dry_run
@click.pass_obj
def test(
    options: Options,
    run_id: str | None,
    without: tuple[str, ...],
    suites: tuple[str, ...],
    shard: str | None,
    gather: tuple[Path, ...],
    lanes: tuple[str, ...],
    executor: str | None,
    rehearse: bool,
    rerun: str,
    jobs: int | None,
    deadline_min: int | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Run the guards on the composed tree and on what their patch stands on, and judge the channels.

    With --lane: those tests that need another machine, on the composed tree alone, beside what is known of the run.
    """
    if gather and (run_id is None or shard is not None or suites or without or dry_run):
        raise UsageError("--gather judges the shards of one whole run: name it by --run ID, and give nothing else")
    if lanes and (gather or shard is not None):
        raise UsageError("--lane is divided as deploy.yaml says: give neither --shard nor --gather with it")
    if (executor or rehearse) and not lanes:
        raise UsageError("--executor and --rehearse are of other lanes than cpu: name one by --lane")
    from patchstack import store
    from patchstack.deadline import Deadline
    from patchstack.regress.shards import read_part
    from patchstack.report.terminal import render_guards
    from patchstack.verbs import test as stage
    from patchstack.verbs.history import past_of
    from patchstack.verbs.plan import composed
    from patchstack.verbs.shards import gathered

    work = workplace(options)
    part = read_part(shard, work.config.tests.lanes["cpu"].shards) if shard is not None else None
    deadline = Deadline.after(deadline_min) if deadline_min is not None else None
    with work.locked(), work.open_run(run_id, dry_run=dry_run) as run:
        composition = composed(work, run, without=without)
        if lanes:
            asked = Asked(lanes, rehearse, executor, suites, _rerun_of_lanes(rerun))
            _lanes(work, run, composition, asked, deadline, as_json, dry_run)
            return
        if dry_run:
            chosen = stage.selected(work, run, composition, suites, part)
            body = {"would_run": chosen.lines, "tests": [asdict(test) for test in chosen.tests]}
            emit(json.dumps(body, indent=2) if as_json else "\n".join(chosen.lines))
            return
        if gather:
            report = gathered(work, composition, gather, past_of(run))
            stage.write_report(run, report)
        else:
            report = stage.run_guards(
                work, run, composition, only=suites, rerun=rerun, jobs=jobs, deadline=deadline, shard=part
            )
        verdicts = stage.gate(work, run, composition, report)
    emit(store.encode(report) if as_json else render_guards(report, verdicts))
    stage.raise_for(verdicts, run.id)


class Asked(NamedTuple):
    """What the command line says of other lanes."""

    lanes: tuple[str, ...]
    rehearse: bool
    executor: str | None
    suites: tuple[str, ...]
    rerun: str


def _rerun_of_lanes(said: str) -> str:
    """Who asks for a rehearsal by hand wants one: kept ones count only where --rerun is given."""
    source = click.get_current_context().get_parameter_source("rerun")
    return "all" if source is ParameterSource.DEFAULT else said


def _lanes(
    work: Workplace,
    run: Run,
    composition: Composition,
    asked: Asked,
    deadline: Deadline | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    from patchstack import store
    from patchstack.model import GuardReport
    from patchstack.regress.steps import Rerun
    from patchstack.report.lane_lines import job_line, lanes_page
    from patchstack.report.terminal import page_text
    from patchstack.verbs import lanes as stage
    from patchstack.verbs.test import gate, write_junit

    request = stage.Request(
        asked.lanes,
        asked.rehearse,
        asked.executor,
        asked.suites,
        previous=stage.previous_of(run),
        rerun=Rerun(asked.rerun),
    )
    if dry_run:
        plans = stage.planned(work, run, composition, request)
        lines = [job_line(job, plan.executor) for plan in plans for job in plan.jobs]
        jobs = [asdict(job) for plan in plans for job in plan.jobs]
        emit(json.dumps({"would_run": lines, "jobs": jobs}, indent=2) if as_json else "\n".join(lines))
        return
    found = stage.run_lanes(work, run, composition, request, deadline)
    tested = run.has(GuardReport)
    if tested:
        write_junit(run)
    verdicts = gate(work, run, composition, run.read(GuardReport)).verdicts if tested else ()
    emit(store.encode(found) if as_json else page_text(lanes_page(found, verdicts, run.id)))
    stage.raise_for_lanes(found, request.lanes, run.id)
