"""Whose word admits a pull request, and for which commit: decided on what GitHub tells alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from patchstack.github import Events, LabelEvent, OpenPull, Push, Review
from patchstack.model import Sha
from patchstack.paging import PAGE
from patchstack.pulls.admission import Admitted, Facts, NotAdmitted, approval_of_head, decide, head_before

OLD, MIDDLE, NEW, ZERO = (Sha(letter * 40) for letter in "abc0")
NAMES = {OLD: "old", MIDDLE: "middle", NEW: "new", ZERO: "zero"}
WRITERS = {"ann", "max"}
PULL = OpenPull(1, "t", "bob", False, ("Deploy",), NEW, "fix", "acme/sglang", "acme", "base/production", "", "")


def at(minute: int, second: int = 0) -> str:
    return f"2026-11-01T00:{minute:02d}:{second:02d}+00:00"


def review(minute: int, by: str, commit: Sha, state: str = "APPROVED") -> Review:
    return Review(by, state, commit, at(minute))


def label(minute: int, by: str = "ann", *, added: bool = True, name: str = "deploy") -> LabelEvent:
    return LabelEvent(name, added, by, at(minute))


def pushes(*rows: tuple[int, Sha]) -> tuple[Push, ...]:
    """From the oldest on; the first one made the branch."""
    before = [ZERO, *(sha for _, sha in rows)]
    return tuple(reversed([Push(old, sha, at(minute)) for old, (minute, sha) in zip(before, rows, strict=False)]))


def facts(
    reviews: Sequence[Review] = (),
    labels: Sequence[LabelEvent] = (),
    told: tuple[Push, ...] | None = None,
    retargeted: Sequence[str] = (),
) -> Facts:
    return Facts(tuple(reviews), Events(tuple(labels), tuple(retargeted)), told)


def admitted(known: Facts, pull: OpenPull = PULL) -> str:
    """Which head, and by whom; or why none."""
    found = decide(pull, known, label="deploy", fork="acme/sglang", can_write=WRITERS.__contains__)
    return f"{NAMES[found.head]} by {found.by}" if isinstance(found, Admitted) else found.why


UNLABELLED = replace(PULL, labels=())
WAY = "somebody with write access to acme/sglang must approve it, or put the label deploy on it"
STORY = pushes((1, OLD), (3, MIDDLE), (5, NEW))


# --- by approval ---


@pytest.mark.parametrize(
    ("reviews", "expected"),
    [
        ([], WAY),
        ([review(1, "ann", NEW)], "new by ann"),
        ([review(1, "ann", OLD)], "old by ann"),
        ([review(1, "mallory", NEW)], f"mallory admitted it, and has no write access to acme/sglang; {WAY}"),
        ([review(1, "ann", NEW, "CHANGES_REQUESTED")], WAY),
        ([review(1, "ann", NEW, "COMMENTED")], WAY),
        ([review(1, "ann", NEW, "PENDING")], WAY),
        ([review(1, "ann", NEW, "DISMISSED")], WAY),
        ([review(1, "ann", NEW), review(2, "ann", NEW, "CHANGES_REQUESTED")], WAY),
        ([review(1, "ann", NEW), review(2, "ann", NEW, "DISMISSED")], WAY),
        ([review(1, "ann", NEW), review(2, "ann", NEW, "COMMENTED")], "new by ann"),
        ([review(1, "ann", NEW), review(2, "max", NEW, "CHANGES_REQUESTED")], "new by ann"),
        ([review(1, "ann", NEW, "CHANGES_REQUESTED"), review(2, "ann", NEW)], "new by ann"),
        ([review(1, "ann", OLD), review(2, "max", MIDDLE)], "middle by max"),
        ([review(1, "ann", MIDDLE), review(2, "max", OLD)], "old by max"),
        ([review(1, "ann", NEW), review(2, "max", OLD)], "new by ann"),
        ([review(1, "ann", OLD), review(2, "mallory", NEW)], "old by ann"),
        ([review(1, "ann", OLD), review(2, "ann", NEW)], "new by ann"),
        ([review(1, "ann", Sha(""))], WAY),
        ([review(1, "", NEW)], WAY),
    ],
)
def test_an_approval_is_for_the_commit_that_was_reviewed(reviews: list[Review], expected: str) -> None:
    assert admitted(facts(reviews), UNLABELLED) == expected


# --- by label ---


@pytest.mark.parametrize(
    ("minute", "expected"),
    [(2, "old by ann"), (4, "middle by ann"), (6, "new by ann")],
)
def test_a_label_is_for_what_had_been_pushed_by_then(minute: int, expected: str) -> None:
    assert admitted(facts((), (label(minute),), STORY)) == expected


def unknown(minute: int) -> str:
    return (
        f"what the label deploy was put on at {at(minute)} is not known, for GitHub does not tell when its branch was "
        f"pushed before; an approval names the commit; {WAY}"
    )


NOBODY = f"nobody is known to have put the label deploy on it; {WAY}"


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], NOBODY),
        ([label(6, name="Deploy")], "new by ann"),
        ([label(6, name="deployed")], NOBODY),
        ([label(2), label(4, added=False)], NOBODY),
        ([label(2), label(4, added=False), label(6)], "new by ann"),
        ([label(6, "mallory")], f"mallory admitted it, and has no write access to acme/sglang; {WAY}"),
        ([label(6, "")], f"an account that is gone admitted it, and has no write access to acme/sglang; {WAY}"),
        (
            [label(2), label(4, added=False), label(6, "mallory")],
            f"mallory admitted it, and has no write access to acme/sglang; {WAY}",
        ),
        ([label(2), label(4, name="other", added=False)], "old by ann"),
    ],
)
def test_the_last_time_that_it_was_put_on_counts(events: list[LabelEvent], expected: str) -> None:
    assert admitted(facts((), events, STORY)) == expected


def test_a_label_that_is_not_on_any_more_counts_for_nothing() -> None:
    assert admitted(facts((), (label(6),), STORY), UNLABELLED) == WAY


@pytest.mark.parametrize("told", [None, ()])
def test_when_nobody_tells_of_pushes_a_label_admits_nothing(told: tuple[Push, ...] | None) -> None:
    assert admitted(facts((), (label(6),), told)) == unknown(6)


def test_pushes_that_do_not_come_to_the_head_may_lack_what_the_label_was_put_on() -> None:
    assert admitted(facts((), (label(6),), pushes((1, OLD)))) == unknown(6)
    assert admitted(facts((), (label(6),), (*pushes((1, OLD), (3, NEW)),))) == "new by ann"
    after_the_listing = pushes((1, OLD), (3, NEW), (8, MIDDLE))
    assert admitted(facts((), (label(2),), after_the_listing)) == "old by ann"


def test_a_label_and_an_approval() -> None:
    both = facts((review(4, "max", MIDDLE),), (label(2),), STORY)
    assert admitted(both) == "middle by max"
    assert admitted(facts((review(2, "max", OLD),), (label(6),), STORY)) == "new by ann"
    assert admitted(facts((review(2, "max", OLD),), (label(6, "mallory"),), STORY)) == "old by max"
    assert admitted(facts((review(4, "max", MIDDLE),), (label(6),), None)) == "middle by max"


def test_only_as_many_are_asked_about_as_it_takes() -> None:
    asked: list[str] = []

    def can_write(login: str) -> bool:
        asked.append(login)
        return login in WRITERS

    told = facts((review(1, "ann", OLD), review(2, "mallory", NEW), review(3, "max", MIDDLE)))
    found = decide(UNLABELLED, told, label="deploy", fork="acme/sglang", can_write=can_write)
    assert (found, asked) == (Admitted(MIDDLE, "max", at(3)), ["mallory", "max"])
    assert isinstance(decide(PULL, facts(()), label="x", fork="f", can_write=can_write), NotAdmitted)


# --- into which branch ---


def moved(minute: int) -> str:
    return (
        f"it was admitted, and at {at(minute)} retargeted: an admission is for the branch that it was into then; "
        f"{WAY} again"
    )


@pytest.mark.parametrize(
    ("retargeted", "by_label", "by_approval"),
    [
        ([5], "new by ann", "new by ann"),
        ([6], moved(6), moved(6)),
        ([7], moved(7), moved(7)),
        ([7, 5], moved(7), moved(7)),
        ([5, 7], moved(7), moved(7)),
    ],
)
def test_another_target_ends_an_admission(retargeted: list[int], by_label: str, by_approval: str) -> None:
    moments = [at(minute) for minute in retargeted]
    assert admitted(facts((), [label(6)], STORY, moments)) == by_label
    approved = facts([review(6, "ann", NEW)], retargeted=moments)
    assert admitted(approved, UNLABELLED) == by_approval
    found = approval_of_head(UNLABELLED, approved, WRITERS.__contains__)
    assert (found is None) == (by_approval != "new by ann")


def test_an_admission_after_the_last_target_counts_beside_one_before() -> None:
    both = facts([review(2, "ann", NEW), review(8, "max", OLD)], retargeted=[at(5)])
    assert admitted(both, UNLABELLED) == "old by max"
    put_on_again = [label(2), label(6, added=False), label(7)]
    assert admitted(facts((), put_on_again, STORY, [at(5)])) == "new by ann"


def test_where_nobody_tells_of_its_targets_nothing_is_admitted() -> None:
    unasked = Facts((review(6, "ann", NEW),))
    assert admitted(unasked, UNLABELLED) == WAY
    assert approval_of_head(UNLABELLED, unasked, WRITERS.__contains__) is None


# --- where a branch was ---


@pytest.mark.parametrize(
    ("told", "moment", "expected"),
    [
        (STORY, at(0), None),
        (STORY, at(1, 30), OLD),
        (STORY, at(4), MIDDLE),
        (STORY, at(9), NEW),
        # In the second of a push nobody knows which came first, but for the push that made the branch.
        (STORY, at(3), OLD),
        (STORY, at(5), MIDDLE),
        (STORY, at(1), OLD),
        (pushes((1, OLD), (3, MIDDLE), (3, NEW)), at(3), OLD),
        (pushes((1, OLD), (3, MIDDLE), (3, NEW)), at(4), NEW),
        ((), at(4), None),
        # A push between two is not told.
        ((Push(MIDDLE, NEW, at(5)), Push(ZERO, OLD, at(1))), at(4), None),
        ((Push(MIDDLE, NEW, at(5)), Push(ZERO, OLD, at(1))), at(6), NEW),
        # The branch was deleted, and made again.
        ((Push(ZERO, NEW, at(5)), Push(OLD, ZERO, at(3)), Push(ZERO, OLD, at(1))), at(4), None),
        ((Push(ZERO, NEW, at(5)), Push(OLD, ZERO, at(3)), Push(ZERO, OLD, at(1))), at(6), NEW),
    ],
)
def test_where_a_branch_was(told: tuple[Push, ...], moment: str, expected: Sha | None) -> None:
    assert head_before(told, moment) == expected


def test_beyond_the_pushes_that_are_told_nothing_is_known() -> None:
    rows = [(minute % 60, MIDDLE if minute % 2 else NEW) for minute in range(PAGE)]
    full = tuple(replace(push, at=at(30, number % 30)) for number, push in enumerate(pushes(*rows)))
    assert len(full) == PAGE
    assert head_before(full, at(29)) is None
    same_second = tuple(replace(push, at=at(30)) for push in full)
    assert head_before(same_second, at(30)) is None
    assert head_before(same_second[:-1], at(30)) == same_second[-2].after
