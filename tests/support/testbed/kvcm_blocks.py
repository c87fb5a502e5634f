"""What a KV cache manager knows: instances, blocks and where they lie, writes under way.

`Blocks` answers the calls of the manager's HTTP API as values, without HTTP (`testbed.kvcm_manager` serves it).
Names, types and error codes are those of the public protocol:
https://github.com/alibaba/tair-kvcache/blob/main/kv_cache_manager/protocol/protobuf/meta_service.proto

What a client may rely on, and a real manager does as well (`tests/regression/gpu/test_kvcm_manager.py`): a block is
found once its write was finished with its bit set, and not before; a block that is being written is not given
to a second writer; a write session ends with the first ``finishWriteCache`` that names it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STORAGE_NAME = "nfs_01"

Body = dict[str, Any]


class Refused(Exception):
    """A call that the manager answers with an error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass
class Part:
    """What one rank has of a block; others find it once it is committed."""

    uri: str
    committed: bool = False


@dataclass(frozen=True)
class Instance:
    """One deployment of a model, as it was registered."""

    described: Body
    """What a second registration must say too."""
    spec_sizes: Mapping[str, int]
    """Bytes, by location spec. A spec is a rank's part of each block."""
    groups: Mapping[str, Sequence[str]]
    """Specs that are written together, by the name of the group."""


@dataclass(frozen=True)
class Session:
    """One write under way."""

    instance: str
    written: Sequence[tuple[int, Sequence[str]]]
    """Block keys, and which of their specs."""


@dataclass
class Blocks:
    """The state of one manager whose storage is a folder. Its methods may be called from any thread."""

    root: Path
    instances: dict[str, Instance] = field(default_factory=dict)
    blocks: dict[tuple[str, int], dict[str, Part]] = field(default_factory=dict)
    """By instance and block key: the parts, by location spec."""
    sessions: dict[str, Session] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions_begun = 0

    # ---- calls of the API, by their names there ----

    def answer(self, api: str, request: Body) -> Body:
        """The body of the answer without its header. Raises `Refused`."""
        calls = {
            "registerInstance": self._register_instance,
            "getCacheLocation": self._get_cache_location,
            "startWriteCache": self._start_write_cache,
            "finishWriteCache": self._finish_write_cache,
            "removeCache": self._remove_cache,
        }
        if api not in calls:
            raise Refused("UNSUPPORTED", f"no call {api}")
        with self._lock:
            return calls[api](request)

    def _register_instance(self, request: Body) -> Body:
        name = _text(request, "instance_id")
        _text(request, "instance_group")
        described = {key: value for key, value in request.items() if key != "trace_id"}
        specs = request.get("location_spec_infos")
        if not isinstance(specs, list) or not specs or not isinstance(request.get("block_size"), int):
            raise Refused("INVALID_ARGUMENT", "location_spec_infos and block_size are needed")
        before = self.instances.get(name)
        if before is not None and before.described != described:
            raise Refused("DUPLICATE_ENTITY", f"{name} is registered with other values")
        self.instances[name] = Instance(
            described,
            {spec["name"]: int(spec["size"]) for spec in specs},
            {group["name"]: group["spec_names"] for group in request.get("location_spec_groups", [])},
        )
        storage = {
            "type": "file",
            "is_available": True,
            "global_unique_name": STORAGE_NAME,
            "storage_spec": {"root_path": str(self.root), "key_count_per_file": 1},
        }
        return {"storage_configs": json.dumps([storage])}

    def _get_cache_location(self, request: Body) -> Body:
        instance, keys = self._instance(request), _keys(request)
        skipped = int(request.get("block_mask", {}).get("offset", 0))
        wanted = request.get("query_type")
        if wanted not in ("QT_PREFIX_MATCH", "QT_BATCH_GET"):
            raise Refused("INVALID_ARGUMENT", f"query_type {wanted!r}")
        locations = []
        for key in keys[skipped:]:
            parts = self.blocks.get((instance, key), {})
            found = {spec: part for spec, part in parts.items() if part.committed}
            if not found and wanted == "QT_PREFIX_MATCH":
                break
            locations.append(_location(found))
        return {"locations": locations}

    def _start_write_cache(self, request: Body) -> Body:
        instance, keys = self._instance(request), _keys(request)
        _seconds(request, "write_timeout_seconds")
        wanted = self._wanted(instance, request.get("location_spec_group_names", []), len(keys))
        self._sessions_begun += 1
        session = f"session-{self._sessions_begun}"
        there, written, locations = [], [], []
        for key, specs in zip(keys, wanted, strict=True):
            parts = self.blocks.setdefault((instance, key), {})
            missing = [spec for spec in specs if spec not in parts]
            there.append(not missing)
            if missing:
                parts.update({spec: Part(self._uri(instance, session, spec, key)) for spec in missing})
                written.append((key, missing))
                locations.append(_location({spec: parts[spec] for spec in missing}))
        self.sessions[session] = Session(instance, written)
        first = there.index(False) if written else len(keys)
        mask: Body = {"bool_masks": {"values": there}} if any(there[first:]) else {"offset": first}
        return {"write_session_id": session, "block_mask": mask, "locations": locations}

    def _finish_write_cache(self, request: Body) -> Body:
        name = _text(request, "write_session_id")
        session = self.sessions.pop(name, None)
        if session is None:
            raise Refused("INTERNAL_ERROR", f"write_session_id not found: {name}")
        count, mask = len(session.written), request.get("success_blocks", {})
        if "offset" in mask:
            good = [index < mask["offset"] for index in range(count)]
        else:
            good = mask.get("bool_masks", {}).get("values", [])
        if len(good) != count or not all(isinstance(value, bool) for value in good):
            self._end(session, [False] * count)
            raise Refused("INVALID_ARGUMENT", f"{len(good)} values for {count} blocks")
        self._end(session, good)
        return {}

    def _remove_cache(self, request: Body) -> Body:
        instance = self._instance(request)
        for key in _keys(request):
            self._drop(instance, key, list(self.blocks.get((instance, key), {})))
        return {}

    # ---- what a test does to it ----

    def expire(self) -> None:
        """The lease of every write under way is over."""
        with self._lock:
            for session in self.sessions.values():
                self._end(session, [False] * len(session.written))
            self.sessions.clear()

    def committed(self) -> dict[int, dict[str, str]]:
        """Of all blocks that can be found, the URIs by location spec."""
        with self._lock:
            found = {
                key: {spec: part.uri for spec, part in parts.items() if part.committed}
                for (_, key), parts in self.blocks.items()
            }
        return {key: uris for key, uris in found.items() if uris}

    # ---- helpers ----

    def _instance(self, request: Body) -> str:
        name = _text(request, "instance_id")
        if name not in self.instances:
            raise Refused("INSTANCE_NOT_EXIST", name)
        return name

    def _wanted(self, instance: str, group_names: Sequence[str], count: int) -> list[list[str]]:
        """The specs that each of ``count`` blocks is to have."""
        known = self.instances[instance]
        if not group_names:
            return [list(known.spec_sizes)] * count
        if len(group_names) != count or not set(group_names) <= set(known.groups):
            raise Refused("INVALID_ARGUMENT", f"location_spec_group_names {group_names} for {count} blocks")
        return [list(known.groups[name]) for name in group_names]

    def _uri(self, instance: str, session: str, spec: str, key: int) -> str:
        size = self.instances[instance].spec_sizes[spec]
        return f"file://{self.root / instance / session}/{spec}_{key & (2**64 - 1):016x}?offset=0&size={size}"

    def _end(self, session: Session, good: Sequence[bool]) -> None:
        for (key, specs), whole in zip(session.written, good, strict=True):
            if not whole:
                self._drop(session.instance, key, specs)
                continue
            parts = self.blocks.get((session.instance, key), {})
            for spec in set(specs) & set(parts):
                parts[spec].committed = True

    def _drop(self, instance: str, key: int, specs: Sequence[str]) -> None:
        parts = self.blocks.get((instance, key), {})
        for spec in specs:
            part = parts.pop(spec, None)
            if part is not None:
                path_of(part.uri).unlink(missing_ok=True)
        if not parts:
            self.blocks.pop((instance, key), None)


def path_of(uri: str) -> Path:
    """The file of a URI that `Blocks` made."""
    return Path(uri.removeprefix("file://").partition("?")[0])


def _location(parts: Mapping[str, Part]) -> Body:
    specs = [{"name": name, "uri": part.uri} for name, part in parts.items()]
    return {"type": "ST_NFS", "spec_size": len(specs), "location_specs": specs}


def _text(request: Body, name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise Refused("INVALID_ARGUMENT", f"{name} is needed")
    return value


def _seconds(request: Body, name: str) -> None:
    if not isinstance(value := request.get(name), int) or value <= 0:
        raise Refused("INVALID_ARGUMENT", f"{name} is needed, a whole number of seconds")


def _keys(request: Body) -> list[int]:
    keys = request.get("block_keys")
    if not isinstance(keys, list) or not all(isinstance(key, int) and -(2**63) <= key < 2**63 for key in keys):
        raise Refused("INVALID_ARGUMENT", "block_keys are needed, 64-bit integers")
    return keys
