"""Which runs the verb promotes: judged ones, on what they were judged on, once, and nothing older than deploy."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.unit.verbs.fork_bench import TWO_LANES, as_planned, workplace, write_repository

from patchstack.errors import GateFailed, Incomplete, PatchstackError, RemoteError, UsageError
from patchstack.git import EMPTY_TREE, Repository
from patchstack.model import (
    Base,
    Candidates,
    Composition,
    GuardOutcome,
    GuardReport,
    GuardResult,
    Kind,
    LeftOut,
    MergePlan,
    Outcome,
    Promotion,
    Proof,
    Reason,
    Sha,
    Standing,
    Topic,
    TreeRun,
    Verdicts,
)
from patchstack.store import Run
from patchstack.verbs.plan import composed, merge, planned
from patchstack.verbs.promote import promote, status
from patchstack.verbs.remote import open_remote
from patchstack.verbs.test import gate
from patchstack.workplace import Workplace


@dataclass
class Desk:
    """A workplace whose runs are written by hand, on a real store and the embedded remote."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def work(self, *, lane: str | None = None, remote: str | None = None, state: str = ".patchstack") -> Workplace:
        if not (self.folder / "deploy.yaml").is_file():
            (self.folder / "deploy.yaml").write_text(TWO_LANES)
            write_repository(self.folder)
        return workplace(self.folder, lane=lane, remote=remote, local=True, state=state)

    def compose(self, fix: str = "a", *left_out: LeftOut) -> Composition:
        store = self.work().store()
        trees = [
            store.edit_tree(EMPTY_TREE, [("100644", store.write_blob(text.encode()), "python/sglang/a.py")])
            for text in ("plain", fix)
        ]
        base = Base("sglang==0.5.12.post1", "0.5.12.post1", store.commit(trees[0], (), "base\n"), trees[0])
        topic = store.commit(trees[1], (base.commit,), "fix\n")
        octopus = store.commit(trees[1], (base.commit, topic), "octopus\n")
        path = ("python/sglang/a.py",)
        patch = Topic("fix", Kind.PATCH, "t", "Pat", topic, topic, base.commit, topic, "id", path, required=True)
        return Composition(
            "production", base, octopus, trees[1], (patch,), left_out, as_planned(self.work(), f"print {fix}")
        )

    def begin(self, minute: int) -> Run:
        self.monkeypatch.setenv("PATCHSTACK_NOW", f"2026-11-21T02:{minute:02}:00+00:00")
        return self.work().state.new_run()

    def run(self, composition: Composition, *, minute: int = 0, said: GuardOutcome = GuardOutcome.PASS) -> Run:
        """A run that was planned, composed, tested and judged."""
        run = self.begin(minute)
        run.write(Candidates(composition.base, composition.included, composition.left_out))
        run.write(MergePlan("production", composition.base, composition.included, (), composition.fingerprint))
        run.write(composition)
        report = report_on(composition, said)
        run.write(report)
        gate(self.work(), run, composition, report)
        return run

    def refused(self, run: Run, kind: type[PatchstackError], said: str, **options: str) -> None:
        """`promote` raises ``kind``, and nothing on the remote has moved."""
        work = self.work(**options)  # type: ignore[arg-type]
        open_remote(work)
        remote = Repository(Path(work.remote))
        before = remote.refs()
        for dry_run in (True, False):
            with pytest.raises(kind, match=said):
                promote(work, run, dry_run=dry_run)
        assert remote.refs() == before


def report_on(composition: Composition, said: GuardOutcome = GuardOutcome.PASS) -> GuardReport:
    def ran(label: str, tree: Sha, outcome: GuardOutcome) -> TreeRun:
        return TreeRun(label, label != "base", tree, (GuardResult("test", "fix", False, outcome, 1.0),))

    runs = (
        ran("composed", composition.tree, said),
        ran("base", composition.base.tree, GuardOutcome.FAIL),
    )
    return GuardReport("cpu", "bed", runs, (Proof("fix", "base", Standing.PROVEN, "d"),))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_a_run_is_promoted_once(desk: Desk) -> None:
    run = desk.run(desk.compose())
    first = promote(desk.work(), run).promotion
    assert Repository(Path(desk.work().remote)).resolve("refs/heads/deploy") == first.commit
    again = promote(desk.work(), run)
    assert (again.promotion, again.notes[0].partition(" at ")[0]) == (
        first,
        f"run {run.id} is promoted already, as {first.commit[:12]}",
    )
    run.path(Promotion).unlink()
    found = promote(desk.work(), run).promotion
    assert (found, run.read(Promotion)) == (replace(first, pushed=first.pushed[:1]), found)
    assert Repository(Path(desk.work().remote)).resolve("refs/heads/deploy") == first.commit


def test_a_night_of_another_machine_by_the_same_name_is_no_night_of_this_run(desk: Desk) -> None:
    run = desk.run(desk.compose("old"))
    promote(desk.work(), run)
    shutil.rmtree(run.folder)
    other = desk.run(desk.compose("new"))
    assert other.id == run.id
    desk.refused(other, RemoteError, f"another night {run.id} is on deploy, of a machine that began in the same second")


def test_a_run_that_began_before_the_night_that_is_deployed_would_take_it_back(desk: Desk) -> None:
    old, new = desk.run(desk.compose("old"), minute=0), desk.run(desk.compose("new"), minute=5)
    promote(desk.work(), new)
    desk.refused(old, RemoteError, rf"after run {old.id} had begun: promoting it now would take that back")
    old.folder.rename(old.folder.with_name("renamed"))
    desk.refused(desk.work().state.run("renamed"), RemoteError, "after run renamed had begun")
    assert promote(desk.work(), desk.run(desk.compose("newer"), minute=9)).promotion.line.included


def test_a_verdict_is_on_the_composition_that_it_judged(desk: Desk) -> None:
    run, other = desk.run(desk.compose("a")), desk.compose("b")
    run.write(other)
    desk.refused(run, UsageError, r"the verdict of run \S+ does not follow from its composition")
    run.write(report_on(other))
    promote(desk.work(), run)


def test_a_verdict_from_another_run_or_by_hand_is_none(desk: Desk) -> None:
    red, green = desk.run(desk.compose(), said=GuardOutcome.FAIL), desk.run(desk.compose(), minute=1)
    desk.refused(red, GateFailed, "channel nightly is FAIL")
    red.path(Verdicts).write_bytes(green.path(Verdicts).read_bytes())
    desk.refused(red, UsageError, "does not follow from its composition, its tests")


def test_a_verdict_holds_for_the_needs_that_it_was_made_for(desk: Desk) -> None:
    run = desk.run(desk.compose())
    (desk.folder / "deploy.yaml").write_text(TWO_LANES.replace("needs: [cpu]", "needs: [cpu, 1-gpu]"))
    desk.refused(run, UsageError, "deploy.yaml as they are now")
    gate(desk.work(), run, run.read(Composition), run.read(GuardReport))
    desk.refused(run, Incomplete, "it needs 1-gpu, which did not run")


def test_what_lacks_a_patch_on_request_or_was_tested_in_part_is_not_promoted(desk: Desk) -> None:
    out = LeftOut("y", Kind.PATCH, "t", "Pat", None, Outcome.SKIPPED, Reason.ON_REQUEST, "d", required=True)
    desk.refused(desk.run(desk.compose("a", out)), Incomplete, "patch y is left out on request")
    run = desk.run(desk.compose())
    run.write(replace(run.read(GuardReport), proofs=()))
    gate(desk.work(), run, run.read(Composition), run.read(GuardReport))
    desk.refused(run, Incomplete, "patch fix: its guards did not run")


def test_a_run_of_another_lane_or_another_store_is_refused_by_name(desk: Desk) -> None:
    run = desk.run(desk.compose())
    desk.refused(run, UsageError, "is of lane production, not of edge: use --lane production", lane="edge")
    desk.refused(run, UsageError, "is not in .*other/store.git: plan again on this machine", state="other")
    for stage in (composed, planned, merge):
        with pytest.raises(UsageError, match="is of lane production"):
            stage(desk.work(lane="edge"), run)  # type: ignore[operator]
    with pytest.raises(UsageError, match="plan again on this machine"):
        merge(desk.work(state="other"), run)


def test_a_composition_that_is_not_what_its_commit_holds_is_refused(desk: Desk) -> None:
    right = desk.compose()
    run = desk.run(right)
    for wrong in (
        replace(right, tree=right.base.tree),
        replace(right, included=()),
        replace(right, commit=right.base.commit),
        replace(right, base=replace(right.base, tree=right.tree)),
        replace(right, commit=Sha("--all")),
        replace(right, commit=Sha("d" * 40)),
    ):
        run.write(wrong)
        desk.refused(run, UsageError, "composition")


@pytest.mark.parametrize("text", ["", "[" * 100_000, "\x00", '{"schema_version": 1, "type": "Composition"}', "[]"])
def test_a_damaged_file_is_named_with_what_to_do(desk: Desk, text: str) -> None:
    run = desk.run(desk.compose())
    run.path(Composition).write_text(text)
    desk.refused(run, UsageError, r"composition.json: not a Composition of this version")
    run.path(Composition).write_bytes(b"\xff\xfe")
    desk.refused(run, UsageError, r"composition.json: it is not text")


def test_the_newest_judged_run_is_this_lane_s(desk: Desk) -> None:
    mine, theirs = desk.run(desk.compose()), desk.run(desk.compose(), minute=5)
    theirs.write(replace(theirs.read(MergePlan), lane="edge"))
    assert desk.work().judged_run(None) == mine
    assert status(desk.work()).channels[0].why_not == ()


def test_a_relative_remote_is_where_it_was_written(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.folder)
    assert desk.work(remote="fork.git").remote == str(desk.folder / "fork.git")
    for url in ("https://example.com/x.git", "git@example.com:x.git", "ssh://h/x", "file:///x", "/x"):
        assert desk.work(remote=url).remote == url
    (desk.folder / "deploy.yaml").write_text(TWO_LANES.replace("acme/sglang}", "acme/sglang, remote: ../fork.git}"))
    monkeypatch.chdir("/")
    assert desk.work().remote == str(desk.folder / ".." / "fork.git")
    for bad in ("", " ", "-x"):
        with pytest.raises(UsageError, match="is not a URL"):
            desk.work(remote=bad)


def test_several_lanes_without_production_must_be_chosen_from(desk: Desk) -> None:
    (desk.folder / "deploy.yaml").write_text(TWO_LANES.replace("production:", "stable:"))
    with pytest.raises(UsageError, match=r"choose one: --lane stable\|edge"):
        desk.work()
