"""A team's fork of the real SGLang, with an accumulator branch, is adopted by the command line alone."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchstack.store import cache_folder
from patchstack.upstream.releases import fetch_wheel

from .test_night import BED_CONTROL, GUARDS, MODULE, SLUG, STACKED_GUARD, Place, copy_workplace, names

RELEASE = "0.5.12.post1"
CONN = "python/sglang/srt/disaggregation/common/conn.py"
ENGINE = "python/sglang/srt/entrypoints/engine.py"
SWITCH = "python/sglang/srt/team_switch.py"
SERVER = "python/sglang/srt/entrypoints/http_server.py"
PATHS = {"conn": CONN, "engine": ENGINE, "switch": SWITCH, "server": SERVER, "docs": "docs/team.md"}


@dataclass(frozen=True)
class TeamFork:
    """A bare repository with upstream's shape, and one work tree to commit in."""

    path: Path
    work: Path

    def git(self, *argv: str) -> str:
        done = subprocess.run(["git", "-C", str(self.work), *argv], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def checkout(self, branch: str, onto: str) -> None:
        self.git("checkout", "--quiet", "-B", branch, onto)

    def commit(self, message: str, **appended: str) -> str:
        """Append lines to files (``conn=...``) and commit."""
        for name, text in appended.items():
            path = self.work / PATHS[name]
            path.parent.mkdir(exist_ok=True)
            path.write_text((path.read_text() if path.exists() else "") + text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", message)
        return self.git("rev-parse", "HEAD")

    def published(self) -> str:
        return subprocess.run(
            ["git", "--git-dir", str(self.path), "for-each-ref"], capture_output=True, text=True, check=True
        ).stdout

    def remote(self, *argv: str) -> str:
        return subprocess.run(
            ["git", "--git-dir", str(self.path), *argv], capture_output=True, text=True, check=True
        ).stdout.strip()


@pytest.fixture
def fork(tmp_path: Path) -> TeamFork:
    """Three pull requests; deploy has a merge of the first, a change on it, docs, a module, and a user of that."""
    made = TeamFork(tmp_path / "acme" / "sglang.git", tmp_path / "team")
    made.work.mkdir()
    made.git("init", "--quiet")
    with zipfile.ZipFile(fetch_wheel(f"sglang=={RELEASE}", cache_folder()).path) as wheel:
        for entry in wheel.infolist():
            if entry.filename.startswith(("sglang/", "tools/")) and not entry.filename.endswith(
                (".so", "/_version.py")
            ):
                path = Path(wheel.extract(entry, made.work / "python"))
                if entry.external_attr >> 16 & 0o100:
                    path.chmod(0o755)
    made.commit("Release", docs="Upstream's own.\n")
    made.git("tag", f"v{RELEASE}")
    made.commit("After the release", docs="Later.\n")
    made.checkout("fix/conn", f"v{RELEASE}")
    made.commit("pd: say who sends", conn="\nWHO_SENDS = True\n")
    made.checkout("fix/server", "main")
    made.commit("server: a name", server="\nSERVER_NAME = 'team'\n")
    made.checkout("fix/docs", "main")
    made.commit("docs alone", docs="More.\n")
    made.checkout("deploy", f"v{RELEASE}")
    made.git("merge", "--quiet", "--no-ff", "-m", "Merge branch 'fix/conn' into deploy", "fix/conn")
    made.commit("pd: louder", conn="WHO_SENDS_LOUD = True\n")
    made.commit("team docs", docs="Ours.\n")
    made.commit("team: a switch", switch="ON = True\n", docs="The switch.\n")
    made.commit("engine: read the switch", engine="\nfrom sglang.srt.team_switch import ON as TEAM_ON\n")
    subprocess.run(["git", "clone", "--quiet", "--bare", str(made.work), str(made.path)], check=True)
    for number, branch in enumerate(("fix/conn", "fix/server", "fix/docs"), 1):
        made.remote("update-ref", f"refs/pull/{number}/head", f"refs/heads/{branch}")
    return made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A clone of this project without any of its patches, and its own deploy.yaml moved away."""
    (tmp_path / "home" / "patches").mkdir(parents=True)
    made = copy_workplace(tmp_path / "home")
    (made.root / "deploy.yaml").unlink()
    shutil.rmtree(made.root / GUARDS)  # of a patch that is not there: nobody would run them
    return made


def test_an_accumulator_branch_is_adopted(fork: TeamFork, place: Place) -> None:
    before = fork.published()
    adopted = place.run("--local", "init", "--from", str(fork.path), "--json")
    assert adopted.code == 0, adopted.err
    assert fork.published() == before
    found = adopted.json
    assert (found["release"]["base"]["name"], found["deploy"]["name"]) == (f"sglang=={RELEASE}", "deploy")
    assert [(pull["name"], pull["deployed"], pull["tonight"]) for pull in found["beside"]["pulls"]] == [
        ("#1", 1, "in"),
        ("#2", 0, "in"),
        ("#3", 0, "excluded: nothing left that the base carries"),
    ]
    assert [lost["title"] for lost in found["beside"]["lost"]] == [
        "pd: louder",
        "team: a switch",
        "engine: read the switch",
    ]
    assert (place.root / ".github" / "workflows" / "nightly.yml").is_file()

    imported = place.run("--local", "patch", "import", f"v{RELEASE}..deploy", "--json")
    assert imported.code == 0, imported.err
    assert [(patch["slug"], patch["requires"]) for patch in imported.json["turned"]["imported"]] == [
        ("pd-say-who-sends", []),
        ("pd-louder", ["pd-say-who-sends"]),
        ("team-a-switch", []),
        ("engine-read-the-switch", []),
    ]
    assert [item["title"] for item in imported.json["turned"]["not_imported"]] == ["team docs"]
    assert [item["path"] for item in imported.json["differences"]] == ["python/sglang/_version.py"]

    assert place.run("validate").code == 0
    generated = place.run("generate")
    assert generated.code == 0, generated.err
    lint = place.run("lint")
    assert lint.code == 3, lint.err
    for slug in ("pd-say-who-sends", "pd-louder", "team-a-switch", "engine-read-the-switch"):
        folder = f"tests/regression/{slug.replace('-', '_')}"
        assert f"patches/{slug}/patch.md:10: kill-switch: it says TODO" in lint.err
        assert f"{folder}:1: guards: test_{slug.replace('-', '_')}.py passes on no tree" in lint.err

    merged = place.run("--local", "merge", "--json")
    assert merged.code == 0, merged.err
    assert names(merged.json["included"]) == [
        *("pd-say-who-sends", "pd-louder", "team-a-switch", "engine-read-the-switch", "#2"),
    ]
    assert {item["name"]: item["reason"] for item in merged.json["left_out"]} == {
        "#1": "same diff",
        "#3": "nothing left that the base carries",
    }
    store = ["git", "--git-dir", str(place.root / ".patchstack" / "store.git"), "show"]
    for path in (CONN, SWITCH):
        shown = subprocess.run([*store, f"{merged.json['commit']}:{path}"], capture_output=True, check=True).stdout
        assert shown == (fork.work / path).read_bytes()
    assert fork.published() == before


def test_the_first_night_goes_on_from_the_branch_that_is_deployed(fork: TeamFork, tmp_path: Path) -> None:
    """A real night with a real guard: the fork's deploy branch is fast-forwarded, its history stays below."""
    place = copy_workplace(tmp_path / "home", SLUG)
    (place.root / "deploy.yaml").unlink()
    bed = place.root / "tests" / "regression" / "bed"
    shutil.rmtree(bed)  # its controls take minutes and are no business of this test
    bed.mkdir()
    (bed / "test_bed.py").write_text(STACKED_GUARD.partition("@pytest.mark.control")[0] + BED_CONTROL)
    adopted = place.run("--local", "init", "--from", str(fork.path))
    assert adopted.code == 0, adopted.err
    before = fork.remote("rev-parse", "deploy")
    night = place.night()
    assert night.code == 0, night.err
    assert names(night.json["composition"]["included"]) == [SLUG, "#1", "#2"]
    promoted = night.json["promotion"]
    assert (promoted["previous"], fork.remote("rev-parse", "deploy")) == (before, promoted["commit"])
    assert fork.remote("log", "--first-parent", "--format=%H", f"{before}~1..deploy").split() == [
        promoted["commit"],
        before,
    ]
    assert fork.remote("show", f"deploy:{MODULE}")
    again = place.night()
    assert (again.code, again.json["nothing_to_do"]) == (0, True), again.err


def test_a_folder_that_is_in_use_is_refused(fork: TeamFork, place: Place) -> None:
    (place.root / "deploy.yaml").write_text("mine\n")
    refused = place.run("--local", "init", "--from", str(fork.path))
    assert (refused.code, "deploy.yaml: there already" in refused.err) == (2, True), refused.err
    assert (place.root / "deploy.yaml").read_text() == "mine\n"
    assert not (place.root / ".github").exists()
