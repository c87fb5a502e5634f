"""`patch import` from a fork made by git alone to files that validate, and compose to what the branch was."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from patchstack.cli import main_group
from patchstack.errors import CompositionError, ConfigError, MachineError, UsageError
from patchstack.model import Composition
from patchstack.patches.series import read_series
from patchstack.verbs import patch_import as verb
from patchstack.verbs.author import validate
from patchstack.verbs.patch_import import BranchImport, import_branch
from patchstack.verbs.plan import composed
from patchstack.workplace import Workplace

from .fork_bench import NEW, RELEASE, SOURCES, TEN, A, B, ForkBench, edit, release, workplace

CONFIG = f"""\
schema: 1
fork: {{repo: acme/sglang, main: patches}}
lanes:
  production:
    upstream: {{pypi: sglang=={RELEASE}}}
    branch: deploy
channels:
  nightly: {{needs: [cpu]}}
"""


@pytest.fixture
def bench(tmp_path: Path) -> ForkBench:
    made = ForkBench(tmp_path)
    made.work.mkdir()
    (made.work / "deploy.yaml").write_text(CONFIG)
    (made.work / "patches").mkdir()
    (made.work / "patches" / "series").write_text("# in the order in which they are merged\n")
    made.guards()
    return made


def work(bench: ForkBench) -> Workplace:
    return workplace(bench.work, local=True)


def bring_in(bench: ForkBench, revisions: str = f"v{RELEASE}..deploy", *, dry_run: bool = False) -> BranchImport:
    return import_branch(work(bench), revisions, url=str(bench.path), dry_run=dry_run)


def gather(bench: ForkBench) -> None:
    """Five commits: one, a merged pull request, one on the first, one of docs alone, one with docs and a new file."""
    bench.commit("deploy", "pd: one\n\nWhy.", {A: edit(TEN, 1, "ONE")}, onto=f"v{RELEASE}")
    bench.pull(7, "fix/b", f"v{RELEASE}", {B: edit(TEN, 5, "FIVE")}, title="b: five")
    bench.merge("deploy", "fix/b", "Merge pull request #7 from acme/fix/b\n\nb: five")
    bench.commit("deploy", "pd: on one", {A: edit(bench.text("deploy", A), 1, "ONE AGAIN")})
    bench.commit("deploy", "docs", {"docs/x.md": "y\n"})
    bench.commit("deploy", "new", {NEW: TEN, "docs/new.md": "z\n"}, author="Zoë")


def test_a_branch_becomes_patches_that_compose_to_it(bench: ForkBench) -> None:
    gather(bench)
    before = bench.refs()
    found = bring_in(bench)
    assert (bench.work / "patches" / "series").read_text() == (
        "# in the order in which they are merged\npd-one\nb-five\npd-on-one\nnew\n"
    )
    patches = read_series(bench.work / "patches")
    assert [(patch.slug, patch.requires, patch.author) for patch in patches] == [
        ("pd-one", (), "Ann <ann@example.com>"),
        ("b-five", (), "Bob <bob@example.com>"),
        ("pd-on-one", ("pd-one",), "Ann <ann@example.com>"),
        ("new", (), "Zoë <unknown@localhost>"),
    ]
    assert [item.title for item in found.turned.not_imported] == ["docs"]
    assert found.turned.imported[3].left_off == ("docs/new.md",)
    assert {name for name in bench.tree() if name not in ("deploy.yaml", "tests/regression/bed/test_bed.py")} == set(
        found.files
    )
    # What the release generates and the branch's repository does not hold is the one difference, and is said.
    assert [(item.path, "was cut from" in item.why) for item in found.differences] == [
        ("python/sglang/_version.py", True)
    ]
    assert bench.refs() == before
    validate(bench.work / "deploy.yaml")
    place = work(bench)
    with place.open_run() as run:
        made: Composition = composed(place, run)
    store = place.store()
    assert [topic.name for topic in made.included] == ["pd-one", "b-five", "pd-on-one", "new"]
    for path in (A, B, NEW):
        assert store.read_blob(f"{made.commit}:{path}") == bench.text("deploy", path).encode()


def test_a_dry_run_says_the_same_and_writes_nothing(bench: ForkBench) -> None:
    gather(bench)
    before = bench.tree()
    said = bring_in(bench, dry_run=True)
    assert bench.tree() == before
    assert bring_in(bench) == said


def test_the_command_line_says_what_it_made_and_what_not(bench: ForkBench) -> None:
    gather(bench)
    config = str(bench.work / "deploy.yaml")
    argv = ["--config", config, "--local", "--offline", "patch", "import", f"v{RELEASE}..deploy", "--repo"]
    done = CliRunner().invoke(main_group, [*argv, str(bench.path), "--dry-run"])
    assert done.exit_code == 0, done.output
    begin, *_, new = bench.git("rev-list", "--first-parent", "--reverse", f"v{RELEASE}^..deploy").splitlines()
    first, *middle, differing, path = done.stdout.splitlines()
    assert first == f"{begin[:12]}..{new[:12]} on sglang=={RELEASE}: 4 patches would be written"
    assert [line.split(": ")[0].strip() for line in middle] == ["pd-one", "b-five", "pd-on-one", "new", "not imported"]
    assert middle[2].endswith("'pd: on one', requires pd-one")
    assert middle[3] == f"  new: {new[:12]} 'new'; not carried: docs/new.md"
    assert differing == "the composed stack differs from the branch in 1 path that the release carries:"
    assert path.startswith("  python/sglang/_version.py: what the branch was cut from")


def test_a_second_import_is_refused_and_more_is_added_behind(bench: ForkBench) -> None:
    gather(bench)
    tip = bench.git("rev-parse", "deploy")
    bring_in(bench)
    before = bench.tree()
    bench.commit("deploy", "later", {B: edit(bench.text("deploy", B), 10, "TEN")})
    bench.commit("deploy", "on one, too", {A: edit(bench.text("deploy", A), 2, "TWO")})
    with pytest.raises(UsageError, match="would be patch pd-one, and patches/ has one of that name"):
        bring_in(bench)
    assert bench.tree() == before
    assert [patch.requires for patch in bring_in(bench, f"{tip}..deploy").turned.imported] == [(), ("pd-on-one",)]
    assert [patch.slug for patch in read_series(bench.work / "patches")][-2:] == ["later", "on-one-too"]


def test_a_conflict_writes_nothing(bench: ForkBench) -> None:
    gather(bench)
    release("0.5.13", {**SOURCES, A: edit(TEN, 1, "otherwise")})
    config = bench.work / "deploy.yaml"
    config.write_text(CONFIG.replace(f"=={RELEASE}", "==0.5.13"))
    before = bench.tree()
    with pytest.raises(CompositionError, match=rf"'pd: one' conflicts with sglang==0.5.13 itself in {A}; nothing was"):
        bring_in(bench)
    assert bench.tree() == before


def test_a_path_that_the_series_changes_too_is_said(bench: ForkBench) -> None:
    bench.commit("first", "far: ten", {A: edit(TEN, 10, "TEN")}, onto=f"v{RELEASE}")
    bring_in(bench, f"v{RELEASE}..first")
    gather(bench)
    assert [(item.path, item.why) for item in bring_in(bench).differences if item.path == A] == [
        (A, "patch far-ten of the series changes it")
    ]


def test_what_cannot_be_moved_into_place_takes_back_what_was(bench: ForkBench, monkeypatch: pytest.MonkeyPatch) -> None:
    gather(bench)
    before = bench.tree()

    def full(path: Path, data: bytes | str) -> None:
        raise MachineError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(verb, "write_whole", full)
        with pytest.raises(MachineError):
            bring_in(bench)
    assert bench.tree() == before
    assert not list(bench.work.glob(".patch-import-*"))
    (bench.work / "tests" / "regression" / "new").mkdir()
    with pytest.raises(UsageError, match="tests/regression/new: it is there already, nothing was written"):
        bring_in(bench)
    assert bench.tree() == before


@pytest.mark.parametrize(
    ("revisions", "said"),
    [
        ("deploy", "is no range"),
        ("..deploy", "is no range"),
        ("a...b", "is no range"),
        (f"v{RELEASE}..--all", "is no branch, tag or full commit id"),
        (f"v{RELEASE}..de*", "is no branch, tag or full commit id"),
        (f"v{RELEASE}..nothing", "'nothing' is no branch and no tag there"),
        (f"deploy..v{RELEASE}", "adds no commit"),
        ("both..deploy", "both a branch and a tag"),
    ],
)
def test_a_range_that_names_nothing_is_refused(bench: ForkBench, revisions: str, said: str) -> None:
    gather(bench)
    bench.git("tag", "both", "main")
    bench.git("branch", "both", "deploy")
    before = bench.tree()
    with pytest.raises(UsageError, match=said):
        bring_in(bench, revisions)
    assert bench.tree() == before


def test_a_branch_of_docs_alone_is_no_patch(bench: ForkBench) -> None:
    bench.commit("deploy", "docs", {"docs/x.md": "y\n"}, onto=f"v{RELEASE}")
    before = bench.tree()
    found = bring_in(bench)
    assert (found.turned.imported, found.files, bench.tree()) == ((), (), before)


def test_imported_patches_validate_and_are_not_done(bench: ForkBench) -> None:
    """`lint` names each key, each section and the guard that a person has to write."""
    from patchstack.verbs.author import lint

    gather(bench)
    bring_in(bench)
    marks = [
        f"<!-- {name}: generated by `make schema` -->\n<!-- end of {name} -->\n" for name in ("patches", "exit-codes")
    ]
    (bench.work / "README.md").write_text("".join(marks))
    with pytest.raises(ConfigError) as error:
        lint(work(bench))
    mine = [problem for problem in error.value.problems if "/pd-one/" in problem or "/pd_one" in problem]
    said = "\n".join(mine)
    for part in (
        "owner",
        "upstream-status",
        "kill-switch",
        "remove-when",
        "(prose)",
        "test_pd_one.py passes on no tree",
    ):
        assert part in said
