"""What a patch's guards must fail on: the base with all that the patch requires, and nothing else.

On the plain base a guard of a patch that stands on another may fail for want of that other one; that would
prove nothing of the patch itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from patchstack.model import Sha

BASE = "base"
"""The label of the plain base."""


@dataclass(frozen=True)
class Ground:
    """One such tree."""

    tree: Sha
    patches: tuple[str, ...] = ()
    """What is on it besides the base, in series order."""

    @property
    def label(self) -> str:
        """``base``, or ``base + zmq-locked-sends + pd-abort-notify``."""
        return " + ".join((BASE, *self.patches))
