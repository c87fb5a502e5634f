"""What each pipeline stage of `tests.bench.pp_driver` does."""

from __future__ import annotations

from tests.bench.measure import measured

from testbed.hicache import HiCacheRank

PROMPTS = 5
PROMPT_TOKENS = 40
DEVICE_TOKENS = 120
"""Room for three of the prompts: in each round with one, a node is evicted, and another loaded back."""

IDLE, PROMPT = "idle", "a prompt"


def run_rounds(rank: HiCacheRank, what: str) -> None:
    """As many rounds as the driver says, again and again, until it ends."""
    while True:
        rounds = rank.link.receive(None)
        _, cost = measured(go_round, rank, rounds, what)
        rank.settle()
        rank.link.send((cost, rank.state()))


def go_round(rank: HiCacheRank, rounds: int, what: str) -> None:
    for number in range(rounds):
        if what == PROMPT:
            first = number % PROMPTS * 100
            rank.serve(f"r{number}", range(first, first + PROMPT_TOKENS))
        rank.tick()
