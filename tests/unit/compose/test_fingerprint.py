"""Equal inputs, equal digest; what changes a night is named; titles, reasons and strangers are none of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.builders import TEN, A, B, Fork, edit

from patchstack.compose.plan import fingerprint
from patchstack.model import Asked, Candidates, Fingerprint, Kind, LeftOut, Native, Outcome, Pull, Reason, Sha


@pytest.fixture
def candidates(tmp_path: Path) -> Candidates:
    fork = Fork(tmp_path, {A: TEN, B: TEN})
    fork.patch("first", {A: edit(TEN, 1, "first")})
    fork.pull(1, fork.commit("one", {A: edit(TEN, 9, "one")}, fork.base.commit))
    fork.pull(2, fork.commit("two", {"docs/d.md": "d\n"}, fork.base.commit))
    return fork.candidates()


def take(candidates: Candidates, **changed: Any) -> Fingerprint:
    given: dict[str, Any] = {
        "lane": "production",
        "git_version": (2, 39, 5),
        "patchstack_version": "0.1.0",
        "patches": {"first": "d1", "second": "d2"},
        "skips": {"7": "because"},
        "protected": (".github/",),
        "inputs": {"guards": "g1", "locks": "l1"},
    }
    return fingerprint(candidates, **{**given, **changed})


def test_the_inputs_by_name(candidates: Candidates) -> None:
    one, two = candidates.topics[1], candidates.left_out[0]
    assert dict(take(candidates).inputs) == {
        "lane": "production",
        "base": f"sglang==0.5.12.post1 {candidates.base.tree}",
        "natives": "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945",
        "git": "2.39.5",
        "patchstack": "0.1.0",
        "series": "first second",
        "patch first": "d1",
        "patch second": "d2",
        "pull request #1": one.head,
        "pull request #2": two.head,
        "skipped": "7",
        "protected": ".github/",
        "input guards": "g1",
        "input locks": "l1",
    }


def test_equal_inputs_equal_digest_whatever_the_titles_and_reasons(candidates: Candidates) -> None:
    renamed = replace(
        candidates,
        topics=tuple(replace(topic, title="other", author="other") for topic in candidates.topics),
        left_out=tuple(replace(item, title="other", detail="other") for item in candidates.left_out),
    )
    other_words = take(renamed, skips={"7": "other words"}, inputs={"locks": "l1", "guards": "g1"})
    assert other_words == take(candidates)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"lane": "edge"}, "lane"),
        ({"git_version": (2, 40, 0)}, "git"),
        ({"patchstack_version": "0.2.0"}, "patchstack"),
        ({"patches": {"second": "d2", "first": "d1"}}, "series"),
        ({"patches": {"first": "d9", "second": "d2"}}, "patch first"),
        ({"skips": {}}, "skipped"),
        ({"protected": ()}, "protected"),
        ({"inputs": {"guards": "g2", "locks": "l1"}}, "input guards"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_changes_is_named(candidates: Candidates, changed: dict[str, Any], name: str) -> None:
    before, after = take(candidates), take(candidates, **changed)
    assert before.digest != after.digest
    assert [key for key, _ in sorted({*before.inputs} ^ {*after.inputs})] == [name, name]


def test_a_new_head_of_a_left_out_pull_request_and_a_new_base_count(candidates: Candidates) -> None:
    (left_out,) = candidates.left_out
    moved = replace(candidates, left_out=(replace(left_out, head=candidates.base.commit),))
    natives = (Native("cp312", "linux", "x.whl", "0" * 64),)
    rebuilt = replace(candidates, base=replace(candidates.base, natives=natives))
    on_another = replace(candidates, base=replace(candidates.base, tree=candidates.base.commit))
    digests = {take(each).digest for each in (candidates, moved, rebuilt, on_another)}
    assert len(digests) == 4


HEAD, NEWER = Sha("1" * 40), Sha("2" * 40)
JUDGED_BY_CONTENT = {
    Reason.HEAD_MISSING,
    Reason.CONTAINS_DEPLOY,
    Reason.NO_COMMON_HISTORY,
    Reason.EMPTY,
    Reason.PROTECTED_PATH,
    Reason.BUILD_FILES,
    Reason.NOT_CARRIED,
    Reason.CONFLICT,
    Reason.UNUSABLE_NAME,
    Reason.TOO_LARGE,
}


def left_out(reason: Reason, **changed: Any) -> LeftOut:
    made = LeftOut("#9", Kind.PULL, "title", "mallory", HEAD, Outcome.EXCLUDED, reason, "detail")
    return replace(made, **changed)


@pytest.mark.parametrize("reason", Reason)
def test_who_is_no_candidate_tonight_cannot_start_a_night(candidates: Candidates, reason: Reason) -> None:
    """To open one, to push to it and to close it again is free to everybody; only what was judged counts."""
    opened = replace(candidates, left_out=(*candidates.left_out, left_out(reason)))
    pushed = replace(candidates, left_out=(*candidates.left_out, left_out(reason, head=NEWER, title="other")))
    digests = {take(each).digest for each in (candidates, opened, pushed)}
    assert len(digests) == (3 if reason in JUDGED_BY_CONTENT else 1)


def test_a_label_that_admits_one_counts_and_so_does_an_approval_of_its_newer_head(candidates: Candidates) -> None:
    one = replace(candidates.topics[1], name="#9")
    waiting = left_out(Reason.NEEDS_ADMISSION, head=one.head, outcome=Outcome.WAITING)
    nights = (
        replace(candidates, left_out=(*candidates.left_out, waiting)),
        replace(candidates, topics=(*candidates.topics, one)),
        replace(candidates, topics=(*candidates.topics, replace(one, head=NEWER))),
    )
    assert len({take(each).digest for each in nights}) == 3


def test_a_push_that_waits_for_its_admission_does_not_count(candidates: Candidates) -> None:
    *others, one = candidates.topics
    moved = replace(candidates, topics=(*others, replace(one, newer_head=NEWER, url="https://h/1")))
    refused = tuple(replace(item, newer_head=NEWER, url="https://h/2") for item in candidates.left_out)
    assert take(replace(moved, left_out=refused, asked=(Asked("acme/sglang", 70, 60, 3),))) == take(candidates)


def test_a_blocked_one_counts_as_blocked_for_it_bars_others(candidates: Candidates) -> None:
    one = candidates.topics[1]
    pull = Pull(1, "#1", one.head, one.title, one.author, one.target, candidates.base.commit, shared=False)
    item = left_out(Reason.BLOCKED, name="#1", head=one.head)
    unblocked = candidates
    without_it = replace(candidates, topics=candidates.topics[:1])
    blocked = replace(without_it, left_out=(*candidates.left_out, item), blocked=(pull,))
    pushed = replace(blocked, blocked=(replace(pull, head=NEWER),))
    renamed = replace(blocked, blocked=(replace(pull, title="other", newer_head=NEWER),))
    assert len({take(each).digest for each in (unblocked, without_it, blocked, pushed)}) == 4
    assert take(renamed) == take(blocked)
    assert dict(take(blocked).inputs)["pull request #1"] == f"{one.head} (blocked)"


def test_two_of_one_number_in_two_repositories_count_each(candidates: Candidates) -> None:
    one = candidates.topics[1]
    both = replace(candidates, topics=(*candidates.topics, replace(one, name="sgl-project/sglang#1")))
    assert {"pull request #1", "pull request sgl-project/sglang#1"} <= dict(take(both).inputs).keys()


def test_a_push_to_a_skipped_one_does_not_count_but_to_skip_it_does(candidates: Candidates) -> None:
    *others, one = candidates.topics
    pushed = replace(candidates, topics=(*others, replace(one, head=NEWER)))
    assert take(pushed, skips={"#1": "why"}) == take(candidates, skips={"#1": "why"})
    assert take(candidates, skips={"#1": "why"}).digest != take(candidates, skips={}).digest
    assert take(pushed, skips={"other/x#1": "why"}).digest != take(candidates, skips={"other/x#1": "why"}).digest
