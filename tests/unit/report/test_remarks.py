"""What a night says on each pull request of the fork, and when that is something new."""

from __future__ import annotations

from dataclasses import replace

import pytest

from patchstack.model import LeftOut, NightReport, Outcome, Reason, Refusal, Status, Topic
from patchstack.report.marker import PullMarker, pull_of
from patchstack.report.place import Place
from patchstack.report.remarks import Remark, remarks

from . import fixed_night
from .fixed_night import left_out, sha, topic

PLACE = Place("acme/sglang", "https://github.com", "https://github.com/acme/sglang/actions/runs/7")
IN = topic("#41", "fix/metrics", head=sha("3"))


def night(*items: Topic | LeftOut, promoted: bool = True, **more: object) -> NightReport:
    """A promoted night of these, or one that is red."""
    composition = replace(
        fixed_night.COMPOSITION,
        included=tuple(item for item in items if isinstance(item, Topic)),
        left_out=tuple(item for item in items if isinstance(item, LeftOut)),
    )
    report = replace(fixed_night.NIGHT if promoted else fixed_night.RED, composition=composition)
    return replace(report, **more)  # type: ignore[arg-type]


def before_the_merge(*items: LeftOut, planned: tuple[Topic, ...] = (), **more: object) -> NightReport:
    """A night that stopped before its merge."""
    report = replace(fixed_night.STOPPED, left_out=items, planned=planned, previous=fixed_night.PREVIOUS)
    return replace(report, **more)  # type: ignore[arg-type]


def said(report: NightReport) -> dict[int, str]:
    """The text of each remark below its marker, without the link to the run."""
    found = remarks(report, replace(PLACE, run_url=""))
    return {remark.number: remark.body.partition("-->\n\n")[2] for remark in found}


def state(report: NightReport) -> str:
    (remark,) = remarks(report, PLACE)
    return remark.state


# --- the words ---


def test_in_tonights_deploy() -> None:
    assert remarks(night(IN), PLACE) == (
        Remark(
            41,
            state(night(IN)),
            f"""\
<!-- patchstack:pull v1 lane=production state={state(night(IN))} -->

**In tonight's deploy**.

Night `20261121T020000Z` is promoted to `deploy`, tag `nightly-20261121-eeeeeee`, with this pull request at `333333333333`.

All of it: [`the workflow's run`](<https://github.com/acme/sglang/actions/runs/7>).
""",  # noqa: E501
        ),
    )


def test_in_tonights_deploy_while_a_newer_head_waits() -> None:
    assert said(night(replace(IN, newer_head=sha("5"), replayed=True))) == {
        41: """\
**In tonight's deploy**.

Night `20261121T020000Z` is promoted to `deploy`, tag `nightly-20261121-eeeeeee`, with this pull request at `333333333333`.

Its newer head `555555555555` is not in it: only what was admitted is merged. It waits for an approval, or for the label to be put on again.

How it was merged: its own diff, replayed onto the base.
"""  # noqa: E501
    }


def test_composed_in_a_night_that_is_red() -> None:
    assert said(night(IN, promoted=False)) == {
        41: """\
**Composed, and not deployed**.

Night `20261121T020000Z` has this pull request at `333333333333`, but nothing was moved: channel `nightly` is **FAIL**. It ships with the next green night that it merges into.

- `tests/regression/zmq_locked_sends/test_zmq.py::test_two_threads`: fail: AssertionError: frames were mixed
"""  # noqa: E501
    }


def test_composed_in_a_night_that_stopped_without_a_verdict() -> None:
    stopped = night(
        IN, promoted=False, verdicts=(), headline=Status.INCOMPLETE, exit_code=8, failure="the push was refused"
    )

    assert said(stopped)[41].partition("but ")[2] == (
        "nothing was moved: the night is **INCOMPLETE**. It ships with the next green night that it merges into.\n\n"
        "- the push was refused\n"
    )


def test_in_deploy_already_whatever_became_of_tonight() -> None:
    deployed = replace(IN, name="#40", head=sha("6"))
    expected = """\
**In the deploy branch**.

Night `20261120T020000Z`, tag `nightly-20261120-9999999`, was promoted with this pull request at `666666666666`, and is what is deployed.
"""  # noqa: E501

    assert said(night(deployed, promoted=False)) == {40: expected}
    assert said(before_the_merge(planned=(deployed,))) == {40: expected}
    assert said(before_the_merge(planned=(replace(deployed, head=sha("7")),))) == {}


def test_left_out_because_of_whom_and_where() -> None:
    conflict = left_out(
        "#43",
        Outcome.EXCLUDED,
        Reason.CONFLICT,
        "it conflicts with #41 and sgl-project/sglang#7: merge them into it, or wait",
        twins=("#41", "sgl-project/sglang#7"),
        files=("a.py", "b.py"),
    )

    assert (
        said(night(IN, conflict))[43]
        == """\
**Left out of the night**: conflict with [`#41`](<https://github.com/acme/sglang/pull/41>), `sgl-project/sglang#7`.

It conflicts with `#41` and `sgl-project/sglang#7`: merge them into it, or wait

- [`#41`](<https://github.com/acme/sglang/pull/41>) `fix/metrics` by `mallory`
- In `a.py`
- In `b.py`
"""
    )


@pytest.mark.parametrize(
    ("outcome", "reason", "twins", "head"),
    [
        (Outcome.DROPPED, Reason.SAME_DIFF, ("#9",), "**Not taken: its change is there already**: same diff as "),
        (Outcome.CARRIED, Reason.CONTAINED, ("#9",), "**Carried by another pull request**: contained in "),
        (Outcome.WAITING, Reason.NEEDS_ADMISSION, (), "**Not in the night yet**: needs admission."),
        (Outcome.WAITING, Reason.DRAFT, (), "**Not in the night yet**: draft."),
        (Outcome.EXCLUDED, Reason.BLOCKED, (), "**Left out of the night**: blocked."),
        (
            Outcome.EXCLUDED,
            Reason.CARRIES_BLOCKED,
            ("#9",),
            "**Left out of the night**: carries commits of the blocked",
        ),
        (Outcome.EXCLUDED, Reason.INTO_DEPLOY, (), "**Left out of the night**: into a deploy branch."),
        (Outcome.SKIPPED, Reason.SKIPPED_BY_CONFIG, (), "**Left out by deploy.yaml**: skipped by deploy.yaml."),
    ],
)
def test_every_other_outcome_says_what_and_what_to_do(
    outcome: Outcome, reason: Reason, twins: tuple[str, ...], head: str
) -> None:
    text = said(night(left_out("#43", outcome, reason, "do `this`", twins=twins)))[43]

    assert text.startswith(head)
    assert "\nDo `this`\n" in text


# --- who is told ---


@pytest.mark.parametrize(
    "item",
    [
        left_out("#43", Outcome.SKIPPED, Reason.OTHER_OWNER, "x"),
        left_out("#43", Outcome.SKIPPED, Reason.NOT_WANTED, "x"),
        left_out("#43", Outcome.SKIPPED, Reason.INTO_MAIN, "x"),
        left_out("#43", Outcome.SKIPPED, Reason.OTHER_LANE, "x"),
        left_out("#43", Outcome.SKIPPED, Reason.INTO_OTHER, "x"),
        left_out("#43", Outcome.GONE, Reason.CLOSED, "x"),
        replace(left_out("#43", Outcome.EXCLUDED, Reason.CONFLICT, "x"), name="sgl-project/sglang#43"),
        left_out("pd-transfer-parking", Outcome.SKIPPED, Reason.SWITCHED_OFF, "x"),
        topic("zmq-locked-sends", "a patch"),
        replace(IN, name="sgl-project/sglang#41"),
    ],
    ids=lambda item: f"{item.name} {getattr(item, 'reason', '')}",
)
def test_nobody_else_is_told(item: Topic | LeftOut) -> None:
    assert remarks(night(item), PLACE) == ()


def test_before_the_merge_only_what_is_final_is_told() -> None:
    reasons = (
        (Outcome.WAITING, Reason.NEEDS_ADMISSION),
        (Outcome.EXCLUDED, Reason.BLOCKED),
        (Outcome.CARRIED, Reason.CONTAINED),
        (Outcome.DROPPED, Reason.SAME_DIFF),
    )
    items = [left_out(f"#{number}", *reason, "x") for number, reason in enumerate(reasons, 1)]
    nothing = before_the_merge(*items, nothing_to_do=True, failure="", exit_code=0)

    assert list(said(before_the_merge(*items, refused=Refusal("x")))) == [1, 2]
    assert list(said(nothing)) == [1, 2]
    assert list(said(night(*items))) == [1, 2, 3, 4]


def test_a_night_of_some_stages_says_nothing_of_what_it_composed() -> None:
    item = left_out("#43", Outcome.EXCLUDED, Reason.CONFLICT, "x")

    assert list(said(night(IN, item, promotion=None, tests=None, verdicts=()))) == [43]


def test_they_are_in_the_order_of_their_numbers() -> None:
    report = night(replace(IN, name="#100"), IN, left_out("#9", Outcome.WAITING, Reason.DRAFT, "x"))

    assert [remark.number for remark in remarks(report, PLACE)] == [9, 41, 100]


# --- what is something new ---

CONFLICT = left_out("#43", Outcome.EXCLUDED, Reason.CONFLICT, "x", twins=("#1", "#2"), files=("a.py", "b.py"))
UNADMITTED = left_out("#43", Outcome.WAITING, Reason.NEEDS_ADMISSION, "x")
LATER = {"night": "20261122T020000Z", "at": "2026-11-22T02:00:00Z"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (night(IN), night(IN, **LATER)),
        (night(IN), night(replace(IN, title="another", replayed=True, not_carried=("x",)))),
        (night(IN, promoted=False), night(IN, promoted=False, headline=Status.INCOMPLETE, failure="x", verdicts=())),
        (night(CONFLICT), night(replace(CONFLICT, detail="other words", title="another"), **LATER)),
        (night(CONFLICT), night(replace(CONFLICT, twins=("#2", "#1"), files=("b.py", "a.py")))),
        (night(CONFLICT), night(CONFLICT, promoted=False)),
        (night(UNADMITTED), night(replace(UNADMITTED, head=sha("9")))),
        (
            night(IN),
            night(IN, promoted=False, previous=replace(fixed_night.PREVIOUS, included=(("#41", IN.head),))),
        ),
    ],
    ids=[
        "night",
        "words",
        "red",
        "detail",
        "order",
        "promoted or not",
        "unadmitted push",
        "deployed, then a red night",
    ],
)
def test_the_same_state(one: NightReport, other: NightReport) -> None:
    assert state(one) == state(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (night(IN), night(IN, promoted=False)),
        (night(IN), night(replace(IN, head=sha("9")))),
        (night(IN), night(replace(IN, newer_head=sha("9")))),
        (night(IN, promoted=False), night(replace(IN, head=sha("9")), promoted=False)),
        (night(CONFLICT), night(replace(CONFLICT, head=sha("9")))),
        (night(CONFLICT), night(replace(CONFLICT, twins=("#1",)))),
        (night(CONFLICT), night(replace(CONFLICT, files=("a.py",)))),
        (night(CONFLICT), night(replace(CONFLICT, reason=Reason.PROTECTED_PATH))),
        (night(CONFLICT), night(replace(CONFLICT, newer_head=sha("9")))),
        (night(UNADMITTED), night(replace(UNADMITTED, reason=Reason.DRAFT))),
    ],
    ids=["red", "head", "newer head", "red head", "conflict head", "twins", "files", "reason", "newer", "draft"],
)
def test_another_state(one: NightReport, other: NightReport) -> None:
    assert state(one) != state(other)


def test_the_marker_is_read_back_from_the_body() -> None:
    (remark,) = remarks(night(IN), PLACE)

    assert pull_of(remark.body.replace("\n", "\r\n")) == PullMarker("production", remark.state)
    assert pull_of(f"> {remark.body}") is None
