"""What is remembered of a pull request, and when it is not to be trusted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from patchstack.github import Events, LabelEvent, OpenPull, Push, Review
from patchstack.model import Sha
from patchstack.pulls.admission import Facts
from patchstack.pulls.memo import Memory

OLD, HEAD, ZERO = (Sha(letter * 40) for letter in "ab0")
AT = "2026-11-01T00:01:00+00:00"
PULL = OpenPull(7, "t", "bob", False, ("deploy",), HEAD, "fix", "acme/sglang", "acme", "main", AT, "")
FACTS = Facts(
    (Review("ann", "APPROVED", HEAD, AT),),
    Events((LabelEvent("deploy", True, "ann", AT),), (AT,)),
    (Push(ZERO, HEAD, AT),),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memo" / "admissions.json"


def remember(path: Path, facts: Facts = FACTS, pull: OpenPull = PULL, repo: str = "acme/sglang") -> Memory:
    memory = Memory(path)
    memory.learn(repo, pull, facts)
    memory.write(finished=True)
    return Memory(path)


def test_what_was_learnt_is_recalled_for_exactly_that_state(path: Path) -> None:
    memory = remember(path)
    assert memory.recall("acme/sglang", PULL) == FACTS
    changes: list[dict[str, object]] = [
        {"number": 8},
        {"updated_at": "2026-11-01T00:02:00+00:00"},
        {"head": OLD},
        {"labels": ()},
        {"head_repo": "alice/sglang"},
        {"head_ref": "other"},
        {"title": "T"},
        {"base_ref": "other"},
    ]
    for change in changes:
        assert memory.recall("acme/sglang", replace(PULL, **change)) is None  # type: ignore[arg-type]
    assert memory.recall("other/sglang", PULL) is None


@pytest.mark.parametrize("pushes", [(), (Push(ZERO, OLD, AT),)], ids=["none", "not up to the head"])
def test_pushes_that_do_not_end_at_the_head_are_asked_for_again(path: Path, pushes: tuple[Push, ...]) -> None:
    memory = remember(path, replace(FACTS, pushes=pushes))
    assert memory.recall("acme/sglang", PULL) == replace(FACTS, pushes=None)


def test_what_a_version_remembered_that_did_not_ask_for_targets_is_asked_anew(path: Path) -> None:
    remember(path)
    _, _, body = path.read_text().partition("\n")
    whole = json.loads(body)
    told = whole["entries"][0]["facts"]
    told["labels"] = told.pop("events")["labels"]
    older = json.dumps(whole)
    path.write_text(f"{hashlib.sha256(older.encode()).hexdigest()}\n{older}")
    recalled = Memory(path).recall("acme/sglang", PULL)
    assert recalled is None or recalled.events is None


def test_a_night_that_was_stopped_forgets_nothing(path: Path) -> None:
    remember(path)
    stopped = Memory(path)
    stopped.learn("acme/sglang", replace(PULL, number=8), FACTS)
    stopped.write(finished=False)
    both = Memory(path)
    assert [both.recall("acme/sglang", replace(PULL, number=number)) for number in (7, 8)] == [FACTS, FACTS]
    both.write(finished=True)
    assert both.recall("acme/sglang", PULL) == FACTS

    passing = Memory(path)
    passing.recall("acme/sglang", PULL)
    passing.write(finished=True)
    assert Memory(path).recall("acme/sglang", replace(PULL, number=8)) is None


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memory = remember(tmp_path / "file" / "memo.json")
    assert memory.recall("acme/sglang", PULL) is None
