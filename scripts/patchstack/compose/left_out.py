"""How a candidate is left out, and in which order a reader is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
        url=candidate.url,
        newer_head=candidate.newer_head,
    )


def in_order(left_out: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """Patches in the order in which they were left out, then pull requests by number.

    The fork's come first, then those of other repositories in the order in which these first appear.
    """
    items = tuple(left_out)
    rank = {"": 0}
    for item in items:
        if item.kind is Kind.PULL:
            rank.setdefault(repository_of(item.name), len(rank))
    return tuple(
        sorted(
            items,
            key=lambda item: (
                (1, rank[repository_of(item.name)], number_of(item.name)) if item.kind is Kind.PULL else (0, 0, 0)
            ),
        )
    )


def number_of(name: str) -> int:
    """A pull request's number: ``#41`` is 41, and so is ``owner/name#41``."""
    return int(name.rpartition("#")[2])


def repository_of(name: str) -> str:
    """A pull request's repository: ``owner/name#41`` is of ``owner/name``; empty for the fork's."""
    return name.rpartition("#")[0]


def because(skips: Mapping[str, str], name: str) -> str | None:
    """Why ``skips`` leave a pull request out: by its own name, or by a bare number, which is any repository's."""
    return skips.get(name, skips.get(str(number_of(name))))


def listed(names: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
