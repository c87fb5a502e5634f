"""What `review` says of patch pull requests: real clones, real patches on a small release, both sides composed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.patches.stack_bench import PROSE
from tests.unit.verbs.fork_bench import A, B
from tests.unit.verbs.review_bench import CONFIG, EDGE, SOURCES, TEN, ReviewDesk, edit, stack_of

from patchstack import verdict
from patchstack.errors import LaneUnavailable, UsageError
from patchstack.verdict import (
    Candidates,
    Change,
    Guard,
    LaneReview,
    LeftOutPatch,
    Lint,
    PatchChange,
    PatchRefusal,
    PatchVerdict,
    Stack,
    StaleFile,
    Stopped,
)

GUARDS = (Guard(path="tests/regression/guard/", there=True, tests=1),)
DIFF = "1.0..1.0.patch"


@pytest.fixture
def desk(tmp_path: Path) -> ReviewDesk:
    return ReviewDesk(tmp_path)


def told(found: PatchVerdict) -> list[str]:
    """One line a patch: ``one changed in a, b``."""
    return [f"{patch.slug} {patch.change}{' moved' if patch.moved else ''}" for patch in found.patches]


def test_nothing_has_changed(desk: ReviewDesk) -> None:
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    main = desk.commit()
    head = desk.commit("docs only")
    found = desk.review(main)
    after = stack_of(found)
    assert found == PatchVerdict(
        number=7,
        head=head,
        base=main,
        lanes=(LaneReview(lane="production", before=after, after=after),),
        patches=(PatchChange(slug="one", title="pd: one", change=Change.UNCHANGED),),
        lint=Lint(tried_on=("1.0",)),
        candidates=Candidates(why="lane production: the stack is as it was, so they fare as they did"),
    )
    assert (found.exit_code, after.base, after.patches) == (0, "sglang==1.0", ("one",))
    assert after.tree == desk.work().store().tree_of(after.commit or "")


def test_changed_new_gone_and_moved(desk: ReviewDesk) -> None:
    for number, slug in enumerate(("one", "two", "three", "four"), 1):
        desk.patch(slug, {A: edit(TEN, 3 * number - 2, slug.upper())})
    main = desk.commit()
    desk.patch("one", {A: edit(TEN, 1, "UNO")})
    desk.remove("two")
    desk.patch("five", {B: edit(TEN, 5, "FIVE")})
    desk.bench.series("four", "one", "three", "five")
    desk.commit()

    found = desk.review(main)

    assert found.exit_code == 0
    assert told(found) == ["four unchanged moved", "one changed", "three unchanged", "five new", "two gone"]
    one = found.patches[1]
    assert (one.files, one.on_lane, one.guards) == ((DIFF,), "production", GUARDS)
    assert [line.strip() for line in one.range_diff if "ONE" in line or "UNO" in line] == ["-+ONE = 1", "++UNO = 1"]
    assert found.patches[3].guards == GUARDS
    assert found.patches[4] == PatchChange(slug="two", title="pd: two", change=Change.GONE)
    (lane,) = found.lanes
    assert lane.before is not None
    assert lane.before.patches == ("one", "two", "three", "four")
    assert stack_of(found).patches == ("four", "one", "three", "five")
    assert lane.before.tree != stack_of(found).tree


def test_what_is_written_about_a_patch_counts_and_has_no_range_diff(desk: ReviewDesk) -> None:
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    main = desk.commit()
    desk.replace("patches/one/patch.md", "It fails.", "It hangs.")
    desk.commit()
    found = desk.review(main)
    assert found.patches == (
        PatchChange(slug="one", title="pd: one", change=Change.CHANGED, files=("patch.md",), guards=GUARDS),
    )


def test_a_patch_that_another_stands_on(desk: ReviewDesk) -> None:
    """The upper ones were cut on what the lower one was."""
    one = desk.patch("one", {A: edit(TEN, 1, "ONE")})
    two = desk.patch("two", {A: edit(edit(TEN, 1, "ONE"), 9, "TWO")}, on=one, requires="[one]")
    desk.patch("three", {B: edit(TEN, 1, "THREE")}, on=two, requires="[two]")
    desk.patch("beside", {B: edit(TEN, 9, "BESIDE")})
    main = desk.commit()
    desk.patch("one", {A: edit(TEN, 1, "UNO")})
    desk.commit()

    found = desk.review(main)

    assert found.exit_code == 4
    blobs = [
        desk.bench.store.run("rev-parse", f"{desk.bench.tree({A: edit(TEN, 1, word)})}:{A}") for word in ("ONE", "UNO")
    ]
    assert stack_of(found) == Stack(
        base="sglang==1.0",
        refusals=(
            PatchRefusal(
                patch="two",
                optional=False,
                files=(A,),
                conflicts_with=("one",),
                holds_up=("three",),
                said=(
                    "required patch `two` (1.0..1.0.patch) does not apply on 1.0, on which it was cut:",
                    (
                        f"  {A}: it was cut on blob {blobs[0][:12]}, and here it is {blobs[1][:12]}: "
                        "its hunks would still find a place"
                    ),
                    "  mend it in a work tree (patchstack patch edit two FOLDER) and write it back (patch export)",
                ),
            ),
        ),
    )
    assert found.lanes[0].before is not None
    assert found.lanes[0].before.composes
    assert found.lint == Lint(tried_on=("1.0",))  # it says the same, and that is told once
    assert found.candidates == Candidates(why="lane production: its stack does not compose")
    assert [line.strip() for line in found.patches[0].range_diff if "UNO" in line] == ["++UNO = 1"]


def test_patches_that_conflict_with_each_other(desk: ReviewDesk) -> None:
    desk.patch("one", {A: edit(TEN, 5, "ONE")})
    main = desk.commit()
    desk.patch("two", {A: edit(TEN, 5, "TWO"), B: edit(TEN, 5, "TWO")})
    desk.commit()
    found = desk.review(main)
    assert found.exit_code == 4
    assert stack_of(found).refusals == (
        PatchRefusal(
            patch="two",
            optional=False,
            files=(A,),
            conflicts_with=("one",),
            said=(
                "it conflicts with one: mend it (`patchstack patch edit two FOLDER`), or its place in patches/series",
            ),
        ),
    )
    assert (stack_of(found).commit, stack_of(found).tree) == (None, None)


def test_main_did_not_compose_and_this_mends_it(desk: ReviewDesk) -> None:
    desk.patch("one", {A: edit(TEN, 5, "ONE")})
    desk.patch("two", {A: edit(TEN, 5, "TWO")})
    main = desk.commit()
    desk.patch("two", {A: edit(TEN, 1, "TWO")})
    desk.commit()
    found = desk.review(main)
    assert found.exit_code == 0
    (lane,) = found.lanes
    assert lane.before is not None
    assert [refusal.patch for refusal in lane.before.refusals] == ["two"]
    assert found.candidates.why == "lane production: main's stack does not compose, so there is nothing to compare with"


def test_what_is_missing_in_a_patch_md_is_all_that_is_said(desk: ReviewDesk) -> None:
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    main = desk.commit()
    desk.patch("one", {A: edit(TEN, 1, "ONE")}, owner=None, kill_switch="none")  # type: ignore[arg-type]
    desk.commit(generate=False)
    found = desk.review(main)
    assert (found.exit_code, found.lanes, found.patches) == (3, (), ())
    where = f"{desk.folder}/patches/one/patch.md"
    assert found.lint.problems == (
        f"{where}:2: owner: Field required: add it",
        f'{where}:9: kill-switch: not of the right form: write "SGLANG_SOMETHING=0"',
    )


def test_what_lint_says_of_a_stack_that_composes(desk: ReviewDesk) -> None:
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    desk.patch("two", {B: edit(TEN, 1, "TWO")})
    main = desk.commit()
    desk.replace("patches/one/patch.md", PROSE, "## Symptom\n\nNone.\n")
    desk.patch("two", {B: edit(TEN, 1, "TWO")}, guards="[tests/regression/ghost/]")
    desk.commit()
    found = desk.review(main)
    assert found.exit_code == 3
    assert stack_of(found).composes
    assert [problem.rpartition("/")[2] for problem in found.lint.problems][:2] == [
        "patch.md:13: ## Cause: the heading is missing: write that section",
        "patch.md:13: ## Cure: the heading is missing: write that section",
    ]
    assert found.lint.problems[-1].endswith("guards: tests/regression/ghost/: it is not there: write the guard")
    assert found.patches[1].guards == (Guard(path="tests/regression/ghost/", there=False, tests=0),)


def test_files_that_the_tool_would_write_differently(desk: ReviewDesk) -> None:
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    main = desk.commit()
    desk.replace(f"patches/one/{DIFF}", "+ONE = 1", "+UNO = 1")  # by hand: the blob's id is still the old one
    desk.replace("patches/one/patch.md", "It fails.", "It hangs.")
    desk.commit(generate=False)
    found = desk.review(main)
    assert found.exit_code == 7
    assert found.lint.stale == (
        StaleFile(file=verdict.name(f"{desk.folder}/patches/one/{DIFF}"), patch="one"),
        StaleFile(file="README.md"),
    )


def test_in_the_merge_that_github_makes_the_head_is_the_pull_requests(desk: ReviewDesk) -> None:
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    desk.commit()
    desk.git("checkout", "--quiet", "-b", "change")
    desk.patch("two", {B: edit(TEN, 1, "TWO")})
    head = desk.commit()
    desk.git("checkout", "--quiet", "main")
    main = desk.commit("main has moved", generate=False)
    desk.git("merge", "--quiet", "--no-ff", "change")
    found = desk.review("HEAD^1")
    assert (found.head, found.base) == (head, main)
    assert told(found) == ["one unchanged", "two new"]
    assert desk.said.lines.count("what main has gained since this branch left it counts as gone: merge main first") == 0


def test_a_branch_that_main_has_left_behind_is_told_so(desk: ReviewDesk) -> None:
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    desk.commit()
    desk.git("checkout", "--quiet", "-b", "change")
    head = desk.commit("not much", generate=False)
    desk.git("checkout", "--quiet", "main")
    desk.patch("two", {B: edit(TEN, 1, "TWO")})
    desk.commit()
    desk.git("checkout", "--quiet", "change")
    found = desk.review("main", number=None)
    assert (found.number, found.head, told(found)) == (None, head, ["one unchanged", "two gone"])
    assert "what main has gained since this branch left it counts as gone: merge main first" in desk.said.lines


def test_main_without_a_stack_has_nothing_to_compare_with(desk: ReviewDesk) -> None:
    (desk.folder / "deploy.yaml").unlink()
    desk.git("commit", "--quiet", "--allow-empty", "-m", "before there were patches")
    main = desk.git("rev-parse", "HEAD")
    desk.write("deploy.yaml", CONFIG)
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    desk.commit()
    found = desk.review(main)
    assert (found.exit_code, told(found), found.lanes[0].before) == (0, ["one new"], None)
    assert found.before_problems == (
        "deploy.yaml:1: : there is no such file: run from the repository's root, or use --config",
    )
    assert found.candidates.why == "lane production: it is new, or main cannot be read"


def test_a_configuration_that_nobody_can_read(desk: ReviewDesk) -> None:
    main = desk.commit()
    desk.replace("deploy.yaml", "branch: deploy", "branches: deploy")
    desk.commit(generate=False)
    found = desk.review(main)
    assert (found.exit_code, found.lanes, len(found.lint.problems)) == (3, (), 2)


def test_a_link_is_not_followed(desk: ReviewDesk, tmp_path: Path) -> None:
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    main = desk.commit()
    secret = tmp_path / "secret"
    secret.write_text("hunter2: [")
    path = desk.folder / "patches" / "one" / "patch.md"
    path.unlink()
    path.symlink_to(secret)
    desk.commit(generate=False)
    found = desk.review(main)
    assert found.exit_code == 3
    assert found.lint.problems == (f"{path}:1: (file): it is a link: put the file itself there",)


def test_a_package_index_that_does_not_answer_stops_the_review_and_not_the_verdict(desk: ReviewDesk) -> None:
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    main = desk.commit()
    desk.replace("deploy.yaml", "sglang==1.0", "sglang==1.5")
    desk.patch("one", {A: edit(TEN, 1, "UNO")})
    desk.commit()
    found = desk.review(main)
    assert (found.exit_code, told(found), found.lanes) == (8, ["one changed"], ())
    assert found.stopped is not None
    assert "sglang==1.5" in found.stopped.said[0]


def test_every_lane_is_composed_on_its_own_base(desk: ReviewDesk) -> None:
    desk.release("1.1", {**SOURCES, B: edit(TEN, 2, "OF_1_1")})
    desk.patch("one", {A: edit(TEN, 1, "ONE")}, up_to="1.1")
    desk.write("patches/releases", "1.0\n1.1\n1.2\n")
    main = desk.commit()
    desk.replace("deploy.yaml", "channels:\n", EDGE)
    desk.patch("two", {B: edit(TEN, 2, "TWO")}, bases='{"1.0": needed}')
    desk.patch("three", {B: edit(TEN, 9, "THREE")}, optional="yes")
    desk.commit()

    found = desk.review(main)

    assert found.exit_code == 0
    assert [(lane.lane, lane.before is None) for lane in found.lanes] == [("production", False), ("edge", True)]
    assert (stack_of(found).patches, stack_of(found, "edge").patches) == (("one", "two"), ("one",))
    assert stack_of(found, "edge").left_out == (
        LeftOutPatch(
            patch="two",
            reason="skipped: not for this base",
            detail="1.1 matches no key of its `bases` (1.0)",
        ),
        LeftOutPatch(
            patch="three",
            reason="skipped: not for this base",
            detail="1.1 matches no key of its `bases` (>=1.0,<=1.0)",
        ),
    )
    assert stack_of(found).left_out[0].reason == "skipped: optional and not switched on"
    assert found.lint.tried_on == ("1.0", "1.1")
    assert desk.review(main, lane="edge").lanes == found.lanes[1:]
    with pytest.raises(LaneUnavailable, match="has a lane 'none'"):
        desk.review(main, lane="none")


def test_the_releases_of_a_changed_range_are_left_to_lint(desk: ReviewDesk) -> None:
    desk.patch("one", {A: edit(TEN, 1, "ONE")}, up_to="1.2")
    desk.patch("two", {B: edit(TEN, 1, "TWO")}, up_to="1.3")
    desk.write("patches/releases", "1.0\n1.1\n1.2\n1.3\n")
    main = desk.commit()
    desk.patch("one", {A: edit(TEN, 1, "UNO")}, up_to="1.2")
    desk.commit()
    found = desk.review(main)
    assert (found.exit_code, found.lint) == (0, Lint(tried_on=("1.0",), left_to_lint=("1.1", "1.2")))


def test_a_patch_that_becomes_optional(desk: ReviewDesk) -> None:
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    main = desk.commit()
    desk.bench.series("one optional")
    desk.commit()
    found = desk.review(main)
    (one,) = found.patches
    assert (one.change, one.became, stack_of(found).patches) == (Change.UNCHANGED, "optional", ())


def test_a_further_work_tree_of_the_clone(desk: ReviewDesk, tmp_path: Path) -> None:
    desk.patch("one", {A: edit(TEN, 1, "ONE")})
    main = desk.commit()
    further = tmp_path / "further"
    desk.git("worktree", "add", "--quiet", str(further), "-b", "change")
    desk.folder, desk.bench.root = further, further
    desk.patch("one", {A: edit(TEN, 1, "UNO")})
    head = desk.commit()
    found = desk.review(main)
    assert (found.head, told(found), found.exit_code) == (head, ["one changed"], 0)


@pytest.mark.parametrize(
    ("against", "said"),
    [
        ("nowhere", "--against 'nowhere' is no commit of"),
        ("", "--against '' is no commit of"),
        ("--all", "--against '--all' is no commit of"),
        ("HEAD:deploy.yaml", "is no commit of"),
    ],
)
def test_against_must_be_a_commit(desk: ReviewDesk, against: str, said: str) -> None:
    desk.commit()
    with pytest.raises(UsageError, match=said):
        desk.review(against)


def test_outside_of_a_work_tree(desk: ReviewDesk, tmp_path: Path) -> None:
    (tmp_path / "clone").rename(tmp_path / "moved")
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "deploy.yaml").write_text(CONFIG)
    with pytest.raises(UsageError, match="is in no git work tree"):
        desk.review("HEAD")


# --- as it is typed ---


def test_the_verb_writes_the_verdict_whatever_it_says(desk: ReviewDesk, tmp_path: Path) -> None:
    desk.patch("one", {A: edit(TEN, 5, "ONE")})
    main = desk.commit()
    desk.patch("two", {A: edit(TEN, 5, "TWO")})
    desk.commit()
    file = tmp_path / "out" / "verdict.json"
    done = desk.shell("review", "--against", main, "--pr", "12", "--to", str(file))
    assert (done.returncode, "does not compose" in done.stdout) == (4, True), done.stderr
    found = verdict.read(file)
    assert (found.number, found.exit_code) == (12, 4)
    again = desk.shell("review", "--against", main, "--pr", "12", "--json")
    assert (again.returncode, json.loads(again.stdout)) == (4, json.loads(file.read_text()))


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ("--against nowhere --to {file}", 2, "is no commit of"),
        ("--to {file}", 2, "Missing option '--against'"),
        ("--against HEAD --pr 0 --to {file}", 2, "0 is not in the range"),
        ("--against HEAD --pr 99999999999 --to {file}", 2, "is not in the range"),
    ],
)
def test_wrong_usage_writes_nothing(desk: ReviewDesk, tmp_path: Path, argv: str, code: int, said: str) -> None:
    desk.commit()
    file = tmp_path / "verdict.json"
    done = desk.shell("review", *argv.format(file=file).split())
    assert (done.returncode, said in done.stderr, file.exists()) == (code, True, False), done.stderr


# --- within its size ---


def test_a_verdict_of_any_size_fits_and_says_what_is_left_off() -> None:
    ids = {"head": "a" * 40, "base": "b" * 40}
    change = PatchChange(slug="one", title="é" * 500, change=Change.CHANGED, range_diff=("\U0001f600" * 600,) * 900)
    found = PatchVerdict(**ids, patches=(change,) * 20, stopped=Stopped(code=8, said=("x",)))  # type: ignore[arg-type]
    text = verdict.encode(found)
    assert len(text.encode()) <= verdict.LIMIT_BYTES
    kept = PatchVerdict.model_validate_json(text)
    assert len(kept.patches) == 10
    assert kept.left_off == 10 + 10 * 890


def test_texts_are_cut_to_what_the_file_holds() -> None:
    assert verdict.name("x" * 300) == "x" * 199 + "…"
    assert verdict.name("") == "(no name)"
    assert verdict.name("caf\udce9.py") == "caf\\xe9.py"
    assert verdict.lines("a\n\nb\n\n") == ("a", "", "b")
    assert verdict.lines(" \n") == ()
    many = verdict.lines("x\n" * 12_000)
    assert (len(many), many[-2:]) == (10_000, ("x", "… 2001 more lines"))
