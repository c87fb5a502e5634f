"""Objects that git itself would not write: each costs the pull request that brings it, and nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, Fork, edit

from patchstack.errors import RemoteError
from patchstack.model import Sha

GOOD = "Bo <bo@x> 1700000000 +0000"


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    made = Fork(tmp_path, {A: TEN, B: TEN})
    made.pull(99, made.commit("sound", {B: edit(TEN, 1, "sound")}, made.base.commit))
    return made


def raw(fork: Fork, kind: str, data: bytes) -> Sha:
    return Sha(fork.repository.run("hash-object", "-w", "-t", kind, "--literally", "--stdin", stdin=data))


def raw_tree(fork: Fork, *entries: tuple[str, bytes, str]) -> Sha:
    """The base with these entries (mode, name, id), as they are, in the folder ``python/sglang/x``."""
    tree = raw(
        fork, "tree", b"".join(b"%s %s\0%s" % (m.encode(), name, bytes.fromhex(sha)) for m, name, sha in entries)
    )
    here = fork.repository.run("ls-tree", f"{fork.base.commit}:python/sglang")
    inner = fork.repository.run("mktree", stdin=f"{here}\n040000 tree {tree}\tx\n".encode())
    middle = fork.repository.run("mktree", stdin=f"040000 tree {inner}\tsglang\n".encode())
    return Sha(fork.repository.run("mktree", stdin=f"040000 tree {middle}\tpython\n".encode()))


def raw_commit(fork: Fork, tree: str, *, author: str = GOOD, more: str = "", message: str = "odd") -> Sha:
    head = f"tree {tree}\nparent {fork.base.commit}\nauthor {author}\ncommitter {author}\n{more}\n{message}\n"
    return raw(fork, "commit", head.encode(errors="surrogateescape"))


def judged(fork: Fork) -> dict[str, str]:
    """What became of each pull request: ``in``, or the reason with what git says."""
    composition = fork.compose().composition
    found = {topic.name: "in" for topic in composition.included}
    for item in composition.left_out:
        said = item.detail.partition("error: object ")[2].partition(" fatal:")[0]
        found[item.name] = f"{item.reason}{': ' if said else ''}{said.partition(': ')[2]}"
    return found


def test_trees_that_git_would_not_write(fork: Fork) -> None:
    blob = fork.repository.write_blob(b"x\n")
    hooks = Sha(fork.repository.run("mktree", stdin=f"100755 blob {blob}\thooks\n".encode()))
    for number, entries in enumerate(
        (
            [("100644", b"a", blob), ("100644", b"a", blob)],
            [("100644", b"b", blob), ("100644", b"a", blob)],
            [("40000", b"..", hooks)],
            [("40000", b".git", hooks)],
            [("40000", b".GIT ", hooks)],
            [("40000", ".g\u200cit".encode(), hooks)],
            [("40000", b"GIT~1", hooks)],
            [("100644", b"a/b", blob)],
            [("100600", b"a", blob)],
            [("0100644", b"a", blob)],
        ),
        1,
    ):
        fork.pull(number, raw_commit(fork, raw_tree(fork, *entries)))

    assert judged(fork) == {
        "#1": "head is missing: duplicateEntries: contains duplicate file entries",
        "#2": "head is missing: treeNotSorted: not properly sorted",
        "#3": "head is missing: hasDotdot: contains '..'",
        **{f"#{number}": "head is missing: hasDotgit: contains '.git'" for number in (4, 5, 6, 7)},
        "#8": "head is missing: fullPathname: contains full pathnames",
        "#9": "head is missing: badFilemode: contains bad file modes",
        "#10": "head is missing: zeroPaddedFilemode: contains zero-padded file modes",
        "#99": "in",
    }
    refused = fork.candidates().left_out[0].detail
    assert refused.startswith("the remote lists it and does not hand it over (git refuses it, make its commits anew: ")


def test_it_is_refused_again_the_next_night_and_nothing_of_it_stays(fork: Fork, sealed: Path) -> None:
    """Also where the user lets such objects in."""
    (sealed / ".gitconfig").write_text(
        '[fetch]\n\tfsckObjects = false\n\tunpackLimit = 1000\n[fetch "fsck"]\n\ttreeNotSorted = ignore\n'
    )
    blob = fork.repository.write_blob(b"x\n")
    bad = fork.pull(1, raw_commit(fork, raw_tree(fork, ("100644", b"b", blob), ("100644", b"a", blob))))
    told = {"#1": "head is missing: treeNotSorted: not properly sorted", "#99": "in"}
    for _ in range(2):
        assert judged(fork) == told
        assert not fork.store.has(bad)
        assert not list(fork.store.folder.rglob("tmp_*"))


def test_what_the_remote_has_not_itself(fork: Fork) -> None:
    blob = fork.repository.write_blob(b"x\n")
    for number, entry in enumerate(
        (("100644", b"", blob), ("100644", b"null", "0" * 40), ("100644", b"gone", "1" * 40), ("40000", b"file", blob)),
        1,
    ):
        fork.pull(number, raw_commit(fork, raw_tree(fork, entry)))
    found = judged(fork)
    assert found.pop("#99") == "in"
    assert set(found.values()) == {"head is missing"}


def test_commits_that_git_would_not_write(fork: Fork) -> None:
    tree = fork.repository.tree_of(fork.commit("x", {A: edit(TEN, 1, "one")}, fork.base.commit))
    for number, author in enumerate(
        (
            "no form at all",
            "Bo 1700000000 +0000",
            "Bo <bo@x> never",
            "Bo <bo@x> -5 +0000",
            "B\0o <bo@x> 1700000000 +0000",
        ),
        1,
    ):
        fork.pull(number, raw_commit(fork, tree, author=author))
    found = judged(fork)
    assert found.pop("#99") == "in"
    assert {said.partition(":")[0] for said in found.values()} == {"head is missing"}
    assert {said.split(": ")[1] for said in found.values()} == {
        "missingEmail",
        "badDate",
        "badDateOverflow",
        "nulInHeader",
    }


@pytest.mark.parametrize(
    ("author", "more"),
    [
        ("\x1b[31mBo\u202e <bo@x> 1700000000 +0000", ""),
        ("Bo <bo@x> 99999999999999 +0000", ""),
        ("Bo <bo@x> 0 -9959", ""),
        (GOOD, "encoding klingon\n"),
        (GOOD, "gpgsig -----BEGIN PGP SIGNATURE-----\n nonsense\n"),
        ("Caf\udce9 <bo@x> 1700000000 +0000", ""),
    ],
)
def test_commits_that_are_odd_and_sound(fork: Fork, author: str, more: str) -> None:
    tree = fork.repository.tree_of(fork.commit("x", {A: edit(TEN, 1, "one")}, fork.base.commit))
    fork.pull(1, raw_commit(fork, tree, author=author, more=more))
    assert judged(fork) == {"#1": "in", "#99": "in"}


def test_a_head_that_is_no_commit(fork: Fork) -> None:
    tree = fork.repository.tree_of(fork.base.commit)
    tag = raw(fork, "tag", f"object {fork.base.commit}\ntype commit\ntag v1\ntagger {GOOD}\n\nx\n".encode())
    for number, sha in enumerate((tree, fork.repository.write_blob(b"x\n"), tag), 1):
        fork.pull(number, sha)
    assert judged(fork) == {**dict.fromkeys(("#1", "#2", "#3"), "head is missing"), "#99": "in"}


def test_a_remote_that_has_not_the_whole_history(fork: Fork, tmp_path: Path) -> None:
    """A shallow clone as a remote: git's fetch passes over what it cannot take, and ends with 0."""
    whole = fork.commit("two", {A: edit(TEN, 2, "two")}, fork.commit("one", {A: edit(TEN, 1, "one")}, fork.base.commit))
    fork.pull(1, whole)
    (fork.repository.folder / "shallow").write_text(f"{whole}\n")
    found = judged(fork)
    assert (found["#1"], found["#99"]) == ("head is missing", "in")
    fork.branch("base/production", fork.commit("moves on", {}, fork.base.commit))
    (fork.repository.folder / "shallow").write_text(f"{fork.repository.resolve('refs/heads/base/production')}\n")
    with pytest.raises(RemoteError, match="does not hand over base/production with its history: is it a shallow clone"):
        fork.candidates()


def test_replaced_and_grafted_commits_are_what_they_were(fork: Fork) -> None:
    """On the remote and in the store: neither another tree nor other parents come in by another name."""
    head = fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, fork.base.commit))
    evil = fork.commit("evil", {A: edit(TEN, 1, "evil")}, fork.base.commit)
    before = fork.night()
    fork.branch("evil", evil)
    fork.night()
    for repository in (fork.repository, fork.store):
        repository.set_refs({f"refs/replace/{head}": evil})
        (repository.folder / "info").mkdir(exist_ok=True)
        (repository.folder / "info" / "grafts").write_text(f"{head}\n")
    assert fork.night() == before
