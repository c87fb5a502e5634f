"""Real servers in the bed: they say what transformers says, in every shape, and a hang shows every process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.processes import run_alone
from testbed.program import processes_of_session
from testbed.server import ServerOptions
from testbed.shared_servers import SharedServers
from testbed.tiny_model import make_tiny_model, prompt_ids
from testbed.warm import WarmProcesses

pytestmark = [pytest.mark.control, pytest.mark.limit(300)]

PROMPTS = [prompt_ids(40), prompt_ids(40, first=1), prompt_ids(7, first=2)]
NEW_TOKENS = 24
SMALL_CACHE = ServerOptions(hicache=True, pool_tokens=512)
"""Four prompts of 100 tokens and their answers fill it, and its host pool holds twice as much."""


@pytest.fixture(scope="module")
def expected(transformers_says: Callable[..., list[list[int]]]) -> list[list[int]]:
    return transformers_says(PROMPTS, NEW_TOKENS)


def test_the_model_is_small_and_always_the_same(tiny_model: Path, tmp_path: Path, warm: WarmProcesses | None) -> None:
    again = run_alone(make_tiny_model, tmp_path / "again", folder=tmp_path, warm=warm)
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    assert files == {path.name: path.read_bytes() for path in again.iterdir()}
    assert sum(map(len, files.values())) < 1_000_000


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(SMALL_CACHE, id="one-rank"),
        pytest.param(ServerOptions(tp=2), id="tp2"),
        pytest.param(ServerOptions(pp=2), id="pp2"),
    ],
)
def test_greedy_tokens_are_those_of_transformers(
    shared_servers: SharedServers, expected: list[list[int]], options: ServerOptions
) -> None:
    server = shared_servers.server(options)
    answers = [server.generate(prompt, NEW_TOKENS) for prompt in PROMPTS]
    assert [answer.tokens for answer in answers] == expected, server.output()
    assert len(server.schedulers) == options.tp * options.pp


def test_requests_at_once_and_a_stream_say_the_same(shared_servers: SharedServers, expected: list[list[int]]) -> None:
    server = shared_servers.server(SMALL_CACHE)
    under_way = [server.begin(prompt, NEW_TOKENS) for prompt in PROMPTS]
    assert [pending.answer().tokens for pending in under_way] == expected
    steps = list(server.stream(PROMPTS[0], NEW_TOKENS))
    assert [step.finish for step in steps[-2:]] == ["", "length"]
    assert steps[-1].tokens == expected[0]


def test_what_left_the_device_comes_back_from_the_host(shared_servers: SharedServers) -> None:
    server = shared_servers.server(SMALL_CACHE)
    server.flush()
    first, *others = [prompt_ids(100, first=number) for number in range(10, 16)]
    said = server.generate(first, 8)
    assert said.cached_tokens == 0
    for other in others:
        assert server.generate(other, 8).ok
    again = server.generate(first, 8)
    assert again.tokens == said.tokens
    assert again.body["meta_info"]["cached_tokens_details"] == {"device": 0, "host": 99}


def test_an_abort_ends_a_request_and_frees_its_tokens(shared_servers: SharedServers) -> None:
    """Its answer is long: on a loaded machine the client waits for its turn while the server goes on."""
    options = ServerOptions(tp=2)
    server = shared_servers.server(options)
    long = server.stream(PROMPTS[0], 3500, rid="long")
    assert next(long).ok
    server.abort("long")
    last = list(long)[-1]
    assert (last.status, last.finish) == (200, "abort"), last.describe()
    assert server.wait_until_idle().free_tokens == options.pool_tokens
    assert server.generate(PROMPTS[0], 4).ok


def test_a_hang_is_an_answer_with_the_stacks_of_every_process(shared_servers: SharedServers) -> None:
    """And the next test that asks gets a server that runs."""
    server = shared_servers.server(ServerOptions(tp=2))
    server.signal_scheduler(signal.SIGSTOP, rank=1)
    answer = server.generate(prompt_ids(20, first=5), limit_s=3)
    assert answer.hung
    for process in ("sglang::server", "sglang::scheduler_TP0", "sglang::scheduler_TP1", "sglang::detokenizer"):
        assert f": {process}, process" in answer.stacks
    assert answer.stacks.count("run_event_loop") == 2
    assert server.program.processes() == []


INNER = """
import signal
import pytest
from testbed.server import ServerOptions, start_server

@pytest.mark.limit(280)
def test_fails_half_way(programs, ports, tiny_model):
    server = start_server(programs, ports, ServerOptions(model=tiny_model))
    print("SESSION", server.program.pid)
    assert server.generate([5, 6, 7]).ok
    server.signal_scheduler(signal.SIGSTOP)
    signal.setitimer(signal.ITIMER_REAL, 2)  # its limit
    server.generate([5, 6, 7])
"""


@pytest.mark.limit(450)
def test_a_test_that_takes_too_long_shows_its_servers_and_leaves_no_process(tmp_path: Path) -> None:
    """With ``--fresh``: a server as production starts it, none of its processes forked."""
    (tmp_path / "test_inner.py").write_text(INNER)
    record = tmp_path / "record.jsonl"
    options = ["-q", "-p", "testbed.plugin", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--fresh", "--record", str(record), str(tmp_path / "test_inner.py")],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    last = json.loads(record.read_text().splitlines()[-1])
    assert last["outcome"] == "timeout", ended.stdout
    for process in ("server", "scheduler", "detokenizer"):
        assert f"[server: sglang::{process}, process" in ended.stdout
    assert "output of child server" in ended.stdout
    session = int(ended.stdout.partition("SESSION ")[2].split()[0])
    assert processes_of_session(session) == []
