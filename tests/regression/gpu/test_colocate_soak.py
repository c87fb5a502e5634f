"""colocate-soak: hundreds of steps of a trainer, one rank alone and two that share their engine.

What it holds from step to step, and what a new token takes, stand side by side in the history of the lane.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest

from testbed import Children, Ports
from testbed.colocate_callers import Colocation
from testbed.colocate_training import Step, slope_mb, train_in_form
from testbed.forms import Form
from testbed.measures import Measure
from testbed.thresholds import threshold

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=1800, guards=["colocate-tp"], owner="@acme/rl"),
    pytest.mark.limit(5400),
]

LIMIT_S = 4500.0


@pytest.mark.form("colocate-soak", "one-rank")
def test_one_rank(form: Form, children: Children, ports: Ports, tmp_path: Path, measure: Measure) -> None:
    steps = soak(form, children, ports, tmp_path)
    measure("colocate-one-rank-held", slope_mb(steps))
    measure("colocate-one-rank-token", median(step.generate_ms for step in steps))


@pytest.mark.lane("2-gpu", est_s=2700)
@pytest.mark.form("colocate-soak", "two-ranks")
def test_two_ranks(form: Form, children: Children, ports: Ports, tmp_path: Path, measure: Measure) -> None:
    steps = soak(form, children, ports, tmp_path)
    measure("colocate-two-ranks-held", slope_mb(steps))
    measure("colocate-two-ranks-token", median(step.generate_ms for step in steps))


def soak(form: Form, children: Children, ports: Ports, folder: Path) -> list[Step]:
    """The steps of the rank that came to hold most."""
    with Colocation(children, folder) as colocate:
        ranks = train_in_form(colocate, ports, form, LIMIT_S)
    for steps in ranks:
        assert len(steps) == form.steps
        off = [abs(step.logprob_ratio - 1) for step in steps]
        assert max(off) <= threshold("colocate", "logprob_ratio_off"), steps[-3:]
        assert slope_mb(steps) <= threshold("colocate-soak", "held_mb_per_step"), (slope_mb(steps), steps[-3:])
    return max(ranks, key=slope_mb)
