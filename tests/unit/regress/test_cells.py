"""What a child's file system is made of, and as whom it runs: decided before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchstack.errors import MachineError
from patchstack.regress import unprivileged
from patchstack.regress.enclose import Link, Means
from patchstack.regress.unprivileged import FIRST_ID, IDS, LONE_ID, Needs, decide, decide_mounts


@pytest.mark.parametrize(
    ("euid", "fault", "means"),
    [
        (0, "", Means.NAMESPACES),
        (0, "unshare: Operation not permitted", Means.IDENTITY),
        (1000, "", Means.ENVIRONMENT),
        (1000, "unshare: Operation not permitted", Means.ENVIRONMENT),
    ],
)
def test_root_never_runs_it_as_root(euid: int, fault: str, means: Means) -> None:
    assert decide(euid, fault) is means


def test_the_ids_are_nobody_s() -> None:
    """As docs/operators.md says them, and clear of those that systemd and subuid give away."""
    assert (FIRST_ID, FIRST_ID + IDS - 1, LONE_ID) == (1_879_048_192, 1_879_113_727, 60_999)


def needs(folder: Path, *shown: str) -> Needs:
    return Needs(tuple(folder / name for name in shown), *(folder / name for name in ("code", "h", "t", "record")))


def test_an_outer_folder_comes_before_what_lies_in_it(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    mounts = decide_mounts(
        needs(tmp_path, "usr/fork/tests", "cache/tree"),
        [tmp_path / "usr" / "fork", tmp_path / "cache"],
        [f"{tmp_path}/usr"],
    )
    said = [(mount.kind.value, mount.target.removeprefix(str(tmp_path))) for mount in mounts]
    assert said == [
        ("own", "/tmp"),
        ("own", "/var/tmp"),
        ("shown", "/usr"),
        ("own", "/code"),
        ("own", "/h"),
        ("own", "/record"),
        ("empty", "/usr/fork"),
        ("shown", "/cache/tree"),
        ("shown", "/usr/fork/tests"),
    ]


def test_a_folder_that_is_needed_and_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"home must be kept from candidates' code, and it needs to read it: move"):
        decide_mounts(needs(tmp_path, "home"), [tmp_path / "home"], [])


def test_links_that_lead_to_its_python_are_made_where_nothing_else_brings_them(tmp_path: Path) -> None:
    shown, outer, inner = (tmp_path / name for name in ("shown", "outer", "inner"))
    shown.mkdir()
    (shown / "python").touch()
    outer.symlink_to("inner")
    inner.symlink_to(shown / "python")
    made = unprivileged._links(outer, needs(tmp_path, "shown"))
    assert [link for link in made if link.path.startswith(str(tmp_path))] == [
        Link(str(outer), "inner"),
        Link(str(inner), str(shown / "python")),
    ]
