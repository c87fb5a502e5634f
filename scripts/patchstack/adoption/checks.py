"""What a fork needs before its first night, one line each: there, missing with its fix, or not to be known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from patchstack.adoption.deploy import DeployBranch
from patchstack.adoption.files import LANE
from patchstack.adoption.survey import Survey
from patchstack.github import GitHub, Refused, RepositoryFacts, Runner

SETTINGS = (
    "https://docs.github.com/en/actions/security-for-github-actions/security-guides/automatic-token-authentication"
)

_Found = TypeVar("_Found")


class Standing(StrEnum):
    OK = "ok"
    MISSING = "missing"
    UNKNOWN = "not known"


@dataclass(frozen=True)
class Check:
    name: str
    standing: Standing
    said: str
    """What was found, and what to do where something is missing."""


# --- of the repository, by git alone ---


def branch_checks(survey: Survey, main: str, *, holds_patches: bool) -> tuple[Check, ...]:
    """What the fork's branches say of a first night."""
    found = []
    blocking = [name for name in ("base", "stack", "history") if name in survey.branches]
    taken = [name for name in (f"base/{LANE}", f"stack/{LANE}", f"history/{LANE}") if name in survey.branches]
    if blocking:
        said = (
            f"branch {blocking[0]} is in the way of {blocking[0]}/{LANE}, which nights publish: rename it on the fork"
        )
        found.append(Check("branches", Standing.MISSING, said))
    elif taken:
        said = f"{', '.join(taken)} are there already, and nights go on from them: see that nothing else is on them"
        found.append(Check("branches", Standing.UNKNOWN, said))
    else:
        found.append(
            Check("branches", Standing.OK, f"base/{LANE} and stack/{LANE} are free: the first night makes them")
        )
    if holds_patches:
        found.append(Check("main", Standing.OK, f"{main} holds patches/"))
    elif main == survey.default_branch:
        found.append(
            Check("main", Standing.MISSING, f"{main} is to hold patches/ and the workflows: commit them there")
        )
    else:
        found.append(
            Check(
                "main",
                Standing.MISSING,
                f"{survey.default_branch} holds SGLang, and a schedule runs on the default branch alone: push this "
                f"folder as {main}, then: gh repo edit {survey.repo} --default-branch {main}",
            )
        )
    return tuple(found)


def bed_check(folder: Path, version: str) -> Check:
    """Whether guards can run on that release here."""
    locks = folder / "tests" / "support" / "locks"
    if (locks / version).is_dir():
        return Check("test bed", Standing.OK, f"tests/support/locks has {version}")
    if locks.is_dir():
        known = ", ".join(sorted(path.name for path in locks.iterdir()))
        said = f"tests/support/locks has {known}, and not {version}: a night ends with 9 until its locks are there"
    else:
        said = f"{folder} is no clone of this project, whose tests/ the nights run: clone it, and adopt from there"
    return Check("test bed", Standing.MISSING, said)


# --- of GitHub ---


def github_checks(github: GitHub, facts: RepositoryFacts, deploy: DeployBranch) -> tuple[Check, ...]:
    """What the token may do and what the repository has; a refusal is what it is about, and never an empty answer."""
    repo = facts.name
    return (
        *_token(github, facts),
        *_labels(_asked(lambda: github.labels(repo)), repo),
        _protection(_asked(lambda: github.protected_branches(repo)), repo, deploy),
        _issues(facts),
        _runners(_asked(lambda: github.runners(repo)), repo),
    )


def pulls_check(refused: Refused | None, repo: str, number: int = 0) -> Check:
    if refused is None:
        return Check("pull requests", Standing.OK, f"the token may read them: {number} open")
    said = f"the token may not read them ({refused.status}): give it `pull-requests: read` of {repo}"
    return Check("pull requests", Standing.MISSING, said)


def _asked(ask: Callable[[], _Found]) -> _Found | Refused:
    try:
        return ask()
    except Refused as refused:
        if refused.status in (403, 404):
            return refused
        raise


def _token(github: GitHub, facts: RepositoryFacts) -> list[Check]:
    who = github.viewer()
    found = [Check("token", Standing.OK, f"it is {who}'s")]
    if facts.archived:
        return [*found, Check("contents", Standing.MISSING, f"{facts.name} is archived: nothing can be pushed to it")]
    scopes = facts.scopes
    if not facts.can_push:
        said = f"{who} may not push to {facts.name}: have {who} given the role `write`"
        found.append(Check("contents", Standing.MISSING, said))
    elif scopes is None:
        said = (
            f"{who} may push; what a token of this kind may is known only when it is used: give it `contents: write`, "
            "`pull-requests: write` and `issues: write` (in the workflows the jobs say so themselves)"
        )
        found.append(Check("contents", Standing.UNKNOWN, said))
    elif not {"repo", "public_repo"} & set(scopes):
        said = f"a classic token with {', '.join(scopes) or 'no scope'}: it needs `repo`, or `public_repo`"
        found.append(Check("contents", Standing.MISSING, said))
    else:
        found.append(Check("contents", Standing.OK, f"a classic token with {', '.join(scopes)}"))
    if scopes is not None and "workflow" not in scopes:
        said = "to push .github/workflows with this token it needs `workflow`; the nights themselves do not"
        found.append(Check("workflows", Standing.UNKNOWN, said))
    return found


def _labels(labels: Sequence[str] | Refused, repo: str) -> list[Check]:
    if isinstance(labels, Refused):
        said = f"the token may not read labels ({labels.status}): give it `issues: read` or `pull-requests: read`"
        return [Check("labels", Standing.MISSING, said)]
    known = {label.casefold() for label in labels}  # GitHub does not tell them apart by letter case
    found = []
    for label, what in (("deploy", "admits a pull request"), ("blocked", "keeps one out")):
        if label in known:
            found.append(Check(f"label {label}", Standing.OK, what))
        else:
            said = f"it {what}; create it: gh label create {label} --repo {repo}"
            found.append(Check(f"label {label}", Standing.MISSING, said))
    return found


def _protection(protected: Sequence[str] | Refused, repo: str, deploy: DeployBranch) -> Check:
    name = f"branch {deploy.name}"
    if isinstance(protected, Refused):
        said = f"the token may not read branches ({protected.status}): give it `contents: read`"
        return Check(name, Standing.MISSING, said)
    if deploy.tip is None:
        return Check(name, Standing.OK, "it is not there yet; protect it from force pushes and deletion once it is")
    if deploy.name in protected:
        said = (
            "a rule protects it: it must let the job `promote` push (a pull request or a check that it asks for would "
            f"stop every night); look at https://github.com/{repo}/settings/rules"
        )
        return Check(name, Standing.UNKNOWN, said)
    said = (
        "no rule protects it, so nothing stops a night; forbid force pushes and deletion, which no night needs: "
        f"https://github.com/{repo}/settings/rules/new?target=branch"
    )
    return Check(name, Standing.OK, said)


def _issues(facts: RepositoryFacts) -> Check:
    if facts.has_issues:
        return Check("issues", Standing.OK, "they are on: a night that needs somebody opens one")
    said = f"they are off, as in every new fork: gh repo edit {facts.name} --enable-issues"
    return Check("issues", Standing.MISSING, said)


def _runners(runners: Sequence[Runner] | Refused, repo: str) -> Check:
    if isinstance(runners, Refused):
        said = (
            f"the token may not list them ({runners.status}; it would need `administration: read`); nights on GitHub's "
            f"own machines need none; for GPU lanes look at https://github.com/{repo}/settings/actions/runners"
        )
        return Check("runners", Standing.UNKNOWN, said)
    if not runners:
        return Check("runners", Standing.OK, "none of your own: nights run on GitHub's; GPU lanes need one")
    shown = "; ".join(
        f"{runner.name} ({'online' if runner.online else 'offline'}: {', '.join(runner.labels)})" for runner in runners
    )
    return Check("runners", Standing.OK, shown)
