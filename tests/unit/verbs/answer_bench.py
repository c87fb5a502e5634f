"""A fork on a GitHub with a few pull requests, nights in a few lines, and what `answer` writes of them there.

with opened(tmp_path) as desk:
    desk.pulls(1, 2)
    assert desk.night(included(1), conflict(2, "#1")) == ["open conflict:#1:#2", "comment #1", "comment #2"]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from click.testing import CliRunner
from tests.support.github_server import GitHubServer
from tests.unit.report import fixed_night
from tests.unit.report.fixed_night import left_out, sha, topic
from tests.unit.verbs.fork_bench import TWO_LANES, workplace

from patchstack.errors import PatchstackError
from patchstack.git import EMPTY_TREE, Repository
from patchstack.github import GitHub, Token
from patchstack.model import Asked, LeftOut, Outcome, Reason, Topic
from patchstack.pack import write_pack
from patchstack.report.answers import Answers
from patchstack.report.marker import pull_of
from patchstack.store import Run
from patchstack.verbs.answer import answer_night, night_of_run
from patchstack.workplace import Workplace

FORK = "acme/sglang"
BOT = "github-actions[bot]"
MAY_ANSWER = {"contents": "read", "issues": "write", "pull-requests": "write"}
COMMANDS = [sys.executable, "-c", "from patchstack.cli import main; main()"]


def included(number: int, head: str = "3") -> Topic:
    return topic(f"#{number}", f"title of #{number}", author="ann", head=sha(head))


def conflict(number: int, *twins: str, head: str = "4", files: tuple[str, ...] = ("a.py",)) -> LeftOut:
    detail = f"it conflicts with {twins[0]}: merge it"
    made = left_out(f"#{number}", Outcome.EXCLUDED, Reason.CONFLICT, detail, twins=twins, files=files)
    return replace(made, head=sha(head))


def waiting(number: int, reason: Reason = Reason.NEEDS_ADMISSION) -> LeftOut:
    return left_out(f"#{number}", Outcome.WAITING, reason, "approve it")


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@dataclass
class Desk:
    """A fork on a GitHub with a few pull requests, and a workplace whose nights are written by hand."""

    hub: GitHubServer
    folder: Path
    nights: int = 0
    token: str = field(init=False)

    def __post_init__(self) -> None:
        self.fork = self.hub.repository(FORK)
        store = Repository(self.fork.path)
        commit = store.commit(EMPTY_TREE, (), "one\n")
        self.fork.push_many({"main": commit, "stack/production": commit, "fix": commit}, by="ann")
        self.token = self.hub.token(BOT, repo=FORK, permissions=MAY_ANSWER)
        (self.folder / "deploy.yaml").write_text(TWO_LANES)

    def pulls(self, *numbers: int) -> None:
        for number in numbers:
            self.fork.open_pull("fix", into="stack/production", author="ann", number=number)

    def work(self, lane: str = "production") -> Workplace:
        return workplace(self.folder, lane=lane)

    @property
    def memo(self) -> Path:
        return self.folder / ".patchstack" / "memo" / "answers.json"

    def github(self) -> GitHub:
        return GitHub(self.hub.api_url, Token(self.token))

    def write(self, *items: Topic | LeftOut, red: bool = False, **more: object) -> Run:
        """One more night, a day after the last: promoted, or red."""
        self.nights += 1
        night = f"202611{self.nights:02}T020000Z"
        composition = replace(
            fixed_night.COMPOSITION,
            included=tuple(item for item in items if isinstance(item, Topic)),
            left_out=tuple(item for item in items if isinstance(item, LeftOut)),
        )
        made = replace(
            fixed_night.RED if red else fixed_night.NIGHT,
            night=night,
            at=f"2026-11-{self.nights:02}T02:00:00+00:00",
            composition=composition,
            **{"asked": (Asked(FORK, 3, 0, 1),), **more},  # type: ignore[arg-type]
        )
        run = Run(self.work().state.runs / night)
        run.write(made)
        return run

    def pack(self, run: Run, name: str, *, keep: bool = False) -> Path:
        """The run as another machine gets it; here it is gone, unless it is kept."""
        work, file = self.work(), self.folder / name
        write_pack(run, work.state, work.store(), file)
        if not keep:
            shutil.rmtree(run.folder)
        return file

    def answer(self, *items: Topic | LeftOut, red: bool = False, dry_run: bool = False, **more: object) -> Answers:
        """One more night, answered."""
        self.write(*items, red=red, **more)
        return self.again(dry_run=dry_run)

    def again(self, *, dry_run: bool = False) -> Answers:
        """The newest night, answered."""
        work = self.work()
        return answer_night(work, self.github(), night_of_run(work, None), dry_run=dry_run)

    def night(self, *items: Topic | LeftOut, red: bool = False, **more: object) -> list[str]:
        """One more night, answered: what was written."""
        return told(self.answer(*items, red=red, **more))

    def comments(self, number: int) -> list[str]:
        """The first line below the marker of each of our comments."""
        return [one.body.splitlines()[2] for one in self.fork.comments(number) if pull_of(one.body)]

    def issues(self) -> list[str]:
        return [f"#{issue.number} {issue.state}: {issue.title}" for issue in self.fork.issues]

    def run(self, *argv: str, **environment: str) -> Done:
        """The command line, without the start of a process."""
        from patchstack.cli import main_group

        ended = CliRunner(env={**self.hub.environment(self.token), **environment}).invoke(
            main_group, ["--config", str(self.folder / "deploy.yaml"), *argv]
        )
        error = ended.exception
        if isinstance(error, PatchstackError):
            return Done(error.exit_code, ended.stdout, f"{ended.stderr}{error}")
        if error is not None and not isinstance(error, SystemExit):
            raise error
        return Done(ended.exit_code, ended.stdout, ended.stderr)

    def process(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMANDS, *argv],
            cwd=self.folder,
            env={**os.environ, **self.hub.environment(self.token)},
            capture_output=True,
            text=True,
            check=False,
        )


def told(answers: Answers) -> list[str]:
    """``open conflict:#1:#2``, ``comment #41``, ``not written: …``"""
    return [
        *(f"{step.act} {step.key}" for step in answers.issues),
        *(f"comment #{remark.number}" for remark in answers.comments),
        *(f"not written: {item.what}: {item.why}" for item in answers.not_written),
    ]


@contextmanager
def opened(folder: Path) -> Iterator[Desk]:
    with GitHubServer(folder / "hub") as hub:
        place = folder / "place"
        place.mkdir()
        yield Desk(hub, place)
