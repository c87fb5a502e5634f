"""What podman keeps of the images that it looked into, what a container may do, and what a killed run leaves."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.e2e.image_check_bench import PASS, SKIPPED, Bench, Night, images, left_behind
from tests.e2e.image_check_bench import bench as bench
from tests.support.image_registry import faulty

from patchstack.image.check import check
from patchstack.image.engine import Limits, engine_at_hand
from patchstack.image.storage import FOLDER as CONTAINERS

pytestmark = pytest.mark.usefixtures("sealed_module")


# --- what is kept, and what is left --------------------------------------------------------------------


def test_only_the_newest_image_of_a_runtime_is_kept_and_the_next_night_pulls_only_its_layer(bench: Bench) -> None:
    first, second = (
        bench.push(Night(changes={"python/sglang/srt/fix.py": f"night = {number}\n"}, runtime="cuda"))
        for number in (1, 2)
    )
    with faulty(bench.place) as proxy, bench.engine.opened(bench.cache) as opened:
        for asked in (first, replace(second, place=proxy.place)):
            assert [one.outcome for one in check(opened, asked, lambda _: None)] == [PASS, PASS, PASS, PASS, SKIPPED]
        assert proxy.count("GET", "*/blobs/*") == 2  # the configuration and the night's layer
    with bench.engine.opened(bench.cache) as opened:
        kept = images(opened)
    assert second.image.digest in kept
    assert first.image.digest not in kept


def test_an_image_that_nobody_keeps_is_gone(bench: Bench) -> None:
    asked = bench.push(Night(changes={"python/sglang/srt/fix.py": "never = 'kept'\n"}))
    with bench.engine.opened(bench.cache) as opened:
        opened.pull(asked.place, asked.image.digest, None)
        assert asked.image.digest in images(opened)
    with bench.engine.opened(bench.cache) as opened:
        assert asked.image.digest not in images(opened)


def test_a_container_has_no_network_no_rights_and_nowhere_to_write(bench: Bench) -> None:
    asked = bench.push(Night())
    code = """
import json, os, pathlib, socket, sys
def can(what):
    try:
        what()
    except OSError as error:
        return error.strerror
    return "yes"
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "interfaces": [name for _, name in socket.if_nameindex()],
    "user": os.getuid(),
    "capabilities": int(status["CapBnd"], 16),
    "no new privileges": status["NoNewPrivs"].strip(),
    "write": can(lambda: open("/usr/x", "w")),
    "write to /tmp": can(lambda: open("/tmp/x", "w")),
    "environment": sorted(os.environ.keys() - {"LC_CTYPE"}),  # Python's own
    "input": sys.stdin.read(),
}))
"""
    with bench.engine.opened(bench.cache) as opened:
        image = opened.pull(asked.place, asked.image.digest, None)
        ran = opened.run(image, ["python3", "-c", code], stdin="hello", limits=Limits(60.0))
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "interfaces": ["lo"],
        "user": 65534,
        "capabilities": 0,
        "no new privileges": "1",
        "write": "Read-only file system",
        "write to /tmp": "yes",
        "environment": ["HOME", "HOSTNAME", "PATH", "TERM", "container"],
        "input": "hello",
    }


def test_what_uses_too_much_memory_is_ended(bench: Bench) -> None:
    asked = bench.push(Night())
    with bench.engine.opened(bench.cache) as opened:
        image = opened.pull(asked.place, asked.image.digest, None)
        ran = opened.run(image, ["python3", "-c", "bytearray(400 << 20)"], limits=Limits(60.0, memory_mib=200))
    assert ran.returncode == 137


KILLED = """
import sys
from pathlib import Path
from patchstack.image.engine import Limits, engine_at_hand
from patchstack.image.login import Login
from patchstack.image.names import Place
host, digest, cache = sys.argv[1:]
with engine_at_hand().opened(Path(cache)) as opened:
    image = opened.pull(Place(host, "sglang"), digest, None)
    print("pulled", flush=True)
    opened.run(image, ["python3", "-c", "import signal; signal.pause()"], limits=Limits(120.0))
"""


def test_what_a_killed_run_left_behind_goes_with_the_next_one(bench: Bench) -> None:
    asked = bench.push(Night())
    argv = [sys.executable, "-c", KILLED, bench.place.host, asked.image.digest, str(bench.cache)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "pulled\n"
        wait_for_container(bench.cache)
        killed.send_signal(signal.SIGKILL)
    assert left_behind(bench.cache) != []
    with bench.engine.opened(bench.cache):
        assert [line for line in left_behind(bench.cache) if "conmon" in line or "overlay" in line] == []


def wait_for_container(cache: Path) -> None:
    """Until conmon holds a container there."""
    for _ in range(600):
        if any("conmon" in line for line in left_behind(cache)):
            return
        select.select([], [], [], 0.1)
    raise AssertionError("no container came up")


def test_nobody_is_told_of_an_engine_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert engine_at_hand() is None


def test_the_engine_keeps_to_its_own_folder(bench: Bench) -> None:
    assert (bench.cache / CONTAINERS / "storage").is_dir()
    assert not (Path(os.environ["HOME"]) / ".local" / "share" / "containers").exists()
