"""Which definition of a Python file a line belongs to, from its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

MODULE = "the module itself"
"""A line that is in no `def` and no `class`."""


@dataclass(frozen=True)
class _Span:
    first: int
    last: int
    name: str


@dataclass(frozen=True)
class Outline:
    """The definitions of one file, outer ones before inner ones."""

    spans: tuple[_Span, ...]

    @classmethod
    def of(cls, source: bytes) -> Outline:
        """Raises `SyntaxError` when it is not Python for the interpreter that runs this."""
        try:
            return cls(tuple(_spans(ast.parse(source), "")))
        except ValueError as error:  # a NUL byte
            raise SyntaxError(str(error)) from error

    def at(self, line: int) -> str:
        """The qualified name of the innermost definition around ``line`` (counted from 1)."""
        around = [span for span in self.spans if span.first <= line <= span.last]
        return around[-1].name if around else MODULE


def _spans(node: ast.AST, prefix: str) -> Iterator[_Span]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{child.name}" if prefix else child.name
            first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
            yield _Span(first, child.end_lineno or child.lineno, name)
            yield from _spans(child, name)
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _spans(child, prefix)
