"""What killed processes left is removed, only where it is ours, and only if nobody lives who could own it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from patchstack import leftovers
from patchstack.errors import MachineError
from patchstack.git import NEUTRAL_ATTRIBUTES, Repository
from patchstack.leftovers import Swept, clean_up, scratch_folder, sweep, wait_for_workers, workers_in

LOCKS = (
    *("HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock", "info/attributes.lock"),
    *("refs/heads/deploy.lock", "refs/heads/base/production.lock", "refs/tags/nightly-1.lock"),
    *("objects/info/commit-graph.lock", "objects/pack/multi-pack-index.lock"),
)
PIECES = ("objects/pack/tmp_pack_1", "objects/pack/tmp_idx_1", "objects/pack/.tmp-1-pack-2.pack")
FOLDERS = ("objects/incoming-1", "objects/tmp_objdir-incoming-1")
NOT_OURS = (
    "objects/pack/pack-1.pack",
    "objects/pack/pack-1.keep",
    "refs/heads/deploy",
    "description",
    "hooks/a.sample",
)
LOOSE = "objects/4b/tmp_obj_1"


def litter(folder: Path) -> None:
    for name in (*LOCKS, *PIECES, *NOT_OURS, LOOSE, *(f"{name}/pack/x" for name in FOLDERS)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "objects" / "pack" / "pack-2.keep").write_text("receive-pack 17 on host\n")


@contextmanager
def somebody(cwd: Path, *argv: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is at work until the end of the block."""
    child = subprocess.Popen(argv or ["sleep", "600"], cwd=cwd, env={**os.environ, **env}, stdin=subprocess.PIPE)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def test_locks_and_pieces_go_and_nothing_else_does(repository: Repository) -> None:
    litter(repository.folder)
    whole = {path for path in repository.folder.rglob("*") if path.is_file()}

    swept = sweep(repository.folder)

    gone = (*LOCKS, *PIECES, *FOLDERS, "objects/pack/pack-2.keep")
    assert swept == Swept(repository.folder, tuple(sorted(gone)))
    assert {str(path.relative_to(repository.folder)) for path in whole if not path.exists()} == {
        *(*LOCKS, *PIECES, "objects/pack/pack-2.keep", *(f"{name}/pack/x" for name in FOLDERS))
    }
    assert sweep(repository.folder) == Swept(repository.folder)
    assert sweep(repository.folder, after_a_kill=True).removed == (LOOSE,)
    (note,) = swept.notes
    assert note.startswith("removed from store.git, left by a git that was killed: HEAD.lock, config.lock, ")
    assert note.endswith(" and 8 more")


def test_what_git_itself_left_is_out_of_its_way_again(repository: Repository) -> None:
    commit = repository.commit(repository.run("mktree", stdin=b""), (), "one\n")
    (repository.folder / "refs" / "heads" / "a.lock").touch()
    assert repository.attempt("update-ref", "refs/heads/a", commit).returncode != 0
    sweep(repository.folder)
    repository.set_refs({"refs/heads/a": commit})


@pytest.mark.parametrize("below", [".", "refs/heads"])
def test_nothing_goes_while_somebody_works_there(repository: Repository, below: str) -> None:
    litter(repository.folder)
    with somebody(repository.folder / below) as worker:
        swept = sweep(repository.folder)
    assert (swept.removed, swept.because) == ((), f"process {worker.pid} (sleep) works there")
    assert "refs/heads/deploy.lock" in swept.left
    assert swept.notes[0].startswith(f"left in store.git, for process {worker.pid} (sleep) works there: HEAD.lock")
    assert sweep(repository.folder).removed == swept.left


def test_a_git_that_was_told_of_it_works_there_from_elsewhere(repository: Repository, tmp_path: Path) -> None:
    litter(repository.folder)
    waiting = ("cat-file", "--batch")
    (tmp_path / "elsewhere").mkdir()
    for argv, env in (
        (("git", "--git-dir", str(repository.folder), *waiting), {}),
        (("git", f"--git-dir=../{repository.folder.name}", *waiting), {}),
        (("git", *waiting), {"GIT_DIR": str(repository.folder)}),
    ):
        with somebody(tmp_path / "elsewhere", *argv, **env) as worker:
            assert worker.stdin is not None
            worker.stdin.write(b"HEAD\n")  # it runs, once it takes this
            worker.stdin.flush()
            _until_it_is_git(worker)
            assert [found.pid for found in workers_in(repository.folder)] == [worker.pid], argv
            assert sweep(repository.folder).removed == ()


def _until_it_is_git(worker: subprocess.Popen[bytes]) -> None:
    for _ in range(100_000):
        if Path(f"/proc/{worker.pid}/comm").read_text().strip() == "git":
            return
        os.sched_yield()
    raise AssertionError("git has not begun")


def test_a_process_that_may_not_be_looked_at_counts_if_it_is_git(repository: Repository, tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    for pid, name in ((11, "git-receive-pac"), (12, "systemd"), (13, "git")):
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "comm").write_text(f"{name}\n")
    (proc / "13" / "cwd").symlink_to(tmp_path)
    for pid in (11, 12):
        (proc / str(pid) / "cwd").symlink_to("/proc/self/nothing")
    found = _as_somebody_else(proc, repository.folder)
    assert found == ["process 11 (git-receive-pac), which may not be looked at"]


def _as_somebody_else(proc: Path, folder: Path) -> list[str]:
    """`workers_in`, where the kernel refuses to say where processes 11 and 12 work."""
    code = f"""
import os
from pathlib import Path
from patchstack import leftovers
real = Path.stat
def stat(self, **more):
    if self.name == "cwd" and self.parent.name in ("11", "12"):
        raise PermissionError(13, "Permission denied", str(self))
    return real(self, **more)
Path.stat = stat
leftovers.PROC = Path({str(proc)!r})
print(*leftovers.workers_in(Path({str(folder)!r})), sep="\\n")
"""
    (proc / "13" / "cmdline").write_text("git\0status\0")
    (proc / "13" / "environ").write_text("A=/b\0")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()


def test_without_proc_nothing_goes(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    litter(repository.folder)
    monkeypatch.setattr(leftovers, "PROC", Path("/nonexistent"))
    swept = sweep(repository.folder)
    assert (swept.removed, swept.because) == ((), "/nonexistent cannot be read (No such file or directory)")


def test_a_lock_of_somebody_new_stays(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the removal its owner ended, and another one took the name."""
    lock = repository.folder / "refs" / "heads" / "a.lock"
    lock.write_text("old")

    def replaced(_: Path) -> Iterator[leftovers.Worker]:
        lock.rename(lock.with_name("kept"))
        lock.write_text("new")
        return iter(())

    monkeypatch.setattr(leftovers, "workers_in", replaced)
    assert sweep(repository.folder).removed == ()
    assert lock.read_text() == "new"


def test_what_a_link_leads_to_is_not_ours(repository: Repository, tmp_path: Path) -> None:
    litter(repository.folder)
    link = tmp_path / "remote.git"
    link.symlink_to(repository.folder)
    for folder in (link, tmp_path / "nothing", tmp_path):
        assert sweep(folder) == Swept(folder)


def test_a_push_of_a_killed_run_is_waited_for(repository: Repository) -> None:
    """Its git lives on, and has moved what it moves before the next run reads the remote."""
    with somebody(repository.folder, "git", "cat-file", "--batch") as worker:
        _until_it_is_git(worker)
        assert [late.pid for late in wait_for_workers([repository.folder], limit_s=0)] == [worker.pid]
        child = os.fork()
        if child == 0:
            late = wait_for_workers([repository.folder], limit_s=600)
            os._exit(len(late))
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_git_of_a_killed_run_that_does_not_end_is_named(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "WAIT_LIMIT_S", 0.0)
    with somebody(repository.folder, "git", "cat-file", "--batch") as worker:
        _until_it_is_git(worker)
        assert clean_up((repository.folder,), tmp_path, "4711") == (
            "the run before this one (process 4711) was killed",
            f"process {worker.pid} (git) of it is still at work after 0 s",
        )
        assert clean_up((repository.folder,), tmp_path, "") == ()


def test_a_run_after_a_killed_one_says_so_and_clears_what_was_half_made(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "store.git.making-1" / "new.git").mkdir(parents=True)
    litter(repository.folder)
    with scratch_folder(tmp_path / "remote.git") as at_work:
        notes = clean_up((repository.folder, tmp_path / "remote.git"), tmp_path, "4711")
        assert at_work.is_dir()
    assert not list(tmp_path.glob("*.making-*"))
    assert notes[0] == "the run before this one (process 4711) was killed"
    assert [note.partition(",")[0] for note in notes[1:]] == ["removed from store.git"]
    assert clean_up((repository.folder,), tmp_path, "") == ()


def test_a_scratch_folder_that_is_cleared_before_it_is_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def cleared_once(**options: object) -> str:
        made.append(Path(mkdtemp(**options)))  # type: ignore[arg-type]
        if len(made) == 1:
            made[0].rmdir()
        return str(made[-1])

    mkdtemp = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", cleared_once)
    with scratch_folder(tmp_path / "store.git") as folder:
        assert folder == made[1]
        assert folder.is_dir()


# --- repositories appear whole ---


def settings(repository: Repository) -> dict[str, str]:
    names = ("core.bare", "core.autocrlf", "gc.auto", "merge.renames", "core.logallrefupdates")
    return {name: repository.run("config", "--get", name) for name in names}


def test_a_repository_that_was_begun_is_completed(tmp_path: Path) -> None:
    whole = settings(Repository.init(tmp_path / "whole.git"))
    for name in ("HEAD", "config", "info/attributes", "refs", "objects"):
        folder = Path(shutil.copytree(tmp_path / "whole.git", tmp_path / "half.git"))
        for lost in (folder / name, folder / "info" / "attributes"):  # they were always written last
            shutil.rmtree(lost) if lost.is_dir() else lost.unlink(missing_ok=True)
        made = Repository.init(folder)
        assert (settings(made), (folder / "info" / "attributes").read_text()) == (whole, NEUTRAL_ATTRIBUTES), name
        assert made.run("fsck") == ""
        shutil.rmtree(folder)


def test_a_repository_is_not_there_before_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    real = Repository.run

    def run(self: Repository, *argv: str, **more: object) -> str:
        seen.append([path.name.partition(".making-")[0] for path in tmp_path.iterdir() if (path / "HEAD").exists()])
        return real(self, *argv, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Repository, "run", run)
    Repository.init(tmp_path / "new.git")
    assert seen
    assert not [names for names in seen if names]
    assert [path.name for path in tmp_path.iterdir()] == ["new.git"]


def test_two_that_make_it_at_once_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, folder = Repository._complete, tmp_path / "new.git"

    def slower(self: Repository) -> None:
        real(self)
        monkeypatch.setattr(Repository, "_complete", real)
        commit = Repository.init(folder).commit(Repository.init(folder).run("mktree", stdin=b""), (), "theirs\n")
        Repository(folder).set_refs({"refs/heads/theirs": commit})

    monkeypatch.setattr(Repository, "_complete", slower)
    assert list(Repository.init(folder).refs()) == ["refs/heads/theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["new.git"]


def test_a_file_in_the_way_is_this_machine_s_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be made"):
        Repository.init(tmp_path / "file" / "store.git")
