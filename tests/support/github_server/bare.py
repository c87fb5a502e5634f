"""Git on one bare repository, by argv, sealed off from the user's configuration.

The repositories of one fork network share their objects, as they do on GitHub: what was pushed to a fork can
be fetched from its parent by SHA.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

ZERO = "0" * 40
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
HEADS = "refs/heads/"
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LC_ALL": "C",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "GitHub",
    "GIT_AUTHOR_EMAIL": "noreply@github.example",
    "GIT_COMMITTER_NAME": "GitHub",
    "GIT_COMMITTER_EMAIL": "noreply@github.example",
}
_CONFIGURATION = {
    # https://docs.github.com/en/pull-requests/collaborating-with-pull-requests: refs/pull is read-only, and
    # GitHub hands over every commit that it has, named by a ref or not.
    "receive.hideRefs": "refs/pull",
    "uploadpack.allowAnySHA1InWant": "true",
    "uploadpack.allowFilter": "true",
    "http.receivepack": "true",
    "receive.autogc": "false",
    "gc.auto": "0",
}


class GitRefused(Exception):
    """Git ended with something other than 0."""


def git(path: Path, *argv: str, stdin: str = "", environment: Mapping[str, str] | None = None) -> str:
    done = attempt(path, *argv, stdin=stdin, environment=environment)
    if done.returncode != 0:
        raise GitRefused(f"git {' '.join(argv[:4])} in {path.name}: {done.stderr.strip()}")
    return done.stdout


def attempt(
    path: Path, *argv: str, stdin: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "--git-dir", str(path), *argv],
        input=stdin,
        env={**ENVIRONMENT, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def make(path: Path, default_branch: str, parent: Path | None = None) -> None:
    """An empty repository; with ``parent``: one with its branches and its objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    git(path, "init", "--quiet", "--bare", f"--initial-branch={default_branch}")
    # In one go: a process for each key is slower than all the rest.
    sections = [key.rsplit(".", 1) for key in _CONFIGURATION]
    with (path / "config").open("a") as config:
        for (section, key), value in zip(sections, _CONFIGURATION.values(), strict=True):
            config.write(f"[{section}]\n\t{key} = {value}\n")
    if parent is not None:
        shutil.rmtree(path / "objects")
        (path / "objects").symlink_to((parent / "objects").resolve())
        set_refs(path, refs(parent, HEADS))


def refs(path: Path, prefix: str) -> dict[str, str]:
    """Every ref below ``prefix``, by its full name."""
    found = git(path, "for-each-ref", "--format=%(objectname) %(refname)", prefix)
    return {name: sha for sha, name in (line.split(" ", 1) for line in found.split("\n") if line)}


def set_refs(path: Path, new: Mapping[str, str | None]) -> None:
    """Set each ref, or delete it (None), without a word to anybody."""
    lines = [f"delete {name}\n" if sha is None else f"update {name} {sha}\n" for name, sha in new.items()]
    if lines:
        git(path, "update-ref", "--stdin", stdin="".join(lines))


def keep(path: Path, name: str, sha: str) -> None:
    """Write a ref that points at something that is there, without the price of a process.

    https://git-scm.com/docs/gitrepository-layout: a loose ref is a file with the SHA in it.
    """
    ref = path / name
    ref.parent.mkdir(parents=True, exist_ok=True)
    new = ref.with_suffix(".lock")
    new.write_text(f"{sha}\n")
    new.replace(ref)


def contains(path: Path, descendant: str, ancestor: str) -> bool:
    return attempt(path, "merge-base", "--is-ancestor", ancestor, descendant).returncode == 0


def reached_by(path: Path, tip: str, names: Iterable[str]) -> set[str]:
    """Those of ``names`` that ``tip`` contains."""
    wanted = list(names)
    if not wanted:
        return set()
    return set(git(path, "for-each-ref", f"--merged={tip}", "--format=%(refname)", *wanted).split("\n"))


def sizes(path: Path, base: str, head: str) -> dict[str, int]:
    """Commits, files and lines between where ``head`` left ``base`` and ``head``."""
    commits = int(git(path, "rev-list", "--count", f"{base}..{head}"))
    start = attempt(path, "merge-base", base, head).stdout.strip() or EMPTY_TREE
    rows = [line.split("\t")[:2] for line in git(path, "diff", "--numstat", start, head).splitlines()]
    added, deleted = (sum(int(row[at]) for row in rows if row[at].isdigit()) for at in (0, 1))
    return {"commits": commits, "changed_files": len(rows), "additions": added, "deletions": deleted}


def merge(path: Path, ours: str, theirs: str, subject: str, at: int) -> str | None:
    """The merge commit of two commits; None when they conflict."""
    tree = attempt(path, "merge-tree", "--write-tree", ours, theirs)
    if tree.returncode != 0:
        return None
    when = {"GIT_AUTHOR_DATE": f"@{at} +0000", "GIT_COMMITTER_DATE": f"@{at} +0000"}
    first = tree.stdout.split("\n", 1)[0]
    return git(path, "commit-tree", first, "-p", ours, "-p", theirs, "-m", subject, environment=when).strip()
