"""How a candidate is left out, and in which order a reader is told."""

from __future__ import annotations

from collections.abc import Iterable

from patchstack.model import Kind, LeftOut, Outcome, Pull, Reason, Topic


def leave_out(
    candidate: Topic | Pull,
    outcome: Outcome,
    reason: Reason,
    detail: str,
    *,
    twins: tuple[str, ...] = (),
    files: tuple[str, ...] = (),
) -> LeftOut:
    return LeftOut(
        name=candidate.name,
        kind=candidate.kind if isinstance(candidate, Topic) else Kind.PULL,
        title=candidate.title,
        author=candidate.author,
        head=candidate.head,
        outcome=outcome,
        reason=reason,
        detail=detail,
        twins=twins,
        files=files,
        required=candidate.required if isinstance(candidate, Topic) else False,
    )


def in_order(left_out: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """Patches in the order in which they were left out, then pull requests by number."""
    return tuple(sorted(left_out, key=lambda item: number_of(item.name) if item.kind is Kind.PULL else 0))


def number_of(name: str) -> int:
    """A pull request's number: ``#41`` is 41."""
    return int(name.rpartition("#")[2])


def listed(names: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
