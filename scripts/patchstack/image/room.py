"""What a container gets of the machine that it runs on, beside its image: nothing, unless it is named here. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import MachineError


@dataclass(frozen=True)
class Mount:
    """A file or folder of this machine, which a container can read and not write."""

    source: Path
    target: str


@dataclass(frozen=True)
class Room:
    """Of one container."""

    mounts: tuple[Mount, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    """Beside the image's own; all else of ours stays outside."""
    devices: tuple[str, ...] = ()
    """Options of the engine that give it devices (`devices`)."""
    shares_network: bool = False
    """It is in this machine's network, for NICs and servers elsewhere; else it has a loopback of its own alone."""
    shm_mib: int = 1024
    """Of /dev/shm, through which ranks speak to each other."""
    pins_memory: bool = False
    """It may pin as much memory as it has, as RDMA does."""

    def options(self) -> tuple[str, ...]:
        """For the engine's command line.

        `MachineError` where a path cannot stand in one.
        """
        return (
            "--network=host" if self.shares_network else "--network=none",
            *(f"--mount={_bound(mount)}" for mount in self.mounts),
            # Else SELinux keeps a container from reading what was not labelled for it; what is mounted stays read-only.
            *(("--security-opt=label=disable",) if self.mounts else ()),
            *(f"--env={name}={value}" for name, value in self.environment),
            *self.devices,
            f"--shm-size={self.shm_mib}m",
            *(("--ulimit=memlock=-1:-1",) if self.pins_memory else ()),
        )


NARROW = Room()
"""Nothing of the machine at all."""


def _bound(mount: Mount) -> str:
    source = str(mount.source)
    # https://docs.podman.io/en/stable/markdown/podman-run.1.html#mount-type-type-type-specific-option: commas divide.
    if {",", '"'} & {*source, *mount.target}:
        raise MachineError(f"{source}: no container can be given a path with a comma or a quote in it: move it")
    return f"type=bind,src={source},dst={mount.target},ro"
