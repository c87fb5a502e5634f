"""Imports modules one after the other in a process of their own, and says of each what came of it.

In: ``{"modules": […], "environment": {…}, "limit_s": 240}``. Out: ``{"imports": [{"module", "error", "missing"}, …],
"ended": 0, "late": false, "noise": ""}``. ``error`` is null for a module that was imported, else the exception's type
and words, and ``missing`` the name of the module that was not found; what follows a module in which the process ended
is not in the list. ``noise`` is the end of what was printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

CHILD = """
import importlib, json, os, sys
answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)
for module in sys.argv[2:]:
    error = missing = None
    try:
        importlib.import_module(module)
    except BaseException as failed:
        error = f"{type(failed).__name__}: {failed}"
        # What has tried several things says at the end why each of them failed.
        error = error if len(error) <= 3000 else f"{error[:500]} ... {error[-2400:]}"
        missing = getattr(failed, "name", None) if isinstance(failed, ImportError) else None
    print(json.dumps({"module": module, "error": error, "missing": missing and str(missing)[:200]}), file=answers)
answers.close()
os._exit(0)
"""


def main() -> None:
    asked = json.load(sys.stdin)
    answer = os.dup(1)
    os.dup2(2, 1)
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as noise:
        child = subprocess.Popen(
            [sys.executable, "-u", "-c", CHILD, str(said.fileno()), *asked["modules"]],
            env={**asked["environment"], **os.environ},
            pass_fds=[said.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=noise,
            stderr=noise,
            start_new_session=True,
        )
        late = False
        try:
            child.wait(asked["limit_s"])
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(child.pid, 9)
            child.wait()
        said.seek(0)
        end = noise.seek(0, os.SEEK_END)
        noise.seek(max(0, end - 2000))
        found = {
            "imports": [json.loads(line) for line in said.read().decode().splitlines()],
            "ended": child.returncode,
            "late": late,
            "noise": noise.read(2000).decode(errors="replace"),
        }
    with os.fdopen(answer, "w") as out:
        json.dump(found, out)


if __name__ == "__main__":
    main()
