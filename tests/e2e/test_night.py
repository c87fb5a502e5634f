"""Whole nights by the command line, on the real release, with real guards in the real bed.

The workplace is a copy of this repository with one patch in its series, the one whose guards are quickest,
so that a night takes seconds and not minutes; `make nightly` is the night with the whole stack.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from unidiff import PatchSet

ROOT = Path(__file__).parents[2]
SLUG = "mooncake-protocol"
GUARDS = "tests/regression/mooncake_protocol"
DIFF = f"patches/{SLUG}/0.5.12.post1..0.5.12.post1.patch"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


@dataclass(frozen=True)
class Place:
    """A copy of the repository, and `patchstack` run in it."""

    root: Path

    @property
    def remote(self) -> Path:
        return self.root / ".patchstack" / "remote.git"

    def run(self, *argv: str, **more_env: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-c", "from patchstack.cli import main; main()", *argv],
            cwd=self.root,
            env={**os.environ, **more_env},
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def night(self, *argv: str) -> Done:
        return self.run("nightly", "--local", "--json", *argv)

    def git(self, *argv: str) -> str:
        return subprocess.run(
            ["git", "--git-dir", str(self.remote), *argv], capture_output=True, text=True, check=True
        ).stdout.strip()

    def deploy(self) -> str:
        return self.git("rev-parse", "refs/heads/deploy")

    def refs(self) -> str:
        """Without the history, which every night that has tested goes on with, promoted or not."""
        listed = self.git("for-each-ref").splitlines()
        return "\n".join(line for line in listed if "refs/heads/history/" not in line)

    def propose(self, number: int, path: str, text: str, onto: str = "base/production") -> str:
        """Open pull request ``number``: one commit on a published branch that writes one file."""
        work = self.root / f"clone-{number}"
        for argv in (
            ["git", "clone", "--quiet", "--branch", onto, str(self.remote), str(work)],
            ["git", "-C", str(work), "checkout", "--quiet", "-b", "mine"],
        ):
            subprocess.run(argv, check=True)
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text)
        for argv in (
            ["git", "-C", str(work), "add", "."],
            ["git", "-C", str(work), "commit", "--quiet", "-m", f"Change {path}"],
            ["git", "-C", str(work), "push", "--quiet", "origin", f"HEAD:refs/pull/{number}/head"],
        ):
            subprocess.run(argv, check=True)
        return subprocess.run(
            ["git", "-C", str(work), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
        ).stdout.strip()


def copy_workplace(folder: Path, *slugs: str) -> Place:
    for path in ("README.md", "tests/support", "tests/regression/bed", GUARDS, "tests/conftest.py"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, folder / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / path, folder / path)
    for slug in slugs:
        shutil.copytree(ROOT / "patches" / slug, folder / "patches" / slug)
    (folder / "patches" / "series").write_text("".join(f"{slug}\n" for slug in slugs))
    # What the lane switches on is not in a series this short
    config = (ROOT / "deploy.yaml").read_text().splitlines(keepends=True)
    (folder / "deploy.yaml").write_text("".join(line for line in config if not line.strip().startswith("optional:")))
    return Place(folder)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return copy_workplace(tmp_path / "fork", SLUG)


@pytest.fixture(scope="module")
def first_night(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Done]:
    """A workplace with one promoted night: tests look at it, or work on a copy (`promoted`)."""
    place = copy_workplace(tmp_path_factory.mktemp("first") / "fork", SLUG)
    return place, place.night()


@pytest.fixture
def promoted(first_night: tuple[Place, Done], tmp_path: Path) -> Place:
    """A copy of the workplace after its first night."""
    place, done = first_night
    assert done.code == 0, done.err
    return Place(shutil.copytree(place.root, tmp_path / "fork", symlinks=True))


def names(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["name"] for entry in entries]


def test_a_first_night_promotes_and_an_unchanged_one_has_nothing_to_do(first_night: tuple[Place, Done]) -> None:
    place, first = first_night
    assert first.code == 0, first.err
    report = first.json
    assert (report["headline"], report["exit_code"], report["nothing_to_do"]) == ("PASS", 0, False)
    assert names(report["composition"]["included"]) == [SLUG]
    assert report["tests"]["proofs"][0]["standing"] == "proven"
    assert place.deploy() == report["promotion"]["commit"]
    assert place.git("rev-parse", "deploy^{tree}") == report["composition"]["tree"]
    assert [verdict["status"] for verdict in report["verdicts"]] == ["PASS", "INCOMPLETE"]
    run = place.root / ".patchstack" / "runs" / report["night"]
    written = {path.name for path in run.iterdir() if path.is_file()}
    assert written == {
        *("base.json", "past.json", "candidates.json", "dedup.json", "plan.json", "composition.json", "junit.xml"),
        *("losses.json", "image.json", "tests.json", "verdicts.json", "promotion.json", "report.json", "report.md"),
    }
    assert json.loads((run / "report.json").read_text()) == report

    status = place.run("--local", "status", "--json")
    assert (status.code, status.json["night"]["night"], status.json["tip"]) == (0, report["night"], place.deploy())

    before = place.refs()
    second = place.night()
    assert (second.code, second.json["nothing_to_do"], second.json["timings"][-1]["stage"]) == (0, True, "plan")
    assert place.refs() == before
    assert "nothing to do" in place.run("report").out.lower()


def without_hunk(diff: Path, source: str) -> None:
    """Take the last hunk for ``source`` out of a patch's diff."""
    head, mark, body = diff.read_text().partition("\ndiff --git ")
    files = PatchSet(mark.lstrip("\n") + body)
    changed = next(file for file in files if file.path.endswith(source))
    del changed[-1]
    kept = [file for file in files if len(file)]
    diff.write_text(head + "\n" + "".join(map(str, kept)))


def test_a_patch_that_lost_a_hunk_makes_the_night_red(promoted: Place) -> None:
    place = promoted
    before = place.refs()
    config = place.root / "deploy.yaml"  # who it was is another test's question, and costs real guards on many trees
    config.write_text(config.read_text().replace("max_probes: 40", "max_probes: 0"))
    without_hunk(place.root / DIFF, "mooncake_transfer_engine.py")
    red = place.night()
    assert red.code == 1, red.err
    assert red.json["headline"] == "FAIL"
    assert red.json["tests"]["proofs"][0]["standing"] == "broken"
    assert red.json["promotion"] is None
    assert place.refs() == before
    # A red night is not settled: the next one tests again.
    assert place.run("--local", "promote").code == 1
    assert place.refs() == before


def test_a_patch_that_does_not_apply_stops_the_night_with_4(promoted: Place) -> None:
    place = promoted
    before = place.refs()
    diff = place.root / DIFF
    lines = diff.read_text().splitlines(keepends=True)
    index = next(number for number, line in enumerate(lines) if line.startswith("-") and not line.startswith("---"))
    lines[index] = f"-{lines[index][1:].rstrip()}_changed\n"
    diff.write_text("".join(lines))
    stopped = place.night()
    assert stopped.code == 4, stopped.err
    assert SLUG in stopped.json["failure"]
    assert (stopped.json["composition"], stopped.json["promotion"]) == (None, None)
    assert place.refs() == before


def test_pull_requests_are_composed_or_named_with_their_reason(promoted: Place) -> None:
    place = promoted
    one = place.propose(7, "python/sglang/seven.py", "SEVEN = 7\n")
    place.propose(8, "python/sglang/seven.py", "SEVEN = 8\n")
    place.propose(9, "docs/nine.md", "nine\n")
    place.propose(10, "python/sglang/ten.py", "TEN = 10\n", onto="deploy")
    place.propose(11, "python/sglang/eleven.py", "ELEVEN = 11\n", onto="stack/production")
    night = place.night()
    assert night.code == 0, night.err
    assert names(night.json["composition"]["included"]) == [SLUG, "#7", "#11"]
    left_out = {entry["name"]: entry for entry in night.json["composition"]["left_out"]}
    assert {name: entry["reason"] for name, entry in left_out.items()} == {
        "#8": "conflict",
        "#9": "nothing left that the base carries",
        "#10": "contains a deploy commit",
    }
    assert (left_out["#8"]["twins"], left_out["#8"]["files"]) == (["#7"], ["python/sglang/seven.py"])
    assert "git rebase --onto" in left_out["#10"]["detail"]
    assert place.git("merge-base", "--is-ancestor", one, "deploy") == ""
    assert place.git("show", "deploy:python/sglang/eleven.py") == "ELEVEN = 11"


STACKED = "mooncake-stacked"
MODULE = "python/sglang/srt/distributed/device_communicators/mooncake_protocol.py"
STACKED_GUARD = f"""\
import os
from pathlib import Path

import pytest

MODULE = Path(os.environ["PATCHSTACK_TREE"]) / "{MODULE}"


@pytest.mark.control
def test_what_it_requires_is_there() -> None:
    assert MODULE.is_file()


def test_it_is_there() -> None:
    assert "STACKED = os.environ" in MODULE.read_text()
"""


BED_CONTROL = """\
@pytest.mark.control
def test_on_the_plain_base() -> None:
    assert not MODULE.exists()
"""


def stack_another(place: Place) -> None:
    """As docs/patch-authors.md tells an author: a patch that requires the first one, and changes its module."""
    source, folder = place.root / "patches" / SLUG / "patch.md", place.root / "patches" / STACKED
    folder.mkdir()
    text = source.read_text().replace("requires: []", f"requires: [{SLUG}]").replace(GUARDS, "tests/regression/stacked")
    (folder / "patch.md").write_text(text.replace("SGLANG_MOONCAKE_PROTOCOL_FROM_ENV", "SGLANG_STACKED"))
    (place.root / "patches" / "series").write_text(f"{SLUG}\n{STACKED}\n")
    guard = place.root / "tests" / "regression" / "stacked" / "test_stacked.py"
    guard.parent.mkdir()
    guard.write_text(STACKED_GUARD)
    bed = place.root / "tests" / "regression" / "bed"
    shutil.rmtree(bed)  # its controls take minutes and are no business of this test
    bed.mkdir()
    (bed / "test_bed.py").write_text(STACKED_GUARD.partition("@pytest.mark.control")[0] + BED_CONTROL)
    work = place.root / "work"
    edited = place.run("patch", "edit", STACKED, str(work))
    assert edited.code == 0, edited.err
    (work / MODULE).write_text((work / MODULE).read_text() + '\nSTACKED = os.environ.get("SGLANG_STACKED", "1")\n')
    title = next(line for line in text.splitlines() if line.startswith("title: ")).partition(": ")[2].strip('"')
    subprocess.run(["git", "-C", str(work), "commit", "--quiet", "-a", "-m", title], check=True)
    exported = place.run("patch", "export", STACKED, "--from", str(work))
    assert exported.code == 0, exported.err


def told(done: Done) -> list[str]:
    """What the guards of `STACKED` said: ``composed: pass pass``, in the order of the trees."""
    mine = {
        run["label"]: [result["outcome"] for result in run["results"] if result["slug"] == STACKED]
        for run in done.json["runs"]
    }
    return [f"{label}: {' '.join(outcomes)}" for label, outcomes in mine.items() if outcomes]


def test_a_patch_is_proven_on_what_it_requires(place: Place) -> None:
    """Its control holds on the base with the other patch, and on no plain base."""
    stack_another(place)
    whole = place.run("--local", "test", "--suite", STACKED, "--rerun", "none", "--json")
    assert whole.code == 6, whole.err  # a part of the guards is no night
    (proof,) = whole.json["proofs"]
    assert (proof["slug"], proof["standing"], proof["ground"]) == (STACKED, "proven", f"base + {SLUG}")
    assert told(whole) == ["composed: pass pass", f"base + {SLUG}: pass fail"]

    without = place.run("--local", "test", "--without", SLUG, "--suite", STACKED, "--rerun", "none", "--json")
    assert without.code == 1, without.err
    assert told(without) == [f"without {SLUG}, {STACKED}: fail crash", f"base + {SLUG}: pass fail"]
    assert (place.root / "patches" / STACKED / "0.5.12.post1..0.5.12.post1.patch").is_file()


def test_a_stage_starts_from_the_files_of_the_one_before(place: Place) -> None:
    planned = place.run("--local", "plan", "--json")
    assert planned.code == 0, planned.err
    (run,) = (place.root / ".patchstack" / "runs").iterdir()
    merged = place.run("--local", "merge", "--run", run.name, "--verify", "--json")
    assert merged.code == 0, merged.err
    assert merged.json["fingerprint"] == planned.json["fingerprint"]
    nothing = place.run("--local", "promote", "--run", run.name)
    assert (nothing.code, "has no verdicts.json" in nothing.err) == (2, True)


def test_plan_and_merge_need_one_wheel_and_no_bed(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for verb in ("plan", "merge"):
        done = place.run("--local", verb, PATCHSTACK_CACHE=str(cache))
        assert done.code == 0, done.err
    assert {path.name for path in cache.iterdir()} == {"wheels"}
    downloaded = sum(path.stat().st_size for path in (cache / "wheels").rglob("*") if path.is_file())
    assert downloaded < 10_000_000
    offline = place.run(
        "--local", "--offline", "plan", PATCHSTACK_CACHE=str(cache), PIP_INDEX_URL="http://127.0.0.1:9/"
    )
    assert offline.code == 0, offline.err


def test_without_a_token_what_asks_github_says_so_and_makes_nothing(place: Place) -> None:
    for argv in (("plan",), ("merge",), ("test",), ("nightly",), ("nightly", "--dry-run")):
        done = place.run(*argv)
        assert (done.code, "none of PATCHSTACK_TOKEN, GITHUB_TOKEN, GH_TOKEN is set" in done.err) == (2, True), done.err
        assert "acme/sglang, sgl-project/sglang" in done.err
    state = place.root / ".patchstack"
    assert not (state / "remote.git").exists()
    assert not (state / "store.git").exists()
    assert not list((state / "runs").iterdir())


def test_an_author_needs_no_github(place: Place) -> None:
    """Each without --local, without a token, and with no server that could answer."""
    nowhere = {"GITHUB_SERVER_URL": "http://127.0.0.1:9", "GITHUB_API_URL": "http://127.0.0.1:9"}
    work = place.root / "work"
    for argv in (
        ("validate",),
        ("patch", "edit", SLUG, str(work)),
        ("patch", "export", SLUG, "--from", str(work)),
        ("prove", SLUG, "--dry-run"),
    ):
        done = place.run(*argv, **nowhere)
        assert done.code == 0, (argv, done.err)
    deployed = place.run("status", **nowhere)
    assert (deployed.code, "http://127.0.0.1:9/acme/sglang.git cannot be read" in deployed.err) == (8, True)
    assert "--local" in deployed.err
    assert place.run("--local", "status", **nowhere).code == 0


def test_a_night_that_runs_already_is_left_alone(place: Place) -> None:
    from patchstack.lock import night_lock

    with night_lock(place.root / ".patchstack" / "lock"):
        second = place.night()
    assert (second.code, "another patchstack" in second.err) == (10, True)


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("--lane", "edge", "plan"), 9, "has no lane 'edge'"),
        (("--config", "nothing.yaml", "validate"), 3, "there is no such file"),
        (("--local", "test", "--suite", "nothing"), 2, "no patch or group is called 'nothing'"),
        (("--local", "plan", "--without", "nothing"), 2, "nothing"),
        (("report",), 2, "no night has run"),
        (("promote",), 2, "has a verdict yet"),
        (("nightly", "--bogus"), 2, "No such option"),
        (("--local", "--remote", "/nonexistent/remote.git", "plan"), 8, "cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input_is_one_clear_error_and_changes_nothing(
    place: Place, argv: tuple[str, ...], code: int, said: str
) -> None:
    done = place.run(*argv)
    assert (done.code, said in done.err) == (code, True), done.err
    assert "Traceback" not in done.err
    runs = place.root / ".patchstack" / "runs"
    assert code == 8 or not runs.is_dir() or not list(runs.iterdir())
