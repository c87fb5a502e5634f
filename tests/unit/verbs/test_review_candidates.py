"""What `review` says of the candidates: whose fate changes with the stack, and what is not known without them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.github_server import GitHubServer
from tests.unit.verbs.fork_bench import A, B
from tests.unit.verbs.review_bench import CONFIG, TEN, ReviewDesk, edit, stack_of

from patchstack import verdict
from patchstack.github import TOKEN_VARIABLES
from patchstack.verdict import Candidates, Fate, PatchVerdict

FROM_REFS = CONFIG.replace("acme/sglang}", "acme/sglang, remote: ../remote.git}") + (
    'pulls: {sources: [{refs: "refs/pull/*/head"}]}\n'
)


@pytest.fixture
def desk(tmp_path: Path) -> ReviewDesk:
    return ReviewDesk(tmp_path)


@pytest.fixture
def candidates(tmp_path: Path) -> ReviewDesk:
    """A fork with pull requests on lines 1, 5 and 9 of one file, and on its main a patch that is in the first's way."""
    desk = ReviewDesk(tmp_path, FROM_REFS)
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    for number, line in ((1, 1), (2, 5), (3, 9)):
        desk.pull(number, {A: edit(TEN, line, f"PULL_{number}")})
    return desk


def fates(found: PatchVerdict) -> list[str]:
    def fate(one: Fate) -> str:
        return f"{one.reason} {','.join(one.twins)} {','.join(one.files)}" if one.reason else "in"

    return [f"{change.name}: {fate(change.before)} -> {fate(change.after)}" for change in found.candidates.changes]


def test_whose_fate_changes(candidates: ReviewDesk) -> None:
    main = candidates.commit()
    candidates.patch("one", {A: edit(TEN, 5, "ONE")})
    candidates.commit()
    found = candidates.review(main)
    assert (found.exit_code, found.candidates.compared) == (0, 3)
    assert fates(found) == [
        f"#1: excluded: conflict one {A} -> in",
        f"#2: in -> excluded: conflict one {A}",
    ]
    assert next((change.title, change.author) for change in found.candidates.changes) == ("pull 1", "patchstack")


def test_a_candidate_that_a_new_patch_stands_in_for(candidates: ReviewDesk) -> None:
    main = candidates.commit()
    candidates.patch("two", {A: edit(TEN, 1, "TWO")})
    candidates.remove("one")
    candidates.commit()
    found = candidates.review(main)
    assert fates(found) == [f"#1: excluded: conflict one {A} -> excluded: conflict two {A}"]


def test_by_the_rules_of_either_side(candidates: ReviewDesk) -> None:
    """The stack is the same; who is skipped is not."""
    main = candidates.commit()
    candidates.replace("deploy.yaml", "pulls: {", "pulls: {skip: [{pr: 3, because: not now}], ")
    candidates.commit()
    found = candidates.review(main)
    assert (found.candidates.compared, fates(found)) == (3, ["#3: in -> skipped: skipped by deploy.yaml  "])


def test_on_a_base_that_moves(candidates: ReviewDesk) -> None:
    """What was cut from the old base is replayed onto the new one, which has changed line 5 itself."""
    candidates.release("1.1", {A: edit(TEN, 5, "RELEASE"), B: TEN})
    candidates.write("patches/releases", "1.0\n1.1\n")
    candidates.remove("one")
    candidates.patch("one", {A: edit(TEN, 9, "ONE")}, up_to="1.1")
    main = candidates.commit()
    candidates.replace("deploy.yaml", "sglang==1.0", "sglang==1.1")
    candidates.commit()
    found = candidates.review(main)
    assert (found.exit_code, found.candidates.compared) == (0, 3)
    assert fates(found) == [f"#2: in -> excluded: conflict  {A}"]


def test_where_the_candidates_are_is_for_main_to_say(candidates: ReviewDesk) -> None:
    main = candidates.commit()
    candidates.patch("one", {A: edit(TEN, 5, "ONE")})
    candidates.replace("deploy.yaml", "../remote.git", "../elsewhere.git")
    candidates.commit()
    found = candidates.review(main)
    # main's path leads from where main is laid out, and nowhere: it is asked all the same, and that is said.
    assert (found.exit_code, found.candidates) == (8, Candidates())
    assert found.stopped is not None
    assert "remote.git cannot be read" in found.stopped.said[0]


def test_a_remote_that_does_not_answer_is_not_no_change(candidates: ReviewDesk, tmp_path: Path) -> None:
    main = candidates.commit()
    candidates.patch("one", {A: edit(TEN, 5, "ONE")})
    candidates.commit()
    (tmp_path / "remote.git").rename(tmp_path / "gone.git")
    found = candidates.review(main)
    assert (found.exit_code, found.candidates, stack_of(found).composes) == (8, Candidates(), True)
    assert found.stopped is not None
    assert "remote.git cannot be read" in found.stopped.said[0]


def test_without_a_token_github_is_not_asked(desk: ReviewDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in TOKEN_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    desk.write("deploy.yaml", CONFIG + "pulls: {sources: [{repo: acme/sglang, into: [base/production]}]}\n")
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    main = desk.commit()
    desk.patch("one", {A: edit(TEN, 5, "ONE")})
    desk.commit()
    found = desk.review(main)
    assert (found.exit_code, found.candidates.compared) == (0, None)
    assert found.candidates.why.startswith(
        "lane production: GitHub is asked with a token, and none of PATCHSTACK_TOKEN,"
    )


@pytest.mark.parametrize(
    ("permissions", "code"),
    [
        ({"contents": "read", "pull-requests": "read"}, 0),
        ({"contents": "read"}, 8),
        ({"pull-requests": "read"}, 8),
    ],
    ids=["read", "no pull requests", "no contents"],
)
def test_candidates_of_github(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, permissions: dict[str, str], code: int
) -> None:
    desk = ReviewDesk(tmp_path, CONFIG + "pulls: {sources: [{repo: acme/sglang, into: [base/production]}]}\n")
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    with GitHubServer(tmp_path / "github") as hub:
        fork = hub.repository("acme/sglang", private=True)
        hub.user("ann", write=["acme/sglang"])
        for number, line in ((41, 1), (42, 5), (43, 9)):
            head = desk.pull(number, {A: edit(TEN, line, f"PULL_{number}")}, remote=fork.path)
            fork.push(f"fix-{number}", head, by="ann")
            fork.open_pull(f"fix-{number}", "base/production", "ann", f"Fix <b>{number}", number=number)
            fork.label(number, "deploy", by="ann")
        main = desk.commit()
        desk.patch("one", {A: edit(TEN, 5, "ONE")})
        desk.commit()
        token = hub.token(repo="acme/sglang", permissions=permissions)
        for name, value in hub.environment(token).items():
            monkeypatch.setenv(name, value)

        found = desk.review(main)

        assert {request.method for request in hub.requests if ".git/" not in request.path} <= {"GET"}
    assert (found.exit_code, stack_of(found).composes) == (code, True)
    assert token not in verdict.encode(found) + "".join(desk.said.lines)
    if code:
        assert found.candidates == Candidates()
        assert found.stopped is not None
        return
    assert found.candidates.compared == 3
    assert fates(found) == [
        f"#41: excluded: conflict one {A} -> in",
        f"#42: in -> excluded: conflict one {A}",
    ]
    assert [(change.title, change.author) for change in found.candidates.changes] == [
        ("Fix <b>41", "ann"),
        ("Fix <b>42", "ann"),
    ]
