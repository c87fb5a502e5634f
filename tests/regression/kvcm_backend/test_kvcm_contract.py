"""The bed's manager keeps what a manager promises. What a real one says to the same is ``gpu/test_kvcm_manager.py``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testbed.kvcm_contract import CONTRACT, ManagerUnderContract
from testbed.kvcm_manager import KvcmManager


@pytest.mark.control
@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_contract(kvcm: KvcmManager, clause: Callable[[ManagerUnderContract], None]) -> None:
    clause(ManagerUnderContract(kvcm.url, kvcm.url))
