"""Two nights in a real store, and what is said of each topic between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from patchstack.errors import RemoteError
from patchstack.git import Repository, Signature
from patchstack.model import (
    Base,
    Composition,
    Fingerprint,
    Kind,
    LedgerLine,
    LeftOut,
    Outcome,
    RangeDiff,
    Reason,
    Sha,
    Topic,
)
from patchstack.report.rangediff import range_diffs

BODY = "".join(f"line {number}\n" for number in range(30))


@dataclass
class Nights:
    store: Repository

    def tree(self, files: dict[str, str | bytes]) -> Sha:
        entries = [
            ("100644", self.store.write_blob(text if isinstance(text, bytes) else text.encode()), path)
            for path, text in files.items()
        ]
        return self.store.edit_tree(self.store.run("mktree", stdin=b""), entries)

    def commit(self, files: dict[str, str | bytes], *parents: str, message: str = "pd: fix\n") -> Sha:
        return self.store.commit(self.tree(files), parents, message)

    def base(self, extra: str = "") -> Base:
        tree = self.tree({"a.py": extra + BODY})
        return Base("sglang==0.5.12.post1", "0.5.12.post1", self.store.commit(tree, (), "base\n"), tree)

    def compose(self, base: Base, *topics: Topic) -> Composition:
        octopus = self.store.commit(base.tree, (base.commit, *(topic.commit for topic in topics)), "octopus\n")
        return Composition("production", base, octopus, base.tree, topics, (), Fingerprint("f", ()))


def patch(name: str, commit: Sha) -> Topic:
    return Topic(name, Kind.PATCH, "t", "a", commit, commit, commit, commit, "", ())


def pull(name: str, head: Sha, commit: Sha | None = None) -> Topic:
    return Topic(name, Kind.PULL, "t", "a", head, commit or head, head, head, "", (), replayed=commit is not None)


def line(composition: Composition) -> LedgerLine:
    return LedgerLine(
        night="20261120T020000Z",
        lane="production",
        at="2026-11-20T02:00:00Z",
        base=composition.base.name,
        base_commit=composition.base.commit,
        composition=composition.commit,
        tree=composition.tree,
        fingerprint="f",
        included=tuple((topic.name, topic.head) for topic in composition.included),
        left_out=(),
        channels=("nightly",),
        tag="t",
    )


@pytest.fixture
def nights(repository: Repository) -> Nights:
    return Nights(repository)


def edited(number: int, text: str, body: str = BODY) -> str:
    return body.replace(f"line {number}\n", f"{text}\n")


def test_first_night(nights: Nights) -> None:
    base = nights.base()
    topic = patch("fix", nights.commit({"a.py": edited(9, "new")}, base.commit))

    assert range_diffs(nights.store, None, nights.compose(base, topic)) == (RangeDiff("fix", "new"),)


def test_same_commit_new_one_and_one_that_is_gone(nights: Nights) -> None:
    base = nights.base()
    kept = patch("kept", nights.commit({"a.py": edited(9, "new")}, base.commit))
    gone = pull("#40", nights.commit({"a.py": edited(20, "x")}, base.commit))
    lost = pull("#41", nights.commit({"a.py": edited(20, "y")}, base.commit))
    fresh = pull("#42", nights.commit({"a.py": edited(2, "z")}, base.commit))
    absent = LeftOut("#41", Kind.PULL, "t", "a", lost.head, Outcome.EXCLUDED, Reason.CONFLICT, "d")

    now = replace(nights.compose(base, kept, fresh), left_out=(absent,))

    assert range_diffs(nights.store, line(nights.compose(base, kept, gone, lost)), now) == (
        RangeDiff("kept", "unchanged"),
        RangeDiff("#42", "new"),
        RangeDiff("#40", "gone"),
        RangeDiff("#41", "gone", "excluded: conflict"),
    )


def test_a_patch_that_changed_is_shown_as_a_diff_of_diffs(nights: Nights) -> None:
    base = nights.base()
    then = nights.commit({"a.py": edited(9, "old cure")}, base.commit)
    now = nights.commit({"a.py": edited(9, "new cure")}, base.commit)

    (found,) = range_diffs(
        nights.store, line(nights.compose(base, patch("fix", then))), nights.compose(base, patch("fix", now))
    )

    assert found == RangeDiff(
        "fix",
        "changed",
        f"1:  {then[:12]} ! 1:  {now[:12]} pd: fix\n"
        "    @@ a.py: line 5\n"
        "      line 7\n"
        "      line 8\n"
        "     -line 9\n"
        "    -+old cure\n"
        "    ++new cure\n"
        "      line 10\n"
        "      line 11\n"
        "      line 12",
    )


def test_a_base_that_moves_lines_changes_no_patch(nights: Nights) -> None:
    old, new = nights.base(), nights.base("one more line above\n")
    then = nights.commit({"a.py": edited(9, "cure")}, old.commit)
    now = nights.commit({"a.py": "one more line above\n" + edited(9, "cure")}, new.commit)

    assert range_diffs(
        nights.store, line(nights.compose(old, patch("fix", then))), nights.compose(new, patch("fix", now))
    ) == (RangeDiff("fix", "unchanged"),)


@pytest.mark.parametrize("what", ["blank", "message", "author", "mode", "another function", "everything"])
def test_small_changes_are_changes(nights: Nights, what: str) -> None:
    """Git's patch-id would not see the first: in Python an indentation is a change."""
    body = "def one():\n" + "    x = 1\n" * 8 + "def two():\n" + "    x = 1\n" * 8
    base = replace(nights.base(), commit=nights.commit({"a.py": body}))
    lines = body.splitlines(keepends=True)

    def at(number: int, text: str) -> str:
        return "".join([*lines[:number], text, *lines[number:]])

    then = nights.commit({"a.py": at(4, "    y = 2\n")}, base.commit)
    tree = nights.tree({"a.py": at(4, "    y = 2\n")})
    now = {
        "blank": lambda: nights.commit({"a.py": at(4, "        y = 2\n")}, base.commit),
        "message": lambda: nights.commit({"a.py": at(4, "    y = 2\n")}, base.commit, message="pd: cure\n"),
        "author": lambda: nights.store.commit(
            tree, (base.commit,), "pd: fix\n", Signature("Somebody", "s@acme.example")
        ),
        "mode": lambda: nights.store.commit(
            nights.store.edit_tree(tree, [("100755", nights.store.write_blob(at(4, "    y = 2\n").encode()), "a.py")]),
            (base.commit,),
            "pd: fix\n",
        ),
        "another function": lambda: nights.commit({"a.py": at(13, "    y = 2\n")}, base.commit),
        "everything": lambda: nights.commit({"b.py": BODY}, base.commit, message="another\n"),
    }[what]()

    (found,) = range_diffs(
        nights.store, line(nights.compose(base, patch("fix", then))), nights.compose(base, patch("fix", now))
    )

    assert (found.name, found.change) == ("fix", "changed")
    assert found.text.startswith(f"1:  {then[:12]} ! 1:  {now[:12]} ")
    assert "\n" in found.text


def test_binary_content_that_changed_is_named(nights: Nights) -> None:
    base = nights.base()
    then = nights.commit({"a.py": BODY, "x.bin": b"\0old"}, base.commit)
    now = nights.commit({"a.py": BODY, "x.bin": b"\0new"}, base.commit)

    (found,) = range_diffs(
        nights.store, line(nights.compose(base, patch("fix", then))), nights.compose(base, patch("fix", now))
    )

    assert found.change == "changed"
    old_blob, new_blob = (nights.store.write_blob(data)[:12] for data in (b"\0old", b"\0new"))
    assert found.text.splitlines()[1:] == [f"    x.bin: {old_blob} -> {new_blob}"]


def test_a_pull_request_of_many_commits_is_one_diff(nights: Nights) -> None:
    base = nights.base()
    first = nights.commit({"a.py": edited(2, "x")}, base.commit, message="one\n")
    then = nights.commit({"a.py": edited(2, "x", edited(20, "y"))}, first, message="two\n")
    squashed = nights.commit({"a.py": edited(2, "x", edited(20, "y"))}, base.commit, message="both\n")
    pushed = nights.commit({"a.py": edited(2, "z", edited(20, "y"))}, then, message="three\n")
    before = line(nights.compose(base, pull("#41", then)))

    assert range_diffs(nights.store, before, nights.compose(base, pull("#41", squashed))) == (
        RangeDiff("#41", "unchanged"),
    )
    (found,) = range_diffs(nights.store, before, nights.compose(base, pull("#41", pushed)))
    assert found.change == "changed"
    assert "    -+x\n    ++z\n" in found.text
    assert "The whole pull request" in found.text.splitlines()[0]


def test_a_pull_request_that_is_replayed_now_and_was_merged_then(nights: Nights) -> None:
    base = nights.base()
    then = nights.commit({"a.py": edited(2, "x")}, base.commit)
    head = nights.commit({"a.py": edited(2, "x"), "docs.md": "not carried"}, nights.commit({"a.py": BODY}))
    replayed = nights.commit({"a.py": edited(2, "x")}, base.commit, message="replayed\n")

    assert range_diffs(
        nights.store,
        line(nights.compose(base, pull("#41", then))),
        nights.compose(base, pull("#41", head, replayed)),
    ) == (RangeDiff("#41", "unchanged"),)


def test_an_old_night_that_is_not_at_hand_is_an_error(nights: Nights) -> None:
    base = nights.base()
    now = nights.compose(base)
    lost = replace(line(now), composition=Sha("1" * 40))

    with pytest.raises(RemoteError, match="is not in the store; fetch its branch again"):
        range_diffs(nights.store, lost, now)


def test_an_old_night_that_does_not_fit_its_line_is_an_error(nights: Nights) -> None:
    base = nights.base()
    now = nights.compose(base, patch("fix", nights.commit({"a.py": "x"}, base.commit)))

    with pytest.raises(RemoteError, match="merges 1 topics, its ledger line names 0"):
        range_diffs(nights.store, replace(line(now), included=()), now)
