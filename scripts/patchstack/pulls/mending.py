"""The commands that move a pull request off a deploy branch, for its author to type."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from patchstack.git import without_secret
from patchstack.model import Sha


@dataclass(frozen=True)
class Mending:
    """What the commands are made of."""

    url: str
    """The fork's remote."""
    base: Sha
    """Tonight's base commit."""
    branches: Collection[str]
    """Those that the remote has."""
    deploy_branches: Mapping[str, str]
    """Every lane's deploy branch, with its lane."""

    def contains(self, branch: str, deployed: Sha) -> str:
        """What to say to one that contains ``deployed``, a commit that a promotion made on ``branch``."""
        lane = self.deploy_branches[branch]
        onto = self._onto(lane)
        # The base's commit is part of every night, so whoever has a night has it.
        rebase = f"git rebase --onto {self.base if onto is None else 'FETCH_HEAD'} {deployed}"
        fetch = "" if onto is None else f"git fetch {shlex.quote(without_secret(self.url))} {shlex.quote(onto)} && "
        return (
            f"it contains {deployed[:12]} of {branch}, and so everything that is in that night; on its branch run "
            f"`{fetch}{rebase}` and push it again"
        )

    def meant_for(self, branch: str, deployed: Sha | None) -> str:
        """What to say to one that is meant for ``branch``; ``deployed``: which of its commits it contains, if any."""
        lane = self.deploy_branches[branch]
        onto = self._onto(lane) or f"base/{lane}"
        change = f"change its base to {onto}"
        if deployed is None:
            return f"only promotions move {branch}: {change}"
        return f"only promotions move {branch}, and {self.contains(branch, deployed)}, then {change}"

    def _onto(self, lane: str) -> str | None:
        return next((name for name in (f"stack/{lane}", f"base/{lane}") if name in self.branches), None)
