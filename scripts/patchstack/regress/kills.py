"""Which mutants a patch's guards say that they kill: known by reading their files, never by importing them.

    @pytest.mark.kills("no-broadcast", "one-string")
    def test_every_rank_is_told(children: Children) -> None: ...

The mark may stand on a test, a class, in ``pytestmark``, or at one of a test's parameters. What pytest itself
sees of it comes back with each result; this tells beforehand which files are worth a process on which tree.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchstack.errors import ConfigError
from patchstack.model import KillMark
from patchstack.regress.source import SourceTest, is_mark, named, read_source
from patchstack.regress.suites import Suite

MARK, CONTROL = "kills", "control"


@dataclass(frozen=True)
class KillFile:
    """What one file of guards says."""

    path: str
    """Relative to the repository's root, with forward slashes."""
    kills: tuple[KillMark, ...]
    every_test: bool
    """It has tests, and each is marked as a whole: none of them runs on a ground."""

    @property
    def mutants(self) -> frozenset[str]:
        return frozenset(mark.mutant for mark in self.kills)


def read_kills(root: Path, files: Iterable[str]) -> tuple[KillFile, ...]:
    """Every one of ``files``; `ConfigError` names each mark that cannot be read so, by file and line."""
    problems: list[str] = []
    found = tuple(_read(root, file, problems) for file in files)
    if problems:
        raise ConfigError(problems)
    return found


def _read(root: Path, file: str, problems: list[str]) -> KillFile:
    try:
        module = ast.parse((root / file).read_bytes())
    except (SyntaxError, ValueError):
        return KillFile(file, (), False)  # pytest says so when it collects the file
    calls = {id(node.func): node for node in ast.walk(module) if isinstance(node, ast.Call)}
    kills: list[KillMark] = []
    for node in ast.walk(module):
        if not isinstance(node, ast.Attribute) or not is_mark(node, MARK):
            continue
        arguments = calls[id(node)].args if id(node) in calls else []
        names = [name.value for name in arguments if isinstance(name, ast.Constant) and isinstance(name.value, str)]
        if not names or len(names) != len(arguments):
            problems.append(f"{file}:{node.lineno}: {MARK}: it names no mutant: write their names as plain text")
        kills += [KillMark(file, node.lineno, name) for name in names]
    tests = read_source(module).tests
    for test in tests:
        if _has(test, MARK) and _has(test, CONTROL):
            problems.append(
                f"{file}:{test.line}: {test.short}: a control passes on every tree and kills no mutant: keep one mark"
            )
    kills.sort(key=lambda mark: mark.line)
    return KillFile(file, tuple(kills), bool(tests) and all(_has(test, MARK) for test in tests))


def _has(test: SourceTest, mark: str) -> bool:
    """Whether the mark holds for all of it."""
    return any(named(marks, mark) for marks in test.marks)


def on_ground(suite: Suite, files: Sequence[KillFile]) -> Suite | None:
    """``suite`` without the files of which no test runs on a ground; None where none is left."""
    left = tuple(file.path for file in files if not file.every_test)
    if len(left) == len(files):
        return suite
    return replace(suite, paths=left) if left else None


def on_mutant(suite: Suite, files: Sequence[KillFile], mutant: str) -> Suite | None:
    """The files of ``suite`` with a test that kills ``mutant``; None where there is none."""
    left = tuple(file.path for file in files if mutant in file.mutants)
    return replace(suite, paths=left) if left else None
