"""Guards over several machines: every file on one of them, by measured times; and what they said as one report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchstack.errors import UsageError
from patchstack.model import (
    GuardOutcome,
    GuardReport,
    GuardResult,
    Scenario,
    Sha,
    Shard,
    Standing,
    TreeRun,
)
from patchstack.regress.durations import Durations
from patchstack.regress.prove import Claim
from patchstack.regress.shards import MOST, Part, decide_shards, gather, read_part, weights

PASS, FAIL, MISSING = GuardOutcome.PASS, GuardOutcome.FAIL, GuardOutcome.MISSING
TREE, BASE = Sha("a" * 40), Sha("b" * 40)


def test_the_longest_go_first_each_to_who_has_least_to_do() -> None:
    seconds = {"a": 3.0, "b": 9.0, "c": 5.0, "d": 5.0, "e": 1.0, "f": 2.0}
    assert decide_shards(seconds, 2) == (("a", "b", "e"), ("c", "d", "f"))
    assert decide_shards(seconds, 3) == (("b",), ("a", "c"), ("d", "e", "f"))
    assert decide_shards(seconds, 1) == (("a", "b", "c", "d", "e", "f"),)


def test_what_nobody_has_measured_counts_as_the_median() -> None:
    assert decide_shards({"a": 8.0, "b": 7.0, "c": 6.0, "new": None}, 2) == (("a", "c"), ("b", "new"))
    assert decide_shards({"c": None, "b": None, "a": None}, 2) == (("a", "c"), ("b",))


def test_what_takes_no_time_leaves_no_shard_empty() -> None:
    assert decide_shards({"a": 0.0, "b": 0.0, "c": 0.0}, 3) == (("a",), ("b",), ("c",))


def test_more_shards_than_files_is_refused() -> None:
    with pytest.raises(UsageError, match="1 file of guards over 2 shards: some would test nothing; take 1 at most"):
        decide_shards({"a": 1.0}, 2)


@given(
    st.dictionaries(st.text("abc/", min_size=1, max_size=6), st.none() | st.floats(0, 1e6), min_size=1, max_size=40),
    st.data(),
)
def test_every_file_is_in_exactly_one_shard_and_none_is_empty(
    seconds: dict[str, float | None], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(seconds)))
    shards = decide_shards(seconds, count)
    assert len(shards) == count
    assert all(shards)
    assert sorted(file for shard in shards for file in shard) == sorted(seconds)
    shuffled = dict(data.draw(st.permutations(list(seconds.items()))))
    assert decide_shards(shuffled, count) == shards


def test_a_file_weighs_what_it_takes_on_all_trees() -> None:
    known = Durations({"a": 10.0, "b": 4.0}, {"a": 3.0, "bed": 7.0}, {"x/m": 6.0, "x/n": 1.0})
    kills = {"x/m": ("a", "b"), "x/n": ("b",), "x/never": ("a",)}
    everywhere = [(file, composed) for file in ("a", "b", "d", "e") for composed in (True, False)]
    assert weights([*everywhere, ("bed", False), ("a", True)], known, {"a": 99.0, "d": 60.0}, kills) == {
        "a": 26.0,  # two patches have it among their guards
        "b": 12.0,  # where it has never run it takes as long as elsewhere
        "bed": 7.0,
        "d": 60.0,
        "e": None,
    }


@pytest.mark.parametrize(
    ("text", "part"),
    [("1/1", Part(1, 1)), ("2/3", Part(2, 3)), ("2", Part(2, 4)), ("256/256", Part(256, MOST))],
)
def test_a_shard_is_named_by_its_number(text: str, part: Part) -> None:
    assert read_part(text, 4) == part


@pytest.mark.parametrize(
    "text", ["", "0", "0/2", "3/2", "5", "1/", "/2", "1/0", "a/2", "-1/2", "1/2/3", "01/2", "1/257", "1/9999"]
)
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--shard .*(2/3|there is no shard)"):
        read_part(text, 4)


# --- reports ---

A, B, C = (f"tests/regression/x/test_{name}.py" for name in "abc")
CLAIMS = {"x": Claim("base")}
SCENARIO = Scenario("1-gpu", "tests/regression/gpu/test_g.py::test_g")


def report(number: int, files: tuple[str, ...], said: Mapping[str, tuple[GuardOutcome, GuardOutcome]]) -> GuardReport:
    """Of shard ``number`` of two: what each file says with the patch and without it."""

    def run(label: str, tree: Sha, which: int) -> TreeRun:
        results = [GuardResult(f"{file}::test_it", "x", False, both[which], 1.0) for file, both in said.items()]
        return TreeRun(label, label == "composed", tree, tuple(results))

    runs = (run("composed", TREE, 0), run("base", BASE, 1))
    return GuardReport("cpu", "bed", runs, (), (SCENARIO,), shard=Shard(number, 2, files))


GOOD = (PASS, FAIL)
ONE = report(1, (A,), {A: GOOD, B: (MISSING, MISSING)})
TWO = report(2, (B,), {B: GOOD, A: (MISSING, MISSING)})


def test_shards_say_together_what_one_machine_would() -> None:
    whole = gather([ONE, TWO], CLAIMS)
    assert [(run.label, [(said.test, said.outcome) for said in run.results]) for run in whole.runs] == [
        ("composed", [(f"{A}::test_it", PASS), (f"{B}::test_it", PASS)]),
        ("base", [(f"{A}::test_it", FAIL), (f"{B}::test_it", FAIL)]),
    ]
    assert [(proof.slug, proof.standing) for proof in whole.proofs] == [("x", Standing.PROVEN)]
    assert (whole.shard, whole.not_run, whole.lane, whole.bed) == (None, (SCENARIO,), "cpu", "bed")
    assert {run.label for run in gather([TWO, ONE], CLAIMS).runs} == {"composed", "base"}


def test_a_shard_that_is_not_there_is_not_made_up() -> None:
    others = TreeRun("base + y", False, BASE, (GuardResult(f"{B}::test_it", "x", False, MISSING, 0.0),))
    alone = gather([replace(ONE, runs=(*ONE.runs, others))], CLAIMS)
    assert [run.label for run in alone.runs] == ["composed", "base"]
    assert [said.test for run in alone.runs for said in run.results] == [f"{A}::test_it"] * 2


def test_what_one_shard_could_not_run_is_still_missing() -> None:
    broken = report(2, (B,), {B: (MISSING, FAIL)})
    found = {said.test: said.outcome for said in gather([ONE, broken], CLAIMS).runs[0].results}
    assert found == {f"{A}::test_it": PASS, f"{B}::test_it": MISSING}


def test_a_tree_is_kept_where_every_shard_has_kept_it() -> None:
    def kept(report: GuardReport) -> GuardReport:
        return replace(report, runs=tuple(replace(run, kept=True) for run in report.runs))

    assert [run.kept for run in gather([kept(ONE), TWO], CLAIMS).runs] == [False, False]
    assert [run.kept for run in gather([kept(ONE), kept(TWO)], CLAIMS).runs] == [True, True]


def test_numbers_of_several_machines_are_those_of_all_of_them() -> None:
    found = gather([replace(TWO, node="b"), replace(ONE, node="a")], CLAIMS)
    assert found.node == "a + b"
    assert gather([replace(TWO, node="b"), replace(ONE, node="b")], CLAIMS).node == "b"


@pytest.mark.parametrize(
    ("reports", "said"),
    [
        ([], "there is no report to gather"),
        ([ONE, replace(TWO, shard=None)], "a report that is to be gathered is of no shard"),
        ([ONE, TWO, ONE], "shard 1/2 is there twice"),
        ([ONE, replace(TWO, shard=Shard(2, 3, (B,)))], "shard 2/3 and shard 1/2 are of other numbers of shards"),
        (
            [ONE, replace(TWO, shard=Shard(2, 2, (A, B)))],
            f"shard 1/2 and shard 2/2 both have {A}: they were divided by other measured times",
        ),
        ([ONE, replace(TWO, lane="1-gpu")], "shard 2/2 and shard 1/2 differ in their lane"),
        ([ONE, replace(TWO, bed="other")], "differ in their bed"),
        ([ONE, replace(TWO, not_run=())], "differ in their not_run"),
        ([ONE, report(2, (B,), {B: GOOD, A: GOOD})], f"shard 2/2 speaks of {A}::test_it, which is none of its files"),
        ([ONE, report(2, (B,), {B: GOOD, C: GOOD})], f"shard 2/2 speaks of {C}::test_it, which is none of its files"),
        ([ONE, report(2, (B,), {B: GOOD, A: (FAIL, MISSING)})], f"shard 2/2 speaks of {A}::test_it"),
    ],
)
def test_what_does_not_belong_together_is_refused(reports: list[GuardReport], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        gather(reports, CLAIMS)
    assert said in str(caught.value)
