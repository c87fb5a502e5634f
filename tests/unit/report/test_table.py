from __future__ import annotations

from patchstack.report.table import PatchRow, patch_table


def test_patch_table() -> None:
    rows = [
        PatchRow("ib-device-map", "`--disaggregation-ib-device` takes no map", "needed", "Backport [0.5.13]"),
        PatchRow("parking", "a | b @team", "hardening", "Pending [no interest yet]", optional=True, gpu=True),
    ]

    assert patch_table(rows) == (
        "| Patch | Symptom | Need | Upstream |\n"
        "| --- | --- | --- | --- |\n"
        "| `ib-device-map` | `--disaggregation-ib-device` takes no map | needed | Backport \\[0.5.13\\] |\n"
        "| `parking` (optional, needs a GPU to prove) | a <code>&#124;</code> b `@team` | hardening "
        "| Pending \\[no interest yet\\] |\n"
    )


def test_no_patches() -> None:
    assert patch_table([]) == "| Patch | Symptom | Need | Upstream |\n| --- | --- | --- | --- |\n"
