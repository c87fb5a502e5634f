"""A network of the tests' own: loopback and nothing else.

Mooncake's engine listens on every address of the machine and has no option for it. So the whole test run
moves into a network namespace of its own, where the only address is loopback: its servers cannot be reached
from outside, nothing in it can reach out, and no port is shared with anything else on the machine.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1

GIVEN = "TESTBED_NETWORK"
"""Environment variable: set where whoever started the run has given it the network that it is to have."""

PRIVATE = "private (loopback only)"
AS_GIVEN = "as it was given"
SHARED = "shared with this machine: it allows no network namespace here"


def enter() -> str:
    """The run's network: one of its own, or in a container the one that it has there; say which."""
    return AS_GIVEN if os.environ.get(GIVEN) else make_private()


def make_private() -> str:
    """Move this process, and all that it starts from now on, into its own network; say which it has then.

    As root directly, else by way of a user namespace. Where the kernel allows neither, the run goes on in
    the machine's network: what the tests say does not depend on it. Call it before any thread is started.
    """
    uid, gid = os.geteuid(), os.getegid()
    if not _unshare(CLONE_NEWNET):
        if not _unshare(CLONE_NEWUSER | CLONE_NEWNET):
            return SHARED
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _bring_up("lo")
    return PRIVATE


def _unshare(flags: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) == 0:
        return True
    error = ctypes.get_errno()
    if error in (errno.EPERM, errno.EINVAL, errno.ENOSPC, errno.ENOSYS):
        return False
    raise OSError(error, os.strerror(error), "unshare")


def _bring_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sH14x", interface.encode(), 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(handle, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sH14x", interface.encode(), flags | IFF_UP))
