"""Two ranks of a trainer and a real SGLang server of tensor parallel size 2, with a tiny model; and one rank alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from testbed import Children, Rank, start_ranks
from testbed.colocate_callers import Caller, CallerHandle, Colocation, Said, ask_all, attempt, do_all
from testbed.colocate_sglang import MODULE, fork_servers_of_this_process, server_arguments, server_environment
from testbed.colocate_training import load_trainer, shared_storages, slope_mb, train
from testbed.ports import Ports
from testbed.processes import run_alone
from testbed.thresholds import threshold
from testbed.tiny_model import greedy_tokens, prompt_ids
from testbed.warm import WarmProcesses

NEW_TOKENS = 8
STEPS = 3
PROMPT = prompt_ids(40)
STARTED, UPDATE = "The server is fired up", "POST /update_weights_from_tensor"


def train_once(model: Path, trained: Path) -> tuple[list[int], list[int]]:
    """Make the model after a step of a trainer, whose words mean something else; what transformers says to both."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, trained)
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(weights, trained / "model.safetensors", metadata={"format": "pt"})
    return greedy_tokens(model, [PROMPT], NEW_TOKENS)[0], greedy_tokens(trained, [PROMPT], NEW_TOKENS)[0]


def tokens_of(rank: CallerHandle) -> list[int]:
    sampling = {"max_new_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}
    said = rank.ask("generate", input_ids=PROMPT, sampling_params=sampling)
    assert not said.error, said
    tokens: list[int] = said.value["output_ids"]
    return tokens


def sync_buckets(caller: Caller, model: Path) -> Any:
    """The weights of this folder in two buckets, in a form that one request carries each."""
    from safetensors.torch import load_file
    from sglang.srt.weight_sync.tensor_bucket import FlattenedTensorBucket

    def buckets() -> Iterator[dict[str, Any]]:
        weights = sorted(load_file(model / "model.safetensors").items())
        middle = len(weights) // 2
        for part in (weights[:middle], weights[middle:]):
            bucket = FlattenedTensorBucket(named_tensors=part)
            yield {"flattened_tensor": bucket.get_flattened_tensor(), "metadata": bucket.get_metadata()}

    return caller.engine.sync_weights(buckets(), load_format="flattened_bucket")


def update_at_once(caller: Caller, model: Path) -> bool:
    from safetensors.torch import load_file

    weights = list(load_file(model / "model.safetensors").items())
    return bool(caller.engine.update_weights_from_tensor(weights, flush_cache=True))


def still_shared(_caller: Caller) -> list[tuple[str, int]]:
    return shared_storages()


@pytest.mark.limit(600)
@pytest.mark.kills("no-op-serialises")
def test_two_ranks_share_a_real_server(
    colocate: Colocation, tiny_model: Path, tmp_path: Path, warm: WarmProcesses | None
) -> None:
    trained = tmp_path / "trained"
    before, after = run_alone(train_once, tiny_model, trained, folder=tmp_path / "says", warm=warm)
    assert before != after
    ranks = colocate.start(
        server_module=MODULE, environ=server_environment(2), limit_s=240, **server_arguments(tiny_model)
    )
    assert [tokens_of(rank) for rank in ranks] == [before, before]
    assert [said.value for said in do_all(ranks, sync_buckets, trained)] == [True, True]
    assert [tokens_of(rank) for rank in ranks] == [after, after]
    assert [said.value for said in do_all(ranks, update_at_once, tiny_model)] == [True, True]
    assert [tokens_of(rank) for rank in ranks] == [before, before]
    assert [rank.do(still_shared).value for rank in ranks] == [[], []]
    assert [written(ranks, line) for line in (STARTED, UPDATE)] == [1, 3]
    assert do_all(ranks, load_trainer, str(tiny_model), "cpu") == [Said(), Said()]
    for said in do_all(ranks, train, STEPS, [PROMPT, prompt_ids(20, first=2)], NEW_TOKENS):
        assert not said.error, said
        off = [abs(step.logprob_ratio - 1) for step in said.value]
        assert max(off) <= threshold("colocate", "logprob_ratio_off"), said.value
        assert slope_mb(said.value) <= threshold("colocate", "held_mb_per_step"), said.value
    assert [said.error for said in ask_all(ranks, "shutdown")] == ["", ""]
    assert (colocate.servers_left(), colocate.files()) == ([], [])


def written(ranks: Sequence[CallerHandle], line: str) -> int:
    """How often all servers of these ranks have written it."""
    return sum(rank.child.log.read_text(errors="replace").count(line) for rank in ranks)


def start_alone(rank: Rank, environ: dict[str, str], port: int, arguments: dict[str, Any]) -> None:
    """An engine of one rank: what it is, and what it says; then it ends."""
    os.environ.update(environ)
    fork_servers_of_this_process()
    caller = Caller(rank)
    rank.link.send(attempt(create_alone, caller, {"host": "127.0.0.1", "port": port, **arguments}))
    rank.link.send(attempt(say, caller))
    rank.link.receive()
    caller.engine.shutdown()


def create_alone(caller: Caller, arguments: dict[str, Any]) -> str:
    from sglang.srt.colocate.engine import create_engine

    caller.engine = create_engine(group=caller.rank.group, job="alone", **arguments)
    return f"{type(caller.engine).__module__}.{type(caller.engine).__qualname__}"


def say(caller: Caller) -> Any:
    sampling = {"max_new_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}
    return caller.engine.generate(input_ids=PROMPT, sampling_params=sampling)["output_ids"]


@pytest.mark.limit(600)
@pytest.mark.kills("one-rank-through-the-rendezvous")
def test_one_rank_alone_has_the_adapter(
    colocate: Colocation, children: Children, ports: Ports, tiny_model: Path, transformers_says: Any
) -> None:
    """With tensor parallel size 1 there is nothing to share: SGLang's own adapter, and no rendezvous."""
    arguments = {**server_arguments(tiny_model), "server_device": "cpu", "tp_size": 1, "nccl_port": ports.take()}
    environ = {**colocate.environment(), **server_environment(1)}
    (rank,) = start_ranks(children, start_alone, environ, ports.take(), arguments, size=1)
    assert rank.receive(240) == Said("sglang.srt.entrypoints.http_server_engine.HttpServerEngineAdapter")
    assert rank.receive() == Said(transformers_says([PROMPT], NEW_TOKENS)[0])
    assert not colocate.rendezvous.exists()
    rank.send("end")
    assert children.join(120).values() == [None]
