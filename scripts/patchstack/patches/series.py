"""`patches/series`: the order of the stack, one slug a line, ``#`` begins a comment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import ConfigError
from patchstack.patches.header import SLUG, Patch, line_of_key, read_header
from patchstack.patches.variants import read_variants

SERIES_NAME = "series"
OPTIONAL = "optional"


@dataclass(frozen=True)
class _Line:
    number: int
    slug: str
    optional: bool


def read_series(patches_folder: Path) -> tuple[Patch, ...]:
    """Every patch of the stack, in order.

    `ConfigError` names every problem of the series and of every `patch.md` and diff file at once.
    """
    path = patches_folder / SERIES_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}:1: (the whole file): it is not there: write one slug a line"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}:1: (the whole file): not UTF-8 ({error.reason}): save it as UTF-8"]) from error
    lines, problems = _lines(path, text)
    listed = {line.slug for line in lines}
    for folder in sorted(patches_folder.iterdir()):
        if folder.is_dir() and folder.name not in listed:
            problems.append(
                f"{path}:1: {folder.name}: this folder's patch is not in the series: add its line, or remove the folder"
            )
    patches: list[tuple[_Line, Patch]] = []
    for line in lines:
        folder = patches_folder / line.slug
        if not folder.is_dir():
            problems.append(f"{path}:{line.number}: {line.slug}: it has no folder: make {folder}, or remove the line")
            continue
        variants, found = read_variants(folder)
        patch, more = read_header(folder, optional=line.optional, variants=variants)
        problems += more + found
        if patch is not None:
            patches.append((line, patch))
    problems += _requirement_problems(patches, listed)
    if problems:
        raise ConfigError(problems)
    return tuple(patch for _, patch in patches)


def _lines(path: Path, text: str) -> tuple[list[_Line], list[str]]:
    lines: list[_Line] = []
    problems: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.partition("#")[0].split()
        if not words:
            continue
        slug, marks = words[0], words[1:]
        if not SLUG.fullmatch(slug):
            problems.append(f"{path}:{number}: {slug}: not a slug: write lower-case words joined by '-'")
        elif any(line.slug == slug for line in lines):
            first = next(line.number for line in lines if line.slug == slug)
            problems.append(f"{path}:{number}: {slug}: it stands on line {first} already: keep one")
        elif marks not in ([], [OPTIONAL]):
            problems.append(
                f"{path}:{number}: {slug}: {' '.join(marks)!r} behind it means nothing: write `optional`, or nothing"
            )
        else:
            lines.append(_Line(number, slug, bool(marks)))
    return lines, problems


def _requirement_problems(patches: list[tuple[_Line, Patch]], listed: set[str]) -> list[str]:
    problems = []
    read = {patch.slug: patch for _, patch in patches}
    before: set[str] = set()
    for _, patch in patches:
        where = f"{patch.header_path}:{line_of_key(patch, 'requires')}: requires"
        for slug in patch.requires:
            if slug == patch.slug:
                problems.append(f"{where}: it names the patch itself: remove {slug}")
            elif slug not in listed:
                problems.append(f"{where}: no patch of the series is called {slug}: mend the name, or add it")
            elif slug in read and slug not in before:
                problems.append(f"{where}: {slug} comes later in the series: move it up, before {patch.slug}")
            elif slug in read and read[slug].optional and not patch.optional:
                problems.append(f"{where}: {slug} is optional and {patch.slug} is not: make both the same")
        before.add(patch.slug)
    return problems


def with_required(patches: tuple[Patch, ...], slug: str) -> tuple[Patch, ...]:
    """The patch and all that it requires, directly or not, in series order."""
    wanted = {slug}
    for patch in reversed(patches):
        if patch.slug in wanted:
            wanted |= set(patch.requires)
    return tuple(patch for patch in patches if patch.slug in wanted)
