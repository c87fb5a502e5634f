"""What lies in an image, from a tar stream as an engine writes it, against what was meant to lie there."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from collections.abc import Mapping

import pytest

from patchstack.contents import Package
from patchstack.errors import ImageError
from patchstack.git import Entry
from patchstack.image.compare import package_differences, release_packages, tree_differences
from patchstack.image.inside import Inside, compiled_parts, installed, read_inside, read_texts
from patchstack.model import Sha

ROOT = "/opt/sglang/lib/python3.11/site-packages"
SITE = ROOT[1:]


def blob(text: bytes) -> Sha:
    return Sha(hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest())


TREE = (
    Entry("100644", "blob", blob(b"a\n"), "python/sglang/a.py"),
    Entry("100755", "blob", blob(b"run\n"), "python/sglang/run.sh"),
    Entry("120000", "blob", blob(b"a.py"), "python/sglang/link.py"),
    Entry("100644", "blob", blob(b"v\n"), "python/tools/version.py"),
    Entry("100644", "blob", blob(b"p\n"), "python/pyproject.toml"),
    Entry("100644", "blob", blob(b"l\n"), "LICENSE"),
)
HELD: dict[str, bytes | tarfile.TarInfo] = {
    f"{SITE}/sglang/a.py": b"a\n",
    f"{SITE}/tools/version.py": b"v\n",
    f"{SITE}/torch/a.py": b"other\n",
    f"{SITE}/sglang-1.0.dist-info/RECORD": b"",
    "etc/passwd": b"root\n",
}


def special(kind: bytes, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    entry = tarfile.TarInfo()
    entry.type, entry.linkname, entry.mode = kind, target, mode
    return entry


def archive(files: Mapping[str, bytes | tarfile.TarInfo], programs: tuple[str, ...] = ()) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, what in files.items():
            entry = tarfile.TarInfo(name) if isinstance(what, bytes) else what
            entry.name = name
            if isinstance(what, bytes):
                entry.size, entry.mode = len(what), 0o755 if name in programs else 0o640
            tar.addfile(entry, io.BytesIO(what) if isinstance(what, bytes) else None)
    return io.BytesIO(out.getvalue())


def inside(more: Mapping[str, bytes | tarfile.TarInfo], without: str = "") -> Inside:
    link, program = f"{SITE}/sglang/link.py", f"{SITE}/sglang/run.sh"
    files = {**HELD, program: b"run\n", link: special(tarfile.SYMTYPE, "a.py"), **more}
    files.pop(without, None)
    return read_inside(archive(files, (program,)), ROOT, release_packages(TREE))


def test_the_release_is_what_has_a_folder_of_its_own() -> None:
    assert release_packages(TREE) == ("sglang", "tools")


def test_an_image_that_holds_the_tree() -> None:
    assert tree_differences(TREE, {}, inside({})) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"sglang/a.py": b"b\n"}, "sglang/a.py has other bytes"),
        ({"sglang/run.sh": b"run\n", "sglang/more": b""}, "sglang/more is in no tree"),
        ({"sglang/link.py": special(tarfile.SYMTYPE, "/etc/passwd")}, "sglang/link.py has other bytes"),
        ({"sglang/link.py": b"a.py"}, "sglang/link.py has mode 100644 and not 120000"),
        ({"sglang/a.py": special(tarfile.FIFOTYPE)}, "sglang/a.py is neither a file nor a link"),
        ({"sglang/a.py": special(tarfile.CHRTYPE)}, "sglang/a.py is neither a file nor a link"),
        ({"sglang/a.py": special(tarfile.LNKTYPE, "etc/passwd")}, "sglang/a.py is one file with etc/passwd"),
        ({"sglang/x\nFAIL.py": b""}, "sglang/x\nFAIL.py is in no tree"),
        ({"tools/more.py": b""}, "tools/more.py is in no tree"),
        ({"sglang/x.so": b""}, "sglang/x.so is in no tree"),
        ({"sglang/__pycache__/a.cpython-311.pyc": b""}, "sglang/__pycache__/a.cpython-311.pyc is in no tree"),
    ],
)
def test_each_difference_is_named(more: Mapping[str, bytes | tarfile.TarInfo], words: str) -> None:
    found = inside({f"{SITE}/{name}": what for name, what in more.items()})
    assert tree_differences(TREE, {}, found) == [words]


def test_a_file_that_is_missing() -> None:
    assert tree_differences(TREE, {}, inside({}, without=f"{SITE}/sglang/a.py")) == ["sglang/a.py is missing"]


def test_a_hard_link_to_what_was_read_is_that_file() -> None:
    found = inside({f"{SITE}/sglang/again.py": special(tarfile.LNKTYPE, f"{SITE}/sglang/a.py")})
    assert tree_differences((*TREE, Entry("100644", "blob", blob(b"a\n"), "python/sglang/again.py")), {}, found) == []


def test_compiled_parts_are_those_of_the_release() -> None:
    coded = base64.urlsafe_b64encode(hashlib.sha256(b"compiled").digest()).decode().rstrip("=")
    record = f"sglang/x.so,sha256={coded},8\nsglang/a.py,sha256=x,2\ntorn\nsglang/y.so,sha256=%,1\n".encode()
    files = {
        f"{SITE}/sglang-1.0.dist-info/RECORD": record,
        f"{SITE}/other-1.0.dist-info/RECORD": b"sglang/z.so,sha256=,",
    }
    held = inside({**files, f"{SITE}/sglang/x.so": b"compiled", f"{SITE}/sglang/y.so": b"?"})
    natives = compiled_parts(held, "sglang")
    assert set(natives) == {"sglang/x.so", "sglang/y.so"}
    assert tree_differences(TREE, natives, held) == ["sglang/y.so is not the release's compiled part"]
    without = inside(files)
    assert tree_differences(TREE, {"sglang/x.so": natives["sglang/x.so"]}, without) == [
        "sglang/x.so, a compiled part, is missing"
    ]


def test_somebody_elses_image_may_have_compiled_files_and_no_others() -> None:
    more = {"sglang/x.so": b"", "sglang/__pycache__/a.pyc": b"", "sglang/b.py": b""}
    found = inside({f"{SITE}/{name}": what for name, what in more.items()})
    assert tree_differences(TREE, {}, found, foreign=True) == ["sglang/b.py is in no tree"]


def test_nothing_of_the_release_is_looked_at_where_its_folder_is_a_link() -> None:
    """A link leads nowhere here: whatever it is to, the files are missing."""
    folder = {
        SITE.rpartition("/")[0]: special(tarfile.SYMTYPE, "/elsewhere"),
        "elsewhere/site-packages/sglang/a.py": b"a\n",
    }
    found = read_inside(archive(folder), ROOT, ("sglang",))
    assert found == Inside()


# --- packages ------------------------------------------------------------------------------------------

STATUS = b"""\
Package: libc6
Status: install ok installed
Version: 2.36-9
Description: the C library
 Package: not me

Package: gone
Status: deinstall ok config-files
Version: 1

Package: held
Status: hold ok installed
Version: 3
"""


def test_who_is_installed() -> None:
    metadata = b"Metadata-Version: 2.1\nName: Torch_Vision.x\nVersion: 2.9.1+cpu\nName: twice\n\nName: in the text\n"
    found = inside({f"{SITE}/a.dist-info/METADATA": metadata, "var/lib/dpkg/status": STATUS})
    assert installed(found) == (
        Package("debian", "held", "3"),
        Package("debian", "libc6", "2.36-9"),
        Package("python", "torch-vision-x", "2.9.1+cpu"),
    )


def test_packages_of_other_folders_are_none_of_ours() -> None:
    found = inside({"usr/lib/python3/dist-packages/a.dist-info/METADATA": b"Name: a\nVersion: 1\n\n"})
    assert installed(found) == ()


def test_each_package_that_differs_is_named() -> None:
    meant = [Package("python", "a", "1"), Package("python", "b", "1"), Package("debian", "c", "1")]
    found = [Package("python", "a", "2"), Package("python", "c", "1"), Package("debian", "c", "1")]
    assert package_differences(meant, meant) == []
    assert package_differences(meant, found) == [
        "python package a is 2 and not 1",
        "python package b 1 is missing",
        "python package c 1 is there and was not said",
    ]
    assert package_differences(meant[:1], [*meant[:1], *found[:1]]) == ["python package a 2 is there and was not said"]
    assert package_differences(meant[:1], meant[:1] * 2) == ["python package a 1 is there and was not said"]


# --- streams that are none -----------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 100, 513])
def test_a_stream_that_is_cut_short_is_no_image(cut: int) -> None:
    whole = archive(HELD).getvalue()
    with pytest.raises(ImageError, match="cannot be read"):
        read_inside(io.BytesIO(whole[:cut]), ROOT, ("sglang",))


def test_words_beyond_all_measure_are_not_read() -> None:
    with pytest.raises(ImageError, match="more of itself than 1 MiB"):
        read_texts(archive({"patchstack/a": b"x" * (1 << 19), "patchstack/b": b"x" * (1 << 20)}), 1 << 20)
    assert read_texts(archive({"patchstack/a": b"x", "patchstack/l": special(tarfile.SYMTYPE, "/etc/passwd")})) == {
        "patchstack/a": b"x"
    }
