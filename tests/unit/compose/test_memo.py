"""A memo spares questions and decides nothing: damaged it is none, forged it is found out by `verify`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, C, Content, Fork, edit

from patchstack.compose.compose import Composed, compose, verify
from patchstack.compose.memo import Memo
from patchstack.compose.topics import pull_topics
from patchstack.errors import PatchstackError
from patchstack.git import Repository
from patchstack.model import Candidates, Fingerprint

GIT = (2, 39, 5)


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    """#2 merges with #1 in A, #3 conflicts with #1, #4 stands on a patch."""
    fork = Fork(tmp_path, {A: TEN, B: TEN})
    first = fork.patch("first", {B: edit(TEN, 1, "first")})
    changes: dict[int, dict[str, Content]] = {
        1: {A: edit(TEN, 1, "one")},
        2: {A: edit(TEN, 9, "two"), C: "two\n"},
        3: {A: edit(TEN, 1, "three")},
    }
    for number, files in changes.items():
        fork.pull(number, fork.commit(f"pull {number}", files, fork.base.commit))
    fork.pull(4, fork.commit("four", {B: edit(edit(TEN, 1, "first"), 9, "four")}, first.commit))
    return fork


def night(fork: Fork, kept: Path, without: tuple[int, ...] = ()) -> tuple[Candidates, Composed]:
    """From heads to the commit, as the verbs do it."""
    pulls, _ = fork.read()
    memo = Memo.read(kept, fork.store, GIT)
    wanted = [pull for pull in pulls if pull.number not in without]
    topics, left_out = pull_topics(fork.store, fork.base, fork.patches, wanted, lane=fork.lane, memo=memo)
    candidates = Candidates(fork.base, (*fork.patches, *topics), left_out)
    fingerprint = Fingerprint("", ())
    made = compose(fork.store, candidates, lane=fork.lane, skips={}, fingerprint=fingerprint, memo=memo)
    memo.write()
    return candidates, made


def body_of(kept: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(kept.read_text().split("\n", 1)[1])
    return found


def forge(kept: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    """Change what is kept, and make its digest fit."""
    head, body = json.loads(kept.read_text().split("\n", 1)[0]), body_of(kept)
    change(body)
    text = json.dumps(body)
    kept.write_text(f"{json.dumps({**head, 'sha256': hashlib.sha256(text.encode()).hexdigest()})}\n{text}")


def test_the_second_night_asks_for_no_diff_and_no_merge(
    fork: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = night(fork, tmp_path / "memo.json")
    attempt, asked = Repository.attempt, []
    monkeypatch.setattr(Repository, "attempt", lambda *a, **more: (asked.append(a[1]), attempt(*a, **more))[1])

    assert night(fork, tmp_path / "memo.json") == first
    assert {"merge-tree", "patch-id"}.isdisjoint(asked)


def test_what_a_night_does_not_use_is_not_kept(fork: Fork, tmp_path: Path) -> None:
    kept = tmp_path / "memo.json"
    night(fork, kept)
    before = body_of(kept)
    night(fork, kept, without=(2, 3))
    after = body_of(kept)
    assert (len(before["patch_ids"]), len(after["patch_ids"])) == (4, 2)
    assert (len(before["outcomes"]), len(after["outcomes"])) == (5, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"conflicts":["python/sglang/a.py"]', '"conflicts":[]'),
        lambda text: text.replace("git 2.39.5", "git 2.40.0"),
        lambda text: "",
        lambda text: "[]\n[]",
        lambda text: "[" * 100_000,
    ],
    ids=["cut", "changed", "another-git", "empty", "another-form", "deep"],
)
def test_a_damaged_memo_is_none(fork: Fork, tmp_path: Path, damage: Callable[[str], str]) -> None:
    kept = tmp_path / "memo.json"
    first = night(fork, kept)
    kept.write_text(damage(kept.read_text()))
    assert Memo.read(kept, fork.store, GIT).known_outcomes == {}
    assert night(fork, kept) == first


@pytest.mark.parametrize("value", [[], {"changes": [["too", "short"]]}, {"changes": 3}, "text", None])
def test_a_memo_of_another_form_is_none(fork: Fork, tmp_path: Path, value: object) -> None:
    kept = tmp_path / "memo.json"
    first = night(fork, kept)
    forge(kept, lambda body: body["outcomes"].update(x=value))
    assert night(fork, kept) == first


def test_what_an_earlier_store_had_is_merged_again(fork: Fork, tmp_path: Path) -> None:
    kept = tmp_path / "memo.json"
    first = night(fork, kept)
    fork.store = Repository.init(tmp_path / "another.git")
    fork.store.fetch(fork.url, ["+refs/*:refs/theirs/*"])
    assert night(fork, kept) == first


def test_a_forged_merge_is_found_by_verify(fork: Fork, tmp_path: Path) -> None:
    kept = tmp_path / "memo.json"
    night(fork, kept)

    def without_conflict(body: dict[str, dict[str, object]]) -> None:
        for key, outcome in body["outcomes"].items():
            if isinstance(outcome, dict) and outcome["conflicts"]:
                body["outcomes"][key] = {"conflicts": [], "changes": [], "tree": None}

    forge(kept, without_conflict)
    candidates, made = night(fork, kept)
    with pytest.raises(PatchstackError, match=r"(?s)two results \(#3 fared differently\); remove the memo folder"):
        verify(fork.store, candidates, made.composition, skips={})


def test_a_forged_patch_id_is_found_by_verify(fork: Fork, tmp_path: Path) -> None:
    kept = tmp_path / "memo.json"
    night(fork, kept)
    forge(kept, lambda body: body["patch_ids"].update(dict.fromkeys(body["patch_ids"], "1" * 40)))
    candidates, made = night(fork, kept)
    assert [item.reason.value for item in made.composition.left_out] == ["same diff"] * 3
    with pytest.raises(PatchstackError, match="#1 is planned with patch id 1111"):
        verify(fork.store, candidates, made.composition, skips={})


def test_a_memo_that_cannot_be_written_is_done_without(fork: Fork, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = tmp_path / "file" / "memo.json"
    assert night(fork, kept) == night(fork, kept)
