"""What a container is given of its machine: GPUs, NICs, folders, a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchstack.errors import MachineError
from patchstack.image.devices import Given, Machine, asked_gpus, gpus, gpus_here, nics
from patchstack.image.room import NARROW, Mount, Room
from patchstack.image.storage import VARIABLE, containers_folder, require_own_disk

CDI = """\
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- {name: "0", containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}}
- {name: "1", containerEdits: {deviceNodes: [{path: /dev/nvidia1}]}}
- {name: all}
"""
INFORMATION = "Model: \t\t NVIDIA H200\nGPU UUID: \t GPU-{minor}{minor}\nDevice Minor: \t {minor}\n"


# --- folders and network -------------------------------------------------------------------------------


def test_nothing_of_the_machine_where_nobody_says_otherwise() -> None:
    assert NARROW.options() == ("--network=none", "--shm-size=1024m")


def test_a_room_as_options() -> None:
    room = Room(
        mounts=(Mount(Path("/srv/tests"), "/patchstack/tests"),),
        environment=(("A", "b c"),),
        devices=("--device=nvidia.com/gpu=0",),
        shares_network=True,
        shm_mib=64,
        pins_memory=True,
    )
    assert room.options() == (
        "--network=host",
        "--mount=type=bind,src=/srv/tests,dst=/patchstack/tests,ro",
        "--security-opt=label=disable",
        "--env=A=b c",
        "--device=nvidia.com/gpu=0",
        "--shm-size=64m",
        "--ulimit=memlock=-1:-1",
    )


@pytest.mark.parametrize("path", ["/srv/a,ro=false", '/srv/"a'])
def test_a_path_that_would_be_read_as_an_option_is_refused(path: str) -> None:
    with pytest.raises(MachineError, match="a comma or a quote"):
        Room(mounts=(Mount(Path(path), "/x"),)).options()


# --- which GPUs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "environment", "given"),
    [
        (0, {"CUDA_VISIBLE_DEVICES": "3"}, ()),
        (2, {}, ("0", "1")),
        (2, {"CUDA_VISIBLE_DEVICES": ""}, ("0", "1")),
        (1, {"CUDA_VISIBLE_DEVICES": "3"}, ("3",)),
        (2, {"CUDA_VISIBLE_DEVICES": "GPU-a, GPU-b"}, ("GPU-a", "GPU-b")),
        # Slurm counts a job's own from 0 where it shows no others.
        (2, {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_GPUS": "4,5"}, ("4", "5")),
        (1, {"CUDA_VISIBLE_DEVICES": "1", "SLURM_JOB_GPUS": "4,5"}, ("1",)),
    ],
)
def test_the_gpus_that_a_job_was_given(count: int, environment: dict[str, str], given: tuple[str, ...]) -> None:
    assert asked_gpus(count, environment) == given


def test_a_job_that_was_given_too_few_says_so() -> None:
    with pytest.raises(MachineError, match=r"names 1 GPUs \(2\) and the job needs 2"):
        asked_gpus(2, {"CUDA_VISIBLE_DEVICES": "2"})


# --- how a container gets them -------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with two GPUs, whose device files are numbered against their places on the bus."""
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()
    for bus, minor in (("0000:1a:00.0", 1), ("0000:5c:00.0", 0)):
        place = tmp_path / "proc/driver/nvidia/gpus" / bus
        place.mkdir(parents=True)
        (place / "information").write_text(INFORMATION.format(minor=minor))
    version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
    (tmp_path / "proc/driver/nvidia/version").write_text(version)
    libraries = tmp_path / "lib"
    libraries.mkdir()
    for name in ("libcuda.so.570.86.15", "libnvidia-gpucomp.so.570.86.15"):
        (libraries / name).touch()
    (libraries / "libcuda.so.1").symlink_to("libcuda.so.570.86.15")
    return Machine(tmp_path / "dev", tmp_path / "proc", (tmp_path / "cdi",), (libraries,))


def test_by_cdi_where_the_toolkit_has_written_it_down(machine: Machine) -> None:
    (machine.cdi[0]).mkdir()
    (machine.cdi[0] / "nvidia.yaml").write_text(CDI)
    for engine in ("podman", "docker"):
        assert gpus(["0", "1"], engine, machine) == Given(("--device=nvidia.com/gpu=0", "--device=nvidia.com/gpu=1"))
    with pytest.raises(MachineError, match=r"no GPU 2: it gives containers 0, 1, all; `nvidia-ctk cdi generate"):
        gpus(["2"], "podman", machine)


def test_a_cdi_file_that_does_not_read_is_named(machine: Machine) -> None:
    (machine.cdi[0]).mkdir()
    (machine.cdi[0] / "nvidia.yaml").write_text("kind: [")
    with pytest.raises(MachineError, match=r"nvidia\.yaml: it does not read"):
        gpus(["0"], "podman", machine)


@pytest.mark.parametrize(("name", "file"), [("0", "nvidia1"), ("1", "nvidia0"), ("GPU-11", "nvidia1")])
def test_by_device_files_with_the_drivers_libraries(machine: Machine, name: str, file: str) -> None:
    given = gpus([name], "podman", machine)
    assert given.options == tuple(f"--device={machine.dev / each}" for each in (file, "nvidiactl", "nvidia-uvm"))
    (libraries,) = machine.libraries
    assert given.mounts == (
        Mount(libraries / "libcuda.so.570.86.15", "/usr/lib/x86_64-linux-gnu/libcuda.so.1"),
        Mount(libraries / "libnvidia-gpucomp.so.570.86.15", "/usr/lib/x86_64-linux-gnu/libnvidia-gpucomp.so.570.86.15"),
    )
    assert len(gpus_here(machine)) == 2


def test_docker_asks_its_own_toolkit(machine: Machine) -> None:
    assert gpus(["0", "1"], "docker", machine) == Given(('--gpus="device=0,1"',))


def test_without_gpus_it_says_what_to_install(tmp_path: Path) -> None:
    nothing = Machine(tmp_path, tmp_path, (tmp_path,), (tmp_path,))
    assert gpus([], "podman", nothing) == Given()
    with pytest.raises(MachineError, match=r"no GPU 0 .*: install .*nvidia-ctk cdi generate"):
        gpus(["0"], "podman", nothing)


def test_without_the_driver_it_says_what_is_missing(machine: Machine) -> None:
    (machine.libraries[0] / "libcuda.so.1").unlink()
    with pytest.raises(MachineError, match=r"libcuda\.so\.1, a library of NVIDIA's driver, is in none of"):
        gpus(["0"], "podman", machine)


def test_rdma_devices(machine: Machine) -> None:
    with pytest.raises(MachineError, match="has no uverbs"):
        nics(machine)
    place = machine.dev / "infiniband"
    (place / "by-path").mkdir(parents=True)
    for name in ("uverbs0", "rdma_cm"):
        (place / name).touch()
    assert nics(machine) == Given((f"--device={place}/rdma_cm", f"--device={place}/uverbs0"))


# --- where images are kept -----------------------------------------------------------------------------


def test_images_are_in_the_cache_or_where_the_machine_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert containers_folder(tmp_path) == tmp_path / "containers"
    monkeypatch.setenv(VARIABLE, "/scratch/images")
    assert containers_folder(tmp_path) == Path("/scratch/images")


@pytest.mark.parametrize(("kind", "refused"), [("ext4", False), ("nfs4", True), ("lustre", True), ("overlay", False)])
def test_a_folder_that_other_machines_see_is_refused(tmp_path: Path, kind: str, refused: bool) -> None:
    mounts = tmp_path / "mountinfo"
    home = f"36 25 0:30 / {tmp_path} rw - {kind} server:/x rw\n"
    mounts.write_text(f"25 1 8:1 / / rw - ext4 /dev/sda rw\n{home}26 25 0:9 / /proc rw - proc proc rw\n")
    if refused:
        with pytest.raises(MachineError, match=f"other machines see \\({kind}\\).*set PATCHSTACK_CONTAINERS"):
            require_own_disk(tmp_path / "containers", mounts)
    else:
        require_own_disk(tmp_path / "containers", mounts)
