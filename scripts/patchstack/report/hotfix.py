"""What a reader is told of a hotfix: onto which night, and what it adds."""

from __future__ import annotations

from patchstack.model import Hotfix, LedgerLine
from patchstack.report import words
from patchstack.report.page import Line, Quoted

HOTFIX = "hotfix"
"""Beside a night in the ledger's table."""


def lead(hotfix: Hotfix | None) -> tuple[Line, ...]:
    """One line, and one for each pull request whose deployed head is left off; none for a night of all there is."""
    if hotfix is None:
        return ()
    onto: Line = (
        *("Hotfix: what is deployed, night ", Quoted(hotfix.onto), ", with ", *words.names_all(hotfix.only)),
        ". Nothing else was taken.",
    )
    return (onto, *((Quoted(name), " was deployed at ", words.short(head), ".") for name, head in hotfix.replaced))


def deployed(line: LedgerLine) -> tuple[Line, ...]:
    """What is deployed is a hotfix; after a rollback to one its line says no more."""
    return (("It is a hotfix onto night ", Quoted(line.onto), "."),) if line.onto else ()


def hotfix_notes(foreign: int, branch: str) -> list[str]:
    """``foreign``: how many commits on top of what is deployed no promotion made."""
    if not foreign:
        return []
    commits = words.count(foreign, "commit", "commits")
    return [f"{commits} on top of {branch} came from no promotion, and the hotfix does not have what they changed"]
