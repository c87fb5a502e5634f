"""Tonight's candidates on the stack as it is and as a pull request would have it: whose fate changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchstack import verdict
from patchstack.compose.compose import compose
from patchstack.compose.left_out import number_of, repository_of
from patchstack.compose.topics import pull_topics
from patchstack.git import Repository
from patchstack.github import TOKEN_VARIABLES, token_of_environment
from patchstack.model import Candidates, Fingerprint, Kind, LeftOut, Topic
from patchstack.pulls.discover import Discovered
from patchstack.verbs.inputs import skips
from patchstack.verbs.plan import discovered
from patchstack.verbs.stacks import LaneStack
from patchstack.verdict import CandidateChange, Fate
from patchstack.workplace import Workplace

AS_IT_WAS = "the stack is as it was, so they fare as they did"


def compare_candidates(
    store: Repository, before: Mapping[str, LaneStack], after: Mapping[str, LaneStack]
) -> verdict.Candidates:
    """Compose them on either side's stack of each lane, by that side's own rules; main's says where they are listed.

    Raises `RemoteError` when they cannot be listed whole: that is never "no change".
    """
    compared = 0
    why: list[str] = []
    changes: list[CandidateChange] = []
    asked = False
    for lane, now in after.items():
        then = before.get(lane)
        reason = _why_not(then, now)
        if then is None or reason:
            why.append(f"lane {lane}: {reason}")
            continue
        asked = True
        found = discovered(then.work, store, then.base)
        again = found if then.base == now.base else discovered(then.work, store, now.base)
        old, new = _compose(store, then, found), _compose(store, now, again)
        compared += len(old.keys() | new.keys())
        changes += _differences(lane, old, new)
    return verdict.Candidates(
        compared=compared if asked else None, why=verdict.line("; ".join(why)), changes=tuple(changes)
    )


def _why_not(then: LaneStack | None, now: LaneStack) -> str:
    """Why this lane's candidates are not asked for; empty where they are."""
    if then is None:
        return "it is new, or main cannot be read"
    if not now.shown.composes:
        return "its stack does not compose"
    if not then.shown.composes:
        return "main's stack does not compose, so there is nothing to compare with"
    if _ground(then) == _ground(now):
        return AS_IT_WAS
    return _why_not_listed(then.work)


def _ground(stack: LaneStack) -> tuple[object, ...]:
    return (stack.base, [topic.commit for topic in stack.topics], stack.work.config.pulls, stack.work.config.lanes)


def _why_not_listed(work: Workplace) -> str:
    if work.asks_github:
        if token_of_environment() is None:
            return f"GitHub is asked with a token, and none of {', '.join(TOKEN_VARIABLES)} is set"
    elif not work.config.pulls.sources and not work.local:
        return "deploy.yaml names no source of pull requests"
    elif work.embedded and not (Path(work.remote) / "HEAD").is_file():
        return "the embedded remote is not there yet: no night has run on this machine"
    return ""


@dataclass(frozen=True)
class _Told:
    title: str
    author: str
    fate: Fate


def _compose(store: Repository, stack: LaneStack, found: Discovered) -> dict[str, _Told]:
    """What a night would make of each candidate, by name."""
    work = stack.work
    protected = work.config.pulls.protected
    topics, unfit = pull_topics(
        store, stack.base, stack.topics, found.pulls, lane=work.lane_name, protected=protected, progress=work.progress
    )
    candidates = Candidates(
        stack.base,
        (*stack.topics, *topics),
        (*stack.left_out, *found.refused, *unfit),
        blocked=found.blocked,
    )
    made = compose(
        store,
        candidates,
        lane=work.lane_name,
        skips=skips(work),
        fingerprint=Fingerprint("", ()),
        protected=protected,
        progress=work.progress,
    ).composition
    return _told(made.included, made.left_out)


def _told(included: Iterable[Topic], left_out: Iterable[LeftOut]) -> dict[str, _Told]:
    told = {topic.name: _Told(topic.title, topic.author, Fate()) for topic in included if topic.kind is Kind.PULL}
    for item in left_out:
        if item.kind is Kind.PULL:
            fate = Fate(
                reason=f"{item.outcome.value}: {item.reason.value}",
                twins=verdict.names(item.twins),
                files=verdict.names(item.files),
            )
            told[item.name] = _Told(item.title, item.author, fate)
    return told


def _differences(lane: str, old: Mapping[str, _Told], new: Mapping[str, _Told]) -> Sequence[CandidateChange]:
    """Those that are in on one side alone, or are out for another reason or because of others."""
    missing = Fate(reason="not listed")
    found = []
    everybody = {**old, **new}
    for name in sorted(everybody, key=lambda name: (repository_of(name), number_of(name))):
        told = everybody[name]
        before, after = (side[name].fate if name in side else missing for side in (old, new))
        if (before.reason, before.twins) != (after.reason, after.twins):
            found.append(
                CandidateChange(
                    lane=lane,
                    name=verdict.name(name),
                    title=verdict.line(told.title),
                    author=verdict.line(told.author),
                    before=before,
                    after=after,
                )
            )
    return found
