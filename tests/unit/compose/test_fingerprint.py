"""Equal inputs, equal digest; what changes a night is named; titles and reasons are none of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.builders import TEN, A, B, Fork, edit

from patchstack.compose.plan import fingerprint
from patchstack.model import Candidates, Fingerprint, Native


@pytest.fixture
def candidates(tmp_path: Path) -> Candidates:
    fork = Fork(tmp_path, {A: TEN, B: TEN})
    fork.patch("first", {A: edit(TEN, 1, "first")})
    fork.pull(1, fork.commit("one", {A: edit(TEN, 9, "one")}, fork.base.commit))
    fork.pull(2, fork.commit("two", {"docs/d.md": "d\n"}, fork.base.commit))
    return fork.candidates()


def take(candidates: Candidates, **changed: Any) -> Fingerprint:
    given: dict[str, Any] = {
        "lane": "production",
        "git_version": (2, 39, 5),
        "patchstack_version": "0.1.0",
        "patches": {"first": "d1", "second": "d2"},
        "skips": {"7": "because"},
        "protected": (".github/",),
        "inputs": {"guards": "g1", "locks": "l1"},
    }
    return fingerprint(candidates, **{**given, **changed})


def test_the_inputs_by_name(candidates: Candidates) -> None:
    one, two = candidates.topics[1], candidates.left_out[0]
    assert dict(take(candidates).inputs) == {
        "lane": "production",
        "base": f"sglang==0.5.12.post1 {candidates.base.tree}",
        "natives": "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945",
        "git": "2.39.5",
        "patchstack": "0.1.0",
        "series": "first second",
        "patch first": "d1",
        "patch second": "d2 (not here)",
        "pull request #1": one.head,
        "pull request #2": two.head,
        "skipped": "7",
        "protected": ".github/",
        "input guards": "g1",
        "input locks": "l1",
    }


def test_equal_inputs_equal_digest_whatever_the_titles_and_reasons(candidates: Candidates) -> None:
    renamed = replace(
        candidates,
        topics=tuple(replace(topic, title="other", author="other") for topic in candidates.topics),
        left_out=tuple(replace(item, title="other", detail="other") for item in candidates.left_out),
    )
    other_words = take(renamed, skips={"7": "other words"}, inputs={"locks": "l1", "guards": "g1"})
    assert other_words == take(candidates)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"lane": "edge"}, "lane"),
        ({"git_version": (2, 40, 0)}, "git"),
        ({"patchstack_version": "0.2.0"}, "patchstack"),
        ({"patches": {"second": "d2", "first": "d1"}}, "series"),
        ({"patches": {"first": "d9", "second": "d2"}}, "patch first"),
        ({"skips": {}}, "skipped"),
        ({"protected": ()}, "protected"),
        ({"inputs": {"guards": "g2", "locks": "l1"}}, "input guards"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_changes_is_named(candidates: Candidates, changed: dict[str, Any], name: str) -> None:
    before, after = take(candidates), take(candidates, **changed)
    assert before.digest != after.digest
    assert [key for key, _ in sorted({*before.inputs} ^ {*after.inputs})] == [name, name]


def test_a_new_head_of_a_left_out_pull_request_and_a_new_base_count(candidates: Candidates) -> None:
    (left_out,) = candidates.left_out
    moved = replace(candidates, left_out=(replace(left_out, head=candidates.base.commit),))
    natives = (Native("cp312", "linux", "x.whl", "0" * 64),)
    rebuilt = replace(candidates, base=replace(candidates.base, natives=natives))
    on_another = replace(candidates, base=replace(candidates.base, tree=candidates.base.commit))
    digests = {take(each).digest for each in (candidates, moved, rebuilt, on_another)}
    assert len(digests) == 4
