"""What each open pull request is meant for: the whole listing in, one line for each out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.builders import tell

from patchstack.config import GitHubSource
from patchstack.github import OpenPull
from patchstack.model import Sha
from patchstack.pulls.targets import Chosen, Rules, choose

FORK, UPSTREAM = "acme/sglang", "sgl-project/sglang"
OURS = GitHubSource(repo=FORK, into=("base/production", "stack/production"))
RULES = Rules(FORK, FORK, (OURS,), "production", "main", {"deploy": "production", "deploy-edge": "edge"}, "blocked")
PULL = OpenPull(1, "t", "bob", False, (), Sha("a" * 40), "fix", FORK, "acme", "base/production", "", "")


def pull(number: int, into: str = "base/production", head: str | None = None, **changes: object) -> OpenPull:
    """From the fork's own branch ``fix-N``; ``of``: from that owner's repository."""
    owner = str(changes.pop("of", "acme"))
    made = replace(PULL, number=number, base_ref=into, head_ref=head or f"fix-{number}", head_owner=owner)
    return replace(made, head_repo=f"{owner}/sglang", **changes)  # type: ignore[arg-type]


def told(pulls: list[OpenPull], rules: Rules = RULES) -> list[str]:
    named, others = choose(pulls, rules)
    lines = [f"{one.name} {one.fate} -> {one.target}" if isinstance(one, Chosen) else tell(one) for one in named]
    return [*lines, f"{others} others"] if others else lines


def rules(*sources: GitHubSource, repo: str = FORK, lane: str = "production") -> Rules:
    return replace(RULES, repo=repo, sources=sources, lane=lane)


def test_each_target_has_its_answer() -> None:
    assert told(
        [
            pull(1),
            pull(2, "stack/production"),
            pull(3, "main"),
            pull(4, "deploy"),
            pull(5, "deploy-edge"),
            pull(6, "base/edge"),
            pull(7, "stack/edge"),
            pull(8, "feature"),
            pull(9, "base"),
            pull(10, "base/"),
            pull(11, "history/production", head="fix"),
            pull(12, "fix"),
        ]
    ) == [
        "#1 candidate -> base/production",
        "#2 candidate -> stack/production",
        "#3 skipped: into main: never composed",
        "#4 into a deploy branch -> deploy",
        "#5 into a deploy branch -> deploy-edge",
        "#6 skipped: for another lane",
        "#7 skipped: for another lane",
        "#8 skipped: into a branch that is not composed",
        "#9 skipped: into a branch that is not composed",
        "#10 skipped: into a branch that is not composed",
        "#11 skipped: into a branch that is not composed",
        "#12 skipped: into a branch that is not composed",
    ]


def test_a_lane_takes_its_own_of_what_all_sources_name() -> None:
    both = GitHubSource(repo=FORK, into=("base/production", "base/edge", "feature"))
    pulls = [pull(1), pull(2, "base/edge"), pull(3, "feature")]
    assert told(pulls, rules(both)) == [
        "#1 candidate -> base/production",
        "#2 skipped: for another lane",
        "#3 candidate -> feature",
    ]
    assert told(pulls, rules(both, lane="edge")) == [
        "#1 skipped: for another lane",
        "#2 candidate -> base/edge",
        "#3 candidate -> feature",
    ]


def test_they_are_told_by_number() -> None:
    assert told([pull(12), pull(3, "main"), pull(7)]) == [
        "#3 skipped: into main: never composed",
        "#7 candidate -> base/production",
        "#12 candidate -> base/production",
    ]


# --- labels, drafts, owners, patterns ---


def test_blocked_comes_before_all_but_main() -> None:
    blocked = {"labels": ("Blocked", "x")}
    assert told(
        [
            pull(1, **blocked),
            pull(2, draft=True, **blocked),
            pull(3, "deploy", **blocked),
            pull(4, "base/edge", **blocked),
            pull(5, "feature", **blocked),
            pull(6, of="mallory", **blocked),
            pull(7, "main", **blocked),
            pull(8, labels=("blocked-by-ci", "unblocked")),
        ]
    ) == [
        "#1 blocked -> base/production",
        "#2 blocked -> base/production",
        "#3 blocked -> deploy",
        "#4 blocked -> base/edge",
        "#5 blocked -> feature",
        "#6 blocked -> base/production",
        "#7 skipped: into main: never composed",
        "#8 candidate -> base/production",
    ]


def test_a_draft_waits_and_a_strangers_draft_does_not() -> None:
    assert told([pull(1, draft=True), pull(2, draft=True, of="mallory"), pull(3, "deploy", draft=True)]) == [
        "#1 waiting: draft",
        "#2 skipped: from a repository that deploy.yaml does not list",
        "#3 into a deploy branch -> deploy",
    ]


def test_without_heads_only_the_forks_own_branches_are_taken() -> None:
    elsewhere = pull(2, of="acme")
    assert told(
        [pull(1), replace(elsewhere, head_repo="acme/other"), replace(elsewhere, number=3, head_repo="ACME/SGLang")]
    ) == [
        "#1 candidate -> base/production",
        "#2 skipped: from a repository that deploy.yaml does not list",
        "#3 candidate -> base/production",
    ]


def test_heads_name_the_owners_whose_repositories_are_taken() -> None:
    friends = GitHubSource(repo=FORK, into=("base/production",), heads=("alice", "Bob-2"))
    pulls = [pull(1), pull(2, of="alice"), pull(3, of="ALICE"), pull(4, of="bob-2"), pull(5, of="alic")]
    refused = "skipped: from a repository that deploy.yaml does not list"
    assert told(pulls, rules(friends)) == [
        f"#1 {refused}",
        "#2 candidate -> base/production",
        "#3 candidate -> base/production",
        "#4 candidate -> base/production",
        f"#5 {refused}",
    ]
    assert told(pulls, rules(OURS, friends))[0] == "#1 candidate -> base/production"


def test_a_source_takes_owners_and_branches_together() -> None:
    friends = GitHubSource(repo=FORK, into=("stack/production",), heads=("alice",))
    pulls = [pull(1, "base/production", of="alice"), pull(2, "stack/production", of="alice")]
    assert told(pulls, rules(GitHubSource(repo=FORK, into=("base/production",)), friends)) == [
        "#1 skipped: from a repository that deploy.yaml does not list",
        "#2 candidate -> stack/production",
    ]


def test_the_repository_of_its_branch_is_gone() -> None:
    gone = {"head_repo": "", "head_owner": "alice"}
    assert told(
        [
            replace(pull(1), **gone),  # type: ignore[arg-type]
            replace(pull(2, draft=True), **gone),  # type: ignore[arg-type]
            replace(pull(3, "main"), **gone),  # type: ignore[arg-type]
            replace(pull(4), head_repo="", head_owner=""),
        ]
    ) == [
        "#1 excluded: the repository of its branch is gone",
        "#2 excluded: the repository of its branch is gone",
        "#3 skipped: into main: never composed",
        "#4 excluded: the repository of its branch is gone",
    ]


@pytest.mark.parametrize(
    ("include", "exclude", "wanted"),
    [
        ((), (), ["fix/a", "fix/a/b", "wip/x", "Fix/a", "f[ix]/a"]),
        (("fix/*",), (), ["fix/a", "fix/a/b"]),
        (("fix/?",), (), ["fix/a"]),
        ((), ("wip/*", "*/b"), ["fix/a", "Fix/a", "f[ix]/a"]),
        (("fix/*", "wip/*"), ("*/b",), ["fix/a", "wip/x"]),
        (("f[ix]/a",), (), []),
        (("f[[]ix]/a",), (), ["f[ix]/a"]),
        (("(.+)$",), (), []),
    ],
)
def test_patterns_are_a_shells_and_about_whole_branch_names(
    include: tuple[str, ...], exclude: tuple[str, ...], wanted: list[str]
) -> None:
    branches = ["fix/a", "fix/a/b", "wip/x", "Fix/a", "f[ix]/a"]
    source = GitHubSource(repo=FORK, into=("base/production",), include=include, exclude=exclude)
    named, _ = choose([pull(number, head=head) for number, head in enumerate(branches)], rules(source))
    assert [one.pull.head_ref for one in named if isinstance(one, Chosen)] == wanted
    assert {tell(one).split(": ")[1] for one in named if not isinstance(one, Chosen)} <= {
        "its branch is not wanted by deploy.yaml"
    }


# --- stacks of pull requests ---


def test_one_on_top_of_another_is_meant_for_what_that_is_meant_for() -> None:
    assert told(
        [
            pull(1, "fix-2"),
            pull(2, "fix-3"),
            pull(3, "stack/production"),
            pull(4, "fix-5"),
            pull(5, "main"),
            pull(6, "fix-7"),
            pull(7, "deploy"),
            pull(8, "fix-9"),
            pull(9, "base/edge"),
            pull(10, "fix-11"),
            pull(11, "feature"),
            pull(12, "fix-13"),
            pull(13, draft=True),
            pull(14, "fix-15"),
            pull(15, labels=("blocked",)),
        ]
    ) == [
        "#1 candidate -> stack/production",
        "#2 candidate -> stack/production",
        "#3 candidate -> stack/production",
        "#4 skipped: into main: never composed",
        "#5 skipped: into main: never composed",
        "#6 into a deploy branch -> deploy",
        "#7 into a deploy branch -> deploy",
        "#8 skipped: for another lane",
        "#9 skipped: for another lane",
        "#10 skipped: into a branch that is not composed",
        "#11 skipped: into a branch that is not composed",
        "#12 candidate -> base/production",
        "#13 waiting: draft",
        "#14 candidate -> base/production",
        "#15 blocked -> base/production",
    ]


def test_a_circle_stands_on_nothing() -> None:
    refused = "skipped: into a branch that is not composed"
    pulls = [pull(1, "fix-2"), pull(2, "fix-3"), pull(3, "fix-1"), pull(4, "fix-4"), pull(5, "fix-1")]
    assert told(pulls) == [f"#{number} {refused}" for number in range(1, 6)]


def test_a_branch_of_that_name_elsewhere_is_another_branch() -> None:
    assert told([pull(1, "fix-2"), pull(2, of="alice")])[0] == "#1 skipped: into a branch that is not composed"


def test_of_two_pull_requests_from_one_branch_the_one_that_leads_somewhere_counts() -> None:
    assert told([pull(1, "fix"), pull(2, "feature", head="fix"), pull(3, "stack/production", head="fix")])[0] == (
        "#1 candidate -> stack/production"
    )
    assert told([pull(1, "fix"), pull(2, "base/production", head="fix"), pull(3, "main", head="fix")])[0] == (
        "#1 candidate -> base/production"
    )


def test_a_stack_of_two_thousand() -> None:
    pulls = [pull(number, f"fix-{number + 1}") for number in range(1, 2000)] + [pull(2000)]
    assert told(pulls) == [f"#{number} candidate -> base/production" for number in range(1, 2001)]


# --- other repositories ---


def test_of_another_repository_only_the_listed_owners_are_named() -> None:
    team = GitHubSource(repo=UPSTREAM, into=("main",), heads=("acme",), exclude=("wip/*",))
    upstream = rules(team, repo=UPSTREAM)
    assert told(
        [
            pull(1, "main"),
            pull(2, "main", of="alice"),
            pull(3, "main", draft=True),
            pull(4, "main", of="alice", labels=("blocked",)),
            pull(5, "main", labels=("blocked",)),
            pull(6, "release"),
            pull(7, "main", head="wip/x"),
            replace(pull(8, "main"), head_repo="", head_owner="acme"),
            replace(pull(9, "main"), head_repo="", head_owner=""),
            pull(10, "deploy"),
            pull(11, "base/edge"),
        ],
        upstream,
    ) == [
        "sgl-project/sglang#1 candidate -> main",
        "sgl-project/sglang#3 waiting: draft",
        "sgl-project/sglang#5 blocked -> main",
        "sgl-project/sglang#6 skipped: into a branch that is not composed",
        "sgl-project/sglang#7 skipped: its branch is not wanted by deploy.yaml",
        "sgl-project/sglang#8 excluded: the repository of its branch is gone",
        "sgl-project/sglang#10 skipped: into a branch that is not composed",
        "sgl-project/sglang#11 skipped: into a branch that is not composed",
        "3 others",
    ]
