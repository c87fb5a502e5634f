"""What cannot work with pipeline stages is refused at the start, and host pools that differ in size are made equal."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from testbed import Children, Ports, Rank, hicache, run_ranks
from testbed.hicache import HiCacheRank, HiCacheShape, start_rank, what_it_raises
from testbed.hicache_state import TreeState, assert_same_steps
from testbed.program import Programs
from testbed.server import ServerOptions, start_server

PP2 = HiCacheShape(tp=1, pp=2)
TIMEOUT, WARN, ALLOW_STORAGE = (
    "SGLANG_HICACHE_PP_SYNC_TIMEOUT_S",
    "SGLANG_HICACHE_PP_SYNC_WARN_S",
    "SGLANG_HICACHE_PP_ALLOW_STORAGE",
)
DECODE = (
    *("--disaggregation-mode", "decode", "--disaggregation-transfer-backend", "mooncake"),
    "--disaggregation-decode-enable-radix-cache",  # else SGLang itself refuses HiCache there
)

# Room for 600 tokens of one layer, or for 200 of three.
UNEVEN = HiCacheShape(tp=1, pp=2, stage_layers=(1, 3), host_bytes=600 * 32, device_tokens=120)


def fill_the_host(rank: HiCacheRank) -> list[TreeState]:
    """More prompts than fit on the host, so that a stage with more room would keep what others evict."""
    states = [rank.state()]
    for number in range(8):
        rank.serve(f"r{number}", range(number * 100, number * 100 + 50))
        rank.settle()
        states.append(rank.state())
    return states


@pytest.mark.parametrize("tree", ["hiradix", "unified"])
def test_stages_with_other_numbers_of_layers_have_host_pools_of_one_size(
    children: Children, tree: hicache.Tree
) -> None:
    """--hicache-size is in gigabytes, and a token of a stage with fewer layers takes fewer bytes."""
    histories = hicache.run(children, dataclasses.replace(UNEVEN, tree=tree), fill_the_host)
    assert_same_steps(histories)


@pytest.mark.parametrize("tree", ["hiradix", "unified"])
def test_storage_with_two_stages_is_refused(children: Children, tmp_path: Path, tree: hicache.Tree) -> None:
    """Each stage would decide by itself what it found there."""
    shape = dataclasses.replace(PP2, tree=tree, storage_dir=tmp_path / "storage")
    for said in hicache.refusals(children, shape):
        assert said.startswith("ValueError: "), f"it was not refused: {said!r}"
        assert "--hicache-storage-backend" in said
        assert "--pp-size" in said
        assert ALLOW_STORAGE in said


def attach_storage(rank: HiCacheRank) -> tuple[bool, str]:
    """An operator attaches storage to a running server (Scheduler.attach_hicache_storage_wrapped)."""
    return rank.cache.attach_storage_backend("file")


def test_storage_cannot_be_attached_later_either(children: Children, tmp_path: Path) -> None:
    storage = {"SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR": str(tmp_path)}
    for attached, said in hicache.run(children, PP2, attach_storage, env=storage):
        assert not attached
        assert ALLOW_STORAGE in said


def test_mamba_states_with_two_stages_are_refused(children: Children) -> None:
    for said in hicache.refusals(children, dataclasses.replace(PP2, tree="himamba")):
        assert said.startswith("ValueError: "), f"it was not refused: {said!r}"
        assert "--pp-size" in said


@pytest.mark.parametrize(
    ("name", "value"), [(TIMEOUT, "soon"), (TIMEOUT, "-1"), (TIMEOUT, "nan"), (WARN, "never"), (ALLOW_STORAGE, "maybe")]
)
def test_a_wrong_setting_stops_the_start(children: Children, name: str, value: str) -> None:
    """It names the variable, and what it may be."""
    for said in hicache.refusals(children, PP2, env={name: value}):
        assert said.startswith("ValueError: "), f"{name}={value} was taken for something: {said!r}"
        assert f"{name}='{value}'" in said


def build_with_a_setting_of_its_own(member: Rank) -> str:
    os.environ[TIMEOUT] = str(100 + member.number)
    return what_it_raises(start_rank, PP2, member)


def test_stages_with_other_settings_stop_the_start(children: Children) -> None:
    """Each stage may run on a machine of its own, with an environment of its own."""
    ended = run_ranks(children, build_with_a_setting_of_its_own, size=PP2.ranks, group=False)
    for said in ended.values():
        assert said.startswith("ValueError: "), f"the stages began with different settings: {said!r}"
        assert "SGLANG_HICACHE_PP_" in said
        assert "100" in said
        assert "101" in said


@pytest.mark.limit(300)
@pytest.mark.parametrize(
    ("flags", "env", "because"),
    [
        pytest.param(("--hicache-storage-backend", "file"), {}, ALLOW_STORAGE, id="storage"),
        pytest.param(DECODE, {}, "--pp-size", id="decode"),
        pytest.param((), {TIMEOUT: "soon"}, f"{TIMEOUT}='soon'", id="setting"),
    ],
)
def test_a_server_does_not_start(
    programs: Programs,
    ports: Ports,
    tiny_model: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
    env: dict[str, str],
    because: str,
) -> None:
    env = {"SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR": str(tmp_path), **env}
    options = ServerOptions(pp=2, hicache=True, model=tiny_model, flags=flags, env=env)
    said = what_it_raises(start_server, programs, ports, options)
    assert said.startswith("ProgramEnded: "), f"it started: {said!r}"
    assert because in said


# Controls: what is not asked for is not refused.


@pytest.mark.control
@pytest.mark.parametrize("env", [{TIMEOUT: "0"}, {ALLOW_STORAGE: "1"}], ids=["switch", "variable"])
def test_storage_is_allowed_by_its_variable_and_by_the_switch(
    children: Children, tmp_path: Path, env: dict[str, str]
) -> None:
    shape = dataclasses.replace(PP2, storage_dir=tmp_path / "storage")
    assert hicache.refusals(children, shape, env=env) == ["", ""]


@pytest.mark.control
def test_one_stage_may_have_storage_and_mamba_states(children: Children, tmp_path: Path) -> None:
    shape = HiCacheShape(tree="himamba", tp=2, storage_dir=tmp_path / "storage")
    assert hicache.refusals(children, shape) == ["", ""]
