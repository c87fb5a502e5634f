"""`patchstack comment`: the verdict of a pull request's own code, told on it with a token that can write.

The file decides nothing but what the comment says. Which pull request it is about it may claim; GitHub is
asked whether that one is open, goes into main, and has the head that the workflow's event names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from patchstack import verdict
from patchstack.config import Fork
from patchstack.errors import UsageError
from patchstack.github import Comment, GitHub
from patchstack.report.review import is_review, review_comment
from patchstack.verdict import PatchVerdict


class Did(StrEnum):
    WRITTEN = "written"
    EDITED = "edited"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Told:
    number: int
    did: Did
    """Or would have, in a dry run."""
    body: str


def comment(github: GitHub, fork: Fork, file: Path, *, head_sha: str, dry_run: bool = False) -> Told:
    """Write the one comment on the pull request, or bring it up to date; an equal one is left alone.

    `UsageError` for a file that is no verdict, or not on this head; for a pull request that is not open, not
    into main, or has moved on. `RemoteError` where GitHub does not answer. Nothing is written then.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", head_sha):
        raise UsageError(f"--head-sha {head_sha[:60]!r} is no commit id: give all of its 40 digits")
    found = verdict.read(file)
    number = _require_open(github, fork, found, head_sha)
    body = review_comment(found)
    ours = _ours(github, fork.repo, number)
    did = Did.WRITTEN if ours is None else Did.UNCHANGED if _same(ours.body, body) else Did.EDITED
    if not dry_run:
        if ours is None:
            github.comment(fork.repo, number, body)
        elif did is Did.EDITED:
            github.edit_comment(fork.repo, ours.id, body)
    return Told(number, did, body)


def _require_open(github: GitHub, fork: Fork, found: PatchVerdict, head_sha: str) -> int:
    """The number of the pull request, once GitHub has confirmed it."""
    if found.head != head_sha:
        raise UsageError(f"the verdict is on {found.head}, and {head_sha} was reviewed: nothing is written")
    if found.number is None:
        raise UsageError("the verdict names no pull request (`review --pr N`): there is nowhere to write it")
    pull = github.pull(fork.repo, found.number)
    which = f"{fork.repo}#{found.number}"
    if pull.state != "open":
        raise UsageError(f"{which} is not open any more: nothing is written")
    if pull.base_ref != fork.main:
        raise UsageError(f"{which} does not go into {fork.main}: nothing is written")
    if pull.head != head_sha:
        raise UsageError(f"{which} is at {pull.head} by now, and not at {head_sha}: nothing is written")
    return found.number


def _ours(github: GitHub, repo: str, number: int) -> Comment | None:
    """The first of our own comments that begins with the marker; anybody else's is a quotation."""
    login = github.viewer()
    comments = github.comments(repo, number)
    return next((one for one in comments if one.author == login and is_review(one.body)), None)


def _same(there: str, body: str) -> bool:
    """GitHub gives a body back without the space at its end, and at times with other line ends."""
    return there.replace("\r\n", "\n").strip() == body.strip()
