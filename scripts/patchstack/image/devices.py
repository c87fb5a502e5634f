"""GPUs and NICs of this machine, as options that give a container some of them.

GPUs come by CDI (https://github.com/cncf-tags/container-device-interface) where NVIDIA's container toolkit has
written down what a container needs of each; else as device files, with the driver's libraries of this machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from patchstack.errors import MachineError
from patchstack.image.room import Mount

INSTALL = (
    "install NVIDIA's driver and its container toolkit (nvidia-container-toolkit), then "
    "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
)
"""What a machine without usable GPUs lacks."""

KIND = "nvidia.com/gpu"
CUDA_VISIBLE_DEVICES, SLURM_JOB_GPUS = "CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS"

_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
"""Device files that every GPU needs; the last is for profilers, and not always there."""
_LIBRARIES = (
    "libcuda.so.1",
    "libnvidia-ml.so.1",
    "libnvidia-ptxjitcompiler.so.1",
    "libnvidia-nvvm.so.4",
    "libnvidia-gpucomp.so.{version}",
)
"""What of the driver runs in a program that computes; not all are in every version."""
_NEEDED = "libcuda.so.1"
_IN_IMAGES = "/usr/lib/x86_64-linux-gnu"
"""Where Debian's and Ubuntu's loaders look, without a cache too."""


@dataclass(frozen=True)
class Machine:
    """Where this machine says what it has."""

    dev: Path = Path("/dev")
    proc: Path = Path("/proc")
    cdi: tuple[Path, ...] = (Path("/etc/cdi"), Path("/var/run/cdi"))
    libraries: tuple[Path, ...] = (Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib"))


@dataclass(frozen=True)
class Given:
    """What gives a container some devices."""

    options: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()


def asked_gpus(count: int, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that this process was given, by index or UUID; the first ``count`` where nobody said.

    Slurm numbers anew what it gives to a job (``ConstrainDevices``), and says in `SLURM_JOB_GPUS` which they are.
    `MachineError` where they are not ``count``.
    """
    if count == 0:
        return ()
    said = {name: environment[name] for name in (CUDA_VISIBLE_DEVICES, SLURM_JOB_GPUS) if environment.get(name)}
    given = {name: tuple(filter(None, map(str.strip, text.split(",")))) for name, text in said.items()}
    visible = given.get(CUDA_VISIBLE_DEVICES)
    by_slurm = given.get(SLURM_JOB_GPUS)
    if by_slurm is not None and len(by_slurm) == count and (visible is None or len(visible) == count):
        return by_slurm
    if visible is None:
        return tuple(map(str, range(count)))
    if len(visible) < count:
        raise MachineError(
            f"{CUDA_VISIBLE_DEVICES} names {len(visible)} GPUs ({', '.join(visible)}) and the job needs {count}: "
            "give it more, or take the variable away"
        )
    return visible[:count]


def gpus(names: Sequence[str], engine: str, machine: Machine = Machine()) -> Given:
    """What gives a container the GPUs called ``names``, and no others; nothing for none.

    ``engine`` is ``podman`` or ``docker``. `MachineError` where this machine has them not, with what to install.
    """
    if not names:
        return Given()
    declared = _declared(machine.cdi)
    if declared:
        lost = [name for name in names if name not in declared]
        if lost:
            raise MachineError(
                f"this machine has no GPU {', '.join(lost)}: it gives containers {', '.join(sorted(declared))}; "
                "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` writes that down anew"
            )
        return Given(tuple(f"--device={KIND}={name}" for name in names))
    if engine == "docker":
        # Its own way to the same toolkit, which then reads no CDI.
        devices = ",".join(names)
        return Given((f'--gpus="device={devices}"',))
    return _by_files(names, machine)


def nics(machine: Machine = Machine()) -> Given:
    """All RDMA devices; `MachineError` where there are none."""
    files = sorted(path for path in (machine.dev / "infiniband").glob("*") if not path.is_dir())
    if not any(path.name.startswith("uverbs") for path in files):
        raise MachineError(
            f"{machine.dev}/infiniband has no uverbs: this machine has no RDMA device that programs can use; install "
            "the NIC's driver and load ib_uverbs and rdma_ucm"
        )
    return Given(tuple(f"--device={path}" for path in files))


def _declared(folders: Sequence[Path]) -> set[str]:
    """The names that CDI files have for GPUs; empty where no file speaks of them."""
    found: set[str] = set()
    for path in sorted(path for folder in folders for path in folder.glob("*") if path.suffix in {".json", ".yaml"}):
        try:
            said = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise MachineError(f"{path}: it does not read ({error}): remove it, or make it again") from error
        if isinstance(said, dict) and said.get("kind") == KIND:
            devices = said.get("devices")
            found |= {str(one["name"]) for one in devices or () if isinstance(one, dict) and "name" in one}
    return found


# --- without CDI ---------------------------------------------------------------------------------------


def _by_files(names: Sequence[str], machine: Machine) -> Given:
    known = dict(_named(machine))
    files = []
    for name in names:
        file = machine.dev / f"nvidia{known.get(name, name)}"
        if not file.exists() or not (name in known or name.isdecimal()):
            raise MachineError(f"this machine has no GPU {name} that a container could be given: {INSTALL}")
        files.append(file)
    shared = [machine.dev / name for name in _SHARED if (machine.dev / name).exists()]
    options = tuple(f"--device={file}" for file in (*files, *shared))
    return Given(options, tuple(_driver(machine)))


def gpus_here(machine: Machine = Machine()) -> tuple[Path, ...]:
    """What the driver says of each GPU, by its place on the bus, as ``nvidia-smi`` counts them."""
    return tuple(sorted(machine.proc.glob("driver/nvidia/gpus/*/information")))


def _named(machine: Machine) -> Iterator[tuple[str, str]]:
    """Index and UUID of each GPU, each with the number of its device file."""
    for index, path in enumerate(gpus_here(machine)):
        lines = (line.partition(":") for line in path.read_text(errors="replace").splitlines())
        said = {name.strip(): value.strip() for name, _, value in lines}
        minor = said.get("Device Minor", str(index))
        yield str(index), minor
        if "GPU UUID" in said:
            yield said["GPU UUID"], minor


def _driver(machine: Machine) -> Iterator[Mount]:
    """The driver's libraries, which an image cannot bring: they must be of the kernel module's version."""
    version = _version(machine.proc)
    for name in (library.format(version=version) for library in _LIBRARIES):
        path = next((path for path in (folder / name for folder in machine.libraries) if path.exists()), None)
        if path is not None:
            yield Mount(path.resolve(), f"{_IN_IMAGES}/{name}")
        elif name == _NEEDED:
            looked = ", ".join(map(str, machine.libraries))
            raise MachineError(f"{name}, a library of NVIDIA's driver, is in none of {looked}: {INSTALL}")


def _version(proc: Path) -> str:
    """Of the kernel module; empty where it does not say."""
    try:
        text = (proc / "driver/nvidia/version").read_text(errors="replace")
    except OSError:
        return ""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found.group() if found else ""
