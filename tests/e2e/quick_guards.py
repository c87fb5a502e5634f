"""Guards that read files of the tree under test and load nothing of it: a night with them takes seconds.

`test_night.py` and `make nightly` have nights with the real ones.
"""

from __future__ import annotations

import shutil

from tests.e2e.test_night import GUARDS, MODULE, Place

HOOKED = "python/sglang/srt/distributed/device_communicators/mooncake_transfer_engine.py"

_BED = """\
import os
from pathlib import Path

import pytest


@pytest.mark.control
def test_the_release_is_there() -> None:
    assert (Path(os.environ["PATCHSTACK_TREE"]) / "python/sglang/version.py").is_file()
"""
_GUARD = f"""\
import os
from pathlib import Path

TREE = Path(os.environ["PATCHSTACK_TREE"])


def test_the_module_is_there() -> None:
    assert (TREE / "{MODULE}").is_file()


def test_it_is_used() -> None:
    assert "communicators.mooncake_protocol import" in (TREE / "{HOOKED}").read_text()
"""


def use_quick_guards(place: Place, *, bed_alone: bool = False) -> None:
    """Put them in place of the patch's own and of the bed's, whose controls take minutes; or of the bed's alone."""
    written = {"tests/regression/bed/test_bed.py": _BED, **({} if bed_alone else {f"{GUARDS}/test_it.py": _GUARD})}
    for path, text in written.items():
        file = place.root / path
        shutil.rmtree(file.parent)
        file.parent.mkdir()
        file.write_text(text)
