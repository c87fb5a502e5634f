"""Git, by argv, through GitPython; nothing else in this package starts git.

Two ways to run it. *Local* commands work on one repository and see nothing of the user: an empty
environment, no system, global or attribute configuration, a fixed identity, dates given with each commit.
*Remote* commands (`ls_remote`, `fetch`, `push`) use the user's configuration and credentials, less the
variables that would point git at another repository; GitHub's server is shown the token (`credential.py`).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import git as gitpython

from patchstack.bundle import read_bundle_header
from patchstack.credential import Credential, credential_for, is_secret
from patchstack.errors import MachineError, PatchstackError, RemoteError, UsageError
from patchstack.leftovers import scratch_folder
from patchstack.machine import require_machine
from patchstack.model import Sha
from patchstack.soundness import NO_HOOKS, STRICT, UnsoundError
from patchstack.store import write_whole

NAME = "patchstack"
EMAIL = "patchstack@localhost"
EMPTY_TREE = Sha("4b825dc642cb6eb9a060e54bf8d69288fbee4904")
ZERO = Sha("0" * 40)
OLDEST_GIT = (2, 38)  # the first with `merge-tree --write-tree`

# https://git-scm.com/docs/gitattributes: attributes in a tree change what checkout and archive write; the
# repository's own info/attributes comes last and so has the last word.
NEUTRAL_ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding -export-ignore -export-subst !merge !diff\n"

_SETTINGS = {
    "core.autocrlf": "false",
    "gc.auto": "0",
    "merge.renames": "true",
    "core.logAllRefUpdates": "false",
}
"""Of every repository that is ours."""

_LOCAL_ENVIRONMENT = {
    "LC_ALL": "C",
    "TZ": "UTC",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    # https://git-scm.com/docs/git-replace: a ref that shows another object in the place of the one that was named.
    "GIT_NO_REPLACE_OBJECTS": "1",
    # https://git-scm.com/docs/gitrepository-layout: `info/grafts` gives a commit other parents than it has.
    "GIT_GRAFT_FILE": "/nonexistent/grafts",
    "GIT_AUTHOR_NAME": NAME,
    "GIT_AUTHOR_EMAIL": EMAIL,
    "GIT_COMMITTER_NAME": NAME,
    "GIT_COMMITTER_EMAIL": EMAIL,
    "GIT_AUTHOR_DATE": "@0 +0000",
    "GIT_COMMITTER_DATE": "@0 +0000",
}

# Variables that point git at another repository, index or object store than the one that is meant.
_REPOSITORY_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_CONFIG",
)


class GitFailed(PatchstackError):
    """A local git command failed where it must not: a bug, or a damaged store."""

    def __init__(self, argv: Sequence[str], answer: Answer) -> None:
        said = answer.stderr.strip() or answer.text.strip() or "nothing said"
        super().__init__(f"`git {' '.join(argv[:4])}` ended with {answer.returncode}: {said}")
        self.answer = answer


@dataclass(frozen=True)
class Answer:
    returncode: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Standard output without its last newline."""
        return self.stdout.decode(errors="surrogateescape").removesuffix("\n")


@dataclass(frozen=True)
class Signature:
    """Who and when, as git writes it: ``date`` is ``@<seconds> <zone>``."""

    name: str = NAME
    email: str = EMAIL
    date: str = "@0 +0000"


@dataclass(frozen=True)
class Merged:
    """What `merge-tree` found: the merged tree, or the tree with conflict markers and the files in conflict."""

    tree: Sha
    conflicts: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not self.conflicts


@dataclass(frozen=True)
class Change:
    """One path between two trees (renames are shown as a deletion and an addition)."""

    path: str
    status: str
    """A, D, M or T (type change)."""
    old_mode: str
    new_mode: str
    old_blob: Sha
    new_blob: Sha


@dataclass(frozen=True)
class Entry:
    mode: str
    kind: str
    sha: Sha
    path: str


def version() -> tuple[int, ...]:
    """This machine's git; `MachineError` when it is not there or too old for `merge-tree --write-tree`."""
    try:
        answer = _execute(["git", "version"], Path.cwd())
    except gitpython.GitCommandNotFound as error:
        raise MachineError("git is not installed; install git 2.38 or later") from error
    numbers = re.findall(r"\d+", answer.text)
    found = tuple(int(number) for number in numbers[:3])
    if found < OLDEST_GIT:
        raise MachineError(f"{answer.text}: patchstack needs git 2.38 or later for `merge-tree --write-tree`")
    return found


def _execute(
    argv: list[str],
    folder: Path,
    stdin: bytes | BinaryIO | None = None,
    more: Mapping[str, str] | None = None,
) -> Answer:
    """Run argv with GitPython, ``more`` in its environment. Its input must be a real file: bytes go through one."""
    given = None if stdin is None or isinstance(stdin, bytes) else stdin
    with tempfile.TemporaryFile() if given is None else nullcontext(given) as stream:
        if isinstance(stdin, bytes):
            stream.write(stdin)
            stream.seek(0)
        status, stdout, stderr = gitpython.Git(str(folder)).execute(
            argv,
            istream=stream,
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
            env=dict(more or {}),
        )
    out = stdout if isinstance(stdout, bytes) else str(stdout).encode(errors="surrogateescape")
    err = stderr.decode(errors="replace") if isinstance(stderr, bytes) else str(stderr)
    return Answer(int(status), out, err)


class Repository:
    """One repository on this disk, local commands sealed off from the user's configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @classmethod
    def init(cls, folder: Path) -> Repository:
        """The bare repository at ``folder``, made if it is not there, with attributes neutralised.

        It appears whole, and its attributes are written last: without them it is somebody else's, or was begun by a
        version that did not care, and what is missing is made.
        """
        repository = cls(folder)
        attributes = folder / "info" / "attributes"
        try:
            if attributes.is_file() and attributes.read_text() == NEUTRAL_ATTRIBUTES and (folder / "HEAD").is_file():
                return repository
            if folder.is_dir() and any(folder.iterdir()):
                repository._complete()
                return repository
            folder.parent.mkdir(parents=True, exist_ok=True)
            with scratch_folder(folder) as scratch:
                fresh = cls(scratch / "new.git")
                fresh.folder.mkdir()
                fresh._complete()
                try:
                    fresh.folder.rename(folder)
                except OSError:  # another process was quicker
                    if not (folder / "HEAD").is_file():
                        raise
        except OSError as error:
            raise MachineError(f"{folder} cannot be made: {error.strerror}") from error
        return repository

    def _complete(self) -> None:
        self.run("init", "--quiet", "--bare", "--initial-branch=main", "--template=", ".")
        for key, value in _SETTINGS.items():
            self.run("config", key, value)
        write_whole(self.folder / "info" / "attributes", NEUTRAL_ATTRIBUTES)

    # --- the two ways to run git ---

    def attempt(
        self, *argv: str, stdin: bytes | BinaryIO | None = None, env: Mapping[str, str] | None = None
    ) -> Answer:
        """Run a local command; its answer whatever its exit status, `MachineError` for a full disk and the like."""
        environment = {
            **_LOCAL_ENVIRONMENT,
            "PATH": os.environ.get("PATH", os.defpath),
            **({"GIT_DIR": str(self.folder)} if (self.folder / "HEAD").is_file() else {}),
            **(env or {}),
        }
        settings = [f"{key}={value}" for key, value in environment.items()]
        answer = _execute(["env", "-i", *settings, "git", *argv], self.folder, stdin)
        if answer.returncode != 0:
            require_machine(answer.stderr, self.folder)
        return answer

    def run(
        self, *argv: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None, ok: tuple[int, ...] = (0,)
    ) -> str:
        """Run a local command; its output as text, `GitFailed` for an exit status that is not in ``ok``."""
        answer = self.attempt(*argv, stdin=stdin, env=env)
        if answer.returncode not in ok:
            raise GitFailed(argv, answer)
        return answer.text

    def _remote(self, url: str, *argv: str, stdin: bytes | None = None) -> Answer:
        """Run a command that talks to ``url``; its answer has no credential in it, whatever the remote said."""
        credential = credential_for(url)
        shown = credential.environment(os.environ) if credential else {}
        drop = [name for name in os.environ if name in _REPOSITORY_VARIABLES or is_secret(name)]
        drop += credential.dropped(os.environ) if credential else []
        unset = [part for name in drop if name not in shown for part in ("-u", name)]
        settings = [f"GIT_DIR={self.folder}", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C"]
        return _redacted(_execute(["env", *unset, *settings, "git", *argv], self.folder, stdin, shown), credential)

    # --- objects ---

    def resolve(self, revision: str) -> Sha | None:
        """The object that ``revision`` names, or None."""
        answer = self.attempt("rev-parse", "--verify", "--quiet", "--end-of-options", revision)
        return Sha(answer.text) if answer.returncode == 0 else None

    def tree_of(self, revision: str) -> Sha:
        return Sha(self.run("rev-parse", "--verify", "--end-of-options", f"{revision}^{{tree}}"))

    def has(self, sha: str) -> bool:
        return self.attempt("cat-file", "-e", sha).returncode == 0

    def read_blob(self, revision_and_path: str) -> bytes | None:
        """The bytes of a blob (``<commit>:<path>`` or an id), or None when there is none."""
        answer = self.attempt("cat-file", "blob", revision_and_path)
        return answer.stdout if answer.returncode == 0 else None

    def write_blob(self, data: bytes) -> Sha:
        return Sha(self.run("hash-object", "-w", "--stdin", "--no-filters", stdin=data))

    def fast_import(self, stream: BinaryIO) -> None:
        """Feed `git fast-import` an open file, from where it stands to its end; its bytes pass no filter.

        The stream must end with ``done``, so that one cut short is refused whole.
        """
        argv = ("fast-import", "--quiet", "--done", "--date-format=raw")
        answer = self.attempt(*argv, stdin=stream)
        if answer.returncode != 0:
            raise GitFailed(argv, answer)

    def list_tree(self, tree: str, *paths: str) -> tuple[Entry, ...]:
        """Every entry below ``tree`` (blobs, links, submodules), recursively, in path order."""
        out = self.run("ls-tree", "-r", "-z", "--full-tree", tree, "--", *paths)
        entries = []
        for line in filter(None, out.split("\0")):
            meta, path = line.split("\t", 1)
            mode, kind, sha = meta.split()
            entries.append(Entry(mode, kind, Sha(sha), path))
        return tuple(entries)

    def edit_tree(self, tree: str, entries: Sequence[tuple[str, str, str]]) -> Sha:
        """``tree`` with ``(mode, sha, path)`` set; mode ``0`` removes the path."""
        lines = "".join(f"{mode} {sha}\t{path}\0" for mode, sha, path in entries)
        with self._index(tree) as env:
            payload = lines.encode(errors="surrogateescape")
            self.run("update-index", "-z", "--index-info", stdin=payload, env=env)
            return Sha(self.run("write-tree", env=env))

    def apply(self, tree: str, diff: bytes, *options: str) -> Sha:
        """``tree`` with ``diff`` applied strictly (no fuzz; git may still find a hunk at an offset).

        Raises `GitFailed` with git's own words when a hunk does not apply.
        """
        with self._index(tree) as env:
            self.run("apply", "--cached", "--whitespace=nowarn", *options, "-", stdin=diff, env=env)
            return Sha(self.run("write-tree", env=env))

    def _index(self, tree: str) -> _TemporaryIndex:
        return _TemporaryIndex(self, tree)

    def commit(
        self,
        tree: str,
        parents: Sequence[str],
        message: str,
        author: Signature | None = None,
        committer: Signature | None = None,
    ) -> Sha:
        """Write a commit; equal arguments give an equal id on any machine."""
        author = author or Signature()
        committer = committer or Signature(date=author.date)
        env = {
            "GIT_AUTHOR_NAME": author.name,
            "GIT_AUTHOR_EMAIL": author.email,
            "GIT_AUTHOR_DATE": author.date,
            "GIT_COMMITTER_NAME": committer.name,
            "GIT_COMMITTER_EMAIL": committer.email,
            "GIT_COMMITTER_DATE": committer.date,
        }
        parent_options = [part for parent in parents for part in ("-p", parent)]
        return Sha(self.run("commit-tree", tree, *parent_options, "-F", "-", stdin=message.encode(), env=env))

    # --- history ---

    def merge_base(self, left: str, right: str) -> Sha | None:
        """The best common ancestor (the first where there are several), or None for unrelated histories."""
        answer = self.attempt("merge-base", left, right)
        if answer.returncode not in (0, 1):
            raise GitFailed(("merge-base", left, right), answer)
        return Sha(answer.text) if answer.returncode == 0 else None

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        answer = self.attempt("merge-base", "--is-ancestor", ancestor, descendant)
        if answer.returncode not in (0, 1):
            raise GitFailed(("merge-base", "--is-ancestor", ancestor, descendant), answer)
        return answer.returncode == 0

    def commits(self, *revisions: str) -> tuple[Sha, ...]:
        """`rev-list` of ``revisions`` (``A``, ``^B``, ...), newest first."""
        return tuple(Sha(line) for line in self.run("rev-list", *revisions, "--").splitlines())

    def parents(self, commit: str) -> tuple[Sha, ...]:
        return tuple(Sha(part) for part in self.run("rev-list", "--parents", "-1", commit).split()[1:])

    def show(self, commit: str, layout: str) -> str:
        """One commit in a `--format` layout (``%an``, ``%B``, ...)."""
        return self.run("log", "-1", "--no-show-signature", f"--format={layout}", commit)

    def merge_tree(self, ours: str, theirs: str) -> Merged:
        """Merge two commits in-core, renames detected, without a work tree.

        Exit status 1 means a conflict only if a tree id was printed: a bad commit ends with 1 as well.
        """
        argv = ("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", ours, theirs)
        answer = self.attempt(*argv)
        fields = answer.stdout.decode(errors="surrogateescape").split("\0")
        if answer.returncode not in (0, 1) or not re.fullmatch(r"[0-9a-f]{40}", fields[0]):
            raise GitFailed(argv, answer)
        conflicts = tuple(dict.fromkeys(filter(None, fields[1:])))
        if (answer.returncode == 1) != bool(conflicts):
            raise GitFailed(argv, answer)
        return Merged(Sha(fields[0]), conflicts)

    # --- differences ---

    def changes(self, old: str, new: str) -> tuple[Change, ...]:
        """Every path that differs between two trees or commits, in path order."""
        return parse_changes(self.run("diff-tree", *RAW_DIFF, old, new).split("\0"))

    def changes_on_the_way(self, old: str, new: str) -> tuple[Change, ...]:
        """What each commit of ``new`` that ``old`` lacks changes against its first parent, one after the other."""
        walk = ("--no-show-signature", "--format=", "--diff-merges=first-parent", new, f"^{old}")
        return parse_changes(self.run("log", *RAW_DIFF, *walk, "--").split("\0"))

    def diff(self, old: str, new: str, *paths: str) -> bytes:
        """The canonical diff of two trees or commits, the same whatever the user's configuration."""
        return self.attempt_ok("diff-tree", "-r", "-p", *CANONICAL_DIFF, old, new, "--", *paths).stdout

    def attempt_ok(self, *argv: str, stdin: bytes | None = None) -> Answer:
        answer = self.attempt(*argv, stdin=stdin)
        if answer.returncode != 0:
            raise GitFailed(argv, answer)
        return answer

    def patch_id(self, old: str, new: str) -> str:
        """`git patch-id --stable` of the whole difference; empty when there is none."""
        out = self.run("patch-id", "--stable", stdin=self.diff(old, new))
        return out.split()[0] if out else ""

    # --- references ---

    def refs(self, *prefixes: str) -> dict[str, Sha]:
        """Full ref name to object id, for the refs below ``prefixes``."""
        out = self.run("for-each-ref", "--format=%(objectname) %(refname)", *prefixes)
        # Not splitlines(): a ref's name may hold what Python takes for the end of a line.
        pairs = (line.split(" ", 1) for line in out.split("\n") if line)
        return {name: Sha(sha) for sha, name in pairs}

    def set_refs(self, new: Mapping[str, str | None]) -> None:
        """Point every ref at its commit, or delete it (None), in one transaction."""
        lines = [f"update {name} {sha}" if sha else f"delete {name}" for name, sha in sorted(new.items())]
        if lines:
            self.run("update-ref", "--stdin", stdin=("\n".join(["start", *lines, "commit"]) + "\n").encode())

    # --- remotes ---

    def ls_remote(self, url: str, *patterns: str) -> dict[str, Sha]:
        """Every ref that the remote lists; `RemoteError` when it cannot be asked, never an empty answer for it."""
        answer = self._remote(url, "ls-remote", "--quiet", "--refs", "--", url, *patterns)
        if answer.returncode != 0:
            raise RemoteError(f"{without_secret(url)} cannot be read: {_last_line(answer.stderr)}")
        pairs = (line.split("\t", 1) for line in answer.text.split("\n") if line)
        return {name: Sha(sha) for sha, name in pairs}

    def fetch(self, url: str, refspecs: Sequence[str], *, strict: bool = False) -> None:
        """Fetch ``refspecs`` into this repository, nothing pruned, no tags of its own accord.

        ``strict``: every object that comes in is looked at as `git fsck` does, whatever the user's configuration, and
        `UnsoundError` is raised where one is refused; nothing of that fetch is kept then.
        """
        argv = [*NO_HOOKS, "-c", "gc.auto=0", *(STRICT if strict else ())]
        argv += ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"]
        argv += ["--no-recurse-submodules", "--stdin", "--", url]
        packs = self.folder / "objects" / "pack"
        before = set(packs.glob("tmp_*"))
        answer = self._remote(url, *argv, stdin="".join(f"{spec}\n" for spec in refspecs).encode())
        if answer.returncode != 0:
            for left in set(packs.glob("tmp_*")) - before:  # as large as all that was sent
                left.unlink(missing_ok=True)
            require_machine(answer.stderr, self.folder)
            kind = UnsoundError if strict and "fsck error" in answer.stderr else RemoteError
            raise kind(f"fetching from {without_secret(url)} failed: {_last_line(answer.stderr)}")

    def push(self, url: str, refs: Mapping[str, str]) -> None:
        """Push ``ref -> commit`` in one plain atomic push: fast-forwards only, all of them or none.

        The remote's own compare-and-swap is the lock: no force, no lease. Raises `RemoteError` when refused, and when
        the connection broke off before the remote had said how it went: then it may have arrived all the same.
        """
        refspecs = [f"{sha}:{name}" for name, sha in refs.items()]
        argv = (*NO_HOOKS, "push", "--quiet", "--atomic", "--porcelain", "--no-verify", "--no-follow-tags")
        answer = self._remote(url, *argv, "--recurse-submodules=no", "--no-signed", "--", url, *refspecs)
        if answer.returncode != 0:
            refused = [line for line in answer.text.splitlines() if line.startswith("!")]
            telling = ("remote:", "error: remote unpack failed:")
            heard = [line.strip() for line in answer.stderr.splitlines() if line.startswith(telling)]
            if any("(unpacker error)" in line for line in refused):
                heard.append("its disk is full, or it may not be written")
            said = "; ".join([line.replace("\t", " ") for line in refused] + heard) or _last_line(answer.stderr)
            # `[rejected]` and `[remote rejected]`, and not `[remote failure]` (git-push(1), OUTPUT)
            if refused and all("rejected]" in line for line in refused):
                raise RemoteError(f"{without_secret(url)} refused the push, nothing was moved: {said}")
            raise RemoteError(f"the push to {without_secret(url)} failed: {said}")

    # --- bundles ---

    def write_bundle(self, file: Path, refs: Mapping[str, str]) -> None:
        """Write ``file``: ``refs`` (full names to commits of this repository) with all that they reach."""
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".bundle-") as folder:
            # A repository of these refs alone, so that none is made in this one that a kill would leave there.
            view = Repository.init(Path(folder) / "view.git")
            borrowed = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": _c_quoted(str(self.folder / "objects"))}
            lines = "".join(f"create {name} {sha}\n" for name, sha in sorted(refs.items()))
            view.run("update-ref", "--stdin", stdin=lines.encode(), env=borrowed)
            # Several threads find other deltas each time; one gives equal bytes for equal stores.
            view.run("-c", "pack.threads=1", "bundle", "create", "--quiet", str(file), "--all", env=borrowed)

    def fetch_bundle(self, file: Path, refs: Mapping[str, str]) -> None:
        """Take the objects of a bundle that holds exactly ``refs`` and all that they reach; no ref is made here.

        Raises `UsageError` for any other bundle: one that builds on commits that are not in it, names other
        refs or other commits, is damaged or lacks objects.
        """
        header = read_bundle_header(file)
        if header.prerequisites:
            raise UsageError(f"{file.name} builds on {header.prerequisites[0]}, which is not in it")
        if header.refs != dict(refs):
            other = sorted({*header.refs.items()} ^ {*refs.items()})
            raise UsageError(f"{file.name} does not hold the commits that are named beside it: {other[0][0]}")
        # Both sides can come from one hand, and in a fetch `name:ref` would make that ref, `refs/replace/…` too.
        odd = next((name for name in refs if self.attempt("check-ref-format", name).returncode != 0), None)
        if odd is not None:
            raise UsageError(f"{file.name} names a commit {odd[:80]!r}, which is no name of a ref")
        # Without a target a ref is fetched all the same, and checked for whether all that it reaches is there.
        argv = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance")
        answer = self.attempt(*argv, "--", str(file), *refs)
        if answer.returncode != 0:
            raise UsageError(f"{file.name} is damaged: {_last_line(answer.stderr)}")


RAW_DIFF = ("-r", "-z", "--raw", "--no-renames", "--full-index", "--no-abbrev")
CANONICAL_DIFF = (
    "--full-index",
    "--binary",
    "--no-renames",
    "--unified=3",
    "--diff-algorithm=myers",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-indent-heuristic",
)


def parse_changes(fields: Sequence[str]) -> tuple[Change, ...]:
    """The fields of `git diff-tree -z --raw`: modes, ids and status, then the path, and so on."""
    found = []
    for meta, path in zip(fields[0::2], fields[1::2], strict=False):
        old_mode, new_mode, old_blob, new_blob, status = meta.lstrip(":").split()
        found.append(Change(path, status, old_mode, new_mode, Sha(old_blob), Sha(new_blob)))
    return tuple(found)


class _TemporaryIndex:
    """A context manager: the environment of an index file of its own, filled from a tree."""

    def __init__(self, repository: Repository, tree: str) -> None:
        self._repository = repository
        self._tree = tree
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> dict[str, str]:
        self._folder = tempfile.TemporaryDirectory(prefix="patchstack-index-")
        env = {"GIT_INDEX_FILE": str(Path(self._folder.name) / "index")}
        self._repository.run("read-tree", self._tree, env=env)
        return env

    def __exit__(self, *exception: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))]
    return " ".join((telling or lines or ["git said nothing"])[:3])


def _redacted(answer: Answer, credential: Credential | None) -> Answer:
    if credential is None:
        return answer
    out = credential.out_of(answer.stdout.decode(errors="surrogateescape")).encode(errors="surrogateescape")
    return Answer(answer.returncode, out, credential.out_of(answer.stderr))


def _c_quoted(path: str) -> str:
    """A path as git reads it in a list of paths, whatever is in its name (https://git-scm.com/docs/git)."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def without_secret(url: str) -> str:
    """A URL without user and password; like git it takes all up to the last ``@`` before the path for these."""
    return re.sub(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)[^/]*@", r"\1", url)


def readable(text: str) -> str:
    """Text that came out of git, with each byte that is no UTF-8 as an escape, so that it can be written down."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
