"""Pull requests of other repositories: their names, their order, what a skip means, containment across."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, C, Fork, edit, tell

from patchstack.compose.compose import Composed
from patchstack.compose.left_out import in_order
from patchstack.compose.topics import pull_topics
from patchstack.model import Candidates, LeftOut, Sha

UPSTREAM = "sgl-project/sglang"


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path, {A: TEN, B: TEN})


def candidates(fork: Fork, **names: str) -> Candidates:
    """The pull requests by their numbers, ``_5="sgl-project/sglang#5"`` under another name; in the order of sources."""
    pulls, refused = fork.read()
    renamed = [
        replace(pull, name=names.get(f"_{pull.number}", pull.name), url=f"https://h/{pull.number}") for pull in pulls
    ]
    renamed.sort(key=lambda pull: (not pull.name.startswith("#"), *pull.name.rpartition("#")[:1], pull.number))
    topics, left_out = pull_topics(fork.store, fork.base, fork.patches, renamed, lane=fork.lane)
    return Candidates(fork.base, (*fork.patches, *topics), (*refused, *left_out))


def compose(fork: Fork, found: Candidates, **skips: str) -> Composed:
    return fork.compose(skips={key.removeprefix("_"): why for key, why in skips.items()}, candidates=found)


def one(fork: Fork, number: int, line: int, parent: Sha | None = None, path: str = A) -> Sha:
    onto = parent or fork.base.commit
    text = fork.repository.run("cat-file", "blob", f"{onto}:{path}") + "\n"
    return fork.pull(number, fork.commit(f"line {line}", {path: edit(text, line, f"by {number}")}, onto))


def test_the_fork_s_come_first_whatever_their_numbers(fork: Fork) -> None:
    fork.patch("first", {C: "first\n"})
    one(fork, 5, 1)
    one(fork, 70, 1, path=B)
    one(fork, 900, 1)  # in conflict with upstream's 5, which comes later

    composition = compose(fork, candidates(fork, _5=f"{UPSTREAM}#5")).composition

    assert [topic.name for topic in composition.included] == ["first", "#70", "#900"]
    assert [tell(item) for item in composition.left_out] == [f"{UPSTREAM}#5 excluded: conflict with #900 in {A}"]


def test_contained_in_one_of_another_repository(fork: Fork) -> None:
    one(fork, 6, 9, one(fork, 5, 1))

    composition = compose(fork, candidates(fork, _6=f"{UPSTREAM}#6")).composition

    assert [topic.name for topic in composition.included] == [f"{UPSTREAM}#6"]
    assert [tell(item) for item in composition.left_out] == [f"#5 carried: contained with {UPSTREAM}#6"]


def test_the_same_head_and_the_same_diff_stay_with_the_fork_s(fork: Fork) -> None:
    head = one(fork, 40, 1)
    fork.pull(3, head)
    fork.pull(4, fork.commit("again", {A: edit(TEN, 1, "by 40")}, fork.base.commit))

    composition = compose(fork, candidates(fork, _3=f"{UPSTREAM}#3", _4=f"{UPSTREAM}#4")).composition

    assert [topic.name for topic in composition.included] == ["#40"]
    assert [tell(item) for item in composition.left_out] == [
        f"{UPSTREAM}#3 dropped: same head with #40",
        f"{UPSTREAM}#4 dropped: same diff with #40",
    ]


def test_a_replayed_one_of_another_repository_says_so_in_its_commit(fork: Fork) -> None:
    fork.pull(8, fork.commit("with docs", {A: edit(TEN, 1, "x"), "docs/d.md": "d\n"}, fork.base.commit))

    (topic,) = candidates(fork, _8=f"{UPSTREAM}#8").topics

    assert topic.replayed
    assert fork.store.show(topic.commit, "%s") == f"{UPSTREAM}#8: with docs"


@pytest.mark.parametrize(
    ("key", "left"),
    [
        ("5", [f"{UPSTREAM}#5", "other/sglang#5", "#7"]),
        ("#5", ["#7"]),
        (f"{UPSTREAM}#5", [f"{UPSTREAM}#5", "#7"]),
        ("#7", ["#7"]),
        ("77", ["#7"]),
    ],
)
def test_a_skip_is_for_one_repository_or_for_whichever_has_the_number(fork: Fork, key: str, left: list[str]) -> None:
    """Both of upstream's and another's number is 5; the fork's is 7."""
    for number, line in ((5, 1), (6, 5), (7, 9)):
        one(fork, number, line)
    found = candidates(fork, _5=f"{UPSTREAM}#5", _6="other/sglang#5")

    composition = fork.compose(skips={key: "because", "#7": "never"}, candidates=found).composition

    skipped = {item.name: item.detail for item in composition.left_out}
    assert skipped == {name: "never" if name == "#7" else "because" for name in left}
    assert {topic.name for topic in composition.included} == {"#7", f"{UPSTREAM}#5", "other/sglang#5"} - set(left)


def test_its_own_entry_speaks_louder_than_the_bare_number(fork: Fork) -> None:
    one(fork, 5, 1)
    one(fork, 6, 9)
    found = candidates(fork, _5=f"{UPSTREAM}#5")
    composition = fork.compose(skips={"5": "any", f"{UPSTREAM}#5": "this one"}, candidates=found).composition
    assert [(item.name, item.detail) for item in composition.left_out] == [(f"{UPSTREAM}#5", "this one")]


def test_what_is_left_out_is_told_in_the_same_order_and_leads_to_its_page(fork: Fork) -> None:
    for number in (4, 5, 12):
        fork.pull(number, fork.commit("docs", {"docs/d.md": f"{number}\n"}, fork.base.commit))
    found = candidates(fork, _4="other/sglang#4", _5=f"{UPSTREAM}#5")

    left_out = compose(fork, found).composition.left_out

    assert [(item.name, item.url) for item in left_out] == [
        ("#12", "https://h/12"),
        ("other/sglang#4", "https://h/4"),
        (f"{UPSTREAM}#5", "https://h/5"),
    ]


def test_the_order_is_that_in_which_the_repositories_came(fork: Fork) -> None:
    fork.pull(1, fork.commit("docs", {"docs/d.md": "d\n"}, fork.base.commit))
    (item,) = candidates(fork).left_out

    def named(*names: str) -> list[LeftOut]:
        return [replace(item, name=name) for name in names]

    assert [each.name for each in in_order(named("z/z#9", "#100", "a/a#1", "z/z#10", "#20", "z/z#2"))] == [
        *("#20", "#100"),
        *("z/z#2", "z/z#9", "z/z#10"),
        "a/a#1",
    ]


def test_a_newer_head_goes_with_what_is_left_out_and_with_what_is_merged(fork: Fork) -> None:
    one(fork, 1, 1)
    fork.pull(2, fork.commit("docs", {"docs/d.md": "d\n"}, fork.base.commit))
    newer = fork.commit("newer", {}, fork.base.commit)
    pulls, _ = fork.read()
    moved = [replace(pull, newer_head=newer) for pull in pulls]
    topics, left_out = pull_topics(fork.store, fork.base, (), moved, lane=fork.lane)
    assert [topic.newer_head for topic in topics] == [newer]
    assert [item.newer_head for item in left_out] == [newer]
