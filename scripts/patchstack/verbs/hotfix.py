"""A hotfix: which pull requests are meant, and which night they go onto."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from patchstack.compose.onto import Deployed, candidates_onto
from patchstack.errors import RemoteError, UsageError
from patchstack.git import Repository
from patchstack.model import Candidates, Hotfix, Sha
from patchstack.release.ledger import Entry, History
from patchstack.verbs.remote import open_remote
from patchstack.workplace import Workplace

_NAME = re.compile(r"(?:(?P<repo>[\w.-]+/[\w.-]+)?#)?(?P<number>[1-9][0-9]{0,17})", re.ASCII)


def pull_names(work: Workplace, only: Sequence[str]) -> tuple[str, ...]:
    """``41``, ``#41`` and ``owner/name#41`` as a night names them; `UsageError` for anything else."""
    found = []
    for text in only:
        name = pull_name(work, text)
        if name is None:
            raise UsageError(f"--only {text!r} is no pull request: write #41, 41, or owner/name#41")
        found.append(name)
    return tuple(dict.fromkeys(found))


def pull_name(work: Workplace, text: str) -> str | None:
    """A pull request as a night names it, however a person does; None where ``text`` names none."""
    named = _NAME.fullmatch(text)
    return f"{_repo_in(work, named['repo'] or '')}#{named['number']}" if named else None


def _repo_in(work: Workplace, repo: str) -> str:
    """How names of its pull requests begin: the fork's with nothing, another's as deploy.yaml first has it."""
    if repo.casefold() == work.config.fork.repo.casefold():
        return ""
    known = {source.repo.casefold(): source.repo for source in reversed(work.github_sources)}
    return known.get(repo.casefold(), repo)


def candidates_of_hotfix(
    work: Workplace,
    store: Repository,
    found: Candidates,
    only: Sequence[str],
    skips: Mapping[str, str],
    listed: Mapping[str, Sha] | None,
) -> tuple[Candidates, Hotfix]:
    """What is deployed, and those of ``found`` that ``only`` names.

    Raises `UsageError` where nothing is deployed, or something else than what patches/ and deploy.yaml make.
    """
    history = open_remote(work, listed).history
    last = history.last
    if last is None:
        raise UsageError(
            f"--onto previous: no night was ever promoted to {work.lane.branch}, so there is nothing to put a hotfix "
            "onto; run `patchstack nightly`"
        )
    main, at = work.config.fork.main, _promoted_at(history, last)
    deployed = Deployed(last.content, last.line, f"check out {main} as it was at {at}")
    return candidates_onto(store, found, deployed, only, skips)


def _promoted_at(history: History, last: Entry) -> str:
    """When what is deployed was first promoted."""
    found = [entry.line.at for entry in history.nights if entry.line.night == last.content]
    return found[0] if found else last.line.at


def require_onto_deployed(hotfix: Hotfix | None, history: History) -> None:
    """`RemoteError` where something else is deployed by now than what ``hotfix`` was put onto."""
    last = history.last
    if hotfix is not None and (last is None or last.line.composition != hotfix.composition):
        now = f"night {last.content}" if last is not None else "nothing"
        raise RemoteError(
            f"this is a hotfix onto night {hotfix.onto}, and {now} is deployed by now: nothing was moved; run "
            "`patchstack nightly --only PR --onto previous` again"
        )
