"""`patchstack answer`: a night's signals and remarks, written to GitHub where they are not there already.

What is true is read from GitHub: its issues, and the markers of our comments. A memo of the states that the
last answer found saves asking each pull request again; without it the outcome is the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from patchstack.errors import RemoteError, UsageError
from patchstack.github import GitHub, Refused, server_url
from patchstack.model import Kind, LeftOut, NightReport, Topic
from patchstack.pack import keep_run, read_value, unpacked
from patchstack.report.answers import (
    NOT_TRIED,
    THE_ISSUES,
    Act,
    Answers,
    IssuePlan,
    IssueStep,
    NotWritten,
    comment_named,
    issue_named,
    last_state,
    needs_permission,
    plan_issues,
    render_answers,
)
from patchstack.report.marker import SignalMarker
from patchstack.report.place import Place
from patchstack.report.remarks import Remark, remarks
from patchstack.report.signals import Signal, finished, gone, no_night, overdue, ran_again, signals
from patchstack.store import now_utc, write_whole
from patchstack.verbs.promote import status
from patchstack.workplace import Workplace

ANSWERS_TEXT = "answers.md"
"""Every text of an answer, in the run's folder."""
FAILURES_IN_A_ROW = 5
"""After so many the rest of a kind is not tried: a token that is refused is refused for all of them."""
_MARGIN = timedelta(days=1)
"""How far apart this machine's clock and GitHub's may be."""
_MEMO_VERSION = 1
ISSUES, PULL_REQUESTS = "issues: write", "pull-requests: write"
"""Permissions, as a workflow writes them."""

Item = TypeVar("Item")


def place_of(work: Workplace) -> Place:
    """The fork on its server, and the workflow's run that this is, if it is one.

    https://docs.github.com/en/actions/reference/workflows-and-actions/variables#default-environment-variables
    """
    repo, run = os.environ.get("GITHUB_REPOSITORY", ""), os.environ.get("GITHUB_RUN_ID", "")
    url = f"{server_url()}/{repo}/actions/runs/{run}" if repo and run.isdecimal() else ""
    return Place(work.config.fork.repo, server_url(), url)


@dataclass(frozen=True)
class Told:
    """A night to answer, and the folder of its run."""

    report: NightReport
    folder: Path
    last_word: bool = False
    """Nobody goes on with this night: one that is not finished was lost on the way."""


def night_of_run(work: Workplace, run_id: str | None) -> Told:
    """The run that was asked for, or the newest night of the lane."""
    runs = (work.state.run(run_id),) if run_id is not None else work.state.all_runs()
    for run in runs:
        if run.has(NightReport) and (report := run.read(NightReport)).lane == work.lane_name:
            return Told(report, run.folder)
        if run_id is not None and run.has(NightReport):
            lane = run.read(NightReport).lane
            raise UsageError(f"run {run_id} is of lane {lane}, not of {work.lane_name}: use --lane {lane}")
    if run_id is not None:
        raise UsageError(f"run {run_id} has no report: it is no night, or has not ended")
    raise UsageError(f"no night of lane {work.lane_name} has run in {work.state.root}: run `patchstack nightly`")


def night_of_packs(work: Workplace, files: Sequence[Path], *, dry_run: bool = False) -> Told:
    """The newest report among the packs of one night; that run is then among the runs. The caller holds the lock.

    ``dry_run``: it is not kept.
    """
    reports = [(read_value(file, NightReport), file) for file in files]
    nights = sorted({report.night for report, _ in reports})
    if len(nights) > 1:
        raise UsageError(f"the packs are of several nights: {', '.join(nights)}; answer one after the other")
    report, file = max(reports, key=lambda pair: (finished(pair[0]), pair[0].at))
    with unpacked(file, work.state, work.store(), work.lane_name) as fresh:
        kept = fresh if dry_run else keep_run(fresh, work.state)
        return Told(report, kept.folder, last_word=True)


def answer_night(work: Workplace, hub: GitHub, told: Told, *, dry_run: bool = False) -> Answers:
    """Answer to a night; its texts are in ``answers.md`` of its folder. The caller holds the lock."""
    report = told.report
    _require_numbers_of(work.config.fork.repo, report)
    place = place_of(work)
    raised = signals(report, place)
    if told.last_word and not finished(report):
        raised = (*raised, no_night(report.lane, place.run_url))
    desk = _Desk(work, hub, dry_run, hub.viewer())
    desk.answer_issues(raised, lambda marker: gone(report, marker))
    desk.answer_pulls(remarks(report, place))
    answers = desk.answers(report.night)
    if not dry_run:
        write_whole(told.folder / ANSWERS_TEXT, render_answers(answers))
    return answers


def answer_no_night(work: Workplace, hub: GitHub, url: str, *, dry_run: bool = False) -> Answers:
    """Say that the workflow's run at ``url`` ended without a report. The caller holds the lock."""
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise UsageError(f"--no-night {url!r} is not the address of a run: write it as https://…/actions/runs/N")
    return _answer_signals(work, hub, (no_night(work.lane_name, url),), lambda _: None, dry_run)


def answer_overdue(work: Workplace, hub: GitHub, *, max_age: timedelta, dry_run: bool = False) -> Answers:
    """Say that no night is as young as ``max_age``, or that one is. The caller holds the lock."""
    standing = status(work, max_age=max_age)
    wanted = (overdue(standing, place_of(work)),) if standing.overdue else ()
    return _answer_signals(work, hub, wanted, lambda marker: ran_again(standing, marker), dry_run)


def _answer_signals(
    work: Workplace,
    hub: GitHub,
    wanted: Sequence[Signal],
    known_gone: Callable[[SignalMarker], str | None],
    dry_run: bool,
) -> Answers:
    desk = _Desk(work, hub, dry_run, hub.viewer())
    desk.answer_issues(wanted, known_gone)
    return desk.answers("")


def _require_numbers_of(repo: str, report: NightReport) -> None:
    """`UsageError` when the night's ``#41`` is not the fork's: there its numbers are those of another remote."""
    if any(asked.repo == repo for asked in report.asked):
        return
    composition = report.composition
    topics = composition.included if composition else report.planned
    left_out = composition.left_out if composition else report.left_out
    named: tuple[Topic | LeftOut, ...] = (*topics, *left_out)
    if any(item.kind is Kind.PULL and item.name.startswith("#") for item in named):
        raise UsageError(
            f"night {report.night} did not ask {repo} for its pull requests: its numbers are those of {report.remote}, "
            "and nothing is answered; answer a night that asked GitHub"
        )


@dataclass
class _Desk:
    """What it takes to answer, and how far it is."""

    work: Workplace
    hub: GitHub
    dry_run: bool
    login: str
    issues: IssuePlan = field(default_factory=lambda: IssuePlan((), ()))
    done: list[IssueStep] = field(default_factory=list)
    written: list[Remark] = field(default_factory=list)
    unchanged: int = 0
    not_written: list[NotWritten] = field(default_factory=list)

    @property
    def repo(self) -> str:
        return self.work.config.fork.repo

    def answers(self, night: str) -> Answers:
        return Answers(
            night=night,
            lane=self.work.lane_name,
            dry_run=self.dry_run,
            issues=tuple(self.done),
            comments=tuple(self.written),
            issues_unchanged=self.issues.unchanged,
            comments_unchanged=self.unchanged,
            not_written=tuple(self.not_written),
            calls=self.hub.calls,
        )

    # --- issues ---

    def answer_issues(self, wanted: Sequence[Signal], known_gone: Callable[[SignalMarker], str | None]) -> None:
        try:
            found = self.hub.issues(self.repo, creator=self.login)
        except RemoteError as error:
            self.not_written.append(NotWritten(THE_ISSUES, _why(error, ISSUES)))
            return
        self.issues = plan_issues(found, wanted, known_gone, login=self.login, lane=self.work.lane_name)
        self._each(self.issues.steps, self._step, issue_named, ISSUES)

    def _step(self, step: IssueStep) -> None:
        if not self.dry_run:
            if step.number is None:
                self.work.progress(f"opening issue {step.key}")
                self.hub.open_issue(self.repo, step.title, step.body)
            else:
                self.work.progress(f"issue #{step.number}: {step.act}")
                is_open = step.act is not Act.CLOSE
                self.hub.edit_issue(self.repo, step.number, title=step.title, body=step.body, is_open=is_open)
        self.done.append(step)

    # --- pull requests ---

    def answer_pulls(self, found: Sequence[Remark]) -> None:
        memo = _Memo.read(self.work.state.root / "memo" / "answers.json")
        began = now_utc()
        known = self._known(memo)
        changed = [remark for remark in found if known.get(remark.number) != remark.state]
        self.unchanged = len(found) - len(changed)
        try:
            self._each(changed, lambda remark: self._remark(remark, known), comment_named, PULL_REQUESTS)
        finally:
            if not self.dry_run:
                memo.write(self._whose, known, began - _MARGIN)

    @property
    def _whose(self) -> str:
        """Whose states a memo holds: another repository's, lane's or account's are not these."""
        return f"{self.repo} {self.work.lane_name} {self.login}"

    def _known(self, memo: _Memo) -> dict[int, str]:
        """The states that GitHub shows, as far as a constant number of requests tells."""
        if self._whose not in memo.states:
            return {}
        since, states = memo.states[self._whose]
        # The memo may be older than the last answer: what was written meanwhile is newer than what it says.
        try:
            newer = self.hub.comments_since(self.repo, since)
        except RemoteError as error:
            self.work.progress(f"{error}; each pull request is asked for itself")
            return {}
        for number in {number for number, _ in newer}:
            below = [comment for commented, comment in newer if commented == number]
            state = last_state(below, login=self.login, lane=self.work.lane_name)
            if state is not None:
                states[number] = state
        return states

    def _remark(self, remark: Remark, known: dict[int, str]) -> None:
        comments = self.hub.comments(self.repo, remark.number)
        if last_state(comments, login=self.login, lane=self.work.lane_name) == remark.state:
            self.unchanged += 1
        else:
            if not self.dry_run:
                self.work.progress(f"commenting on #{remark.number}")
                self.hub.comment(self.repo, remark.number, remark.body)
            self.written.append(remark)
        known[remark.number] = remark.state

    # --- inside ---

    def _each(
        self, items: Sequence[Item], act: Callable[[Item], None], named: Callable[[Item], str], needs: str
    ) -> None:
        """Do them all; what fails is kept by name, and the rest goes on."""
        failed_in_a_row = 0
        for item in items:
            if failed_in_a_row == FAILURES_IN_A_ROW:
                self.not_written.append(NotWritten(named(item), NOT_TRIED))
                continue
            try:
                act(item)
                failed_in_a_row = 0
            except RemoteError as error:
                failed_in_a_row += 1
                self.not_written.append(NotWritten(named(item), _why(error, needs)))


def _why(error: RemoteError, needs: str) -> str:
    forbidden = isinstance(error, Refused) and error.status == 403 and not error.limited
    return needs_permission(str(error), needs) if forbidden else str(error)


@dataclass
class _Memo:
    """The states of pull requests by whose they are, and since when GitHub may know newer ones."""

    path: Path
    states: dict[str, tuple[datetime, dict[int, str]]]

    @classmethod
    def read(cls, path: Path) -> _Memo:
        """What cannot be read is not there: it is made again from GitHub."""
        try:
            body = json.loads(path.read_text())
            if body["version"] != _MEMO_VERSION:
                return cls(path, {})
            states = {
                str(whose): (
                    datetime.fromisoformat(kept["since"]),
                    {int(number): str(state) for number, state in kept["states"].items()},
                )
                for whose, kept in body["kept"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(path, {})
        return cls(path, states)

    def write(self, whose: str, states: dict[int, str], since: datetime) -> None:
        self.states[whose] = (since, states)
        kept = {
            name: {"since": at.isoformat(), "states": {str(number): state for number, state in sorted(known.items())}}
            for name, (at, known) in sorted(self.states.items())
        }
        write_whole(self.path, json.dumps({"version": _MEMO_VERSION, "kept": kept}, indent=1) + "\n")
