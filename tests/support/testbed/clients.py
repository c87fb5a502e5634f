"""Clients of a server or a PD deployment that ask at once: what each is told, and when its first words came.

::

    told = ask_streaming(server, form.traffic)
    assert told.succeeded == 1.0, told.failures
    measure("throughput-tokens", told.tokens_per_s)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from testbed.answers import Answer
from testbed.pd_traffic import Traffic

STEP_LIMIT_S = 240.0
"""For each step of a stream, the first among them."""


class Asked(Protocol):
    """A `Server`, or `PdServers`."""

    def generate(
        self, prompt: str | Sequence[int], new_tokens: int, *, limit_s: float = ..., **more: object
    ) -> Answer: ...

    def stream(self, prompt: str | Sequence[int], new_tokens: int, *, limit_s: float = ...) -> Iterator[Answer]: ...


@dataclass(frozen=True)
class Told:
    """What came of all questions, each asked as a stream."""

    answers: Sequence[Answer]
    first_words_s: Sequence[float]
    """Of each that was answered: from the question to the first step."""
    took_s: float
    new_tokens: int
    """Of each answer."""

    @property
    def succeeded(self) -> float:
        """Share of all questions that got all their tokens."""
        return sum(answer.ok and len(answer.tokens) == self.new_tokens for answer in self.answers) / len(self.answers)

    @property
    def failures(self) -> list[str]:
        return [answer.describe() for answer in self.answers if not answer.ok][:3]

    @property
    def tokens_per_s(self) -> float:
        return sum(len(answer.tokens) for answer in self.answers if answer.ok) / self.took_s

    @property
    def first_words_ms(self) -> float:
        """The median."""
        return median(self.first_words_s) * 1000


def ask_streaming(asked: Asked, traffic: Traffic) -> Told:
    """All questions, as many at once as the traffic says."""

    def ask(prompt: str) -> tuple[Answer, float | None]:
        begin_s = time.monotonic()
        first_s, answer = None, Answer(0, error="the stream had no step")
        for answer in asked.stream(prompt, traffic.new_tokens, limit_s=STEP_LIMIT_S):
            if first_s is None and answer.ok:
                first_s = time.monotonic() - begin_s
        return answer, first_s

    begin_s = time.monotonic()
    with ThreadPoolExecutor(traffic.at_once) as clients:
        said = list(clients.map(ask, traffic.prompts()))
    took_s = time.monotonic() - begin_s
    return Told([answer for answer, _ in said], [first for _, first in said if first], took_s, traffic.new_tokens)


def ask_whole(asked: Asked, prompts: Sequence[str], new_tokens: int, *, at_once: int, **more: object) -> list[Answer]:
    """Each prompt, as many at once as ``at_once``; ``more`` goes into the requests as it is."""

    def ask(prompt: str) -> Answer:
        return asked.generate(prompt, new_tokens, limit_s=STEP_LIMIT_S, **more)

    with ThreadPoolExecutor(at_once) as clients:
        return list(clients.map(ask, prompts))


def sampling(new_tokens: int, *stops: str) -> Mapping[str, object]:
    """Greedy words up to one of ``stops`` or the model's own end."""
    return {"sampling_params": {"max_new_tokens": new_tokens, "temperature": 0, "stop": list(stops)}}
