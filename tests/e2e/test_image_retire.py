"""What `retire` deletes from a real registry, and the registry that `patchstack registry` serves."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.image_bench import ImageBench, LocalBench, patchstack, tags
from tests.support.image_registry import Fault, faulty, registry, skopeo, small_image
from tests.unit.verbs.fork_bench import release, workplace

from patchstack.image import recipe
from patchstack.image.embedded import serve
from patchstack.image.names import Place, statement_tag
from patchstack.image.registry import Registry
from patchstack.model import Composition, ImageRef, LedgerImage, Status, Verdict
from patchstack.release.promote import Source, decide, promote
from patchstack.release.remote import read_remote
from patchstack.store import cache_folder, now_utc
from patchstack.verbs.retire import retire_images

LATER = "2026-12-24T02:00:00+00:00"


@pytest.fixture(autouse=True)
def on_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PATCHSTACK_IMAGE")
    monkeypatch.setenv("PATCHSTACK_CACHE", str(tmp_path / "cache"))
    cache_folder()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with registry(tmp_path / "registry") as place:
        yield place


@pytest.fixture
def bench(tmp_path: Path, place: Place) -> ImageBench:
    release(sources={"python/sglang/a.py": "a\n"})
    bench = ImageBench(tmp_path / "lane", place)
    bench.push_dependencies()
    return bench


def promoted(bench: ImageBench, composition: Composition, image: ImageRef) -> None:
    """Put the night into the ledger on `deploy`."""
    work, url = bench.work, str(bench.folder / "remote.git")
    decision = decide(
        night="20261121T020000Z",
        at=now_utc(),
        composition=composition,
        stack=Source(composition.commit, composition.tree),
        verdicts=(Verdict("nightly", Status.PASS, ()),),
        remote=read_remote(work.store(), url, lane="production", branch="deploy"),
        image=LedgerImage(image.repository, image.digest, image.tag, image.runtime, image.recipe, image.dependencies),
    )
    promote(work.store(), url, decision)


@pytest.fixture
def nights(bench: ImageBench) -> dict[str, ImageRef]:
    """One night that was promoted, one that was not and has a statement, one with a name of somebody's."""
    made = {}
    for name, text in (("promoted", "1\n"), ("red", "2\n"), ("pinned", "3\n")):
        composition = bench.compose({"python/sglang/a.py": text})
        made[name] = bench.make(composition)
        if name == "promoted":
            promoted(bench, composition, made[name])
    with Registry.at(bench.place) as held:
        held.tag(made["promoted"].digest, "nightly")
        held.tag(made["pinned"].digest, "for-ann")
        small_image({"statement": b"signed"}).push(held, statement_tag(made["red"].digest))
    return made


def test_it_deletes_what_is_old_and_was_never_promoted(
    bench: ImageBench, nights: dict[str, ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHSTACK_NOW", LATER)
    bench.push_dependencies(tag=f"deps-cuda-{'0' * 16}", extra=b"of an older recipe\n")
    before = tags(bench.place)
    red = nights["red"]

    decided = patchstack(bench, "retire", "--dry-run")
    assert decided.code == 0, decided.err
    assert decided.out.splitlines() == [
        f"{statement_tag(red.digest)}: would be deleted: the statement on {red.tag}",
        f"{red.tag}: would be deleted: of 2026-11-21, and never promoted",
        f"deps-cuda-{'0' * 16}: would be deleted: no image that stays was made on it",
    ]
    assert tags(bench.place) == before

    done = patchstack(bench, "retire", "--json")
    assert done.code == 0, done.err
    assert [item["digest"] for item in json.loads(done.out)["images"]] == [red.digest]
    gone = {statement_tag(red.digest), red.tag, f"deps-cuda-{'0' * 16}"}
    assert tags(bench.place) == {tag: digest for tag, digest in before.items() if tag not in gone}
    for name in ("promoted", "pinned"):
        assert skopeo("inspect", f"docker://{bench.place.name}@{nights[name].digest}")["Digest"] == nights[name].digest

    again = patchstack(bench, "retire")
    assert (again.code, again.out) == (0, "nothing to delete: all that the registry has is needed\n")


def test_nothing_goes_before_its_time(bench: ImageBench, nights: dict[str, ImageRef]) -> None:
    before = tags(bench.place)
    assert retire_images(bench.work).all == ()
    assert tags(bench.place) == before


def test_a_ledger_that_is_not_whole_deletes_nothing(
    bench: ImageBench, nights: dict[str, ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deploy branch that somebody removed: what was promoted looks as if it never was."""
    monkeypatch.setenv("PATCHSTACK_NOW", LATER)
    before = tags(bench.place)
    git = ["git", "--git-dir", str(bench.folder / "remote.git"), "update-ref", "-d", "refs/heads/deploy"]
    subprocess.run(git, check=True)
    done = patchstack(bench, "retire")
    assert done.code == 5
    assert f"tag nightly is {nights['promoted'].digest}, an image that the ledger does not name" in done.err
    assert tags(bench.place) == before


def test_a_remote_that_is_not_there_deletes_nothing(
    bench: ImageBench, nights: dict[str, ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHSTACK_NOW", LATER)
    before = tags(bench.place)
    (bench.folder / "remote.git").rename(bench.folder / "elsewhere.git")
    assert patchstack(bench, "retire").code == 8
    assert tags(bench.place) == before


def test_what_fails_half_way_is_done_by_the_next_one(
    bench: ImageBench, nights: dict[str, ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHSTACK_NOW", LATER)
    before, red = tags(bench.place), nights["red"]
    with faulty(bench.place) as proxy:
        ImageBench(bench.folder, proxy.place)
        proxy.fail(Fault("DELETE", f"*/manifests/{red.digest}", status=500, code="UNKNOWN"))
        failed = patchstack(bench, "retire")
    assert failed.code == 5
    assert set(before) - set(tags(bench.place)) == {statement_tag(red.digest)}
    ImageBench(bench.folder, bench.place)
    assert retire_images(bench.work).images[0].digest == red.digest
    assert red.tag not in tags(bench.place)


def test_a_lane_without_an_image_has_nothing_to_retire(bench: ImageBench) -> None:
    config = bench.folder / "deploy.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "image:" not in line))
    done = patchstack(bench, "retire")
    assert (done.code, "no registry to clear: lane production has no image" in done.err) == (2, True)


# --- the registry of this machine ---


def test_what_is_retired_on_this_machine_frees_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release(sources={"python/sglang/a.py": "a\n"})
    monkeypatch.setattr(recipe, "can_be_had", lambda *_: False)  # an index would be asked
    local = LocalBench(tmp_path / "lane")
    old = local.make({"python/sglang/a.py": "old\n"})
    monkeypatch.setenv("PATCHSTACK_NOW", LATER)
    new = local.make({"python/sglang/a.py": "new\n"})
    before = local.blobs()

    gone = retire_images(local.work)

    assert [item.tags for item in gone.all] == [(old.tag,)]
    assert len(before - local.blobs()) == 3  # its layer, its configuration, its manifest
    with serve(local.work.state.root / "registry") as place:
        assert set(tags(place)) == {new.tag, local.dependency_tag}
        skopeo("copy", f"docker://{place.name}@{new.digest}", f"dir:{tmp_path / 'whole'}")


def test_the_local_registry_is_served_until_it_is_interrupted(tmp_path: Path) -> None:
    ImageBench(tmp_path, Place("registry.example.com", "acme/sglang"))
    with serve(workplace(tmp_path).state.root / "registry") as place, Registry.at(place) as held:
        digest = small_image().push(held, "cpu-latest")
        held.tag(digest, "deps-cpu-0123456789abcdef")
    argv = [sys.executable, "-c", "from patchstack.cli import main; main()", "--local", "registry"]

    def as_at_a_terminal() -> None:
        # In the background of a script this signal is ignored, and a child inherits that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, text=True, preexec_fn=as_at_a_terminal) as child:
        assert child.stdout is not None
        said = [child.stdout.readline(), child.stdout.readline()]
        try:
            found = re.fullmatch(r"  podman pull --tls-verify=false ((127\.0\.0\.1:\d+)/sglang):cpu-latest\n", said[1])
            assert found, said
            assert said[0] == f"{found[1]} is served until Ctrl-C, on this machine alone.\n"
            assert skopeo("inspect", f"docker://{found[1]}:cpu-latest")["Digest"] == digest
        finally:
            child.send_signal(signal.SIGINT)
        assert (child.communicate(timeout=60)[0], child.returncode) == ("", 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((found[2].partition(":")[0], int(found[2].partition(":")[2])), timeout=5)
