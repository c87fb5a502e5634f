from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest

from patchstack.report.terminal import Progress


def _clock(*moments_s: float) -> Iterator[float]:
    return iter(moments_s)


def test_plain_lines_where_there_is_no_terminal() -> None:
    stream, clock = io.StringIO(), _clock(10.0, 11.5)
    progress = Progress(stream, lambda: next(clock))

    progress("starting")
    with progress.stage("merge") as say:
        say("#41")
        progress("\x1b[31m[bold]#42[/bold]\nx")
    progress("over")

    assert stream.getvalue().splitlines() == [
        "starting",
        "merge: #41",
        "merge: \\x1b[31m[bold]#42[/bold]\\x0ax",
        "merge: done in 1.5 s",
        "over",
    ]


def test_a_stage_that_raises_did_not_end_well() -> None:
    stream, clock = io.StringIO(), _clock(0.0, 2.0)
    progress = Progress(stream, lambda: next(clock))

    with pytest.raises(ValueError, match="no"), progress.stage("merge"):
        raise ValueError("no")

    assert stream.getvalue() == "merge: stopped after 2.0 s\n"


def test_it_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    Progress()("hello")

    assert capsys.readouterr() == ("", "hello\n")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_spinner_on_a_terminal_ends_with_its_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream, clock = _Terminal(), _clock(0.0, 1.0, 2.0, 4.0)
    progress = Progress(stream, lambda: next(clock))
    before = set(threading.enumerate())

    with progress.stage("night"):
        progress("[red]#41")
        with progress.stage("merge"):
            progress("#42")
        (spinner,) = set(threading.enumerate()) - before

    spinner.join(timeout=30)
    assert not spinner.is_alive()
    shown = stream.getvalue()
    assert "merge: done in 1.0 s" in shown
    assert shown.rindex("night: done in 4.0 s") > shown.rindex("merge: done in 1.0 s")
    assert shown.endswith("\x1b[?25h\r\x1b[1A\x1b[2Knight: done in 4.0 s\n")
