"""Two scenarios of whole PD servers: clients that go away, and an engine some of whose transfers fail.

The same code on a CPU with the tiny model and a dozen requests, and on a GPU with a real model and hundreds; what
each must reach is in ``tests/regression/thresholds.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from testbed.answers import Answer
from testbed.device import Device, device
from testbed.forms import Form
from testbed.pd_servers import PdOptions, PdServers
from testbed.pd_traffic import Answered, Traffic, ask_all, is_aborted
from testbed.server import PROTOCOL

ABORTED_SHARE = 0.3
IDLE_LIMIT_S = 90.0
"""Three times as long as decode keeps what no prefill lets go of."""

BAD_SIGNS = ("Context corruption", "Exception in thread", "Scheduler hit an exception", "memory leak")
WAITING_FOR_KV = "decode_transfer_queue_reqs"
POLL_S = 0.05
THREADS = {"prefill": ("bootstrap_thread", "transfer_worker"), "decode": ("decode_thread",)}
"""Functions that must still run on a thread of each server's scheduler."""


@dataclass(frozen=True)
class AbortRun:
    """What came of a run in which clients went away, against one in which none did."""

    aborted: float
    """Share of all requests."""
    same_answers: float
    """Share of those that were not aborted."""
    failures: Sequence[str]
    """What those were told that got no text and were not aborted."""


@dataclass(frozen=True)
class RetryRun:
    """What came of a run in which calls of prefill's engine failed, against one in which none did."""

    succeeded: float
    same_answers: float
    injected: int
    failures: Sequence[str]


def pd_options(form: Form) -> PdOptions:
    """Prefill and decode as a form wants them: on one card, or on one each."""
    on_two = form.on_two and device() is Device.CUDA
    return PdOptions(
        model=form.model,
        pool_tokens=form.pool_tokens,
        decode_flags=("--base-gpu-id", "1") if on_two else (),
        env={} if form.transport == "tcp" else {PROTOCOL: form.transport},
    )


def ask_prefill_too_late(pd: PdServers, prompt: str, room: int) -> Answer:
    """What prefill says to a request that decode has had, and has given up, before prefill gets it."""
    before = pd.decode.load().queues[WAITING_FOR_KV]
    at_decode = pd.decode.begin(prompt, rid="too-late", **pd.bootstrap(room))
    while pd.decode.load().queues[WAITING_FOR_KV] == before and not at_decode.answered_within(POLL_S):
        pass
    pd.abort("too-late")
    at_decode.answer()
    return pd.prefill.generate(prompt, **pd.bootstrap(room))


def run_with_aborts(pd: PdServers, traffic: Traffic, share: float = ABORTED_SHARE) -> AbortRun:
    """All questions once without an abort, and once with that share aborted within half of the shortest answer's time.

    In that time their KV is sent.
    """
    expected = _alone(pd, traffic)
    aborts = traffic.aborts(share, within_s=expected.shortest_s / 2)
    said = ask_all(pd, traffic, "aborted", aborts)
    gone = [index for index in aborts if is_aborted(said.answers[index])]
    stayed = [index for index in range(traffic.questions) if index not in aborts]
    return AbortRun(
        aborted=len(gone) / traffic.questions,
        same_answers=_same(expected, said, stayed),
        failures=_failures(answer for answer in said.answers if not is_aborted(answer)),
    )


def run_with_failing_transfers(pd: PdServers, traffic: Traffic, nth: int) -> RetryRun:
    """All questions once as they are, and once while each ``nth`` of prefill's KV transfers fails."""
    expected = _alone(pd, traffic)
    engine = pd.prefill.engine()
    sent = len(engine.transfers())
    engine.fail_every("kv", nth)
    said = ask_all(pd, traffic, "failing")
    engine.fail_next("kv", 0)
    everyone = range(traffic.questions)
    return RetryRun(
        succeeded=sum(answer.ok for answer in said.answers) / traffic.questions,
        same_answers=_same(expected, said, everyone),
        injected=sum(transfer.injected for transfer in engine.transfers()[sent:]),
        failures=_failures(said.answers),
    )


def _alone(pd: PdServers, traffic: Traffic) -> Answered:
    """What the clients are told when nothing goes wrong. Raises ValueError if something does: nothing is shown then."""
    expected = ask_all(pd, traffic, "expected")
    if failures := _failures(expected.answers):
        raise ValueError(f"requests fail without a fault: {failures[0]}")
    empty_caches(pd)
    return expected


def _same(expected: Answered, said: Answered, which: Sequence[int]) -> float:
    return sum(
        said.answers[index].ok and said.answers[index].tokens == expected.answers[index].tokens for index in which
    ) / len(which)


def _failures(answers: Iterable[Answer]) -> list[str]:
    return [answer.describe() for answer in answers if not answer.ok]


def empty_caches(pd: PdServers) -> None:
    """Both servers idle, and no prefix left from before."""
    for server in (pd.prefill, pd.decode):
        server.wait_until_idle(IDLE_LIMIT_S)
        server.flush()


def free_tokens(pd: PdServers) -> list[int]:
    """Of prefill's pool and of decode's, once both have nothing to do."""
    return [server.wait_until_idle(IDLE_LIMIT_S).free_tokens for server in (pd.prefill, pd.decode)]


def bad_signs(pd: PdServers) -> list[str]:
    """What no server may have written."""
    return [
        f"{name}: {sign}"
        for name, server in (("prefill", pd.prefill), ("decode", pd.decode))
        for sign in BAD_SIGNS
        if sign in server.output()
    ]


def dead_threads(pd: PdServers) -> list[str]:
    """Which of `THREADS` do not run any more. It ends the servers, for only then do they write their stacks."""
    expected = [(name, function) for name, functions in THREADS.items() for function in functions]
    stacks = pd.prefill.abort_all()
    return [f"{name}: {function}" for name, function in expected if not _runs(stacks, name, function)]


def _runs(stacks: str, server: str, function: str) -> bool:
    """Whether a scheduler of this server has the function on a stack; ``stacks`` is `Program.abort`'s."""
    schedulers = re.findall(rf"^\[{server}: sglang::scheduler.*?\]\n(.*?)(?=^\[|\Z)", stacks, re.MULTILINE | re.DOTALL)
    return any(f" in {function}\n" in said for said in schedulers)
