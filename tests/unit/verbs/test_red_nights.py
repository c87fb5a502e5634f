"""A red night: who is to blame is found out, the rest is shipped, and the head stays out until it changes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.verbs.night_bench import CONFIG, UPSTREAM, green
from tests.unit.verbs.red_bench import TEST, RedFork, bad
from tests.unit.verbs.test_night_parts import members, write_members

from patchstack.culprits import Blame, Certainty
from patchstack.errors import UsageError
from patchstack.model import (
    Composition,
    GuardOutcome,
    GuardReport,
    LedgerLine,
    MergePlan,
    NightReport,
    Reason,
    Sha,
    Status,
)
from patchstack.nightly import Part, Until
from patchstack.store import Run, cache_folder, decode, encode
from patchstack.verbs import rounds
from patchstack.verbs.rollback import release_hold, rollback
from patchstack.verbs.rounds import NO_IMAGE_OF_A_PART
from patchstack.workplace import Workplace


@pytest.fixture(scope="module")
def begun(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedFork, Path]]:
    """A fork with a promoted night of three patches and #6, and the cache that has its base."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("begun")
        monkeypatch.setenv("PATCHSTACK_CACHE", str(folder / "cache"))
        fork = RedFork(folder / "fork", monkeypatch)
        fork.configure(
            CONFIG.format(upstream=UPSTREAM, most=2).replace("branch: deploy", "branch: deploy\n    optional: [extra]")
        )
        fork.begin()
        fork.says(6)
        assert fork.night().promotion
        yield fork, cache_folder()


@pytest.fixture
def fork(begun: tuple[RedFork, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RedFork:
    made, cache = begun
    monkeypatch.setenv("PATCHSTACK_CACHE", str(shutil.copytree(cache, tmp_path / "cache")))
    copy = made.copied(tmp_path / "fork", monkeypatch)
    assert isinstance(copy, RedFork)
    copy.asked = []
    copy.listen()
    return copy


def included(report: NightReport) -> list[str]:
    assert report.composition is not None
    return [topic.name for topic in report.composition.included]


def line(report: NightReport) -> LedgerLine:
    assert report.promotion is not None, report.failure
    return report.promotion.line


def reasons(report: NightReport) -> dict[str, Reason]:
    made = report.composition.left_out if report.composition else report.left_out
    return {item.name: item.reason for item in made}


PATCHES = ["first", "second", "extra"]


def test_the_rest_is_shipped_and_the_guilty_comes_back_when_its_head_changes(fork: RedFork) -> None:
    heads = {number: fork.says(number, *(["bad"] if number == 9 else [])) for number in (7, 8, 9, 10)}
    night = fork.night()
    assert (night.headline, night.exit_code, night.failure) == (Status.PASS, 0, "")
    assert included(night) == [*PATCHES, "#6", "#7", "#8", "#10"]
    assert reasons(night) == {"#9": Reason.GUILTY}
    assert night.blame is not None
    assert (night.blame.left_out, night.blame.before) == (("#9",), None)
    (finding,) = night.blame.findings
    assert (finding.certainty, finding.tests) == (Certainty.CONFIRMED, (TEST,))
    assert [suspect.name for suspect in finding.suspects] == ["#9"]
    assert [(bar.name, bar.value) for bar in line(night).bars] == [("#9", heads[9])]
    assert [slug for slug, _ in line(night).patches] == PATCHES
    assert fork.run(night).read(Blame) == night.blame
    assert fork.run(night).read(Composition) == night.composition

    again = fork.night()
    assert (again.nothing_to_do, reasons(again)) == (True, {"#9": Reason.GUILTY})
    assert again.left_out[0].detail.startswith(f"night {night.night} found this head guilty: ")
    assert fork.run(again).read(MergePlan).fingerprint.digest == line(night).fingerprint

    fork.says(9, "mended")
    third = fork.night()
    assert included(third) == [*PATCHES, "#6", "#7", "#8", "#9", "#10"]
    assert (third.blame, line(third).bars) == (None, ())


def test_a_released_head_is_tried_again(fork: RedFork) -> None:
    fork.says(7, "bad")
    assert fork.night().exit_code == 0
    fork.hour += 1
    fork.monkeypatch.setenv("PATCHSTACK_NOW", f"2026-11-21T{fork.hour:02}:00:00+00:00")
    release_hold(fork.work, ["7"])
    night = fork.night()
    assert night.blame is not None
    assert (night.blame.left_out, [bar.name for bar in line(night).bars]) == (("#7",), ["#7"])


def test_what_was_rolled_back_does_not_come_back_without_a_guilty_one(fork: RedFork) -> None:
    """The rest is the very plan that an operator has taken back, whoever was opened beside it since."""
    fork.says(7)
    night = fork.night()
    fork.hour += 1
    fork.monkeypatch.setenv("PATCHSTACK_NOW", f"2026-11-21T{fork.hour:02}:00:00+00:00")
    rollback(fork.work)
    before = fork.refs()
    fork.says(8, "bad")
    again = fork.night()
    assert (again.headline, again.exit_code, fork.refs()["refs/heads/deploy"]) == (
        *(Status.INCOMPLETE, 6),
        before["refs/heads/deploy"],
    )
    assert f"this plan is that of night {night.night}, which rollback " in again.failure
    assert reasons(again) == {"#8": Reason.GUILTY}


def test_what_a_guilty_one_contains_is_tried_alone_and_comes_back(fork: RedFork) -> None:
    below = fork.says(7)
    fork.says(8, "bad", onto=below)
    night = fork.night()
    assert reasons(night) == {"#7": Reason.CARRIER_LEFT_OUT, "#8": Reason.GUILTY}
    (_, guilty) = night.composition.left_out  # type: ignore[union-attr]
    assert "(it contains #7, which the next night tries alone)" in guilty.detail
    second = fork.night()
    assert (included(second), reasons(second)) == ([*PATCHES, "#6", "#7"], {"#8": Reason.GUILTY})
    assert fork.night().nothing_to_do


def test_of_a_pair_the_last_one_goes(fork: RedFork) -> None:
    fork.says(7, "left")
    fork.says(8)
    fork.says(9, "right")
    night = fork.night()
    assert included(night) == [*PATCHES, "#6", "#7", "#8"]
    assert night.blame is not None
    assert [suspect.name for suspect in night.blame.findings[0].suspects] == ["#7", "#9"]
    assert (night.blame.left_out, [bar.name for bar in line(night).bars]) == (("#9",), ["#9"])
    assert "together with #7" in night.composition.left_out[0].detail  # type: ignore[union-attr]


def test_what_was_deployed_and_has_a_guilty_head_is_no_loss_that_counts(fork: RedFork) -> None:
    fork.says(6, "bad")
    night = fork.night()
    assert included(night) == PATCHES
    assert night.losses is not None
    assert [(item.name, item.counts) for item in night.losses.items] == [("#6", False)]
    assert line(night).lost == (("#6", "found guilty of a red night"),)


def test_a_guilty_required_patch_stops_the_promotion_and_is_named(fork: RedFork) -> None:
    fork.says(7)
    fork.patch("second", "bad")
    before = fork.remote.resolve("refs/heads/deploy")
    night = fork.night()
    assert (night.headline, night.exit_code, night.promotion) == (Status.FAIL, 1, None)
    assert "CONFIRMED: patch second: " in night.failure
    assert "no night is shipped without it" in night.failure
    assert night.blame is not None
    assert night.blame.left_out == ()
    assert fork.remote.resolve("refs/heads/deploy") == before


def test_a_guilty_optional_patch_is_left_out_until_it_changes(fork: RedFork) -> None:
    fork.says(7)
    fork.patch("extra", "bad")
    night = fork.night()
    assert included(night) == ["first", "second", "#6", "#7"]
    assert reasons(night) == {"extra": Reason.GUILTY}
    assert [bar.name for bar in line(night).bars] == ["extra"]
    again = fork.night()
    assert (again.nothing_to_do, reasons(again)) == (True, {"extra": Reason.GUILTY})
    fork.patch("extra", "good")
    assert included(fork.night()) == [*PATCHES, "#6", "#7"]


def test_a_guard_that_is_red_on_what_is_deployed_too_blames_nobody(fork: RedFork) -> None:
    fork.says(7)
    fork.oracle = lambda _: GuardOutcome.CRASH
    night = fork.night()
    assert (night.headline, night.exit_code) == (Status.INCOMPLETE, 6)
    assert night.blame is not None
    assert [finding.certainty for finding in night.blame.findings] == [Certainty.INFRA]
    assert [verdict.status for verdict in night.verdicts] == [Status.INCOMPLETE]
    fork.oracle = lambda _: GuardOutcome.PASS
    assert fork.night().promotion


def test_with_no_probes_a_red_night_is_red(fork: RedFork) -> None:
    text = (fork.folder / "deploy.yaml").read_text()
    fork.configure(text + "blame: {max_probes: 0}\n")
    fork.says(7, "bad")
    night = fork.night()
    assert (night.exit_code, night.blame, fork.asked) == (1, None, [])


def test_a_budget_that_is_over_blames_nobody(fork: RedFork) -> None:
    text = (fork.folder / "deploy.yaml").read_text()
    fork.configure(text + "blame: {max_probes: 3}\n")
    fork.says(7, "bad")
    fork.says(8)
    night = fork.night()
    assert (night.exit_code, night.promotion) == (1, None)
    assert night.blame is not None
    assert [finding.certainty for finding in night.blame.findings] == [Certainty.NARROWED]
    assert len(night.blame.probes) == 3


def test_a_flaky_guard_holds_nobody_out(fork: RedFork) -> None:
    """Its words on one tree take turns."""
    fork.says(7)
    said: list[int] = []

    def in_turns(_: set[str]) -> GuardOutcome:
        said.append(1)
        return GuardOutcome.FAIL if len(said) % 2 else GuardOutcome.PASS

    fork.oracle = in_turns
    night = fork.night()
    assert night.blame is not None
    assert [finding.certainty for finding in night.blame.findings] == [Certainty.FLAKY]
    assert night.tests is not None
    flaky = [said for run in night.tests.runs if run.composed for said in run.results]
    assert {(one.outcome, one.attempts[0].outcome) for one in flaky} == {(GuardOutcome.FLAKY, GuardOutcome.FAIL)}
    assert (reasons(night), night.promotion) == ({}, None)  # all guards of the patches are that one: nothing is proven
    assert night.exit_code == 6


def test_a_rest_that_is_red_again_is_asked_about_as_well(fork: RedFork) -> None:
    """It is red once and green whenever it is asked: so its guard is flaky, and what was found before stays found."""
    fork.says(7, "bad")
    fork.says(8)
    rests: list[Sha] = []

    def run_guards(work: Workplace, run: Run, composition: Composition, **more: object) -> GuardReport:
        rests.append(composition.tree)
        fork.oracle = bad if len(rests) == 1 else lambda _: GuardOutcome.FAIL
        report = fork.run_guards(work, run, composition, **more)
        fork.oracle = bad
        return report

    fork.monkeypatch.setattr(rounds, "run_guards", run_guards)
    night = fork.night()
    assert night.composition is not None
    assert night.blame is not None
    assert night.blame.before is not None
    assert rests == [night.blame.before.tree, night.blame.tree]
    assert (night.blame.before.left_out, night.blame.left_out) == (("#7",), ())
    assert [finding.certainty for finding in night.blame.findings] == [Certainty.FLAKY]
    assert (night.composition.commit, reasons(night)) == (night.blame.composition, {"#7": Reason.GUILTY})
    assert (night.exit_code, night.promotion) == (6, None)


# --- in parts ------------------------------------------------------------------------------------------


class Parts:
    """A red night in parts; each on a machine of its own, as far as git is concerned."""

    def __init__(self, fork: RedFork, folder: Path) -> None:
        self.fork, self.folder = fork, folder
        fork.says(7)
        self.guilty = fork.says(8, "bad")
        fork.says(9)
        self.composed = fork.night(Part(Until.MERGE, pack=folder / "night.tar"))
        assert self.composed.failure == ""

    def test(self) -> NightReport:
        run = self.fork.run(self.composed).folder
        aside = shutil.move(run, self.folder / "aside")
        report = self.fork.night(Part(Until.TEST, self.folder / "night.tar", pack=self.folder / "tests.tar"))
        shutil.rmtree(run)
        shutil.move(aside, run)
        return report

    def forge(self, name: str, text: str) -> None:
        held = members(self.folder / "tests.tar")
        write_members(self.folder / "tests.tar", {**held, name: text.encode()})

    def blame(self) -> Blame:
        return decode(Blame, members(self.folder / "tests.tar")["blame.json"].decode(), "blame")

    def promote(self) -> NightReport:
        self.fork.monkeypatch.setattr(rounds, "run_guards", lambda *_, **__: pytest.fail("guards ran"))
        self.fork.monkeypatch.setattr(rounds, "find_guilty", lambda *_, **__: pytest.fail("somebody was asked"))
        return self.fork.night(Part(unpack=self.folder / "night.tar", tests=self.folder / "tests.tar"))


@pytest.fixture
def parts(fork: RedFork, tmp_path: Path) -> Parts:
    return Parts(fork, tmp_path)


def test_the_part_that_promotes_follows_the_blame_and_composes_the_rest_again(parts: Parts) -> None:
    tested = parts.test()
    assert (tested.failure, included(tested)) == ("", [*PATCHES, "#6", "#7", "#9"])
    night = parts.promote()
    assert (night.headline, night.failure) == (Status.PASS, "")
    assert (night.composition, night.blame) == (tested.composition, tested.blame)
    assert night.image is not None
    assert night.image.why_not == NO_IMAGE_OF_A_PART
    assert [(bar.name, bar.value) for bar in line(night).bars] == [("#8", parts.guilty)]
    assert included(night) == [*PATCHES, "#6", "#7", "#9"]
    again = parts.promote()
    assert (again.failure, line(again)) == ("", line(night))


@pytest.mark.parametrize("killed_at", ["write_losses_again", "range_diffs", "require_few"])
def test_the_part_that_promotes_was_killed_and_runs_again(parts: Parts, killed_at: str) -> None:
    tested = parts.test()
    with parts.fork.monkeypatch.context() as killing:
        killing.setattr(rounds, killed_at, lambda *_: sys.exit(9))
        with pytest.raises(SystemExit):
            parts.promote()
    night = parts.promote()
    assert (night.headline, night.failure, night.composition) == (Status.PASS, "", tested.composition)


def test_a_red_night_in_parts_ends_red_with_the_same_blame(fork: RedFork, tmp_path: Path) -> None:
    fork.configure((fork.folder / "deploy.yaml").read_text() + "blame: {max_probes: 3}\n")
    parts = Parts(fork, tmp_path)
    tested = parts.test()
    night = parts.promote()
    assert (tested.exit_code, night.exit_code, night.blame) == (1, 1, tested.blame)
    assert night.promotion is None


def _other_composition(blame: Blame) -> Blame:
    return replace(blame, composition=blame.tree)


def _other_tree(blame: Blame) -> Blame:
    probe = blame.probes[-1]
    return replace(blame, probes=(*blame.probes[:-1], replace(probe, tree=Sha("e" * 40))))


def _no_probes(blame: Blame) -> Blame:
    return replace(blame, probes=())


def _one_more_probe(blame: Blame) -> Blame:
    return replace(blame, probes=(*blame.probes, blame.probes[-1]))


def _nobody_red(blame: Blame) -> Blame:
    return replace(blame, tests=())


def _strange_test(blame: Blame) -> Blame:
    return replace(blame, tests=(("tests/unit/test_x.py::test", GuardOutcome.FAIL),))


def _unheard(blame: Blame) -> Blame:
    first = blame.probes[0]
    return replace(blame, probes=(replace(first, outcomes=first.outcomes[1:]), *blame.probes[1:]))


@pytest.mark.parametrize(
    "forge",
    [_other_composition, _other_tree, _no_probes, _one_more_probe, _nobody_red, _strange_test, _unheard],
)
def test_a_blame_that_was_made_up_promotes_nothing(parts: Parts, forge: object) -> None:
    parts.test()
    before = parts.fork.refs()
    parts.forge("blame.json", encode(forge(parts.blame())))  # type: ignore[operator]
    with pytest.raises(UsageError, match=r"is not of this night|are not those of composition"):
        parts.promote()
    assert parts.fork.refs() == before


def test_nobody_is_found_guilty_of_what_is_green(parts: Parts) -> None:
    """A report that is all green, with the blame of the night that was red: either of them is a lie."""
    parts.test()
    assert parts.composed.composition is not None
    told = green(parts.fork.work, parts.fork.run(parts.composed), parts.composed.composition)
    before = parts.fork.refs()
    parts.forge("tests.json", encode(told))
    with pytest.raises(UsageError, match="is no red guard of it"):
        parts.promote()
    assert parts.fork.refs() == before


def test_words_names_and_findings_of_a_blame_from_elsewhere_are_not_believed(parts: Parts) -> None:
    tested = parts.test()
    made = parts.blame()
    lies = replace(
        made,
        findings=tuple(replace(finding, detail="<b>@everybody</b>", suspects=()) for finding in made.findings),
        probes=tuple(replace(probe, why="[x](http://evil)", seconds=float("nan")) for probe in made.probes),
        left_out=("#6", "#7", "first"),
    )
    parts.forge("blame.json", encode(lies))
    night = parts.promote()
    assert night.failure == ""
    assert (night.composition, night.headline) == (tested.composition, Status.PASS)
    assert night.blame is not None
    assert (night.blame.findings, night.blame.left_out) == (made.findings, ("#8",))
    assert [probe.why for probe in night.blame.probes] == [probe.why for probe in made.probes]
    assert {probe.seconds for probe in night.blame.probes} == {0.0}


def test_a_lie_about_the_guards_can_leave_out_whom_tonight_has_changed_and_nobody_else(parts: Parts) -> None:
    """#6 is deployed as it is: no answers make it a suspect. #9 is new, and a liar could have had it left out."""
    parts.fork.oracle = lambda words: GuardOutcome.FAIL if "pull-9" in words else GuardOutcome.PASS
    tested = parts.test()
    assert reasons(tested)["#9"] is Reason.GUILTY
    assert "bad" not in json.dumps(tested.blame.left_out if tested.blame else ())
    night = parts.promote()
    assert included(night) == [*PATCHES, "#6", "#7", "#8"]


def test_a_lie_about_what_is_deployed_blames_nobody(parts: Parts) -> None:
    parts.fork.oracle = lambda words: GuardOutcome.FAIL if "pull-6" in words else GuardOutcome.PASS
    tested = parts.test()
    assert (tested.exit_code, tested.blame is not None and tested.blame.left_out) == (6, ())
    night = parts.promote()
    assert (night.exit_code, night.promotion, night.blame) == (6, None, tested.blame)
