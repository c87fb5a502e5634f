"""The night's image in a real registry: one layer on what is there, read back before it has a name."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.e2e.image_bench import (
    NATIVE_PART,
    PACKAGES,
    REPOSITORY,
    ROOT,
    SITE,
    ImageBench,
    LocalBench,
    blobs,
    patchstack,
    tags,
)
from tests.support.image_registry import Fault, faulty, registry, skopeo
from tests.unit.builders import Content, Link, Program
from tests.unit.image.fixed_image import pem, public_pem
from tests.unit.verbs.fork_bench import release

from patchstack import process
from patchstack.credential import SIGNING_KEY
from patchstack.errors import ImageError, UsageError
from patchstack.image import recipe
from patchstack.image.build import LABEL_RECIPE
from patchstack.image.names import Place, statement_tag
from patchstack.image.registry import Registry
from patchstack.image.signing import public_key
from patchstack.image.statement import read_statements, verified
from patchstack.model import Composition, Fingerprint, ImageRef, ImageResult, Kind, LedgerImage
from patchstack.patches.series import read_series
from patchstack.store import cache_folder
from patchstack.verbs.image import make_image, open_registry

CHANGE: Mapping[str, Content] = {"python/sglang/a.py": "changed\n"}
EVERYTHING: Mapping[str, Content] = {
    "python/sglang/a.py": "changed\n",
    "python/sglang/new/e.py": "e\n",
    "python/sglang/run": Program("#!/bin/sh\n"),
    "python/sglang/link.py": Link("new/e.py"),
    "python/sglang/gone": None,
    "python/sglang/kept": None,
    "python/sglang/file_then_folder": None,
    "python/sglang/file_then_folder/f.py": "f\n",
    "python/sglang/folder_then_file": "file now\n",
}


@pytest.fixture(autouse=True)
def images_are_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PATCHSTACK_IMAGE")
    monkeypatch.setenv("PATCHSTACK_CACHE", str(tmp_path / "cache"))
    cache_folder()
    release(sources={f"python/{NATIVE_PART}": "compiled"})


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with registry(tmp_path / "registry") as place:
        yield place


@pytest.fixture
def bench(tmp_path: Path, place: Place) -> ImageBench:
    bench = ImageBench(tmp_path / "lane", place)
    bench.push_dependencies()
    return bench


# --- what is made ---


def test_the_image_is_one_layer_on_the_dependencies(bench: ImageBench, place: Place) -> None:
    made = bench.make(bench.compose(CHANGE))

    dependencies = skopeo("inspect", f"docker://{place.name}:{bench.dependency_tag}")
    seen = skopeo("inspect", f"docker://{place.name}:{made.tag}")
    assert (made.repository, made.runtime, made.built, made.provenance) == (place.name, "cuda", False, "")
    assert made.tag == f"nightly-20261121-{bench.compose(CHANGE).tree[:7]}"
    assert (seen["Digest"], made.dependencies) == (made.digest, dependencies["Digest"])
    assert seen["Layers"][:-1] == dependencies["Layers"]
    assert len(seen["Layers"]) == len(dependencies["Layers"]) + 1
    assert seen["Labels"] == dict(made.labels)
    assert LABEL_RECIPE not in seen["Labels"]
    assert seen["Env"] == ["PATH=/opt/sglang/bin:/usr/bin"]
    raw = skopeo("inspect", "--raw", f"docker://{place.name}:{made.tag}")
    assert raw["annotations"] == dict(made.labels)
    assert skopeo("inspect", "--config", f"docker://{place.name}:{made.tag}")["config"]["Entrypoint"] == ["python3"]


def unpacked(bench: ImageBench, digest: str, folder: Path) -> Path:
    """The image as umoci makes a file system of it."""
    folder.mkdir()
    layout = f"oci:{folder / 'layout'}:image"
    skopeo("copy", f"docker://{bench.place.name}@{digest}", layout)
    process.run(["umoci", "unpack", "--rootless", "--image", f"{folder / 'layout'}:image", str(folder / "bundle")])
    return folder / "bundle" / "rootfs"


def files_in(folder: Path) -> dict[str, str]:
    """Every path below ``folder`` with what it is; folders too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = f"{path.stat().st_mode & 0o777:o} {path.read_text()}"
    return found


def test_what_is_unpacked_is_the_composed_tree_deletions_included(bench: ImageBench, tmp_path: Path) -> None:
    made = bench.make(bench.compose(EVERYTHING))

    root = unpacked(bench, made.digest, tmp_path / "look")
    assert files_in(root / SITE / "sglang") == {
        "__init__.py": "644 __version__ = 'x'\n",
        "a.py": "644 changed\n",
        "file_then_folder": "folder",
        "file_then_folder/f.py": "644 f\n",
        "folder_then_file": "644 file now\n",
        "kept": "folder",
        "kept/_core.so": "644 compiled",
        "link.py": "-> new/e.py",
        "new": "folder",
        "new/e.py": "644 e\n",
        "run": "755 #!/bin/sh\n",
    }
    assert files_in(root / SITE / "torch") == {"__init__.py": "644 torch\n"}
    assert sorted(path.name for path in (root / "opt/patchstack").iterdir()) == [
        "NIGHT.md",
        "contents.json",
        "dependencies.json",
        "sbom.cdx.json",
    ]
    contents = json.loads((root / "opt/patchstack/contents.json").read_text())
    assert (contents["tree"], contents["dependencies"]) == (bench.compose(EVERYTHING).tree, made.dependencies)
    assert [package["name"] for package in contents["packages"]] == [package.name for package in PACKAGES]


def test_equal_inputs_give_an_equal_digest_in_two_clean_registries_on_two_days(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry(tmp_path / "elsewhere") as elsewhere, faulty(place) as proxy:  # under one name
        bench = ImageBench(tmp_path / "lane", proxy.place)
        bench.push_dependencies()
        first = bench.make(bench.compose(EVERYTHING))
        monkeypatch.setenv("PATCHSTACK_NOW", "2026-12-24T02:00:00+00:00")
        proxy.behind = elsewhere
        other = ImageBench(tmp_path / "another lane", proxy.place)
        other.push_dependencies()
        second = other.make(other.compose(EVERYTHING))
        assert (second.digest, second.labels) == (first.digest, first.labels)
        assert second.tag == first.tag.replace("20261121", "20261224")
        assert tags(place)[first.tag] == tags(elsewhere)[second.tag] == first.digest


def test_a_changed_patch_is_one_new_layer(bench: ImageBench, tmp_path: Path) -> None:
    bench.make(bench.compose(CHANGE))
    before = blobs(tmp_path / "registry")

    made = bench.make(bench.compose({"python/sglang/a.py": "changed once more\n"}))

    new = blobs(tmp_path / "registry") - before
    raw = skopeo("inspect", "--raw", f"docker://{bench.place.name}@{made.digest}")
    parts = {made.digest, raw["config"]["digest"], raw["layers"][-1]["digest"]}
    assert new == {digest.removeprefix("sha256:") for digest in parts}
    held = tmp_path / "registry/docker/registry/v2/blobs/sha256"
    sizes = {digest: (held / digest[:2] / digest / "data").stat().st_size for digest in new}
    # The manifest goes twice: by its digest, and by its tag once it is read back.
    assert made.bytes_new == sum(sizes.values()) + sizes[made.digest.removeprefix("sha256:")]


def test_the_same_again_sends_nothing_but_asks(bench: ImageBench) -> None:
    first = bench.make(bench.compose(CHANGE))
    again = bench.make(bench.compose(CHANGE))
    assert (again.digest, again.tag) == (first.digest, first.tag)
    assert again.bytes_new < 4000  # the manifest alone, by its digest


def test_another_image_of_the_same_tree_and_day_has_a_number(bench: ImageBench) -> None:
    """What was left out differs, so the contents do."""
    plain = bench.compose(CHANGE)
    first = bench.make(plain)
    second = bench.make(replace(plain, fingerprint=Fingerprint("another", ())))
    assert second.digest != first.digest
    assert second.tag == f"{first.tag}-2"
    assert tags(bench.place)[first.tag] == first.digest


# --- on somebody else's image, signed, and in the registry of this machine ---


def test_somebody_elses_image_has_its_layers_taken_over(tmp_path: Path, place: Place) -> None:
    with registry(tmp_path / "elsewhere", path="lmsys/sglang") as elsewhere:
        theirs = ImageBench(tmp_path / "theirs", elsewhere).push_dependencies(tag="v1")
        name = f"{elsewhere.name}@{theirs}"
        bench = ImageBench(tmp_path / "lane", place, f", base: {{name: '{name}', root: {ROOT}}}")
        made = bench.make(bench.compose(CHANGE))
    # Theirs has gone, and ours is whole.
    root = unpacked(bench, made.digest, tmp_path / "look")
    assert (root / SITE / "sglang/a.py").read_text() == "changed\n"
    contents = json.loads((root / "opt/patchstack/contents.json").read_text())
    assert (contents["packages"], contents["dependencies"], made.dependencies) == ([], theirs, theirs)
    assert dict(made.labels)["org.opencontainers.image.base.name"] == name
    assert len(made.recipe) == 64
    assert set(tags(place)) == {made.tag}


def test_an_image_is_signed_before_it_has_a_name(
    bench: ImageBench, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = Ed25519PrivateKey.generate()
    (bench.folder / "image.pub.pem").write_bytes(public_pem(private))
    bench = ImageBench(bench.folder, place, ", public_key: image.pub.pem")
    composition = bench.compose(CHANGE)
    run, before = bench.begin(composition), tags(place)
    with pytest.raises(UsageError, match="PATCHSTACK_SIGNING_KEY is not set"):
        make_image(bench.work, run, composition, None)
    assert tags(place) == before

    monkeypatch.setenv(SIGNING_KEY, pem(private))
    with faulty(place) as proxy:
        through = ImageBench(bench.folder, proxy.place, bench.more)
        proxy.fail(Fault("PUT", "*/manifests/nightly-*", status=500, code="UNKNOWN"))
        with pytest.raises(ImageError):
            make_image(through.work, run, composition, None)
    (statement,) = set(tags(place)) - set(before)
    assert statement.endswith(".att")

    made = ImageBench(bench.folder, place, bench.more).make(composition)
    assert tags(place)[statement_tag(made.digest)] == made.provenance
    with Registry.at(place) as held:
        assert verified(read_statements(held, made.digest), public_key(public_pem(private), "it"), made.digest)


def test_a_local_night_has_its_image_in_the_registry_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "can_be_had", lambda *_: False)  # an index would be asked
    local = LocalBench(tmp_path / "lane")
    made = local.make(CHANGE)
    tree = local.bench.compose(CHANGE).tree
    assert (made.repository, made.runtime, made.tag) == ("sglang", "cpu", f"cpu-20261121-{tree[:7]}")
    assert dict(made.labels)["org.opencontainers.image.base.name"] == f"sglang:{local.dependency_tag}"
    with open_registry(local.work) as held:
        assert held is not None
        assert held.resolve(made.tag) == made.digest
    # The port is another each time, and nothing of it is in the image.
    assert local.make(CHANGE).digest == made.digest


# --- why there is none ---


def attempt(bench: ImageBench, changes: Mapping[str, Content] = CHANGE) -> ImageResult:
    composition = bench.compose(changes)
    run = bench.begin(composition)
    made = make_image(bench.work, run, composition, None)
    assert run.read(ImageResult) == made
    return made


def test_no_dependencies_and_no_builder(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ImageBench(tmp_path / "lane", place)
    git_alone = tmp_path / "bin"
    git_alone.mkdir()
    for program in ("git", "env"):
        (git_alone / program).symlink_to(subprocess.check_output(["which", program], text=True).strip())
    monkeypatch.setenv("PATH", str(git_alone))
    made = attempt(bench)
    assert made == ImageResult(
        None,
        f"{place.name} has no {bench.dependency_tag}, and no builder is at hand that could make it: install buildah "
        "and mmdebstrap (`make builder`)",
    )
    assert tags(place) == {}


def test_images_are_switched_off(bench: ImageBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHSTACK_IMAGE", "none")
    assert attempt(bench).why_not == "images are switched off for this night by PATCHSTACK_IMAGE=none: unset it"


def test_a_lane_without_an_image(bench: ImageBench) -> None:
    config = bench.folder / "deploy.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "image:" not in line))
    assert attempt(bench).why_not == "lane production has no image in deploy.yaml: add lanes.production.image"


# --- patches that are not what they were ---

SLUG = "mooncake-protocol"


def with_patch(bench: ImageBench, digest: str = "") -> Composition:
    """A composition with a patch of this repository, which had ``digest`` when it was planned."""
    # Composed before it is there, for its guards are not.
    shutil.rmtree(bench.folder / "patches" / SLUG, ignore_errors=True)
    (bench.folder / "patches" / "series").write_text("")
    composition = bench.compose(CHANGE)
    shutil.copytree(REPOSITORY / "patches" / SLUG, bench.folder / "patches" / SLUG, dirs_exist_ok=True)
    (bench.folder / "patches" / "series").write_text(f"{SLUG}\n")
    (patch,) = read_series(bench.folder / "patches")
    topic = replace(composition.included[0], name=SLUG, kind=Kind.PATCH)
    planned = Fingerprint("print", ((f"patch {SLUG}", digest or patch.digest),))
    return replace(composition, included=(topic,), fingerprint=planned)


def test_a_patchs_own_files_are_in_the_image(bench: ImageBench, tmp_path: Path) -> None:
    made = bench.make(with_patch(bench))
    held = unpacked(bench, made.digest, tmp_path / "look") / "opt/patchstack/patches" / SLUG
    ours = REPOSITORY / "patches" / SLUG
    assert {path.name: path.read_bytes() for path in held.iterdir()} == {
        path.name: path.read_bytes() for path in ours.iterdir() if path.suffix in {".md", ".patch"}
    }


def test_patches_that_have_changed_since_the_plan_are_refused(bench: ImageBench) -> None:
    before = tags(bench.place)
    with pytest.raises(UsageError, match=f"patch {SLUG} is not what it was when commit"):
        bench.make(with_patch(bench, "another"))
    gone = with_patch(bench)
    (bench.folder / "patches" / "series").write_text("")
    shutil.rmtree(bench.folder / "patches" / SLUG)
    with pytest.raises(UsageError, match=f"patch {SLUG} is not what it was"):
        bench.make(gone)
    assert tags(bench.place) == before


# --- dependencies that are not what they were ---


def ledger_image(image: ImageRef, dependencies: str) -> LedgerImage:
    return LedgerImage(image.repository, image.digest, image.tag, image.runtime, image.recipe, dependencies)


def test_replaced_dependencies_are_noticed(bench: ImageBench) -> None:
    first = bench.make(bench.compose(CHANGE))
    promoted = ledger_image(first, first.dependencies)
    replaced = bench.push_dependencies(extra=b"import evil\n")
    composition = bench.compose(EVERYTHING)
    before = tags(bench.place)

    with pytest.raises(ImageError) as error:
        bench.make(composition, promoted)

    assert str(error.value) == (
        f"tag {bench.dependency_tag} of {bench.place.name} is {replaced}, and the last promoted night stands on "
        f"{first.dependencies} of the same recipe: somebody has replaced it; find out who. To go on as before, tag "
        f"{first.dependencies} as {bench.dependency_tag} again, and run again"
    )
    assert tags(bench.place) == before


def test_dependencies_of_before_are_taken(bench: ImageBench) -> None:
    first = bench.make(bench.compose(CHANGE))
    bench.make(bench.compose(EVERYTHING), ledger_image(first, first.dependencies))


def test_an_image_of_another_recipe_under_the_tag_is_refused(tmp_path: Path, place: Place) -> None:
    bench = ImageBench(tmp_path / "lane", place)
    bench.push_dependencies(recipe="0" * 64)
    with pytest.raises(ImageError, match=f"says that it was made by recipe {'0' * 64}"):
        bench.make(bench.compose(CHANGE))
    assert set(tags(place)) == {bench.dependency_tag}


# --- a registry that fails half-way ---

FAULTS = {
    "no upload of the layer": Fault("POST", "*/blobs/uploads/", status=500, code="UNKNOWN"),
    "an upload that is cut off": Fault("PUT", "*/blobs/uploads/*", reset=True),
    "no upload of the configuration": Fault("PUT", "*/blobs/uploads/*", nth=2, status=507, code="UNKNOWN"),
    "no manifest": Fault("PUT", "*/manifests/sha256:*", status=400, code="MANIFEST_INVALID"),
    "a manifest whose answer is lost": Fault("PUT", "*/manifests/sha256:*", lost=True, reset=True),
    "another manifest at the read-back": Fault("GET", "*/manifests/sha256:*", nth=2, changed=True),
    "another configuration at the read-back": Fault("GET", "*/blobs/sha256:*", nth=3, changed=True),
    "no tag": Fault("PUT", "*/manifests/nightly-*", status=403, code="DENIED"),
    "a tag whose push is cut off": Fault("PUT", "*/manifests/nightly-*", reset=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_registry_that_fails_half_way_has_no_new_name(
    tmp_path: Path, bench: ImageBench, place: Place, fault: Fault
) -> None:
    before = tags(place)
    composition = bench.compose(CHANGE)
    run = bench.begin(composition)
    with faulty(place) as proxy:
        through = ImageBench(bench.folder, proxy.place)
        proxy.fail(fault)
        with pytest.raises(ImageError):
            make_image(through.work, run, composition, None)
        assert proxy.injected == 1
    assert tags(place) == before
    assert not run.has(ImageResult)

    bench = ImageBench(bench.folder, place)
    made = bench.make(composition)  # and the next night is not in its way
    assert tags(place)[made.tag] == made.digest


def test_whichever_request_is_lost_the_night_stops_and_the_next_one_makes_the_image(
    tmp_path: Path, bench: ImageBench, place: Place
) -> None:
    """All of them in turn: what has no name before has at most its own afterwards, and that only at the very end."""
    composition, before = bench.compose(CHANGE), tags(place)
    run = bench.begin(composition)
    with faulty(place) as proxy:
        through = ImageBench(bench.folder, proxy.place)
        number, named = 0, []
        while True:
            number += 1
            proxy.mend()
            proxy.fail(Fault(nth=number, reset=True))
            asked = len(proxy.web.asked)
            try:
                made = make_image(through.work, run, composition, None).image
            except ImageError:
                assert not run.has(ImageResult)
                kinds = [one.method for one in proxy.web.asked[asked:]]
                new = {tag: digest for tag, digest in tags(place).items() if tag not in before}
                named.append(bool(new))
                assert new == {} or kinds.count("PUT") >= 2
                with Registry.at(place) as held:
                    for digest in new.values():
                        assert digest is not None
                        held.delete_manifest(digest)
            else:
                break
        assert made is not None
        assert proxy.injected == number - 1 >= 15
        # Only what is asked after the tag is written can be lost when it is there.
        assert named == sorted(named)
        assert sum(named) <= 2
        assert tags(place)[made.tag] == made.digest


# --- the command line ---


def test_the_verb_makes_the_image_of_a_run(bench: ImageBench) -> None:
    composition = bench.compose(CHANGE)
    run = bench.begin(composition)

    decided = patchstack(bench, "image", "--run", run.id, "--dry-run")
    assert (decided.code, decided.out) == (0, f"one layer on {bench.place.name}:{bench.dependency_tag}\n")
    assert set(tags(bench.place)) == {bench.dependency_tag}

    done = patchstack(bench, "image", "--run", run.id, "--json")
    assert done.code == 0, done.err
    made = json.loads(done.out)["image"]
    assert tags(bench.place)[made["tag"]] == made["digest"]
    assert run.read(ImageResult).image is not None


def test_the_verb_ends_with_5_when_the_registry_fails_and_with_6_where_there_is_none(bench: ImageBench) -> None:
    run = bench.begin(bench.compose(CHANGE))
    off = patchstack(bench, "image", "--run", run.id, PATCHSTACK_IMAGE="none")
    assert (off.code, "images are switched off" in off.err) == (6, True)
    with faulty(bench.place) as proxy:
        ImageBench(bench.folder, proxy.place)
        proxy.fail(Fault("PUT", "*/manifests/sha256:*", status=400, code="MANIFEST_INVALID"))
        failed = patchstack(bench, "image", "--run", run.id)
    assert failed.code == 5
    assert "MANIFEST_INVALID" in failed.err
