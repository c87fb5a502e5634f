"""A patch's front matter, and `Patch`: all that is written about one patch of the stack.

The list of keys is complete: an unknown key is refused, and all problems of a file are named at once as
``file:line: path: problem: fix``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from patchstack.ids import OWNER
from patchstack.patches.variants import Variant
from patchstack.yamltext import YamlProblem, compose_mapping, construct, line_of, repeated_keys

HEADER_NAME = "patch.md"
MUTANTS = "mutants"
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Need(StrEnum):
    """What a patch is on the releases that a key of `bases` matches."""

    NEEDED = "needed"
    HARDENING = "hardening"


@dataclass(frozen=True)
class Patch:
    """One patch of the stack: its front matter, its prose and its diffs."""

    slug: str
    title: str
    owner: str
    upstream_status: str
    upstream: tuple[str, ...]
    requires: tuple[str, ...]
    bases: tuple[tuple[str, Need], ...]
    """PEP 440 specifier or exact version, and what the patch is there; the first that matches counts."""
    guards: tuple[str, ...]
    """Test files or folders, relative to the repository's root."""
    mutants: tuple[str, ...]
    """Diffs of our own code, each a file ``NAME.patch`` of ``mutants/`` in ``folder``."""
    kill_switch: str
    """``NAME=value``: the environment variable that switches the patch off."""
    remove_when: str
    prose: str
    prose_line: int
    """The line of `patch.md` at which ``prose`` begins."""
    optional: bool
    folder: Path
    variants: tuple[Variant, ...]
    """Its diffs, by the lowest release that each is for."""
    digest: str
    """SHA-256 over front matter, diffs and mutants (a change of the prose alone changes no night)."""

    @property
    def header_path(self) -> Path:
        return self.folder / HEADER_NAME

    @property
    def switch_name(self) -> str:
        """The environment variable of the kill switch."""
        return self.kill_switch.partition("=")[0]

    @property
    def author(self) -> str:
        """The author of its newest diff, or the owner while it has none."""
        if not self.variants:
            return self.owner
        author = self.variants[-1].mail.author
        return f"{author.name} <{author.email}>"

    def need_on(self, version: str) -> Need | None:
        """What the patch is on that release; None when no key of `bases` matches it."""
        return next((need for key, need in self.bases if _specifier(key).contains(version, prereleases=True)), None)

    def variant_for(self, version: str) -> Variant | None:
        return next((variant for variant in self.variants if variant.covers(version)), None)


def _specifier(key: str) -> SpecifierSet:
    """``0.5.12.post1`` means exactly that release; everything else is a PEP 440 specifier."""
    try:
        return SpecifierSet(f"=={Version(key)}")
    except InvalidVersion:
        return SpecifierSet(key)


def _release_key(value: str) -> str:
    try:
        if not value.strip():
            raise InvalidSpecifier
        _specifier(value)
    except InvalidSpecifier:
        raise ValueError(
            f"{value!r} is neither a release nor a PEP 440 specifier: write 0.5.12.post1 or '>=0.5.22'"
        ) from None
    return value


def _one_line(value: str) -> str:
    if value != value.strip() or "\n" in value:
        raise ValueError("it must be one line without space around it: write it on one line, in quotes")
    return value


def _path_inside(value: str) -> str:
    parts = value.rstrip("/").split("/")
    if value.startswith("/") or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"{value!r} leads out of its folder: write a plain relative path")
    return value


def _mutant_file(value: str) -> str:
    name, dot, ending = _path_inside(value).partition(".")
    if not SLUG.fullmatch(name) or f"{dot}{ending}" != ".patch":
        raise ValueError(f"{value!r} is no name of a mutant: write lower-case words joined by '-', and `.patch`")
    return value


def _each_once(values: list[str]) -> list[str]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands twice: keep one")
    return values


_Line = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
_Slug = Annotated[str, Field(pattern=rf"^{SLUG.pattern}$")]
_Url = Annotated[str, Field(pattern=r"^https://\S+$")]
_PathInside = Annotated[str, Field(min_length=1), AfterValidator(_path_inside)]


class _FrontMatter(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    title: _Line
    owner: str = Field(pattern=OWNER)
    upstream_status: str = Field(
        alias="upstream-status", pattern=r"^(Backport|Submitted|Pending|Denied|Inappropriate) \[[^\[\]]+\]$"
    )
    upstream: list[_Url]
    requires: list[_Slug]
    bases: dict[Annotated[str, AfterValidator(_release_key)], Literal["needed", "hardening"]] = Field(min_length=1)
    guards: list[_PathInside] = Field(min_length=1)
    mutants: Annotated[list[Annotated[str, AfterValidator(_mutant_file)]], AfterValidator(_each_once)]
    kill_switch: str = Field(alias="kill-switch", pattern=r"^[A-Z][A-Z0-9_]*=\S+$")
    remove_when: _Line = Field(alias="remove-when")


_FIXES = {
    "extra_forbidden": "remove the key, or mend its spelling",
    "missing": "add it",
    "string_type": "write a text in quotes",
    "list_type": "write a list: [a, b]",
    "dict_type": 'write a mapping: {"0.5.12.post1": needed}',
    "string_too_short": "write one",
    "too_short": "name at least one",
    "literal_error": "write needed or hardening",
}
_FORMS = {
    "owner": '"@organisation/team"',
    "upstream-status": '"Backport [0.5.13]", or Submitted [url], Pending [why], Denied [url], Inappropriate [why]',
    "upstream": '"https://…"',
    "requires": "a slug: lower-case words joined by '-'",
    "kill-switch": '"SGLANG_SOMETHING=0"',
}


def read_header(folder: Path, *, optional: bool, variants: tuple[Variant, ...]) -> tuple[Patch | None, list[str]]:
    """The patch whose `patch.md` stands in ``folder``, and every problem of that file (then no patch)."""
    path = folder / HEADER_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None, [f"{path}:1: (the whole file): it is not there: write it, with front matter and prose"]
    except UnicodeDecodeError as error:
        return None, [f"{path}:1: (the whole file): not UTF-8 ({error.reason}): save it as UTF-8"]
    split = _split(text)
    if split is None:
        return None, [f"{path}:1: (front matter): it must stand between two lines `---`: begin the file with one"]
    yaml_text, prose = split
    # One newline stands for the opening line, so that YAML counts lines as the file does.
    try:
        root = compose_mapping("\n" + yaml_text)
        raw = construct(root)
    except YamlProblem as problem:
        line = max(problem.line, 2)
        return None, [f"{path}:{line}: (front matter): {problem}: write `key: value` lines"]
    found = [(line, f"{key}: the key stands twice: keep one") for line, key in repeated_keys(root)]
    try:
        front = _FrontMatter.model_validate(raw)
    except ValidationError as error:
        found += [_problem(root, detail["loc"], detail["type"], detail["msg"]) for detail in error.errors()]
        front = None
    if front is None or found:
        return None, [f"{path}:{line}: {problem}" for line, problem in sorted(found)]
    return _patch(folder, front, yaml_text, prose, optional, variants), []


def line_of_key(patch: Patch, key: str) -> int:
    """The line of `patch.md` on which a key of the front matter stands."""
    lines = patch.header_path.read_text(encoding="utf-8").splitlines()
    return next((number for number, line in enumerate(lines, 1) if re.match(rf"{key}\s*:", line)), 1)


def _split(text: str) -> tuple[str, str] | None:
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].rstrip() != "---":
        return None
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        return None
    return "".join(lines[1:end]), "".join(lines[end + 1 :])


def _problem(root: yaml.Node, loc: tuple[int | str, ...], kind: str, message: str) -> tuple[int, str]:
    location = tuple(part for part in loc if part != "[key]")
    where = ".".join(map(str, location)) or "(front matter)"
    message = message.removeprefix("Value error, ")
    key = str(location[0]) if location else ""
    if kind == "string_pattern_mismatch":
        return line_of(root, location), f"{where}: not of the right form: write {_FORMS.get(key, 'it as the others')}"
    fix = _FIXES.get(kind)
    text = f"{where}: {message}: {fix}" if fix else f"{where}: {message}" + ("" if ": " in message else ": mend it")
    return line_of(root, location), text


def _patch(
    folder: Path, front: _FrontMatter, yaml_text: str, prose: str, optional: bool, variants: tuple[Variant, ...]
) -> Patch:
    total = hashlib.sha256(yaml_text.encode())
    for file in [variant.path for variant in variants] + sorted((folder / MUTANTS).glob("**/*")):
        if file.is_file():
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            total.update(f"\0{file.relative_to(folder).as_posix()}\0{content}".encode())
    return Patch(
        slug=folder.name,
        title=front.title,
        owner=front.owner,
        upstream_status=front.upstream_status,
        upstream=tuple(front.upstream),
        requires=tuple(front.requires),
        bases=tuple((key, Need(need)) for key, need in front.bases.items()),
        guards=tuple(front.guards),
        mutants=tuple(front.mutants),
        kill_switch=front.kill_switch,
        remove_when=front.remove_when,
        prose=prose,
        prose_line=yaml_text.count("\n") + 3,
        optional=optional,
        folder=folder,
        variants=variants,
        digest=total.hexdigest(),
    )
