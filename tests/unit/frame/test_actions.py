"""What a step of a workflow hands on, and a summary that fits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from patchstack.actions import SUMMARY_BYTES, cut, take_no_commands, write_outputs, write_summary


def test_outputs_and_summary_are_added_where_the_runner_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, summary = tmp_path / "output", tmp_path / "summary"
    output.write_text("before=1\n")
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    write_outputs({"settled": "true", "run": "r"})
    write_summary("# Night\n")
    write_summary("more\n")
    assert output.read_text() == "before=1\nsettled=true\nrun=r\n"
    assert summary.read_text() == "# Night\nmore\n"
    with pytest.raises(ValueError, match="several lines"):
        write_outputs({"run": "a\nsettled=true"})


def test_what_a_workflow_s_step_prints_is_no_command_to_its_runner(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    take_no_commands()
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    take_no_commands()
    take_no_commands()
    out, err = capfd.readouterr()
    first, second = err.splitlines()
    assert (out, first != second) == ("", True)
    assert all(re.fullmatch("::stop-commands::[0-9a-f]{32}", line) for line in (first, second))


def test_elsewhere_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    write_outputs({"settled": "true"})
    write_summary("x")


def test_a_summary_that_does_not_fit_says_how_much_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"line {number} é\n" for number in range(200_000)]
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    (tmp_path / "summary").write_text("there\n" * 1000)
    write_summary("".join(lines))
    written = (tmp_path / "summary").read_bytes()
    assert SUMMARY_BYTES - 300 < len(written) <= SUMMARY_BYTES
    shown = written.decode().removeprefix("there\n" * 1000).splitlines()
    kept = len(shown) - 2
    assert shown[:kept] == [line.rstrip() for line in lines[:kept]]
    assert shown[kept:] == ["", f"{len(lines) - kept} more in the report: lines that do not fit here."]


@pytest.mark.parametrize(
    ("fence", "inside"), [("```", "x"), ("````", "```"), ("```", "`` two"), ("```", "```diff"), ("", "x")]
)
def test_no_code_block_stays_open(fence: str, inside: str) -> None:
    begin = [f"{fence}diff\n"] if fence else []
    text = "".join([*begin, *[f"{inside}\n"] * 200])
    found = cut(text, 300).splitlines()
    assert found[-1].endswith("more in the report: lines that do not fit here.")
    assert found[-3] == (fence or inside)


def test_what_fits_is_not_touched() -> None:
    assert cut("a\n```\nb", 7) == "a\n```\nb"
