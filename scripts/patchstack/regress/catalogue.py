"""Every scenario of other lanes than `cpu`, for people: what it shows, what it wants and costs, when it last ran.

What it shows is the first sentence of its file. How large it is stands in ``tests/regression/gpu/forms.yaml``, which
the test bed reads when it runs; here it is read for what somebody must know beforehand, the models.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import ConfigError
from patchstack.regress.declared import CPU, Declared
from patchstack.regress.records import Heard, Record, heard_of
from patchstack.regress.scenarios import GPU_GUARDS
from patchstack.regress.source import Mark, named, read_source
from patchstack.yamltext import YamlProblem, compose_mapping, construct, text_of

FORMS = f"{GPU_GUARDS}/forms.yaml"
_SHARED = "all"
_MARK = "form"


@dataclass(frozen=True)
class Listed:
    """One test, whatever its parameters."""

    test: str
    """pytest's node id, from the repository's root."""
    lane: str
    gpus: int
    """That its lane gives to a job."""
    guards: tuple[str, ...]
    shows: str
    """One sentence; backticks in it make code."""
    form: str
    """Such as ``hicache-pp, two-stages``; empty where it has none."""
    model: str
    """The folder that it wants among the models; empty where it wants none."""
    est_s: float
    """What it is said to take, the start of its servers included: an estimate, nobody's measurement."""
    heard: Heard | None
    """None where it never ran on its lane's machines, as far as the repository knows."""

    @property
    def gpu_min(self) -> float:
        """Estimated: of all its GPUs together."""
        return self.gpus * self.est_s / 60


def catalogue(
    root: Path, declared: Iterable[Declared], gpus: Mapping[str, int], records: Sequence[Record]
) -> tuple[Listed, ...]:
    """Every scenario of ``declared``, in the order of its lanes and files; ``gpus`` are those of each lane's job.

    Raises `ConfigError` for a form that the file of forms does not have.
    """
    scenarios = [test for test in declared if test.lane != CPU]
    models = _models(root) if scenarios else {}
    files = {file: _File.read(root, file) for file in dict.fromkeys(test.file for test in scenarios)}
    order = list(gpus)
    found = [_listed(test, files[test.file], gpus, models, records) for test in scenarios]
    return tuple(sorted(found, key=lambda one: order.index(one.lane)))


def _listed(
    test: Declared,
    file: _File,
    gpus: Mapping[str, int],
    models: Mapping[tuple[str, str], str],
    records: Sequence[Record],
) -> Listed:
    form = file.forms.get(test.test.partition("::")[2])
    if form is not None and form not in models:
        fix = f"write it there, or mend the mark of {test.test}"
        raise ConfigError([f"{FORMS}:1: {form[0]}.{form[1]}: there is no such form, or it names no model: {fix}"])
    return Listed(
        test=test.test,
        lane=test.lane,
        gpus=gpus[test.lane],
        guards=test.guards,
        shows=file.shows,
        form=", ".join(form) if form else "",
        model=models[form] if form else "",
        est_s=test.est_s or 0.0,
        heard=heard_of(records, test.test),
    )


@dataclass(frozen=True)
class _File:
    """What one file of scenarios says for people."""

    shows: str
    forms: Mapping[str, tuple[str, str]]
    """Of each test, by its name in the file: scenario and form."""

    @classmethod
    def read(cls, root: Path, name: str) -> _File:
        module = ast.parse((root / name).read_bytes())
        said = " ".join((ast.get_docstring(module) or "").replace("``", "`").split())
        sentence, stop, _ = said.partition(". ")
        forms = {test.name: form for test in read_source(module).tests if (form := _form(test.marks)) is not None}
        return cls(f"{sentence}." if stop else sentence, forms)


def _form(around: Sequence[Sequence[Mark]]) -> tuple[str, str] | None:
    """What the nearest mark `form` says."""
    calls = [mark for marks in around for mark in named(marks, _MARK) if isinstance(mark, ast.Call)]
    said = [argument.value for argument in calls[-1].args if isinstance(argument, ast.Constant)] if calls else []
    return (str(said[0]), str(said[1])) if len(said) == 2 else None


def _models(root: Path) -> dict[tuple[str, str], str]:
    """The model of each form that names one, or whose scenario does for all; nothing where there is no such file."""
    path = root / FORMS
    text = text_of(path)
    if text is None:
        return {}
    try:
        said = construct(compose_mapping(text))
    except YamlProblem as problem:
        raise ConfigError([f"{path}:{problem.line}: : {problem}: write `scenario: {{form: ...}}`"]) from problem
    return {
        (scenario, name): model
        for scenario, forms in said.items()
        if isinstance(forms, dict)
        for name, model in _of_scenario(forms)
    }


def _of_scenario(forms: Mapping[object, object]) -> Iterator[tuple[str, str]]:
    shared = forms.get(_SHARED)
    for name, own in forms.items():
        if isinstance(own, dict):
            model = own.get("model", shared.get("model") if isinstance(shared, dict) else None)
            if isinstance(model, str):
                yield str(name), model
