"""The tests of a file and their marks, read from its text: nothing of it is imported.

What pytest collects by the names of functions and classes is found here by the same names, also below `if`, `try`
and `with`: what a condition takes away was still promised.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Mark = ast.expr
"""``pytest.mark.NAME``, or a call of it."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class SourceTest:
    """One test function."""

    name: str
    """``TestClass::test_it``, or ``test_it``."""
    line: int
    marks: tuple[tuple[Mark, ...], ...]
    """Those that hold for it, by where they stand: the file, each class from outside in, the test itself."""

    @property
    def short(self) -> str:
        return self.name.rpartition("::")[2]


@dataclass(frozen=True)
class Repeated:
    """A name that is given twice in one body: Python keeps what it was given last, and forgets a test."""

    name: str
    line: int
    first_line: int


@dataclass(frozen=True)
class Source:
    """One file of tests."""

    tests: tuple[SourceTest, ...]
    repeated: tuple[Repeated, ...]
    unseen: tuple[tuple[str, int], ...]
    """Classes by name and line that pytest looks into for another reason than their name."""


def read_source(module: ast.Module) -> Source:
    repeated: list[Repeated] = []
    unseen: list[tuple[str, int]] = []
    tests = tuple(_tests(module, "", (tuple(_marks_of_body(module)),), repeated, unseen))
    return Source(tests, tuple(repeated), tuple(unseen))


def _tests(
    node: ast.Module | ast.ClassDef,
    prefix: str,
    around: tuple[tuple[Mark, ...], ...],
    repeated: list[Repeated],
    unseen: list[tuple[str, int]],
) -> Iterator[SourceTest]:
    lines: dict[str, int] = {}
    for child in _statements(node.body):
        is_test = isinstance(child, _Function) and child.name.startswith("test")
        is_class = isinstance(child, ast.ClassDef) and child.name.startswith("Test")
        if not isinstance(child, _Function | ast.ClassDef):
            # What is imported or assigned takes the place of a test, and answers for it by its name.
            again = [name for name in _bound_by(child) if name in lines]
            repeated += [Repeated(f"{prefix}{name}", child.lineno, lines[name]) for name in again]
            continue
        if isinstance(child, ast.ClassDef) and not is_class and _is_test_case(child):
            unseen.append((child.name, child.lineno))
        if is_test or is_class:
            if child.name in lines:
                repeated.append(Repeated(f"{prefix}{child.name}", child.lineno, lines[child.name]))
            lines.setdefault(child.name, child.lineno)
        if is_test:
            yield SourceTest(f"{prefix}{child.name}", child.lineno, (*around, tuple(child.decorator_list)))
        elif isinstance(child, ast.ClassDef) and is_class:
            own = (*child.decorator_list, *_marks_of_body(child))
            yield from _tests(child, f"{prefix}{child.name}::", (*around, own), repeated, unseen)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Every statement of ``body``, and of the blocks in it; not of functions and classes."""
    for statement in body:
        yield statement
        if not isinstance(statement, _Function | ast.ClassDef):
            for block in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, block, ()))
            for branch in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
                yield from _statements(branch.body)


def _bound_by(statement: ast.stmt) -> Iterator[str]:
    """Names that an import or an assignment gives."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in statement.names)
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def _is_test_case(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).endswith("TestCase") for base in node.bases)


def _marks_of_body(node: ast.Module | ast.ClassDef) -> list[Mark]:
    """What its ``pytestmark`` says."""
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        if isinstance(statement, ast.Assign | ast.AnnAssign) and "pytestmark" in map(ast.unparse, targets):
            marks = statement.value
            if marks is not None:
                return list(marks.elts) if isinstance(marks, ast.List | ast.Tuple) else [marks]
    return []


def named(marks: Sequence[Mark], name: str) -> list[Mark]:
    """Those of ``marks`` that are ``pytest.mark.NAME`` or ``mark.NAME``, called or not."""
    return [mark for mark in marks if is_mark(mark.func if isinstance(mark, ast.Call) else mark, name)]


def is_mark(node: ast.AST, name: str) -> bool:
    """Whether it is ``pytest.mark.NAME``, or ``mark.NAME``."""
    return isinstance(node, ast.Attribute) and node.attr == name and ast.unparse(node.value).split(".")[-1] == "mark"
