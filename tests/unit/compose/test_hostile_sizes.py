"""Pull requests that are too large are left out before anything reads them whole."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, Fork, edit

from patchstack.compose import extent, limits
from patchstack.compose.limits import DEEPEST, MOST_COMMITS, MOST_PATHS
from patchstack.git import ZERO
from patchstack.model import Sha

HERE = "python/sglang"
MB = 1 << 20


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    made = Fork(tmp_path, {A: TEN, B: TEN})
    made.pull(99, made.commit("small", {B: edit(TEN, 1, "small")}, made.base.commit))
    return made


def left_out(fork: Fork) -> list[str]:
    """Who is too large, and why; everybody else is in."""
    composition = fork.compose().composition
    assert [topic.name for topic in composition.included] == ["#99"]
    assert {item.reason.value for item in composition.left_out} == {"larger than a pull request may be"}
    return [f"{item.name}: {item.detail}" for item in composition.left_out]


def zeros(fork: Fork, megabytes: int) -> Sha:
    """A blob of zeros, which packs a thousand to one: written as a pack, so that nobody has to pack it."""
    size = megabytes * MB
    head, left = [(3 << 4) | (size & 15) | 128], size >> 4
    while left:
        head.append((left & 127) | (128 if left > 127 else 0))
        left >>= 7
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(bytes(MB)) for _ in range(megabytes)) + packer.flush()
    pack = b"PACK" + struct.pack(">II", 2, 1) + bytes(head) + body
    fork.repository.run("index-pack", "--stdin", stdin=pack + hashlib.sha1(pack, usedforsecurity=False).digest())
    asked = ("cat-file", "--batch-all-objects", "--batch-check=%(objectsize) %(objectname)")
    return next(
        Sha(line.split()[1]) for line in fork.repository.run(*asked).splitlines() if line.startswith(f"{size} ")
    )


def commit_with(fork: Fork, *entries: tuple[str, Sha], mode: str = "100644", onto: Sha | None = None) -> Sha:
    parent = onto or fork.base.commit
    tree = fork.repository.edit_tree(fork.repository.tree_of(parent), [(mode, sha, path) for path, sha in entries])
    return fork.commit_tree("large", tree, parent)


def folder(fork: Fork, entries: Iterable[tuple[str, str, str, Sha]]) -> Sha:
    lines = "".join(f"{mode} {kind} {sha}\t{name}\n" for mode, kind, name, sha in entries)
    return Sha(fork.repository.run("mktree", "--missing", stdin=lines.encode()))


def below(fork: Fork, tree: Sha, *names: str) -> Sha:
    """``tree`` in a folder for each of ``names``, beside nothing else."""
    for name in reversed(names):
        tree = folder(fork, [("040000", "tree", name, tree)])
    return tree


def with_folder(fork: Fork, name: str, tree: Sha) -> Sha:
    """The base with ``tree`` in the folder ``python/sglang/name``, written without a list of what is in it."""
    here = fork.repository.run("ls-tree", f"{fork.base.commit}:{HERE}").splitlines()
    lines = "\n".join([*here, f"040000 tree {tree}\t{name}"]) + "\n"
    inner = Sha(fork.repository.run("mktree", stdin=lines.encode()))
    return fork.commit_tree("large", below(fork, inner, "python", "sglang"), fork.base.commit)


def test_a_file_of_a_gigabyte_is_never_read(fork: Fork) -> None:
    blob = zeros(fork, 1024)
    planted = commit_with(fork, (f"{HERE}/zeros.bin", blob))
    fork.pull(1, planted)
    fork.pull(2, commit_with(fork, (f"{HERE}/link", blob), mode="120000"))
    taken_back = commit_with(fork, (f"{HERE}/zeros.bin", ZERO), mode="0", onto=planted)
    fork.pull(3, fork.commit("and a change", {A: edit(TEN, 1, "three")}, taken_back))

    assert left_out(fork) == [
        f"#1: '{HERE}/zeros.bin' has 1024 MB, and 100 MB are the most: leave that out of it",
        f"#2: '{HERE}/link' has 1024 MB, and 100 MB are the most: leave that out of it",
        f"#3: '{HERE}/zeros.bin' has 1024 MB in its commits one by one, and 100 MB are the most: leave that out of it",
    ]


def test_files_count_with_each_copy(fork: Fork) -> None:
    blob = zeros(fork, 34)
    fork.pull(1, commit_with(fork, *((f"{HERE}/copy{number}", blob) for number in range(3))))
    assert left_out(fork) == ["#1: its files have 102 MB, and 100 MB are the most: leave that out of it"]


def test_as_much_as_is_allowed(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_BYTES", 3 * MB)
    monkeypatch.setattr(limits, "MOST_PATHS", 300)
    fork.pull(1, commit_with(fork, (f"{HERE}/zeros.bin", zeros(fork, 3))))
    blob = fork.repository.write_blob(b"x\n")
    many = folder(fork, [("100644", "blob", f"{number}.py", blob) for number in range(300)])
    fork.pull(2, with_folder(fork, "many", many))
    assert [topic.name for topic in fork.compose().composition.included] == ["#1", "#2", "#99"]


def test_more_files_than_anybody_reads(fork: Fork) -> None:
    blob = fork.repository.write_blob(b"x\n")
    many = folder(fork, [("100644", "blob", f"{number}.py", blob) for number in range(100_000)])
    fork.pull(1, with_folder(fork, "many", many))
    few = folder(fork, [("100644", "blob", f"{number}.py", blob) for number in range(MOST_PATHS + 1)])
    fork.pull(2, with_folder(fork, "few", few))
    assert left_out(fork) == [f"#{number}: it changes more than 10000 paths: leave that out of it" for number in (1, 2)]


def test_a_folder_that_is_too_large_to_be_read(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extent, "_MOST_FOLDER_BYTES", 1 * MB)
    blob = fork.repository.write_blob(b"x\n")
    fork.pull(
        1, with_folder(fork, "many", folder(fork, [("100644", "blob", "n" * 200 + str(n), blob) for n in range(5000)]))
    )
    assert left_out(fork) == ["#1: one of its folders has more than 1 MB of names: leave that out of it"]


def test_files_that_are_taken_away_count_too(tmp_path: Path) -> None:
    fork = Fork(tmp_path, {A: TEN, **{f"{HERE}/d/{number}.py": f"{number}\n" for number in range(30)}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "MOST_PATHS", 30)
        fork.pull(1, fork.commit("all but one", {f"{HERE}/d/{n}.py": None for n in range(1, 30)}, fork.base.commit))
        fork.pull(2, fork.commit("all", {f"{HERE}/d": None, A: edit(TEN, 1, "one")}, fork.base.commit))
        (refused,) = fork.candidates().left_out
    assert (refused.name, refused.detail) == ("#2", "it changes more than 30 paths: leave that out of it")


def test_a_tree_of_ten_thousand_million_files(fork: Fork) -> None:
    tree = folder(fork, [("100644", "blob", f"f{number}", fork.repository.write_blob(b"")) for number in range(10)])
    for _ in range(9):
        tree = folder(fork, [("040000", "tree", f"d{number}", tree) for number in range(10)])
    bomb = with_folder(fork, "bomb", tree)
    fork.pull(1, bomb)
    harmless = fork.commit_tree("gone", fork.repository.tree_of(fork.commit("x", {A: "x\n"}, fork.base.commit)), bomb)
    fork.pull(2, harmless)
    assert left_out(fork) == [
        "#1: it changes 10000000000 paths, and 10000 are the most: leave that out of it",
        "#2: it changes 20000000001 paths in its commits one by one, and 200000 are the most: leave that out of it",
    ]


@pytest.mark.parametrize("levels", [DEEPEST + 1, 200])
def test_a_very_deep_tree(fork: Fork, levels: int) -> None:
    inner = fork.repository.tree_of(fork.commit("x", {"x.py": "x\n"}))
    fork.pull(1, with_folder(fork, "deep", below(fork, inner, *["d"] * levels)))
    assert left_out(fork) == ["#1: it has more than 64 folders in each other: leave that out of it"]


def stream(commits: Iterable[Iterable[str]]) -> bytes:
    """What `git fast-import` takes: each commit's changes, one commit after the other, on the branch ``many``."""

    def lines() -> Iterator[str]:
        for number, changes in enumerate(commits):
            when = f"{1_700_000_000 + number} +0000"
            yield f"commit refs/heads/many\nmark :{number + 1}\ncommitter A <a@x> {when}\ndata 0\n"
            yield from changes

    return "".join(lines()).encode()


def many_commits(fork: Fork, commits: Iterable[Iterable[str]]) -> Sha:
    fork.repository.run("update-ref", "refs/heads/many", fork.base.commit)
    started = [[f"from {fork.base.commit}\n"], *commits]
    fork.repository.run("fast-import", "--quiet", stdin=stream(started))
    head = Sha(fork.repository.run("rev-parse", "refs/heads/many"))
    fork.repository.set_refs({"refs/heads/many": None})
    return head


def test_one_path_that_is_changed_again_and_again(fork: Fork) -> None:
    fork.pull(1, many_commits(fork, ([f"M 644 inline {A}\ndata 2\n{n % 2}\n\n"] for n in range(100_000))))
    assert left_out(fork) == [f"#1: it has more than {MOST_COMMITS} commits: leave that out of it"]


def test_many_paths_changed_to_and_fro(fork: Fork) -> None:
    blob = fork.repository.write_blob(b"x\n")
    tree = folder(fork, [("100644", "blob", f"{number}.py", blob) for number in range(3000)])
    there, gone = [f"M 040000 {tree} {HERE}/many\n"], [f"D {HERE}/many\n"]
    fork.pull(1, many_commits(fork, (there if n % 2 else gone for n in range(200))))
    assert left_out(fork) == [
        "#1: it changes 597000 paths in its commits one by one, and 200000 are the most: leave that out of it"
    ]


def test_a_commit_that_has_much_to_say(fork: Fork) -> None:
    tree = fork.repository.tree_of(fork.commit("x", {A: edit(TEN, 1, "one")}, fork.base.commit))
    long = fork.repository.commit(tree, [fork.base.commit], "subject\n\n" + "x" * (2 * MB))
    fork.pull(1, long)
    assert left_out(fork) == [f"#1: its commit {long[:12]} itself has 3 MB, without a file: leave that out of it"]


def test_the_one_that_is_too_large_costs_nobody_else(fork: Fork) -> None:
    """Many that share a beginning are asked for together; only when these are too many, one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "_COMMITS_AT_ONCE", 20)
        patch.setattr(limits, "MOST_COMMITS", 12)
        fork.pull(1, many_commits(fork, ([f"M 644 inline {A}\ndata 2\n{n}\n\n"] for n in range(9))))
        fork.pull(2, many_commits(fork, ([f"M 644 inline {A}\ndata 2\n{n}\n\n"] for n in range(30, 60))))
        assert {name: refused.detail for name, refused in limits.too_large(fork.store, fork.read()[0]).items()} == {
            "#2": "it has more than 12 commits: leave that out of it"
        }
