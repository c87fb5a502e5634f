"""When a lane has nothing left to do: with image tags that lag, and where an image can never be made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.image_bench import NATIVE_PART, ROOT, ImageBench, tags
from tests.e2e.test_image_tags import report_on, seen
from tests.support.image_registry import Fault, faulty, registry
from tests.unit.verbs.fork_bench import release, workplace

from patchstack.image.names import Place
from patchstack.image.registry import Registry
from patchstack.model import ImageRef, NightReport
from patchstack.nightly import Part, Until, night
from patchstack.store import cache_folder
from patchstack.verbs.image import make_image
from patchstack.verbs.image_tags import follow_ledger
from patchstack.verbs.plan import merge, plan
from patchstack.verbs.promote import promote
from patchstack.verbs.remote import open_remote
from patchstack.verbs.test import gate


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageBench]:
    monkeypatch.delenv("PATCHSTACK_IMAGE")
    monkeypatch.setenv("PATCHSTACK_CACHE", str(tmp_path / "cache"))
    cache_folder()
    release(sources={"python/sglang/a.py": "a\n", f"python/{NATIVE_PART}": "compiled"})
    with registry(tmp_path / "registry") as place:
        bench = lane_on_an_image(tmp_path / "fork", place)
        yield bench


def lane_on_an_image(folder: Path, place: Place) -> ImageBench:
    """A lane whose layer goes on an image that is there: the small release has no lock of its own."""
    digest = ImageBench(folder, place).push_dependencies()
    return ImageBench(folder, place, f', base: {{name: "{place.name}@{digest}", root: "{ROOT}"}}')


def promoted(bench: ImageBench) -> ImageRef:
    """A night with an image, as it is when it was killed after `deploy` moved and before its tags did."""
    work = bench.work
    run = work.state.new_run()
    plan(work, run)
    composition = merge(work, run)
    image = make_image(work, run, composition, None).image
    assert image is not None
    report = report_on(composition)
    run.write(report)
    run.write(seen(image))
    gate(work, run, composition, report)
    assert promote(work, run).promotion.line.image is not None
    return image


def first_part(bench: ImageBench, state: str) -> NightReport:
    """The part that composes, on a machine that knows nothing and may write nowhere."""
    work = workplace(bench.folder, remote=str(bench.folder / "remote.git"), local=True, state=state)
    return night(work, part=Part(until=Until.MERGE))


def test_a_part_that_may_not_write_is_not_content_with_tags_that_lag(bench: ImageBench) -> None:
    image = promoted(bench)
    late = first_part(bench, "one")
    assert (late.nothing_to_do, late.exit_code) == (False, 0)
    assert late.composition is not None
    assert "nothing has changed, and image tags lag (nightly): the night moves them" in late.notes
    assert "nightly" not in tags(bench.place)

    follow_ledger(bench.work, open_remote(bench.work).history)
    assert tags(bench.place)["nightly"] == image.digest
    settled = first_part(bench, "two")
    assert (settled.nothing_to_do, settled.exit_code) == (True, 0)


def test_a_registry_that_tells_that_part_nothing_makes_no_night(bench: ImageBench) -> None:
    with faulty(bench.place) as proxy:
        through = lane_on_an_image(bench.folder, proxy.place)
        promoted(through)
        proxy.fail(Fault("*", "*", status=401, times=99))
        settled = first_part(through, "one")
    assert (settled.nothing_to_do, settled.exit_code) == (True, 0)
    assert any(note.startswith("where the image tags are could not be asked: ") for note in settled.notes)


def test_tags_whose_image_is_lost_make_no_night_for_ever(bench: ImageBench) -> None:
    image = promoted(bench)
    with Registry.at(bench.place) as held:
        held.delete_manifest(image.digest)
    assert first_part(bench, "one").nothing_to_do
