"""What is written on GitHub for a night, decided from what is there; and the same for a reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from patchstack.github import COMMENT_LIMIT, Comment, Issue
from patchstack.report.inert import visible
from patchstack.report.marker import SignalMarker, pull_of, signal_of
from patchstack.report.remarks import Remark
from patchstack.report.signals import Signal, twin


class Act(StrEnum):
    OPEN = "open"
    EDIT = "edit"
    REOPEN = "reopen"
    CLOSE = "close"


@dataclass(frozen=True)
class IssueStep:
    """One issue, made to look like this."""

    act: Act
    number: int | None
    """None: it is not there yet."""
    key: str
    title: str
    body: str


@dataclass(frozen=True)
class IssuePlan:
    steps: tuple[IssueStep, ...]
    unchanged: tuple[int, ...]
    """Issues that say already what they should."""


def plan_issues(
    found: Iterable[Issue],
    wanted: Sequence[Signal],
    gone: Callable[[SignalMarker], str | None],
    *,
    login: str,
    lane: str,
) -> IssuePlan:
    """What to do about the issues of ``lane``: one for each signal, and none for a signal that has gone.

    Only what ``login`` opened counts. ``gone`` is the line that closes the issue of a signal that is not wanted;
    None where nothing is known of it: then the issue stays as it is.
    """
    ours: dict[str, list[tuple[Issue, SignalMarker]]] = {}
    for issue in sorted(found, key=lambda issue: issue.number):
        marker = signal_of(issue.body) if issue.author == login else None
        if marker and marker.lane == lane:
            ours.setdefault(marker.key, []).append((issue, marker))
    steps: list[IssueStep] = []
    unchanged: list[int] = []
    for signal in wanted:
        issues = [issue for issue, _ in ours.pop(signal.key, [])]
        step = _raised(signal, issues[0] if issues else None)
        if step:
            steps.append(step)
        else:
            unchanged.append(issues[0].number)
        steps += _closed_twins(signal.key, issues)
    for key, pairs in ours.items():
        still = [(issue, marker) for issue, marker in pairs if issue.open]
        if not still:
            continue
        steps += _closed_twins(key, [issue for issue, _ in still])
        oldest, marker = still[0]
        line = gone(marker)
        if line is None:
            unchanged.append(oldest.number)
        else:
            steps.append(_closed(key, oldest, line))
    return IssuePlan(tuple(steps), tuple(sorted(unchanged)))


def _raised(signal: Signal, issue: Issue | None) -> IssueStep | None:
    if issue is None:
        return IssueStep(Act.OPEN, None, signal.key, signal.title, signal.body)
    if not issue.open:
        return IssueStep(Act.REOPEN, issue.number, signal.key, signal.title, signal.body)
    if signal.stays and signal_of(issue.body) == signal_of(signal.body):
        return None
    if (_plain(issue.title), _plain(issue.body)) == (_plain(signal.title), _plain(signal.body)):
        return None
    return IssueStep(Act.EDIT, issue.number, signal.key, signal.title, signal.body)


def _plain(text: str) -> str:
    """``text`` whatever became of its line ends on the way: an edit in the browser writes others."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _closed_twins(key: str, issues: Sequence[Issue]) -> list[IssueStep]:
    """Two runs that raced may both have opened one: the oldest stays."""
    return [_closed(key, issue, twin(issues[0].number)) for issue in issues[1:] if issue.open]


def _closed(key: str, issue: Issue, line: str) -> IssueStep:
    body = f"{issue.body.rstrip()}\n\n{line}\n"
    if len(body.encode(errors="backslashreplace")) > COMMENT_LIMIT:  # somebody wrote a book below ours
        body = f"{issue.body.partition(chr(10))[0].rstrip()}\n\n{line}\n"
    return IssueStep(Act.CLOSE, issue.number, key, issue.title, body)


def last_state(comments: Iterable[Comment], *, login: str, lane: str) -> str | None:
    """The state that our last comment of ``lane`` tells of; None where we never commented."""
    markers = (pull_of(comment.body) for comment in comments if comment.author == login)
    states = [marker.state for marker in markers if marker and marker.lane == lane]
    return states[-1] if states else None


# --- for a reader ---


@dataclass(frozen=True)
class NotWritten:
    what: str
    why: str


@dataclass(frozen=True)
class Answers:
    """What was written, or with a dry run would be."""

    night: str
    """Empty where no night is told of."""
    lane: str
    dry_run: bool
    issues: tuple[IssueStep, ...]
    comments: tuple[Remark, ...]
    issues_unchanged: tuple[int, ...]
    comments_unchanged: int
    not_written: tuple[NotWritten, ...]
    calls: int
    """Requests to GitHub."""


NOT_TRIED = "not tried: the ones before it failed, one after the other"
THE_ISSUES = "the issues"


def issue_named(step: IssueStep) -> str:
    return f"issue #{step.number}, {step.title}" if step.number else f"a new issue, {step.title}"


def comment_named(remark: Remark) -> str:
    return f"the comment on #{remark.number}"


def needs_permission(why: str, permission: str) -> str:
    return f"{why}; in a workflow the job needs `{permission}`"


_DONE = {Act.OPEN: "opened", Act.EDIT: "edited", Act.REOPEN: "opened again", Act.CLOSE: "closed"}
_WOULD = {Act.OPEN: "opens", Act.EDIT: "edits", Act.REOPEN: "opens again", Act.CLOSE: "closes"}


def render_answers(answers: Answers) -> str:
    """Every text with what is done with it, as plain text."""
    verbs = _WOULD if answers.dry_run else _DONE
    lines = [answers_line(answers)]
    for step in answers.issues:
        which = f" #{step.number}" if step.number else ""
        lines += ["", f"== {verbs[step.act]} issue{which}: {visible(step.title)}", "", step.body.rstrip()]
    comment = "comments on" if answers.dry_run else "commented on"
    for remark in answers.comments:
        lines += ["", f"== {comment} #{remark.number}", "", remark.body.rstrip()]
    lines += ["", *(f"not written: {visible(item.what)}: {visible(item.why)}" for item in answers.not_written)]
    return "\n".join(lines).rstrip() + "\n"


def answers_line(answers: Answers) -> str:
    """All of it in one line."""
    night = f"night {answers.night}, lane {answers.lane}" if answers.night else f"lane {answers.lane}"
    by_act = [f"{sum(step.act is act for step in answers.issues)} {_DONE[act]}" for act in Act]
    numbers = f"issues: {', '.join(by_act)}, {len(answers.issues_unchanged)} as they are"
    comments = f"comments: {len(answers.comments)} new, {answers.comments_unchanged} pull requests as they were"
    return f"{night}: {numbers}; {comments}; {answers.calls} requests{'; nothing is written' * answers.dry_run}"


def not_written(items: Sequence[NotWritten]) -> str:
    """What the verb fails with: everything that is not on GitHub and should be."""
    lines = [f"{item.what}: {item.why}" for item in items]
    many = f"{len(lines)} of the night's answers are" if len(lines) != 1 else "one of the night's answers is"
    return "\n".join([f"{many} not written; `patchstack answer` writes what is missing when it is run again:", *lines])
