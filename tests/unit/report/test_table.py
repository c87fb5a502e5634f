from __future__ import annotations

from patchstack.report.table import PatchRow, patch_table


def test_patch_table() -> None:
    rows = [
        PatchRow("ib-device-map", "`--disaggregation-ib-device` takes no map", "needed", "Backport [0.5.13]"),
        PatchRow(
            "parking",
            "a | b @team",
            "hardening",
            "Pending [no interest yet]",
            optional=True,
            on_gpu="H200, 2026-11-21: 500 of 500",
        ),
    ]

    assert patch_table(rows) == (
        "| Patch | Symptom | Need | Upstream | On a GPU |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| `ib-device-map` | `--disaggregation-ib-device` takes no map | needed | Backport \\[0.5.13\\] "
        "| never run on a GPU |\n"
        "| `parking` (optional) | a <code>&#124;</code> b `@team` | hardening "
        "| Pending \\[no interest yet\\] | H200, 2026-11-21: 500 of 500 |\n"
    )


def test_no_patches() -> None:
    assert patch_table([]) == ("| Patch | Symptom | Need | Upstream | On a GPU |\n| --- | --- | --- | --- | --- |\n")
