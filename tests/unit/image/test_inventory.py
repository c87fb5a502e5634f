"""What an image says is installed, and how that is held against its recipe."""

from __future__ import annotations

import json

import pytest

from patchstack.contents import Package
from patchstack.errors import ImageError
from patchstack.image.inventory import Inventory, decode_inventory, problems

ROOT = "/opt/sglang/lib/python3.11/site-packages"
FOUND = Inventory(
    (
        Package("debian", "libc6", "2.36-9"),
        Package("debian", "python3.11", "3.11.2"),
        Package("python", "ipython", "9.0"),
        Package("python", "torch", "2.13.0+cpu"),
    ),
    ROOT,
)
LOCKED = [("ipython", "9.0"), ("torch", "2.13.0+cpu")]


def test_an_inventory_comes_back_as_it_was_written_with_names_as_locks_have_them() -> None:
    assert decode_inventory(FOUND.encode()) == FOUND
    assert decode_inventory(FOUND.encode().replace(b'"ipython"', b'"IPython"')) == FOUND


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Expecting value"),
        (b"[]", "list indices"),
        (b'{"schema_version": 2}', "it has schema 2, not 1"),
        (
            b'{"schema_version": 1, "root": "/opt", "packages": [{"kind": "rpm", "name": "a", "version": "1"}]}',
            "no package",
        ),
        (b'{"schema_version": 1, "root": "/opt/../etc", "packages": []}', "no folder of an image"),
        (b'{"schema_version": 1, "root": "opt", "packages": []}', "no folder of an image"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_what_is_no_inventory_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        decode_inventory(data)


def test_an_image_that_is_as_its_recipe_has_no_problems() -> None:
    assert problems(FOUND, LOCKED, ["python3.11"]) == []
    assert problems(FOUND, [("ipython", "9"), ("torch", "2.13.0+cpu")], []) == []


@pytest.mark.parametrize(
    ("locked", "debian", "said"),
    [
        ([*LOCKED, ("numpy", "2.0")], [], "numpy 2.0 is locked and not installed"),
        (LOCKED[1:], [], "ipython 9.0 is installed and not locked"),
        ([LOCKED[0], ("torch", "2.13.0")], [], "torch 2.13.0+cpu is installed and 2.13.0 is locked"),
        (LOCKED, ["gcc"], "Debian's gcc is asked for and not installed"),
    ],
)
def test_what_is_missing_extra_or_another_version_is_named(
    locked: list[tuple[str, str]], debian: list[str], said: str
) -> None:
    assert problems(FOUND, locked, debian) == [said]


def test_a_distribution_that_is_there_twice_is_a_problem() -> None:
    body = json.loads(FOUND.encode())
    body["packages"].append({"kind": "python", "name": "IPython", "version": "8.0"})
    found = decode_inventory(json.dumps(body).encode())
    assert "1 Python distributions are there in two versions" in problems(found, LOCKED, [])
