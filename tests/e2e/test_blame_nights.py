"""Red nights, with real commits and real pytest runs: who made them so is found out, and the rest is shipped."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.blame_bench import (
    BROKEN_BED,
    BY_CHANCE,
    EVERY_OTHER_TIME,
    FAILS_HERE,
    ON_A_GPU,
    Bench,
    found,
    included,
    left_out,
    verdicts,
)
from tests.e2e.test_night import GUARDS, SLUG, Place, copy_workplace

GUILTY = "found guilty of a red night"


@pytest.fixture(scope="module")
def published(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A fork with one promoted night."""
    bench = Bench(copy_workplace(tmp_path_factory.mktemp("published") / "fork", SLUG))
    bench.night()
    return bench


@pytest.fixture
def bench(published: Bench, tmp_path: Path) -> Bench:
    return published.copied(Place(Path(shutil.copytree(published.place.root, tmp_path / "fork", symlinks=True))))


def test_a_night_ships_all_but_the_one_that_breaks_a_guard(bench: Bench) -> None:
    """Of 16 pull requests one breaks a guard, one guard is flaky, and one lane has no machine."""
    for number in range(1, 17):
        bench.pull(number, *(["break-a"] if number == 11 else []))
    bench.write(f"{GUARDS}/test_flaky.py", EVERY_OTHER_TIME)
    bench.write("tests/regression/gpu/test_gpu.py", ON_A_GPU)
    night = bench.night()
    rest = [number for number in range(1, 17) if number != 11]
    assert (night["headline"], night["exit_code"], verdicts(night)) == (
        *("PASS", 0),
        {"nightly": "PASS", "stable": "INCOMPLETE"},
    )
    assert included(night) == [SLUG, *(f"#{number}" for number in rest)]
    assert left_out(night) == {"#11": GUILTY}
    assert ("CONFIRMED", ["#11"], ["test_nobody_says[break-a]"]) in found(night)
    assert {one for one in map(str, found(night)) if "#11" not in one} == {
        str(("FLAKY", [], ["test_every_other_time"])),
    }
    first = bench.first_blame(night)
    assert first["left_out"] == ["#11"]
    confirmed = next(one for one in first["findings"] if one["certainty"] == "CONFIRMED")
    assert 0 < len(confirmed["probes"]) <= 2 * math.log2(16) + 6
    assert any("1-gpu" in reason for verdict in night["verdicts"] for reason in verdict["reasons"])
    line = night["promotion"]["line"]
    assert line["channels"] == ["nightly"]
    assert [(bar["kind"], bar["name"], bar["value"]) for bar in line["bars"]] == [("head", "#11", bench.commits[11])]
    assert [bench.says(number) for number in range(1, 17)] == [number != 11 for number in range(1, 17)]

    refs = bench.place.refs()
    again = bench.night()
    assert (again["nothing_to_do"], again["headline"]) == (True, "PASS")
    assert {item["name"]: item["reason"] for item in again["left_out"]} == {"#11": GUILTY}
    assert bench.place.refs() == refs

    bench.pull(11, "mended")
    third = bench.night()
    assert included(third) == [SLUG, *(f"#{number}" for number in range(1, 17))]
    assert bench.says(11)
    assert third["promotion"]["line"]["bars"] == []


# --- seeded nights -------------------------------------------------------------------------------------

KINDS = {
    "nobody": [],
    "one": [["break-a"]],
    "a pair": [["left", "right"]],
    "two apart": [["break-a"], ["break-b"]],
    "three together": [["one", "two", "three"]],
    "a pair and one": [["left", "right"], ["break-c"]],
    "the same fault twice": [["break-a"], ["break-a"]],
}
"""The words of those that are guilty: who fail only together are in one list."""


@dataclass(frozen=True)
class Seeded:
    """A night whose culprits are drawn."""

    seed: int
    kind: str
    pulls: int
    flaky: float = 0.0
    """At what rate a guard fails by chance, that has nothing to do with any of them."""

    def words(self) -> dict[int, list[str]]:
        drawn = random.Random(self.seed)
        numbers = drawn.sample(range(1, self.pulls + 1), sum(map(len, KINDS[self.kind])))
        said: dict[int, list[str]] = {number: [] for number in range(1, self.pulls + 1)}
        for word, number in zip((word for group in KINDS[self.kind] for word in group), numbers, strict=True):
            said[number].append(word)
        return said

    def groups(self) -> Iterator[set[str]]:
        """Who fails only together."""
        said = self.words()
        for group in KINDS[self.kind]:
            yield {f"#{number}" for number, words in said.items() if set(words) & set(group)}

    def __str__(self) -> str:
        return f"{self.seed}: {self.kind} of {self.pulls}" + (f", flaky {self.flaky}" if self.flaky else "")


NIGHTS = [
    Seeded(1, "one", 5),
    Seeded(2, "a pair", 5),
    *(
        pytest.param(night, marks=pytest.mark.thorough)
        for night in (
            Seeded(3, "two apart", 5, flaky=0.5),
            Seeded(4, "three together", 6),
            Seeded(5, "one", 9, flaky=0.3),
            Seeded(6, "a pair and one", 6),
            Seeded(7, "nobody", 4, flaky=0.7),
            Seeded(8, "the same fault twice", 6),
            Seeded(9, "two apart", 8),
            Seeded(10, "a pair", 8, flaky=0.5),
            Seeded(11, "nobody", 3, flaky=0.5),
            Seeded(12, "one", 12),
        )
    ),
]


@pytest.mark.parametrize("night", NIGHTS, ids=str)
def test_nobody_is_blamed_who_is_not_guilty_and_nothing_red_is_promoted(bench: Bench, night: Seeded) -> None:
    for number, words in night.words().items():
        bench.pull(number, *words)
    if night.flaky:
        bench.write(f"{GUARDS}/test_flaky.py", BY_CHANCE.format(rate=night.flaky))
    done = bench.begin()
    report = done.json
    guilty = set().union(*night.groups())
    confirmed = {name for certainty, names, _ in found(report) if certainty == "CONFIRMED" for name in names}
    assert confirmed <= guilty
    out = {name for name, reason in left_out(report).items() if reason == GUILTY}
    assert out <= guilty
    if report["promotion"] is not None:
        assert not any(group <= set(included(report)) for group in night.groups())
        assert bench.deployed_tree() == report["composition"]["tree"]
    if not night.flaky:
        assert (done.code, report["headline"]) == (0, "PASS"), done.err
        assert confirmed == guilty
        assert len(out) == len(KINDS[night.kind])
        assert bench.night()["nothing_to_do"]


def test_a_machine_that_is_broken_blames_nobody(bench: Bench) -> None:
    """The bed's own control is red on the plain base: nothing is asked, and nothing is known."""
    for number in (1, 2):
        bench.pull(number, *(["break-a"] if number == 2 else []))
    bench.write("tests/regression/bed/test_bed.py", BROKEN_BED)
    refs = bench.place.refs()
    night = bench.night(code=6)
    assert (night["headline"], verdicts(night)["nightly"]) == ("INCOMPLETE", "INCOMPLETE")
    assert [(certainty, names) for certainty, names, _ in found(night)] == [("INFRA", [])]
    assert night["blame"]["probes"] == []
    assert (left_out(night), bench.branches(refs)) == ({}, bench.branches(bench.place.refs()))


def test_a_guard_that_fails_on_what_is_deployed_as_well_blames_nobody(bench: Bench) -> None:
    for number in (1, 2, 3):
        bench.pull(number)
    bench.write(f"{GUARDS}/test_here.py", FAILS_HERE)
    night = bench.night(code=6)
    assert (night["headline"], verdicts(night)["nightly"]) == ("INCOMPLETE", "INCOMPLETE")
    assert found(night) == [("INFRA", [], ["test_here"])]
    assert (left_out(night), night["promotion"]) == ({}, None)


def test_a_guilty_hotfix_leaves_nothing_to_promote(bench: Bench) -> None:
    bench.pull(1, "break-a")
    night = bench.night("--only", "1", "--onto", "previous", code=1)
    assert found(night) == [("CONFIRMED", ["#1"], ["test_nobody_says[break-a]"])]
    assert (night["headline"], night["promotion"], night["blame"]["left_out"]) == ("FAIL", None, [])
    assert "CONFIRMED: pull request #1" in night["failure"]
    assert not bench.says(1)
