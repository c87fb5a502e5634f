"""Which guards belong to which patch, and a digest of all that decides what they say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import ConfigError
from patchstack.regress.scenarios import GPU_GUARDS, is_scenario

BED_SUITE = "bed"
"""The bed's own controls; they run with every selection."""
BED_GUARDS = "tests/regression/bed"
BED_SUPPORT = ("locks", "standins", "testbed")
"""The folders of ``tests/support`` that guards run with; the others serve the tool's own tests."""
AROUND = ("conftest.py", "thresholds.yaml")
"""Files beside guards, or above them, that decide what they say."""


@dataclass(frozen=True)
class Suite:
    """The guards of one patch."""

    slug: str
    paths: tuple[str, ...]
    """Files or folders of tests, relative to the repository's root, with forward slashes."""
    digest: str
    """SHA-256 over the guards' files and the bed's support code."""


def find_suites(root: Path, guards: Iterable[tuple[str, Sequence[str]]]) -> tuple[Suite, ...]:
    """One suite for each ``(slug, paths)``, the bed's own first; `ConfigError` names every path that is wrong.

    A path below the GPU folder is checked too, and left to the lanes of `scenarios`.
    """
    problems: list[str] = []
    support = support_digest(root)
    suites: list[Suite] = []
    for slug, paths in ((BED_SUITE, (BED_GUARDS,)), *guards):
        header = f"patches/{slug}/patch.md" if suites or slug != BED_SUITE else BED_GUARDS
        found: list[Path] = []
        if suites and (slug == BED_SUITE or not paths):
            what = "no guards: name a folder" if slug != BED_SUITE else "its slug is the bed's own: rename the patch"
            problems.append(f"{header}:1: guards: {what}")
        for path in paths:
            target = root / path
            # Also where the repository itself is reached by a link, or by a path with `..` in it.
            if target.resolve() != root.resolve() / path:
                problems.append(f"{header}:1: guards: {path!r} leads out of the repository: name a folder in it")
            elif GPU_GUARDS.startswith(f"{path.rstrip('/')}/"):
                problems.append(f"{header}:1: guards: {path!r} holds {GPU_GUARDS} too: name the folders beside it")
            elif not _test_files(target):
                problems.append(f"{header}:1: guards: {path!r} holds no test_*.py: write the guard")
            elif not is_scenario(path):
                found.append(target)
        on_cpu = tuple(path.rstrip("/") for path in paths if not is_scenario(path))
        if paths and not on_cpu:
            problems.append(f"{header}:1: guards: all below {GPU_GUARDS}, where no CPU lane looks: add one beside it")
        around = {file for target in found for file in _around(root, target)}
        digest = hashlib.sha256(f"{support} {_digest_of(root, [*found, *around])}".encode()).hexdigest()
        suites.append(Suite(slug, on_cpu, digest))
    if problems:
        raise ConfigError(problems)
    return tuple(suites)


def support_digest(root: Path) -> str:
    """SHA-256 over what every guard runs with: the bed's locks and its support code."""
    return _digest_of(root, [root / "tests" / "support" / name for name in BED_SUPPORT])


def scenarios_digest(root: Path) -> str:
    """SHA-256 over the tests of all lanes but `cpu`, and what stands beside them."""
    return _digest_of(root, [root / GPU_GUARDS])


def lanes_digest(root: Path) -> str:
    """SHA-256 over all that decides what a rehearsal of those tests says: they, what is above, the bed's support."""
    folder = root / GPU_GUARDS
    return hashlib.sha256(
        f"{support_digest(root)} {_digest_of(root, [folder, *_around(root, folder)])}".encode()
    ).hexdigest()


def files_of(root: Path, suite: Suite) -> tuple[str, ...]:
    """Every test file of ``suite``, relative to ``root``, each once, in pytest's order."""
    return guard_files(root, suite.paths)


def guard_files(root: Path, paths: Iterable[str]) -> tuple[str, ...]:
    """Every test file of these files and folders of ``root``, relative to it, each once, in pytest's order."""
    files = (file for path in paths for file in _test_files(root / path))
    return tuple(dict.fromkeys(file.relative_to(root).as_posix() for file in files))


def _around(root: Path, target: Path) -> list[Path]:
    """What pytest and guards read on the way from the root to ``target``."""
    folders = [target, *target.parents]
    files = [folder / name for folder in folders[: folders.index(root) + 1] for name in AROUND]
    return [file for file in files if file.is_file()]


def _test_files(target: Path) -> list[Path]:
    if target.is_file():
        return [target] if target.name.startswith("test_") and target.suffix == ".py" else []
    return sorted(target.rglob("test_*.py"))


def _digest_of(root: Path, targets: Iterable[Path]) -> str:
    files = {
        file
        for target in targets
        for file in ([target] if target.is_file() else target.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    total = hashlib.sha256()
    for file in sorted(files):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{content} {file.relative_to(root).as_posix()}\n".encode())
    return total.hexdigest()
