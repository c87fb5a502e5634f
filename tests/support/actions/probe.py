"""A step for a job under test: what GitHub lets this job's token do, one JSON object of HTTP statuses.

It asks for what a job would need that turned against the fork: to push a branch, to comment on a pull request, to
open an issue, to change a pull request. ``PULL`` is the number of an open one.
"""

# ruff: noqa: T201 what a step prints is its log

from __future__ import annotations

import base64
import json
import os
import subprocess
import urllib.error
import urllib.request

TOKEN = os.environ["PROBE_TOKEN"]
REPOSITORY = f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}"


def ask(method: str, path: str, body: dict[str, str]) -> int:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(
        f"{REPOSITORY}{path}", data=json.dumps(body).encode(), headers=headers, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def push() -> bool:
    """Whether a push of what is checked out to a new branch goes through."""
    server = os.environ["GITHUB_SERVER_URL"]
    secret = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    settings = {f"http.{server}/.extraheader": f"AUTHORIZATION: basic {secret}"}
    config = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    branch = f"HEAD:refs/heads/probe-{os.environ['GITHUB_WORKFLOW']}-{os.environ['GITHUB_JOB']}"
    return subprocess.run(["git", *config, "push", "--quiet", "origin", branch], check=False).returncode == 0


if __name__ == "__main__":
    pull = os.environ["PULL"]
    done = {
        "push": push(),
        "comment": ask("POST", f"/issues/{pull}/comments", {"body": "probe"}) == 201,
        "issue": ask("POST", "/issues", {"title": "probe"}) == 201,
        "change": ask("PATCH", f"/issues/{pull}", {"title": "probed"}) == 200,
    }
    print(json.dumps(done))
