"""What of the deployed night is missing, what of it counts, and what a night says that may not go on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.report.fixed_night import BASE, COMPOSITION, PREVIOUS, TOPICS, sha

from patchstack.errors import Incomplete
from patchstack.losses import Losses, Lost, MovedBase
from patchstack.model import Composition, Kind, LedgerLine, LeftOut, Outcome, Reason
from patchstack.release.loss import NO_LONGER_IN_SERIES, find_losses, require_few

UPSTREAM = "sglang==0.5.12.post1"
EXCUSED = {
    *(Reason.MERGED, Reason.CLOSED),
    *(Reason.NEEDS_ADMISSION, Reason.DRAFT, Reason.BLOCKED, Reason.BARRED, Reason.GUILTY),
    *(Reason.SKIPPED_BY_CONFIG, Reason.ON_REQUEST, Reason.NOT_FOR_THIS_BASE, Reason.SWITCHED_OFF),
}
REDUNDANT = {
    *(Reason.SAME_HEAD, Reason.CONTAINED, Reason.SAME_DIFF),
    *(Reason.NO_EFFECT_ON_BASE, Reason.NO_EFFECT_ON_STACK),
}


def deployed(*names: str) -> LedgerLine:
    return replace(PREVIOUS, included=tuple((name, sha("6")) for name in names), upstream=UPSTREAM)


def out(name: str, reason: Reason, *twins: str, detail: str = "") -> LeftOut:
    kind = Kind.PULL if "#" in name else Kind.PATCH
    return LeftOut(name, kind, "title", "mallory", sha("6"), Outcome.EXCLUDED, reason, detail, twins)


def tonight(*left_out: LeftOut, has: tuple[str, ...] = ()) -> Composition:
    topics = tuple(replace(TOPICS[0], name=name) for name in has)
    return replace(COMPOSITION, included=topics, left_out=left_out)


def find(last: LedgerLine | None, composition: Composition, most: int = 2, accepted: bool = False) -> Losses:
    return find_losses(last, composition, upstream=UPSTREAM, most=most, accepted=accepted)


@pytest.mark.parametrize("reason", Reason)
def test_what_counts(reason: Reason) -> None:
    (item,) = find(deployed("#41"), tonight(out("#41", reason, detail="d"))).items
    assert item == Lost("#41", sha("6"), reason.value, (), (), "d", counts=reason not in EXCUSED | REDUNDANT)


@pytest.mark.parametrize("reason", sorted(REDUNDANT))
def test_what_is_there_by_another_name_is_lost_with_it(reason: Reason) -> None:
    """Dropped for a twin: it counts unless that twin, or what that one was dropped for, is in the night."""

    def counts(*more: LeftOut, has: tuple[str, ...] = ()) -> bool:
        (item,) = find(deployed("#41"), tonight(out("#41", reason, "#40"), *more, has=has)).items
        return item.counts

    assert not counts(has=("#40",))
    assert counts()
    assert counts(out("#40", Reason.CONFLICT, "a-patch"), has=("a-patch",))
    assert not counts(out("#40", Reason.CONTAINED, "#39"), has=("#39",))
    assert counts(out("#40", Reason.CONTAINED, "#39"), out("#39", Reason.HEAD_MISSING))
    assert counts(out("#40", Reason.SAME_DIFF, "#41"))  # each for the other: neither is there


@pytest.mark.parametrize(
    "reason", [Reason.CARRIES_BLOCKED, Reason.REQUIRED_LEFT_OUT, Reason.CARRIER_LEFT_OUT, Reason.SAME_DIFF]
)
def test_what_cannot_stay_without_a_guilty_one_counts_as_little_as_that_one(reason: Reason) -> None:
    """What goes with somebody whom an operator has barred counts: he is there to say `--accept-lost`."""
    guilty, barred = out("#40", Reason.GUILTY), out("#39", Reason.BARRED)
    chain = (out("#42", reason, "#41"), out("#41", reason, "#40"))

    def counts(*left_out: LeftOut) -> list[str]:
        return [item.name for item in find(deployed("#42", "#41"), tonight(*left_out)).items if item.counts]

    assert counts(*chain, guilty) == []
    assert counts(*chain) == ["#42", "#41"]
    assert counts(*chain, out("#40", Reason.BARRED)) == ["#42", "#41"]
    assert counts(out("#42", reason, "#40", "#39"), guilty, barred, out("#41", Reason.CLOSED)) == ["#42"]
    assert counts(out("#42", reason, "#41"), out("#41", reason, "#42")) == ["#42", "#41"]


def test_nobody_says_anything_of_it() -> None:
    losses = find(deployed("a-patch", "#41", "sgl-project/sglang#7", "kept"), tonight(has=("kept", "#99")))
    assert [(item.name, item.reason, item.counts) for item in losses.items] == [
        ("a-patch", NO_LONGER_IN_SERIES, True),
        ("#41", "no longer listed", True),
        ("sgl-project/sglang#7", "no longer listed", True),
    ]


def test_as_many_as_max_lost_are_no_reason_to_stop() -> None:
    line, three = deployed("#1", "#2", "#3"), tonight()
    require_few(find(line, three, most=3))
    require_few(find(line, three, most=2, accepted=True))
    require_few(find(line, tonight(out("#2", Reason.MERGED)), most=2))
    for most in (0, 2):
        with pytest.raises(Incomplete):
            require_few(find(line, three, most=most))


def test_nothing_is_deployed() -> None:
    losses = find(None, tonight())
    assert losses == Losses("", 2)
    require_few(losses)


def test_the_base_that_changed_by_itself() -> None:
    line = replace(deployed(), base_commit=sha("3"))
    losses = find(line, tonight())
    assert (losses.base, losses.too_many) == (MovedBase(UPSTREAM, sha("3"), BASE.commit), True)
    require_few(replace(losses, accepted=True))
    with pytest.raises(Incomplete) as refused:
        require_few(losses)
    assert str(refused.value).splitlines() == [
        (
            f"the base is commit {BASE.commit}, night {line.night} had {sha('3')}, and deploy.yaml says the same of it "
            f"({UPSTREAM}): it changed by itself; nothing was moved"
        ),
        (
            "ways out: name the base in deploy.yaml by what does not move (a commit as `ref`, or its `tree`); or "
            "`patchstack nightly --accept-lost`, for this one night"
        ),
    ]


@pytest.mark.parametrize("said", ["", "sglang==0.5.11", f"{UPSTREAM} tree {sha('9')}"])
def test_a_base_that_somebody_changed_or_of_which_an_older_line_says_nothing(said: str) -> None:
    line = replace(deployed(), base_commit=sha("3"), upstream=said)
    assert find(line, tonight()).base is None


def test_every_lost_one_is_named_with_its_reason_and_the_ways_out() -> None:
    items = (
        out("#1", Reason.CONFLICT, "a-patch", detail="Rebase it"),
        out("#2", Reason.MERGED, detail="it was merged into main"),
        out("#3", Reason.HEAD_MISSING),
    )
    line = deployed("#1", "#2", "#3", "#4")
    with pytest.raises(Incomplete) as refused:
        require_few(find(line, tonight(replace(items[0], files=("a.py", "b.py")), *items[1:]), most=2))
    six = "666666666666"
    assert str(refused.value).splitlines() == [
        f"3 of what night {line.night} had are missing, and max_lost in deploy.yaml allows 2; nothing was moved:",
        f"  #1 at {six}: conflict (a-patch) in a.py, b.py: Rebase it",
        f"  #3 at {six}: head is missing",
        f"  #4 at {six}: no longer listed: no source lists it, and nobody says that it was merged or closed",
        "missing too, and not counted:",
        f"  #2 at {six}: merged: it was merged into main",
        (
            "ways out: mend the source that lost them; say so with `skip` in deploy.yaml where a pull request is meant "
            "to be out; raise max_lost; or `patchstack nightly --accept-lost`, for this one night"
        ),
    ]
