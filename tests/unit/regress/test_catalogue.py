"""What is told of scenarios beforehand: read from their files, from the forms and from the records."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.regress.test_records import lane_run

from patchstack.errors import ConfigError
from patchstack.regress.catalogue import FORMS, Listed, catalogue
from patchstack.regress.declared import Guarding, read_declared
from patchstack.regress.records import Heard, Record, heard_of

FAST = "tests/regression/gpu/test_fast.py"
GPUS = {"cpu": 0, "1-gpu": 1, "2-gpu": 2}
TEXT = '''\
"""fast: what a server says ``at once``, to
all of them. Then more.

And more.
"""

import pytest

pytestmark = pytest.mark.lane("2-gpu", est_s=90, guards=["x"], owner="@acme/x")


@pytest.mark.form("fast", "two-ranks")
def test_two() -> None: ...


@pytest.mark.lane("1-gpu", est_s=300)
@pytest.mark.form("fast", "one-rank")
def test_it() -> None: ...


@pytest.mark.lane("1-gpu")
def test_formless() -> None: ...
'''
YAML = """\
fast:
  all: {model: Small}
  one-rank: {lane: 1-gpu}
  two-ranks: {lane: 2-gpu, model: Large}
  rehearsal: {questions: 1}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, FAST, TEXT)
    write(tmp_path, FORMS, YAML)
    write(tmp_path, "tests/regression/x/test_x.py", "def test_on_a_cpu() -> None: ...\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def listed(root: Path, *records: Record) -> tuple[Listed, ...]:
    guarding = [Guarding("x", "@acme/x", ("tests/regression/x", FAST))]
    return catalogue(root, read_declared(root, GPUS, guarding), GPUS, records)


def test_every_scenario_is_told_by_lane_and_none_of_the_cpu(root: Path) -> None:
    shows = "fast: what a server says `at once`, to all of them."
    assert listed(root) == (
        Listed(f"{FAST}::test_it", "1-gpu", 1, ("x",), shows, "fast, one-rank", "Small", 300.0, None),
        Listed(f"{FAST}::test_formless", "1-gpu", 1, ("x",), shows, "", "", 90.0, None),
        Listed(f"{FAST}::test_two", "2-gpu", 2, ("x",), shows, "fast, two-ranks", "Large", 90.0, None),
    )
    assert [one.gpu_min for one in listed(root)] == [5.0, 1.5, 3.0]


def test_what_a_record_says_stands_beside_it(root: Path) -> None:
    record = Record("20261122T020000Z-1-gpu.json", lane_run())
    one, formless, two = listed(root, record)
    assert isinstance(one.heard, Heard)
    assert one.heard == heard_of((record,), f"{FAST}::test_it")
    assert (formless.heard, two.heard) == (None, None)


def test_a_form_that_is_not_there_is_named(root: Path) -> None:
    write(root, FORMS, YAML.replace("two-ranks", "three-ranks"))
    with pytest.raises(ConfigError, match=rf"{FORMS}:1: fast.two-ranks: there is no such form.*{FAST}::test_two"):
        listed(root)


@pytest.mark.parametrize("text", ["fast: [", "- fast\n", "fast: all\n", ""])
def test_a_file_of_forms_that_is_none_is_an_error(root: Path, text: str) -> None:
    write(root, FORMS, text)
    with pytest.raises(ConfigError, match=r"forms.yaml:1: "):
        listed(root)


def test_without_scenarios_nothing_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "tests/regression/x/test_x.py", "def test_on_a_cpu() -> None: ...\n")
    assert (
        catalogue(tmp_path, read_declared(tmp_path, GPUS, [Guarding("x", "@a/b", ("tests/regression/x",))]), GPUS, ())
        == ()
    )
