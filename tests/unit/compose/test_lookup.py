"""What is asked for many commits at once is what `Repository` says of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, C, Content, Fork, Link, Program, Submodule, edit

from patchstack.compose import lookup
from patchstack.git import Answer, Repository
from patchstack.model import Sha

HEX = "1234567890" * 4
ODD: dict[str, dict[str, Content]] = {
    "edit": {A: edit(TEN, 3, "three")},
    "mode": {A: Program(TEN)},
    "link": {A: Link("b.py")},
    "gone": {A: None},
    "renamed": {A: None, C: TEN},
    "binary": {C: bytes(range(256)) * 9},
    "empty": {C: ""},
    "no-newline": {A: TEN + "no newline"},
    "submodule": {C: Submodule(Sha(HEX))},
    "names": {f"python/sglang/{name}": "x\n" for name in (":100644 M", HEX, "a\nb", "tab\tb", "\udcff", "ü")},
    "looks-like-a-commit": {C: f"{HEX}\n-- \ncommit {HEX}\nFrom {HEX}\n", A: f"{HEX}\n{TEN}"},
    "same": {},
}


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path, {A: TEN, B: TEN})


def test_changes_and_patch_ids_of_many_are_those_of_each(fork: Fork) -> None:
    base, store = fork.base.commit, fork.repository
    commits = {name: fork.commit(name, files, base) for name, files in ODD.items()}
    pairs = [(base, commit) for commit in commits.values()]
    pairs += [(commits["edit"], commits["mode"]), (commits["gone"], base), (commits["names"], commits["link"])]

    assert lookup.changes(store, pairs) == {pair: store.changes(*pair) for pair in pairs}
    assert lookup.patch_ids(store, pairs) == {pair: store.patch_id(*pair) for pair in pairs}
    for pair in pairs:
        assert lookup.patch_ids(store, [pair]) == {pair: store.patch_id(*pair)}


def test_an_answer_that_names_another_commit_is_asked_for_again(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    """A diff whose text makes `patch-id` see a commit where none begins."""
    base, store = fork.base.commit, fork.repository
    pairs = [(base, fork.commit(name, ODD[name], base)) for name in ("edit", "mode", "gone")]
    expected = {pair: store.patch_id(*pair) for pair in pairs}
    attempt = Repository.attempt

    def forged(store: Repository, *argv: str, **more: bytes) -> Answer:
        answer = attempt(store, *argv, **more)  # type: ignore[arg-type]
        if argv[0] == "diff-tree" and "--stdin" in argv:
            end = b"\0" if "-z" in argv else b"\n"
            first, second = (sha.encode() + end for _, sha in pairs[:2])
            between = b"" if "-z" in argv else b"diff --git a/x b/x\n"
            return Answer(0, answer.stdout.replace(first, first + between + second), answer.stderr)
        return answer

    monkeypatch.setattr(Repository, "attempt", forged)
    assert lookup.patch_ids(store, pairs) == expected
    assert lookup.changes(store, pairs) == {pair: store.changes(*pair) for pair in pairs}


def test_walks_are_those_of_rev_list(fork: Fork) -> None:
    """Two roots, a merge of both, a stack, and the other way round."""
    base, store = fork.base.commit, fork.repository
    one = fork.commit("one", {A: edit(TEN, 1, "one")}, base)
    two = fork.commit("two", {A: edit(TEN, 2, "two")}, one)
    root = fork.commit("another root", {C: TEN})
    joined = fork.commit("joined", {}, two, root)
    side = fork.commit("side", {}, root)
    pairs = [(base, joined), (base, two), (one, two), (one, joined), (root, joined), (two, one), (base, base)]
    pairs += [(base, side), (side, joined)]

    walks = lookup.walks(store, pairs)

    for begin, end in pairs:
        assert walks[begin, end].commits == frozenset(store.commits(end, f"^{begin}"))
        assert walks[begin, end].stands_on_it is store.is_ancestor(begin, end)
    ways = {(base, two): walks[base, two], (base, joined): walks[base, joined]}
    on_the_way = lookup.changes_on_the_way(store, ways)
    assert {pair: set(found) for pair, found in on_the_way.items()} == {
        pair: set(store.changes_on_the_way(*pair)) for pair in ways
    }


def test_what_each_reaches_is_found_in_one_walk(fork: Fork) -> None:
    base, store = fork.base.commit, fork.repository
    one = fork.commit("one", {A: edit(TEN, 1, "one")}, base)
    two = fork.commit("two", {B: edit(TEN, 1, "two")}, base)
    three = fork.commit("three", {}, one)
    joined = fork.commit("joined", {}, three, two)
    root = fork.commit("another root", {C: TEN})
    ends, wanted = [one, two, three, joined, root, base], [one, two, joined, base]

    found = lookup.reached(store, base, ends, wanted)

    assert found == {end: frozenset({*wanted} & {*store.commits(end, f"^{base}")}) for end in ends}
    assert lookup.reached(store, base, ends, []) == dict.fromkeys(ends, frozenset())


def test_commits_have_tree_parents_and_date(fork: Fork) -> None:
    one = fork.commit("one", {A: edit(TEN, 1, "one")}, fork.base.commit)
    found = lookup.commits(fork.repository, [one, fork.base.commit, one])
    assert {sha: (commit.tree, commit.parents, commit.seconds) for sha, commit in found.items()} == {
        sha: (fork.repository.tree_of(sha), fork.repository.parents(sha), fork.repository.show(sha, "%ct"))
        for sha in (one, fork.base.commit)
    }


def test_what_is_no_commit_here_is_lacking(fork: Fork) -> None:
    base = fork.base
    odd = [Sha(HEX), Sha("HEAD"), Sha(f"{base.commit}\n{base.commit}"), base.tree]
    assert lookup.lacking(fork.repository, [base.commit, *odd]) == tuple(odd)


def test_nothing_is_asked_for_nothing(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Repository, "attempt", None)
    store = fork.repository
    assert (lookup.changes(store, []), lookup.patch_ids(store, []), lookup.walks(store, [])) == ({}, {}, {})
    assert (lookup.commits(store, []), lookup.lacking(store, [])) == ({}, ())
