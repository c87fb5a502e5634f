"""What every test below ``tests/regression/`` says of itself: known by reading its file, never by importing it.

    pytestmark = pytest.mark.lane("1-gpu", est_s=240, guards=["pd-abort-notify"], owner="@acme/pd")

    @pytest.mark.lane("2-gpu", est_s=600)
    def test_two_ranks() -> None: ...

The mark stands on a test, on a class, or in ``pytestmark``; of each key the nearest counts. A scenario that looks at
the whole, as throughput does, says ``guards=[]``. A test of a patch that
runs on a CPU needs none: its lane is `cpu`, it guards the patches whose front matter names its file, and their owner
is its own. The bed's own controls are looked after by ``OWNER`` in the bed's ``conftest.py``.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from patchstack.errors import ConfigError
from patchstack.ids import OWNER
from patchstack.model import Scenario
from patchstack.regress.scenarios import GPU_GUARDS, is_scenario
from patchstack.regress.source import Mark, Source, is_mark, named, read_source
from patchstack.regress.suites import BED_GUARDS

GUARDS = "tests/regression"
CPU = "cpu"
MARK = "lane"
KEYS = ("est_s", "guards", "owner")
"""What the mark can say besides the lane."""
BED_OWNER = "OWNER"
_Value = str | float | tuple[str, ...]


@dataclass(frozen=True)
class Guarding:
    """What a patch's front matter says of its guards."""

    slug: str
    owner: str
    paths: tuple[str, ...]
    """Files and folders, relative to the repository's root."""

    def has(self, file: str) -> bool:
        return any(f"{file}/".startswith(f"{path.rstrip('/')}/") for path in self.paths)


@dataclass(frozen=True)
class Declared:
    """One test, whatever its parameters."""

    test: str
    """pytest's node id, from the repository's root, without parameters."""
    lane: str
    est_s: float | None
    """Seconds that it is said to take; None where that is not said."""
    guards: tuple[str, ...]
    """The slugs of the patches that it is for; none of the bed's own controls, and of what looks at the whole."""
    owner: str
    """Who looks after it; empty where nobody is named."""

    @property
    def file(self) -> str:
        return self.test.partition("::")[0]


def read_declared(root: Path, lanes: Collection[str], patches: Sequence[Guarding]) -> tuple[Declared, ...]:
    """Every test below ``root``'s guards, by file and by its place there; none where there is no such folder.

    ``lanes`` are those of deploy.yaml, ``patches`` the whole series. `ConfigError` names every problem of every file.
    """
    problems: list[str] = []
    found: list[Declared] = []
    bed_owner = _bed_owner(root, problems)
    for path in sorted((root / GUARDS).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if path.name.startswith("test_"):
            found += _File(name, lanes, patches, bed_owner, problems).read(path)
        elif path.name.endswith("_test.py"):
            problems.append(f"{name}:1: : pytest takes it for tests, and a night does not: call it test_*.py")
    problems += _unguarding(patches, found)
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def scenarios_of(declared: Iterable[Declared], lane: str) -> tuple[Scenario, ...]:
    """Those that another lane than ``lane`` would run."""
    return tuple(Scenario(test.lane, test.test) for test in declared if test.lane != lane)


def bare(test: str) -> str:
    """A node id without parameters: of ``a.py::test_it[x::y]`` ``a.py::test_it``."""
    file, divider, name = test.partition("::")
    return f"{file}{divider}{name.partition('[')[0]}"


def _unguarding(patches: Sequence[Guarding], found: Sequence[Declared]) -> Iterator[str]:
    """Patches that name a file of scenarios none of which is said to guard them."""
    for patch in patches:
        for path in filter(is_scenario, patch.paths):
            below = [test for test in found if Guarding("", "", (path,)).has(test.file)]
            if below and not any(patch.slug in test.guards for test in below):
                yield (
                    f"patches/{patch.slug}/patch.md:1: guards: no test of {path!r} says that it guards {patch.slug}: "
                    f"add it to `guards` of the mark there, or take the path out"
                )


def _bed_owner(root: Path, problems: list[str]) -> str:
    """What ``OWNER`` is in the bed's conftest.py; empty where it has none."""
    name = f"{BED_GUARDS}/conftest.py"
    try:
        module = ast.parse((root / name).read_bytes())
    except (FileNotFoundError, SyntaxError, ValueError):  # pytest says so when it reads the file
        return ""
    for statement in module.body:
        if isinstance(statement, ast.Assign) and BED_OWNER in map(ast.unparse, statement.targets):
            owner = _owner(statement.value)
            if owner is None:
                problems.append(f'{name}:{statement.lineno}: {BED_OWNER}: it names nobody: write "@organisation/team"')
            return owner or ""
    return ""


@dataclass
class _File:
    """One file, and what is wrong with it."""

    name: str
    lanes: Collection[str]
    patches: Sequence[Guarding]
    bed_owner: str
    problems: list[str]
    read_marks: dict[int, dict[str, _Value]] = field(default_factory=dict)
    """What each mark says, by the identity of its node: many tests share a file's."""

    def read(self, path: Path) -> list[Declared]:
        try:
            module = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            self.problems.append(f"{self.name}:{line}: : it is not Python ({error}): mend it")
            return []
        source = read_source(module)
        self._require_readable(module, source)
        slugs, owner = self._by_place()
        in_place = self._is_placed(slugs)
        tests = []
        for test in source.tests:
            said = self._said(test.marks)
            if in_place:
                self._require_whole(test.line, test.name, said)
            tests.append(
                Declared(
                    f"{self.name}::{test.name}",
                    str(said.get(MARK, CPU)),
                    float(str(said["est_s"])) if "est_s" in said else None,
                    guards if isinstance(guards := said.get("guards"), tuple) else slugs,
                    str(said.get("owner", owner)),
                )
            )
        return tests

    def _problem(self, line: int, what: str, text: str) -> None:
        problem = f"{self.name}:{line}: {what}: {text}"
        if problem not in self.problems:
            self.problems.append(problem)

    def _by_place(self) -> tuple[tuple[str, ...], str]:
        """Whom a test of this file guards and who looks after it, unless it says so itself."""
        if f"{self.name}/".startswith(f"{BED_GUARDS}/"):
            return (), self.bed_owner
        naming = [patch for patch in self.patches if patch.has(self.name)]
        return tuple(patch.slug for patch in naming), naming[0].owner if naming else ""

    def _is_placed(self, slugs: Sequence[str]) -> bool:
        """Whether somebody runs it."""
        if is_scenario(self.name) or slugs or f"{self.name}/".startswith(f"{BED_GUARDS}/"):
            return True
        self._problem(1, "", "no patch names it, so that nobody runs it: name it under `guards` of a patch.md")
        return False

    def _require_readable(self, module: ast.Module, source: Source) -> None:
        """All that keeps a reader from knowing which tests there are and what they say."""
        if not source.tests:
            self._problem(1, "", "it holds no test: write one, or remove the file")
        for name, line in source.unseen:
            self._problem(line, name, "pytest runs its tests, and a reader does not see them: begin its name with Test")
        for again in source.repeated:
            text = f"it stands on line {again.first_line} already, and only the last one would run: rename one"
            self._problem(again.line, again.name, text)
        calls = {id(node.func): node for node in ast.walk(module) if isinstance(node, ast.Call)}
        where = {id(mark) for test in source.tests for marks in test.marks for mark in marks}
        for node in ast.walk(module):
            if is_mark(node, MARK) and id(calls.get(id(node), node)) not in where:
                line = getattr(node, "lineno", 1)
                self._problem(line, MARK, "it holds for no test: put it on a test, a class, or into pytestmark")

    def _said(self, around: Sequence[Sequence[Mark]]) -> dict[str, _Value]:
        """All that the marks of one test say: the nearest of each key."""
        said: dict[str, _Value] = {}
        for marks in around:
            here: dict[str, _Value] = {}
            for mark in named(marks, MARK):
                read = self.read_marks.get(id(mark))
                if read is None:
                    read = self.read_marks[id(mark)] = dict(self._read_mark(mark))
                for key in sorted(here.keys() & read.keys()):
                    self._problem(mark.lineno, f"{MARK}.{key}", "two marks of one place say it: keep one")
                here |= read
            said |= here
        return said

    def _read_mark(self, mark: Mark) -> Iterator[tuple[str, _Value]]:
        call = mark if isinstance(mark, ast.Call) else None
        if call is None or not (call.args or call.keywords):
            text = f'it says nothing: write {MARK}("{next(iter(self.lanes), CPU)}"), or one of {", ".join(KEYS)}'
            self._problem(mark.lineno, MARK, text)
            return
        if call.args:
            lane = self._lane(call)
            if lane is not None:
                yield MARK, lane
        for keyword in call.keywords:
            if keyword.arg not in KEYS:
                text = f"the mark has no such key: write one of {', '.join(KEYS)}"
                self._problem(mark.lineno, f"{MARK}.{keyword.arg or ast.unparse(keyword)}", text)
                continue
            value, fix = self._value(keyword.arg, keyword.value)
            if value is None:
                text = f"{ast.unparse(keyword.value)} {fix}"
                self._problem(keyword.value.lineno, f"{MARK}.{keyword.arg}", text)
            else:
                yield keyword.arg, value

    def _lane(self, call: ast.Call) -> str | None:
        """The lane that it names, where it is one that a test of this place can be of."""
        said = call.args[0].value if len(call.args) == 1 and isinstance(call.args[0], ast.Constant) else None
        if not isinstance(said, str) or said not in self.lanes:
            known = ", ".join(self.lanes)
            self._problem(call.lineno, ast.unparse(call), f"it is no lane of deploy.yaml: write one of {known}")
        elif is_scenario(self.name) and said == CPU:
            self._problem(call.lineno, ast.unparse(call), f"no CPU lane looks below {GPU_GUARDS}: move it beside it")
        elif not is_scenario(self.name) and said != CPU:
            self._problem(call.lineno, ast.unparse(call), f"lane {CPU} would run it here: move it below {GPU_GUARDS}")
        else:
            return said
        return None

    def _value(self, key: str, node: ast.expr) -> tuple[_Value | None, str]:
        """A key's value, and what to say of a wrong one."""
        if key == "owner":
            return _owner(node), 'names nobody: write "@organisation/team"'
        if key == "est_s":
            return _seconds(node), "is no number of seconds above 0: write est_s=240"
        slugs = _texts(node)
        if is_scenario(self.name) and isinstance(node, ast.List) and not node.elts:
            return (), ""  # it looks at the whole
        if not slugs:
            return None, 'is no list of slugs: write guards=["pd-abort-notify"]'
        known = [patch.slug for patch in self.patches]
        unknown = [slug for slug in slugs if slug not in known]
        return None if unknown else slugs, f"names no patch of the series: it has {', '.join(known) or 'none'}"

    def _require_whole(self, line: int, name: str, said: dict[str, _Value]) -> None:
        """Below the folder for GPUs nothing goes without saying."""
        absent = [key for key in (MARK, *KEYS) if key not in said]
        if is_scenario(self.name) and absent and not self._has_problems():
            text = f"it does not say its {', '.join(absent)}: write "
            example = f'@pytest.mark.{MARK}("1-gpu", est_s=240, guards=["slug"], owner="@organisation/team")'
            self._problem(line, name, text + example)

    def _has_problems(self) -> bool:
        """A key that could not be read is not absent."""
        return any(problem.startswith(f"{self.name}:") for problem in self.problems)


def _owner(node: ast.expr) -> str | None:
    said = node.value if isinstance(node, ast.Constant) else None
    return said if isinstance(said, str) and re.fullmatch(OWNER, said) else None


def _seconds(node: ast.expr) -> float | None:
    said = node.value if isinstance(node, ast.Constant) else None
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    return float(said) if math.isfinite(said) and said > 0 else None


def _texts(node: ast.expr) -> tuple[str, ...]:
    """A list of plain texts; none where it is anything else."""
    values = [each.value for each in node.elts if isinstance(each, ast.Constant)] if isinstance(node, ast.List) else []
    texts = tuple(value for value in values if isinstance(value, str))
    return texts if isinstance(node, ast.List) and len(texts) == len(node.elts) else ()
