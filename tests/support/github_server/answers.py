"""What the fake GitHub is asked and what it answers, apart from HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

DOCS = "https://docs.github.com/rest"
PER_PAGE = 30
MOST_PER_PAGE = 100


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, *, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors
        self.headers: dict[str, str] = {}

    def answer(self) -> Answer:
        body: dict[str, Any] = {"message": self.message, "documentation_url": DOCS}
        # GitHub's description has the status in every error but this one.
        if self.status != 422:
            body["status"] = str(self.status)
        if self.errors is not None:
            body["errors"] = self.errors
        return Answer(self.status, body, dict(self.headers))


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    """Below the API's root."""
    query: Mapping[str, str]
    body: Any
    """What its JSON holds; None without one."""

    def text(self, key: str, *, required: bool = False) -> str | None:
        """A string in the body; 422 when it is something else, or missing though ``required``."""
        if self.body is not None and not isinstance(self.body, dict):
            raise Refused(422, "Invalid request.\n\nThe body is no object.")
        value = (self.body or {}).get(key)
        if value is None and required:
            raise Refused(422, f'Invalid request.\n\n"{key}" wasn\'t supplied.')
        if value is not None and not isinstance(value, str):
            raise Refused(422, f"Invalid request.\n\nFor 'properties/{key}', {value!r} is not a string.")
        return value

    def names(self, key: str, *, required: bool = False) -> list[str]:
        """A list of strings in the body; GitHub takes the list alone for it, too."""
        value = self.body if isinstance(self.body, list) else (self.body or {}).get(key, None if required else [])
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise Refused(422, f"Invalid request.\n\nFor 'properties/{key}', {value!r} is no array of strings.")
        return value

    def chosen(self, key: str, allowed: tuple[str, ...]) -> str:
        """One of ``allowed`` in the query, the first when it is not there."""
        value = self.query.get(key, allowed[0])
        if value not in allowed:
            error = {"resource": "Query", "field": key, "code": "invalid"}
            raise Refused(422, "Validation Failed", errors=[error])
        return value

    def count(self, key: str, default: int) -> int:
        """A number from 1 on in the query; what is none is ignored, as GitHub does."""
        value = self.query.get(key, "")
        return int(value) if value.isdigit() and int(value) > 0 else default


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    """None: nothing at all."""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        return b"" if self.body is None else json.dumps(self.body).encode()


def page_of(asked: Asked, found: list[Any], url: str) -> tuple[list[Any], dict[str, str]]:
    """One page of what was found, and the ``Link`` header to the others.

    https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api
    """
    size = min(asked.count("per_page", PER_PAGE), MOST_PER_PAGE)
    page = asked.count("page", 1)
    last = max(1, -(-len(found) // size))
    others: dict[str, int] = {}
    if page > 1:
        others |= {"prev": min(page - 1, last), "first": 1}
    if page < last:
        others |= {"next": page + 1, "last": last}
    links = [f'<{url}?{urlencode({**asked.query, "page": number})}>; rel="{rel}"' for rel, number in others.items()]
    return found[(page - 1) * size : page * size], {"Link": ", ".join(links)} if links else {}
