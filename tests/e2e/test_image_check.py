"""What is seen inside an image that is pulled from a real registry by podman, each fault by its own check.

The images hold Debian's Python and a server of a few lines in SGLang's place. The real thing is in test_image_night.py.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.image_registry import LOGIN, Fault, faulty, registry
from tests.unit.builders import Workshop

from patchstack.contents import Package
from patchstack.image.check import Asked, Times, check
from patchstack.image.contents import CONTENTS, FOLDER, contents_of, encode_contents, labels_of
from patchstack.image.debian import make_debian
from patchstack.image.engine import FOLDER as CONTAINERS
from patchstack.image.engine import Engine, Limits, OpenEngine, _run_folder, engine_at_hand
from patchstack.image.inventory import PATH as INVENTORY
from patchstack.image.inventory import Inventory
from patchstack.image.layer import FileEntry, Layer, make_layer
from patchstack.image.login import Login
from patchstack.image.names import Place
from patchstack.image.oci import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, digest_of
from patchstack.image.registry import Registry
from patchstack.model import Base, Composition, Fingerprint, GuardOutcome, ImageRef, Kind, Topic
from patchstack.store import cache_folder

pytestmark = pytest.mark.usefixtures("sealed_module")

PASS, FAIL, TIMEOUT, CRASH, MISSING, SKIPPED = (
    GuardOutcome.PASS,
    GuardOutcome.FAIL,
    GuardOutcome.TIMEOUT,
    GuardOutcome.CRASH,
    GuardOutcome.MISSING,
    GuardOutcome.SKIPPED_BY_RULE,
)
ROOT = "usr/lib/python3/dist-packages"
WHEN_S = 1_700_000_000
MODEL = "def make_tiny_model(folder):\n    folder.mkdir()\n"
TIMES = Times(imports_s=90.0, request_s=90.0)
SHORT = Times(imports_s=90.0, request_s=45.0)
"""30 s of it are the probe's own."""

SERVER = """\
import http.server, json, sys

STATUS = 200

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(STATUS, {"output_ids": list(range(asked["sampling_params"]["max_new_tokens"]))})
    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

if __name__ == "__main__":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
BASE_FILES: Mapping[str, str] = {
    "python/sglang/__init__.py": "",
    "python/sglang/README.md": "read me\n",
    "python/sglang/launch_server.py": SERVER,
    "python/sglang/srt/__init__.py": "",
    "python/sglang/srt/server_args.py": "",
    "python/sglang/srt/fix.py": "",
    "python/sglang/srt/entrypoints/__init__.py": "",
    "python/sglang/srt/entrypoints/http_server.py": "",
}
NATIVE = b"compiled\n"
METADATA = {"sglang": "1.0", "torch": "2.9.1"}

_NUMBERS = itertools.count()


# --- the bench -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Night:
    """One night's image, and what is wrong with it."""

    changes: Mapping[str, str] = field(default_factory=dict)
    """What a pull request changes, which is in the tree and in the image."""
    planted: Mapping[str, FileEntry] = field(default_factory=dict)
    """What is in the image alone."""
    deleted: tuple[str, ...] = ()
    """From the image alone."""
    runtime: str = "cpu"
    times: Times = TIMES
    says: str = ""
    """In place of its contents."""


@dataclass
class Bench:
    folder: Path
    place: Place
    engine: Engine
    rootfs: Layer
    login: Login | None = None

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def look(
        self, night: Night, *, digest: str = "", place: Place | None = None
    ) -> dict[str, tuple[GuardOutcome, str]]:
        """What is seen in the image of ``night``, by check; another ``digest`` or ``place`` is asked for instead."""
        asked = self.push(night)
        asked = replace(asked, image=replace(asked.image, digest=digest or asked.image.digest))
        with self.engine.opened(self.cache) as opened:
            checks = check(opened, replace(asked, place=place or asked.place), lambda _: None)
        return {one.name: (one.outcome, one.detail) for one in checks}

    def push(self, night: Night) -> Asked:
        shop = Workshop(self.folder / f"store-{next(_NUMBERS)}.git")
        base_tree = shop.tree(BASE_FILES)
        base = Base("sglang==1.0", "1.0", shop.commit_tree("base", base_tree, when=1), base_tree)
        tree = shop.tree(night.changes, base_tree)
        commit = shop.commit_tree("octopus", tree, base.commit, when=WHEN_S)
        topic = Topic("#1", Kind.PULL, "t", "Bob", commit, commit, base.commit, commit, "id", tuple(night.changes))
        composition = Composition("production", base, commit, tree, (topic,), (), Fingerprint("f", ()))
        return self._push(night, shop, composition)

    def _push(self, night: Night, shop: Workshop, composition: Composition) -> Asked:
        inventory = Inventory((*debian_packages(self.rootfs_status), *python_packages()), f"/{ROOT}")
        dependencies = make_layer(
            {
                **{
                    f"{ROOT}/{path.removeprefix('python/')}": FileEntry(text.encode())
                    for path, text in BASE_FILES.items()
                },
                **dist_infos(),
                f"{ROOT}/sglang/native.so": FileEntry(NATIVE, 0o755),
                INVENTORY: FileEntry(inventory.encode()),
            }
        )
        contents = contents_of(
            composition,
            (),
            fork="acme/sglang",
            runtime=night.runtime,
            recipe="1" * 64,
            dependencies=dependencies.digest,
            packages=inventory.packages,
            created=datetime.fromtimestamp(WHEN_S, UTC),
        )
        told = encode_contents(contents)
        changed = {
            f"{ROOT}/{path.removeprefix('python/')}": FileEntry(text.encode()) for path, text in night.changes.items()
        }
        said = {f"{FOLDER}/{CONTENTS}": FileEntry(night.says.encode() or told)}
        layer = make_layer({**changed, **said, **night.planted}, night.deleted)
        with Registry.at(self.place, self.login) as client:
            digest = push_image(client, [self.rootfs, dependencies, layer])
        labels = labels_of(contents, digest_of(told), "deps")
        image = ImageRef("sglang", digest, "t", night.runtime, "1" * 64, "d", tuple(labels.items()), 0, False)
        return Asked(image, self.place, None, composition, shop.repository, MODEL, times=night.times)

    @property
    def rootfs_status(self) -> bytes:
        return (cache_folder() / "test-images" / "status").read_bytes()


def debian_packages(status: bytes) -> Iterator[Package]:
    for stanza in status.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
        if lines.get("Status") == "install ok installed":
            yield Package("debian", lines["Package"], lines["Version"])


def python_packages() -> list[Package]:
    return [Package("python", name, version) for name, version in METADATA.items()]


def dist_infos() -> dict[str, FileEntry]:
    digest = base64.urlsafe_b64encode(hashlib.sha256(NATIVE).digest()).decode().rstrip("=")
    infos = {f"{ROOT}/sglang-1.0.dist-info/RECORD": FileEntry(f"sglang/native.so,sha256={digest},9\n".encode())}
    for name, version in METADATA.items():
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: not me\n"
        infos[f"{ROOT}/{name}-{version}.dist-info/METADATA"] = FileEntry(text.encode())
    return infos


def push_image(client: Registry, layers: list[Layer]) -> str:
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": Descriptor(CONFIG, digest_of(config), len(config)).encode(),
            "layers": [Descriptor(LAYER_GZIP, layer.digest, layer.size).encode() for layer in layers],
        }
    ).encode()
    for blob in (config, *(layer.data for layer in layers)):
        client.push_blob(blob, digest_of(blob))
    return client.push_manifest(manifest, MANIFEST, None)


def debian_with_python() -> Layer:
    """Debian and its Python, made once and kept in the cache, as one layer."""
    folder = cache_folder() / "test-images"
    kept = folder / "python.tar.gz"
    if not kept.is_file():
        folder.mkdir(exist_ok=True)
        archive = folder / f"python-{os.getpid()}.tar"
        make_debian(["python3-minimal", "libpython3-stdlib"], archive)
        status = subprocess.run(
            ["tar", "xOf", archive, "./var/lib/dpkg/status"], capture_output=True, check=True
        ).stdout
        (folder / "status").write_bytes(status)
        packed = archive.with_suffix(".gz")
        packed.write_bytes(gzip.compress(archive.read_bytes(), compresslevel=1, mtime=0))
        archive.unlink()
        packed.rename(kept)
    data = kept.read_bytes()
    return Layer(data, digest_of(data), digest_of(gzip.decompress(data)))


def left_behind(folder: Path) -> list[str]:
    """Processes and mounts that name ``folder``."""
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    commands = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = place.read_bytes()
        except OSError:
            continue  # it has ended
        if str(folder).encode() in said and place.parent.name != str(os.getpid()):
            commands.append(said.replace(b"\0", b" ").decode(errors="replace"))
    return [*mounts, *commands]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, sealed_module: Path) -> Iterator[Bench]:
    engine = engine_at_hand()
    assert engine is not None, "these tests need podman and runc: apt-get install podman runc"
    folder = tmp_path_factory.mktemp("image-check")
    with registry(folder / "registry", path="sglang") as place:
        yield Bench(folder, place, engine, debian_with_python())
    assert left_behind(folder) == []
    shutil.rmtree(_run_folder(folder / "cache" / CONTAINERS))
    shutil.rmtree(folder / "cache")


# --- what is seen --------------------------------------------------------------------------------------

IMPORTED = "modules import: sglang, sglang.srt.server_args, sglang.launch_server, sglang.srt.entrypoints.http_server"


def test_an_image_as_it_should_be(bench: Bench) -> None:
    seen = bench.look(Night(changes={"python/sglang/srt/fix.py": "fixed = True\n", "python/sglang/new.py": ""}))
    debian = len(list(debian_packages(bench.rootfs_status)))
    digest = seen["digest"][1].removeprefix("podman pulled ")
    assert digest.startswith("sha256:")
    tree = seen["tree"][1].split()[6].rstrip(",")
    assert seen == {
        "digest": (PASS, f"podman pulled {digest}"),
        "tree": (PASS, f"9 files are those of tree {tree}, and 1 compiled part of the release"),
        "packages": (PASS, f"it has the packages that it names: 2 of Python and {debian} of Debian"),
        "imports": (PASS, f"6 {IMPORTED} and those that the night changed"),
        "one request": (PASS, "a server on a small model answered one request with 8 tokens"),
    }


TREE_FAULTS = {
    "changed": (Night(planted={f"{ROOT}/sglang/README.md": FileEntry(b"other\n")}), "sglang/README.md has other bytes"),
    "mode": (
        Night(planted={f"{ROOT}/sglang/README.md": FileEntry(b"read me\n", 0o755)}),
        "sglang/README.md has mode 100755 and not 100644",
    ),
    "deleted": (Night(deleted=(f"{ROOT}/sglang/README.md",)), "sglang/README.md is missing"),
    "extra": (Night(planted={f"{ROOT}/sglang/srt/more.py": FileEntry(b"")}), "sglang/srt/more.py is in no tree"),
    "bytecode": (
        Night(planted={f"{ROOT}/sglang/__pycache__/fix.cpython-311.pyc": FileEntry(b"")}),
        "sglang/__pycache__/fix.cpython-311.pyc is in no tree",
    ),
    "link": (
        Night(planted={f"{ROOT}/sglang/README.md": FileEntry(b"", link="/etc/passwd")}),
        "sglang/README.md has other bytes",
    ),
    "compiled part": (
        Night(planted={f"{ROOT}/sglang/native.so": FileEntry(b"another\n", 0o755)}),
        "sglang/native.so is not the release's compiled part",
    ),
    "no compiled part": (
        Night(deleted=(f"{ROOT}/sglang/native.so",)),
        "sglang/native.so, a compiled part, is missing",
    ),
}


@pytest.mark.parametrize("fault", TREE_FAULTS)
def test_files_that_are_not_those_of_the_tree(bench: Bench, fault: str) -> None:
    night, words = TREE_FAULTS[fault]
    seen = bench.look(replace(night, runtime="cuda"))
    assert seen["tree"][0] is FAIL
    assert seen["tree"][1].endswith(f": {words}")
    assert {name: outcome for name, (outcome, _) in seen.items() if name != "tree"} == {
        "digest": PASS,
        "packages": PASS,
        "imports": PASS,
        "one request": SKIPPED,
    }


def test_packages_that_are_not_those_that_the_image_names(bench: Bench) -> None:
    newer = f"{ROOT}/numpy-2.0.dist-info/METADATA"
    seen = bench.look(
        Night(
            planted={newer: FileEntry(b"Name: numpy\nVersion: 2.0\n\n")},
            deleted=(f"{ROOT}/torch-2.9.1.dist-info",),
            runtime="cuda",
        )
    )
    problems = ("python package torch 2.9.1 is missing", "python package numpy 2.0 is there and was not said")
    assert seen["tree"][0] is PASS
    assert seen["packages"] == (
        FAIL,
        f"its packages are not those that it names: {'; '.join(problems)}",
    )


def test_an_image_that_says_something_else_than_its_label(bench: Bench) -> None:
    seen = bench.look(Night(says="{}", runtime="cuda"))
    why = f"/{FOLDER}/{CONTENTS} in the image is not the one that its label names"
    assert (seen["tree"], seen["packages"]) == ((FAIL, why), (FAIL, why))


def test_sglang_that_does_not_import(bench: Bench) -> None:
    seen = bench.look(Night(changes={"python/sglang/__init__.py": "raise RuntimeError('broken')\n"}))
    assert seen["tree"][0] is PASS
    assert seen["imports"][0] is FAIL
    assert seen["imports"][1].startswith("it does not import sglang: RuntimeError: broken; sglang.srt.server_args: ")
    assert seen["one request"] == (FAIL, "it ended with 1 while it was starting: RuntimeError: broken")


def test_a_module_that_the_night_changed_and_that_does_not_import(bench: Bench) -> None:
    seen = bench.look(Night(changes={"python/sglang/srt/fix.py": "fixed = \n"}, runtime="cuda"))
    assert seen["imports"] == (
        FAIL,
        "it does not import sglang.srt.fix: SyntaxError: invalid syntax (fix.py, line 1)",
    )


def test_a_process_that_ends_while_it_imports(bench: Bench) -> None:
    ends = {"python/sglang/srt/fix.py": "import os\nos._exit(0)\n"}
    seen = bench.look(Night(changes=ends, runtime="cuda"))
    assert seen["imports"] == (CRASH, "importing sglang.srt.fix ended the process with 0")


def test_a_server_that_answers_500(bench: Bench) -> None:
    refuses = SERVER.replace("STATUS = 200", "STATUS = 500")
    seen = bench.look(Night(changes={"python/sglang/launch_server.py": refuses}))
    assert seen["imports"][0] is PASS
    assert seen["one request"][0] is FAIL
    assert seen["one request"][1].startswith("the server answered 500: {")


def test_a_server_that_answers_with_too_few_tokens(bench: Bench) -> None:
    short = SERVER.replace('["max_new_tokens"]', '["max_new_tokens"] - 1')
    seen = bench.look(Night(changes={"python/sglang/launch_server.py": short}))
    assert seen["one request"] == (FAIL, "a server answered with 7 tokens where 8 were asked for")


def test_a_server_that_never_comes_up(bench: Bench) -> None:
    hangs = {"python/sglang/launch_server.py": 'if __name__ == "__main__":\n    import signal\n    signal.pause()\n'}
    seen = bench.look(Night(changes=hangs, times=SHORT))
    assert seen["one request"] == (TIMEOUT, "its time was up while it was starting")


WRITES_BESIDE = """\
import json, os
parent = f"/proc/{os.getppid()}"
said = json.dumps({"imports": [], "ended": 0, "late": False, "noise": ""})
for number in os.listdir(f"{parent}/fd"):
    try:
        if int(number) > 2 and "pipe" in os.readlink(f"{parent}/fd/{number}"):
            with open(f"{parent}/fd/{number}", "w") as out:
                out.write(said)
    except OSError:
        pass
"""
PRINTS_WITHOUT_END = WRITES_BESIDE.replace("out.write(said)", "[out.write(said * 10000) for _ in range(10000)]")
ENDS_THE_PROBE = f"{WRITES_BESIDE}\nos.kill(os.getppid(), 9)\n"
"""Which does not succeed: in its container the probe is the first process, and nothing in there can kill that."""
SPOKEN_FOR = "what came out is not the probe's answer: something in the image wrote there, or ended the probe"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (WRITES_BESIDE, SPOKEN_FOR),
        (PRINTS_WITHOUT_END, "it was ended, for it printed without end"),
        (ENDS_THE_PROBE, SPOKEN_FOR),
    ],
    ids=["writes beside", "prints without end", "ends the probe"],
)
def test_an_image_that_speaks_for_the_probe(bench: Bench, code: str, words: str) -> None:
    seen = bench.look(Night(changes={"python/sglang/srt/fix.py": code}, runtime="cuda"))
    assert seen["imports"] == (CRASH, words)
    assert seen["tree"][0] is PASS


# --- what cannot be looked at --------------------------------------------------------------------------


def test_an_image_that_is_not_there(bench: Bench) -> None:
    seen = bench.look(Night(), digest=f"sha256:{'0' * 64}")
    assert seen["digest"][0] is MISSING
    assert "manifest unknown" in seen["digest"][1]
    nothing = (MISSING, "there is no image to look at")
    assert {name: said for name, said in seen.items() if name != "digest"} == dict.fromkeys(
        ["tree", "packages", "imports", "one request"], nothing
    )


FAULTS = {
    "changed manifest": Fault("GET", "*/manifests/*", times=99, changed=True),
    "changed layer": Fault("GET", "*/blobs/*", times=99, changed=True),
    "half a layer": Fault("GET", "*/blobs/*", times=99, cut=True),
    "lost connection": Fault("GET", "*/blobs/*", times=99, reset=True),
    "broken registry": Fault("GET", "*/manifests/*", times=99, status=500),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_registry_that_fails_gives_no_image(bench: Bench, name: str) -> None:
    asked = bench.push(Night(changes={"python/sglang/srt/fix.py": f"fault = {name!r}\n"}, runtime="cuda"))
    with faulty(bench.place) as proxy, bench.engine.opened(bench.cache) as opened:
        proxy.fail(FAULTS[name])
        checks = check(opened, replace(asked, place=proxy.place), lambda _: None)
        assert proxy.injected > 0
        assert [one.outcome for one in checks] == [MISSING] * 5
        assert checks[0].detail.startswith("it could not be pulled: ")
        assert asked.image.digest not in images(opened)
        proxy.mend()
        assert check(opened, replace(asked, place=proxy.place), lambda _: None)[0].outcome is PASS


def test_a_registry_with_a_login(bench: Bench, tmp_path: Path) -> None:
    with registry(tmp_path / "registry", login=LOGIN, path="sglang") as place:
        locked = replace(bench, place=place, login=LOGIN)
        asked = locked.push(Night(runtime="cuda"))
        with bench.engine.opened(bench.cache) as opened:
            refused = check(opened, replace(asked, login=None), lambda _: None)[0]
            wrong = Login(LOGIN.user, "wrong-0123456789", "the test")
            told = check(opened, replace(asked, login=wrong), lambda _: None)[0]
            taken = check(opened, replace(asked, login=LOGIN), lambda _: None)[0]
    assert [refused.outcome, told.outcome, taken.outcome] == [MISSING, MISSING, PASS]
    assert "wrong-0123456789" not in told.detail
    assert LOGIN.reveal() not in taken.detail


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


def images(opened: OpenEngine) -> set[str]:
    """The digest of every image that the engine has."""
    argv = [*opened.argv, "images", "--digests", "--format", "{{.Digest}}"]
    done = subprocess.run(argv, env=dict(opened.environment), capture_output=True, text=True, check=True)
    return set(done.stdout.split())


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
