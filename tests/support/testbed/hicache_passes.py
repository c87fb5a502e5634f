"""A scenario of whole servers with HiCache: many questions, and all of them again once the device has dropped them.

The same code on a CPU with the tiny model and a dozen questions, and on GPUs with real models and hundreds; what each
must reach is in ``tests/regression/thresholds.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

from testbed.answers import Answer
from testbed.pd_traffic import Traffic
from testbed.program import ProgramEnded
from testbed.server import Server

BAD_SIGNS = ("Scheduler hit an exception", "memory leak", "PPSync", "PP HiCache sync")


@dataclass(frozen=True)
class TwoPasses:
    """What came of it; shares are of all questions."""

    succeeded: float
    """In both passes."""
    same_answers: float
    """In the second pass the tokens of the first."""
    from_host: float
    """In the second pass, some tokens of the prompt came from the host."""
    right: float
    """In the second pass, both numbers that the question asks for are in the text."""
    failures: Sequence[str]
    prompt_tokens: int = 0
    """Of the shortest prompt."""


def run_two_passes(server: Server, traffic: Traffic, limit_s: float) -> TwoPasses:
    """Each question twice, in the same order; the KV pool must hold fewer than all. ``limit_s`` is for each answer."""
    stuck = Event()
    first, second = (_ask_all(server, traffic, limit_s, stuck) for _ in range(2))
    pairs = [(one, two) for one, two in zip(first, second, strict=True) if one.ok and two.ok]
    solved = [
        two.ok and set(map(str, numbers)) <= set(re.findall(r"\d+", two.text))
        for two, numbers in zip(second, traffic.solutions(), strict=True)
    ]
    return TwoPasses(
        succeeded=len(pairs) / traffic.questions,
        same_answers=sum(one.tokens == two.tokens for one, two in pairs) / traffic.questions,
        from_host=sum(two.ok and _host_tokens(two) > 0 for two in second) / traffic.questions,
        right=sum(solved) / traffic.questions,
        failures=[answer.describe() for answer in (*first, *second) if not answer.ok][:1],
        prompt_tokens=min((answer.prompt_tokens for answer in first if answer.ok), default=0),
    )


def bad_signs(server: Server) -> list[str]:
    """What the server may not have written."""
    return [sign for sign in BAD_SIGNS if sign in server.output()]


def _ask_all(server: Server, traffic: Traffic, limit_s: float, stuck: Event) -> list[Answer]:
    """All questions; once one had no answer, no other is asked, and counts as failed."""

    def ask(prompt: str) -> Answer:
        if stuck.is_set():
            return Answer(0, error="not asked, for an earlier question had no answer")
        try:
            pending = server.begin(prompt, traffic.new_tokens)
        except ProgramEnded as ended:
            return Answer(0, error=str(ended))
        if pending.answered_within(limit_s):
            return pending.answer()
        stuck.set()
        return Answer(0, error=f"no answer within {limit_s:.0f} s")

    with ThreadPoolExecutor(traffic.at_once) as clients:
        return list(clients.map(ask, traffic.prompts()))


def _host_tokens(answer: Answer) -> int:
    return int(answer.body["meta_info"]["cached_tokens_details"]["host"])
