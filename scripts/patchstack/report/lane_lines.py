"""What `patchstack test --lane` and `patchstack job` show."""

from __future__ import annotations

from patchstack.model import GuardOutcome, LaneAnswer, LaneJob, LaneRuns, Verdict
from patchstack.report import lane_words, sections
from patchstack.report.page import Page, Prose, Quoted, Section


def lanes_page(lanes: LaneRuns, verdicts: tuple[Verdict, ...], run: str) -> Page:
    """What the lanes said; and the verdicts, where `cpu` has been tested too."""
    parts = (*lane_words.section(lanes), *(sections.verdicts(verdicts, None) if verdicts else ()))
    return Page((("Lanes of run ", Quoted(run))), (), parts)


def answer_page(answer: LaneAnswer) -> Page:
    """What one job has found out: how many tests ended how, and each that is not green."""
    job = answer.job
    items = tuple(
        (Quoted(said.test), f": {said.outcome.value}", *((": ", Prose(said.reason)) if said.reason else ()))
        for said in answer.results
        if said.outcome is not GuardOutcome.PASS
    )
    title = ("Job ", Quoted(str(job.shard)), " of lane ", Quoted(job.lane))
    lead = ((lane_words.tally(answer.results),),)
    return Page(title, lead, (Section("Not green", items=items),) if items else ())


def job_line(job: LaneJob, executor: str) -> str:
    """What would be asked of one machine."""
    needs = f", {job.gpus} GPU{'' if job.gpus == 1 else 's'}" if job.gpus else ""
    return f"{job.lane} {job.shard}: {', '.join(job.shard.files)}; {job.form.value} by {executor}{needs}"
