"""One exception class per failure class, each with its exit code.

Library code raises these and never prints or exits; `cli.py` prints the message and exits with the code.
A message says what is wrong, where, and what to do about it.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_INTERRUPTED = 130


class PatchstackError(Exception):
    """Base of everything that the command line turns into a message and an exit code."""

    exit_code: ClassVar[int] = 70
    meaning: ClassVar[str] = "a bug in patchstack"


class GateFailed(PatchstackError):
    exit_code = 1
    meaning = "the gate says FAIL, or a patch is not proven"


class UsageError(PatchstackError):
    exit_code = 2
    meaning = "the command line is wrong"


class ConfigError(PatchstackError):
    """Something in `deploy.yaml` or a patch's front matter; carries every problem, not only the first."""

    exit_code = 3
    meaning = "the configuration is wrong"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class CompositionError(PatchstackError):
    """What does not compose; ``patch`` is the slug of the patch that does not, where it is one, and in which files."""

    exit_code = 4
    meaning = "a required patch does not compose"

    def __init__(self, message: str, *, patch: str = "", files: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.patch = patch
        self.files = files


class ImageError(PatchstackError):
    exit_code = 5
    meaning = "an image build or push failed"


class Incomplete(PatchstackError):
    exit_code = 6
    meaning = "INCOMPLETE: something that is needed did not run"


class StaleFiles(PatchstackError):
    exit_code = 7
    meaning = "files are stale"


class RemoteError(PatchstackError):
    exit_code = 8
    meaning = "a remote failed or refused"


class LaneUnavailable(PatchstackError):
    exit_code = 9
    meaning = "a lane asked for by name is not available"


class NightRunning(PatchstackError):
    exit_code = 10
    meaning = "another night is running"


class MachineError(PatchstackError):
    exit_code = 11
    meaning = "this machine: disk, tool or permission"


EXIT_CODES: dict[int, str] = {
    EXIT_OK: "done, also when promoted with exclusions (`--json` says) or with nothing to do",
    **{
        error.exit_code: error.meaning
        for error in (
            GateFailed,
            UsageError,
            ConfigError,
            CompositionError,
            ImageError,
            Incomplete,
            StaleFiles,
            RemoteError,
            LaneUnavailable,
            NightRunning,
            MachineError,
            PatchstackError,
        )
    },
    EXIT_INTERRUPTED: "interrupted",
}
"""Every exit code with its meaning; `--help` and the README are made from it."""
