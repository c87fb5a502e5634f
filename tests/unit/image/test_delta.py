"""What a layer must hold so that the release in an image becomes the composed tree, and nothing else."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.builders import Content, Link, Program, Submodule, Workshop

from patchstack.errors import ImageError
from patchstack.git import Repository
from patchstack.image.delta import Delta, delta
from patchstack.image.layer import WHITEOUT, FileEntry, make_layer
from patchstack.model import Sha

ROOT = "/usr/lib/python3/site-packages"
BASE: Mapping[str, Content] = {
    "python/sglang/a.py": "a\n",
    "python/sglang/old/b.py": "b\n",
    "python/sglang/old/deep/c.py": "c\n",
    "python/sglang/srt/run": Program("#!/bin/sh\n"),
    "python/sglang/srt/link.py": Link("../a.py"),
    "python/tools/t.py": "t\n",
}


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "store.git")


def between(shop: Workshop, changes: Mapping[str, Content], *natives: str) -> Delta:
    base = shop.tree(BASE)
    return delta(shop.repository, base, shop.tree(changes, base), ROOT, natives)


def site(path: str) -> str:
    return f"{ROOT[1:]}/{path}"


def test_equal_trees_need_nothing(shop: Workshop) -> None:
    assert between(shop, {}) == Delta({}, ())


def test_what_is_changed_and_new_with_its_mode_and_what_is_deleted(shop: Workshop) -> None:
    found = between(
        shop,
        {
            "python/sglang/a.py": "changed\n",
            "python/sglang/new.py": b"\x00\xff",
            "python/sglang/srt/run": "no program any more\n",
            "python/sglang/srt/tool": Program("#!/bin/sh\n"),
            "python/sglang/srt/link.py": Link("../new.py"),
            "python/sglang/old/b.py": None,
            "python/tools/t.py": Program("t\n"),
        },
    )
    assert found == Delta(
        {
            site("sglang/a.py"): FileEntry(b"changed\n", 0o644),
            site("sglang/new.py"): FileEntry(b"\x00\xff", 0o644),
            site("sglang/srt/run"): FileEntry(b"no program any more\n", 0o644),
            site("sglang/srt/tool"): FileEntry(b"#!/bin/sh\n", 0o755),
            site("sglang/srt/link.py"): FileEntry(b"", link="../new.py"),
            site("tools/t.py"): FileEntry(b"t\n", 0o755),
        },
        (site("sglang/old/b.py"),),
    )


def test_a_folder_of_which_nothing_is_left_goes_as_a_whole(shop: Workshop) -> None:
    """An empty one would still be a package to Python, and is none where guards run."""
    assert between(shop, {"python/sglang/old": None}).deleted == (site("sglang/old"),)
    assert between(shop, {"python/sglang/old/deep": None}).deleted == (site("sglang/old/deep"),)
    assert between(shop, {"python/tools": None}).deleted == (site("tools"),)


def test_a_folder_that_holds_a_compiled_part_stays(shop: Workshop) -> None:
    gone = between(shop, {"python/sglang/old": None}, "sglang/old/deep/_core.so")
    assert gone.deleted == (site("sglang/old/b.py"), site("sglang/old/deep/c.py"))


def test_a_folder_that_becomes_a_file_and_a_file_that_becomes_a_folder(shop: Workshop) -> None:
    base = shop.tree(BASE)
    bare = shop.tree({"python/sglang/old": None, "python/sglang/a.py": None}, base)
    both = shop.tree({"python/sglang/old": "a file\n", "python/sglang/a.py/x.py": "x\n"}, bare)
    assert delta(shop.repository, base, both, ROOT) == Delta(
        {site("sglang/old"): FileEntry(b"a file\n"), site("sglang/a.py/x.py"): FileEntry(b"x\n")}, ()
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test/x.py": "x"}, "the image cannot hold test/x.py: of the release it has python/sglang, python/tools"),
        ({"python/torch/__init__.py": "x"}, "the image cannot hold python/torch/__init__.py"),
        ({"python/setup.py": "x"}, "the image cannot hold python/setup.py"),
        ({"python/sglang": None, "python/sglang.py": "x"}, "the image cannot hold python/sglang.py"),
        ({f"docs/{n}.md": "x" for n in range(7)}, "docs/4.md and 2 more"),
        ({"python/sglang/sub": Submodule(Sha("1" * 40))}, "python/sglang/sub of mode 160000"),
        ({"python/sglang/l": Link("/etc/passwd")}, "python/sglang/l is a link to '/etc/passwd', out of the release"),
        ({"python/sglang/l": Link("../../x")}, "out of the release"),
        ({"python/sglang/l": Link("a/../../../x")}, "out of the release"),
        ({"python/sglang/srt/l": Link("../link/../../../x")}, "out of the release"),
    ],
)
def test_what_no_image_can_hold_is_refused_by_name(shop: Workshop, changes: dict[str, Content], said: str) -> None:
    with pytest.raises(ImageError) as error:
        between(shop, changes)
    assert said in str(error.value)


def test_a_link_to_another_package_of_the_release_stays(shop: Workshop) -> None:
    found = between(shop, {"python/sglang/l": Link("../tools/t.py")})
    assert found.files == {site("sglang/l"): FileEntry(b"", link="../tools/t.py")}


# --- on an image ---

Tree = dict[str, tuple[str, bytes]]
"""Path to mode and content (of a link: where it leads)."""


def applied(below: Tree, layer: bytes) -> Tree:
    """What a store of images makes of a layer (https://github.com/opencontainers/image-spec/blob/main/layer.md)."""
    above: Tree = dict(below)

    def remove(path: str) -> None:
        for held in [held for held in above if held == path or held.startswith(f"{path}/")]:
            del above[held]

    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer))) as tar:
        members = [(entry, tar.extractfile(entry) if entry.isreg() else None) for entry in tar.getmembers()]
        for entry, _ in members:
            folder, _, name = entry.name.rpartition("/")
            if name.startswith(WHITEOUT):
                remove(f"{folder}/{name.removeprefix(WHITEOUT)}")
        for entry, stream in members:
            if entry.name.rpartition("/")[2].startswith(WHITEOUT):
                continue
            if entry.isdir():
                above.pop(entry.name, None)
            elif entry.issym():
                remove(entry.name)
                above[entry.name] = ("120000", entry.linkname.encode())
            else:
                remove(entry.name)
                above[entry.name] = (f"100{entry.mode:o}", stream.read() if stream else b"")
    return above


def held(repository: Repository, tree: Sha) -> Tree:
    return {
        site(entry.path.removeprefix("python/")): (entry.mode, repository.read_blob(entry.sha) or b"")
        for entry in repository.list_tree(tree)
    }


FOLDERS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map("/".join)
CONTENTS = st.one_of(
    st.sampled_from(["1\n", "2\n"]), st.just(Program("#!\n")), st.sampled_from([Link("a"), Link("./b/c")])
)


def fitting(files: dict[str, Content]) -> dict[str, Content]:
    """Without what would be below a file."""
    return {
        f"python/sglang/{path}": content
        for path, content in files.items()
        if not any(path.startswith(f"{other}/") for other in files)
    }


TREES = st.dictionaries(FOLDERS, CONTENTS, max_size=6).map(fitting)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("trees") / "store.git")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=TREES, after=TREES)
def test_the_layer_on_the_release_is_the_composed_tree(
    shared: Workshop, before: dict[str, Content], after: dict[str, Content]
) -> None:
    always = {"python/sglang/__init__.py": "one\n"}
    base, tree = (shared.tree(files | always) for files in (before, after))
    below = held(shared.repository, base)
    foreign: Tree = {"etc/os-release": ("100644", b"debian\n"), site("torch/__init__.py"): ("100644", b"torch\n")}
    found = delta(shared.repository, base, tree, ROOT)
    layer = make_layer(found.files, found.deleted)
    assert applied(below | foreign, layer.data) == held(shared.repository, tree) | foreign
