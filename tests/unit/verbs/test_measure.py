"""Measuring in turns, what a night reads of earlier ones, and what it leaves behind."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, edit
from tests.unit.verbs.night_bench import Fork

from patchstack.culprits import Blame, Certainty, Culprit, Finding, Suspect
from patchstack.errors import MachineError, RemoteError
from patchstack.git import EMPTY_TREE
from patchstack.model import (
    Base,
    Composition,
    Deployed,
    Fingerprint,
    Form,
    GuardOutcome,
    GuardReport,
    GuardResult,
    Hardware,
    LaneAnswer,
    LaneJob,
    LaneRecord,
    LaneRun,
    LaneRuns,
    NightRecord,
    Past,
    Quarantined,
    Sample,
    Sha,
    Shard,
    TreeRun,
)
from patchstack.release.history import history_ref, record_problem, records_in
from patchstack.verbs import history, measure
from patchstack.verbs.history import past_of, quarantined_green, record_of
from patchstack.verbs.measure import join, peer_of

PASS, FAIL, FLAKY = GuardOutcome.PASS, GuardOutcome.FAIL, GuardOutcome.FLAKY
MISSING, CRASH = GuardOutcome.MISSING, GuardOutcome.CRASH
TEST = "tests/regression/bed/test_costs.py::test_it"
BASE = Base("sglang==0.5.12.post1", "0.5.12.post1", Sha("b" * 40), Sha("c" * 40))
MADE = Composition("production", BASE, Sha("d" * 40), Sha("e" * 40), (), (), Fingerprint("f", ()))


def said(outcome: GuardOutcome = PASS, *values: float, test: str = TEST, slug: str = "bed") -> GuardResult:
    return GuardResult(test, slug, True, outcome, 1.0, samples=tuple(Sample("cost", value) for value in values))


# --- several rounds ---


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        (said(PASS, 1.0), said(PASS, 2.0, 3.0), said(PASS, 1.0, 2.0, 3.0)),
        (said(PASS, 1.0), said(FAIL), said(FLAKY)),
        (said(CRASH), said(PASS, 1.0), said(FLAKY)),
        (said(PASS, 1.0), said(MISSING), said(MISSING)),
        (said(MISSING), said(FAIL), said(MISSING)),
        (said(FAIL), said(CRASH), said(FAIL)),
    ],
)
def test_what_a_test_said_in_two_rounds(first: GuardResult, second: GuardResult, joined: GuardResult) -> None:
    other = said(PASS, 9.0, test=f"{TEST}_too")
    assert join([first, other, second]) == (joined, other)


def test_guards_of_two_patches_are_two() -> None:
    assert len(join([said(slug="x"), said(slug="y")])) == 2


# --- what is compared with ---


def test_another_tree_on_the_same_base_is_measured_beside() -> None:
    deployed = Deployed("n", Sha("1" * 40), Sha("2" * 40), BASE.commit)
    past = Past("production", deployed, ())
    assert peer_of(past, MADE) == deployed
    assert peer_of(None, MADE) is None
    assert peer_of(replace(past, deployed=None), MADE) is None
    assert peer_of(replace(past, deployed=replace(deployed, tree=MADE.tree)), MADE) is None
    assert peer_of(replace(past, deployed=replace(deployed, base_commit=Sha("9" * 40))), MADE) is None


# --- what is left behind ---

ENTRY = Quarantined("tests/regression/x/test_x.py", "@acme/pd", "slow", "2026-11-20", "2026-12-01", "a fix")


def report(*composed: GuardResult, quarantine: tuple[Quarantined, ...] = ()) -> GuardReport:
    runs = (
        TreeRun("base", False, BASE.tree, (said(FAIL, test="a"),)),
        TreeRun("composed", True, MADE.tree, composed),
        TreeRun("last promoted", False, Sha("2" * 40), (said(CRASH),), beside=True),
    )
    return GuardReport("cpu", "bed", runs, (), node="a node", quarantine=quarantine)


def test_a_record_has_what_was_not_green_and_who_was_found() -> None:
    suspect = Suspect(Culprit.PULL, "#41", "1" * 40)
    finding = Finding(Certainty.CONFIRMED, ("b",), (suspect,), "it is", (1,))
    record = record_of(
        night="20261121T020000Z",
        at=datetime(2026, 11, 21, 2, tzinfo=UTC),
        composition=MADE,
        tests=report(said(), said(FLAKY, test="b\x1b"), said(FAIL, test="c")),
        samples=(("cost", 3.0),),
        promoted=True,
        blame=Blame(MADE.commit, MADE.tree, (), (finding,), ()),
    )
    assert record == NightRecord(
        "20261121T020000Z",
        "2026-11-21T02:00:00+00:00",
        "production",
        MADE.tree,
        True,
        "a node",
        (("cost", 3.0),),
        (("b?", "flaky"), ("c", "fail")),
        (),
        (("#41", "CONFIRMED"),),
    )


def test_a_record_has_what_other_lanes_said_in_names_that_a_reader_takes() -> None:
    job = LaneJob("20261121T020000Z", "1-gpu", Shard(1, 1, ("b",)), MADE.commit, MADE.tree, Form.DEVICE, "i@d", 1, 60.0)
    hardware = Hardware("gpu-07", "16 x Any\x1b", 128, ("H200",))
    answer = LaneAnswer(job, hardware, (said(FLAKY, test="b::\x1b"),))
    run = LaneRun("1-gpu", "local", Form.DEVICE, (), (answer,), answer.results)
    record = record_of(
        night="20261121T020000Z",
        at=datetime(2026, 11, 21, 2, tzinfo=UTC),
        composition=MADE,
        tests=report(),
        samples=(),
        promoted=True,
        blame=None,
        lanes=LaneRuns(MADE.commit, (run,)),
    )
    told = (("b::?", "flaky"),)
    assert record.lanes == (LaneRecord("1-gpu", "16 x Any?; 128 GiB; 1 x H200", False, (), told),)
    assert record_problem(record, "production", datetime(2026, 11, 22, tzinfo=UTC)) == ""


def test_nights_in_a_row_in_which_a_quarantined_guard_was_green() -> None:
    """A whole file counts where all of it passed; an entry of which nothing ran does not."""
    first, second = (said(test=f"{ENTRY.test}::test_{name}[1]", slug="x") for name in "ab")
    bad = replace(second, outcome=GuardOutcome.QUARANTINED)
    other = replace(ENTRY, test="tests/regression/x/test_x")
    one = replace(ENTRY, test=f"{ENTRY.test}::test_a")
    green = NightRecord("n", "", "production", MADE.tree, True, "", (), (), (ENTRY.test,))
    past = Past("production", None, (green, green, replace(green, quarantined_green=()), green))
    assert quarantined_green(report(first, second, quarantine=(ENTRY, other, one)), past) == (
        (ENTRY.test, 3),
        (one.test, 1),
    )
    assert quarantined_green(report(first, bad, quarantine=(ENTRY,)), past) == ()
    assert quarantined_green(report(first, quarantine=(ENTRY,)), None) == ((ENTRY.test, 1),)
    # The bed's own controls must pass on the base; on the tree that was promoted last nobody asks.
    control, bad_one = said(test=first.test, slug="bed"), said(test=second.test, slug="bed", outcome=GuardOutcome.FAIL)
    on_base = TreeRun("base", False, MADE.base.tree, (control,))
    beside = TreeRun("last promoted", False, MADE.tree, (bad_one,), beside=True)
    bed = replace(report(quarantine=(ENTRY,)), runs=(on_base, beside))
    assert quarantined_green(bed, None) == ((ENTRY.test, 1),)


def test_a_quarantined_scenario_is_green_where_its_lane_says_so_on_its_own_machines() -> None:
    first = said(test=f"{ENTRY.test}::test_a", slug="x")
    run = LaneRun("1-gpu", "local", Form.DEVICE, (), (), (first,))
    tests = report(quarantine=(ENTRY,))
    assert quarantined_green(tests, None, LaneRuns(MADE.commit, (run,))) == ((ENTRY.test, 1),)
    red = replace(run, results=(replace(first, outcome=GuardOutcome.QUARANTINED),))
    assert quarantined_green(tests, None, LaneRuns(MADE.commit, (run, red))) == ()
    rehearsed = replace(run, form=Form.REHEARSAL)
    assert quarantined_green(tests, None, LaneRuns(MADE.commit, (rehearsed,))) == ()


# --- whole nights ---


@pytest.fixture
def fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fork:
    fork = Fork(tmp_path / "fork", monkeypatch)
    fork.patches.patch("kept", fork.base, {"python/sglang/kept.py": "KEPT = 1\n"})
    assert fork.night().promotion is not None
    return fork


def kept(fork: Fork) -> tuple[NightRecord, ...]:
    remote = fork.remote
    tip = remote.resolve(history_ref("production"))
    assert tip is not None
    found = records_in(remote, tip, "production", datetime(2027, 1, 1, tzinfo=UTC))
    assert found.notes == ()
    return found.nights


def test_every_night_that_tested_is_kept_and_the_next_one_reads_it(fork: Fork) -> None:
    fork.pull(7, {A: edit(TEN, 1, "one")})
    second = fork.night()
    unchanged = fork.night()
    assert unchanged.nothing_to_do
    first_kept, second_kept = reversed(kept(fork))
    assert (second_kept.night, second_kept.promoted) == (second.night, True)
    assert second.composition is not None
    assert second_kept.tree == second.composition.tree
    past = past_of(fork.run(second))
    assert past is not None
    assert (past.nights, past.notes) == ((first_kept,), ())
    assert past.deployed is not None
    assert (past.deployed.night, past.deployed.tree) == (first_kept.night, first_kept.tree)


def test_history_that_is_lost_or_broken_stops_no_night(fork: Fork) -> None:
    """Whoever has removed the branch has removed the band with it, and nothing else."""
    remote, ref = fork.remote, history_ref("production")
    remote.set_refs({ref: None})
    fork.pull(7, {A: edit(TEN, 1, "one")})
    assert fork.night().promotion is not None
    assert len(kept(fork)) == 1
    blob = remote.write_blob(b"{}")
    broken = remote.edit_tree(EMPTY_TREE, [("100644", blob, "nights/20261121T020000Z.json")])
    remote.set_refs({ref: remote.commit(broken, [], "by hand\n")})
    fork.pull(8, {A: edit(TEN, 9, "nine")})
    report = fork.night()
    assert report.promotion is not None
    (note,) = [note for note in report.notes if "history/production" in note]
    assert note.endswith("20261121T020000Z.json: it does not read as a record of this version")


def test_history_that_cannot_be_read_stops_no_night(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RemoteError("fetching failed")

    monkeypatch.setattr(history, "read_history", refuse)
    fork.pull(7, {A: edit(TEN, 1, "one")})
    report = fork.night()
    assert report.promotion is not None
    assert "history/production cannot be read, and no number is held against a band: fetching failed" in report.notes


def test_history_that_cannot_be_written_stops_no_promotion(fork: Fork) -> None:
    hook = fork.remote.folder / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\ncase "$1" in refs/heads/history/*) exit 1 ;; esac\n')
    hook.chmod(0o755)
    before = kept(fork)
    fork.pull(7, {A: edit(TEN, 1, "one")})
    report = fork.night()
    assert report.promotion is not None
    assert any(note.startswith("this night is not kept in history/production") for note in report.notes)
    assert kept(fork) == before


def test_a_deployed_tree_that_cannot_be_laid_is_done_without(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guards have answered by then: an hour of them is not for nothing."""
    fork.pull(7, {A: edit(TEN, 1, "one")})
    report = fork.night()
    assert report.composition is not None
    laid = []

    def lay(_work: object, tree: Sha, _bed: object) -> None:
        laid.append(tree)
        raise MachineError("the disk\nis full")

    monkeypatch.setattr(measure, "lay_tree", lay)
    found = measure._peer(fork.work, fork.run(report), report.composition, None)  # type: ignore[arg-type]
    (tree,) = laid
    assert tree == kept(fork)[1].tree
    assert found == (None, f"the last promoted tree {tree[:12]} cannot be laid: the disk is full")
