"""A fork on the fake GitHub as the workflows find it: this project on ``main``, and commits to propose.

The stack is one patch, the one whose guards are quickest, so that a night takes seconds and not minutes; the bed's
own controls, which take minutes, are one here. All else is this repository as it stands.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.github_server import GitHubServer, Repository

ROOT = Path(__file__).parents[3]
NAME = "acme/sglang"
SLUG = "mooncake-protocol"
BASE_BRANCH, STACK_BRANCH, DEPLOY = "base/production", "stack/production", "deploy"

LEFT_OUT = ("patches/", "tests/regression/", "tests/unit/", "tests/e2e/", "tests/bench/")
KEPT = (f"patches/{SLUG}/", "patches/releases", "tests/regression/mooncake_protocol/")
BED_CONTROL = """\
import os
from pathlib import Path

import pytest


@pytest.mark.control
def test_the_tree_is_sglang() -> None:
    assert (Path(os.environ["PATCHSTACK_TREE"]) / "python" / "sglang" / "srt").is_dir()
"""


def lay_out(folder: Path) -> None:
    """The files of the fork's ``main``: those that git does not ignore here, with the short stack."""
    argv = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and (name.startswith(KEPT) or not name.startswith(LEFT_OUT)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "patches" / "series").write_text(f"{SLUG}\n")
    bed = folder / "tests" / "regression" / "bed" / "test_bed.py"
    bed.parent.mkdir(parents=True)
    bed.write_text(BED_CONTROL)
    config = folder / "deploy.yaml"
    # Without what the lane switches on, and without a repository and a registry that are not here.
    dropped = ("optional:", "image:")
    lines = [line for line in config.read_text().splitlines(keepends=True) if not line.strip().startswith(dropped)]
    config.write_text("".join(line for line in lines if "sgl-project/sglang" not in line))


class Fork:
    """``acme/sglang`` with ``ann``, who may write, and commits made without a work tree."""

    def __init__(self, hub: GitHubServer, folder: Path) -> None:
        self.repository: Repository = hub.repository(NAME)
        hub.user("ann", write=[NAME])
        self.folder = main = folder / "main"
        lay_out(main)
        self._verb("generate")  # the README's table of a short stack
        with TemporaryDirectory() as index:
            self._git("add", "--all", "--force", ".", work_tree=main, index=f"{index}/index")
            tree = self._git("write-tree", index=f"{index}/index")
        self.repository.push("main", self._git("commit-tree", tree, "-m", "This project, with a short stack"), "ann")

    def publish_base(self) -> None:
        """Make ``base/production`` as a first night does: pull requests begin there."""
        base = json.loads(self._verb("--local", "plan", "--json"))["base"]["commit"]
        store = self.folder / ".patchstack" / "store.git"
        push = ["git", "--git-dir", str(store), "push", "--quiet", str(self.repository.path)]
        subprocess.run([*push, f"{base}:refs/heads/{BASE_BRANCH}"], check=True)
        self.repository.notice("ann")

    def change_main(self, files: Mapping[str, str | None], subject: str) -> None:
        self.repository.push("main", self.commit("main", files, subject), "ann")

    def commit(self, parent: str, files: Mapping[str, str | None], subject: str) -> str:
        """A commit on ``parent`` (a branch or a SHA) that writes these files, or deletes those that are None."""
        with TemporaryDirectory() as folder:
            index = f"{folder}/index"
            self._git("read-tree", parent, index=index)
            for path, text in files.items():
                if text is None:
                    self._git("update-index", "--force-remove", path, index=index)
                else:
                    blob = self._git("hash-object", "-w", "--stdin", stdin=text)
                    self._git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", index=index)
            tree = self._git("write-tree", index=index)
        return self._git("commit-tree", tree, "-p", parent, "-m", subject)

    def read(self, revision: str, path: str) -> str:
        """A file as it is there."""
        return self._git("show", f"{revision}:{path}", strip=False)

    def tip(self, branch: str) -> str:
        return self._git("rev-parse", f"refs/heads/{branch}")

    def lines_of(self, *argv: str) -> list[str]:
        return self._git(*argv).splitlines()

    def propose(self, branch: str, sha: str, *, into: str, number: int, title: str, author: str = "bob") -> int:
        self.repository.push(branch, sha, author)
        return self.repository.open_pull(branch, into, author, title, number=number)

    def merge_ref(self, number: int) -> str:
        """What GitHub keeps at ``refs/pull/N/merge``: the pull request merged into its base, as `checkout` takes it."""
        pull = self.repository.pull(number)
        tree = self._git("merge-tree", "--write-tree", pull.base_ref, pull.head).splitlines()[0]
        merged = self._git("commit-tree", tree, "-p", pull.base_ref, "-p", pull.head, "-m", f"Merge #{number}")
        self._git("update-ref", f"refs/pull/{number}/merge", merged)
        return f"refs/pull/{number}/merge"

    def refs(self) -> dict[str, str]:
        """Every branch and tag that a night may move, by its full name."""
        mine = ("refs/heads/base", "refs/heads/stack", f"refs/heads/{DEPLOY}", "refs/tags")
        return dict(
            line.split(" ") for line in self.lines_of("for-each-ref", "--format=%(refname) %(objectname)", *mine)
        )

    def set_refs(self, wanted: Mapping[str, str]) -> None:
        """Put the branches and tags that a night moves back to what they were."""
        now = self.refs()
        lines = [f"update {name} {sha}" for name, sha in wanted.items()]
        lines += [f"delete {name}" for name in now if name not in wanted]
        self._git("update-ref", "--stdin", stdin="\n".join(lines) + "\n")
        self.repository.notice("ann")

    def _verb(self, *argv: str) -> str:
        """`patchstack` in a work tree of ``main``; what it prints."""
        verb = [sys.executable, "-c", "from patchstack.cli import main; main()", *argv]
        done = subprocess.run(verb, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _git(
        self, *argv: str, index: str = "", stdin: str = "", work_tree: Path | None = None, strip: bool = True
    ) -> str:
        env = {**os.environ, **({"GIT_INDEX_FILE": index} if index else {})}
        where = ["--git-dir", str(self.repository.path), *(["--work-tree", str(work_tree)] if work_tree else [])]
        done = subprocess.run(
            ["git", *where, *argv], env=env, input=stdin, capture_output=True, text=True, cwd=work_tree, check=False
        )
        assert done.returncode == 0, f"git {' '.join(argv)}: {done.stderr}"
        return done.stdout.strip() if strip else done.stdout
