"""A team's fork as it was before patchstack, made by git alone, and a small release that it is on.

bench = ForkBench(tmp_path)           # a release in the cache; upstream's history with its tag and docs; main behind it
bench.commit("deploy", "a: one", {A: edit(TEN, 1, "ONE")})
bench.pull(1, "fix/b", "main", {B: ...})
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit.upstream.conftest import FILE, _write_wheel

from patchstack.model import Fingerprint
from patchstack.store import cache_folder
from patchstack.upstream.releases import _parsed, _record_path
from patchstack.upstream.wheel import sha256_of
from patchstack.verbs.inputs import inputs_now
from patchstack.workplace import Workplace, open_workplace

RELEASE = "0.5.12.post1"
A, B, NEW = "python/sglang/a.py", "python/sglang/b.py", "python/sglang/new.py"
TEN = "".join(f"line {number}\n" for number in range(1, 11))
LIBS = tuple(f"python/sglang/lib/{name}.py" for name in "stuvwxyz")
SOURCES = {A: TEN, B: TEN, **dict.fromkeys(LIBS, "LIB = 1\n")}
TWO_LANES = """\
schema: 1
fork: {repo: acme/sglang}
lanes:
  production:
    upstream: {pypi: sglang==0.5.12.post1}
    branch: deploy
  edge:
    upstream: {pypi: sglang==0.5.23}
    branch: deploy-edge
channels:
  nightly: {needs: [cpu]}
"""
GUARD = "import pytest\n\n\ndef test_it() -> None:\n    pytest.fail('not asked here')\n"


class Quiet:
    def __call__(self, message: str, /) -> None: ...

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        yield


def workplace(
    folder: Path, *, lane: str | None = None, remote: str | None = None, local: bool = False, state: str = ".patchstack"
) -> Workplace:
    """The workplace of the deploy.yaml in ``folder``, its state beside it."""
    return open_workplace(
        config_path=folder / "deploy.yaml",
        state_folder=folder / state,
        lane=lane,
        remote=remote,
        local=local,
        offline=True,
        progress=Quiet(),
    )


def write_repository(folder: Path) -> None:
    """A series of no patches, and guards of the bed: what a plan reads besides deploy.yaml."""
    for path, text in {"patches/series": "", "tests/regression/bed/test_bed.py": GUARD}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def as_planned(work: Workplace, digest: str) -> Fingerprint:
    """The fingerprint of a plan that was made in this very moment, by a name that a test can read."""
    return Fingerprint(digest, tuple(sorted(inputs_now(work).items())))


def release(version: str = RELEASE, sources: Mapping[str, str] = SOURCES) -> None:
    """Put a release into the cache, as if pip had fetched it: its wheel and the record of it."""
    wheels = cache_folder() / "wheels"
    files = [(path.removeprefix("python/"), text.encode(), FILE) for path, text in sources.items()]
    generated = ("sglang/_version.py", f"__version__ = version = '{version}'\n".encode(), FILE)
    made = _write_wheel(wheels / "made", [*files, generated], version=version)
    digest = sha256_of(made)
    (wheels / digest).mkdir()
    made.rename(wheels / digest / made.name)
    record = _record_path(wheels, _parsed(f"sglang=={version}"))
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps({"filename": made.name, "sha256": digest}))


@dataclass
class ForkBench:
    """A bare repository as a team keeps it, and the folder in which patchstack is to work."""

    folder: Path
    path: Path = field(default=Path())
    """Where the repository is. [default: acme/sglang.git in ``folder``]"""
    minute: int = 0
    begun: set[str] = field(default_factory=set)
    sources: Mapping[str, str] = field(default_factory=lambda: SOURCES)
    version: str = RELEASE

    def __post_init__(self) -> None:
        if self.path == Path():
            self.path = self.folder / "acme" / "sglang.git"
        release(self.version, self.sources)
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.path), at=self.folder)
        manifest = {"python/pyproject.toml": "[project]\n", "docs/x.md": "x\n"}
        self.commit("main", "Before the release", {**manifest, A: "older\n"})
        self.commit("main", f"Release {self.version}", dict(self.sources))
        self.git("tag", f"v{self.version}", "main")
        self.commit("main", "After the release", {"docs/x.md": "later\n"})

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def git(self, *argv: str, at: Path | None = None, stdin: str | None = None, **env: str) -> str:
        """Git, as a person types it, in the bare repository."""
        self.path.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["git", *argv],
            cwd=at or self.path,
            input=stdin,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(
        self, branch: str, message: str, files: Mapping[str, str], *, onto: str | None = None, author: str = "Ann"
    ) -> str:
        """One more commit on ``branch``, which begins at ``onto`` where it is not there yet."""
        self.minute += 1
        start = "" if branch not in self.begun and onto is None else f"refs/heads/{branch}^0"
        if branch not in self.begun and onto is not None:
            start = f"{onto}^0"
        self.begun.add(branch)
        when = f"{1_700_000_000 + 60 * self.minute} +0100"
        lines = [f"commit refs/heads/{branch}", f"author {author} <{author.lower()}@example.com> {when}"]
        lines += [f"committer Tester <tester@example.com> {when}", _data(message)]
        lines += [f"from {start}"] if start else []
        lines += [f"M 100644 inline {path}\n{_data(text)}" for path, text in files.items()]
        self.git("fast-import", "--quiet", stdin="\n".join(lines) + "\n")
        return self.git("rev-parse", f"refs/heads/{branch}")

    def merge(self, branch: str, other: str, message: str) -> str:
        """Merge ``other`` into ``branch`` with a merge commit."""
        self.minute += 1
        tree = self.git("merge-tree", "--write-tree", branch, other).splitlines()[0]
        date = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"{1700000000 + 60 * self.minute} +0000")
        made = self.git("commit-tree", tree, "-p", branch, "-p", other, "-m", message, **date)
        self.git("update-ref", f"refs/heads/{branch}", made)
        return made

    def merge_theirs(self, branch: str, other: str) -> str:
        """Merge ``other`` with its own files, whatever ``branch`` had."""
        made = self.git("commit-tree", f"{other}^{{tree}}", "-p", branch, "-p", other, "-m", f"Merge {other}")
        self.git("update-ref", f"refs/heads/{branch}", made)
        return made

    def pull(self, number: int, branch: str, onto: str, files: Mapping[str, str], *, title: str = "") -> str:
        """A branch with one commit, and the ref of the pull request that it is opened as."""
        made = self.commit(branch, title or f"Pull {number}", files, onto=onto, author="Bob")
        self.git("update-ref", f"refs/pull/{number}/head", made)
        return made

    def text(self, revision: str, path: str) -> str:
        return self.git("show", f"{revision}:{path}") + "\n"

    def refs(self) -> str:
        return self.git("for-each-ref")

    def guards(self) -> None:
        """What a clone of the project has, as far as a plan asks for it."""
        bed = self.work / "tests" / "regression" / "bed"
        bed.mkdir(parents=True)
        (bed / "test_bed.py").write_text(GUARD)

    def tree(self) -> dict[str, bytes]:
        """Every file of the folder, less the state."""
        found = {}
        for path in sorted(self.work.rglob("*")):
            name = path.relative_to(self.work)
            if path.is_file() and name.parts[0] != ".patchstack":
                found[name.as_posix()] = path.read_bytes()
        return found


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}"


def edit(text: str, number: int, line: str) -> str:
    lines = text.splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"
