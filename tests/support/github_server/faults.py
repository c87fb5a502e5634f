"""What can go wrong between a client and GitHub, on purpose."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tests.support.github_server.answers import Answer, Refused

SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
PRIMARY = "API rate limit exceeded for user."


@dataclass(frozen=True)
class Fault:
    """The next ``times`` requests that it matches go wrong; by default with an answer of ``status``."""

    method: str = "GET"
    """``*``: any."""
    path: str = "*"
    """Below the API's root (``/repos/acme/sglang/pulls``), or of git (``/acme/sglang.git/info/refs``); ``*`` and
    ``?`` as in a shell."""
    page: int | None = None
    """Only this page of a listing."""
    status: int = 502
    message: str = "Server Error"
    retry_after: int | None = None
    """Seconds, in the header of that name."""
    cut: bool = False
    """The right answer, whole headers and half of its body."""
    hang: bool = False
    """No answer until the client or the server goes away."""
    reset: bool = False
    """The connection is reset before an answer."""
    no_json: bool = False
    """A page of HTML, as proxies write it, with ``status``."""
    times: int = 1

    @classmethod
    def secondary_rate_limit(cls, path: str = "*", *, method: str = "GET", status: int = 403, times: int = 1) -> Fault:
        """Asked too fast: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api."""
        return cls(method=method, path=path, status=status, message=SECONDARY, retry_after=0, times=times)

    def matches(self, method: str, path: str, page: int) -> bool:
        return (
            self.method in ("*", method) and fnmatchcase(path, self.path) and (self.page is None or self.page == page)
        )

    def answer(self) -> Answer:
        refused = Refused(self.status, self.message)
        if self.retry_after is not None:
            refused.headers["Retry-After"] = str(self.retry_after)
        return refused.answer()


class Faults:
    """Those that wait for their request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: list[list[Fault | int]] = []

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._left.append([fault, fault.times])

    def clear(self) -> None:
        with self._lock:
            self._left.clear()

    def take(self, method: str, path: str, page: int) -> Fault | None:
        """The first that matches; it is used up by one."""
        with self._lock:
            for row in self._left:
                fault, left = row
                assert isinstance(fault, Fault)
                assert isinstance(left, int)
                if left > 0 and fault.matches(method, path, page):
                    row[1] = left - 1
                    return fault
        return None
