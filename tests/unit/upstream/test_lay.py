"""What is written to disk is the tree: bytes, modes and links, whatever the machine would have liked."""

from __future__ import annotations

import importlib.metadata
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from patchstack.errors import CompositionError, MachineError, UsageError
from patchstack.git import EMPTY_TREE, Repository
from patchstack.model import Sha
from patchstack.upstream import lay
from patchstack.upstream.importer import import_release
from patchstack.upstream.lay import Materialised, escaping_links, lay_natives, materialise
from patchstack.upstream.wheel import Wheel

Entries = dict[str, tuple[str, bytes]]

PLAIN: Entries = {
    "python/sglang/__init__.py": ("100644", b"A = 1\n"),
    "python/sglang/run.sh": ("100755", b"#!/bin/sh\n"),
    "python/sglang/alias.py": ("120000", b"srt/engine.py"),
    "python/sglang/srt/engine.py": ("100644", b"crlf\r\n$Id$\n"),
    "python/sglang/srt/up": ("120000", b"../srt"),
}


def _tree(store: Repository, entries: Entries) -> Sha:
    return store.edit_tree(EMPTY_TREE, [(mode, store.write_blob(data), path) for path, (mode, data) in entries.items()])


def _raw_tree(store: Repository, *entries: tuple[str, str, str]) -> Sha:
    """A tree that git itself would not write: (mode, name, id)."""
    data = b"".join(f"{mode} {name}".encode() + b"\0" + bytes.fromhex(sha) for mode, name, sha in entries)
    return Sha(store.run("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=data))


def _on_disk(folder: Path) -> Entries:
    found: Entries = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = ("120000", os.fsencode(path.readlink()))
        elif path.is_file():
            found[name] = (f"{path.stat().st_mode:o}", path.read_bytes())
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "tree"


def test_a_tree_is_written_as_it_is(repository: Repository, folder: Path) -> None:
    tree = _tree(repository, PLAIN)
    assert materialise(repository, tree, folder) == Materialised(folder, tree, 5, written=True)
    assert _on_disk(folder) == PLAIN
    assert sorted(path.name for path in folder.parent.iterdir()) == [".tree.tree", "tree"]


def test_attributes_configuration_and_umask_have_no_say(repository: Repository, folder: Path, sealed: Path) -> None:
    (sealed / ".gitconfig").write_text("[core]\n\tautocrlf = true\n\tsymlinks = false\n\tfileMode = false\n")
    planted = PLAIN | {
        ".gitattributes": ("100644", b"* text eol=crlf ident export-ignore export-subst working-tree-encoding=UTF-16\n")
    }
    before = os.umask(0o077)
    try:
        materialise(repository, _tree(repository, planted), folder)
    finally:
        os.umask(before)

    assert _on_disk(folder) == planted
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o755}


def test_a_commit_is_as_good_as_its_tree(repository: Repository, folder: Path) -> None:
    tree = _tree(repository, PLAIN)
    commit = repository.commit(tree, (), "message")
    assert materialise(repository, commit, folder).tree == tree


def test_more_than_fits_into_one_batch(repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lay, "_BATCH_BYTES", 100)
    entries: Entries = {f"d{n % 3}/{n}.bin": ("100644", bytes([n, 10, 0]) * n) for n in range(60)}
    materialise(repository, _tree(repository, entries), folder)
    assert _on_disk(folder) == entries


def test_an_empty_tree_is_an_empty_folder(repository: Repository, folder: Path) -> None:
    repository.run("hash-object", "-t", "tree", "-w", "--stdin", stdin=b"")
    assert materialise(repository, EMPTY_TREE, folder).files == 0
    assert list(folder.iterdir()) == []


def test_names_that_no_locale_knows(repository: Repository, folder: Path) -> None:
    name = b"gr\xfc\xdf e\n\\.py".decode(errors="surrogateescape")
    tree = _tree(repository, {name: ("100644", b"latin-1 name\n")})
    materialise(repository, tree, folder)
    assert [os.fsencode(path.name) for path in folder.iterdir()] == [b"gr\xfc\xdf e\n\\.py"]
    assert not materialise(repository, tree, folder).written


def test_a_submodule_is_an_empty_folder(repository: Repository, folder: Path) -> None:
    tree = repository.edit_tree(_tree(repository, PLAIN), [("160000", "a" * 40, "3rdparty/lib")])
    materialise(repository, tree, folder)
    assert (folder / "3rdparty/lib").is_dir()
    assert _on_disk(folder) == PLAIN


# --- again --------------------------------------------------------------------------------------------


def test_the_same_tree_again_touches_nothing(repository: Repository, folder: Path) -> None:
    tree = _tree(repository, PLAIN)
    materialise(repository, tree, folder)
    before = folder.stat().st_ino
    assert materialise(repository, tree, folder) == Materialised(folder, tree, 5, written=False)
    assert folder.stat().st_ino == before


def _edit(folder: Path) -> None:
    (folder / "python/sglang/__init__.py").write_bytes(b"A = 2\n")


def _make_executable(folder: Path) -> None:
    (folder / "python/sglang/__init__.py").chmod(0o755)


def _remove(folder: Path) -> None:
    (folder / "python/sglang/srt/engine.py").unlink()


def _add(folder: Path) -> None:
    (folder / "python/sglang/extra.py").touch()


def _leave_bytecode(folder: Path) -> None:
    (folder / "python/sglang/__pycache__").mkdir()
    (folder / "python/sglang/__pycache__/a.cpython-311.pyc").write_bytes(b"old")


def _turn_link(folder: Path) -> None:
    link = folder / "python/sglang/alias.py"
    link.unlink()
    link.symlink_to("run.sh")


def _link_to_file(folder: Path) -> None:
    link = folder / "python/sglang/alias.py"
    link.unlink()
    link.write_text("srt/engine.py")


@pytest.mark.parametrize("meddle", [_edit, _make_executable, _remove, _add, _leave_bytecode, _turn_link, _link_to_file])
def test_what_was_meddled_with_is_written_afresh(
    repository: Repository, folder: Path, meddle: Callable[[Path], None]
) -> None:
    tree = _tree(repository, PLAIN)
    materialise(repository, tree, folder)
    meddle(folder)

    assert materialise(repository, tree, folder).written
    assert _on_disk(folder) == PLAIN


def test_another_tree_takes_the_place_of_the_first(repository: Repository, folder: Path) -> None:
    materialise(repository, _tree(repository, PLAIN), folder)
    second: Entries = {"python/sglang": ("100644", b"a file now\n")}
    assert materialise(repository, _tree(repository, second), folder).written
    assert _on_disk(folder) == second


def test_what_a_killed_run_left_is_removed(repository: Repository, folder: Path) -> None:
    left = folder.parent / ".tree.partial-abc/new/python"
    left.mkdir(parents=True)
    neighbour = folder.parent / ".treehouse.partial-abc"
    neighbour.mkdir()
    materialise(repository, _tree(repository, PLAIN), folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == [".tree.tree", neighbour.name, "tree"]


def test_a_folder_of_somebody_else_is_left_alone(repository: Repository, folder: Path, tmp_path: Path) -> None:
    tree = _tree(repository, PLAIN)
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    link = tmp_path / "link"
    link.symlink_to(folder)

    for place in (folder, link, folder / "thesis.tex"):
        with pytest.raises(UsageError, match="name another one"):
            materialise(repository, tree, place)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_a_failing_disk_leaves_the_old_tree(
    repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    materialise(repository, _tree(repository, PLAIN), folder)
    real = lay._write_file

    def flipping(place: Path, data: bytes, *, executable: bool) -> None:
        real(place, data.replace(b"B", b"C"), executable=executable)

    monkeypatch.setattr(lay, "_write_file", flipping)
    with pytest.raises(MachineError, match=r"b\.py has other bytes; check the disk"):
        materialise(repository, _tree(repository, {"b.py": ("100644", b"B\n")}), folder)
    assert _on_disk(folder) == PLAIN


def test_a_store_that_lacks_a_file_is_named(repository: Repository, folder: Path) -> None:
    tree = _raw_tree(repository, ("100644", "lost.py", "a" * 40))
    with pytest.raises(MachineError, match=r"lacks file a{40}; remove the store"):
        materialise(repository, tree, folder)
    assert not folder.exists()


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("links", "problem"),
    [
        ({"a": "/etc/passwd"}, "a is a link to '/etc/passwd', out of the tree"),
        ({"a": ".."}, "a is a link to '..', out of the tree"),
        ({"d/a": "../../x"}, "d/a is a link to '../../x', out of the tree"),
        ({"d/up": "..", "m": "d/up/../x"}, "m is a link to 'd/up/../x', out of the tree"),
        ({"a": "b", "b": "../x"}, "a is a link to 'b', out of the tree"),
        ({"a": ""}, "a is a link with no usable target"),
    ],
)
def test_a_link_out_of_the_tree_is_found(links: dict[str, str], problem: str) -> None:
    assert problem in escaping_links(links)


def test_links_within_the_tree_are_left_alone() -> None:
    assert (
        escaping_links({"d/a": "../x", "d/up": "..", "m": "d/up/x", "gone": "nowhere", "o": "o", "p": "./d//a/"}) == []
    )


def test_nothing_unsafe_is_written(repository: Repository, folder: Path) -> None:
    blob = repository.write_blob(b"evil\n")
    inner = _raw_tree(repository, ("100644", "x.py", blob))
    for tree, problem in {
        _tree(repository, {"link": ("120000", b"../../etc")}): "link is a link to '../../etc', out of the tree",
        _raw_tree(repository, ("40000", "..", inner)): r"\.\./x\.py leads out of its folder",
        _raw_tree(repository, ("40000", ".git", inner)): r"\.git/x\.py leads into a \.git folder",
        _raw_tree(repository, ("120000", "d", blob), ("40000", "d", inner)): "'d' is both a file and the folder",
        _raw_tree(repository, ("100644", "a", blob), ("100644", "a", blob)): "'a' is there twice",
    }.items():
        with pytest.raises(CompositionError, match=problem):
            materialise(repository, tree, folder)
    assert not folder.parent.exists()


# --- natives ------------------------------------------------------------------------------------------

LAID = {
    "python/sglang-0.5.12.post1.dist-info/METADATA": "100644",
    "python/sglang-0.5.12.post1.dist-info/RECORD": "100644",
    "python/sglang-0.5.12.post1.dist-info/WHEEL": "100644",
    "python/sglang/srt/_core.cpython-311-x86_64-linux-gnu.so": "100755",
}


def test_natives_complete_the_release(repository: Repository, folder: Path, wheel: Wheel) -> None:
    base = import_release(repository, wheel)
    materialise(repository, base.tree, folder)
    before = _on_disk(folder)

    laid = lay_natives(wheel, folder)

    assert [f"python/{path}" for path in laid] == sorted(LAID)
    after = _on_disk(folder)
    assert {path: mode for path, (mode, _) in after.items() if path not in before} == LAID
    assert {path: after[path] for path in before} == before
    (found,) = importlib.metadata.distributions(name="sglang", path=[str(folder / "python")])
    assert found.version == "0.5.12.post1"
    assert lay_natives(wheel, folder) == laid


def test_a_tree_with_its_natives_is_left_alone_and_repaired(repository: Repository, folder: Path, wheel: Wheel) -> None:
    base = import_release(repository, wheel)
    assert materialise(repository, base.tree, folder, natives=wheel) == Materialised(folder, base.tree, 8, written=True)
    assert not materialise(repository, base.tree, folder, natives=wheel).written
    native = folder / "python/sglang/srt/_core.cpython-311-x86_64-linux-gnu.so"
    native.write_bytes(b"planted")

    assert materialise(repository, base.tree, folder, natives=wheel).written
    assert native.read_bytes() == b"\x7fELF core"
    assert materialise(repository, base.tree, folder).written
    assert not native.exists()


def test_the_trees_own_file_wins_over_a_native(repository: Repository, folder: Path, wheel: Wheel) -> None:
    path = "python/sglang/srt/_core.cpython-311-x86_64-linux-gnu.so"
    tree = _tree(repository, PLAIN | {path: ("100644", b"ours")})
    assert materialise(repository, tree, folder, natives=wheel).written
    assert _on_disk(folder)[path] == ("100644", b"ours")
    assert not materialise(repository, tree, folder, natives=wheel).written


@pytest.mark.parametrize("mode", ["120000", "100644"])
def test_natives_go_nowhere_through_a_link_or_a_file(
    repository: Repository, folder: Path, wheel: Wheel, mode: str
) -> None:
    """A pull request that has one in the place of a folder fails in its guards, and stops nothing here."""
    elsewhere = {"elsewhere/x": PLAIN["python/sglang/__init__.py"]}
    tree = _tree(repository, {"python/sglang/srt": (mode, b"../../elsewhere"), **elsewhere})

    assert materialise(repository, tree, folder, natives=wheel).written

    assert [path.name for path in (folder / "elsewhere").iterdir()] == ["x"]
    laid = sorted(path for path in LAID if not path.startswith("python/sglang/srt/"))
    assert [f"python/{path}" for path in lay_natives(wheel, folder)] == laid
    assert not materialise(repository, tree, folder, natives=wheel).written


def test_natives_need_a_tree(folder: Path, wheel: Wheel) -> None:
    folder.mkdir(parents=True)
    with pytest.raises(UsageError, match="materialise the tree first"):
        lay_natives(wheel, folder)
