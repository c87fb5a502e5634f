"""How a dependency image is built: by which argv, with how much room, and what is looked at afterwards."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from patchstack.contents import Package
from patchstack.errors import ImageError
from patchstack.image import build as building
from patchstack.image import builder as builders
from patchstack.image import debian
from patchstack.image.build import LABEL_RECIPE, build, read_inventory
from patchstack.image.builder import Buildah, Buildx, Folders, builder_at_hand
from patchstack.image.inventory import PATH, Inventory
from patchstack.image.oci import CONFIG, LAYER_GZIP, MANIFEST, digest_of
from patchstack.image.recipe import Group, Recipe
from patchstack.model import Base, Native, Sha
from patchstack.pins import Pin

BASE = Base("sglang==1.0", "1.0", Sha("a" * 40), Sha("b" * 40))
RECIPE = Recipe(
    runtime="cpu",
    release="1.0",
    native=Native("cp311", "any", "sglang-1.0-py3-none-any.whl", "1" * 64),
    groups=(Group("release", (Pin("sglang", "1.0", "", ("1" * 64,)),)),),
    installer=(),
    debian=(),
    files=(),
    download_bytes=0,
    disk_bytes=0,
)


# --- builders ------------------------------------------------------------------------------------------


def test_buildah_builds_in_a_store_of_its_own_without_network_time_or_settings_of_the_user() -> None:
    install, compress = Buildah(as_root=True).steps(Folders(Path("/w")), "cpu", {"b": "2", "a": "1"})
    store = "unshare --net -- buildah --root /w/store --runroot /w/run"
    assert " ".join(install.argv) == (
        f"{store} build --isolation chroot --layers --no-cache --no-hosts --timestamp 315532800 --identity-label=false "
        "--http-proxy=false --format oci --target cpu --tag image --label a=1 --label b=2 /w/context"
    )
    assert " ".join(compress.argv) == f"{store} push --quiet --format oci image oci:/w/layout:image"
    assert dict(install.adds) == {"TMPDIR": "/w/scratch", "BUILDAH_ISOLATION": "chroot"}


def test_somebody_who_is_not_root_has_buildahs_user_namespace() -> None:
    builder = Buildah(as_root=False)
    for step in builder.steps(Folders(Path("/w")), "cpu", {}):
        assert step.argv[:6] == ("buildah", "unshare", "unshare", "--net", "--", "buildah")
    assert builder.remove(Path("/w")) == ("buildah", "unshare", "rm", "-rf", "--one-file-system", "/w")


def test_buildx_makes_the_same_from_the_same_folder() -> None:
    (step,) = Buildx().steps(Folders(Path("/w")), "cuda", {"a": "1"})
    assert " ".join(step.argv) == (
        "docker buildx build --platform linux/amd64 --no-cache --network none --provenance false --sbom false "
        "--build-arg SOURCE_DATE_EPOCH=315532800 --file /w/context/Containerfile --target cuda --label a=1 "
        "--output type=oci,dest=/w/layout,tar=false,oci-mediatypes=true,rewrite-timestamp=true /w/context"
    )


@pytest.mark.parametrize("builder", [Buildah(as_root=True), Buildah(as_root=False), Buildx()], ids=lambda one: one.name)
def test_no_argument_of_a_builder_holds_a_secret(monkeypatch: pytest.MonkeyPatch, builder: Buildah | Buildx) -> None:
    for name in ("PATCHSTACK_REGISTRY_PASSWORD", "PATCHSTACK_SIGNING_KEY", "PIP_INDEX_URL", "http_proxy"):
        monkeypatch.setenv(name, "s3cret")
    for step in builder.steps(Folders(Path("/w")), "cpu", {LABEL_RECIPE: "1"}):
        assert "s3cret" not in " ".join([*step.argv, *(text for pair in step.adds for text in pair)])
        assert not {"--secret", "--build-context", "--creds", "--authfile"} & set(step.argv)


def programs(monkeypatch: pytest.MonkeyPatch, *there: str, answers: bool = True) -> None:
    found = {name: f"/usr/bin/{name}" for name in there}
    monkeypatch.setattr(shutil, "which", lambda name, path=None: found.get(name))
    monkeypatch.setattr(builders, "_answers", lambda argv: answers)


@pytest.mark.parametrize(
    ("there", "answers", "name"),
    [
        (("mmdebstrap", "buildah", "docker"), True, "buildah"),
        (("mmdebstrap", "docker"), True, "docker buildx"),
        (("mmdebstrap", "docker"), False, None),
        (("mmdebstrap",), True, None),
        (("buildah", "docker"), True, None),
    ],
)
def test_which_builder_is_at_hand(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], answers: bool, name: str | None
) -> None:
    programs(monkeypatch, *there, answers=answers)
    found = builder_at_hand()
    assert (found.name if found else None) == name


def test_debian_is_asked_for_by_name_with_nothing_of_this_machine() -> None:
    argv = debian.argv(["python3.11", "gcc"], Path("/w/base.tar"))
    assert argv[:4] == ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3.11,gcc"]
    assert argv[-2:] == ["bookworm", "/w/base.tar"]
    assert '--customize-hook=rm -f "$1/etc/hostname" "$1/etc/resolv.conf"' in argv


# --- before anything is done ---------------------------------------------------------------------------


def test_without_a_builder_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(monkeypatch)
    with pytest.raises(ImageError, match="no builder is at hand: install buildah and mmdebstrap"):
        build(RECIPE, BASE, tmp_path, print)


def test_too_little_disk_is_one_error_before_anything_is_fetched(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    recipe = replace(RECIPE, disk_bytes=free)
    with pytest.raises(ImageError, match=r"the cpu image takes [\d.]+ GB while it is built and .* has [\d.]+ GB free"):
        build(recipe, BASE, tmp_path, print, builder=Buildah(as_root=True))
    assert [path.name for path in (tmp_path / "images").iterdir()] == [".lock"]
    assert not (tmp_path / "wheels").exists()


def test_an_image_in_the_cache_needs_no_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(monkeypatch)
    layout = tmp_path / "images" / RECIPE.key
    layout.mkdir(parents=True)
    (layout / "index.json").write_text("{}")
    assert build(RECIPE, BASE, tmp_path, print) == layout


def test_the_layouts_that_were_used_last_are_kept(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for age, name in enumerate((RECIPE.key, "1" * 64, "2" * 64, "3" * 64, "4" * 64, ".build-x")):
        (images / name).mkdir(parents=True)
        (images / name / "index.json").write_text("{}")
        os.utime(images / name, (1000 + age, 1000 + age))
    build(RECIPE, BASE, tmp_path, lambda _: None)
    assert {path.name for path in images.iterdir()} == {RECIPE.key, "3" * 64, "4" * 64, ".build-x", ".lock"}


def test_a_recipe_of_another_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"the recipe is of 1\.0 and the base is 2\.0"):
        build(RECIPE, Base("sglang==2.0", "2.0", Sha("a" * 40), Sha("b" * 40)), tmp_path, print)


# --- what came out -------------------------------------------------------------------------------------


def layout(folder: Path, files: dict[str, bytes]) -> Path:
    """An OCI layout whose last layer holds ``files``, by path."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(kind: str, data: bytes) -> dict[str, object]:
        (blobs / digest_of(data).removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    layers = [put(LAYER_GZIP, gzip.compress(raw.getvalue()))]
    body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": put(CONFIG, b"{}"), "layers": layers}
    (folder / "index.json").write_text(json.dumps({"manifests": [put(MANIFEST, json.dumps(body).encode())]}))
    return folder


INVENTORY = Inventory((Package("python", "sglang", "1.0"),), "/opt/sglang")


def test_the_inventory_is_read_from_the_last_layer(tmp_path: Path) -> None:
    assert read_inventory(made(tmp_path)) == INVENTORY


def made(folder: Path) -> Path:
    return layout(folder, {PATH: INVENTORY.encode()})


def test_a_last_layer_that_holds_more_is_refused(tmp_path: Path) -> None:
    found = layout(tmp_path, {PATH: INVENTORY.encode(), "tmp/left": b""})
    with pytest.raises(
        ImageError, match=r"must hold opt/patchstack/dependencies\.json and nothing else, and holds tmp/left"
    ):
        read_inventory(found)


def test_a_layout_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    found = made(tmp_path)
    for blob in (found / "blobs" / "sha256").iterdir():
        blob.write_bytes(blob.read_bytes()[:10])
    with pytest.raises(ImageError, match="is no"):
        read_inventory(found)


def test_every_package_that_differs_is_named() -> None:
    with pytest.raises(ImageError, match=r"what its locks say: left 2\.0 is installed and not locked"):
        building._require_packages(
            RECIPE, Inventory((*INVENTORY.packages, Package("python", "left", "2.0")), "/opt/sglang")
        )
    building._require_packages(RECIPE, INVENTORY)


def test_a_folder_in_which_something_stays_mounted_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "images" / ".build-left"
    (work / "dev").mkdir(parents=True)
    with monkeypatch.context() as mounted:
        mounted.setattr(building, "_mounted_in", lambda _: [f"{work}/dev"])
        with pytest.raises(ImageError, match="cannot be removed"):
            build(RECIPE, BASE, tmp_path, print, builder=Buildah(as_root=True))
    assert (work / "dev").is_dir()
    with pytest.raises(ImageError, match="pip could not fetch"):
        build(RECIPE, BASE, tmp_path, print, builder=Buildah(as_root=True))
    assert not work.exists()
