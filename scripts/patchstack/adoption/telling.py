"""What `init` says, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from patchstack.adoption.beside import IN, Beside
from patchstack.adoption.checks import Check
from patchstack.adoption.deploy import DeployBranch
from patchstack.adoption.files import Planned, count_pulls
from patchstack.adoption.release import FoundRelease
from patchstack.adoption.survey import Survey

LISTED = 30
"""Entries of a list that are told one by one; `--json` has them all."""


@dataclass(frozen=True)
class Adoption:
    """All that `init` found, decided and, unless it was a dry run, wrote."""

    survey: Survey
    release: FoundRelease
    deploy: DeployBranch
    checks: tuple[Check, ...]
    files: tuple[Planned, ...]
    beside: Beside | None
    """None where there is no plan."""
    written: bool
    failure: str = ""
    """Why there is no plan and nothing was written."""
    exit_code: int = 0


def lines(adoption: Adoption) -> Iterator[str]:
    """The whole, for a terminal."""
    survey, release, deploy = adoption.survey, adoption.release, adoption.deploy
    branches = _count(len(survey.branches), "branch", "branches")
    yield f"{survey.repo}: {branches}, default {survey.default_branch}; {_pulls(survey)}"
    yield f"base: {release.base.name}: {'; '.join(release.evidence)}"
    yield f"its own work begins at {release.begin_name}"
    yield f"deploy branch: {deploy.name}: {deploy.evidence}"
    yield ""
    for check in adoption.checks:
        yield f"{check.standing}: {check.name}: {check.said}"
    if adoption.beside is not None:
        yield ""
        yield from _beside(adoption.beside, deploy, release)
    yield ""
    yield from _files(adoption)
    if adoption.failure:
        yield f"no plan, and nothing written: {adoption.failure}"


def _pulls(survey: Survey) -> str:
    counted = count_pulls(survey)
    if not counted:
        return "no open pull request"
    parts = [f"{number} into {branch}" if branch else f"{number}" for branch, number in counted.items()]
    return f"open pull requests: {', '.join(parts)}"


def _beside(beside: Beside, deploy: DeployBranch, release: FoundRelease) -> Iterator[str]:
    beside_what = f"beside {deploy.name} ({beside.deploy[:12]})" if beside.deploy else "(nothing is deployed yet)"
    pulls = sum(pull.tonight == IN for pull in beside.pulls)
    yield (
        f"tonight {beside_what}: {_count(len(beside.patches), 'patch', 'patches')} and "
        f"{_count(pulls, 'pull request')} in {beside.tonight[:12]}"
    )
    for pull in beside.pulls:
        held = f"; {pull.deployed} of {pull.own} commits are in {deploy.name}" if beside.deploy else ""
        yield f"  {pull.name} {pull.title}: tonight: {pull.tonight}{held}"
    if beside.deploy is None:
        return
    if beside.lost:
        yield (
            f"  {_count(len(beside.lost), 'commit')} of {deploy.name} would be lost: tonight has them in no form. Make "
            f"them patches: patchstack patch import {release.begin_name}..{deploy.name}"
        )
        for lost in beside.lost[:LISTED]:
            held_by = f" (in {', '.join(lost.held_by)}, which tonight leaves out)" if lost.held_by else ""
            yield f"    {lost.commit[:12]} {lost.title}, {lost.author}{held_by}"
        yield from _more(beside.lost)
    else:
        yield f"  no commit of {deploy.name} would be lost"
    if beside.not_carried:
        change = "changes" if beside.not_carried == 1 else "change"
        commits = _count(beside.not_carried, "commit")
        yield f"  {commits} of {deploy.name} {change} nothing that a release carries"
    if beside.of_default:
        yield (
            f"  {_count(beside.of_default, 'commit')} of {deploy.name}, later than the release, of the default branch:"
            " tonight has none of them"
        )
    if not beside.paths:
        yield f"  the files of both are the same, as far as the release carries them ({beside.tonight[:12]})"
        return
    yield f"  {_count(len(beside.paths), 'file')} that the release carries, not the same in both:"
    for path in beside.paths[:LISTED]:
        yield f"    {path.path}: {path.how.replace('deploy', deploy.name)}"
    yield from _more(beside.paths)


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def _more(entries: Sequence[object]) -> Iterator[str]:
    if len(entries) > LISTED:
        yield f"    … {len(entries) - LISTED} more (--json has them all)"


def _files(adoption: Adoption) -> Iterator[str]:
    for file in adoption.files:
        if file.same:
            yield f"{file.path}: is there already"
        elif file.in_the_way:
            yield f"{file.path}: something else is there: move it away first"
        else:
            yield f"{file.path}: {'written' if adoption.written else 'would be written'}"
