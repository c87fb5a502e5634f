"""What is said of an image from what its probes and its files say; the words of a stranger are read as such."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.unit.image.fixed_image import CONTENTS
from tests.unit.report.fixed_night import COMPOSITION

from patchstack.errors import ImageError
from patchstack.git import Repository
from patchstack.image.answers import MOST_BYTES, Imported, Imports, Request, read_answer
from patchstack.image.check import (
    MODULES,
    TOKENS,
    Asked,
    answered,
    changed_modules,
    judge_imports,
    judge_packages,
    judge_request,
    no_engine,
    said_of_itself,
)
from patchstack.image.contents import contents_digest, encode_contents
from patchstack.image.engine import Ran
from patchstack.image.inside import Inside
from patchstack.image.inventory import Inventory
from patchstack.image.names import Place
from patchstack.model import GuardOutcome, ImageRef, Look

PASS, FAIL, TIMEOUT, CRASH, MISSING, SKIPPED = (
    GuardOutcome.PASS,
    GuardOutcome.FAIL,
    GuardOutcome.TIMEOUT,
    GuardOutcome.CRASH,
    GuardOutcome.MISSING,
    GuardOutcome.SKIPPED_BY_RULE,
)


# --- answers -------------------------------------------------------------------------------------------

SOUND = {"imports": [{"module": "a", "error": None, "missing": None}], "ended": 0, "late": False, "noise": ""}
ANSWER = {"stage": "answered", "ended": None, "late": False, "status": 200, "tokens": [1], "words": "", "noise": ""}


def test_an_answer() -> None:
    assert read_answer(Imports, json.dumps(SOUND)) == Imports([Imported("a", None, None)], 0, False, "")
    assert read_answer(Request, json.dumps(ANSWER)) == Request("answered", None, False, 200, [1], "", "")


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "null",
        "[]",
        "{}",
        "1",
        json.dumps(SOUND) + json.dumps(SOUND),
        "noise\n" + json.dumps(SOUND),
        json.dumps(SOUND) + "\nnoise",
        json.dumps(SOUND)[:-1],
        json.dumps({**SOUND, "more": 1}),
        json.dumps({**SOUND, "late": 0}),
        json.dumps({**SOUND, "ended": True}),
        json.dumps({**SOUND, "ended": "0"}),
        json.dumps({**SOUND, "ended": 1 << 70}),
        json.dumps({**SOUND, "noise": None}),
        json.dumps({**SOUND, "noise": "x" * 5000}),
        json.dumps({**SOUND, "imports": None}),
        json.dumps({**SOUND, "imports": {}}),
        json.dumps({**SOUND, "imports": [None]}),
        json.dumps({**SOUND, "imports": [{"module": "a", "error": None}]}),
        json.dumps({**SOUND, "imports": [{"module": "a" * 301, "error": None, "missing": None}]}),
        json.dumps({**SOUND, "imports": SOUND["imports"] * 1001}),
        json.dumps(SOUND) + " " * MOST_BYTES,
        json.dumps(SOUND).replace("0", "NaN"),
        json.dumps(SOUND).replace("0", "1e400"),
        '{"imports":' + "[" * 100_000,
        "\udc80",
        "\0",
    ],
    ids=range(28),
)
def test_what_is_no_answer(printed: str) -> None:
    assert read_answer(Imports, printed) is None


@pytest.mark.parametrize(
    "wrong",
    [{"stage": "elsewhere"}, {"status": -1}, {"status": 1000}, {"tokens": [-1]}, {"tokens": [1.5]}, {"tokens": ["1"]}],
    ids=str,
)
def test_an_answer_out_of_its_bounds_is_none(wrong: dict[str, object]) -> None:
    assert read_answer(Request, json.dumps({**ANSWER, **wrong})) is None


def test_a_probe_that_did_not_answer() -> None:
    noise = "first\nlast words\n\n"
    assert answered(Imports, Ran(0, json.dumps(SOUND), noise)) == read_answer(Imports, json.dumps(SOUND))
    assert answered(Imports, Ran(0, "", noise)) == (
        CRASH,
        "what came out is not the probe's answer: something in the image wrote there, or ended the probe",
    )
    # Whatever it printed: one that failed has not answered.
    assert answered(Imports, Ran(1, json.dumps(SOUND), noise)) == (CRASH, "the probe ended with 1: last words")
    assert answered(Imports, Ran(137, "", "")) == (CRASH, "the probe ended with 137 (killed; out of memory, perhaps)")
    assert answered(Imports, Ran(255, json.dumps(SOUND), noise, late=True)) == (
        TIMEOUT,
        "its time was up before it answered: last words",
    )
    assert answered(Imports, Ran(137, "", "", too_much=True)) == (CRASH, "it was ended, for it printed without end")


# --- imports -------------------------------------------------------------------------------------------

NAMES = (*MODULES, "sglang.srt.fix", "sglang.srt.gpu")


def imports(*errors: tuple[str, str | None] | None, ended: int = 0, late: bool = False) -> Imports:
    """One answer a module of `NAMES`: None for one that was imported, else its error and what was not found."""
    said = [Imported(name, *(error or (None, None))) for name, error in zip(NAMES, errors, strict=False)]
    return Imports(said, ended, late, "noise\n")


FINE = (None,) * 6
NO_CUDA = ("ImportError: libcuda.so.1: cannot open shared object file", "sgl_kernel")
NO_MODULE = ("ModuleNotFoundError: No module named 'flash'", "flash")
OWN_MODULE = ("ModuleNotFoundError: No module named 'sglang.gone'", "sglang.gone")
OWN_NAME = ("ImportError: cannot import name 'x' from 'sglang.y'", "sglang.y")


@pytest.mark.parametrize("runtime", ["cpu", "cuda"])
def test_all_import(runtime: str) -> None:
    assert judge_imports(NAMES, imports(*FINE), runtime) == (
        PASS,
        f"6 modules import: {', '.join(MODULES)} and those that the night changed",
    )


@pytest.mark.parametrize(
    ("runtime", "place", "error", "outcome"),
    [
        ("cuda", 0, NO_CUDA, FAIL),  # `import sglang` needs no driver
        ("cuda", 3, NO_CUDA, PASS),
        ("cuda", 5, NO_CUDA, PASS),
        ("cuda", 5, ("RuntimeError: Found no NVIDIA driver on your system", None), PASS),
        ("cuda", 3, NO_MODULE, FAIL),
        ("cuda", 5, NO_MODULE, FAIL),
        ("cuda", 5, ("RuntimeError: broken", None), FAIL),
        ("cpu", 5, NO_MODULE, PASS),
        ("cpu", 3, NO_MODULE, FAIL),
        ("cpu", 5, OWN_MODULE, FAIL),
        ("cpu", 5, OWN_NAME, FAIL),
        ("cpu", 5, ("SyntaxError: invalid syntax", None), FAIL),
        ("cpu", 5, ("SystemExit: 0", None), FAIL),
    ],
)
def test_only_what_another_machine_has_is_no_fault_of_the_image(
    runtime: str, place: int, error: tuple[str, str | None], outcome: GuardOutcome
) -> None:
    said, words = judge_imports(NAMES, imports(*FINE[:place], error, *FINE[place + 1 :]), runtime)
    told = f"{NAMES[place]} ({error[0]})" if outcome is PASS else f"{NAMES[place]}: {error[0]}"
    assert said is outcome
    assert told in words  # it is named either way


def test_of_a_long_error_the_line_that_tells_is_told() -> None:
    """As sgl_kernel's is: it has tried several libraries."""
    error = f"ImportError: \n[sgl_kernel] CRITICAL: none\n{'long ' * 100}\n- ImportError: libcuda.so.1: cannot open\n"
    outcome, words = judge_imports(NAMES, imports(None, None, None, None, None, (error, None)), "cuda")
    assert (outcome, words.partition("; ")[2]) == (
        PASS,
        "not without what this machine lacks: sglang.srt.gpu (ImportError: libcuda.so.1: cannot open)",
    )
    assert judge_imports(NAMES, imports(None, None, None, None, None, (error, None)), "cpu") == (
        FAIL,
        "it does not import sglang.srt.gpu: ImportError: libcuda.so.1: cannot open",
    )


def test_a_process_that_ends_between_two_modules() -> None:
    assert judge_imports(NAMES, imports(None, ended=-11), "cuda") == (
        CRASH,
        "importing sglang.srt.server_args ended the process with -11: noise",
    )
    assert judge_imports(NAMES, imports(None, ended=-9, late=True), "cuda") == (
        TIMEOUT,
        "it was still importing sglang.srt.server_args when its time was up",
    )


def test_an_answer_for_other_modules() -> None:
    swapped = replace(imports(None), imports=[Imported("os", None, None)])
    more = imports(*FINE)
    assert judge_imports(NAMES, swapped, "cpu")[0] is CRASH
    assert judge_imports(NAMES[:3], more, "cpu")[0] is CRASH


def test_the_modules_that_a_night_changed() -> None:
    paths = ["python/sglang/srt/b.py", "python/sglang/a/__init__.py", "python/sglang/a/__init__.py"]
    others = ["python/sglang/x.cu", "python/tools/y.py", "docs/z.py", "python/sglang/no-module.py", "python/sglang.py"]
    assert changed_modules([*paths, *others]) == ("sglang.a", "sglang.srt.b")
    assert changed_modules(["python/sglang/__init__.py"]) == ("sglang",)


# --- a request -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"tokens": [1] * TOKENS}, (PASS, "a server on a small model answered one request with 8 tokens")),
        ({"tokens": [1]}, (FAIL, "a server answered with 1 tokens where 8 were asked for")),
        ({"tokens": [1] * TOKENS, "status": 500}, (FAIL, "a server answered with 8 tokens where 8 were asked for")),
        ({"stage": "request", "status": 500, "words": "no"}, (FAIL, "the server answered 500: no")),
        ({"stage": "request", "status": 0, "words": "refused"}, (FAIL, "the server answered nothing: refused")),
        ({"stage": "start", "ended": 1, "noise": "a\nb\n"}, (FAIL, "it ended with 1 while it was starting: b")),
        ({"stage": "request", "ended": -9}, (FAIL, "it ended with -9 while it was answering")),
        ({"stage": "model", "ended": 1}, (FAIL, "it ended with 1 while it was making a small model")),
        ({"stage": "start", "late": True}, (TIMEOUT, "its time was up while it was starting")),
    ],
    ids=str,
)
def test_what_became_of_the_request(said: dict[str, object], expected: tuple[GuardOutcome, str]) -> None:
    found = read_answer(Request, json.dumps({**ANSWER, **said}))
    assert found is not None
    assert judge_request(found) == expected


# --- what the image says of itself ---------------------------------------------------------------------

TEXTS = {
    "patchstack/contents.json": encode_contents(CONTENTS),
    "patchstack/dependencies.json": Inventory((), "/opt/site").encode(),
}


def asked(repository: Repository, *, label: str = contents_digest(CONTENTS), root: str | None = None) -> Asked:
    labels = (("io.github.acme.patchstack.contents", label),)
    image = ImageRef("r", f"sha256:{'a' * 64}", "t", "cpu", "r", "d", labels, 0, False)
    return Asked(image, Place("127.0.0.1:5000", "sglang"), None, COMPOSITION, repository, "", root)


def test_an_image_tells_its_contents_and_its_folder(repository: Repository) -> None:
    assert said_of_itself(TEXTS, asked(repository)) == (CONTENTS, "/opt/site")
    # Somebody else's image has no inventory: deploy.yaml says where the release is.
    alone = {"patchstack/contents.json": TEXTS["patchstack/contents.json"]}
    assert said_of_itself(alone, asked(repository, root="/sgl")) == (CONTENTS, "/sgl")


def test_an_image_that_tells_nothing_or_something_else(repository: Repository) -> None:
    for name in TEXTS:
        with pytest.raises(ImageError, match=f"has no /opt/{name}"):
            said_of_itself({key: text for key, text in TEXTS.items() if key != name}, asked(repository))
    with pytest.raises(ImageError, match="is not the one that its label names"):
        said_of_itself(TEXTS, asked(repository, label=f"sha256:{'0' * 64}"))
    other = replace(CONTENTS, tree="f" * 40)
    texts = {**TEXTS, "patchstack/contents.json": encode_contents(other)}
    with pytest.raises(ImageError, match="tree ffffffffffff, and not"):
        said_of_itself(texts, asked(repository, label=contents_digest(other)))


def test_packages_that_nobody_names_are_counted_and_not_compared() -> None:
    info = {"a-1.dist-info/METADATA": b"Name: a\nVersion: 1\n\n"}
    said = judge_packages(replace(CONTENTS, packages=()), Inside(texts=info))
    why = "the image that it stands on tells nobody what it holds; it has 1 of Python and 0 of Debian"
    assert said == (SKIPPED, why)


def test_without_an_engine_every_check_is_missing_and_says_what_to_install() -> None:
    checks = no_engine()
    assert [(one.name, one.outcome) for one in checks] == [(look.value, MISSING) for look in Look]
    assert "apt-get install podman runc" in checks[0].detail
