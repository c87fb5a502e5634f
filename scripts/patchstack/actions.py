"""What a step of a workflow hands on: values for the steps and jobs after it, and a summary for people.

GitHub's runner names the files (https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions);
where none is named, nothing is written.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

OUTPUT, SUMMARY = "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"
SUMMARY_BYTES = 1 << 20
"""The runner refuses a longer summary of a step."""

_FENCE = "```"
_ROOM_BYTES = 200


def take_no_commands() -> None:
    """Have the runner take nothing of what this step prints for a command to itself.

    It takes lines that begin with ``::``, and whatever stands behind ``##[``: a title that is shown could end the
    step's outputs, mask words in the log or write annotations. Only who knows the word could take this back.
    https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions#stopping-and-starting-workflow-commands
    """
    if os.environ.get("GITHUB_ACTIONS") == "true":
        with suppress(OSError):
            sys.stderr.write(f"::stop-commands::{secrets.token_hex(16)}\n")
            sys.stderr.flush()


def write_outputs(values: Mapping[str, str]) -> None:
    """Hand ``values`` to what comes after this step; each is one line."""
    for name, value in values.items():
        if "\n" in value or "\r" in value:
            raise ValueError(f"output {name} has several lines")
    _append(OUTPUT, "".join(f"{name}={value}\n" for name, value in values.items()))


def write_summary(markdown: str) -> None:
    """Show ``markdown`` on the run's page, behind what this step has shown already."""
    place = os.environ.get(SUMMARY)
    there = Path(place).stat().st_size if place and Path(place).is_file() else 0
    _append(SUMMARY, cut(markdown, SUMMARY_BYTES - there))


def cut(markdown: str, limit_bytes: int) -> str:
    """``markdown``, or as many of its first lines as fit, with how many are left out; no code block stays open."""
    if len(markdown.encode()) <= limit_bytes:
        return markdown
    lines = markdown.splitlines(keepends=True)
    kept: list[str] = []
    fence, left_bytes = "", limit_bytes - _ROOM_BYTES
    for line in lines:
        left_bytes -= len(line.encode())
        if left_bytes < len(fence):
            break
        kept.append(line)
        fence = _fence_after(line, fence)
    end = f"{fence}\n" if fence else ""
    return f"{''.join(kept)}{end}\n{len(lines) - len(kept)} more in the report: lines that do not fit here.\n"


def _fence_after(line: str, fence: str) -> str:
    """The fence of the code block that is open behind ``line``; empty where none is."""
    ticks = line[: len(line) - len(line.lstrip("`"))]
    if fence:
        return "" if len(ticks) >= len(fence) and line.strip() == ticks else fence
    return ticks if ticks.startswith(_FENCE) else ""


def _append(variable: str, text: str) -> None:
    place = os.environ.get(variable)
    if place and text:
        with Path(place).open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
