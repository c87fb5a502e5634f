"""A scenario of one server with the kvcm backend: what is asked a second time comes out of the manager's storage.

The same code on a CPU with the tiny model and on a GPU with a real one; what each must reach is in
``tests/regression/thresholds.yaml``. Between the two passes the server's own caches are emptied.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from testbed.answers import Answer
from testbed.kvcm_faults import Fault, Kind
from testbed.kvcm_manager import KvcmManager
from testbed.pd_traffic import Traffic
from testbed.server import Server

STORED_LIMIT_S = 120.0
POLL_S = 0.1

LOOK, START, FINISH = "getCacheLocation", "startWriteCache", "finishWriteCache"
FAILING = (
    (Kind.INTERNAL_ERROR, (LOOK, START)),
    (Kind.HTTP_500, (LOOK, FINISH)),
    (Kind.RESET, (LOOK, START)),
)
"""Round by round: how the manager fails, and at what. A write that has not begun is not finished."""
STALLED = "stalled"
WORST = ("KVCM invariant violated", "KVCM backend disabled")


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
    _forget(server, manager, first)
    second = _ask_all(server, traffic)
    return TwoPasses(
        same_answers=sum(a.tokens == b.tokens for a, b in zip(first, second, strict=True)) / traffic.questions,
        from_storage=_from_storage(second),
        stored_pages=len(manager.blocks.committed()),
        found_before=sum(answer.cached_tokens for answer in first),
        failures=[answer.describe() for answer in (*first, *second) if not answer.ok],
    )


@dataclass(frozen=True)
class FaultyPasses:
    """What came of questions while the manager failed, and after it."""

    injected: Mapping[str, int]
    """Faults that came to pass, by call of the manager."""
    same_answers: float
    """Share of all questions that were answered as without a fault, asked while the manager failed and after it."""
    from_storage_failing: int
    """Tokens of prompts that came out of storage while it could not be looked into; none."""
    from_storage_after: float
    """As `TwoPasses.from_storage`, once the manager is well again."""
    failures: Sequence[str]


def ask_while_it_fails(server: Server, manager: KvcmManager, traffic: Traffic, stall_s: float) -> FaultyPasses:
    """The questions of ``traffic``, stored before, and as many new ones, while the manager fails; and all again after.

    It refuses, answers what is no JSON, and resets the line; then it keeps one call for ``stall_s``, less than its
    client waits.
    """
    old, new = traffic, replace(traffic, seed=traffic.seed + 1)
    expected = _ask_all(server, old)
    _forget(server, manager, expected)
    injected: Counter[str] = Counter()
    failing: list[list[Answer]] = []
    for number, (kind, calls) in enumerate(FAILING):
        faults = [manager.inject(api, kind) for api in calls]
        failing += [_ask_all(server, old), _ask_all(server, replace(new, seed=new.seed + number))]
        _wait_until_met(server, faults)
        injected.update({fault.api: fault.injected for fault in faults})
        manager.clear_faults()
        server.wait_until_idle()
        server.flush()
    injected[STALLED] = _stall(server, manager, old, stall_s)
    after = _ask_all(server, old)
    again = failing[::2]
    fresh = [_ask_all(server, replace(new, seed=new.seed + number)) for number in range(len(FAILING))]
    pairs = [(one, two) for answers in (*again, after) for one, two in zip(expected, answers, strict=True)]
    pairs += [
        (one, two)
        for while_failing, now in zip(failing[1::2], fresh, strict=True)
        for one, two in zip(while_failing, now, strict=True)
    ]
    everyone = [*expected, *after, *(answer for answers in (*failing, *fresh) for answer in answers)]
    return FaultyPasses(
        injected=injected,
        same_answers=sum(one.ok and two.ok and one.tokens == two.tokens for one, two in pairs) / len(pairs),
        from_storage_failing=sum(answer.cached_tokens for answers in again for answer in answers if answer.ok),
        from_storage_after=_from_storage(after),
        failures=[answer.describe() for answer in everyone if not answer.ok],
    )


def _wait_until_met(server: Server, faults: Sequence[Fault]) -> None:
    """Until each fault came to pass: pages are written after the answer. That none came is the test's to see."""
    deadline = time.monotonic() + STORED_LIMIT_S
    while not all(fault.arrived.is_set() for fault in faults) and time.monotonic() < deadline:
        server.load()  # an idle scheduler is kept awake by questions
        server.program.exits_within(POLL_S)


def _stall(server: Server, manager: KvcmManager, traffic: Traffic, stall_s: float) -> int:
    """Ask while one look into the storage takes so long; how many did."""
    fault = manager.inject(LOOK, Kind.HELD, at_call=1)
    with ThreadPoolExecutor(1) as client:
        answers = client.submit(_ask_all, server, replace(traffic, questions=1))
        fault.wait_for_call()
        server.program.exits_within(stall_s)
        fault.release()
        answers.result()
    manager.clear_faults()
    server.wait_until_idle()
    server.flush()
    return fault.injected


def complaints(server: Server) -> list[str]:
    """What the backend wrote, but for the line that says it is ready."""
    return [line for line in server.output().splitlines() if "] KVCM " in line and "is ready" not in line]


def worst_complaints(server: Server) -> list[str]:
    """What the backend may not write even where its manager fails."""
    return [line for line in complaints(server) if any(sign in line for sign in WORST)]


def _forget(server: Server, manager: KvcmManager, answers: Sequence[Answer]) -> None:
    """Wait until the pages of these prompts are stored, and empty the server's own caches."""
    page_tokens = server.options.page_size
    _wait_until_stored(server, manager, sum(answer.prompt_tokens // page_tokens for answer in answers))
    server.wait_until_idle()
    server.flush()


def _from_storage(answers: Sequence[Answer]) -> float:
    return sum(answer.cached_tokens for answer in answers) / sum(answer.prompt_tokens for answer in answers)


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
