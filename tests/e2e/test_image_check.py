"""What is seen inside an image that is pulled from a real registry by podman, each fault by its own check.

The images hold Debian's Python and a server of a few lines in SGLang's place. The real thing is in test_image_night.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.e2e.image_check_bench import (
    CRASH,
    FAIL,
    MISSING,
    PASS,
    ROOT,
    SERVER,
    SHORT,
    SKIPPED,
    TIMEOUT,
    Bench,
    Night,
    debian_packages,
    images,
)
from tests.e2e.image_check_bench import bench as bench
from tests.support.image_registry import LOGIN, Fault, faulty, registry

from patchstack.image.check import check
from patchstack.image.contents import CONTENTS, FOLDER
from patchstack.image.layer import FileEntry
from patchstack.image.login import Login

pytestmark = pytest.mark.usefixtures("sealed_module")


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
