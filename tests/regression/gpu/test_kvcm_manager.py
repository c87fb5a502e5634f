"""A manager keeps what the bed's promises: the same calls, of the one that ``KVCM_MANAGER_URL`` names.

``KVCM_DEBUG_URL`` is its debug service, where that is somewhere else; ``KVCM_INSTANCE_GROUP`` a group that it has. It
needs no GPU, but a manager, which no package index has: https://github.com/alibaba/tair-kvcache. Without one nothing
of this is said to be so: it is missing. A rehearsal asks the bed's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from testbed.forms import is_rehearsal
from testbed.kvcm_contract import CONTRACT, ManagerUnderContract
from testbed.kvcm_manager import KvcmManager

pytestmark = pytest.mark.lane("kvcm-manager", est_s=60, guards=["kvcm-backend"], owner="@acme/hicache")


@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_contract(clause: Callable[[ManagerUnderContract], None], request: pytest.FixtureRequest) -> None:
    url = os.environ.get("KVCM_MANAGER_URL", "")
    if is_rehearsal():
        own: KvcmManager = request.getfixturevalue("kvcm")
        url = own.url
    elif not url:
        pytest.skip("it needs a real manager: set KVCM_MANAGER_URL")
    debug_url = url if is_rehearsal() else os.environ.get("KVCM_DEBUG_URL", url)
    clause(ManagerUnderContract(url, debug_url, os.environ.get("KVCM_INSTANCE_GROUP", "default")))
