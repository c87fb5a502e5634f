"""What lanes said on another machine, held against what their jobs are here.

Which lanes a night asks, which jobs each has and what their answers come to is decided here again; only how each job
ended, and whether each test that is declared for it passed, is taken from the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from patchstack.errors import UsageError
from patchstack.model import Composition, Form, JobState, LaneRun, LaneRuns, LedgerLine
from patchstack.regress.lane_answers import problems_of
from patchstack.regress.metrics import OF_SCENARIOS, read_metrics
from patchstack.store import Run, encode
from patchstack.verbs.lanes import Planned, Request, lanes_of_a_night, planned, settled
from patchstack.workplace import Workplace

MOST_BYTES = 32 << 20
_SHOWN = 3


def followed(
    work: Workplace, run: Run, composition: Composition, lanes: LaneRuns, image: str, previous: LedgerLine | None
) -> LaneRuns:
    """``lanes`` as their jobs' answers have it here; ``image`` is the one that they run inside.

    `UsageError` where they are of another composition, or not the lanes and jobs of this night.
    """
    if len(encode(lanes)) > MOST_BYTES:
        raise UsageError(f"what other lanes said has more than {MOST_BYTES} bytes: no night's has")
    asked = lanes_of_a_night(work)
    problems = []
    if lanes.composition != composition.commit:
        problems.append(f"they are of composition {lanes.composition[:12]}")
    again = [name for name, times in Counter(ran.lane for ran in lanes.runs).items() if times > 1]
    problems += [f"lane {name} is there twice" for name in again]
    problems += [f"lane {ran.lane} is none of this night's" for ran in lanes.runs if ran.lane not in asked]
    measures = {metric.name: metric.test for metric in read_metrics(work.root, file=OF_SCENARIOS)}
    found = []
    for ran in lanes.runs:
        if ran.lane in asked and not problems:
            (plan,) = planned(work, run, composition, Request((ran.lane,), previous=previous), image)
            problems += _problems(plan, ran)
            problems += [problem for answer in ran.answers for problem in problems_of(answer, plan.due, measures)]
            found.append(settled(work, run, plan, composition, ran.jobs, ran.answers))
    if problems:
        shown = "; ".join(problems[:_SHOWN])
        raise UsageError(
            f"what other lanes said is not of composition {composition.commit[:12]}, nothing was moved: {shown}; hand "
            "in what `nightly --until test` packed of this very night"
        )
    return LaneRuns(composition.commit, tuple(found))


def _problems(plan: Planned, ran: LaneRun) -> Iterator[str]:
    if (ran.executor, ran.form) != (plan.executor, Form.DEVICE):
        yield f"lane {plan.lane} is run by {plan.executor} in the image, and these are a {ran.form.value} elsewhere"
    if [end.job for end in ran.jobs] != list(plan.jobs):
        yield f"lane {plan.lane} has other jobs"
    answered = [end.job for end in ran.jobs if end.state is JobState.ANSWERED]
    if [answer.job for answer in ran.answers] != answered:
        yield f"lane {plan.lane} has answers of other jobs than are said to have answered"
    if plan.why_not and answered:
        yield f"lane {plan.lane} cannot have run: {plan.why_not}"
