"""`patch-pr.yml` and `patch-comment.yml`, run by act: what a pull request into `main` is told, and cannot do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.actions.fork import NAME, SLUG, Fork
from tests.support.actions.runner import Ran, Runner
from tests.support.github_server import GitHubServer

PROSE = f"patches/{SLUG}/patch.md"
DIFF = f"patches/{SLUG}/0.5.12.post1..0.5.12.post1.patch"
DAVE = "dave/sglang"
WORKFLOW = ".github/workflows/patch-pr.yml"


@dataclass
class Desk:
    """A fork and what happens when dave, who may write nowhere in it, opens pull requests into ``main``."""

    hub: GitHubServer
    fork: Fork
    runner: Runner

    def propose(self, number: int, files: dict[str, str | None]) -> int:
        sha = self.fork.commit("main", files, f"Proposal {number}")
        self.hub.repository(DAVE, fork_of=NAME).push(f"work-{number}", sha, by="dave")
        return self.fork.repository.open_pull(f"work-{number}", "main", "dave", number=number, head_repo=DAVE)

    def review(self, number: int) -> Ran:
        pull = self.fork.repository.pull(number)
        head = {"sha": pull.head, "ref": pull.head_ref, "repo": {"full_name": pull.head_repo}}
        event = {"number": number, "pull_request": {"number": number, "head": head, "base": {"ref": pull.base_ref}}}
        return self.runner.run("patch-pr", "pull_request", payload=event, ref=self.fork.merge_ref(number))

    def comment(self, reviewed: Ran, number: int) -> Ran:
        """What follows the run: GitHub says whose it was and how it ended."""
        run = {
            "id": int(reviewed.id),
            "event": "pull_request",
            "conclusion": "success" if reviewed.code == 0 else "failure",
            "head_sha": self.fork.repository.pull(number).head,
        }
        return self.runner.run("patch-comment", "workflow_run", payload={"action": "completed", "workflow_run": run})

    def said(self, number: int) -> list[str]:
        return [comment.body for comment in self.fork.repository.comments(number)]


@pytest.fixture(scope="module")
def desk(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    with GitHubServer(folder / "hub") as hub:
        fork = Fork(hub, folder)
        yield Desk(hub, fork, Runner(hub, fork.repository, folder))


def verdict(ran: Ran) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ran.artifacts["verdict"] / "verdict.json").read_text())
    return found


def test_a_good_patch_is_told_that_it_composes(desk: Desk) -> None:
    prose = desk.fork.read("main", PROSE)
    number = desk.propose(5, {PROSE: prose.replace("## Log lines\n", "## Log lines\n\nAs before.\n")})
    reviewed = desk.review(number)
    assert (reviewed.code, reviewed.exits) == (0, {}), reviewed.why
    found = verdict(reviewed)
    assert (found["number"], found["head"]) == (5, desk.fork.repository.pull(5).head)
    assert [(patch["slug"], patch["change"], patch["files"]) for patch in found["patches"]] == [
        (SLUG, "changed", ["patch.md"])
    ]
    assert desk.said(5) == []  # the job that read it can write nothing

    told = desk.comment(reviewed, number)
    assert (told.code, told.exits) == (0, {}), told.why
    (body,) = desk.said(5)
    assert SLUG in body

    again = desk.comment(reviewed, number)
    assert (again.code, desk.said(5)) == (0, [body])


def test_a_patch_that_does_not_apply_is_told_where(desk: Desk) -> None:
    lines = desk.fork.read("main", DIFF).splitlines(keepends=True)
    index = next(number for number, line in enumerate(lines) if re.match(r"-[^-]", line))
    lines[index] = f"-{lines[index][1:].rstrip()}_changed\n"
    number = desk.propose(6, {DIFF: "".join(lines)})
    reviewed = desk.review(number)
    assert reviewed.exits[("review", "Compose the stack with the change")] == 4, reviewed.why
    told = desk.comment(reviewed, number)
    assert (told.code, told.exits) == (0, {}), told.why
    (body,) = desk.said(6)
    assert "does not" in body
    assert SLUG in body


def forge(desk: Desk, number: int, text: str) -> Ran:
    """A pull request whose own workflow writes the verdict that it likes, as any may: they run its file."""
    document = yaml.safe_load(desk.fork.read("main", WORKFLOW))
    document["on"] = document.pop(True)
    (job,) = document["jobs"].values()
    upload = next(step for step in job["steps"] if "upload-artifact@" in step.get("uses", ""))
    job["steps"] = [job["steps"][0], {"name": "Forge", "run": "mv forged.json verdict.json"}, upload]
    return desk.review(desk.propose(number, {WORKFLOW: yaml.safe_dump(document), "forged.json": text}))


def test_a_forged_verdict_on_somebody_elses_pull_request_is_not_posted(desk: Desk) -> None:
    victim = desk.propose(8, {"a.txt": "a\n"})
    lie = {"schema_version": 1, "number": victim, "base": "0" * 40, "head": "1" * 40, "lint": {"problems": ["lies"]}}
    forged = forge(desk, 9, json.dumps(lie))
    assert forged.code == 0, forged.why
    told = desk.comment(forged, 9)
    assert told.exits == {("comment", "Check it and post it"): 2}, told.why
    assert (desk.said(8), desk.said(9)) == ([], [])


def test_an_artifact_that_is_no_verdict_is_not_posted(desk: Desk) -> None:
    forged = forge(desk, 10, json.dumps({"schema_version": 1, "body": "<h1>Approved</h1>"}))
    told = desk.comment(forged, 10)
    assert told.exits == {("comment", "Check it and post it"): 2}, told.why
    assert desk.said(10) == []


def test_the_reviewing_job_can_only_read(desk: Desk) -> None:
    """All that it asked GitHub for, whatever the pull request changed: its job, and the commits of the fork."""
    asked = [one for one in desk.hub.requests if one.login and not one.path.startswith(f"/{NAME}.git/")]
    reading = {(one.method, one.path) for one in asked if one.method != "GET"}
    assert reading <= {
        ("POST", "/_runner/job"),
        *(("POST", f"/repos/{NAME}/issues/{number}/comments") for number in (5, 6)),
    }


def test_a_pull_request_into_another_branch_is_no_patch(desk: Desk) -> None:
    desk.fork.repository.push("base/production", desk.fork.tip("main"), by="ann")
    sha = desk.fork.commit("main", {"b.txt": "b\n"}, "A candidate")
    desk.fork.repository.push("work-11", sha, by="ann")
    desk.fork.repository.open_pull("work-11", "base/production", "ann", number=11)
    assert (desk.review(11).code, desk.review(11).jobs) == (0, {})
