"""Images of Debian's Python with a server of a few lines in SGLang's place, in a real registry, pulled by podman."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.image_registry import registry
from tests.unit.builders import Workshop

from patchstack.contents import Package
from patchstack.image.check import Asked, Times, check
from patchstack.image.contents import CONTENTS, FOLDER, contents_of, encode_contents, labels_of
from patchstack.image.debian import make_debian
from patchstack.image.engine import Engine, OpenEngine, _run_folder, engine_at_hand
from patchstack.image.inventory import PATH as INVENTORY
from patchstack.image.inventory import Inventory
from patchstack.image.layer import FileEntry, Layer, make_layer
from patchstack.image.login import Login
from patchstack.image.names import Place
from patchstack.image.oci import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, digest_of
from patchstack.image.registry import Registry
from patchstack.image.storage import FOLDER as CONTAINERS
from patchstack.model import Base, Composition, Fingerprint, GuardOutcome, ImageRef, Kind, Topic
from patchstack.store import cache_folder

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


def images(opened: OpenEngine) -> set[str]:
    """The digest of every image that the engine has."""
    argv = [*opened.argv, "images", "--digests", "--format", "{{.Digest}}"]
    done = subprocess.run(argv, env=dict(opened.environment), capture_output=True, text=True, check=True)
    return set(done.stdout.split())
