"""The scenarios of lanes that this machine does not run: known by reading their files, never by importing them.

They stand below ``tests/regression/gpu/`` and belong to the lane ``1-gpu``, unless a mark says another one:

    pytestmark = pytest.mark.lane("2-gpu")      # of a file

    @pytest.mark.lane("2-gpu")                  # of a test, or of a class
    def test_two_servers() -> None: ...
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchstack.config import Tests
from patchstack.errors import ConfigError
from patchstack.model import Scenario

GPU_GUARDS = "tests/regression/gpu"
GPU_LANE = "1-gpu"
LANES = tuple(lane for lane in Tests().lanes if lane != "cpu")
"""What a mark can say."""


def is_scenario(path: str) -> bool:
    """Whether this file or folder of guards is below ``tests/regression/gpu/``."""
    return f"{path.rstrip('/')}/".startswith(f"{GPU_GUARDS}/")


def find_scenarios(root: Path) -> tuple[Scenario, ...]:
    """Every test below ``root``'s GPU folder, by file and line; none where there is no such folder.

    `ConfigError` names every file that cannot be read so: a mark that is no plain lane, no test at all.
    """
    problems: list[str] = []
    found: list[Scenario] = []
    for path in sorted((root / GPU_GUARDS).rglob("test_*.py")):
        found += _Reading(path.relative_to(root).as_posix(), problems).read(path)
    if problems:
        raise ConfigError(problems)
    return tuple(found)


@dataclass
class _Reading:
    """One file, and what is wrong with it."""

    name: str
    problems: list[str]

    def read(self, path: Path) -> list[Scenario]:
        try:
            module = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            self.problems.append(f"{self.name}:{line}: : it is not Python ({error}): mend it")
            return []
        before = len(self.problems)
        tests = list(self._tests(module.body, self.name, self._of_module(module) or GPU_LANE))
        if not tests and len(self.problems) == before:
            self.problems.append(f"{self.name}:1: : it holds no test: write one, or remove the file")
        return tests

    def _tests(self, body: Sequence[ast.stmt], prefix: str, lane: str) -> Iterator[Scenario]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
                yield Scenario(self._marked(node.decorator_list) or lane, f"{prefix}::{node.name}")
            elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                within = self._marked(node.decorator_list) or self._of_module(node) or lane
                yield from self._tests(node.body, f"{prefix}::{node.name}", within)

    def _of_module(self, node: ast.Module | ast.ClassDef) -> str | None:
        """What its ``pytestmark`` says."""
        for statement in node.body:
            if isinstance(statement, ast.Assign) and any(
                ast.unparse(name) == "pytestmark" for name in statement.targets
            ):
                marks = statement.value
                return self._marked(marks.elts if isinstance(marks, ast.List | ast.Tuple) else [marks])
        return None

    def _marked(self, marks: Sequence[ast.expr]) -> str | None:
        """The lane that one of ``marks`` names."""
        for mark in marks:
            call = mark.func if isinstance(mark, ast.Call) else mark
            name = call.attr if isinstance(call, ast.Attribute) else call.id if isinstance(call, ast.Name) else ""
            if name != "lane":
                continue
            arguments = mark.args if isinstance(mark, ast.Call) else []
            said = arguments[0].value if len(arguments) == 1 and isinstance(arguments[0], ast.Constant) else None
            if said in LANES:
                return str(said)
            self.problems.append(
                f"{self.name}:{mark.lineno}: {ast.unparse(mark)}: it names no lane of scenarios: "
                f"write one of {', '.join(LANES)} as plain text"
            )
            return GPU_LANE
        return None
