"""Requests of many clients at once to a PD deployment, of which some go away before they are answered.

The questions are texts, made here; what a client asks, who goes away and how long each of those waits come from a
seed. When a server gets an abort is up to the machine: that is what makes every run a different one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from testbed.answers import Answer
from testbed.pd_servers import PdServers

ANSWER_LIMIT_S = 240.0
LONGER = 8
"""How many times as much those ask for who go away: however fast the machine, the answer is not there before."""
ABORT_AGAIN_S = 0.02
"""A server forgets an abort of a request that has not reached it yet, so it is said again until it is heeded."""
NO_ABORTS: Mapping[int, float] = {}

_NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn")
_THINGS = ("apples", "boxes", "coins", "maps", "pens", "tickets")


@dataclass(frozen=True)
class Traffic:
    """Who asks for what."""

    questions: int
    at_once: int
    new_tokens: int
    seed: int
    preface: int = 0
    """Sentences before each question, which it does not need."""

    def prompts(self) -> list[str]:
        """Different word problems: a number at the beginning of each keeps one from being another's prefix."""
        return [text for text, _ in self._problems()]

    def solutions(self) -> list[tuple[int, int]]:
        """The two numbers that are the answer to each of the prompts."""
        return [numbers for _, numbers in self._problems()]

    def _problems(self) -> list[tuple[str, tuple[int, int]]]:
        draw = random.Random(self.seed)
        return [self._after_preface(*_word_problem(number, draw)) for number in range(1, self.questions + 1)]

    def _after_preface(self, text: str, numbers: tuple[int, int]) -> tuple[str, tuple[int, int]]:
        """The number at its beginning stays there; a preface of its own keeps it from sharing one with others."""
        if not self.preface:
            return text, numbers
        number, _, question = text.partition(" ")
        draw = random.Random(f"{self.seed} {number}")
        return " ".join([number, *(_sentence(day, draw) for day in range(1, self.preface + 1)), question]), numbers

    def aborts(self, share: float, within_s: float) -> dict[int, float]:
        """Which questions are aborted, and after how many seconds each."""
        draw = random.Random(self.seed + 1)
        chosen = draw.sample(range(self.questions), round(share * self.questions))
        return {index: draw.uniform(0.0, within_s) for index in chosen}


def _word_problem(number: int, draw: random.Random) -> tuple[str, tuple[int, int]]:
    name, other = draw.sample(_NAMES, 2)
    thing = draw.choice(_THINGS)
    had, lost, got, more = draw.randint(40, 99), draw.randint(2, 19), draw.randint(2, 39), draw.randint(2, 9)
    text = (
        f"{number}. {name} has {had} {thing} and gives {lost} of them to {other}. {other} had {got} {thing} before, "
        f"and finds {more} more. How many {thing} does each of them have now? Think step by step."
    )
    return text, (had - lost, got + lost + more)


def _sentence(day: int, draw: random.Random) -> str:
    first, second = draw.sample(_THINGS, 2)
    return f"On day {day} the shop sold {draw.randint(2, 99)} {first} and {draw.randint(2, 99)} {second}."


@dataclass(frozen=True)
class Answered:
    """What all clients were told, in the order of the questions."""

    answers: Sequence[Answer]
    durations_s: Sequence[float]

    @property
    def shortest_s(self) -> float:
        return min(self.durations_s)


def is_aborted(answer: Answer) -> bool:
    """Whether the client was told that its request was aborted, not that it failed in another way."""
    return not answer.ok and (answer.finish == "abort" or "Aborted by AbortReq" in answer.error)


def ask_all(pd: PdServers, traffic: Traffic, name: str, aborts: Mapping[int, float] = NO_ABORTS) -> Answered:
    """All questions through the load balancer; those in ``aborts`` are aborted at decode after so many seconds.

    Those ask for `LONGER` answers, which nobody compares. ``name`` tells the request ids of one run from those of
    another.
    """
    prompts = traffic.prompts()

    def ask(index: int) -> tuple[Answer, float]:
        rid = f"{name}-{index:06d}"  # of one length: SGLang aborts every request whose id begins with this one
        begin_s = time.monotonic()
        goes_away = index in aborts
        pending = pd.begin(prompts[index], traffic.new_tokens * (LONGER if goes_away else 1), rid=rid)
        wait_s = aborts.get(index, 0.0)
        while goes_away and not pending.answered_within(wait_s):
            pd.abort(rid)
            wait_s = ABORT_AGAIN_S
        return pending.answer(ANSWER_LIMIT_S), time.monotonic() - begin_s

    with ThreadPoolExecutor(traffic.at_once) as clients:
        answers, durations_s = zip(*clients.map(ask, range(traffic.questions)), strict=True)
    return Answered(answers, durations_s)
