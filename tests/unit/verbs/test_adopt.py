"""`init` on forks made by git alone: what it finds out, says, writes, refuses; and the first promotion after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patchstack import config as configuration
from patchstack.adoption.checks import Standing
from patchstack.adoption.telling import Adoption, lines
from patchstack.errors import UsageError
from patchstack.git import Repository
from patchstack.model import Composition, GuardReport
from patchstack.release.ledger import history
from patchstack.verbs.adopt import Asked, Seen, adopt, look
from patchstack.verbs.author import validate
from patchstack.verbs.patch_import import import_branch
from patchstack.verbs.plan import composed
from patchstack.verbs.promote import promote
from patchstack.verbs.test import gate
from patchstack.workplace import Workplace

from .fork_bench import LIBS, NEW, RELEASE, SOURCES, TEN, A, B, ForkBench, Quiet, edit, release, workplace
from .test_promote_verb import report_on


def asked(bench: ForkBench, **changed: object) -> Asked:
    plain = Asked(
        source=str(bench.path),
        folder=bench.work,
        state_folder=bench.work / ".patchstack",
        local=True,
        offline=True,
        base=None,
        deploy_branch=None,
        main=None,
        dry_run=False,
    )
    return replace(plain, **changed)  # type: ignore[arg-type]


def init(bench: ForkBench, **changed: object) -> Adoption:
    return adopt(asked(bench, **changed), Quiet())


def looked(bench: ForkBench, **changed: object) -> Seen:
    """What `init` finds out, without a plan."""
    return look(asked(bench, **changed), Repository.init(bench.work / ".patchstack" / "store.git"), Quiet())


def work(bench: ForkBench) -> Workplace:
    return workplace(bench.work, local=True)


@pytest.fixture
def bench(tmp_path: Path) -> ForkBench:
    """Three pull requests; deploy has the first by a merge, the second cherry-picked, and two commits of its own."""
    made = ForkBench(tmp_path)
    tag = f"v{RELEASE}"
    made.pull(1, "fix/a", tag, {A: edit(TEN, 1, "ONE")}, title="a: one")
    made.pull(2, "fix/b", "main", {B: edit(TEN, 5, "FIVE")}, title="b: five")
    made.pull(3, "fix/new", "main", {NEW: "NEW = 1\n"}, title="new")
    made.commit("deploy", "docs of ours", {"docs/ours.md": "o\n"}, onto=tag)
    made.merge("deploy", "fix/a", "Merge branch 'fix/a' into deploy")
    made.commit("deploy", "b: five", {B: edit(TEN, 5, "FIVE")}, author="Bob")
    made.commit("deploy", "a: hot fix", {A: edit(made.text("deploy", A), 10, "HOT")})
    made.commit("deploy", "b: hot fix", {B: edit(made.text("deploy", B), 6, "HOT")}, author="Eve")
    return made


def told(found: Adoption) -> list[str]:
    return list(lines(found))


def test_a_fork_is_read_and_what_tonight_would_lose_is_named(bench: ForkBench) -> None:
    before = bench.refs()
    found = init(bench)
    assert bench.refs() == before
    assert found.release.base.name == f"sglang=={RELEASE}"
    assert (found.deploy.name, found.release.begin_name) == ("deploy", f"v{RELEASE}")
    beside = found.beside
    assert beside is not None
    assert [(pull.name, pull.deployed, pull.own, pull.tonight) for pull in beside.pulls] == [
        ("#1", 1, 1, "in"),
        ("#2", 1, 1, "in"),
        ("#3", 0, 1, "in"),
    ]
    assert [(lost.title, lost.author, lost.held_by) for lost in beside.lost] == [
        ("a: hot fix", "Ann", ()),
        ("b: hot fix", "Eve", ()),
    ]
    assert (beside.not_carried, beside.of_default) == (1, 0)
    assert [(path.path, path.how) for path in beside.paths] == [
        ("python/sglang/_version.py", "only tonight has it"),
        (A, "they have it otherwise"),
        (B, "they have it otherwise"),
        (NEW, "only tonight has it"),
    ]
    said = "\n".join(told(found))
    assert f"patchstack patch import v{RELEASE}..deploy" in said
    for lost in beside.lost:
        assert f"{lost.commit[:12]} {lost.title}, {lost.author}" in said


def test_what_is_written_validates_and_names_what_was_found(bench: ForkBench) -> None:
    found = init(bench)
    assert found.written
    assert sorted(bench.tree()) == sorted(file.path for file in found.files)
    assert {"deploy.yaml", "patches/series", ".github/workflows/nightly.yml"} <= set(bench.tree())
    validate(bench.work / "deploy.yaml")
    made = configuration.load(bench.work / "deploy.yaml")
    lane = made.lanes["production"]
    assert (made.fork.repo, made.fork.main, made.fork.remote) == ("acme/sglang", "patchstack", str(bench.path))
    assert (lane.branch, lane.upstream.pypi, lane.upstream.tree) == (
        "deploy",
        f"sglang=={RELEASE}",
        found.release.base.tree,
    )


def test_the_workflows_are_this_projects_own() -> None:
    from patchstack.adoption.files import TEMPLATES, planned_files

    root = Path(__file__).parents[3] / ".github"
    own = {f".github/{path.relative_to(root).as_posix()}": path.read_bytes() for path in root.rglob("*.*")}
    written = {file.path: file.data for file in planned_files(Path("nowhere"), "") if file.path.startswith(".github/")}
    assert written == own
    assert TEMPLATES.is_dir()


def test_nothing_that_is_there_is_overwritten(bench: ForkBench) -> None:
    workflow = bench.work / ".github" / "workflows" / "nightly.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text("on: push\n")
    (bench.work / "deploy.yaml").write_text("mine\n")
    (bench.work / "patches").mkdir()
    (bench.work / "patches" / "series").write_text("# mine\n")
    before = bench.tree()
    with pytest.raises(UsageError, match=r"deploy\.yaml, \.github/workflows/nightly\.yml: there already"):
        init(bench)
    assert bench.tree() == before
    found = init(bench, dry_run=True)
    assert bench.tree() == before
    assert "deploy.yaml: something else is there: move it away first" in told(found)
    for path in (workflow, bench.work / "deploy.yaml"):
        path.unlink()
    assert init(bench).written
    written = bench.tree()
    assert written["patches/series"] == b"# mine\n"
    (bench.work / "deploy.yaml").write_text((bench.work / "deploy.yaml").read_text() + "# mine\n")
    with pytest.raises(UsageError, match=r"deploy\.yaml: there already"):  # it is the user's from now on
        init(bench)
    (bench.work / "deploy.yaml").write_bytes(written["deploy.yaml"])
    init(bench)
    assert bench.tree() == written


def test_a_dry_run_writes_nothing(bench: ForkBench) -> None:
    bench.work.mkdir()
    found = init(bench, dry_run=True)
    assert (bench.tree(), found.written) == ({}, False)
    assert found.beside is not None
    assert "deploy.yaml: would be written" in told(found)


def test_a_commit_that_only_a_left_out_pull_request_holds_is_lost_tonight_and_says_so(bench: ForkBench) -> None:
    bench.pull(4, "fix/clash", f"v{RELEASE}", {A: edit(TEN, 1, "CLASH")}, title="clash")
    bench.commit("deploy", "clash", {A: edit(bench.text("deploy", A), 1, "CLASH")})
    bench.pull(5, "fix/hot", f"v{RELEASE}", {A: edit(edit(TEN, 1, "other"), 10, "HOT")}, title="hot")
    beside = init(bench, dry_run=True).beside
    assert beside is not None
    assert [(pull.name, pull.tonight) for pull in beside.pulls if pull.tonight != "in"] == [
        ("#4", "excluded: conflict (#1)"),
        ("#5", "excluded: conflict (#1)"),
    ]
    bench.git("update-ref", "-d", "refs/pull/5/head")
    bench.merge_theirs("deploy", "fix/clash")
    beside = init(bench, dry_run=True).beside
    assert beside is not None
    assert ("clash", ("#4",)) in [(lost.title, lost.held_by) for lost in beside.lost]


def test_a_squashed_pull_request_is_in_deploy(bench: ForkBench) -> None:
    head = bench.commit("fix/two", "half", {B: edit(TEN, 1, "1")}, onto=f"v{RELEASE}")
    head = bench.commit("fix/two", "other half", {B: edit(edit(TEN, 1, "1"), 10, "10")})
    bench.git("update-ref", "refs/pull/6/head", head)
    bench.git("branch", "live", f"v{RELEASE}")
    bench.commit("live", "two (#6)", {B: edit(edit(TEN, 1, "1"), 10, "10")}, onto=f"v{RELEASE}")
    beside = init(bench, dry_run=True, deploy_branch="live").beside
    assert beside is not None
    assert [(pull.name, pull.deployed, pull.own) for pull in beside.pulls][-1] == ("#6", 2, 2)
    assert beside.lost == ()


# --- which release, which branch ---


def test_the_release_is_told_by_tag_file_or_files(bench: ForkBench) -> None:
    release("0.5.13", {**SOURCES, LIBS[0]: "LIB = 2\n"})
    by_tag = looked(bench).release
    assert by_tag.evidence[0] == f"tag v{RELEASE} is in its history"
    bench.git("tag", "-d", f"v{RELEASE}")
    by_files = looked(bench).release
    assert (by_files.base.version, by_files.evidence[0]) == (
        RELEASE,
        "of the releases in the cache its files are the nearest",
    )
    bench.commit("deploy", "version", {"python/sglang/version.py": '__version__ = "0.5.13"\n'})
    by_file = looked(bench).release
    assert (by_file.base.version, by_file.evidence[0]) == ("0.5.13", "python/sglang/version.py says so")


def test_what_the_fork_says_is_held_against_the_files(bench: ForkBench) -> None:
    """A tag of upstream in the history and a version file disagree: the files decide, and it is said."""
    release("0.5.13", {**SOURCES, LIBS[0]: "LIB = 2\n"})
    bench.commit("deploy", "version", {"python/sglang/version.py": '__version__ = "0.5.13"\n'})
    found = looked(bench).release
    assert found.base.version == RELEASE
    assert found.evidence == (
        f"tag v{RELEASE} is in its history",
        f"4 of 11 files of sglang=={RELEASE} differ",
        "5 of 11 files of sglang==0.5.13 differ",
    )


def test_a_release_that_cannot_be_told_must_be_said(bench: ForkBench) -> None:
    bench.git("tag", "-d", f"v{RELEASE}")
    bench.commit("deploy", "all other", dict.fromkeys(SOURCES, "x\n"))
    before = bench.tree() if bench.work.exists() else {}
    with pytest.raises(UsageError, match=rf"cannot be told .* of sglang=={RELEASE} differ.*--base sglang==X"):
        init(bench)
    assert (bench.tree() if bench.work.exists() else {}) == before
    assert looked(bench, base=f"sglang=={RELEASE}").release.evidence[0] == "it was asked for"
    for wrong in ("sglang", "sglang>=1", "torch==2.0", "0.5.12"):
        with pytest.raises(UsageError, match="write one exact release"):
            looked(bench, base=wrong)


def test_the_deploy_branch_is_guessed_with_its_evidence_or_chosen(bench: ForkBench) -> None:
    assert init(bench, dry_run=True).deploy.evidence.startswith(
        "by its name; 6 commits that main has not, the last on "
    )
    bench.git("branch", "production", "main")
    both = looked(bench).deploy
    assert (both.name, "production could be too: --deploy-branch chooses" in both.evidence) == ("deploy", True)
    assert looked(bench, deploy_branch="production").deploy.name == "production"
    with pytest.raises(UsageError, match="--deploy-branch nothing: acme/sglang has no such branch; it has: deploy"):
        looked(bench, deploy_branch="nothing")


def test_a_fork_without_a_deploy_branch_gets_one_by_its_first_night(bench: ForkBench) -> None:
    bench.git("branch", "-D", "deploy")
    bench.git("branch", "release/v1", "main")
    found = init(bench)
    assert (found.deploy.name, found.deploy.tip) == ("deploy", None)
    assert found.beside is not None
    assert ([pull.tonight for pull in found.beside.pulls], found.beside.lost, found.beside.paths) == (
        ["in"] * 3,
        (),
        (),
    )
    assert f"tonight (nothing is deployed yet): 0 patches and 3 pull requests in {found.beside.tonight[:12]}" in told(
        found
    )
    assert "release/v1: --deploy-branch if one of them is" in found.deploy.evidence
    assert configuration.load(bench.work / "deploy.yaml").lanes["production"].branch == "deploy"


def test_branches_in_the_way_and_a_branch_called_on_are_told(bench: ForkBench) -> None:
    bench.git("branch", "stack", "main")
    bench.git("branch", "on", "deploy")
    found = init(bench, deploy_branch="on")
    checks = {check.name: check for check in found.checks}
    assert checks["branches"].standing is Standing.MISSING
    assert "branch stack is in the way of stack/production" in checks["branches"].said
    assert "gh repo edit acme/sglang --default-branch patchstack" in checks["main"].said
    assert configuration.load(bench.work / "deploy.yaml").lanes["production"].branch == "on"


def test_a_default_branch_that_holds_patches_is_main(bench: ForkBench) -> None:
    bench.commit("main", "patches", {"patches/series": ""})
    found = init(bench)
    assert configuration.load(bench.work / "deploy.yaml").fork.main == "main"
    assert [check.standing for check in found.checks if check.name == "main"] == [Standing.OK]


def test_a_release_without_a_test_bed_is_told(bench: ForkBench) -> None:
    def bed() -> str:
        (check,) = (check for check in looked(bench).checks if check.name == "test bed")
        return f"{check.standing}: {check.said}"

    assert bed().startswith(f"missing: {bench.work} is no clone of this project, whose tests/ the nights run")
    locks = bench.work / "tests" / "support" / "locks"
    (locks / "0.5.11").mkdir(parents=True)
    assert bed().startswith(f"missing: tests/support/locks has 0.5.11, and not {RELEASE}")
    (locks / RELEASE).mkdir()
    assert bed() == f"ok: tests/support/locks has {RELEASE}"


# --- from there on ---


def test_with_the_branch_imported_nothing_is_lost(bench: ForkBench) -> None:
    init(bench)
    bench.guards()
    import_branch(work(bench), f"v{RELEASE}..deploy")
    beside = init(bench, dry_run=True).beside
    assert beside is not None
    assert beside.lost == ()
    assert [path.path for path in beside.paths] == ["python/sglang/_version.py", NEW]


def test_the_first_promotion_goes_on_from_the_tip_that_is_deployed(bench: ForkBench) -> None:
    """The deploy branch is fast-forwarded by the ordinary verbs, and its own history stays below."""
    init(bench)
    bench.guards()
    before = bench.git("rev-parse", "deploy")
    place = work(bench)
    with place.open_run() as run:
        composition: Composition = composed(place, run)
        report: GuardReport = replace(report_on(composition), proofs=())
        run.write(report)
        gate(place, run, composition, report)
        done = promote(place, run).promotion
    assert (done.previous, bench.git("rev-parse", "deploy")) == (before, done.commit)
    assert bench.git("log", "--first-parent", "--format=%H", f"{before}^..deploy").splitlines() == [done.commit, before]
    assert bench.git("merge-base", "--is-ancestor", before, "deploy") == ""
    assert bench.git("rev-parse", "deploy^2") == composition.commit
    assert bench.git("diff", "--stat", "deploy", composition.commit) == ""
    assert "a: hot fix" in bench.git("log", "--format=%s", "deploy")
    nights = history(Repository(bench.path), done.commit, "production")
    assert [night.previous for night in nights.nights] == [before]

    # The next night's pull requests are read as before: what is below the first night is no night's.
    with place.open_run() as run:
        again = composed(place, run)
    assert [topic.name for topic in again.included] == ["#1", "#2", "#3"]
