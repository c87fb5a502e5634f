"""What `review` finds out about a patch pull request, as it is written down and read back.

The file crosses a border: the code of the pull request wrote it, and a job with a write token reads it. So
every text has a length, every list a bound, no key is unknown, and the whole has a size. Nothing in it is
trusted but its form: whom it is about is asked of GitHub, and its texts are made inert where they are shown.

The JSON schema beside this module is generated from these classes (`make schema`), and a test keeps it fresh.
"""

from __future__ import annotations

import json
import os
import stat
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patchstack.errors import CompositionError, ConfigError, StaleFiles, UsageError
from patchstack.git import readable

SCHEMA_PATH = Path(__file__).with_name("verdict.schema.json")

LIMIT_BYTES = 512 * 1024
LONGEST_NAME = 200
LONGEST_LINE = 600
MOST = 10_000
_ROOMS = (1000, 300, 100, 30, 10, 3, 1)
"""How many of each list are kept, tried in this order until the whole fits."""

Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
Text = Annotated[str, Field(max_length=LONGEST_LINE)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=255)]
Release = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+!-]*$", max_length=60)]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Names = Annotated[tuple[Name, ...], Field(max_length=MOST)]
Slugs = Annotated[tuple[Slug, ...], Field(max_length=MOST)]
Releases = Annotated[tuple[Release, ...], Field(max_length=MOST)]
Texts = Annotated[tuple[Text, ...], Field(max_length=MOST)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Part = TypeVar("Part", bound=_Part)


class Change(StrEnum):
    """What a pull request makes of a patch."""

    NEW = "new"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    GONE = "gone"


class Guard(_Part):
    """A file or folder that `guards` of a patch names, and how many tests are in it."""

    path: Name
    there: bool
    tests: int = Field(ge=0, le=1_000_000)


class PatchChange(_Part):
    """One patch of either series, by its files; `moved`: it has another place among those that stay."""

    slug: Slug
    title: Text
    change: Change
    moved: bool = False
    became: Literal["", "optional", "required"] = Field(default="", description="Its line in the series says so now")
    files: Names = Field(default=(), description="Files of its folder that are not as they were")
    range_diff: Texts = Field(default=(), description="`git range-diff` of its commit, where that differs")
    on_lane: Slug | Literal[""] = Field(default="", description="The lane on whose base its commits were compared")
    guards: Annotated[tuple[Guard, ...], Field(max_length=MOST)] = ()


class PatchRefusal(_Part):
    """A patch that does not apply, or that conflicts with others."""

    patch: Slug
    optional: bool
    files: Names = ()
    conflicts_with: Slugs = Field(default=(), description="Patches; none: the base itself")
    holds_up: Slugs = Field(default=(), description="Patches that stand on it, and so cannot be composed either")
    said: Texts


class LeftOutPatch(_Part):
    """A patch of the series that is not in a lane's stack, and need not be."""

    patch: Slug
    reason: Text
    detail: Text


class Stack(_Part):
    """A lane's required patches, and those optional ones that are on, composed on its base."""

    base: Name
    commit: Id | None = Field(default=None, description="None where a patch is refused")
    tree: Id | None = None
    patches: Slugs = Field(default=(), description="What is in it, in order")
    left_out: Annotated[tuple[LeftOutPatch, ...], Field(max_length=MOST)] = ()
    refusals: Annotated[tuple[PatchRefusal, ...], Field(max_length=MOST)] = ()

    @property
    def composes(self) -> bool:
        return not self.refusals


class LaneReview(_Part):
    """A lane's stack on either side; None where that side has no such lane, or cannot be read."""

    lane: Slug
    before: Stack | None
    after: Stack | None


class StaleFile(_Part):
    """A file that is not as the tool writes it."""

    file: Name
    patch: Slug | Literal[""] = Field(default="", description="Whose diff it is; none: `generate` writes it")


class Lint(_Part):
    """What `lint` says of the pull request, on the releases that are at hand for it."""

    problems: Texts = Field(default=(), description="file:line: path: problem: fix")
    refused: Texts = Field(default=(), description="What does not apply on a release that is no lane's base")
    stale: Annotated[tuple[StaleFile, ...], Field(max_length=MOST)] = ()
    tried_on: Releases = Field(default=(), description="Releases")
    left_to_lint: Releases = Field(default=(), description="Further releases of the diffs' ranges, not tried here")


class Fate(_Part):
    """What a night would make of a candidate; no reason: it is in."""

    reason: Text = ""
    twins: Names = ()
    files: Names = ()


class CandidateChange(_Part):
    """A candidate of tonight that fares otherwise with the pull request than without it."""

    lane: Slug
    name: Name
    title: Text
    author: Text
    before: Fate
    after: Fate


class Candidates(_Part):
    """Tonight's candidates, composed without the pull request and with it."""

    compared: int | None = Field(default=None, ge=0, le=1_000_000, description="None: not asked")
    why: Text = Field(default="", description="Why they were not asked")
    changes: Annotated[tuple[CandidateChange, ...], Field(max_length=MOST)] = ()


class Stopped(_Part):
    """What kept the review from saying all."""

    code: int = Field(ge=1, le=255, description="An exit code")
    said: Texts


class PatchVerdict(_Part):
    """The verdict on one pull request into main."""

    schema_version: Literal[1] = 1
    number: int | None = Field(default=None, gt=0, le=2_147_483_647, description="The pull request's; None: a branch")
    head: Id
    base: Id = Field(description="What it is compared with: main")
    before_problems: Texts = Field(default=(), description="Why main cannot be read")
    lanes: Annotated[tuple[LaneReview, ...], Field(max_length=MOST)] = ()
    patches: Annotated[tuple[PatchChange, ...], Field(max_length=MOST)] = ()
    lint: Lint = Lint()
    candidates: Candidates = Candidates()
    stopped: Stopped | None = None
    left_off: int = Field(default=0, ge=0, le=1_000_000_000, description="Lines and entries left off for size")

    @property
    def refusals(self) -> tuple[tuple[str, PatchRefusal], ...]:
        """Each with its lane."""
        stacks = ((lane.lane, lane.after) for lane in self.lanes if lane.after)
        return tuple((lane, refusal) for lane, stack in stacks for refusal in stack.refusals)

    @property
    def exit_code(self) -> int:
        """The gravest: 4 it does not compose, 3 lint has problems, 7 files are stale, or what stopped the review."""
        if self.refusals or self.lint.refused:
            return CompositionError.exit_code
        if self.lint.problems:
            return ConfigError.exit_code
        if self.lint.stale:
            return StaleFiles.exit_code
        return self.stopped.code if self.stopped else 0


# --- texts of any origin, made to fit ---


def name(text: str) -> str:
    return _cut(text, LONGEST_NAME) or "(no name)"


def line(text: str) -> str:
    return _cut(text, LONGEST_LINE)


def lines(text: str) -> tuple[str, ...]:
    """Each line of a text, empty ones left out at its end; the last says how many there were beyond `MOST`."""
    found = text.rstrip().split("\n") if text.strip() else []
    if len(found) > MOST:
        found = [*found[: MOST - 1], f"… {len(found) - MOST + 1} more lines"]
    return tuple(map(line, found))


def names(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(name, texts[:MOST]))


def _cut(text: str, limit: int) -> str:
    shown = readable(text)  # a byte that is no UTF-8 becomes longer
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


# --- as a file ---


def encode(verdict: PatchVerdict) -> str:
    """The verdict as JSON within its size; where it is too long each list is cut, and ``left_off`` counts."""
    for room in _ROOMS:
        kept, left_off = _with_room(verdict, room)
        text = kept.model_copy(update={"left_off": left_off}).model_dump_json(indent=1) + "\n"
        if len(text.encode()) <= LIMIT_BYTES:
            break
    return text


def _with_room(part: Part, room: int) -> tuple[Part, int]:
    """``part`` with at most ``room`` entries in each list, and how many are left off."""
    left_off = 0
    kept: dict[str, object] = {}
    for key, value in part:
        if isinstance(value, tuple):
            left_off += max(len(value) - room, 0)
            entries = []
            for entry in value[:room]:
                if isinstance(entry, _Part):
                    entry, lost = _with_room(entry, room)
                    left_off += lost
                entries.append(entry)
            kept[key] = tuple(entries)
        elif isinstance(value, _Part):
            kept[key], lost = _with_room(value, room)
            left_off += lost
    return part.model_copy(update=kept), left_off


def read(path: Path) -> PatchVerdict:
    """The verdict in a file that anybody may have written; `UsageError` says what it is instead."""
    data = _bytes_of(path)
    try:
        return PatchVerdict.model_validate_json(data)
    except ValidationError as error:
        # The input is left out, and a key's name is cut: both are somebody else's text.
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"][:8]) or "the whole file"
        count = error.error_count()
        raise UsageError(
            f"{path}: this is no verdict of this version ({count} {'problem' if count == 1 else 'problems'}; "
            f"{where}: {first['msg'][:200]}): nothing is done with it"
        ) from None


def _bytes_of(path: Path) -> bytes:
    try:
        # No link is followed: an archive can bring one, and what it leads to is none of the writer's.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{path}: it cannot be read as a plain file: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"{path}: it is no plain file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            data = stream.read(LIMIT_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > LIMIT_BYTES:
        raise UsageError(f"{path}: it is larger than a verdict may be ({LIMIT_BYTES} bytes): nothing is done with it")
    return data


def schema_text() -> str:
    """The JSON schema of the file, as it is committed beside this module."""
    schema = PatchVerdict.model_json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "verdict.json"}
    return json.dumps(schema, indent=2, ensure_ascii=True) + "\n"
