"""What the probes say, read as the words of a stranger: the code that they try out runs beside them.

An answer is one JSON document of a known shape and size, with nothing before or behind it; anything else is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

MOST_BYTES = 1 << 18

_Name = Annotated[str, Field(max_length=300)]
_Words = Annotated[str, Field(max_length=4000)]
_Status = Annotated[int, Field(ge=-255, le=255)]


@dataclass(frozen=True)
class Imported:
    """One module; the process that imported it did not say more than this."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    module: _Name
    error: _Words | None
    missing: _Name | None
    """Of an ImportError: the module that was not found, or in which a name was not."""


@dataclass(frozen=True)
class Imports:
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    imports: Annotated[list[Imported], Field(max_length=1000)]
    ended: _Status
    late: bool
    noise: _Words


@dataclass(frozen=True)
class Request:
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    stage: Literal["model", "start", "request", "answered"]
    ended: _Status | None
    late: bool
    status: Annotated[int, Field(ge=0, le=999)]
    tokens: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 32)]], Field(max_length=1000)]
    words: _Words
    noise: _Words


Answer = TypeVar("Answer", Imports, Request)


def read_answer(kind: type[Answer], printed: str) -> Answer | None:
    """The answer, or None where what was printed is none."""
    if len(printed.encode(errors="surrogateescape")) > MOST_BYTES:
        return None
    try:
        return TypeAdapter(kind).validate_json(printed, strict=True)
    except (ValidationError, RecursionError, UnicodeEncodeError):
        return None
