"""A lane whose image is in a real registry on loopback, on a dependency image of a few kilobytes.

bench = ImageBench(tmp_path, place)
bench.push_dependencies()
made = bench.make(bench.compose({"python/sglang/a.py": "changed\n"}))
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.unit.builders import Content, Workshop
from tests.unit.verbs.fork_bench import as_planned, workplace, write_repository

from patchstack.contents import Package
from patchstack.git import Repository
from patchstack.image.build import LABEL_RECIPE
from patchstack.image.embedded import serve
from patchstack.image.inventory import PATH as INVENTORY
from patchstack.image.inventory import Inventory
from patchstack.image.names import CUDA, Place, dependency_tag
from patchstack.image.oci import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, digest_of
from patchstack.image.recipe import Recipe, read_recipe
from patchstack.image.registry import Registry
from patchstack.model import (
    Base,
    Candidates,
    Composition,
    ImageRef,
    Kind,
    LedgerImage,
    MergePlan,
    Native,
    Sha,
    Topic,
)
from patchstack.store import Run
from patchstack.verbs.image import make_image
from patchstack.workplace import Workplace

REPOSITORY = Path(__file__).parents[2]
ROOT = "/opt/sglang/lib/python3.11/site-packages"
SITE = ROOT[1:]
RELEASE = "0.5.12.post1"
BASE: Mapping[str, Content] = {
    "python/sglang/__init__.py": "__version__ = 'x'\n",
    "python/sglang/a.py": "a\n",
    "python/sglang/gone/b.py": "b\n",
    "python/sglang/gone/deep/c.py": "c\n",
    "python/sglang/file_then_folder": "f\n",
    "python/sglang/folder_then_file/d.py": "d\n",
    "python/sglang/kept/g.py": "g\n",
}
NATIVE_PART = "sglang/kept/_core.so"
"""A compiled part: it is in the release's wheel and in the image, and in no tree."""
PACKAGES = (Package("debian", "libc6", "2.36-9"), Package("python", "torch", "2.9.1"))
NATIVE = Native("cp311", "manylinux_2_34_x86_64", f"sglang-{RELEASE}-cp311-cp311-manylinux_2_34_x86_64.whl", "a" * 64)
DEPLOY = """\
schema: 1
fork: {{repo: acme/sglang}}
lanes:
  production:
    upstream: {{pypi: sglang==0.5.12.post1}}
    branch: deploy
    image: {{repository: {repository}, runtime: cuda{more}}}
channels:
  nightly: {{needs: [cpu]}}
"""


def tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        folders = {str(parent) for path in files for parent in Path(path).parents} - {"."}
        for folder in sorted(folders):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for path, data in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@dataclass
class ImageBench:
    folder: Path
    place: Place
    more: str = ""
    """More of the lane's image in deploy.yaml."""

    def __post_init__(self) -> None:
        write_repository(self.folder)
        (self.folder / "deploy.yaml").write_text(DEPLOY.format(repository=self.place.name, more=self.more))
        Repository.init(self.folder / "remote.git")

    @property
    def work(self) -> Workplace:
        return workplace(self.folder, remote=str(self.folder / "remote.git"), local=True)

    # --- what there is ---

    @property
    def store(self) -> Repository:
        return self.work.store()

    def compose(self, changes: Mapping[str, Content], base: Mapping[str, Content] = BASE) -> Composition:
        """The release with one pull request's ``changes``."""
        shop = Workshop(self.work.state.store_git)
        tree = shop.tree(base)
        release = Base(f"sglang=={RELEASE}", RELEASE, shop.commit_tree("base", tree, when=1), tree, (NATIVE,))
        replaced = {path for path in changes if any(held.startswith(f"{path}/") for held in base)}
        removed = replaced | {path for path, content in changes.items() if content is None}
        put = {path: content for path, content in changes.items() if content is not None}
        composed = shop.tree(put, shop.tree(dict.fromkeys(removed), tree))
        topic = shop.commit_tree("a change", composed, release.commit, when=2)
        octopus = shop.commit_tree("octopus", composed, release.commit, topic, when=3)
        pull = Topic("#1", Kind.PULL, "a change", "Bob", topic, topic, release.commit, topic, "id", ())
        return Composition("production", release, octopus, composed, (pull,), (), as_planned(self.work, composed))

    def begin(self, composition: Composition) -> Run:
        """A run that has been planned and composed."""
        run = self.work.state.new_run()
        run.write(Candidates(composition.base, composition.included, composition.left_out))
        run.write(MergePlan("production", composition.base, composition.included, (), composition.fingerprint))
        run.write(composition)
        return run

    # --- the dependency image ---

    def recipe(self) -> Recipe:
        base = Base(f"sglang=={RELEASE}", RELEASE, Sha("0" * 40), Sha("0" * 40), (NATIVE,))
        recipe = read_recipe(base, CUDA, self.folder)
        assert isinstance(recipe, Recipe), recipe
        return recipe

    @property
    def dependency_tag(self) -> str:
        return dependency_tag(CUDA, self.recipe().key)

    def push_dependencies(self, *, recipe: str = "", extra: bytes = b"", tag: str = "") -> str:
        """A dependency image that has the release installed as `compose` has it; its digest."""
        base: dict[str, bytes] = {
            f"{SITE}/{path.removeprefix('python/')}": str(content).encode() for path, content in BASE.items()
        }
        site = tar(
            {
                **base,
                f"{SITE}/{NATIVE_PART}": b"compiled",
                f"{SITE}/torch/__init__.py": b"torch\n" + extra,
                "etc/debian_version": b"12\n",
            }
        )
        inventory = tar({INVENTORY: Inventory(PACKAGES, ROOT).encode()})
        layers = [(gzip.compress(data, mtime=0), digest_of(data)) for data in (site, inventory)]
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "created": "1980-01-01T00:00:00Z",
                "config": {
                    "Env": ["PATH=/opt/sglang/bin:/usr/bin"],
                    "Entrypoint": ["python3"],
                    "Labels": {LABEL_RECIPE: recipe or self.recipe().key, "io.buildah.version": "1"},
                },
                "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
                "history": [{"created_by": "first"}, {"created_by": "second"}],
            }
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": Descriptor(CONFIG, digest_of(config), len(config)).encode(),
                "layers": [Descriptor(LAYER_GZIP, digest_of(data), len(data)).encode() for data, _ in layers],
            }
        ).encode()
        with Registry.at(self.place) as registry:
            for blob in (config, *(data for data, _ in layers)):
                registry.push_blob(blob, digest_of(blob))
            digest = registry.push_manifest(manifest, MANIFEST)
            registry.tag(digest, tag or self.dependency_tag, move=True)
        return digest

    # --- the image ---

    def make(self, composition: Composition, previous: LedgerImage | None = None) -> ImageRef:
        made = make_image(self.work, self.begin(composition), composition, previous)
        assert made.image is not None, made.why_not
        return made.image


@dataclass
class LocalBench:
    """A lane with `--local`: its images are in the registry of this machine, on dependencies that are there."""

    folder: Path

    def __post_init__(self) -> None:
        self.bench = ImageBench(self.folder, Place("registry.example.com", "acme/sglang"))
        (self.folder / "tests/support").mkdir(parents=True)
        for name in ("locks", "standins"):
            (self.folder / "tests/support" / name).symlink_to(REPOSITORY / "tests/support" / name)
        recipe = read_recipe(self.bench.compose({}).base, "cpu", self.folder)
        assert isinstance(recipe, Recipe), recipe
        self.dependency_tag = dependency_tag("cpu", recipe.key)
        with serve(self.work.state.root / "registry") as place:
            there = ImageBench(self.folder.with_name(f"{self.folder.name}-there"), place)
            there.push_dependencies(recipe=recipe.key, tag=self.dependency_tag)

    @property
    def work(self) -> Workplace:
        return workplace(self.folder, local=True)

    def make(self, changes: Mapping[str, Content]) -> ImageRef:
        composition = self.bench.compose(changes)
        made = make_image(self.work, self.bench.begin(composition), composition, None)
        assert made.image is not None, made.why_not
        return made.image

    def blobs(self) -> set[str]:
        return blobs(self.work.state.root / "registry")


def blobs(folder: Path) -> set[str]:
    """Every blob in a registry's own files."""
    return {path.parent.name for path in (folder / "docker/registry/v2/blobs/sha256").glob("*/*/data")}


def tags(place: Place) -> dict[str, str | None]:
    with Registry.at(place) as held:
        return {tag: held.resolve(tag) for tag in held.tags()}


# --- the command line ---


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def patchstack(bench: ImageBench, *argv: str, **env: str) -> Done:
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from patchstack.cli import main; main()"),
            *("--offline", "--local", "--remote", str(bench.folder / "remote.git")),
            *argv,
        ],
        cwd=bench.folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)
