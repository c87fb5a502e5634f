"""How long GitHub is waited for, and what is asked a second time: urllib3's rules, tightened.

Left alone, a client sleeps for as long as a rate limit says, an hour where it must, and sends a comment
twice when the answer to the first was lost. https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Self

from urllib3.exceptions import MaxRetryError
from urllib3.util.retry import Retry

if TYPE_CHECKING:
    from types import TracebackType

    from urllib3 import BaseHTTPResponse
    from urllib3.connectionpool import ConnectionPool

REPEATS = 4
"""How often one request is sent again; between the attempts 0, 2, 4 and 8 seconds pass."""
TIMEOUT_S = 30
"""How long one attempt waits for the connection, and then for each piece of the answer."""
PATIENCE_S = 300
"""How long all the pauses of one client together may last, those for rate limits and those between attempts."""
UNSAID_S = 60
"""How long to wait for a rate limit that does not say how long: GitHub asks for a minute at least."""

_LIMITS = frozenset({403, 429})
_ELSEWHERE = frozenset({202, 301, 302, 303, 307, 308})
_BODY_BYTES = 65_536


class Answered(Exception):
    """GitHub answered, and no further attempt is made."""

    def __init__(self, status: int, message: str, *, limited: bool = False) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message
        self.limited = limited
        """A rate limit, and not a permission, is in the way."""


class Purse:
    """The seconds for which a client may still pause."""

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self.left_s = seconds


class Patience(Retry):
    """Repeats reads that failed for want of a server, and whatever a rate limit turned away, as long as it pays."""

    def __init__(self, *args: Any, purse: Purse, unsaid_s: float = UNSAID_S, **options: Any) -> None:
        options.setdefault("total", REPEATS)
        # Neither POST nor PATCH: a write whose answer was lost may have been done.
        options.setdefault("status_forcelist", frozenset(range(500, 600)))
        options.setdefault("backoff_factor", 1.0)
        # What GitHub answered last is better than that it was asked too often.
        options.setdefault("raise_on_status", False)
        super().__init__(*args, **options)
        self.purse = purse
        self.unsaid_s = unsaid_s
        self.asked_s = 0.0
        """What the server asked for before the next attempt."""

    def new(self, **changes: Any) -> Self:
        return super().new(purse=self.purse, unsaid_s=self.unsaid_s, **changes)

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        # `increment` looks at these for every method: what a rate limit turned away was not done.
        return status_code in _LIMITS | _ELSEWHERE or super().is_retry(method, status_code)

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        message, wait_s = "", 0.0
        if response is not None:
            if response.status in _ELSEWHERE:
                # Followed, it would lose its query, and a token could go to another server.
                place = response.headers.get("Location", "")
                response.drain_conn()
                raise Answered(response.status, f"it points to {place}" if place else "it is not ready")
            if response.status in _LIMITS:
                message = _message(response)
                limit_s = self._limit_s(response, message)
                if limit_s is None:
                    raise Answered(response.status, message)
                if limit_s > self.purse.left_s:
                    raise Answered(response.status, f"{message} (for {limit_s:.0f} s)", limited=True)
                wait_s = limit_s
            elif "Retry-After" in response.headers:
                wait_s = self.get_retry_after(response) or 0.0
        try:
            following = super().increment(method, url, response, error, _pool, _stacktrace)
        except MaxRetryError:
            if response is not None and response.status in _LIMITS:
                raise Answered(response.status, message, limited=True) from None
            raise
        following.asked_s = wait_s
        return following

    def get_backoff_time(self) -> float:
        return max(self.asked_s, super().get_backoff_time())

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        wait_s = self.get_backoff_time()
        if wait_s > self.purse.left_s:
            status = response.status if response is not None else 0
            if self.asked_s:
                raise Answered(status, f"it asks to wait for {wait_s:.0f} s", limited=True)
            raise Answered(status, f"one more of many failures, and the patience of {PATIENCE_S} s has ended")
        self.purse.left_s -= wait_s
        self._sleep_backoff()

    def _limit_s(self, response: BaseHTTPResponse, message: str) -> float | None:
        """What a 403 or 429 asks for; None when it is no rate limit.

        https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit
        """
        if "Retry-After" in response.headers:
            return self.get_retry_after(response) or 0.0
        reset = response.headers.get("X-RateLimit-Reset", "")
        if response.headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal():
            return max(int(reset) - time.time(), 0.0) + 1
        if response.status == 429 or "rate limit" in message.lower():
            return self.unsaid_s
        return None


def _message(response: BaseHTTPResponse) -> str:
    """What an error's body says, read off so that the connection can be used again."""
    body = response.read(_BODY_BYTES, decode_content=True)
    response.drain_conn()
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    return str(said.get("message", "")) if isinstance(said, dict) else ""
