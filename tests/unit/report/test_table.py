"""The tables of the README and of docs/gpu.md: patches, scenarios, models and lanes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from patchstack.model import GuardOutcome, GuardResult, Hardware, Sha
from patchstack.report.table import PatchRow, lane_table, model_table, patch_table, scenario_table

from .fixed_lanes import H200

PASS, FAIL = GuardOutcome.PASS, GuardOutcome.FAIL


@dataclass(frozen=True)
class Ran:
    """As the stage that reads records has it."""

    record: str = "20261122T020000Z-1-gpu.json"
    night: str = "20261122T020000Z"
    tree: Sha = Sha("a" * 40)  # noqa: RUF009 - a plain text
    hardware: Hardware = H200
    in_image: bool = True
    results: tuple[GuardResult, ...] = (
        GuardResult("t", "x", False, PASS, 30.5),
        GuardResult("t", "x", False, PASS, 31.0),
    )


@dataclass(frozen=True)
class Scenario:
    test: str
    lane: str = "1-gpu"
    gpus: int = 1
    shows: str = "abort: pages of `prefill` stay whole."
    form: str = "pd-abort, one-card"
    model: str = "Any-0.6B"
    est_s: float = 300.0
    heard: Ran | None = None

    @property
    def gpu_min(self) -> float:
        return self.gpus * self.est_s / 60


ONE = Scenario("tests/regression/gpu/test_a.py::test_one")
TWO = replace(ONE, test="tests/regression/gpu/test_a.py::test_two", lane="2-gpu", gpus=2, form="pd-abort, two-cards")
MANAGER = Scenario("tests/regression/gpu/test_m.py::test_it", "kvcm-manager", 0, "A | manager.", "", "", 20.0)
RED = Ran("r.json", "20261121T020000Z-2", results=(replace(Ran().results[0], outcome=FAIL),), in_image=False)


def rows(table: str) -> list[str]:
    """Without the two lines of its head."""
    return table.splitlines()[2:]


def test_patch_table() -> None:
    table = patch_table(
        [
            PatchRow("ib-device-map", "`--disaggregation-ib-device` takes no map", "needed", "Backport [0.5.13]"),
            PatchRow(
                "parking",
                "a | b @team",
                "hardening",
                "Pending [no interest yet]",
                optional=True,
                scenarios=(replace(ONE, heard=Ran()), TWO),
            ),
        ]
    )
    assert table == (
        "| Patch | Symptom | Need | Upstream | On a GPU |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| `ib-device-map` | `--disaggregation-ib-device` takes no map | needed | Backport \\[0.5.13\\] "
        "| never run on a GPU |\n"
        "| `parking` (optional) | a <code>&#124;</code> b `@team` | hardening "
        "| Pending \\[no interest yet\\] | 1 of 2 scenarios passed, the newest on 2026-11-22 |\n"
    )


def test_no_patches() -> None:
    assert patch_table([]) == ("| Patch | Symptom | Need | Upstream | On a GPU |\n| --- | --- | --- | --- | --- |\n")


def test_what_nobody_has_seen_on_a_gpu_is_said_so() -> None:
    assert scenario_table((ONE, TWO, MANAGER), "../records") == (
        "| Scenario | What its file shows | Lane | Form and model | GPU minutes | On its hardware |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| `test_a.py::test_one` | abort: pages of `prefill` stay whole. | `1-gpu` | `one-card`, `Any-0.6B` | 5 "
        "| never run on a GPU |\n"
        "| `test_a.py::test_two` |  | `2-gpu` | `two-cards`, `Any-0.6B` | 10 | never run on a GPU |\n"
        "| `test_m.py::test_it` | A <code>&#124;</code> manager. | `kvcm-manager` |  | 0 | never run |\n"
    )


def test_scenarios_of_a_file_stand_together_whatever_their_lanes() -> None:
    other = replace(ONE, test="tests/regression/gpu/test_b.py::test_one")
    names = [row.split("`")[1] for row in rows(scenario_table((ONE, other, TWO), ".."))]
    assert names == ["test_a.py::test_one", "test_a.py::test_two", "test_b.py::test_one"]


def test_what_ran_is_told_from_its_record() -> None:
    first, second = rows(scenario_table((replace(ONE, heard=Ran()), replace(TWO, heard=RED)), "../records"))
    assert first.endswith(
        "| [2026-11-22](../records/20261122T020000Z-1-gpu.json): 2 pass in 61.5 s on `1 x NVIDIA H200, 140 GiB`, "
        "tree `aaaaaaaaaaaa` |"
    )
    assert second.endswith(
        "| [2026-11-21](../records/r.json): 1 fail in 30.5 s on `1 x NVIDIA H200, 140 GiB`, not in the image, "
        "tree `aaaaaaaaaaaa` |"
    )


def test_a_lane_s_row_sums_up_its_scenarios() -> None:
    again = replace(ONE, test="tests/regression/gpu/test_b.py::test_one", heard=RED)
    assert lane_table((replace(ONE, heard=Ran()), again, TWO, MANAGER)) == (
        "| Lane | GPUs | Scenarios | Minutes | GPU minutes | On its hardware |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| `1-gpu` | 1 | 2 | 10 | 10 | 1 of 2 scenarios passed, the newest on 2026-11-22 |\n"
        "| `2-gpu` | 2 | 1 | 5 | 10 | never run on a GPU |\n"
        "| `kvcm-manager` | 0 | 1 | 0.3 | 0 | never run |\n"
    )


def test_each_model_is_named_once_with_the_lanes_that_want_it() -> None:
    assert rows(model_table((ONE, TWO, MANAGER, replace(ONE, model="A-32B")))) == [
        "| `A-32B` | `1-gpu` |",
        "| `Any-0.6B` | `1-gpu`, `2-gpu` |",
    ]
