"""Prefill, decode and load balancer as real servers: what they say, and the faults of plain 0.5.12.post1 in them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testbed.pd_servers import PdServers
from testbed.shared_servers import SharedServers
from testbed.tiny_model import prompt_ids

pytestmark = [pytest.mark.control, pytest.mark.limit(300)]

PROMPTS = [prompt_ids(40), prompt_ids(40, first=1)]
NEW_TOKENS = 16


@pytest.fixture
def pd(shared_servers: SharedServers) -> PdServers:
    return shared_servers.pd()


def test_pd_says_what_transformers_says_and_gives_everything_back(
    pd: PdServers, transformers_says: Callable[..., list[list[int]]]
) -> None:
    before = [pd.prefill.load().free_tokens, pd.decode.load().free_tokens]
    answers = [pd.generate(prompt, NEW_TOKENS) for prompt in PROMPTS]
    assert [answer.tokens for answer in answers] == transformers_says(PROMPTS, NEW_TOKENS)
    assert [step.tokens for step in pd.stream(PROMPTS[0], NEW_TOKENS)][-1] == answers[0].tokens
    assert pd.wait_until_idle()
    assert [pd.prefill.load().free_tokens, pd.decode.load().free_tokens] == before
    assert [t.kind for t in pd.prefill.engine().transfers()[:2]] == ["kv", "aux"]


def test_decode_aborts_while_prefill_sends_and_prefill_is_not_told(pd: PdServers) -> None:
    """Held before the engine, the room outlives its abort: prefill sends all of it, and calls it a success."""
    sent_before = len(pd.prefill.engine().transfers())
    pd.prefill.engine().hold("kv")
    at_prefill, at_decode = pd.begin_in_room(7, prompt_ids(30, first=20), rid="gone")
    assert pd.prefill.engine().wait_until_held()
    pd.abort("gone", at="decode")
    aborted = at_decode.answer()
    assert (aborted.status, aborted.error.count("Aborted by AbortReq")) == (500, 1), aborted.describe()
    assert pd.decode.wait_until_idle().free_tokens == pd.decode.options.pool_tokens
    assert not at_prefill.answered
    pd.prefill.engine().release()
    assert at_prefill.answer().ok
    sent = pd.prefill.engine().transfers()[sent_before:]
    assert [(t.kind, t.returned, t.injected) for t in sent] == [("kv", 0, False), ("aux", 0, False)]
    assert pd.wait_until_idle()


def test_one_failed_transfer_fails_every_later_request_of_the_session(
    pd: PdServers, shared_servers: SharedServers
) -> None:
    """After one -1 from the engine, plain 0.5.12.post1 does not even call it for the next rooms."""
    engine = pd.prefill.engine()
    before = len(engine.transfers())
    engine.fail_next("kv", after=1)
    assert pd.generate(prompt_ids(20, first=30), NEW_TOKENS).ok
    answers = [pd.generate(prompt_ids(20, first=number), NEW_TOKENS) for number in range(31, 34)]
    assert [answer.status for answer in answers] == [500] * 3
    assert [(t.kind, t.injected) for t in engine.transfers()[before:]] == [
        ("kv", False),
        ("aux", False),
        ("kv", True),
    ]
    assert "Decode transfer failed" in answers[-1].error
    shared_servers.forget(pd)
