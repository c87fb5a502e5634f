"""How each topic's own diff differs from its form in the last promoted night.

The last night's octopus has the base and every included topic as parents, in the ledger line's order; so
whatever was merged then is at hand wherever the deploy branch is. Whether a topic changed is read from the
diffs themselves, in full; `git range-diff` words the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchstack.errors import RemoteError
from patchstack.git import ZERO, Repository
from patchstack.model import Composition, Kind, LedgerLine, LeftOut, RangeDiff, Sha, Topic

NEW, UNCHANGED, CHANGED, GONE = "new", "unchanged", "changed", "gone"

# A factor this large pairs the two commits however little they share: one of each is compared, no series.
_PAIR_ANYWAY = "--creation-factor=1000000"
# Ids are abbreviated by the size of the repository unless told.
_SETTINGS = ("-c", "core.abbrev=12")


@dataclass(frozen=True)
class _Own:
    """A topic's own diff, as one commit on one parent."""

    start: Sha
    end: Sha


def range_diffs(store: Repository, old: LedgerLine | None, composition: Composition) -> tuple[RangeDiff, ...]:
    """Compare every topic of ``composition`` with the night ``old``: tonight's order, then those that are gone.

    ``old`` is None on the first night: every topic is new. Its octopus must be in ``store`` (reading the
    remote fetches it); raises `RemoteError` when it is not, or does not fit its ledger line.
    """
    before = _merged_then(store, old) if old else {}
    found = []
    for topic in composition.included:
        if old is None or topic.name not in before:
            found.append(RangeDiff(topic.name, NEW))
            continue
        then = _own(store, topic.kind, old.base_commit, *before[topic.name])
        now = _own(store, topic.kind, composition.base.commit, topic.head, topic.commit)
        found.append(_compare(store, topic.name, then, now))
    present = {topic.name for topic in composition.included}
    left_out = {item.name: item for item in composition.left_out}
    gone = (RangeDiff(name, GONE, _why(left_out.get(name))) for name in before if name not in present)
    return (*found, *gone)


def compare_patch(store: Repository, then: Topic, now: Topic) -> RangeDiff:
    """Two forms of one patch, each as a topic in ``store``."""
    return _compare(store, now.name, _Own(then.own_from, then.own_to), _Own(now.own_from, now.own_to))


def _why(item: LeftOut | None) -> str:
    return f"{item.outcome.value}: {item.reason.value}" if item else ""


def _merged_then(store: Repository, old: LedgerLine) -> dict[str, tuple[Sha, Sha]]:
    """Name to (head, what was merged), from the octopus of a past night."""
    if not store.has(old.composition):
        raise RemoteError(
            f"night {old.night} was made of {old.composition}, which is not in the store; fetch its branch again"
        )
    merged = store.parents(old.composition)[1:]
    if len(merged) != len(old.included):
        raise RemoteError(
            f"night {old.night}: its commit {old.composition} merges {len(merged)} topics, "
            f"its ledger line names {len(old.included)}"
        )
    return {name: (head, commit) for (name, head), commit in zip(old.included, merged, strict=True)}


def _own(store: Repository, kind: Kind, base: Sha, head: Sha, merged: Sha) -> _Own:
    """The own diff of what was merged.

    A patch is its topic commit, message and all. A pull request may be many commits, or a replayed one: its
    whole diff is put into one commit with a constant message, so that only what it changes is compared.
    """
    if kind is Kind.PATCH:
        return _Own(_first_parent(store, merged), merged)
    start = store.merge_base(base, head) if merged == head else _first_parent(store, merged)
    if start is None:
        raise RemoteError(f"{head} was merged on {base}, and the two share no history")
    return _Own(start, store.commit(store.tree_of(merged), (start,), "The whole pull request\n"))


def _first_parent(store: Repository, commit: Sha) -> Sha:
    return store.parents(commit)[0]


def _compare(store: Repository, name: str, then: _Own, now: _Own) -> RangeDiff:
    if then == now or _essence(store, then) == _essence(store, now):
        return RangeDiff(name, UNCHANGED)
    ranges = (f"{then.start}..{then.end}", f"{now.start}..{now.end}")
    text = store.run(*_SETTINGS, "range-diff", "--no-color", "--no-notes", _PAIR_ANYWAY, *ranges)
    if "\n" not in text:
        text = "\n".join([text, *_blobs(store, then, now)])
    return RangeDiff(name, CHANGED, text)


def _blobs(store: Repository, then: _Own, now: _Own) -> list[str]:
    """Where git words no difference, as with binary files: the files whose content differs."""
    old = {change.path: change.new_blob for change in store.changes(then.start, then.end)}
    new = {change.path: change.new_blob for change in store.changes(now.start, now.end)}
    paths = sorted(path for path in {*old, *new} if old.get(path) != new.get(path))
    return [f"    {path}: {old.get(path, ZERO)[:12]} -> {new.get(path, ZERO)[:12]}" for path in paths]


def _essence(store: Repository, own: _Own) -> tuple[str, Sequence[bytes]]:
    """Message and diff, less what moves when only the base moves: blob ids and line numbers."""
    diff = store.diff(own.start, own.end).split(b"\n")
    return store.show(own.end, "%an <%ae>%n%B"), [_without_numbers(line) for line in diff]


def _without_numbers(line: bytes) -> bytes:
    # Content lines begin with a blank, + or -, and base85 has no blanks: these two are structure.
    if line.startswith(b"index "):
        return b"index"
    if line.startswith(b"@@ "):
        return b"@@" + line.split(b"@@", 2)[2]
    return line
