"""The first line of what a night writes on GitHub: hidden from readers, and how the next night finds it again.

Only what stands at the very beginning of a text counts, and only in a text under our own login: a marker that
somebody quotes or forges is never read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from urllib.parse import quote, unquote

_SIGNAL = "<!-- patchstack:signal v1 "
_PULL = "<!-- patchstack:pull v1 "
_END = " -->"


@dataclass(frozen=True)
class SignalMarker:
    """Which signal of which lane an issue tells of."""

    lane: str
    key: str
    inputs: str = ""
    """The fingerprint of the night that raised it, where that decides when it has gone."""

    def __str__(self) -> str:
        return _written(_SIGNAL, {"lane": self.lane, "key": self.key, "inputs": self.inputs})


@dataclass(frozen=True)
class PullMarker:
    """Which state of a pull request a comment tells of."""

    lane: str
    state: str

    def __str__(self) -> str:
        return _written(_PULL, {"lane": self.lane, "state": self.state})


def signal_of(text: str) -> SignalMarker | None:
    """The marker that an issue's body begins with."""
    found = _read(_SIGNAL, text)
    if not found.keys() >= {"lane", "key"}:
        return None
    return SignalMarker(found["lane"], found["key"], found.get("inputs", ""))


def pull_of(text: str) -> PullMarker | None:
    """The marker that a comment begins with."""
    found = _read(_PULL, text)
    return PullMarker(found["lane"], found["state"]) if found.keys() >= {"lane", "state"} else None


def digest(*parts: object) -> str:
    """A short name for a state: equal parts, equal name."""
    body = json.dumps(parts, separators=(",", ":"), default=list)
    return hashlib.sha256(body.encode()).hexdigest()[:20]


def _written(begin: str, fields: dict[str, str]) -> str:
    pairs = " ".join(f"{name}={_safe(value)}" for name, value in fields.items() if value)
    return f"{begin}{pairs}{_END}"


def _safe(value: str) -> str:
    # Two hyphens in a row end a comment for some readers: https://html.spec.whatwg.org/multipage/syntax.html#comments
    written = quote(value, safe="/#:,", errors="backslashreplace")
    return written.replace("-", "%2D") if "--" in written else written


def _read(begin: str, text: str) -> dict[str, str]:
    line = text.partition("\n")[0].rstrip()
    if not line.startswith(begin) or not line.endswith(_END):
        return {}
    pairs = (pair.partition("=") for pair in line[len(begin) : -len(_END)].split(" "))
    return {name: unquote(value) for name, _, value in pairs}
