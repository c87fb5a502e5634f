"""What a decode rank says to a prefill rank on its control socket, release by release.

Tables of our own of what is on the wire, so that a test can be a rank of a release that is not installed.
A message is a tuple of frames; numbers are ASCII decimals unless a comment says otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

Frames = tuple[bytes, ...]

OLD = "0.5.12.post1"
NEW = "0.5.23"
"""Two releases whose decode ranks registered and published differently; NEW also knows ABORT."""

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Buffers:
    """Where a rank's pages and metadata slots lie, as it registers them."""

    session: str
    kv: tuple[int, ...]
    kv_item_length: int
    aux: tuple[int, ...]


def number(value: int) -> bytes:
    return b"%d" % value


def registration(
    port: int, buffers: Buffers, release: str = OLD, session: str | None = None, tensor_size: int = 1
) -> Frames:
    """Once a decode rank and prefill rank. ``session`` registers the same buffers under another name.

    With a ``tensor_size`` the rank is the first of so many, each with its share of the heads.
    """
    common = (
        b"None",
        LOOPBACK.encode(),
        number(port),
        (buffers.session if session is None else session).encode(),
        struct.pack(f"{len(buffers.kv)}Q", *buffers.kv),
        struct.pack(f"{len(buffers.aux)}Q", *buffers.aux),
        b"",  # pointers of state
        b"0",  # tensor rank
        number(tensor_size),
        number(buffers.kv_item_length // tensor_size),
        b"",  # item lengths of state
        b"",  # dimensions of state
    )
    if release == OLD:
        return (*common, b"0", b"", b"")  # no HiSparse; staging address and size
    layers = len(buffers.kv) // 2
    lengths = struct.pack(f"{len(buffers.kv)}Q", *[buffers.kv_item_length] * len(buffers.kv))
    return (
        *common,
        struct.pack(f"{layers}I", *range(layers)),  # layer ids
        b"",  # layer ids of state
        b"",  # staging address
        b"",  # staging size
        b"1",  # context-parallel size
        b"0",  # context-parallel rank
        b"",  # staging slots
        lengths,
    )


def metadata(
    port: int, session: str, room: int, pages: Sequence[int], aux: int, release: str = OLD, ranks: int = 1
) -> Frames:
    """Once a room: where its pages go. ``ranks`` is how many decode ranks prefill must hear from."""
    common = (
        number(room),
        LOOPBACK.encode(),
        number(port),
        session.encode(),
        struct.pack(f"{len(pages)}i", *pages),
        number(aux),
        b"",  # items of state
        number(ranks),
        b"0",  # length of decode's prefix
    )
    return common if release == OLD else (*common, b"")  # pages on the device, where decode's are on the host


def abort(room: int, port: int, generation: int | None = None, ip: str = LOOPBACK) -> Frames:
    """From 0.5.13 on; with a generation from 0.5.22 on, if decode keeps the pages until prefill has answered."""
    common = (b"ABORT", number(room), ip.encode(), number(port))
    return common if generation is None else (*common, number(generation))


def noted(room: int) -> Frames:
    """Prefill's answer to an ABORT without a generation."""
    return (b"ABORT_ACK", number(room))


def drained(room: int, generation: int, rank: int = 0) -> Frames:
    """Prefill's answer when nothing of the room is queued or under way any more."""
    return (b"ABORT_ACK", number(room), number(rank), number(generation))


FAILED, SUCCESS = 0, 4


def status(room: int, state: int, rank: int = 0) -> Frames:
    """How a room ended, from prefill to decode."""
    return (number(room), number(state), number(rank))
