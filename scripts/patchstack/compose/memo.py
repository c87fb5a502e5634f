"""What earlier nights found out about commits that have not changed since.

All of it can be found out again from the commits alone, and `verify` does so without it. A file that is damaged, or
of another git or form, is none. It is kept small: what a night does not use is gone from the next night's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchstack.git import Change, Repository
from patchstack.model import Sha
from patchstack.store import write_whole

SCHEMA = 1
"""Raise it when equal keys no longer mean equal answers."""
_MOST_CHANGES = 1000
"""Of one merge: what changes more is merged again each night."""


@dataclass(frozen=True)
class MergeResult:
    """What merging a topic with something comes to."""

    conflicts: tuple[str, ...] = ()
    """The files in conflict, by their names in the tree."""
    changes: tuple[Change, ...] = ()
    """What a merge without conflict does to what was there before."""
    tree: Sha | None = None
    """The merged tree, where it is that of the whole composition."""


@dataclass
class Memo:
    """`patch_ids` and `outcomes` by the commits that they are of; what is put in is there at once."""

    path: Path | None = None
    """Where it is kept; None: it is forgotten with this object."""
    made_by: str = ""
    known_ids: dict[str, str] = field(default_factory=dict)
    known_outcomes: dict[str, MergeResult] = field(default_factory=dict)
    _used_ids: set[str] = field(default_factory=set)
    _used_outcomes: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path, store: Repository, git_version: Sequence[int]) -> Memo:
        """What is kept at ``path``, less what names objects that ``store`` does not have (any more)."""
        memo = cls(path, f"{SCHEMA} git {'.'.join(map(str, git_version))}")
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            head, body = path.read_text().split("\n", 1)
            if json.loads(head) == _head(memo.made_by, body):
                kept = json.loads(body)
                ids = {str(key): str(value) for key, value in kept["patch_ids"].items()}
                outcomes = {str(key): _decode(value) for key, value in kept["outcomes"].items()}
                memo.known_ids, memo.known_outcomes = ids, _at_hand(store, outcomes)
        return memo

    def patch_id(self, key: str) -> str | None:
        self._used_ids.add(key)
        return self.known_ids.get(key)

    def keep_patch_id(self, key: str, patch_id: str) -> None:
        self._used_ids.add(key)
        self.known_ids[key] = patch_id

    def outcome(self, key: str) -> MergeResult | None:
        self._used_outcomes.add(key)
        return self.known_outcomes.get(key)

    def keep_outcome(self, key: str, outcome: MergeResult) -> None:
        self._used_outcomes.add(key)
        self.known_outcomes[key] = outcome

    def write(self) -> None:
        """Keep what was used; without a disk to keep it on the next night is slower, and none the worse."""
        if self.path is None:
            return
        ids = {key: value for key, value in self.known_ids.items() if key in self._used_ids}
        outcomes = {
            key: _encode(value)
            for key, value in self.known_outcomes.items()
            if key in self._used_outcomes and len(value.changes) <= _MOST_CHANGES
        }
        body = json.dumps({"patch_ids": ids, "outcomes": outcomes}, separators=(",", ":"), sort_keys=True)
        with suppress(OSError):
            write_whole(self.path, f"{json.dumps(_head(self.made_by, body))}\n{body}")


def _head(made_by: str, body: str) -> dict[str, str]:
    return {"made_by": made_by, "sha256": hashlib.sha256(body.encode()).hexdigest()}


def _encode(outcome: MergeResult) -> dict[str, Any]:
    rows = [[c.path, c.status, c.old_mode, c.new_mode, c.old_blob, c.new_blob] for c in outcome.changes]
    return {"conflicts": outcome.conflicts, "changes": rows, "tree": outcome.tree}


def _decode(kept: Mapping[str, Any]) -> MergeResult:
    rows = [Change(*(str(part) for part in row)) for row in kept["changes"]]  # type: ignore[arg-type]
    tree = kept["tree"]
    return MergeResult(tuple(map(str, kept["conflicts"])), tuple(rows), None if tree is None else Sha(str(tree)))


def _at_hand(store: Repository, outcomes: Mapping[str, MergeResult]) -> dict[str, MergeResult]:
    """Those of ``outcomes`` whose objects are in ``store``: a merge writes some, and a store can be a new one."""
    made = {key: _objects(outcome) for key, outcome in outcomes.items()}
    wanted = sorted(set().union(*made.values()))
    if not wanted:
        return dict(outcomes)
    argv = ("cat-file", "--batch-check=%(objectname)")
    said = store.run(*argv, stdin="".join(f"{sha}\n" for sha in wanted).encode()).split("\n")
    held = {sha for sha, answer in zip(wanted, said, strict=True) if sha == answer}
    return {key: outcome for key, outcome in outcomes.items() if made[key] <= held}


def _objects(outcome: MergeResult) -> set[str]:
    blobs = {change.new_blob for change in outcome.changes if change.new_mode.strip("0")}
    return {*blobs, *([outcome.tree] if outcome.tree else [])}
