"""Rollback, hold and images: tags in a real registry follow the nights that stand.

Nights are whole, with an image that is really made and pushed; guards and image checks are said to be green.
`test_five_nights.py` has the same with real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.image_bench import NATIVE_PART, ImageBench, patchstack, tags
from tests.e2e.test_image_settled import lane_on_an_image
from tests.e2e.test_image_tags import report_on, seen
from tests.support.image_registry import Fault, FaultyProxy, faulty, registry
from tests.unit.builders import Workshop
from tests.unit.verbs.fork_bench import release

from patchstack.git import Repository
from patchstack.image.names import Place
from patchstack.image.registry import Registry
from patchstack.model import Composition, GuardReport, ImageResult, ImageTests, NightReport
from patchstack.nightly import night
from patchstack.store import Run, cache_folder
from patchstack.verbs import rounds
from patchstack.verbs.image_tags import follow_ledger
from patchstack.verbs.promote import status
from patchstack.verbs.remote import open_remote
from patchstack.workplace import Workplace


@dataclass
class Nights:
    """A night a day at 02:00; what an operator says is at noon, by the command line."""

    bench: ImageBench
    behind: Place
    proxy: FaultyProxy
    monkeypatch: pytest.MonkeyPatch
    day: int = 20

    def propose(self, number: int, text: str) -> None:
        shop = Workshop(self.bench.folder / "remote.git")
        base = shop.repository.resolve("refs/heads/base/production")
        assert base is not None
        head = shop.commit(f"pull {number}", {f"python/sglang/n{number}.py": text}, base, when=1_700_000_000 + number)
        shop.pull(number, head)

    def night(self) -> NightReport:
        self.day += 1
        self.monkeypatch.setenv("PATCHSTACK_NOW", f"2026-11-{self.day}T02:00:00+00:00")
        report = night(self.bench.work)
        assert report.exit_code == 0, report.failure
        return report

    def promoted(self) -> tuple[str, str]:
        """Id and image of tonight's promoted night."""
        report = self.night()
        assert report.promotion is not None
        assert report.promotion.line.image is not None
        return report.night, report.promotion.line.image.digest

    def said(self, *argv: str) -> tuple[int, str]:
        """The exit code, and what was said beside the result."""
        done = patchstack(self.bench, *argv, PATCHSTACK_NOW=f"2026-11-{self.day}T12:00:00+00:00")
        return done.code, done.err

    @property
    def moving(self) -> dict[str, str | None]:
        return {name: digest for name, digest in tags(self.behind).items() if name in ("nightly", "previous", "stable")}

    @property
    def remote(self) -> Repository:
        return Repository(self.bench.folder / "remote.git")


def green(work: Workplace, run: Run, composition: Composition, **_: object) -> GuardReport:
    report = report_on(composition)
    run.write(report)
    return report


def looked(work: Workplace, run: Run, composition: Composition, made: ImageResult) -> ImageTests:
    assert made.image is not None
    tests = seen(made.image)
    run.write(tests)
    return tests


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nights]:
    monkeypatch.delenv("PATCHSTACK_IMAGE")
    monkeypatch.setenv("PATCHSTACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rounds, "run_guards", green)
    monkeypatch.setattr(rounds, "check_image", looked)
    cache_folder()
    release(sources={"python/sglang/a.py": "a\n", f"python/{NATIVE_PART}": "compiled"})
    with registry(tmp_path / "registry") as behind, faulty(behind) as proxy:
        yield Nights(lane_on_an_image(tmp_path / "fork", proxy.place), behind, proxy, monkeypatch)


def stable_too(bench: ImageBench) -> None:
    """From here on a night that passes moves `stable` as well."""
    config = bench.folder / "deploy.yaml"
    config.write_text(config.read_text() + "  stable: {needs: [cpu]}\n")


def test_five_nights_and_a_rollback_in_the_third(nights: Nights) -> None:
    _, first = nights.promoted()
    nights.propose(7, "SEVEN = 7\n")
    stable_too(nights.bench)
    two, second = nights.promoted()
    nights.propose(8, "EIGHT = 'bad'\n")
    three, third = nights.promoted()
    assert nights.moving == {"nightly": third, "stable": third, "previous": second}

    code, _ = nights.said("rollback", "--because", "8")
    assert code == 0
    assert nights.moving == {"nightly": second, "stable": second, "previous": first}
    found = status(nights.bench.work)
    assert [(one.name, one.night, one.current, one.taken_back) for one in found.channels] == [
        ("nightly", two, True, three),
        ("stable", two, True, three),
    ]
    assert (found.image_tags_lag, found.image_night) == ((), two)

    nights.propose(9, "NINE = 9\n")
    _, fourth = nights.promoted()
    assert nights.moving == {"nightly": fourth, "stable": fourth, "previous": second}
    assert nights.remote.attempt("cat-file", "-e", "deploy:python/sglang/n8.py").returncode != 0

    assert nights.said("hold")[0] == 0
    nights.propose(8, "EIGHT = 'mended'\n")
    held = nights.night()
    assert (held.promotion, held.image is not None and held.image.image is not None) == (None, True)
    assert nights.moving == {"nightly": fourth, "stable": fourth, "previous": second}
    assert nights.said("release-hold")[0] == 0
    _, fifth = nights.promoted()
    assert nights.moving == {"nightly": fifth, "stable": fifth, "previous": fourth}
    assert nights.remote.run("show", "deploy:python/sglang/n8.py") == "EIGHT = 'mended'"


def test_a_channel_that_only_nights_moved_that_were_taken_back_says_so(nights: Nights) -> None:
    one, first = nights.promoted()
    nights.propose(7, "SEVEN = 7\n")
    stable_too(nights.bench)
    two, second = nights.promoted()
    code, said = nights.said("rollback")
    assert code == 0
    assert f"image tag stable stays at {second}, which is taken back: no night that stands has an image for it" in said
    assert nights.moving == {"nightly": first, "previous": first, "stable": second}
    found = {channel.name: channel for channel in status(nights.bench.work).channels}
    assert (found["stable"].night, found["stable"].current, found["stable"].taken_back) == (None, False, two)
    assert (found["nightly"].night, found["nightly"].current) == (one, True)


def test_a_registry_that_is_not_there_stops_no_rollback_and_the_next_night_moves_the_tags(nights: Nights) -> None:
    _, first = nights.promoted()
    nights.propose(7, "SEVEN = 7\n")
    _, second = nights.promoted()
    nights.proxy.fail(Fault("*", "*", reset=True, times=99))
    code, said = nights.said("rollback", "--because", "7")
    assert code == 5, said
    assert nights.remote.attempt("cat-file", "-e", "deploy:python/sglang/n7.py").returncode != 0
    nights.proxy.mend()
    assert nights.moving == {"nightly": second, "previous": first}
    assert [tag.name for tag in status(nights.bench.work).image_tags_lag] == ["nightly"]
    follow_ledger(nights.bench.work, open_remote(nights.bench.work).history)
    assert nights.moving == {"nightly": first, "previous": first}


def test_an_image_that_the_registry_has_lost_is_said_and_the_branch_has_moved(nights: Nights) -> None:
    _, first = nights.promoted()
    nights.propose(7, "SEVEN = 7\n")
    _, second = nights.promoted()
    with Registry.at(nights.behind) as held:
        held.delete_manifest(first)
    code, said = nights.said("rollback")
    assert code == 0
    assert "image tag nightly stays where it is: the registry has lost the image of its night" in said
    assert nights.moving == {"nightly": second}
    assert nights.remote.attempt("cat-file", "-e", "deploy:python/sglang/n7.py").returncode != 0
