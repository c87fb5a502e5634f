"""The machine's Python, and `.venv` as `make tool` would make it.

It is made without pip from the packages that the tests themselves run with (``STANDIN_PACKAGES``, their
site-packages), and from the code that the job has checked out; the step `make tool` finds it in order, and takes
milliseconds where it took twenty seconds. What `make tool` does on a machine that has nothing is a test of its own.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import venv
from pathlib import Path

ENTRY = '#!/bin/sh\nexec "$(dirname "$0")/python" -c "from patchstack.cli import main; main()" "$@"\n'


def main() -> None:
    asked, there = json.loads(os.environ["GIVEN"])["python-version"], platform.python_version()
    if not f"{there}.".startswith(f"{asked}."):
        sys.exit(f"setup-python: the workflow asks for Python {asked}, and python3 is {there}")
    with Path(os.environ["GITHUB_OUTPUT"]).open("a") as output:
        output.write(f"python-version={there}\n")
    packages = os.environ.get("STANDIN_PACKAGES")
    if packages:
        lay_out(Path(packages))


def lay_out(packages: Path) -> None:
    venv.create(".venv", with_pip=False, symlinks=True)
    (site,) = Path(".venv/lib").glob("python*/site-packages")
    (site / "tool.pth").write_text(f"{packages}\n../../../../scripts\n")
    entry = Path(".venv/bin/patchstack")
    entry.write_text(ENTRY)
    entry.chmod(0o755)
    asked = ["make", "--silent", "--eval", "which-stamp: ; @echo $(TOOL_READY)", "which-stamp"]
    Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()).touch()


if __name__ == "__main__":
    main()
