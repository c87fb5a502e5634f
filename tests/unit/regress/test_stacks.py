"""What hangs says where: every process that a run of guards has started, whoever started it, in files of the run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.regress.test_guards_gone_wild import FINE, fake_bed

from patchstack.model import GuardOutcome, GuardResult
from patchstack.regress.execute import run_suite
from patchstack.regress.stacks import LONGEST_BYTES, MOST_BYTES, MOST_FILES, Keep, take
from patchstack.regress.suites import Suite

RANKS = """
import multiprocessing, signal, subprocess, sys, threading

def waits_as_rank(here):
    os.write(here, b"1")
    threading.Event().wait()

def starts_ranks(link):
    come, here = os.pipe()
    ranks = [multiprocessing.get_context("fork").Process(target=waits_as_rank, args=(here,)) for _ in range(2)]
    for rank in ranks:
        rank.start()
    for _ in ranks:
        os.read(come, 1)
    waits_for_ranks(ranks, link)

def waits_for_ranks(ranks, link):
    link.send("everybody is where it hangs")
    for rank in ranks:
        rank.join()

def start(children):
    children.start(starts_ranks, name="starter", fresh=True).receive(60)
    # Behind the bed's back, in a session of its own and orphaned.
    alone = "import subprocess, sys; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    subprocess.run([sys.executable, "-c", alone], check=True)

def hangs_here(limit_is_over=False):
    if limit_is_over:
        os.kill(os.getpid(), signal.SIGALRM)
    threading.Event().wait()
"""
HANGS = "def test_hangs(children):\n    start(children)\n    hangs_here()\n"
RINGS = """
@pytest.mark.limit(600)
def test_hangs(children):
    start(children)
    hangs_here(limit_is_over=True)
"""


def run(tmp_path: Path, limit_s: float, *tests: str) -> dict[str, GuardResult]:
    root, tree = fake_bed(tmp_path, RANKS, *tests)
    keep = Keep(tmp_path / "logs" / "composed" / "stacks" / "x", "logs/composed/stacks/x")
    suite = Suite("x", ("tests/regression/x",), "d")
    found = run_suite(suite, tree, root, tmp_path / "x.log", limit_s, keep=keep)
    return {result.test.rpartition(":")[2]: result for result in found}


def test_at_a_part_s_limit_every_process_and_rank_says_where_it_was(tmp_path: Path) -> None:
    found = run(tmp_path, 40.0, f"@pytest.mark.limit(600)\n{HANGS}", FINE)
    named = "stacks of every process: logs/composed/stacks/x/part.txt, logs/composed/stacks/x/part-pytest.txt"
    assert [(said.outcome, said.by_machine, said.reason) for said in found.values()] == [
        (GuardOutcome.TIMEOUT, False, f"pytest was ended after 20 s while it ran; {named}"),
        (GuardOutcome.MISSING, True, f"collected, not run: pytest was ended after 20 s; {named}"),
    ]
    folder = tmp_path / "logs" / "composed" / "stacks" / "x"
    everyone = (folder / "part.txt").read_text()
    assert everyone.count("in waits_as_rank") == 2
    assert everyone.count("in waits_for_ranks") == 1
    assert "sleep 600" in everyone
    assert "in hangs_here" in (folder / "part-pytest.txt").read_text()


def test_at_a_test_s_limit_too_and_the_next_test_runs(tmp_path: Path) -> None:
    found = run(tmp_path, 120.0, RINGS, FINE)
    assert {name: said.outcome for name, said in found.items()} == {
        "test_hangs": GuardOutcome.TIMEOUT,
        "test_fine": GuardOutcome.PASS,
    }
    named = "logs/composed/stacks/x/1-test_hangs.txt"
    assert found["test_hangs"].reason == f"did not end within 600 s; stacks of every process: {named}"
    said = (tmp_path / named).read_text()
    # What is forked from a child writes where the child does, and is read once more with it.
    assert [said.count(f"in {name}") for name in ("waits_as_rank", "waits_for_ranks", "hangs_here")] == [4, 1, 1]
    assert "sleep 600" in said


def test_who_ends_in_time_leaves_none(tmp_path: Path) -> None:
    run(tmp_path, 60.0, FINE)
    assert not (tmp_path / "logs").exists()


def test_what_a_candidate_leaves_there_is_copied_within_bounds(tmp_path: Path) -> None:
    """It owns the folder: it can put a link there, a pipe that nobody writes to, more than a disk holds."""
    source, keep = tmp_path / "home" / "stacks", Keep(tmp_path / "kept", "named")
    source.mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (source / "link.txt").symlink_to(tmp_path / "secret.txt")
    (source / "folder.txt").mkdir()
    os.mkfifo(source / "pipe.txt")
    (source / "a\nb.txt").write_text("x")
    (source / "script.sh").write_text("x")
    (source / "empty.txt").touch()
    with (source / "huge.txt").open("wb") as file:
        file.truncate(LONGEST_BYTES + 7)
    assert take(source, keep) == {"huge.txt": "named/huge.txt"}
    assert (keep.folder / "huge.txt").stat().st_size == LONGEST_BYTES
    for number in range(MOST_FILES + 5):
        (source / f"a{number}.txt").write_text("x")
    assert len(take(source, keep)) == MOST_FILES
    for number in range(MOST_FILES):
        os.truncate(source / f"a{number}.txt", LONGEST_BYTES - 1)
    again = Keep(tmp_path / "again", "named")
    assert set(take(source, again)) == {path.name for path in again.folder.iterdir()}
    assert sum(path.stat().st_size for path in again.folder.iterdir()) == MOST_BYTES


@pytest.mark.parametrize("leads", ["folder", "nowhere"])
def test_a_link_in_the_folder_s_place_is_not_followed(tmp_path: Path, leads: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("secret")
    (tmp_path / "stacks").symlink_to(tmp_path / leads)
    assert take(tmp_path / "stacks", Keep(tmp_path / "kept", "named")) == {}
    assert not (tmp_path / "kept").exists()
