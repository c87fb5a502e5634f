"""The source GitHub: the open pull requests of the fork and of other repositories, admitted ones at exact SHAs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchstack.config import GitHubSource
from patchstack.git import Repository
from patchstack.github import GitHub
from patchstack.model import Asked, Base, LeftOut, Pull, Sha


@dataclass(frozen=True)
class Discovered:
    """What GitHub says of tonight's pull requests, each name once in ``pulls`` or in ``refused``."""

    pulls: tuple[Pull, ...]
    """Admitted, and in the store: the fork's by number, then other repositories' in the order of the sources."""
    blocked: tuple[Pull, ...]
    """Blocked ones as they are now, in the store; each is in ``refused`` too. Whoever carries their commits is
    barred with them."""
    refused: tuple[LeftOut, ...]
    """Everyone else with the way out, in the same order, and those that are gone since the last promoted night."""
    asked: tuple[Asked, ...]
    """What it cost, a repository; the fork first."""


def discover(
    store: Repository,
    github: GitHub,
    *,
    fork: str,
    remote_url: str,
    sources: Sequence[GitHubSource],
    base: Base,
    lane: str,
    deploy_branches: Mapping[str, str],
    main: str,
    admit_label: str,
    blocked_label: str,
    previous: Mapping[str, Sha],
    memo_path: Path,
    url_of: Callable[[str], str],
    progress: Callable[[str], None] = lambda _: None,
) -> Discovered:
    """The lane's pull requests as GitHub knows them.

    ``fork`` is ``owner/name``, ``remote_url`` where git reads it, ``url_of`` says that of other repositories.
    ``deploy_branches`` is every lane's deploy branch with its lane's name. ``previous`` holds the pull requests
    of the last promoted night, by name. ``memo_path`` keeps what was read of unchanged pull requests: without
    it the outcome is the same, and the calls are more. Raises `RemoteError` when GitHub or a remote cannot be
    read whole: that is never an empty answer.
    """
    raise NotImplementedError
