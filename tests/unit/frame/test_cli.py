"""The command line against strange terminals, disks and arguments: one clear message, the right exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from patchstack.report.terminal import Progress
from patchstack.workplace import open_workplace

CONFIG = """\
schema: 1
fork: {repo: acme/sglang}
lanes:
  production:
    upstream: {pypi: sglang==0.5.12.post1}
    branch: deploy
channels:
  nightly: {needs: [cpu]}
"""
MAIN = [sys.executable, "-c", "from patchstack.cli import main; main()"]


def shell(line: str, folder: Path, **more_env: str) -> subprocess.CompletedProcess[str]:
    """Run ``line`` in a shell, where ``patchstack`` is this one: descriptors are easiest to close there."""
    words = " ".join(f"'{word}'" for word in MAIN)
    return subprocess.run(
        ["bash", "-c", f'patchstack() {{ {words} "$@"; }}; {line}'],
        cwd=folder,
        env={**os.environ, **more_env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "a place\nwith →"
    place.mkdir()
    (place / "deploy.yaml").write_text(CONFIG)
    return place


def test_in_a_workflow_nothing_that_a_verb_prints_is_a_command(folder: Path) -> None:
    done = shell("patchstack --lane '::add-mask::a' status", folder, GITHUB_ACTIONS="true")
    first, *said = done.stderr.splitlines()
    assert first.startswith("::stop-commands::")
    assert [line[:11] for line in said] == ["patchstack:"]


def test_a_place_of_any_name_and_from_anywhere(folder: Path) -> None:
    elsewhere = "patchstack --config './a place\nwith →/deploy.yaml' status"
    done = shell(f"patchstack status --json && cd .. && {elsewhere}", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"nights": 0' in done.stdout


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("patchstack status >&-", 0),
        ("patchstack status >&- 2>&-", 0),
        ("patchstack status <&- >&- 2>&-", 0),
        ("patchstack status > /dev/full", 11),
        ("patchstack status > /dev/full 2>/dev/full", 11),
        ("patchstack status > >(true)", 141),
        ("patchstack --lane none status 2>&-", 9),
        ("patchstack --lane none status 2>/dev/full", 9),
    ],
)
def test_output_that_nobody_takes(folder: Path, line: str, code: int) -> None:
    done = shell(f"set +o pipefail; {line}", folder)
    # A reader that leaves may do so after it was written to.
    assert done.returncode in ({0, 141} if code == 141 else {code}), done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_terminal_cannot_show_is_an_escape(folder: Path) -> None:
    (folder / "patches").mkdir()
    (folder / "patches" / "series").write_text("")
    done = shell('patchstack --config "$PWD/deploy.yaml" validate', folder, PYTHONIOENCODING="latin-1")
    assert (done.returncode, "\\u2192" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ("--state /proc/here status", 11, "/proc/here"),
        ("--state deploy.yaml status", 2, "is a file"),
        ("--state /dev/null/x status", 11, "/dev/null/x"),
        ("--config . status", 11, "cannot be read"),
        ("--config deploy.yaml/x status", 11, "cannot be read"),
        ("--lane '' status", 9, "has no lane ''"),
        ("--remote '' status", 2, "is not a URL"),
        ("--remote nowhere.git status", 8, "nowhere.git cannot be read"),
        (f"report --run {'x' * 5000}", 2, "no run"),
        ("report --run ../x", 2, "no run"),
        ("report --run $'a\\nb'", 2, "no run"),
        ("promote", 2, "has a verdict yet"),
        ("promote --run ''", 2, "no run"),
        ("test --jobs 0", 2, "0 is not in the range x>=1"),
        ("nightly --jobs many", 2, "'many' is not a valid integer"),
    ],
)
def test_strange_arguments(folder: Path, argv: str, code: int, said: str) -> None:
    done = shell(f"patchstack {argv}", folder)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_each_verb_has_json_and_a_dry_run_where_it_changes_anything() -> None:
    from patchstack.cli import main_group, patch

    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in {**main_group.commands, **{f"patch {n}": c for n, c in patch.commands.items()}}.items()
        if name != "patch"
    }
    assert [name for name, has in options.items() if "--json" not in has] == []
    changing = {"merge", "test", "prove", "promote", "nightly", "answer", "comment", "init", "generate"}
    changing |= {
        "image",
        "record",
        "retire",
        "rollback",
        "hold",
        "release-hold",
        "patch edit",
        "patch export",
        "patch import",
    }
    assert {name for name, has in options.items() if "--dry-run" in has} == changing


def test_a_night_goes_on_when_its_terminal_has_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w", buffering=1)
    progress = Progress(stream)
    with progress.stage("promote"):
        progress("moving")
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_dry_run_keeps_nothing_and_works_on_a_copy(folder: Path) -> None:
    work = open_workplace(
        config_path=folder / "deploy.yaml",
        state_folder=folder / "state",
        lane=None,
        remote=None,
        local=True,
        offline=True,
        progress=Progress(),
    )
    with work.open_run(dry_run=True) as new:
        assert not new.folder.is_relative_to(folder)
    assert not work.state.runs.exists()
    kept = work.state.new_run()
    (kept.folder / "plan.json").write_text(json.dumps({}))
    with work.open_run(kept.id, dry_run=True) as copy:
        assert (copy.id, (copy.folder / "plan.json").read_text()) == (kept.id, "{}")
        (copy.folder / "composition.json").write_text("{}")
    assert [path.name for path in kept.folder.iterdir()] == ["plan.json"]
    assert not copy.folder.exists()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_stop_by_the_system_is_an_interruption(tmp_path: Path, stop: signal.Signals) -> None:
    """So that a night's children are ended and its report is written, as for Ctrl-C."""
    fifo = tmp_path / "deploy.yaml"
    os.mkfifo(fifo)
    argv = [*MAIN, "--config", str(fifo), "validate"]
    # Under nohup, or in the background of a script, these signals are ignored, and a child inherits that.
    child = subprocess.Popen(
        argv, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(stop, signal.SIG_DFL)
    )
    with fifo.open("w"):  # it opens when the child reads
        child.send_signal(stop)
        _, said = child.communicate(timeout=60)
    assert (child.returncode, said.strip()) == (130, "interrupted")
