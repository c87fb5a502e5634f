"""A night that lacks too much of what is deployed: whole nights on real repositories, base and series."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, Workshop, edit
from tests.unit.verbs.fork_bench import release
from tests.unit.verbs.night_bench import SOURCES, Fork

from patchstack.errors import Incomplete
from patchstack.losses import Losses
from patchstack.model import ImageResult, NightReport, Promotion, Sha, Status
from patchstack.nightly import Part, Until
from patchstack.pack import read_value
from patchstack.verbs.promote import promote
from patchstack.verbs.remote import open_remote

THREE = {number: {f"python/sglang/n{number}.py": f"N = {number}\n"} for number in (1, 2, 3)}


@pytest.fixture
def fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fork:
    """A lane with a patch and three pull requests in what is deployed."""
    fork = Fork(tmp_path / "fork", monkeypatch)
    fork.patches.patch("kept", fork.base, {"python/sglang/kept.py": "KEPT = 1\n"})
    deployed(fork.night())
    for number, files in THREE.items():
        fork.pull(number, files)
    assert deployed(fork.night()) == ["kept", "#1", "#2", "#3"]
    return fork


def deployed(report: NightReport) -> list[str]:
    assert report.promotion is not None, report.failure
    return [name for name, _ in report.promotion.line.included]


def lost(report: NightReport) -> list[tuple[str, str, bool]]:
    assert report.losses is not None
    return [(item.name, item.reason, item.counts) for item in report.losses.items]


def stopped(fork: Fork, *names: str) -> NightReport:
    """Tonight ends INCOMPLETE right after the merge, names ``names``, and nothing has moved."""
    before = fork.refs()
    report = fork.night()
    assert (report.exit_code, report.headline, report.promotion) == (6, Status.INCOMPLETE, None), report.failure
    assert (report.image, report.tests, report.timings[-1].stage) == (None, None, "merge")
    assert not fork.run(report).has(ImageResult)
    assert fork.run(report).read(Losses) == report.losses
    assert fork.refs() == before
    for name in (*names, "--accept-lost", "nothing was moved"):
        assert name in report.failure
    return report


def accepted(fork: Fork) -> NightReport:
    """The same night goes on when somebody says so, and then it is what the next one is held against."""
    report = fork.night(accept_lost=True)
    assert (report.exit_code, report.losses is not None and report.losses.accepted) == (0, True), report.failure
    assert report.promotion is not None
    assert report.promotion.line.lost == tuple((name, reason) for name, reason, _ in lost(report))
    after = fork.night()
    assert (after.exit_code, after.nothing_to_do) == (0, True)
    return report


def test_a_source_that_suddenly_lists_nothing(fork: Fork) -> None:
    fork.close(1, 2, 3)
    report = stopped(fork, "#1 at ", "#2 at ", "#3 at ", "no longer listed", "raise max_lost")
    assert lost(report) == [(f"#{number}", "no longer listed", True) for number in (1, 2, 3)]
    assert fork.night().exit_code == 6  # it is not stamped: unchanged, it is looked at again
    assert deployed(accepted(fork)) == ["kept"]


def test_as_many_as_may_be_lost_are_named_and_promoted(fork: Fork) -> None:
    fork.close(1, 3)
    report = fork.night()
    assert deployed(report) == ["kept", "#2"]
    assert lost(report) == [("#1", "no longer listed", True), ("#3", "no longer listed", True)]
    assert report.promotion is not None
    assert report.promotion.line.lost == (("#1", "no longer listed"), ("#3", "no longer listed"))
    text = (fork.run(report).folder / "report.md").read_text()
    assert "`#1` at " in text.partition("## Lost")[2].partition("## ")[0]
    # Lost once is lost: the next night is held against this one.
    fork.close(2)
    assert lost(fork.night()) == [("#2", "no longer listed", True)]


def test_a_new_patch_that_three_pull_requests_are_in_conflict_with(fork: Fork) -> None:
    files = {path: "PATCHED = 1\n" for content in THREE.values() for path in content}
    fork.patches.patch("greedy", fork.base, files)
    report = stopped(fork, *(f"#{number} at " for number in THREE), "conflict (greedy) in python/sglang/n1.py")
    assert lost(report) == [(f"#{number}", "conflict", True) for number in THREE]
    assert deployed(accepted(fork)) == ["kept", "greedy"]


def test_a_patch_that_is_no_longer_in_the_series(fork: Fork) -> None:
    fork.most = 0
    fork.configure()
    fork.patches.patch("other", fork.base, {"python/sglang/other.py": "OTHER = 1\n"})
    assert deployed(fork.night()) == ["kept", "other", "#1", "#2", "#3"]
    fork.patches.series("other")
    (fork.folder / "patches" / "kept").rename(fork.folder / "kept")
    report = stopped(fork, "kept at ", "no longer in patches/series", "max_lost in deploy.yaml allows 0")
    assert lost(report) == [("kept", "no longer in patches/series", True)]
    assert deployed(accepted(fork)) == ["other", "#1", "#2", "#3"]


def test_what_deploy_yaml_skips_is_named_and_does_not_count(fork: Fork) -> None:
    text = (fork.folder / "deploy.yaml").read_text()
    skips = ", ".join(f"{{pr: {number}, because: not now}}" for number in THREE)
    fork.configure(f"{text}pulls: {{skip: [{skips}]}}\n")
    report = fork.night()
    assert deployed(report) == ["kept"]
    assert lost(report) == [(f"#{number}", "skipped by deploy.yaml", False) for number in THREE]


def test_another_wheel_under_the_same_name(fork: Fork) -> None:
    before = fork.base.commit
    release(sources={**SOURCES, B: "another\n"})
    after = fork.base.commit
    report = stopped(fork, before, after, "(sglang==0.5.12.post1): it changed by itself")
    assert report.losses is not None
    assert report.losses.items == ()
    accepted(fork)


def test_a_base_that_moved_under_its_ref(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = Workshop(tmp_path / "upstream.git")

    def move(commit: Sha) -> Sha:
        upstream.repository.set_refs({"refs/tags/v0.5.23": commit})
        return upstream.branch("main", commit)

    first = move(upstream.commit("one", {A: TEN, "python/pyproject.toml": "[project]\n"}))
    fork = Fork(tmp_path / "fork", monkeypatch, upstream=f"{{git: '{upstream.url}', ref: main}}")
    fork.patches.patch("kept", fork.base, {"python/sglang/kept.py": "KEPT = 1\n"})
    deployed(fork.night())
    before = fork.base.commit
    move(upstream.commit("two", {A: edit(TEN, 1, "moved")}, first))
    after = fork.base.commit
    stopped(fork, before, after, f"({upstream.url}@main): it changed by itself", "name the base in deploy.yaml")
    # Who names it means it: with other words another base is no surprise.
    fork.upstream = f"{{git: '{upstream.url}', ref: refs/heads/main}}"
    fork.configure()
    report = fork.night()
    assert deployed(report) == ["kept"]
    assert (lost(report), report.losses and report.losses.base) == ([], None)


# --- in parts, and by the verb alone ---


def test_what_was_accepted_travels_with_the_run(fork: Fork, tmp_path: Path) -> None:
    fork.close(1, 2, 3)
    pack = tmp_path / "night.tar"
    composed = fork.night(Part(Until.MERGE, pack=pack), accept_lost=True)
    assert (composed.exit_code, read_value(pack, Losses).accepted) == (0, True)
    report = fork.night(Part(unpack=pack))
    # The part that runs guards also makes the image; what counts is that it is promoted.
    assert deployed(report) == ["kept"]
    assert report.losses == composed.losses


def test_the_part_that_promotes_judges_again(fork: Fork, tmp_path: Path) -> None:
    """By the remote and by deploy.yaml as they are then, whatever the pack says of itself."""
    fork.close(1, 2, 3)
    pack = tmp_path / "night.tar"
    assert fork.night(Part(Until.MERGE, pack=pack)).exit_code == 6
    of_another = {"accepted": True, "since": "20261120T000000Z"}
    for name, claims, code, said in (
        ("20261121T100000Z", {"items": []}, 6, "#1 at "),
        ("20261121T110000Z", of_another, 8, "would take that back"),
    ):
        lying = tmp_path / f"{name}.tar"
        _rewrite(pack, lying, name, claims)
        before = fork.refs()
        report = fork.night(Part(unpack=lying))
        assert (report.exit_code, report.promotion) == (code, None), name
        assert said in report.failure
        assert fork.refs() == before


def _rewrite(pack: Path, to: Path, night: str, claims: dict[str, object]) -> None:
    """The pack of a night that went on, with other losses."""
    from tests.unit.verbs.test_night_parts import members, write_members

    held = members(pack)
    report = json.loads(held["report.json"])
    held["report.json"] = json.dumps({**report, "exit_code": 0, "failure": "", "night": night}).encode()
    held["losses.json"] = json.dumps({**json.loads(held["losses.json"]), **claims}).encode()
    write_members(to, held)


def test_the_verb_promotes_no_run_that_lacks_too_much(fork: Fork) -> None:
    fork.close(1, 2, 3)
    report = fork.night(accept_lost=True, part=Part(Until.TEST))
    run = fork.run(report)
    run.path(Losses).unlink()  # the verbs one by one write none
    before = fork.refs()
    for dry_run in (True, False):
        with pytest.raises(Incomplete, match=r"3 of what night \S+ had are missing"):
            promote(fork.work, run, dry_run=dry_run)
    assert fork.refs() == before
    assert not run.has(Promotion)
    fork.most = 3
    fork.configure()
    line = promote(fork.work, run).promotion.line
    assert [name for name, _ in line.lost] == ["#1", "#2", "#3"]
    last = open_remote(fork.work).history.last
    assert last is not None
    assert last.line == line
