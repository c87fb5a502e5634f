"""The rules of the house, held by tests: who imports whom, who starts programs, how long a module is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "scripts" / "patchstack"
IN_IMAGES = PACKAGE / "image" / "probe"
"""What runs inside an image, where there is nobody else to start programs; only its first module runs here."""
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != IN_IMAGES or path.name == "__init__.py")
STAGES = {"adoption", "upstream", "patches", "pulls", "compose", "image", "regress", "release", "report"}
MEETING_PLACES = {"cli.py", "console.py", "nightly.py"}
LONGEST = 600


def imported(module: Path) -> set[str]:
    """Every module name that ``module`` imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def relative(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_an_import_goes_to_the_frame_or_stays_in_its_stage(module: Path) -> None:
    if relative(module) in MEETING_PLACES or relative(module).startswith(("verbs/", "commands/")):
        return
    own = relative(module).split("/")[0]
    stages = {name.split(".")[1] for name in imported(module) if name.startswith("patchstack.")} & STAGES
    assert stages <= {own}


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_programs_are_started_in_two_places(module: Path) -> None:
    names = imported(module)
    if relative(module) != "process.py":
        assert "subprocess" not in names
    if relative(module) != "git.py":
        assert not {name for name in names if name == "git" or name.startswith("git.")}


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_github_is_asked_in_one_place(module: Path) -> None:
    if relative(module) not in {"github.py", "patience.py"}:
        assert not {name for name in imported(module) if name.split(".")[0] == "github"}


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_http_is_spoken_to_github_and_to_registries_in_one_place_each(module: Path) -> None:
    if relative(module) not in {"github.py", "patience.py", "image/wire.py"}:
        assert not {name for name in imported(module) if name.split(".")[0] in {"oras", "requests", "urllib3"}}


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_a_module_is_one_noun(module: Path) -> None:
    assert module.name not in {"utils.py", "helpers.py", "common.py", "misc.py"}
    assert len(module.read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_library_code_neither_prints_nor_exits(module: Path) -> None:
    if relative(module) in {"cli.py", "regress/enclose.py"}:  # the latter is a program that another Python runs
        return
    calls = [node.func for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call)]
    assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}
    attributes = [call for call in calls if isinstance(call, ast.Attribute)]
    exits = {call.attr for call in attributes if ast.unparse(call.value) in {"sys", "os"}}
    assert not exits & {"exit", "_exit", "abort", "system", "popen"}


HEAVY = ("git", "github", "jinja2", "oras", "requests", "rich", "unidiff", "yaml", "pydantic")


@pytest.mark.parametrize(
    ("argv", "allowed"),
    [
        (["--help"], []),
        (["--version"], []),
        (["nightly", "--help"], []),
        (["validate", "--print-schema"], ["pydantic", "yaml"]),
    ],
    ids=" ".join,
)
def test_heavy_libraries_are_imported_by_the_verb_that_needs_them(argv: list[str], allowed: list[str]) -> None:
    code = f"""
import sys
from patchstack import cli
sys.argv = ["patchstack", *{argv!r}]
try:
    cli.main()
except SystemExit as end:
    print("\\n##", end.code, *[name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, *loaded = done.stdout.splitlines()[-1].removeprefix("## ").split()
    assert status == "0"
    assert set(loaded) <= set(allowed)
