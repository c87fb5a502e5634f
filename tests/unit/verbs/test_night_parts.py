"""The parts of a night from their packs: what promotes, what is refused, and what then is as it was."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import pytest
from tests.unit.frame.test_pack import report_of
from tests.unit.verbs.fork_bench import Quiet
from tests.unit.verbs.test_handed import report_on
from tests.unit.verbs.test_selection import Stack, stack  # noqa: F401

from patchstack.deadline import Deadline
from patchstack.errors import Incomplete, PatchstackError, UsageError
from patchstack.git import Repository
from patchstack.model import (
    GuardOutcome,
    GuardReport,
    ImageCheck,
    ImageResult,
    ImageTests,
    MergePlan,
    NightReport,
    Status,
    Timing,
)
from patchstack.nightly import NO_GITHUB, NOT_OVER, Part, Until, night
from patchstack.pack import write_pack
from patchstack.store import Run, encode
from patchstack.verbs import rounds
from patchstack.verbs.rounds import NO_IMAGE_PART
from patchstack.workplace import Workplace, open_workplace


@dataclass
class Night:
    """A composed night in a pack, with green results in another, and a machine that has neither."""

    stack: Stack
    folder: Path

    def __post_init__(self) -> None:
        self.composition = self.stack.compose()
        composed, topics = self.composition, self.composition.included
        self.tests = report_on(self.stack, composed, self.stack.select(composed))
        self.report = replace(
            report_of(),
            composition=composed,
            notes=("said before", NOT_OVER[Until.MERGE], NO_GITHUB),
            timings=(Timing("merge", 60.0),),
            remote="where it was composed",
        )
        self.run = Run(self.stack.work.state.runs / self.report.night)
        for value in (self.report, composed, MergePlan("production", composed.base, topics, (), composed.fingerprint)):
            self.run.write(value)
        self.pack, self.said = self.folder / "night.tar", self.folder / "tests.tar"
        write_pack(self.run, self.stack.work.state, self.stack.work.store(), self.pack)
        self.pack_tests(self.tests)

    def pack_tests(self, report: GuardReport) -> None:
        write_members(self.said, {"tests.json": encode(report).encode()})

    def machine(self, name: str) -> Workplace:
        return open_workplace(
            config_path=self.stack.work.config_path,
            state_folder=self.folder / name,
            lane=None,
            remote=None,
            local=False,
            offline=True,
            progress=Quiet(),
        )

    def promote(self, work: Workplace) -> NightReport:
        return night(work, part=Part(unpack=self.pack, tests=self.said, pack=self.folder / "promoted.tar"))


def write_members(pack: Path, held: dict[str, bytes]) -> None:
    with tarfile.open(pack, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(held.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))


def members(pack: Path) -> dict[str, bytes]:
    with tarfile.open(pack) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


@pytest.fixture
def made(stack: Stack, tmp_path: Path) -> Night:  # noqa: F811
    return Night(stack, tmp_path)


def test_a_machine_that_has_nothing_promotes_from_the_packs(made: Night) -> None:
    work = made.machine("promote")
    report = made.promote(work)
    assert (report.failure, report.exit_code, report.headline) == ("", 0, Status.PASS)
    assert report.promotion is not None
    remote = Repository(Path(work.remote))
    assert remote.resolve("refs/heads/deploy") == report.promotion.commit
    assert remote.tree_of("refs/heads/deploy") == made.composition.tree
    assert report.notes == ("said before", NO_GITHUB)
    assert report.remote == "the embedded remote"
    assert [timing.stage for timing in report.timings] == ["merge", "remote", "promote"]
    assert (report.composition, report.tests) == (made.composition, made.tests)
    (run,) = work.state.all_runs()
    assert run.read(NightReport) == report
    assert members(made.folder / "promoted.tar")["report.json"] == encode(report).encode()


def test_what_became_of_the_image_is_not_taken_from_the_report(made: Night) -> None:
    says = ImageResult(None, "no builder")
    for name, report, stage in (("report", says, None), ("both", ImageResult(None, "something else"), says)):
        held = {**members(made.pack), "report.json": encode(replace(made.report, image=report)).encode()}
        held.update({"image.json": encode(stage).encode()} if stage else {})
        write_members(made.pack, held)
        work = made.machine(name)
        told = made.promote(work)
        assert (told.failure, told.exit_code) == ("", 0)
        assert told.image == (stage or ImageResult(None, NO_IMAGE_PART))
        (run,) = work.state.all_runs()
        assert run.read(ImageResult) == told.image


def test_a_night_that_is_over_is_told_again_and_nothing_is_done(made: Night) -> None:
    for report in (
        replace(made.report, nothing_to_do=True),
        replace(made.report, exit_code=4, failure="x does not apply"),
        made.promote(made.machine("first")),
    ):
        write_members(made.pack, {**members(made.pack), "report.json": encode(report).encode()})
        work = made.machine(f"over {report.exit_code} {report.nothing_to_do}")
        assert made.promote(work) == report
        assert not Path(work.remote).exists()
        assert members(made.folder / "promoted.tar")["report.json"] == encode(report).encode()


def nothing_is_made(work: Workplace) -> bool:
    return not work.state.all_runs() and not Path(work.remote).exists() and work.store().refs() == {}


def test_a_composition_that_its_commits_are_not_is_refused(made: Night) -> None:
    held, right = members(made.pack), made.composition
    for wrong in (
        replace(right, tree=right.base.tree),
        replace(right, included=right.included[1:]),
        replace(right, base=replace(right.base, tree=right.tree)),
    ):
        write_members(made.pack, {**held, "composition.json": encode(wrong).encode()})
        work = made.machine("promote")
        with pytest.raises(UsageError, match=r"composition.json says something else than commit"):
            made.promote(work)
        assert nothing_is_made(work)


@pytest.mark.parametrize(
    ("forge", "kind", "said"),
    [
        (lambda report: replace(report, runs=report.runs[1:]), UsageError, "are not those of composition"),
        (lambda report: replace(report, proofs=()), UsageError, "are not those of composition"),
    ],
)
def test_made_up_results_are_refused_before_anything_is_made(
    made: Night, forge: Callable[[GuardReport], GuardReport], kind: type[PatchstackError], said: str
) -> None:
    made.pack_tests(forge(made.tests))
    work = made.machine("promote")
    with pytest.raises(kind, match=said):
        made.promote(work)
    assert nothing_is_made(work)
    assert not (made.folder / "promoted.tar").exists()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("digest", "tree\n::error::x"), r"'tree\\n::error::x' is nothing that is looked at in an image"),
        (("digest", "tree", "digest"), "digest of the image answers twice"),
    ],
)
def test_made_up_checks_of_an_image_are_refused_before_anything_is_made(
    made: Night, names: tuple[str, ...], said: str
) -> None:
    checks = tuple(ImageCheck(name, GuardOutcome.PASS, "seen") for name in names)
    tests = ImageTests("registry.example.com/acme/sglang", f"sha256:{'1' * 64}", checks)
    write_members(made.said, {**members(made.said), "image-tests.json": encode(tests).encode()})
    work = made.machine("promote")
    with pytest.raises(UsageError, match=said):
        made.promote(work)
    assert nothing_is_made(work)


def test_a_pack_of_tests_without_results_is_refused(made: Night) -> None:
    write_members(made.said, {"report.json": encode(made.report).encode()})
    work = made.machine("promote")
    with pytest.raises(UsageError, match=r"tests.tar has no tests.json"):
        made.promote(work)
    assert nothing_is_made(work)


def test_a_night_that_was_never_composed_cannot_go_on(made: Night) -> None:
    held = members(made.pack)
    write_members(made.pack, {"report.json": held["report.json"]})
    with pytest.raises(UsageError, match="is of a night that was not composed"):
        made.promote(made.machine("promote"))


def test_what_the_parts_before_took_counts_for_the_deadline(made: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []

    def run_guards(*_: object, deadline: Deadline, **more: object) -> GuardReport:
        left.append(deadline.ends_s - deadline.monotonic())
        raise Incomplete("stopped here")

    monkeypatch.setattr(rounds, "run_guards", run_guards)
    work = made.machine("test")
    report = night(work, part=Part(Until.TEST, made.pack), deadline_min=3)
    assert (report.exit_code, report.failure, report.headline) == (6, "stopped here", Status.INCOMPLETE)
    assert 0 < left[0] <= 120
    assert not Path(work.remote).exists()


def test_the_part_that_tests_asks_no_remote_and_is_not_the_end(made: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "run_guards", lambda work, run, *_, **more: run.write(made.tests) and made.tests)
    work = made.machine("test")
    report = night(work, part=Part(Until.TEST, made.pack, pack=made.folder / "out.tar"))
    assert (report.exit_code, report.headline, report.promotion) == (0, Status.INCOMPLETE, None)
    assert report.notes == ("said before", NOT_OVER[Until.TEST], NO_GITHUB)
    assert report.remote == "where it was composed"
    assert not Path(work.remote).exists()
    assert {"tests.json", "verdicts.json", "objects.bundle"} <= members(made.folder / "out.tar").keys()


def test_a_part_that_was_interrupted_packs_its_report(made: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_guards(*_: object, **more: object) -> GuardReport:
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "run_guards", run_guards)
    report = night(made.machine("test"), part=Part(Until.TEST, made.pack, pack=made.folder / "out.tar"))
    assert report.exit_code == 130
    assert members(made.folder / "out.tar")["report.json"] == encode(report).encode()
