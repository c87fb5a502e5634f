"""The time on the fake GitHub: it passes only when something happens, one minute each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

BEGIN = "2026-11-01T00:00:00Z"


class Clock:
    def __init__(self) -> None:
        self._now = _parse(BEGIN)

    @property
    def now(self) -> str:
        """ISO 8601 with ``Z``, as GitHub writes it."""
        return self._now.strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def seconds(self) -> int:
        """Since 1970."""
        return int(self._now.timestamp())

    def tick(self) -> str:
        """One minute later."""
        self._now += timedelta(minutes=1)
        return self.now

    def set(self, iso: str) -> None:
        """Go on from that time; never back."""
        if _parse(iso) < self._now:
            raise ValueError(f"it is {self.now} already, later than {iso}")
        self._now = _parse(iso)


def _parse(iso: str) -> datetime:
    return datetime.fromisoformat(iso).astimezone(UTC)
