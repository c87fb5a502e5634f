"""Mutants: small diffs on a patch that bring a fault back, and every way in which one is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from patchstack.errors import ConfigError, PatchstackError
from patchstack.git import Repository
from patchstack.model import KillMark, Mutant, Topic
from patchstack.patches.lint import LintReport, lint
from patchstack.patches.mutants import with_mutants
from patchstack.patches.site import topic_of
from patchstack.patches.topics import build_topics

from .stack_bench import Bench, Files

NEW = "import os\n\nON = os.environ.get('SGLANG_X') != '0'\n\n\ndef pages(tokens):\n    return -(-tokens // 4)\n"
FLOOR = {"new.py": NEW.replace("-(-tokens // 4)", "tokens // 4")}
NEVER = {"new.py": NEW.replace("!= '0'", "== ''")}
KILLED = [KillMark("tests/regression/guard/test_it.py", 3, name) for name in ("floor", "never")]
REMAKE = (
    "bring the fault back in a work tree (`patchstack patch edit mend FOLDER`) and write"
    " `git -C FOLDER diff --full-index` over this file"
)
CHANGED = f"the patch was changed since this mutant was made: {REMAKE}"


def diff(bench: Bench, commit: str, files: Files) -> bytes:
    return bench.store.attempt_ok("diff", "--full-index", commit, bench.tree(files, bench.store.tree_of(commit))).stdout


def stack(bench: Bench, diffs: Mapping[str, Files], **more: str | None) -> str:
    """A patch of a new file on one release, and diffs of it as its mutants; its commit."""
    base = bench.releases.get("1.0") or bench.release("1.0", {"a.py": "x = 1\n"})
    listed = f"[{', '.join(f'{name}.patch' for name in diffs)}]"
    commit = bench.patch("mend", base, {"new.py": NEW, "a.py": "x = 2\n"}, **{"mutants": listed, **more})
    folder = bench.folder / "mend" / "mutants"
    folder.mkdir(exist_ok=True)
    for name, files in diffs.items():
        (folder / f"{name}.patch").write_bytes(diff(bench, commit, files))
    return commit


def topic(bench: Bench, slug: str = "mend", version: str = "1.0") -> Topic:
    patches = bench.read()
    patch = next(patch for patch in patches if patch.slug == slug)
    made = topic_of(bench.store, bench.releases[version], patches, patch, releases=bench.releases)
    assert isinstance(made, Topic)
    return with_mutants(bench.store, made, patch, version)


def problems(bench: Bench) -> dict[str, tuple[str, ...]]:
    return {mutant.name: mutant.problems for mutant in topic(bench).mutants}


def check(bench: Bench) -> LintReport:
    return lint(bench.read(), bench.releases, bench.store, root=bench.root, kills={"mend": KILLED})


def test_each_is_a_commit_on_the_patch_and_the_same_on_every_machine(bench: Bench, tmp_path: Path) -> None:
    stack(bench, {"floor": FLOOR, "never": NEVER})
    made = topic(bench)
    assert [(mutant.name, mutant.problems) for mutant in made.mutants] == [("floor", ()), ("never", ())]
    for mutant, files in zip(made.mutants, (FLOOR, NEVER), strict=True):
        assert mutant.commit is not None
        assert bench.store.parents(mutant.commit) == (made.commit,)
        assert bench.store.tree_of(mutant.commit) == mutant.tree
        assert bench.content(mutant.commit, "new.py") == files["new.py"]
    elsewhere = Bench(Repository.init(tmp_path / "elsewhere.git"), bench.root)
    elsewhere.release("1.0", {"a.py": "x = 1\n"})
    assert topic(elsewhere).mutants == made.mutants
    (planned,), _ = build_topics(bench.store, bench.releases["1.0"], bench.read(), optional_on=())
    assert planned == made
    check(bench).require_clean()


def test_a_mutant_stands_on_what_its_patch_requires_optional_or_not(bench: Bench) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    lower = bench.patch("lower", base, {"low.py": "y = 1  # SGLANG_X\n"}, title="pd: lower")
    header = {"requires": "[lower]", "mutants": "[gone.patch]", "title": "pd: upper"}
    upper = bench.patch("upper", base, {"low.py": "y = 2  # SGLANG_X\n"}, parent=lower, optional=True, **header)
    (bench.folder / "upper" / "mutants").mkdir()
    (bench.folder / "upper" / "mutants" / "gone.patch").write_bytes(diff(bench, upper, {"low.py": "y = 3\n"}))
    (mutant,) = topic(bench, "upper").mutants
    assert mutant.commit is not None
    assert {path: bench.content(mutant.commit, path) for path in ("a.py", "low.py")} == {
        "a.py": "x = 1\n",
        "low.py": "y = 3\n",
    }


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        ("[../../../etc/passwd.patch]", "mutants.0: '../../../etc/passwd.patch' leads out of its folder"),
        ("[/etc/passwd.patch]", "mutants.0: '/etc/passwd.patch' leads out of its folder"),
        ("[sub/floor.patch]", "mutants.0: 'sub/floor.patch' is no name of a mutant"),
        ("[floor]", "mutants.0: 'floor' is no name of a mutant"),
        ("['-x.patch']", "mutants.0: '-x.patch' is no name of a mutant"),
        ("['a b.patch']", "mutants.0: 'a b.patch' is no name of a mutant"),
        ("[floor.patch, floor.patch]", "mutants: floor.patch stands twice"),
    ],
)
def test_a_name_that_is_none_is_refused(bench: Bench, listed: str, problem: str) -> None:
    stack(bench, {}, mutants=listed)
    with pytest.raises(ConfigError) as caught:
        bench.read()
    (said,) = bench.problems(caught.value)
    assert said.startswith(f"mend/patch.md:9: {problem}")


def rewritten(bench: Bench, change: Callable[[bytes], bytes]) -> None:
    path = bench.folder / "mend" / "mutants" / "floor.patch"
    path.write_bytes(change(path.read_bytes()))


def test_what_is_no_mutant_says_why_and_how_to_make_one(bench: Bench) -> None:
    commit = stack(bench, {"floor": FLOOR})
    path = bench.folder / "mend" / "mutants" / "floor.patch"
    good = path.read_bytes()

    def said(data: bytes) -> tuple[str, ...]:
        path.write_bytes(data)
        return problems(bench)["floor"]

    bench.release("2.0", {"a.py": "x = 1\n", "b.py": "z = 1\n"})
    beside = bench.commit(commit, {"b.py": "z = 1\n"}, "beside")
    assert said(good) == ()
    assert said(b"") == (f"1: (diff): it is empty: {REMAKE}",)
    assert said(b"floor the pages\n") == (f"1: (diff): it changes nothing: remove the patch from the series: {REMAKE}",)
    assert said(good.replace(b"index ", b"undex ")) == (
        f"1: new.py: it has no `index` line: export it again: {REMAKE}",
    )
    assert said(diff(bench, beside, {"b.py": "z = 2\n"})) == (
        "1: b.py: 1.0..1.0.patch does not touch it: change only what the patch brings",
    )
    assert said(diff(bench, commit, {"c.py": "w = 1\n"})) == (
        "1: c.py: 1.0..1.0.patch does not touch it: change only what the patch brings",
    )
    assert said(diff(bench, commit, {"new.py": "def pages(:\n"})) == (
        "1: new.py: with the mutant it is no Python (invalid syntax (<unknown>, line 1)): no guard can kill it so",
    )
    assert said(good.replace(b"-    return -(", b"-    return (")) == (
        f"1: new.py hunk 1 (line 4, in pages): the lines that it changes are not there: {CHANGED}",
    )
    assert said(diff(bench, commit, {"new.py": NEW + "# \0\n"})) == (
        "1: new.py: it is no text: a mutant changes sources only",
    )


def test_the_same_mutant_twice_and_one_that_is_a_link(bench: Bench, tmp_path: Path) -> None:
    stack(bench, {"floor": FLOOR, "again": FLOOR, "link": NEVER, "gone": NEVER})
    folder = bench.folder / "mend" / "mutants"
    (tmp_path / "elsewhere").write_bytes((folder / "link.patch").read_bytes())
    (folder / "link.patch").unlink()
    (folder / "link.patch").symlink_to(tmp_path / "elsewhere")
    (folder / "gone.patch").unlink()
    absent = ("1: (the whole file): it is not there: add it, or take its name away",)
    assert problems(bench) == {
        "floor": (),
        "again": ("1: (diff): it makes the same tree as mutant floor: remove it, or make it another",),
        "link": absent,
        "gone": absent,
    }


TWICE = "def one(x):\n    y = x\n    y += 1\n    return y\n\n\ndef two(x):\n    y = x\n    y += 1\n    return y\n"


def test_a_patch_that_grew_keeps_a_mutant_only_where_its_lines_stand_once(bench: Bench) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    header = {"mutants": "[floor.patch, two.patch]"}
    switch = "# SGLANG_X\n"
    commit = bench.patch("mend", base, {"new.py": NEW, "twice.py": switch + TWICE}, **header)
    folder = bench.folder / "mend" / "mutants"
    folder.mkdir()
    (folder / "floor.patch").write_bytes(diff(bench, commit, FLOOR))
    hunk = b"@@ -9,3 +9,3 @@ def two(x):\n     y = x\n-    y += 1\n+    y += 2\n     return y\n"
    head = diff(bench, commit, {"twice.py": "other\n"}).partition(b"@@")[0]
    (folder / "two.patch").write_bytes(head + hunk)
    assert problems(bench) == {"floor": (), "two": ()}
    two = topic(bench).mutants[1]
    assert two.commit is not None
    assert bench.content(two.commit, "twice.py").endswith("y += 2\n    return y\n")

    grown = {"new.py": "# one more line\n" + NEW, "twice.py": "# one more line\n" + switch + TWICE}
    bench.patch("mend", base, grown, **header)
    assert problems(bench) == {
        "floor": (),
        "two": (f"1: twice.py hunk 1: its lines stand in 2 places, none at line 9: {CHANGED}",),
    }


def test_lint_names_each_problem_by_its_file(bench: Bench) -> None:
    stack(bench, {"floor": FLOOR, "never": NEVER, "lonely": {"new.py": NEW.replace("4", "5")}})
    rewritten(bench, lambda data: data.replace(b"-    return -(", b"-    return ("))
    report = lint(
        bench.read(),
        bench.releases,
        bench.store,
        root=bench.root,
        kills={"mend": [*KILLED, KillMark("tests/regression/guard/test_it.py", 7, "ghost")]},
    )
    with pytest.raises(PatchstackError) as caught:
        report.require_clean()
    assert bench.problems(caught.value) == [
        (
            'tests/regression/guard/test_it.py:7: kills("ghost"): the mutants of mend are floor, never, lonely:'
            " mend the name, or list it there"
        ),
        'mend/patch.md:9: mutants: no guard kills lonely: mark one with kills("lonely")',
        (
            "mend/mutants/floor.patch:1: new.py hunk 1 (line 4, in pages): the lines that it changes are not there:"
            f" {CHANGED}"
        ),
    ]


def test_a_guard_cannot_kill_a_mutant_of_a_patch_that_has_none(bench: Bench) -> None:
    stack(bench, {})
    (said,) = lint(bench.read(), bench.releases, bench.store, root=bench.root, kills={"mend": KILLED[:1]}).problems
    assert said == (
        'tests/regression/guard/test_it.py:3: kills("floor"): mend has no mutant: mend the name, or list it there'
    )


def test_on_another_release_a_mutant_may_be_missing_and_the_patch_composes(bench: Bench) -> None:
    between = "\n" * 8
    cut = bench.release("1.0", {"a.py": f"def f():\n    return 1\n{between}y = 1\n"})
    bench.release("2.0", {"a.py": f"def f():\n    return 1\n{between}y = 7\n"})
    mended = f"def f():\n    return 2  # SGLANG_X\n{between}"
    commit = bench.patch("mend", cut, {"a.py": f"{mended}y = 1\n"}, up_to="2.0", mutants="[old.patch]")
    (bench.folder / "mend" / "mutants").mkdir()
    old = diff(bench, commit, {"a.py": f"{mended}y = 0\n"})
    (bench.folder / "mend" / "mutants" / "old.patch").write_bytes(old)
    assert [mutant.problems for mutant in topic(bench).mutants] == [()]
    (mutant,) = topic(bench, version="2.0").mutants
    assert mutant == Mutant("old", None, None, mutant.problems)
    assert mutant.problems[0].endswith(CHANGED)
