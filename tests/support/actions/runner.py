"""Runs a workflow of a repository on the fake GitHub with the real act, each job in a folder of its own.

act is GitHub's runner on this machine (https://nektosact.com): steps run on the host, what they `uses:` is taken from
the stand-ins beside this module. Each run has a token of its own, which has nothing until a job's checkout asks for
what the workflow's file gives to that job, and which is revoked when the run ends.
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

from tests.support.github_server import GitHubServer, Repository

HERE = Path(__file__).parent
MACHINE = "ubuntu-24.04"
PINNED = re.compile(r"uses: ([\w-]+/[\w-]+)(?:/[\w-]+)?@([0-9a-f]{40})")
EXIT = re.compile(r"exit status (\d+)")
LIMIT_S = 600
ACT = Path(sys.executable).with_name("act")


@dataclass(frozen=True)
class Ran:
    """How a run ended."""

    code: int
    jobs: Mapping[str, str]
    """``success`` or ``failure`` of each job that ran; one that was skipped is not here."""
    exits: Mapping[tuple[str, str], int]
    """The exit code of each step that failed, by job and name of the step."""
    said: Mapping[tuple[str, str], str]
    """What each step printed."""
    artifacts: Mapping[str, Path]
    """The folders of what the run kept, by name."""
    log: str = field(repr=False)


@dataclass
class Runner:
    """A machine for the workflows of one repository."""

    hub: GitHubServer
    repository: Repository
    folder: Path
    runs: int = 0

    def run(
        self,
        workflow: str,
        event: str,
        *,
        payload: Mapping[str, Any] | None = None,
        inputs: Mapping[str, str] | None = None,
        ref: str = "",
        env: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run ``.github/workflows/WORKFLOW.yml`` as it is on the default branch; ``ref``: what `checkout` takes."""
        self.runs += 1
        checkout = self._workflows()
        ref = ref or f"refs/heads/{self.repository.default_branch}"
        event_path = self.folder / f"event-{self.runs}.json"
        event_path.write_text(json.dumps({"ref": ref, **self._about(), **(payload or {})}))
        token = self.hub.token("github-actions[bot]", repo=self.repository.name, permissions={})
        path = f".github/workflows/{workflow}.yml"
        told = {
            "GITHUB_API_URL": self.hub.api_url,
            "GITHUB_SERVER_URL": self.hub.server_url,
            "GITHUB_REPOSITORY": self.repository.name,
            "GITHUB_RUN_ID": str(self.runs),
            "GITHUB_REF": ref,
            "STANDIN_SHELF": str(self.folder / "shelf"),
            "STANDIN_PACKAGES": sysconfig.get_path("purelib"),
            **(env or {}),
        }
        argv = [
            *(str(ACT), event, "--directory", str(checkout), "--workflows", path, "--eventpath", str(event_path)),
            *("--platform", f"{MACHINE}=-self-hosted", "--no-skip-checkout", "--no-cache-server", "--rm", "--json"),
            *("--action-cache-path", str(self.folder / "act"), "--secret-file", str(self._secrets(token))),
            *(part for name, value in told.items() for part in ("--env", f"{name}={value}")),
            *(part for name, value in (inputs or {}).items() for part in ("--input", f"{name}={value}")),
            *self._stand_ins((checkout / path).read_text()),
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
        return _read(done.returncode, done.stdout, self._artifacts(str(self.runs)))

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

    def _workflows(self) -> Path:
        """A work tree of the default branch: where act reads the workflow's file, and nothing else."""
        place = self.folder / f"workflows-{self.runs}"
        branch = self.repository.default_branch
        argv = ["git", "clone", "--quiet", "--depth=1", "--branch", branch, self.repository.path.as_uri(), str(place)]
        subprocess.run(argv, check=True)
        return place

    def _stand_ins(self, workflow: str) -> list[str]:
        used = sorted(set(PINNED.findall(workflow)))
        return [f"--local-repository={name}@{sha}={HERE / name.partition('/')[2]}" for name, sha in used]

    def _secrets(self, token: str) -> Path:
        """The token in a file: act's steps inherit act's environment, and must not find it there."""
        path = self.folder / f"secrets-{self.runs}"
        path.touch(mode=0o600)
        path.write_text(f"GITHUB_TOKEN={token}\n")
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
        kept = {
            path: json.loads(path.read_text()) for path in (self.folder / "shelf" / "artifacts").glob("*/artifact.json")
        }
        return {about["name"]: path.parent / "files" for path, about in kept.items() if about["run"] == run}


def _read(code: int, log: str, artifacts: Mapping[str, Path]) -> Ran:
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
    return Ran(code, jobs, exits, said, artifacts, "\n".join(plain))
