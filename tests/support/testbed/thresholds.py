"""What scenarios must reach, from ``tests/regression/thresholds.yaml``, for the device of this run.

::

    assert run.same_answers >= threshold("pd-abort", "same_answers")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from testbed.device import device

FILE = Path(__file__).parents[2] / "regression" / "thresholds.yaml"


def threshold(scenario: str, name: str) -> float:
    """Raises LookupError for a scenario, device or name that the file does not have."""
    import yaml

    said: Any = yaml.safe_load(FILE.read_text())
    for key in (scenario, device().value, name):
        if not isinstance(said, dict) or key not in said:
            raise LookupError(f"{FILE.name} has no {scenario}: {device().value}: {name}")
        said = said[key]
    return float(said)
