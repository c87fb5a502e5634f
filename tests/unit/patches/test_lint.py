"""Lint: what must hold of a stack, and how each fault is named."""

from __future__ import annotations

import pytest

from patchstack.errors import CompositionError, ConfigError, StaleFiles
from patchstack.patches.lint import LintReport, lint

from .stack_bench import PROSE, Bench

HOOK = "import os\n\non = os.environ.get('SGLANG_X') != '0'\n"


def stack(bench: Bench, **header: str | None) -> None:
    """One good patch on one release."""
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    bench.patch("mend", base, {"a.py": "x = 2\n", "hook.py": HOOK}, **header)


def run(bench: Bench) -> LintReport:
    return lint(bench.read(), bench.releases, bench.store, root=bench.root)


def problems(bench: Bench) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        run(bench).require_clean()
    return bench.problems(caught.value)


def test_a_good_stack_is_clean_and_says_what_was_tried(bench: Bench) -> None:
    stack(bench)
    report = run(bench)
    report.require_clean()
    assert report == LintReport((), (), (), (f"{bench.folder}/mend/1.0..1.0.patch applies on 1.0",))


def test_what_a_patch_names_must_be_there(bench: Bench) -> None:
    stack(bench, guards="[tests/regression/ghost/, tests/regression/empty/]", mutants="[gone.patch]")
    empty = bench.root / "tests" / "regression" / "empty"
    empty.mkdir()
    (empty / "test_nothing.py").write_text("# to be written\n")
    mutants = bench.folder / "mend" / "mutants"
    mutants.mkdir()
    (mutants / "left.patch").write_text("x")
    (bench.folder / "mend" / "notes.txt").write_text("x")
    assert problems(bench) == [
        "mend/patch.md:8: guards: tests/regression/ghost/: it is not there: write the guard",
        "mend/patch.md:8: guards: tests/regression/empty/: there is no test in it: write a function test_…",
        "mend/patch.md:9: mutants: gone.patch is not in mutants/: add it, or take its name away",
        "mend/patch.md:9: mutants: mutants/left.patch is not listed: list it, or remove the file",
        "mend/notes.txt:1: (file name): it is no part of a patch: remove it",
    ]


def test_the_prose_has_its_headings(bench: Bench) -> None:
    stack(bench)
    path = bench.folder / "mend" / "patch.md"
    prose = """\
## Cause

A fault.

## Symptom

    ## Log lines

```
## Cure
```

## Switches

## Removal

Soon.

## Removal

Now.

## Thanks

To all.
"""
    path.write_text(path.read_text().replace(PROSE, prose))
    assert problems(bench) == [
        "mend/patch.md:13: ## Cure: the heading is missing: write that section",
        "mend/patch.md:13: ## Log lines: the heading is missing: write that section",
        "mend/patch.md:25: ## Switches: there is nothing below it: write it",
        "mend/patch.md:31: ## Removal: it stands twice: keep one",
        (
            "mend/patch.md:35: ## Thanks: no such heading is known: use Symptom, Cause, Cure, Switches, Log lines,"
            " Removal, and ### below them"
        ),
        "mend/patch.md:13: ## Cause: not in order: write Symptom, Cause, Cure, Switches, Log lines, Removal",
    ]


def test_the_title_is_the_subject_and_the_switch_is_in_the_diff(bench: Bench) -> None:
    stack(bench, kill_switch='"SGLANG_XY=0"')
    path = bench.folder / "mend" / "patch.md"
    path.write_text(path.read_text().replace("title: 'pd: mend it'", "title: 'pd: another'"))
    assert problems(bench) == [
        (
            "mend/1.0..1.0.patch:1: Subject: it is 'pd: mend it', and the title in patch.md is 'pd: another':"
            " give both the same"
        ),
        (
            "mend/patch.md:10: kill-switch: no line that 1.0..1.0.patch adds names SGLANG_XY: read it in the patch, or"
            " mend the name"
        ),
    ]


def test_a_patch_without_a_diff_or_with_one_for_no_release_at_hand_is_named(bench: Bench) -> None:
    stack(bench, bases='{">=1": needed}')
    bench.release("2.0", {"a.py": "x = 1\n"})
    elsewhere = bench.release("9.0", {"a.py": "x = 1\n"})
    bench.patch("later", elsewhere, {"a.py": "x = 2  # SGLANG_X\n"})
    del bench.releases["9.0"]
    (bench.folder / "bare").mkdir()
    bench.write("bare", (bench.folder / "mend" / "patch.md").read_text())
    assert problems(bench) == [
        "mend/patch.md:7: bases: it is for 2.0, and no diff is: add one, or narrow `bases`",
        "later/9.0..9.0.patch:1: Cut-On: 9.0 is not at hand (only 1.0, 2.0): add a lane of that release",
        "bare/patch.md:1: (files): there is no diff: make one with `patchstack patch edit bare`",
    ]


def test_what_the_patch_writes_must_be_python(bench: Bench) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    bench.patch("mend", base, {"a.py": "x = = 2  # SGLANG_X\n"})
    (problem,) = problems(bench)
    assert problem.startswith("mend/1.0..1.0.patch:1: a.py: with the patch it is no Python (invalid syntax")


def test_a_compiled_file_is_no_part_of_a_patch(bench: Bench) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    bench.patch("mend", base, {"hook.py": HOOK, "_core.so": "\x7fELF\0"})
    assert problems(bench) == [
        "mend/1.0..1.0.patch:1: _core.so: it is no text: a patch holds sources only, export it without that"
    ]


def test_every_patch_that_does_not_apply_is_named_with_exit_code_4(bench: Bench) -> None:
    cut = bench.release("1.0", {"a.py": "x = 1\n", "b.py": "y = 1\n", "c.py": "z = 1\n"})
    bench.patch("one", cut, {"a.py": "x = 2  # SGLANG_X\n"}, up_to="2.0")
    bench.patch("two", cut, {"b.py": "y = 2  # SGLANG_X\n"}, up_to="2.0")
    bench.patch("three", cut, {"c.py": "z = 2  # SGLANG_X\n"}, up_to="2.0")
    bench.patch("four", cut, {"d.py": "z = 2  # SGLANG_X\n"}, requires="[one]", up_to="2.0")
    bench.release("2.0", {"a.py": "x = 7\n", "b.py": "y = 7\n", "c.py": "z = 1\n"})
    report = run(bench)
    assert [line.split()[:3] for refusal in report.refusals for line in refusal.splitlines()[:1]] == [
        ["required", "patch", "`one`"],
        ["required", "patch", "`two`"],
    ]
    assert [line.removeprefix(f"{bench.folder}/") for line in report.checked] == [
        "one/1.0..2.0.patch applies on 1.0",
        "two/1.0..2.0.patch applies on 1.0",
        "three/1.0..2.0.patch applies on 1.0",
        "four/1.0..2.0.patch applies on 1.0",
        "three/1.0..2.0.patch applies on 2.0",
    ]
    with pytest.raises(CompositionError) as caught:
        report.require_clean()
    assert caught.value.exit_code == 4


def test_a_release_that_has_the_patch_is_no_base_of_it(bench: Bench) -> None:
    cut = bench.release("1.0", {"a.py": "x = 1\n"})
    bench.patch("mend", cut, {"a.py": "x = 2  # SGLANG_X\n"}, up_to="2.0")
    bench.release("2.0", {"a.py": "x = 2  # SGLANG_X\n"})
    assert problems(bench) == [
        "mend/patch.md:7: bases: 2.0 has all of it already: narrow `bases` in patches/mend/patch.md"
    ]


STALE = {
    "a shortened index line": lambda data: data.replace(
        b"index 0000000000000000000000000000000000000000", b"index 0000000"
    ),
    "a deleted hunk": lambda data: data[: data.index(b"@@ -17,4")] + data[data.index(b"diff --git a/hook.py") :],
    "a line changed by hand": lambda data: data.replace(b"+x = 2", b"+x = 3  # SGLANG_X"),
    "a signature": lambda data: data + b"-- \n2.39.5\n\n",
    "a [PATCH] in the zero commit line": lambda data: data.replace(b"From 0000", b"From 1234", 1),
    "a diffstat": lambda data: data.replace(b"\ndiff --git", b"---\n a.py | 2 +-\n\ndiff --git", 1),
}


@pytest.mark.parametrize("change", STALE)
def test_a_file_that_an_export_would_change_is_stale_with_exit_code_7(bench: Bench, change: str) -> None:
    lines = "x = 1\n" + "\n" * 18
    base = bench.release("1.0", {"a.py": lines + "y = 1\n"})
    bench.patch("mend", base, {"a.py": lines.replace("1", "2") + "y = 2\n", "hook.py": HOOK})
    path = bench.folder / "mend" / "1.0..1.0.patch"
    changed = STALE[change](path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    with pytest.raises(StaleFiles) as caught:
        run(bench).require_clean()
    assert caught.value.exit_code == 7
    assert bench.problems(caught.value) == [
        "not as an export would write it; run these and commit what they change:",
        "  mend/1.0..1.0.patch: patchstack patch export mend",
    ]
