"""What a night lacks of the one that is deployed, as values; `release/loss.py` finds it and judges."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lost:
    """A topic of the deployed night that tonight's composition has not."""

    name: str
    head: str
    """As the deployed night had it."""
    reason: str
    """A `Reason`'s words where somebody said why it is left out."""
    twins: tuple[str, ...]
    """Who has the same change, carries it, or is in conflict with it."""
    files: tuple[str, ...]
    detail: str
    counts: bool
    """Towards `max_lost`: neither its author nor deploy.yaml took it out, and its change is not there otherwise."""


@dataclass(frozen=True)
class MovedBase:
    """The base is another one, and deploy.yaml says of it what it said before."""

    upstream: str
    """What deploy.yaml says."""
    before: str
    now: str
    """Commits: full ids."""


@dataclass(frozen=True)
class Losses:
    """All that tonight's composition lacks of the deployed night."""

    since: str
    """The deployed night's id; empty where nothing is deployed."""
    most: int
    """How many may count (`max_lost`)."""
    items: tuple[Lost, ...] = ()
    """In the order in which that night had them."""
    base: MovedBase | None = None
    accepted: bool = False
    """Somebody has said `--accept-lost`."""

    @property
    def counted(self) -> tuple[Lost, ...]:
        return tuple(item for item in self.items if item.counts)

    @property
    def too_many(self) -> bool:
        """Whether this is more than a night may lose by itself."""
        return self.base is not None or len(self.counted) > self.most
