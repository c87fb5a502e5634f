"""A file of tests heard as a whole: its results, and again of what died with its process, on what, and with what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from patchstack.errors import MachineError
from patchstack.model import GuardResult, Settings
from patchstack.process import Stopped
from patchstack.regress.attempts import run_with_attempts
from patchstack.regress.lane import within_bounds
from patchstack.regress.record import Said, unanswered
from patchstack.regress.suites import Suite

Hear = Callable[[Suite, str], Said]
"""Runs a part of a file in a process of its own, under a name of its own."""


def log_name(file: str) -> str:
    """What a file's log is called, without its ending."""
    return file.removesuffix(".py").replace("/", "-")


def heard_again(hear: Hear, suite: Suite, name: str, retries: int) -> Said:
    """What ``suite`` says where each of its tests must pass; an attempt that could not begin is the machine's fault."""
    said: list[Said] = []

    def attempt(paths: tuple[str, ...], number: int) -> tuple[GuardResult, ...]:
        part = replace(suite, paths=paths)
        try:
            heard = hear(part, name if number == 1 else f"{name}-again-{number}")
        except Stopped:
            raise
        except MachineError as error:
            return tuple(replace(result, by_machine=True) for result in unanswered(part, str(error)))
        said.append(heard)
        return within_bounds(part, heard.results)

    files = tuple(dict.fromkeys(path.partition("::")[0] for path in suite.paths))
    results = run_with_attempts(attempt, suite.paths, retries, must_pass=True, files=files)
    settings: dict[str, Settings] = {one.test: one for heard in said for one in heard.settings}
    hardware = next((heard.hardware for heard in said if heard.hardware is not None), None)
    return Said(results, hardware, tuple(settings.values()))
