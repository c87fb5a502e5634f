"""Runs a workflow of a repository on the fake GitHub with the real act, each job in a folder of its own.

act is GitHub's runner on this machine (https://nektosact.com): steps run on the host, what they `uses:` is taken from
the stand-ins beside this module. Each run has a token of its own, which has nothing until a job's checkout asks for
what the workflow's file gives to that job, and which is revoked when the run ends. One job runs at a time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tests.support.github_server import GitHubServer, Repository

HERE = Path(__file__).parent
MACHINE = "ubuntu-24.04"
OURS = "self-hosted"
"""The label of machines of ours; jobs run here that have it, and no other one with it."""
PINNED = re.compile(r"uses: ([\w-]+/[\w-]+)(?:/[\w-]+)?@([0-9a-f]{40})")
EXIT = re.compile(r"exit status (\d+)")
LIMIT_S = 1800
ACT = Path(sys.executable).with_name("act")


@dataclass(frozen=True)
class Ran:
    """How a run ended."""

    id: str
    code: int
    jobs: Mapping[str, str]
    """``success`` or ``failure`` of each job that ran; one that was skipped is not here."""
    exits: Mapping[tuple[str, str], int]
    """The exit code of each step that failed, by job and name of the step."""
    said: Mapping[tuple[str, str], str]
    """What each step printed."""
    artifacts: Mapping[str, Path]
    """The folders of what the run has kept, by name; the folder above is named by the id."""
    log: str = field(repr=False)

    @property
    def why(self) -> str:
        """What the failed steps said, for a person."""
        failed = [
            f"{'/'.join(step)} ended with {code}:\n{self.said.get(step, '')[-6000:]}"
            for step, code in self.exits.items()
        ]
        return "\n".join(failed) or self.log[-3000:]


@dataclass
class Runner:
    """A machine for the workflows of one repository."""

    hub: GitHubServer
    repository: Repository
    folder: Path
    begun: int = 0

    def run(
        self,
        workflow: str,
        event: str,
        *,
        payload: Mapping[str, Any] | None = None,
        ref: str = "",
        text: str = "",
        run_id: str = "",
        attempt: int = 1,
    ) -> Ran:
        """Run ``.github/workflows/WORKFLOW.yml``.

        ``ref``: what `checkout` takes and where the workflow's file is read (the default branch); ``text``: instead
        of that file; ``run_id``: of the run that this is a further ``attempt`` of.
        """
        self.begun += 1
        run, path = run_id or str(self.begun), Path(".github") / "workflows" / f"{workflow}.yml"
        ref = ref or f"refs/heads/{self.repository.default_branch}"
        checkout = self._checkout(ref)
        if text:
            (checkout / path).write_text(text)
        event_path = self._write("event.json", json.dumps({"ref": ref, **self._about(), **(payload or {})}))
        token = self.hub.token("github-actions[bot]", repo=self.repository.name, permissions={})
        # In a file: act's steps inherit act's environment, and must not find it there.
        secrets = self._write("secrets", f"GITHUB_TOKEN={token}\n")
        told = {
            "GITHUB_API_URL": self.hub.api_url,
            "GITHUB_SERVER_URL": self.hub.server_url,
            "GITHUB_REPOSITORY": self.repository.name,
            "GITHUB_RUN_ID": run,
            "GITHUB_RUN_ATTEMPT": str(attempt),
            "GITHUB_REF": ref,
            "PATCHSTACK_NOW": self.hub.clock.now,
            "TERM": "dumb",
            "STANDIN_SHELF": str(self.folder / "shelf"),
            "STANDIN_PACKAGES": sysconfig.get_path("purelib"),
        }
        argv = [
            *(str(ACT), event, "--directory", str(checkout), "--workflows", str(path), "--eventpath", str(event_path)),
            *(part for label in (MACHINE, OURS) for part in ("--platform", f"{label}=-self-hosted")),
            *("--no-skip-checkout", "--no-cache-server", "--rm", "--json"),
            *("--action-cache-path", str(self.folder / "act"), "--secret-file", str(secrets), "--concurrent-jobs", "1"),
            *(part for name, value in told.items() for part in ("--env", f"{name}={value}")),
            *_stand_ins((checkout / path).read_text()),
        ]
        try:
            done = subprocess.run(
                argv,
                env=self._environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        finally:
            self.hub.revoke(token)
        return _read(run, done.returncode, done.stdout, self._artifacts(run))

    def run_again(
        self, ran: Ran, workflow: str, event: str, job: str, needed: Mapping[str, str], *, attempt: int
    ) -> Ran:
        """One job of ``ran`` as a further attempt, as "Re-run jobs" does it.

        What the jobs before it have given to it (``needs.NAME.outputs.NAME``, ``needs.NAME.result``) is in ``needed``.
        """
        document = self.read_workflow(workflow)
        alone = {key: value for key, value in document["jobs"][job].items() if key not in ("needs", "if")}
        given = json.dumps(alone)
        for name, value in needed.items():
            given = given.replace(f"${{{{ {name} }}}}", value).replace(name, f"'{value}'")
        assert "needs." not in given, "a job needs more than it was given"
        text = yaml.safe_dump({**document, "jobs": {job: json.loads(given)}})
        return self.run(workflow, event, text=text, run_id=ran.id, attempt=attempt)

    def read_workflow(self, workflow: str) -> dict[str, Any]:
        """The file on the default branch, with its key ``on`` as it is written."""
        found: dict[str, Any] = yaml.safe_load(
            self.hub.read_workflow(f".github/workflows/{workflow}.yml", self.repository.name)
        )
        found["on"] = found.pop(True)  # YAML 1.1 reads `on` as true
        return found

    def _about(self) -> dict[str, Any]:
        owner, name = self.repository.name.split("/")
        return {
            "repository": {
                "full_name": self.repository.name,
                "name": name,
                "owner": {"login": owner},
                "default_branch": self.repository.default_branch,
            }
        }

    def _checkout(self, ref: str) -> Path:
        """A work tree of ``ref``: where act reads the workflow's file, and nothing else."""
        place = self.folder / f"workflows-{self.begun}"
        for argv in (
            ["git", "init", "--quiet", str(place)],
            ["git", "-C", str(place), "fetch", "--quiet", "--depth=1", self.repository.path.as_uri(), ref],
            ["git", "-C", str(place), "checkout", "--quiet", "-b", "workflows", "FETCH_HEAD"],
        ):
            subprocess.run(argv, check=True)
        return place

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / f"{self.begun}-{name}"
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    def _environment(self) -> dict[str, str]:
        """This process's, less what a runner that runs these tests would have told it, and with the right Python."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GITHUB_", "ACTIONS_", "RUNNER_", "INPUT_", "PYTEST_")) and name != "GH_TOKEN"
        }
        programs = self.folder / "programs"
        programs.mkdir(exist_ok=True)
        python = programs / "python3"
        if not python.exists():
            python.symlink_to(
                Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
            )
        return {**kept, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}

    def _artifacts(self, run: str) -> dict[str, Path]:
        found = (self.folder / "shelf" / "artifacts").glob("*/artifact.json")
        kept = {path: json.loads(path.read_text()) for path in found}
        return {about["name"]: path.parent / "files" for path, about in kept.items() if about["run"] == run}


def _stand_ins(workflow: str) -> list[str]:
    used = sorted(set(PINNED.findall(workflow)))
    return [f"--local-repository={name}@{sha}={HERE / name.partition('/')[2]}" for name, sha in used]


def _read(run: str, code: int, log: str, artifacts: Mapping[str, Path]) -> Ran:
    jobs: dict[str, str] = {}
    exits: dict[tuple[str, str], int] = {}
    said: dict[tuple[str, str], str] = {}
    plain: list[str] = []
    for line in log.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            plain.append(line)
            continue
        where, text = (event.get("jobID", ""), event.get("step", "")), event.get("msg", "")
        if "jobResult" in event:
            jobs[event["jobID"]] = event["jobResult"]
        if event.get("raw_output"):
            said[where] = said.get(where, "") + text
        elif event.get("stage") == "Main" and (found := EXIT.fullmatch(text)):
            exits[where] = int(found[1])
        if not text.startswith("LocalRepositoryCache"):
            plain.append(f"[{'/'.join(where)}] {text.rstrip()}")
    return Ran(run, code, jobs, exits, said, artifacts, "\n".join(plain))
