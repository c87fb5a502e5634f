"""The image as an engineer will get it: pulled by its digest, and looked at.

In this order (`Look`): the digest of what was pulled; the files of SGLang against the composed tree, and the packages
against what the image says of itself, both read by us without running any code of the image; then, by probes that run
inside (`probe/`), whether it imports, and on the runtime ``cpu`` whether a server answers a request.

An image holds code of pull requests. It cannot forge the digest, nor what is read of its files. What its own code says
of itself it can forge: a module that wants to can make the probe beside it say that all is well. The last two checks
find what is broken, and are no defence against what is malicious; that is what admission is for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from patchstack import process
from patchstack.contents import Contents
from patchstack.errors import ImageError, MachineError
from patchstack.git import Repository
from patchstack.image import probe
from patchstack.image.answers import Answer, Imported, Imports, Request, read_answer
from patchstack.image.compare import PYTHON, package_differences, release_packages, tree_differences
from patchstack.image.contents import CONTENTS, FOLDER, decode_contents
from patchstack.image.engine import NEEDED, DigestDiffers, Limits, OpenEngine, Ran
from patchstack.image.inside import Inside, compiled_parts, installed, read_inside, read_texts
from patchstack.image.inventory import PATH as INVENTORY
from patchstack.image.inventory import decode_inventory
from patchstack.image.login import Login
from patchstack.image.names import CUDA, Place
from patchstack.image.oci import digest_of
from patchstack.model import Composition, GuardOutcome, ImageCheck, ImageRef, Look

PROJECT = "sglang"
MODULES = ("sglang", "sglang.srt.server_args", "sglang.launch_server", "sglang.srt.entrypoints.http_server")
"""What a server is launched by: every image imports these, and the modules that the night changed."""
PROMPT, TOKENS = tuple(range(20, 60)), 8

FLAGS = (
    *("--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
    *("--dtype", "float32", "--mem-fraction-static", "0.1", "--max-total-tokens", "4096"),
    *("--max-running-requests", "8", "--disable-overlap-schedule", "--skip-server-warmup"),
    *("--grammar-backend", "none"),
)
ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",
    "SGLANG_HOST_IP": "127.0.0.1",
    "MC_FORCE_TCP": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    # The image holds no bytecode and cannot be written to: so a server's processes compile each module once, not each.
    "PYTHONPYCACHEPREFIX": "/tmp/bytecode",  # noqa: S108 - the container's own
}
"""What a server without a GPU needs; what the image sets itself comes first."""

_OWN_S = 30.0
"""Of a limit: left to the probe to say what it saw when its time is up."""
_NO_DRIVER = (
    *("libcuda.so", "libnvidia-ml.so", "NVIDIA driver", "CUDA driver", "No CUDA GPUs", "no CUDA-capable device"),
    *("0 active drivers", "No accelerator"),
)
"""In the words of a failure that a machine without a GPU explains: the loader's, torch's, Triton's and SGLang's."""
_SHOWN = 5

PASS, FAIL, TIMEOUT, CRASH, MISSING = (
    GuardOutcome.PASS,
    GuardOutcome.FAIL,
    GuardOutcome.TIMEOUT,
    GuardOutcome.CRASH,
    GuardOutcome.MISSING,
)
Said = tuple[GuardOutcome, str]


@dataclass(frozen=True)
class Times:
    """How long a probe may take."""

    imports_s: float = 420.0
    request_s: float = 600.0


@dataclass(frozen=True)
class Asked:
    """Which image, and what it must be."""

    image: ImageRef
    place: Place
    login: Login | None
    composition: Composition
    store: Repository
    make_model: str
    """The source of a module that makes the model of the one request."""
    root: str | None = None
    """The folder that the release is in, where the image stands on somebody else's; ours say it themselves."""
    times: Times = field(default_factory=Times)

    def label(self, name: str) -> str:
        """The value of a label of ours, by the end of its name."""
        return next((text for key, text in self.image.labels if key.endswith(f".patchstack.{name}")), "")


def nothing_seen(why: str) -> tuple[ImageCheck, ...]:
    """Every check is missing, for one reason."""
    return tuple(ImageCheck(look.value, MISSING, why) for look in Look)


def no_engine() -> tuple[ImageCheck, ...]:
    return nothing_seen(f"nobody could look inside the image: install {NEEDED}, and run `patchstack image-check`")


def check(engine: OpenEngine, asked: Asked, progress: Callable[[str], None]) -> tuple[ImageCheck, ...]:
    """Pull the image and look at it; the result has every `Look`, whatever happens."""
    progress(f"pulling {asked.image.digest[:19]} from {asked.place.name}")
    began = time.monotonic()
    try:
        image = engine.pull(asked.place, asked.image.digest, asked.login)
    except DigestDiffers as error:
        return _only(Look.DIGEST, FAIL, str(error), began)
    except MachineError as error:
        return _only(Look.DIGEST, MISSING, f"it could not be pulled: {_last_words(error)}", began)
    pulled = _timed(Look.DIGEST, began, (PASS, f"{engine.engine.name} pulled {asked.image.digest}"))
    progress("reading its files")
    files = _files(engine, image, asked)
    ran = []
    for look, limits, judged in (
        (Look.IMPORTS, Limits(asked.times.imports_s), _imports),
        (Look.REQUEST, Limits(asked.times.request_s), _request),
    ):
        progress(f"trying it: {look.value}")
        began = time.monotonic()
        try:
            said = judged(engine, image, asked, limits)
        except MachineError as error:
            said = MISSING, f"{engine.engine.name} could not run it: {_last_words(error)}"
        ran.append(_timed(look, began, said))
    engine.keep(image, f"{asked.composition.lane}-{asked.image.runtime}")
    return (pulled, *files, *ran)


def _only(look: Look, outcome: GuardOutcome, detail: str, began: float) -> tuple[ImageCheck, ...]:
    """One check's answer, without which there are no others."""
    others = nothing_seen("there is no image to look at")
    return (_timed(look, began, (outcome, detail)), *(other for other in others if other.name != look.value))


def _timed(look: Look, began: float, said: Said) -> ImageCheck:
    outcome, detail = said
    return ImageCheck(look.value, outcome, detail, round(time.monotonic() - began, 3))


def _last_words(error: MachineError) -> str:
    """What an engine said, without the long command line before it."""
    if isinstance(error, process.ProcessFailed):
        lines = error.completed.stderr.strip().splitlines()
        return lines[-1] if lines else f"it ended with {error.completed.returncode}"
    if isinstance(error, process.ProcessTimeout):
        return "it took too long"
    return str(error)


def _listed(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return f"{'; '.join(problems[:_SHOWN])}{more}"


# --- files and packages --------------------------------------------------------------------------------


def _files(engine: OpenEngine, image: str, asked: Asked) -> tuple[ImageCheck, ...]:
    began = time.monotonic()
    try:
        with engine.unstarted(image) as container:
            with engine.copied(container, f"/{FOLDER}") as (stream, ended):
                texts = read_texts(stream)
                ended()
            contents, root = said_of_itself(texts, asked)
            entries = asked.store.list_tree(asked.composition.tree)
            with engine.exported(container) as (stream, ended):
                inside = read_inside(stream, root, release_packages(entries))
                ended()
    except ImageError as error:
        return tuple(_timed(look, began, (FAIL, str(error))) for look in (Look.TREE, Look.PACKAGES))
    except MachineError as error:
        said = MISSING, f"{engine.engine.name} could not read its files: {_last_words(error)}"
        return tuple(_timed(look, began, said) for look in (Look.TREE, Look.PACKAGES))
    tree = _timed(Look.TREE, began, judge_tree(asked, inside, foreign=not contents.packages))
    return (tree, replace(_timed(Look.PACKAGES, began, judge_packages(contents, inside)), duration_s=0.0))


def said_of_itself(texts: dict[str, bytes], asked: Asked) -> tuple[Contents, str]:
    """Its contents, and the folder that its packages are in; `ImageError` when they are not those of its labels."""
    here = {path.partition("/")[2]: text for path, text in texts.items()}
    what = f"image {asked.image.digest}"
    inventory = INVENTORY.rpartition("/")[2]
    for needed in (CONTENTS, *((inventory,) if asked.root is None else ())):
        if needed not in here:
            raise ImageError(f"{what} has no /{FOLDER}/{needed}: it was not made by patchstack, or its layer is lost")
    if digest_of(here[CONTENTS]) != asked.label("contents"):
        raise ImageError(f"/{FOLDER}/{CONTENTS} in the image is not the one that its label names")
    contents = decode_contents(here[CONTENTS], what)
    if contents.tree != asked.composition.tree or contents.composition != asked.composition.commit:
        raise ImageError(
            f"the image says that it holds composition {contents.composition[:12]}, tree {contents.tree[:12]}, and "
            f"not {asked.composition.commit[:12]}, tree {asked.composition.tree[:12]}"
        )
    return contents, asked.root or decode_inventory(here[inventory], what).root


def judge_tree(asked: Asked, inside: Inside, *, foreign: bool) -> Said:
    """``foreign``: the image stands on somebody else's, in which compiled files are no fault of ours."""
    tree = asked.composition.tree
    natives = compiled_parts(inside, PROJECT)
    entries = asked.store.list_tree(tree)
    problems = tree_differences(entries, natives, inside, foreign=foreign)
    if problems:
        return FAIL, f"its files are not those of tree {tree[:12]}: {_listed(problems)}"
    held = sum(entry.path.startswith(PYTHON) and entry.path.removeprefix(PYTHON) in inside.files for entry in entries)
    others = len(inside.files) - held
    whose = "of the image that it stands on" if foreign else "of the release"
    more = f", and {others} compiled part{'s' if others != 1 else ''} {whose}" if others else ""
    return PASS, f"{held} files are those of tree {tree[:12]}{more}"


def judge_packages(contents: Contents, inside: Inside) -> Said:
    found = installed(inside)
    if not contents.packages:
        why = "the image that it stands on tells nobody what it holds; it has"
        return GuardOutcome.SKIPPED_BY_RULE, f"{why} {_counted(found)}"
    problems = package_differences(contents.packages, found)
    if problems:
        return FAIL, f"its packages are not those that it names: {_listed(problems)}"
    return PASS, f"it has the packages that it names: {_counted(found)}"


def _counted(found: Sequence[object]) -> str:
    kinds = [getattr(package, "kind", "") for package in found]
    return f"{kinds.count('python')} of Python and {kinds.count('debian')} of Debian"


# --- what runs inside ----------------------------------------------------------------------------------


def _probe(engine: OpenEngine, image: str, name: str, asked: dict[str, object], limits: Limits) -> Ran:
    argv = ["python3", "-c", probe.source(name)]
    return engine.run(image, argv, stdin=json.dumps(asked), limits=limits)


def answered(kind: type[Answer], ran: Ran) -> Answer | Said:
    """The probe's answer, or what became of it instead."""
    if ran.too_much:
        return CRASH, "it was ended, for it printed without end"
    if ran.late:
        return TIMEOUT, f"its time was up before it answered{_tail(ran.stderr)}"
    if ran.returncode != 0:
        memory = " (killed; out of memory, perhaps)" if ran.returncode == 137 else ""
        return CRASH, f"the probe ended with {ran.returncode}{memory}{_tail(ran.stderr)}"
    found = read_answer(kind, ran.stdout)
    if found is None:
        return CRASH, "what came out is not the probe's answer: something in the image wrote there, or ended the probe"
    return found


def _tail(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f": {lines[-1][:300]}" if lines else ""


def changed_modules(paths: Sequence[str]) -> tuple[str, ...]:
    """The modules of SGLang among the paths of a tree."""
    found = []
    for path in sorted(set(paths)):
        name = path.removeprefix(PYTHON).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if path.startswith(f"{PYTHON}{PROJECT}/") and path.endswith(".py") and name.replace(".", "").isidentifier():
            found.append(name)
    return tuple(found)


def _imports(engine: OpenEngine, image: str, asked: Asked, limits: Limits) -> Said:
    held = {entry.path for entry in asked.store.list_tree(asked.composition.tree)}
    touched = [path for topic in asked.composition.included for path in topic.paths if path in held]
    modules = tuple(dict.fromkeys((*MODULES, *changed_modules(touched))))
    given: dict[str, object] = {"modules": modules, "limit_s": limits.timeout_s - _OWN_S, "environment": ENVIRONMENT}
    found = answered(Imports, _probe(engine, image, "imports", given, limits))
    return judge_imports(modules, found, asked.image.runtime) if isinstance(found, Imports) else found


def judge_imports(modules: Sequence[str], found: Imports, runtime: str) -> Said:
    """What a machine without a GPU cannot import is named, and is no fault of an image for GPUs."""
    if [one.module for one in found.imports] != list(modules[: len(found.imports)]):
        return CRASH, "the probe answered for other modules than it was asked for"
    broken = [one for one in found.imports if one.error is not None]
    elsewhere = [one for one in broken if _elsewhere(one, runtime)]
    faults = [f"{one.module}: {_gist(one)}" for one in broken if one not in elsewhere]
    if faults:
        return FAIL, f"it does not import {_listed(faults)}"
    if len(found.imports) < len(modules):
        at = modules[len(found.imports)]
        if found.late:
            return TIMEOUT, f"it was still importing {at} when its time was up"
        return CRASH, f"importing {at} ended the process with {found.ended}{_tail(found.noise)}"
    if elsewhere:
        lacking = [f"{one.module} ({_gist(one)})" for one in elsewhere]
        count = f"{len(modules) - len(elsewhere)} of {len(modules)} modules import"
        return PASS, f"{count}; not without what this machine lacks: {_listed(lacking)}"
    return PASS, f"{len(modules)} modules import: {', '.join(MODULES)} and those that the night changed"


def _gist(one: Imported) -> str:
    """One line of an error: the one that names a driver, or the first."""
    lines = [line.strip(" -") for line in (one.error or "").splitlines() if line.strip()] or [""]
    telling = next((line for line in lines if any(words in line for words in _NO_DRIVER)), lines[0])
    return telling[:300]


def _elsewhere(one: Imported, runtime: str) -> bool:
    """Whether what is missing is a part of another machine, not of this image."""
    if runtime == CUDA:
        # `import sglang` itself needs no GPU; what does not work without one is not what an image can be blamed for.
        return one.module != PROJECT and any(words in (one.error or "") for words in _NO_DRIVER)
    # The image for machines without a GPU lacks what only a GPU can use; what a server needs it has.
    return one.module not in MODULES and one.missing is not None and one.missing.split(".")[0] != PROJECT


def _request(engine: OpenEngine, image: str, asked: Asked, limits: Limits) -> Said:
    if asked.image.runtime == CUDA:
        return GuardOutcome.SKIPPED_BY_RULE, "a server of this image needs a GPU: the lanes 1-gpu and 2-gpu start one"
    given: dict[str, object] = {
        "make_model": asked.make_model,
        "flags": FLAGS,
        "environment": ENVIRONMENT,
        "tokens": TOKENS,
        "prompt": PROMPT,
        "limit_s": limits.timeout_s - _OWN_S,
    }
    found = answered(Request, _probe(engine, image, "request", given, limits))
    return judge_request(found) if isinstance(found, Request) else found


_STAGES = {
    "model": "making a small model",
    "start": "starting",
    "request": "answering",
}


def judge_request(found: Request) -> Said:
    if found.stage == "answered":
        if found.status != 200 or len(found.tokens) != TOKENS:
            return FAIL, f"a server answered with {len(found.tokens)} tokens where {TOKENS} were asked for"
        return PASS, f"a server on a small model answered one request with {TOKENS} tokens"
    doing = _STAGES[found.stage]
    if found.late:
        return TIMEOUT, f"its time was up while it was {doing}{_tail(found.noise)}"
    if found.ended is not None:
        return FAIL, f"it ended with {found.ended} while it was {doing}{_tail(found.noise)}"
    return FAIL, f"the server answered {found.status or 'nothing'}: {found.words[:300]}"
