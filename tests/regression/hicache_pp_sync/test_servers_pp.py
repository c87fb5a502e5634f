"""A server of two pipeline stages, whose copies between device and host end later on one stage than on the other.

Without the patch the stages then match different prefixes, and each waits for a tensor that the other does not send.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from testbed.answers import Answer
from testbed.server import Server, ServerOptions
from testbed.shared_servers import SharedServers
from testbed.tiny_model import prompt_ids

pytestmark = pytest.mark.limit(300)

NEVER = 10**9  # polls
NEW_TOKENS = 8
PROMPT_TOKENS = 280  # the unified tree loads no fewer than 256 back
PROMPTS = [prompt_ids(PROMPT_TOKENS, first=number) for number in range(10, 16)]
ANSWER_LIMIT_S = 15.0
SERVER = ServerOptions(pp=2, hicache=True, pool_tokens=1400)
"""Four of the prompts and their answers fill the device; the host holds twice as much."""
UNIFIED = {"SGLANG_ENABLE_UNIFIED_RADIX_TREE": "1"}


def ask_one_by_one(server: Server) -> list[Answer]:
    """The answers to all prompts, up to the first that fails."""
    answers: list[Answer] = []
    while len(answers) < len(PROMPTS) and all(answer.ok for answer in answers):
        answers.append(server.generate(PROMPTS[len(answers)], NEW_TOKENS, limit_s=ANSWER_LIMIT_S))
    return answers


def ask_at_once(server: Server) -> list[Answer]:
    under_way = [server.begin(prompt, NEW_TOKENS) for prompt in PROMPTS]
    return [pending.answer(ANSWER_LIMIT_S) for pending in under_way]


def assert_all_answered(answers: Sequence[Answer]) -> None:
    for answer in answers:
        assert answer.ok, answer.describe()
    assert len(answers) == len(PROMPTS)


def assert_second_pass_hits_the_host(server: Server) -> None:
    """Each prompt again after the others have driven it off the device: the same answer, from the host's cache."""
    server.flush()
    first = ask_one_by_one(server)
    assert_all_answered(first)
    second = ask_one_by_one(server)
    assert_all_answered(second)
    assert [answer.tokens for answer in second] == [answer.tokens for answer in first]
    assert [answer.cached_tokens for answer in second] == [PROMPT_TOKENS - 1] * len(PROMPTS)
    cached = [answer.body["meta_info"]["cached_tokens_details"] for answer in second]
    assert cached[0] == {"device": 0, "host": PROMPT_TOKENS - 1}
    at_once = ask_at_once(server)
    assert_all_answered(at_once)
    assert [answer.tokens for answer in at_once] == [answer.tokens for answer in first]


@pytest.mark.parametrize(
    ("polls", "env"),
    [
        pytest.param((0, NEVER), {}, id="hiradix-second-slow"),
        pytest.param((40, 0), UNIFIED, id="unified-first-slow"),
    ],
)
def test_what_left_the_device_comes_back_from_the_host(
    shared_servers: SharedServers, polls: tuple[int, ...], env: dict[str, str]
) -> None:
    server = shared_servers.server(SERVER, copy_polls=polls, env=env)
    assert_second_pass_hits_the_host(server)


@pytest.mark.control
def test_stages_that_copy_alike_need_nobody_to_agree(shared_servers: SharedServers) -> None:
    """As on a CPU, where a copy has ended when the call returns."""
    assert_second_pass_hits_the_host(shared_servers.server(SERVER))
