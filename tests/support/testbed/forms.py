"""How large a scenario of whole servers is: its forms, from ``tests/regression/gpu/forms.yaml``.

::

    @pytest.mark.lane("2-gpu", est_s=900)
    @pytest.mark.form("hicache-pp", "two-stages")
    def test_two_stages(form: Form, programs: Programs, ports: Ports) -> None:
        server = start_server(programs, ports, ServerOptions(model=form.model, tp=form.tp, pp=form.pp))

``PATCHSTACK_FORM`` says how a job runs: ``device``, on what its lane says that it has, with the model of its name
below ``PATCHSTACK_MODELS``; or ``rehearsal``, the same code on a CPU with the tiny model and the sizes that the file
cuts down to. What a test ran with goes into the record.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import pytest

from testbed.pd_traffic import Traffic

FILE = Path(__file__).parents[2] / "regression" / "gpu" / "forms.yaml"
FORM, LANE, MODELS = "PATCHSTACK_FORM", "PATCHSTACK_LANE", "PATCHSTACK_MODELS"
DEVICE, REHEARSAL = "device", "rehearsal"
ALL = "all"
"""What all forms of a scenario share."""
_NO_SIZES = ("scenario", "name", "lane", "model", "is_rehearsal", "seed")
CPU = "cpu"
"""The lane of what has no mark."""
TINY = "tiny"


class FormUnknown(LookupError):
    """The file has no such form, or says something of it that no scenario reads."""


class ModelMissing(LookupError):
    """A form's model, or its data, is not on this machine."""


@dataclass(frozen=True)
class Form:
    """One size of a scenario."""

    scenario: str
    name: str
    lane: str
    model: Path
    """Its folder."""
    is_rehearsal: bool
    seed: int
    tp: int = 1
    pp: int = 1
    questions: int = 1
    at_once: int = 1
    new_tokens: int = 8
    pool_tokens: int = 4096
    page_tokens: int = 1
    steps: int = 0
    """Of a trainer."""
    fails_every: int = 0
    """Each so-manyth call of prefill's engine fails."""
    answer_s: int = 300
    """What is waited for one answer; after it nothing is asked any more."""
    stall_s: int = 0
    """How long a manager keeps a call."""
    preface: int = 0
    """Sentences before each question."""
    prompt_tokens: int = 0
    """What the shortest prompt must have come to."""
    on_two: bool = False
    """Prefill and decode have a card each."""
    transport: str = "tcp"
    """``tcp`` or ``rdma``, between prefill and decode."""
    data: str = ""
    """A file of the folder of models, such as ``gsm8k/test.jsonl``."""

    @property
    def traffic(self) -> Traffic:
        return Traffic(self.questions, self.at_once, self.new_tokens, self.seed, self.preface)

    def settings(self) -> dict[str, str]:
        """What the record says: all but what is 0, empty or false."""
        sizes = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NO_SIZES}
        said = {"form": self.name, "model": TINY if self.is_rehearsal else self.model.name, **sizes}
        return {"seed": str(self.seed), **{name: str(value) for name, value in said.items() if value}}


class Keeper(Protocol):
    """Who writes down what a test runs with: the plugin's record."""

    def settings(self, test: str, values: Mapping[str, str]) -> None: ...


def form_of(
    scenario: str, name: str, *, tiny_model: Path | None = None, models: Path | None = None, file: Path = FILE
) -> Form:
    """A form as it runs here: cut down with ``tiny_model``, else with its own model below ``models``.

    Raises `FormUnknown` or `ModelMissing`.
    """
    values = said_of(scenario, name, rehearsal=tiny_model is not None, file=file)
    model = str(values.pop("model"))
    if tiny_model is not None:
        return Form(scenario=scenario, name=name, model=tiny_model, is_rehearsal=True, **values)
    found = in_models(model, models, f"form {name} of {scenario} needs the model {model}")
    return Form(scenario=scenario, name=name, model=found, is_rehearsal=False, **values)


def said_of(scenario: str, name: str, *, rehearsal: bool, file: Path = FILE) -> dict[str, Any]:
    """The keys of a form with what it shares, and what a rehearsal cuts down laid over. Raises `FormUnknown`."""
    import yaml

    said: Any = yaml.safe_load(file.read_text())
    forms = said.get(scenario) if isinstance(said, dict) else None
    if not isinstance(forms, dict) or not isinstance(forms.get(name), dict) or name in (ALL, REHEARSAL):
        raise FormUnknown(f"{file.name} has no {scenario}: {name}")
    own = dict(forms[name])
    cut = {**forms.get(REHEARSAL, {}), **own.pop(REHEARSAL, {})}
    values = {**forms.get(ALL, {}), **own, **(cut if rehearsal else {})}
    known = {field.name for field in fields(Form)} - {"scenario", "name", "is_rehearsal"}
    if strange := sorted(set(values) - known) + sorted({"lane", "model", "seed"} - set(values)):
        raise FormUnknown(f"{file.name}: {scenario}: {name}: mend {', '.join(strange)}: a form has {', '.join(known)}")
    return values


def in_models(name: str, models: Path | None, who: str) -> Path:
    """A file or folder among the models. Raises `ModelMissing`."""
    if models is None:
        raise ModelMissing(f"{who}: set {MODELS} to the folder of models, tests.models of deploy.yaml")
    if not (models / name).exists():
        raise ModelMissing(f"{who}: there is no {models / name}; put it there")
    return models / name


def models_folder() -> Path | None:
    said = os.environ.get(MODELS, "")
    return Path(said) if said else None


def is_rehearsal() -> bool:
    """Raises `FormUnknown` where nobody has said how this runs."""
    how = os.environ.get(FORM, "")
    if how not in (DEVICE, REHEARSAL):
        raise FormUnknown(f"{FORM} is {how!r}: set it to {DEVICE} or {REHEARSAL}")
    return how == REHEARSAL


def lane_of(item: pytest.Item) -> str:
    """The lane that the nearest of its marks names."""
    return next((str(mark.args[0]) for mark in item.iter_markers("lane") if mark.args), CPU)


@pytest.fixture
def form(request: pytest.FixtureRequest) -> Form:
    """The form that the test's mark names, as it runs here."""
    keeper: Keeper | None = request.config.pluginmanager.get_plugin("testbed-record")
    assert keeper is not None, "the plugin registers its record when it is configured"
    mark = request.node.get_closest_marker("form")
    if mark is None:
        raise FormUnknown(f"{request.node.nodeid} has no mark `form`: write @pytest.mark.form(scenario, name)")
    tiny_model = request.getfixturevalue("tiny_model") if is_rehearsal() else None
    found = form_of(*mark.args, tiny_model=tiny_model, models=models_folder())
    if found.lane != lane_of(request.node):
        raise FormUnknown(f"{request.node.nodeid} is of lane {lane_of(request.node)}, its form of {found.lane}")
    keeper.settings(request.node.nodeid, found.settings())
    return found
