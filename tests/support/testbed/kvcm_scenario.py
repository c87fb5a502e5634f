"""A scenario of one server with the kvcm backend: what is asked a second time comes out of the manager's storage.

The same code on a CPU with the tiny model and on a GPU with a real one; what each must reach is in
``tests/regression/thresholds.yaml``. Between the two passes the server's own caches are emptied.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.answers import Answer
from testbed.kvcm_manager import KvcmManager
from testbed.pd_traffic import Traffic
from testbed.server import Server

STORED_LIMIT_S = 120.0
POLL_S = 0.1


@dataclass(frozen=True)
class TwoPasses:
    """What came of it."""

    same_answers: float
    """Share of all questions."""
    from_storage: float
    """Tokens of the second pass's prompts that came out of storage, as a share of all of them."""
    stored_pages: int
    found_before: int
    """Tokens of the first pass's prompts that were cached already; none, or the second pass shows nothing."""
    failures: Sequence[str]


def kvcm_flags(manager: KvcmManager, page_tokens: int) -> tuple[str, ...]:
    """Server flags, beside those of HiCache. What is prefetched is waited for, and from one page on."""
    config = {
        "backend_name": "kvcm",
        "module_path": "sglang.srt.mem_cache.storage.kvcm.hicache_kvcm",
        "class_name": "HiCacheKVCM",
        "manager_uri": manager.url,
        "instance_group": "default",
        "instance_id": "scenario",
        "transfer_client": "file",
        "file_root": str(manager.blocks.root),
        "prefetch_threshold": page_tokens,
    }
    return (
        *("--hicache-storage-backend", "dynamic"),
        *("--hicache-storage-backend-extra-config", json.dumps(config)),
        *("--hicache-storage-prefetch-policy", "wait_complete"),
    )


def ask_twice(server: Server, manager: KvcmManager, traffic: Traffic) -> TwoPasses:
    """All questions, one after the other; again when their pages are stored and the server has forgotten them."""
    first = _ask_all(server, traffic)
    page_tokens = server.options.page_size
    _wait_until_stored(server, manager, sum(answer.prompt_tokens // page_tokens for answer in first))
    server.wait_until_idle()
    server.flush()
    second = _ask_all(server, traffic)
    return TwoPasses(
        same_answers=sum(a.tokens == b.tokens for a, b in zip(first, second, strict=True)) / traffic.questions,
        from_storage=sum(answer.cached_tokens for answer in second) / sum(answer.prompt_tokens for answer in second),
        stored_pages=len(manager.blocks.committed()),
        found_before=sum(answer.cached_tokens for answer in first),
        failures=[answer.describe() for answer in (*first, *second) if not answer.ok],
    )


def complaints(server: Server) -> list[str]:
    """What the backend wrote, but for the line that says it is ready."""
    return [line for line in server.output().splitlines() if "] KVCM " in line and "is ready" not in line]


def _ask_all(server: Server, traffic: Traffic) -> list[Answer]:
    return [server.generate(prompt, traffic.new_tokens) for prompt in traffic.prompts()]


def _wait_until_stored(server: Server, manager: KvcmManager, pages: int) -> None:
    """Until most of that many pages can be found, or no more come; an idle scheduler is kept awake by questions.

    What is too little then shows in the second pass.
    """
    deadline = time.monotonic() + STORED_LIMIT_S
    while len(manager.blocks.committed()) < pages and time.monotonic() < deadline:
        server.load()
        server.program.exits_within(POLL_S)
