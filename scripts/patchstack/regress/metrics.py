"""``tests/regression/metrics.yaml``: which numbers guards measure, and how far off they may be.

What scenarios of other lanes than ``cpu`` measure stands in ``tests/regression/gpu/metrics.yaml``, with the same keys.

All problems are named at once, as in deploy.yaml. A test measures with the bed's fixture ``measure``.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from patchstack.errors import ConfigError
from patchstack.regress.scenarios import GPU_GUARDS
from patchstack.regress.suites import Suite, files_of
from patchstack.yamltext import YamlProblem, compose_mapping, construct, line_of, problem_of, repeated_keys, text_of

FILE = "tests/regression/metrics.yaml"
OF_SCENARIOS = f"{GPU_GUARDS}/metrics.yaml"
_NOT_MEASURING = {
    FILE: f"no guard of lane cpu: what other lanes measure stands in {OF_SCENARIOS}",
    OF_SCENARIOS: f"no scenario of another lane than cpu: what guards measure stands in {FILE}",
}


class Better(StrEnum):
    HIGHER = "higher"
    LOWER = "lower"
    EQUAL = "equal"
    """Each sample is to be the one at its place of the last promoted image: a digest, of which no band is made."""


@dataclass(frozen=True)
class Metric:
    """One number that a guard measures, several times a night."""

    name: str
    unit: str
    better: Better
    test: str
    """pytest's node id, from the repository's root, without parameters."""
    floor_share: float
    """What is off by less is not worse: a share of what it is compared with, of 1."""
    alone_share: float | None = None
    """Worse than the last promoted tree by this share is red also without a band; None: never."""

    @property
    def file(self) -> str:
        return self.test.partition("::")[0]


@dataclass(frozen=True)
class Measuring:
    """The tests of one suite that measure, as a suite of their own, and what they measure."""

    suite: Suite
    metrics: tuple[Metric, ...]

    @property
    def files(self) -> Suite:
        """The same by file, as results are held against."""
        return replace(self.suite, paths=tuple(dict.fromkeys(metric.file for metric in self.metrics)))


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    unit: str = Field(min_length=1, max_length=80, pattern=r"^[ -~]+$")
    better: Better
    test: str = Field(pattern=r"^tests/regression/[\w/-]*test_\w+\.py(::\w+)+$")
    floor_share: float = Field(gt=0, le=10)
    alone_share: float | None = Field(default=None, gt=0, le=100)

    @model_validator(mode="after")
    def _alone_is_more(self) -> _Entry:
        if self.alone_share is not None and self.alone_share < self.floor_share:
            raise ValueError("alone_share is less than floor_share: what is not worse would be red; make it larger")
        return self


_File = TypeAdapter(dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,79}$")], _Entry])

_FIXES = {
    "extra_forbidden": "remove the key, or mend its spelling",
    "missing": "add it",
    "string_type": "write it as text",
    "float_type": "write a number, such as 0.2",
    "dict_type": "write `metric: {unit: ..., better: ..., test: ..., floor_share: ...}`",
    "model_type": "write a mapping with unit, better, test and floor_share",
    "greater_than": "write a share above 0, such as 0.2 for 20 %",
    "less_than_equal": "write a share of 1, such as 0.2 for 20 %",
}


def metrics_digest(root: Path) -> str:
    """SHA-256 of the files; nothing where there is none."""
    found = [path.read_bytes() for path in (root / FILE, root / OF_SCENARIOS) if path.is_file()]
    return hashlib.sha256(b"\0".join(found)).hexdigest() if found else ""


def read_metrics(root: Path, tests: Collection[str] | None = None, *, file: str = FILE) -> tuple[Metric, ...]:
    """The metrics of the repository at ``root``, in the file's order; none where there is no such ``file``.

    ``tests`` are all those that may measure for it, where that is known: guards of lane ``cpu``, or for `OF_SCENARIOS`
    those of other lanes. Raises `ConfigError` with every problem, each as ``file:line: path: problem: fix``.
    """
    path = root / file
    text = text_of(path)
    if text is None:
        return ()
    if all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines()):
        return ()
    try:
        node = compose_mapping(text)
        values = construct(node)
    except YamlProblem as problem:
        fix = "write `metric: {unit: ..., better: ..., test: ..., floor_share: ...}`"
        raise ConfigError([f"{path}:{problem.line}: : {problem}: {fix}"]) from problem
    problems = [(line, f"{where}: it stands twice: keep one") for line, where in repeated_keys(node)]
    entries: dict[str, _Entry] = {}
    try:
        entries = _File.validate_json(json.dumps(values, default=str, ensure_ascii=False))
    except ValidationError as error:
        problems += _problems(node, error)
    metrics = tuple(Metric(name, **entry.model_dump()) for name, entry in entries.items())
    problems += [
        (line_of(node, (m.name, "test")), f"{m.name}.test: {said}") for m, said in _lost(root, metrics, tests, file)
    ]
    if problems:
        raise ConfigError([f"{path}:{line}: {said}" for line, said in sorted(problems)])
    return metrics


def measuring(root: Path, suites: Sequence[Suite], metrics: Sequence[Metric]) -> tuple[Measuring, ...]:
    """Of each of ``suites`` the tests that measure, in the order of ``suites``. Others' metrics are not measured."""
    found = []
    for suite in suites:
        files = files_of(root, suite)
        mine = tuple(metric for metric in metrics if metric.file in files)
        if mine:
            tests = tuple(dict.fromkeys(metric.test for metric in mine))
            found.append(Measuring(Suite(suite.slug, tests, suite.digest), mine))
    return tuple(found)


def _lost(
    root: Path, metrics: Sequence[Metric], tests: Collection[str] | None, where: str
) -> Iterator[tuple[Metric, str]]:
    """Those whose test is not there."""
    for metric in metrics:
        file, *names = metric.test.split("::")
        if not (root / file).is_file():
            yield metric, f"there is no {file}: write the test, or mend the path"
            continue
        try:
            body = ast.parse((root / file).read_bytes()).body
        except (SyntaxError, ValueError) as error:
            yield metric, f"{file} does not read as Python ({error}): mend it"
            continue
        if not _holds(body, names):
            yield metric, f"{file} has no {'::'.join(names)}: write the test, or mend the name"
        elif tests is not None and metric.test not in tests:
            yield metric, f"{metric.test} is {_NOT_MEASURING[where]}"


def _holds(body: Sequence[ast.stmt], names: Sequence[str]) -> bool:
    first, *rest = names
    if not rest:
        return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == first for node in body)
    return any(isinstance(node, ast.ClassDef) and node.name == first and _holds(node.body, rest) for node in body)


def _problems(node: yaml.Node, error: ValidationError) -> list[tuple[int, str]]:
    found = []
    for detail in error.errors(include_url=False):
        location = tuple(part for part in detail["loc"] if part != "[key]")
        where = ".".join(map(str, location)) or "(the whole file)"
        found.append((line_of(node, location), f"{where}: {problem_of(detail, _FIXES, 'mend it')}"))
    return found
