"""Which branch of a fork is the one that is deployed: a guess that says what it is made of."""

from __future__ import annotations

from dataclasses import dataclass

from patchstack.adoption.survey import Survey
from patchstack.errors import UsageError
from patchstack.git import Repository
from patchstack.model import Sha

USUAL = "deploy"
NAMES = (USUAL, "production", "prod", "release", "deployment", "stable", "live", "nightly")
"""What teams call it, the likeliest first."""


@dataclass(frozen=True)
class DeployBranch:
    name: str
    tip: Sha | None
    """None where the fork has no such branch: the first night makes it."""
    evidence: str


def find_deploy(store: Repository, survey: Survey, chosen: str | None) -> DeployBranch:
    """The branch that was asked for (``chosen``), or the likeliest; `UsageError` for one that the fork lacks."""
    if chosen is not None:
        tip = survey.tip(chosen)
        if tip is None:
            known = ", ".join(list(survey.branches)[:20])
            raise UsageError(f"--deploy-branch {chosen}: {survey.repo} has no such branch; it has: {known}")
        return DeployBranch(chosen, tip, f"it was asked for; {_holds(store, survey, tip)}")
    there = [name for name in NAMES if name in survey.branches]
    if not there:
        alike = [name for name in survey.branches if name.split("/")[0] in NAMES and name != survey.default_branch]
        also = f" ({', '.join(alike[:5])}: --deploy-branch if one of them is)" if alike else ""
        return DeployBranch(USUAL, None, f"no branch is called as teams call it{also}: the first night makes it")
    name, tip = there[0], survey.branches[there[0]]
    others = f"; {', '.join(there[1:])} could be too: --deploy-branch chooses" if there[1:] else ""
    return DeployBranch(name, tip, f"by its name; {_holds(store, survey, tip)}{others}")


def _holds(store: Repository, survey: Survey, tip: Sha) -> str:
    when = store.show(tip, "%cs")
    default = survey.tip(survey.default_branch)
    if default is None or default == tip:
        return f"last changed on {when}"
    ahead = store.run("rev-list", "--count", tip, f"^{default}", "--")
    return f"{ahead} commits that {survey.default_branch} has not, the last on {when}"
