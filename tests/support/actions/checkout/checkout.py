"""Fetches the ref of the run over HTTP with the job's token, which from here on has the job's permissions.

The runner of GitHub hands each job a token of its own, with what the workflow's file declares for that job. act
hands the same one to all: so the first thing that a job does here is to tell the server which job it is.
"""

# ruff: noqa: T201 what a step prints is its log

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path


def main() -> None:
    given = json.loads(os.environ["GIVEN"])
    if given["persist-credentials"] != "false":
        sys.exit("checkout: persist-credentials is not false: the token would lie in .git/config for every later step")
    if given.get("repository") or given.get("path"):
        sys.exit("checkout: this stand-in knows neither `repository` nor `path`")
    server, token = os.environ["GITHUB_SERVER_URL"], given["token"]
    begin_job(token)
    ref = given.get("ref") or os.environ["GITHUB_REF"]
    depth = [] if given["fetch-depth"] == "0" else [f"--depth={given['fetch-depth']}"]
    secret = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    env = {
        **os.environ,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{server}/.extraheader",
        "GIT_CONFIG_VALUE_0": f"AUTHORIZATION: basic {secret}",
    }
    for argv in (
        ["git", "init", "--quiet", "."],
        ["git", "remote", "add", "origin", f"{server}/{os.environ['GITHUB_REPOSITORY']}.git"],
        ["git", "fetch", "--quiet", "--no-tags", *depth, "origin", f"+{ref}:refs/checkout"],
        ["git", "checkout", "--quiet", "--detach", "refs/checkout"],
    ):
        subprocess.run(argv, env=env, check=True)


def begin_job(token: str) -> None:
    """https://docs.github.com/en/actions/security-for-github-actions/security-guides/automatic-token-authentication"""
    workflow = f".github/workflows/{os.environ['GITHUB_WORKFLOW']}.yml"  # a workflow is named as its file
    event = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text())
    source = event.get("pull_request", {}).get("head", {}).get("repo", {}).get("full_name")
    from_fork = source not in (None, os.environ["GITHUB_REPOSITORY"])
    asked = {"workflow": workflow, "job": os.environ["GITHUB_JOB"], "from_fork": from_fork}
    body = json.dumps(asked).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(
        f"{os.environ['GITHUB_API_URL']}/_runner/job", data=body, headers=headers, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        print(f"checkout: this job's token may: {answer.read().decode()}")


if __name__ == "__main__":
    main()
