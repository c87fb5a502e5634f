"""Where a night is answered: the fork on its server, and the addresses that are made of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchstack.report.page import Line, Link, Part, Quoted, Section
from patchstack.report.words import joined

_FEW = 5
_DIGITS = 18
"""No pull request has a number as long; in an address it would stand uncut."""


@dataclass(frozen=True)
class Place:
    repo: str
    """The fork, ``owner/name``."""
    server: str
    """``https://github.com``, without a slash behind it."""
    run_url: str = ""
    """Of the workflow's run that answers; empty outside of a workflow."""

    def name(self, name: str) -> Part:
        """A topic by name, linked where it is a pull request of the fork.

        One of another repository is not: GitHub would tell its readers that we spoke of it.
        """
        number = name.removeprefix("#")
        if name.startswith("#") and number.isascii() and number.isdigit() and len(number) <= _DIGITS:
            return Link(name, f"{self.server}/{self.repo}/pull/{number}")
        return Quoted(name)

    def names(self, names: Sequence[str]) -> Line:
        """``a, b, c and 4 more``."""
        shown = joined([(self.name(name),) for name in names[:_FEW]], ", ")
        return (*shown, f" and {len(names) - _FEW} more") if len(names) > _FEW else shown

    def run(self) -> Section:
        """Where all of it can be read; empty outside of a workflow."""
        return Section("", (("All of it: ", Link("the workflow's run", self.run_url), "."),) if self.run_url else ())
