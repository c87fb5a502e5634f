"""What a dependency image is made from: its key changes with each of its inputs, and what is missing is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from patchstack.errors import ImageError
from patchstack.image import recipe as recipes
from patchstack.image.recipe import FOLDER, Recipe, recipe_of
from patchstack.model import Base, Native, Sha

ROOT = Path(__file__).parents[3]
RELEASE = "0.5.12.post1"
NATIVE = Native("cp311", "manylinux_2_34_x86_64", "sglang-1.0-cp311-cp311-manylinux_2_34_x86_64.whl", "1" * 64)


def base(version: str = "1.0", *natives: Native) -> Base:
    return Base(f"sglang=={version}", version, Sha("a" * 40), Sha("b" * 40), natives or (NATIVE,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe folder as the committed one, with locks of a release 1.0."""
    made = tmp_path / "recipe"
    (made / "locks" / "1.0").mkdir(parents=True)
    for name in (recipes.CONTAINERFILE, *recipes.SCRIPTS):
        (made / name).write_text(f"{name}\n")
    (made / "layers.toml").write_text('torch = ["torch", "nvidia-*"]\nkernels = ["mooncake-*"]\n')
    (made / "pip.txt").write_text(f"pip==1.0 --hash=sha256:{'2' * 64}\n")
    for runtime in ("cpu", "cuda"):
        (made / f"smoke.{runtime}.txt").write_text("sglang\n")
    (made / "debian.cuda.txt").write_text("python3.11\ngcc  # why\n")
    (made / "debian.cpu.txt").write_text("python3.11\n")
    lock = "".join(
        f"{name}==1.0 \\\n    --hash=sha256:{digit * 64}\n"
        for name, digit in (("torch", "3"), ("mooncake-x", "4"), ("numpy", "5"), ("nvidia-nccl", "6"))
    )
    (made / "locks" / "1.0" / "cuda.txt").write_text(lock)
    (made / "locks" / "1.0" / "sizes.json").write_text('{"download_bytes": 7, "disk_bytes": 8}')
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a test bed of release 1.0 and stand-ins."""
    support = tmp_path / "root" / "tests" / "support"
    locks = support / "locks" / "1.0"
    locks.mkdir(parents=True)
    for name, pinned, digit in (("shared", "numpy", "5"), ("torch-cpu", "torch", "6"), ("torch-pypi", "torch", "7")):
        (locks / f"{name}.txt").write_text(f"{pinned}==1.0 --hash=sha256:{digit * 64}\n")
    weight = {"download_bytes": 10, "disk_bytes": 20}
    (locks / "sizes.json").write_text(
        json.dumps(dict.fromkeys(["shared.txt", "torch-cpu.txt", "torch-pypi.txt"], weight))
    )
    (support / "standins" / "sgl_kernel").mkdir(parents=True)
    (support / "standins" / "sgl_kernel" / "__init__.py").write_text("stand-in\n")
    return tmp_path / "root"


def made(folder: Path, root: Path, runtime: str = "cuda", torch: str = "cpu", of: Base | None = None) -> Recipe:
    found = recipe_of(of or base(), runtime, root, torch, folder)
    assert isinstance(found, Recipe), found
    return found


def test_wheels_are_sorted_into_layers_and_the_release_is_the_last(folder: Path, root: Path) -> None:
    recipe = made(folder, root)
    assert [(group.name, [pin.name for pin in group.pins]) for group in recipe.groups] == [
        ("torch", ["nvidia-nccl", "torch"]),
        ("kernels", ["mooncake-x"]),
        ("rest", ["numpy"]),
        ("release", ["sglang"]),
    ]
    assert recipe.groups[-1].pins[0].sha256 == (NATIVE.sha256,)
    assert recipe.debian == ("python3.11", "gcc")
    assert (recipe.download_bytes, recipe.disk_bytes) == (7, 8)
    assert not [path for path, _ in recipe.files if path.startswith("standins/")]


def test_the_cpu_image_is_made_from_the_test_beds_locks_with_the_stand_ins(folder: Path, root: Path) -> None:
    recipe = made(folder, root, "cpu", "pypi")
    assert [pin.name for pin in recipe.locked] == ["torch", "numpy", "sglang"]
    assert recipe.locked[0].sha256 == ("7" * 64,)
    assert dict(recipe.files)["standins/sgl_kernel/__init__.py"] == b"stand-in\n"
    assert (recipe.download_bytes, recipe.disk_bytes) == (20, 40)


def append(path: str) -> Callable[[Path, Path], None]:
    def change(folder: Path, root: Path) -> None:
        place = root / path.removeprefix("root/") if path.startswith("root/") else folder / path
        place.write_text(place.read_text().replace("1.0", "1.1") + "\n# one more\n")

    return change


INPUTS = [
    *(
        ("cuda", path)
        for path in (*recipes.SCRIPTS, recipes.CONTAINERFILE, "pip.txt", "locks/1.0/cuda.txt", "smoke.cuda.txt")
    ),
    ("cpu", "root/tests/support/locks/1.0/shared.txt"),
    ("cpu", "root/tests/support/locks/1.0/torch-cpu.txt"),
    ("cpu", "root/tests/support/standins/sgl_kernel/__init__.py"),
]


@pytest.mark.parametrize(("runtime", "path"), INPUTS)
def test_the_key_changes_with_every_file(folder: Path, root: Path, runtime: str, path: str) -> None:
    before = made(folder, root, runtime)
    assert made(folder, root, runtime).key == before.key
    append(path)(folder, root)
    assert made(folder, root, runtime).key != before.key


def test_the_key_changes_with_debian_layers_runtime_torch_and_the_releases_wheel(folder: Path, root: Path) -> None:
    keys = {made(folder, root).key, made(folder, root, "cpu").key, made(folder, root, "cpu", "pypi").key}
    keys.add(made(folder, root, of=base("1.0", replace(NATIVE, sha256="9" * 64))).key)
    (folder / "debian.cuda.txt").write_text("python3.11\n")
    keys.add(made(folder, root).key)
    (folder / "layers.toml").write_text('torch = ["torch"]\nkernels = []\n')
    keys.add(made(folder, root).key)
    assert len(keys) == 6


def test_what_it_weighs_and_what_another_runtime_has_change_no_key(folder: Path, root: Path) -> None:
    before = made(folder, root).key
    (folder / "locks" / "1.0" / "sizes.json").write_text('{"download_bytes": 70, "disk_bytes": 80}')
    (folder / "debian.cpu.txt").write_text("other\n")
    (root / "tests" / "support" / "standins" / "sgl_kernel" / "__init__.py").write_text("other\n")
    assert made(folder, root).key == before


@pytest.mark.parametrize(
    ("runtime", "named"), [("cuda", "recipe/locks/2.0 has no lock"), ("cpu", "tests/support/locks/2.0 has no lock")]
)
def test_a_release_without_a_lock_has_no_recipe_and_it_is_said_which_have(
    folder: Path, root: Path, runtime: str, named: str
) -> None:
    found = recipe_of(base("2.0"), runtime, root, "cpu", folder)
    assert isinstance(found, str)
    assert named in found
    assert "there are: 1.0" in found


def test_a_lock_that_is_half_there_is_none(folder: Path, root: Path) -> None:
    (folder / "locks" / "1.0" / "sizes.json").unlink()
    assert isinstance(recipe_of(base(), "cuda", root, "cpu", folder), str)


@pytest.mark.parametrize(
    "natives", [(), (replace(NATIVE, python="cp312"),), (replace(NATIVE, platform="linux_aarch64"),)]
)
def test_without_the_releases_wheel_for_debians_python_there_is_no_recipe(
    folder: Path, root: Path, natives: tuple[Native, ...]
) -> None:
    found = recipe_of(replace(base(), natives=natives), "cuda", root, "cpu", folder)
    assert isinstance(found, str)
    assert "needs the release's wheel for Python 3.11 on Linux x86-64" in found


def test_a_lock_without_a_hash_is_refused_by_its_line(folder: Path, root: Path) -> None:
    (folder / "locks" / "1.0" / "cuda.txt").write_text("torch==1.0\n")
    with pytest.raises(ImageError, match=r"cuda\.txt is no lock: 'torch==1\.0' has no exact version with a hash"):
        recipe_of(base(), "cuda", root, "cpu", folder)


def test_the_committed_recipe_of_production_is_whole() -> None:
    native = replace(NATIVE, filename="sglang.whl")
    for runtime, wanted in (
        ("cuda", {"torch": "2.11.0", "sglang-kernel": "0.4.2.post2", "transformers": "5.6.0"}),
        ("cpu", {"torch": "2.13.0+cpu", "transformers": "5.6.0"}),
    ):
        recipe = recipe_of(base(RELEASE, native), runtime, ROOT, "cpu")
        assert isinstance(recipe, Recipe), recipe
        versions = {pin.name: pin.version for pin in recipe.locked}
        assert wanted.items() <= versions.items()
        assert all(group.pins for group in recipe.groups)
        assert len(versions) == len(recipe.locked)
    assert all(len(pin.sha256) == 1 for pin in recipe_cuda().locked)


def recipe_cuda() -> Recipe:
    recipe = recipe_of(base(RELEASE), "cuda", ROOT, "cpu")
    assert isinstance(recipe, Recipe)
    return recipe


def test_the_committed_locks_name_no_index() -> None:
    for lock in FOLDER.rglob("*.txt"):
        text = lock.read_text()
        assert "://" not in text
        assert "--index-url" not in text
        assert "--find-links" not in text
