"""A layer is the same for the same files, says what it means, and reading one trusts nothing in it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import tarfile
import zlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchstack.errors import ImageError
from patchstack.image.layer import EPOCH, FileEntry, Layer, make_layer, read_layer

PLENTY = 1 << 20


def listing(layer: Layer) -> list[tuple[str, str, int]]:
    """Each entry in its order: name, kind (or where a link leads), mode."""
    kinds = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "folder"}
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer.data))) as tar:
        return [(entry.name, kinds.get(entry.type, f"-> {entry.linkname}"), entry.mode) for entry in tar]


def test_a_layer_holds_files_links_modes_and_deletions_and_each_folder_once() -> None:
    layer = make_layer(
        {
            "usr/lib/a.py": FileEntry(b"a"),
            "usr/lib/run": FileEntry(b"#!", 0o755),
            "usr/lib/to-a": FileEntry(b"", link="a.py"),
            "opt/x": FileEntry(b"x"),
        },
        ["usr/lib/old.py", "var/cache"],
    )

    assert listing(layer) == [
        ("opt", "folder", 0o755),
        ("opt/x", "file", 0o644),
        ("usr", "folder", 0o755),
        ("usr/lib", "folder", 0o755),
        ("usr/lib/.wh.old.py", "file", 0o644),
        ("usr/lib/a.py", "file", 0o644),
        ("usr/lib/run", "file", 0o755),
        ("usr/lib/to-a", "-> a.py", 0o777),
        ("var", "folder", 0o755),
        ("var/.wh.cache", "file", 0o644),
    ]
    assert read_layer(layer.data, PLENTY) == {
        "opt/x": b"x",
        "usr/lib/.wh.old.py": b"",
        "usr/lib/a.py": b"a",
        "usr/lib/run": b"#!",
        "var/.wh.cache": b"",
    }


def test_nothing_of_the_machine_is_in_a_layer() -> None:
    layer = make_layer({"a/b": FileEntry(b"b"), "a/c": FileEntry(b"", link="b")}, ["a/d"])
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer.data))) as tar:
        owners = {(entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) for entry in tar}
    assert owners == {(0, 0, "", "", EPOCH)}
    assert layer.data[3:10] == bytes([0, 0, 0, 0, 0, 2, 255])  # no name, no time, no system


def test_its_digests_are_of_its_bytes_compressed_and_not() -> None:
    layer = make_layer({"a": FileEntry(b"a")})
    assert layer.digest == f"sha256:{hashlib.sha256(layer.data).hexdigest()}"
    assert layer.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(layer.data)).hexdigest()}"
    assert layer.size == len(layer.data)


def test_the_diff_id_of_a_known_layer_is_known() -> None:
    """What is written changes with no Python and no machine; whoever changes this changes every image."""
    layer = make_layer({"opt/é": FileEntry("é".encode()), "opt/run": FileEntry(b"#!", 0o755)}, ["opt/old"])
    assert layer.diff_id == "sha256:ee1602e59b81615e2a0fdce5a259d96ff9a081d2fee0d872d540ffb65bb510f6"


NAMES = st.sampled_from(["a", "b", "c.py", "long" * 40, "ü"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def no_clash(files: dict[str, bytes]) -> bool:
    return not any(other.startswith(f"{path}/") for path in files for other in files)


@given(st.dictionaries(PATHS, st.binary(max_size=40)).filter(no_clash), st.randoms())
def test_order_decides_nothing_and_what_is_written_is_read(files: dict[str, bytes], order: Random) -> None:
    shuffled = list(files)
    order.shuffle(shuffled)
    layer = make_layer({path: FileEntry(data) for path, data in files.items()})
    again = make_layer({path: FileEntry(files[path]) for path in shuffled})
    assert again == layer
    assert read_layer(layer.data, PLENTY) == files


@pytest.mark.parametrize(
    ("files", "deleted", "said"),
    [
        (["a/.wh.b"], [], "'a/.wh.b' cannot be put into an image: a name that begins with .wh. means a deletion there"),
        ([".wh..wh..opq/x"], [], "means a deletion there"),
        ([], ["a/.wh.b"], "means a deletion there"),
        (["/etc/passwd"], [], "'/etc/passwd' cannot be put into an image: it is no plain path from the image's root"),
        (["a/../../b"], [], "no plain path"),
        (["a//b"], [], "no plain path"),
        (["./a"], [], "no plain path"),
        ([""], [], "no plain path"),
        (["a\0b"], [], "no plain path"),
        (["a", "a/b"], [], "'a' would be a file and a folder of one image"),
        (["a"], ["a"], "'a' would be both deleted from an image and put into it"),
        (["a/b"], ["a"], "'a' would be both deleted from an image and put into it"),
        (["a"], ["a/b"], "'a/b' would be deleted from an image together with what holds it"),
        ([], ["a", "a/b"], "'a/b' would be deleted from an image together with what holds it"),
    ],
)
def test_a_path_that_cannot_be_meant_is_refused(files: list[str], deleted: list[str], said: str) -> None:
    with pytest.raises(ImageError) as error:
        make_layer({path: FileEntry(b"") for path in files}, deleted)
    assert said in str(error.value)


# --- reading ---


def packed(*entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, link, len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def test_a_layer_of_another_tool_reads_as_well() -> None:
    with_root = packed(("./", b""), kind=tarfile.DIRTYPE)[: tarfile.BLOCKSIZE] + packed(("./opt/x", b"x"))
    assert read_layer(gzip.compress(with_root), PLENTY) == {"opt/x": b"x"}


def test_a_bomb_is_left_after_what_is_allowed() -> None:
    zeros = packed(("zeros", bytes(5 << 20)))
    with pytest.raises(ImageError, match="unpacks to more than 1048576 bytes"):
        read_layer(gzip.compress(zeros), PLENTY)
    assert len(read_layer(gzip.compress(zeros), len(zeros))["zeros"]) == 5 << 20


GOOD = packed(("a", b"a"), ("b", b"b"))


UNSOUND = {
    "an absolute path": (gzip.compress(packed(("/etc/passwd", b""))), "leads out of the image"),
    "a way up": (gzip.compress(packed(("a/../../b", b""))), "leads out of the image"),
    "the folder above": (gzip.compress(packed(("..", b""), kind=tarfile.DIRTYPE)), "leads out of the image"),
    "a hard link": (gzip.compress(packed(("a", b""), kind=tarfile.LNKTYPE, link="b")), "neither file nor folder"),
    "a character device": (gzip.compress(packed(("a", b""), kind=tarfile.CHRTYPE)), "neither file nor folder"),
    "a block device": (gzip.compress(packed(("a", b""), kind=tarfile.BLKTYPE)), "neither file nor folder"),
    "a pipe": (gzip.compress(packed(("a", b""), kind=tarfile.FIFOTYPE)), "neither file nor folder"),
    "a file with holes": (gzip.compress(packed(("a", b""), kind=tarfile.GNUTYPE_SPARSE)), "neither file nor folder"),
    "a path twice": (gzip.compress(packed(("a", b"1"), ("a", b"2"))), "'a' is in it twice"),
    "a path twice, spelled twice": (gzip.compress(packed(("a", b"1"), ("./a", b"2"))), "'a' is in it twice"),
    "a lost end": (gzip.compress(GOOD)[:-12], "cut short"),
    "more behind it": (gzip.compress(GOOD) + b"more", "something is behind its end"),
    "another behind it": (gzip.compress(GOOD) + gzip.compress(GOOD), "something is behind its end"),
    "an archive cut in a file": (gzip.compress(GOOD[:1024]), "no proper end"),
    "an archive without an end": (gzip.compress(GOOD[:2048]), "no proper end"),
    "noise between files": (gzip.compress(GOOD[:1024] + b"x" * 512 + GOOD[1536:]), "no proper end"),
    "no archive": (gzip.compress(b"no archive at all" * 100), "invalid header"),
    "an empty file": (gzip.compress(b""), "empty file"),
    "an archive that is not compressed": (GOOD, "no gzipped archive"),
    "another compression": (zlib.compress(GOOD), "no gzipped archive"),
    "nothing": (b"", "cut short"),
}


@pytest.mark.parametrize(("data", "said"), UNSOUND.values(), ids=UNSOUND.keys())
def test_a_layer_that_is_not_sound_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ImageError) as error:
        read_layer(data, PLENTY)
    assert "a layer cannot be read: " in str(error.value)
    assert said in str(error.value)


@given(st.binary(max_size=2000), st.integers(min_value=0, max_value=len(GOOD) - 1))
def test_whatever_is_in_the_archive_there_is_an_answer_or_an_image_error(noise: bytes, at: int) -> None:
    for archive in (noise, GOOD[:at] + noise + GOOD[at:]):
        with contextlib.suppress(ImageError):
            read_layer(gzip.compress(archive), PLENTY)


def test_a_damaged_checksum_is_seen() -> None:
    data = bytearray(gzip.compress(GOOD))
    data[-8] ^= 1
    with pytest.raises(ImageError, match="no gzipped archive"):
        read_layer(bytes(data), PLENTY)
