"""What a rank knows about its HiCache tree, as a value that ranks can compare.

Slot numbers are left out: each rank hands out its own. Everything else must be
the same on all ranks of a tensor-parallel group whenever the scheduler acts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


class NodeState(NamedTuple):
    """One tree node."""

    tokens: tuple[int, ...]  # from the root to the end of this node
    on_device: bool
    on_host: bool
    locks: int  # running requests and copies that hold it on the device
    host_locks: int  # storage operations that hold it on the host
    state_on_device: bool  # mamba only
    state_on_host: bool  # mamba only


class TreeState(NamedTuple):
    """One rank's tree, pools and what is under way."""

    nodes: tuple[NodeState, ...]  # by tokens
    device_free: int  # tokens
    host_free: int  # tokens, pages held by the test counted as free
    evictable: int  # tokens
    writing: int  # backups from device to host under way
    loading: int  # loads from host to device under way
    prefetching: tuple[str, ...]  # request ids
    archiving: int  # backups from host to storage under way

    def difference(self, other: TreeState) -> str:
        """Where this state is not `other`, in words."""
        lines = [
            f"{name} {mine!r} instead of {its!r}"
            for name, mine, its in zip(self._fields, self, other, strict=True)
            if name != "nodes" and mine != its
        ]
        mine, its = set(self.nodes), set(other.nodes)
        lines += [f"node {node} here only" for node in sorted(mine - its)]
        lines += [f"node {node} there only" for node in sorted(its - mine)]
        return "; ".join(lines)


def first_difference(histories: Sequence[Sequence[TreeState]]) -> str:
    """Where the ranks' states, step by step, are first not those of rank 0; empty if they are nowhere.

    For ranks that do not wait for each other at each step, as `HiCacheRank.assert_same` would have them do.
    """
    for step, states in enumerate(zip(*histories, strict=True)):
        for number, state in enumerate(states):
            if state != states[0]:
                return f"step {step}: rank {number} differs from rank 0: {state.difference(states[0])}"
    return ""


def assert_same_steps(histories: Sequence[Sequence[TreeState]]) -> None:
    """No `first_difference`; it is the message."""
    difference = first_difference(histories)
    assert not difference, difference


def tree_state(cache: Any, host_held: int) -> TreeState:
    """The state of `cache`, of whose host pool a test holds `host_held` tokens."""
    nodes = [_node_state(node, tokens) for node, tokens in _walk(cache.root_node, ())]
    return TreeState(
        nodes=tuple(sorted(nodes)),
        device_free=cache.token_to_kv_pool_allocator.available_size(),
        host_free=cache.cache_controller.mem_pool_host.available_size() + host_held,
        evictable=_evictable(cache),
        writing=len(cache.ongoing_write_through),
        loading=len(cache.ongoing_load_back),
        prefetching=tuple(sorted(cache.ongoing_prefetch)),
        archiving=len(cache.ongoing_backup),
    )


def _walk(node: Any, prefix: tuple[int, ...]) -> Iterator[tuple[Any, tuple[int, ...]]]:
    for child in node.children.values():
        tokens = (*prefix, *child.key.token_ids)
        yield child, tokens
        yield from _walk(child, tokens)


def _node_state(node: Any, tokens: tuple[int, ...]) -> NodeState:
    if hasattr(node, "component_data"):  # UnifiedRadixCache
        full = node.component_data[0]
        return NodeState(
            tokens=tokens,
            on_device=full.value is not None,
            on_host=full.host_value is not None,
            locks=full.lock_ref,
            host_locks=full.host_lock_ref,
            state_on_device=False,
            state_on_host=False,
        )
    if hasattr(node, "mamba_value"):  # HiMambaRadixCache
        return NodeState(
            tokens=tokens,
            on_device=node.value is not None,
            on_host=node.host_value is not None,
            locks=node.full_lock_ref,
            host_locks=node.host_ref_counter,
            state_on_device=node.mamba_value is not None,
            state_on_host=node.mamba_host_value is not None,
        )
    return NodeState(  # HiRadixCache
        tokens=tokens,
        on_device=node.value is not None,
        on_host=node.host_value is not None,
        locks=node.lock_ref,
        host_locks=node.host_ref_counter,
        state_on_device=False,
        state_on_host=False,
    )


def _evictable(cache: Any) -> int:
    size = cache.full_evictable_size() if cache.supports_mamba() else cache.evictable_size()
    return int(size)
