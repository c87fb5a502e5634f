"""Scenarios of whole servers: their forms, what they run on, and which of them run in a job."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from tests.unit.test_bed_harness import SUPPORT, Bed

from patchstack.config import load
from patchstack.model import Hardware
from patchstack.regress.declared import read_declared
from patchstack.regress.node import describe_node
from patchstack.regress.source import named, read_source

ROOT = Path(__file__).parents[2]
GPU = ROOT / "tests/regression/gpu"
FORMS: dict[str, dict[str, Any]] = yaml.safe_load((GPU / "forms.yaml").read_text())
EVERY_FORM = [(scenario, name) for scenario, said in FORMS.items() for name in said if name not in ("all", "rehearsal")]
NO_FORM = "test_kvcm_manager.py"
"""It asks a manager, not a server."""


@pytest.fixture
def testbed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The bed's `testbed.forms`, as guards import it."""
    monkeypatch.syspath_prepend(SUPPORT)
    import testbed.forms

    return testbed.forms


# --- forms as data ---


def marks() -> Iterator[tuple[str, str, tuple[str, str] | None]]:
    """Of each test below the folder its node id, its lane and the form that it names."""
    owners = [f"patches/{path.parent.name}" for path in ROOT.glob("patches/*/patch.md")]
    assert owners
    for path in sorted(GPU.glob("test_*.py")):
        for test in read_source(ast.parse(path.read_text())).tests:
            around = [mark for marks in test.marks for mark in marks]
            lanes = [mark for mark in named(around, "lane") if isinstance(mark, ast.Call) and mark.args]
            forms = [ast.literal_eval(ast.Tuple(mark.args)) for mark in named(around, "form")]
            yield f"{path.name}::{test.name}", ast.literal_eval(lanes[-1].args[0]), forms[-1] if forms else None


def test_every_scenario_names_a_form_of_its_lane_and_every_form_is_named() -> None:
    found = list(marks())
    for test, lane, form in found:
        if not test.startswith(NO_FORM):
            assert form is not None, f"{test} names no form"
            assert FORMS[form[0]][form[1]]["lane"] == lane, test
    assert {form for _, _, form in found if form} == set(EVERY_FORM)


def test_every_scenario_is_declared_and_only_what_looks_at_the_whole_is_for_no_patch() -> None:
    from patchstack.patches.series import read_series
    from patchstack.regress.declared import Guarding

    patches = [Guarding(patch.slug, patch.owner, patch.guards) for patch in read_series(ROOT / "patches")]
    lanes = load(ROOT / "deploy.yaml").tests.lanes
    mine = [test for test in read_declared(ROOT, lanes, patches) if test.lane != "cpu"]
    assert len(mine) == len(list(marks()))
    assert {Path(test.file).name for test in mine if not test.guards} == {"test_accuracy.py", "test_throughput.py"}
    by_slug = {slug for test in mine for slug in test.guards}
    assert by_slug == {"pd-abort-notify", "pd-transfer-retry", "hicache-pp-sync", "colocate-tp", "kvcm-backend"}


@pytest.mark.parametrize(("scenario", "name"), EVERY_FORM)
def test_a_rehearsal_keeps_the_shape_and_cuts_the_size(testbed: Any, tmp_path: Path, scenario: str, name: str) -> None:
    model = str({**FORMS[scenario]["all"], **FORMS[scenario][name]}["model"])
    (tmp_path / model).mkdir()
    device = testbed.form_of(scenario, name, models=tmp_path)
    rehearsal = testbed.form_of(scenario, name, tiny_model=tmp_path / "tiny")
    assert (device.model, rehearsal.model) == (tmp_path / model, tmp_path / "tiny")
    for shape in ("lane", "tp", "pp", "on_two", "seed", "data"):
        assert getattr(device, shape) == getattr(rehearsal, shape), shape
    for size in ("questions", "new_tokens", "steps", "pool_tokens", "preface", "stall_s"):
        assert getattr(device, size) >= getattr(rehearsal, size), size
    assert device.settings()["model"] == model
    assert rehearsal.settings()["model"] == "tiny"
    assert device.settings()["seed"] == str(device.seed)


def test_the_forms_that_were_asked_for_are_there(testbed: Any) -> None:
    said = {(scenario, name): testbed.said_of(scenario, name, rehearsal=False) for scenario, name in EVERY_FORM}
    moe, dense = said["hicache-pp", "two-stages-of-two"], said["hicache-pp", "two-stages-of-two-dense"]
    assert (moe["model"], moe["tp"], moe["pp"], moe["lane"]) == ("Qwen3-30B-A3B-FP8", 2, 2, "4-gpu")
    assert (dense["tp"], dense["pp"], dense["model"] != moe["model"]) == (2, 2, True)
    assert said["hicache-pp", "long-prompts"]["prompt_tokens"] == 16000
    soaks = [said["colocate-soak", name] for name in ("one-rank", "two-ranks")]
    assert [(each["steps"], each.get("tp", 1), each["lane"]) for each in soaks] == [
        (200, 1, "1-gpu"),
        (200, 2, "2-gpu"),
    ]
    assert [said["kvcm-faults", name].get("tp", 1) for name in ("one-rank", "two-ranks")] == [1, 2]
    assert {scenario for scenario, name in said if said[scenario, name]["lane"] == "1-gpu"} == set(FORMS)


def test_what_a_form_lacks_is_named(testbed: Any, tmp_path: Path) -> None:
    def refused(error: str, **more: Any) -> str:
        with pytest.raises(getattr(testbed, error)) as caught:
            testbed.form_of("kvcm", "one-rank", **more)
        return str(caught.value)

    model = FORMS["kvcm"]["all"]["model"]
    assert f"there is no {tmp_path / model}; put it there" in refused("ModelMissing", models=tmp_path)
    assert "set PATCHSTACK_MODELS to the folder of models" in refused("ModelMissing")
    file = tmp_path / "forms.yaml"
    for text, said in (
        ("kvcm: {}", "forms.yaml has no kvcm: one-rank"),
        ("kvcm: {one-rank: {lane: x, model: m, seed: 1, cards: 2}}", "kvcm: one-rank: mend cards: a form has "),
        ("kvcm: {one-rank: {lane: x}}", "kvcm: one-rank: mend model, seed: "),
    ):
        file.write_text(text)
        assert said in refused("FormUnknown", tiny_model=tmp_path, file=file)


# --- what it runs on ---


def test_a_machine_is_described_as_the_tool_does(testbed: Any, tmp_path: Path) -> None:
    from testbed.hardware import hardware

    found = hardware(cuda=False)
    assert list(found) == sorted(found, key=list(found).index)
    assert set(found) == {field.name for field in fields(Hardware)}
    assert describe_node().startswith(f"{found['processor']}, {found['memory_gib']} GiB")
    assert (found["gpus"], found["cuda"], found["nccl"]) == ([], "", "")

    nic = tmp_path / "sys/class/infiniband/mlx5_0/ports/1"
    nic.mkdir(parents=True)
    (nic / "rate").write_text("400 Gb/sec (4X NDR)\n")
    driver = tmp_path / "proc/driver/nvidia/version"
    driver.parent.mkdir(parents=True)
    driver.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n")
    found = hardware(cuda=False, root=tmp_path)
    assert (found["nics"], found["driver"], found["memory_gib"]) == (["mlx5_0, 400 Gb/s"], "570.86.15", 0)
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n")
    assert hardware(cuda=False, root=tmp_path)["driver"] == "550.54.15"


# --- which run ---

LANES = """
import pytest
pytestmark = pytest.mark.lane("1-gpu", est_s=1)

def test_one(): pass

@pytest.mark.lane("2-gpu")
@pytest.mark.form("kvcm", "two-ranks")
def test_two(form):
    assert (form.tp, form.is_rehearsal) == (2, True)

@pytest.mark.lane("2-gpu")
@pytest.mark.form("kvcm", "one-rank")
def test_of_another_lane(form): pass

@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")
"""


def run(folder: Path, **environment: str) -> list[dict[str, Any]]:
    folder.mkdir()
    bed = Bed(folder)
    bed.environment |= {"SGLANG_USE_CPU_ENGINE": "1", **environment}
    output, _ = bed.start(LANES).communicate(timeout=120)
    assert bed.record.is_file(), output
    return bed.entries()


def outcomes(entries: list[dict[str, Any]]) -> dict[str, str]:
    return {entry["test"].partition("::test_")[2]: entry["outcome"] for entry in entries if "outcome" in entry}


def test_only_the_scenarios_of_a_job_s_lane_run_and_none_without_one(tmp_path: Path) -> None:
    without = run(tmp_path / "without")
    assert outcomes(without) == {}
    assert [len(entry["left_out"]) for entry in without if "left_out" in entry] == [3]
    assert not [entry for entry in without if "hardware" in entry]

    two = run(tmp_path / "two", PATCHSTACK_LANE="2-gpu", PATCHSTACK_FORM="rehearsal")
    assert outcomes(two) == {"two": "pass", "of_another_lane": "crash"}
    assert [len(entry["left_out"]) for entry in two if "left_out" in entry] == [1]
    (machine,) = [entry["hardware"] for entry in two if "hardware" in entry]
    assert machine["gpus"] == []
    (settings,) = [entry["settings"] for entry in two if "settings" in entry]
    assert settings["test"] == "test_guards.py::test_two"
    assert (settings["values"]["tp"], settings["values"]["model"]) == ("2", "tiny")
    reasons = [entry["reason"] for entry in two if entry.get("outcome") == "crash"]
    assert "is of lane 2-gpu, its form of 1-gpu" in reasons[0]
    json.dumps(two)


def test_a_model_that_is_not_there_is_no_skip(tmp_path: Path) -> None:
    said = run(tmp_path / "device", PATCHSTACK_LANE="2-gpu", PATCHSTACK_FORM="device", PATCHSTACK_MODELS=str(tmp_path))
    (reason,) = [entry["reason"] for entry in said if entry.get("test", "").endswith("::test_two")]
    assert "ModelMissing: form two-ranks of kvcm needs the model" in reason
    assert outcomes(said) == {"two": "crash", "of_another_lane": "crash"}


# --- GSM8K ---


def test_the_number_that_a_text_ends_with(testbed: Any, tmp_path: Path) -> None:
    from testbed import gsm8k
    from testbed.pd_traffic import Traffic

    assert gsm8k.number_in("so 3 + 4 = 7.\n#### 7") == 7
    assert gsm8k.number_in("that makes $1,234.50 in all") == 1234.5
    assert gsm8k.number_in("#### -2\n\nQuestion: and 9 more?") == -2
    assert gsm8k.number_in("nobody knows") is None
    assert gsm8k.number_in("####") is None
    file = gsm8k.write_problems(tmp_path / "gsm8k" / "test.jsonl", Traffic(7, 1, 1, 0))
    problems = gsm8k.read_problems(file)
    (text, problem), _ = gsm8k.prompts(problems, 2)
    assert text.count("Question:") == 6
    assert gsm8k.is_right(problem.answer, problem)
    assert not gsm8k.is_right("I do not know", problem)
    with pytest.raises(ValueError, match="7 problems are fewer than 5 to show and 3 to ask"):
        gsm8k.prompts(problems, 3)
    file.write_text('{"question": "how many?"}\n')
    with pytest.raises(ValueError, match=r"test\.jsonl:1: no question with an answer"):
        gsm8k.read_problems(file)


def test_a_preface_makes_a_prompt_longer_and_no_other(testbed: Any) -> None:
    from dataclasses import replace

    from testbed.pd_traffic import Traffic

    plain = Traffic(3, 1, 1, 5)
    long = replace(plain, preface=100)
    assert long.solutions() == plain.solutions()
    for short, longer in zip(plain.prompts(), long.prompts(), strict=True):
        number, _, question = short.partition(" ")
        assert longer.startswith(f"{number} On day 1 ")
        assert longer.endswith(question)
        assert longer.count("On day") == 100
    assert len({text.partition("On day 2")[0] for text in long.prompts()}) == 3
