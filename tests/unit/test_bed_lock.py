"""The committed locks, and what `relock` makes of a resolution."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from packaging.pylock import Pylock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from patchstack.errors import MachineError
from patchstack.regress.lock import Pin, pins_of, render

LOCKS = sorted((Path(__file__).parents[1] / "support" / "locks").glob("*/"))
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def resolution(*packages: dict[str, object]) -> Pylock:
    return Pylock.from_dict({"lock-version": "1.0", "created-by": "test", "packages": list(packages)})


def package(name: str, version: str, *wheels: str, **more: object) -> dict[str, object]:
    return {
        "name": name,
        "version": version,
        "wheels": [
            {"url": f"https://index.example/{name}-{version}-{tag}.whl", "hashes": {"sha256": tag}} for tag in wheels
        ],
        **more,
    }


def test_wheels_of_our_pythons_on_linux_are_locked_and_no_others() -> None:
    wheels = "cp310-cp310-manylinux_2_28_x86_64 cp311-cp311-manylinux_2_28_x86_64 cp313-cp313-manylinux2014_x86_64"
    more = "cp311-cp311-manylinux_2_28_aarch64 cp311-cp311-win_amd64 cp39-abi3-manylinux_2_17_x86_64 py3-none-any"
    (pin,) = pins_of(resolution(package("one", "1.0", *wheels.split(), *more.split())))
    assert pin.sha256 == (
        "cp311-cp311-manylinux_2_28_x86_64",
        "cp313-cp313-manylinux2014_x86_64",
        "cp39-abi3-manylinux_2_17_x86_64",
        "py3-none-any",
    )


def test_a_package_that_no_python_of_ours_needs_is_left_out_and_a_split_one_keeps_its_condition() -> None:
    lock = resolution(
        package("colorama", "0.4", "py3-none-any", marker="sys_platform == 'win32'"),
        package("numpy", "2.4", "py3-none-any", marker="python_full_version < '3.12'"),
        package("numpy", "2.5", "py3-none-any", marker="python_full_version >= '3.12'"),
        package("plain", "1.0", "py3-none-any", marker="python_full_version >= '3.11'"),
    )
    assert [(pin.name, pin.version, pin.marker) for pin in pins_of(lock)] == [
        ("numpy", "2.4", 'python_version <= "3.11"'),
        ("numpy", "2.5", 'python_version >= "3.12"'),
        ("plain", "1.0", ""),
    ]


def test_a_package_without_a_wheel_for_us_is_an_error() -> None:
    with pytest.raises(MachineError, match=r"one 1\.0 has no wheel for Linux x86-64"):
        pins_of(resolution(package("one", "1.0", "cp311-cp311-win_amd64")))


def test_a_lock_is_written_as_pip_reads_it() -> None:
    pins = [Pin("two", "2.0", 'python_version <= "3.11"', ("b" * 64,)), Pin("one", "1.0", "", ("a" * 64, "c" * 64))]
    assert render(pins, "here.in") == (
        "# Made from here.in by `make relock-bed`; do not edit.\n"
        f"one==1.0 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'c' * 64}\n"
        f'two==2.0 ; python_version <= "3.11" \\\n    --hash=sha256:{"b" * 64}\n'
    )


def pinned(lock: Path) -> dict[str, set[str]]:
    """Versions by package; checks on the way that the lock holds pins and hashes only."""
    found: dict[str, set[str]] = {}
    for line in lock.read_text().splitlines():
        if line.startswith(("#", " ")):
            assert line.startswith("#") or HASH.fullmatch(line), line
            continue
        requirement = Requirement(line.removesuffix(" \\"))
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", line
        found.setdefault(canonicalize_name(requirement.name), set()).add(specifier.version)
    return found


@pytest.mark.parametrize("folder", LOCKS, ids=lambda folder: folder.name)
def test_the_committed_locks_hold_what_their_inputs_ask_for(folder: Path) -> None:
    shared, pypi, cpu = (pinned(folder / f"{name}.txt") for name in ("shared", "torch-pypi", "torch-cpu"))
    assert not shared.keys() & pypi.keys()
    for source, held in (("shared", shared), ("shared-no-deps", shared), ("torch", pypi)):
        for line in (folder / f"{source}.in").read_text().splitlines():
            if asked := line.partition("#")[0].strip():
                requirement = Requirement(asked)
                versions = held[canonicalize_name(requirement.name)]
                assert all(requirement.specifier.contains(version) for version in versions), line
    assert cpu == {"torch": {f"{version}+cpu" for version in pypi["torch"]}}
    assert set(json.loads((folder / "sizes.json").read_text())) == {"shared.txt", "torch-cpu.txt", "torch-pypi.txt"}


@pytest.mark.parametrize("folder", LOCKS, ids=lambda folder: folder.name)
def test_the_committed_locks_name_no_index(folder: Path) -> None:
    for lock in folder.iterdir():
        text = lock.read_text()
        assert "://" not in text
        assert "--index-url" not in text
        assert "--find-links" not in text
