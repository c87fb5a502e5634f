"""Which suites a test runs, and on what each patch's guards must fail: the base and all that it requires."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.patches.stack_bench import Bench
from tests.unit.verbs.fork_bench import as_planned, workplace

from patchstack.compose.compose import compose
from patchstack.errors import UsageError
from patchstack.model import Candidates, Composition
from patchstack.patches.topics import build_topics
from patchstack.regress.ground import Ground
from patchstack.regress.suites import BED_SUITE
from patchstack.verbs.selection import Selection, grounds_of, groups_of, select
from patchstack.workplace import Workplace

CONFIG = """\
schema: 1
fork: {repo: acme/sglang}
lanes:
  production: {upstream: {pypi: sglang==1.0}, branch: deploy}
channels:
  nightly: {needs: [cpu]}
"""


@dataclass(frozen=True)
class Stack:
    """Patches on a small release; each writes one file of its own."""

    work: Workplace
    bench: Bench

    def compose(self, *without: str) -> Composition:
        base = self.bench.releases["1.0"]
        topics, left_out = build_topics(self.bench.store, base, self.bench.read(), optional_on=(), without=without)
        candidates = Candidates(base, topics, left_out)
        fingerprint = as_planned(self.work, "f")
        return compose(self.bench.store, candidates, lane="production", skips={}, fingerprint=fingerprint).composition

    def select(self, composition: Composition, *only: str) -> Selection:
        return select(self.work, composition, only)

    def files(self, ground: Ground) -> list[str]:
        return [entry.path for entry in self.bench.store.list_tree(ground.tree)]


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    (tmp_path / "deploy.yaml").write_text(CONFIG)
    work = workplace(tmp_path, local=True)
    bench = Bench(work.store(), tmp_path)
    base = bench.release("1.0", {"base": ""})
    commits = {}
    needs = {"lock": (), "other": (), "pd-abort": ("lock",), "pd-retry": (), "pd-park": ("pd-abort", "pd-retry")}
    for slug, requires in needs.items():
        below = {"pd-abort": commits.get("lock")}.get(slug)
        if slug == "pd-park":
            below = bench.commit(commits["pd-abort"], {"pd-retry": ""}, "both")
        commits[slug] = bench.patch(slug, base, {slug: ""}, parent=below, requires=f"[{', '.join(requires)}]")
    bench.patch("switched-off", base, {"off": ""}, optional=True)
    guard = tmp_path / "tests/regression/bed/test_bed.py"
    guard.parent.mkdir()
    guard.write_text("def test_it() -> None: ...\n")
    return Stack(work, bench)


def slugs(selection: Selection) -> list[str]:
    return [suite.slug for suite in selection.suites]


def labels(grounds: Selection, of: Sequence[str]) -> list[str]:
    return [grounds.grounds[slug].label for slug in of]


def test_a_guard_must_fail_on_the_base_with_all_that_its_patch_requires(stack: Stack) -> None:
    composition = stack.compose()
    grounds = grounds_of(stack.work.store(), composition)
    assert {slug: (ground.label, stack.files(ground)) for slug, ground in grounds.items()} == {
        "lock": ("base", ["base"]),
        "other": ("base", ["base"]),
        "pd-abort": ("base + lock", ["base", "lock"]),
        "pd-retry": ("base", ["base"]),
        "pd-park": ("base + lock + pd-abort + pd-retry", ["base", "lock", "pd-abort", "pd-retry"]),
    }
    assert stack.select(composition).grounds == {BED_SUITE: Ground(composition.base.tree), **grounds}
    assert grounds["lock"].tree == composition.base.tree


def test_what_is_left_out_keeps_its_guards_and_its_ground(stack: Stack) -> None:
    """The composed tree lacks them, so that they fail there; what they are compared with is as ever."""
    whole = stack.select(stack.compose())
    without = stack.select(stack.compose("pd-retry"))
    assert without.label == "without pd-retry, pd-park"
    assert (slugs(without), without.grounds) == (slugs(whole), whole.grounds)
    assert stack.select(stack.compose("lock")).label == "without lock, pd-abort, pd-park"
    assert stack.select(stack.compose("lock")).grounds == whole.grounds


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        (["pd"], ["pd-abort", "pd-retry", "pd-park"]),
        (["pd-park"], ["pd-park"]),
        (["other", "lock"], ["lock", "other"]),
        (["pd", "pd-park", "lock"], ["lock", "pd-abort", "pd-retry", "pd-park"]),
    ],
)
def test_a_suite_is_a_slug_or_a_group(stack: Stack, only: list[str], chosen: list[str]) -> None:
    assert slugs(stack.select(stack.compose(), *only)) == [BED_SUITE, *chosen]
    assert slugs(stack.select(stack.compose("pd-retry"), *only)) == [BED_SUITE, *chosen]


@pytest.mark.parametrize("name", ["p", "pd-", "pd-abor", "abort", "PD", "", "-", "loc"])
def test_a_name_that_means_nothing_is_refused_with_those_that_mean_something(stack: Stack, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        stack.select(stack.compose(), "lock", name)
    assert str(caught.value) == (
        f"no patch or group is called {name!r}; the series has: "
        "lock, other, pd-abort, pd-retry, pd-park, switched-off; groups: pd"
    )


def test_what_is_not_in_the_composition_cannot_be_tested(stack: Stack) -> None:
    for only in (["switched-off"], ["lock", "switched-off"], ["switched"]):
        with pytest.raises(UsageError, match=r"nothing to test for switched.*: not in this composition, which has: "):
            stack.select(stack.compose(), *only)


def test_groups_are_what_several_slugs_begin_with() -> None:
    assert groups_of(["pd-a-x", "pd-a-y", "pd-b", "pdx-c", "pd", "lock"]) == ["pd", "pd-a"]
    assert groups_of(["a", "ab", "b-c"]) == []
