"""The work tree that `patch edit` makes: an ordinary git repository of its own, with the stack as commits.

It holds all objects that it needs, so the store may go. What it was made from is kept in refs that nothing
else writes: ``refs/patchstack/onto`` (the stack below the patch) and ``refs/patchstack/tip`` (the last state
that was made here or exported from here).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import MachineError, UsageError
from patchstack.git import NEUTRAL_ATTRIBUTES, Repository
from patchstack.model import Sha

_ONTO, _TIP, _BASE = "refs/patchstack/onto", "refs/patchstack/tip", "refs/patchstack/base"
_UNDER_WAY = ("rebase-merge", "rebase-apply", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "BISECT_LOG")
_EXCLUDED = "# What a test bed lays into the tree is no source.\n*.so\n*.dist-info/\n__pycache__/\n"


def branch_of(slug: str) -> str:
    return f"patchstack/{slug}"


@dataclass(frozen=True)
class WorkTree:
    folder: Path

    @property
    def _environment(self) -> Mapping[str, str]:
        return {"GIT_DIR": str(self.folder / ".git"), "GIT_WORK_TREE": str(self.folder), "GIT_OPTIONAL_LOCKS": "0"}

    def _run(self, *argv: str) -> str:
        return Repository(self.folder).run(*argv, env=self._environment)

    def _resolve(self, revision: str) -> Sha | None:
        answer = Repository(self.folder).attempt(
            "rev-parse", "--verify", "--quiet", "--end-of-options", revision, env=self._environment
        )
        return Sha(answer.text) if answer.returncode == 0 else None

    # --- what it is ---

    @property
    def is_ours(self) -> bool:
        return (self.folder / ".git").is_dir() and self._resolve(_ONTO) is not None

    @property
    def slug(self) -> str:
        """The patch whose branch is checked out; empty when it is another branch or none."""
        answer = Repository(self.folder).attempt("symbolic-ref", "--quiet", "--short", "HEAD", env=self._environment)
        return answer.text.removeprefix("patchstack/") if answer.text.startswith("patchstack/") else ""

    @property
    def onto(self) -> Sha:
        return Sha(self._run("rev-parse", "--verify", _ONTO))

    @property
    def base_tree(self) -> Sha:
        return Sha(self._run("rev-parse", "--verify", f"{_BASE}^{{tree}}"))

    @property
    def head(self) -> Sha:
        return Sha(self._run("rev-parse", "--verify", "HEAD"))

    def must_be_at_rest(self) -> None:
        """`UsageError` when something is not committed, or a rebase or merge is under way."""
        under_way = [name for name in _UNDER_WAY if (self.folder / ".git" / name).exists()]
        if under_way:
            raise UsageError(f"{self.folder}: a rebase, merge or `git am` is under way: finish it or abort it first")
        changed = self._run("status", "--porcelain", "--untracked-files=all").splitlines()
        if changed:
            names = ", ".join(line[3:] for line in changed[:5]) + (", …" if len(changed) > 5 else "")
            raise UsageError(f"{self.folder}: not committed: {names}; commit it (git commit --amend), or take it away")

    # --- making it ---

    def must_be_free(self) -> None:
        """`UsageError` unless the folder is new, empty, or a work tree of ours with nothing to lose."""
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise UsageError(f"{self.folder} is a file: name a new folder")
        if not any(self.folder.iterdir()):
            return
        if not self.is_ours:
            raise UsageError(f"{self.folder} is not empty, and no work tree of `patch edit`: name a new folder")
        self.must_be_at_rest()
        if self.head != self._resolve(_TIP):
            raise UsageError(
                f"{self.folder} has commits that were not exported: run "
                f"`patchstack patch export {self.slug or 'SLUG'} --from {self.folder}`, or name a new folder"
            )

    def lay(self, store: Repository, slug: str, *, base: Sha, onto: Sha, tip: Sha) -> None:
        """Check out ``tip`` on the patch's branch; `must_be_free` was asked before."""
        fresh = not (self.folder / ".git").exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(f"{self.folder} cannot be made: {error.strerror}") from error
        if fresh:
            self._run("init", "--quiet", "--template=", f"--initial-branch={branch_of(slug)}")
            for key, value in {"core.autocrlf": "false", "core.fileMode": "true", "gc.auto": "0"}.items():
                self._run("config", key, value)
            info = self.folder / ".git" / "info"
            info.mkdir(exist_ok=True)
            (info / "attributes").write_text(NEUTRAL_ATTRIBUTES)
            (info / "exclude").write_text(_EXCLUDED)
        shared = f"refs/patchstack/edit/{slug}"
        store.set_refs({f"{shared}/base": base, f"{shared}/onto": onto, f"{shared}/tip": tip})
        self._run("fetch", "--quiet", "--no-tags", str(store.folder), f"+{shared}/*:refs/patchstack/*")
        self._run("checkout", "--quiet", "--no-track", "-B", branch_of(slug), _TIP)

    def hand_over(self, store: Repository, slug: str) -> tuple[Sha, Sha]:
        """Copy the branch into the store; the stack below the patch, and the branch's tip."""
        onto, head = self.onto, self.head
        kept = f"refs/patchstack/export/{slug}"
        store.run("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(self.folder), f"+HEAD:{kept}")
        return onto, head

    def mark_exported(self) -> None:
        self._run("update-ref", _TIP, "HEAD")
