"""A hotfix: what is deployed, each topic as it was merged then, and a few pull requests on top of it.

The octopus of the deployed night has the base and every included topic as parents, in the order of its ledger line.
So what was merged is at hand wherever the deploy branch is, also when its pull request has moved on or is closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from patchstack.compose.carried import roots, sort_out
from patchstack.compose.dedup import dedup
from patchstack.compose.left_out import leave_out, listed
from patchstack.errors import Incomplete, RemoteError, UsageError
from patchstack.git import Repository, readable
from patchstack.model import (
    Base,
    Candidates,
    Composition,
    Hotfix,
    Kind,
    LedgerLine,
    LeftOut,
    Outcome,
    Reason,
    Sha,
    Topic,
)

_FIX = "what it is for"


@dataclass(frozen=True)
class Deployed:
    """The night that a hotfix stands on."""

    night: str
    """Whose content it is: after a rollback the night that was gone back to."""
    line: LedgerLine
    """What `deploy` holds: that night's, or the rollback's."""
    when_it_was: str
    """How to have `patches/` and `deploy.yaml` as they were then."""


def candidates_onto(
    store: Repository, found: Candidates, deployed: Deployed, only: Sequence[str], skips: Mapping[str, str]
) -> tuple[Candidates, Hotfix]:
    """What is deployed, and those of tonight's candidates (``found``) that ``only`` names.

    What is deployed stays as it is, whatever became of it since: it is not asked whether it is blocked or skipped
    now. Raises `UsageError` where the base or the patches are not the deployed night's, and for a name that is none
    or is deployed at that very head; `Incomplete` where one of ``only`` may not be merged.
    """
    line = deployed.line
    _require_base(found.base, deployed)
    merged = _merged_then(store, line)
    patches, patches_off = _patches(found, deployed)
    named = _named(store, found, only, skips, deployed)
    known: dict[str, Topic | LeftOut] = {item.name: item for item in found.left_out}
    known |= {topic.name: topic for topic in found.topics}
    topics: list[Topic] = []
    replaced: list[tuple[str, Sha]] = []
    for name, head, commit in merged:
        if name in patches:
            topics.append(patches[name])
        elif name in only:
            replaced.append((name, head))
        else:
            made = _pull_topic(store, found.base, (name, head, commit), tuple(patches.values()))
            topics.append(_with_words(store, made, known.get(name)))
    left_out = (*(item for item in found.left_out if item.kind is Kind.PATCH), *patches_off)
    narrowed = Candidates(found.base, (*topics, *named), left_out, found.asked)
    return narrowed, Hotfix(deployed.night, line.composition, tuple(topic.name for topic in named), tuple(replaced))


def require_whole(candidates: Candidates, composition: Composition, hotfix: Hotfix) -> None:
    """`Incomplete` unless each of ``candidates`` is in ``composition``, by itself or carried by what was asked for."""
    included = {topic.name for topic in composition.included}
    out = {item.name: item for item in composition.left_out}
    lacking: list[tuple[str, LeftOut]] = []
    for topic in candidates.topics:
        if topic.name in included:
            continue
        item = out[topic.name]
        if item.outcome is Outcome.CARRIED and included.intersection(item.twins).intersection(hotfix.only):
            continue
        lacking.append((_FIX if topic.name in hotfix.only else "what is deployed", item))
    if lacking:
        _refuse(hotfix.onto, lacking)


def _refuse(night: str, lacking: Sequence[tuple[str, LeftOut]]) -> NoReturn:
    """Each is left out; and what it is to the hotfix."""
    kinds = dict.fromkeys(kind for kind, _ in lacking)
    told = [f"{kind}: {'; '.join(_told(item) for one, item in lacking if one == kind)}" for kind in kinds]
    raise Incomplete(f"a hotfix onto night {night} would lack {'; and '.join(told)}; nothing was tested or moved")


def _told(item: LeftOut) -> str:
    twins = f" with {listed(item.twins)}" if item.twins else ""
    files = f" in {listed(item.files)}" if item.files else ""
    return f"{item.name}: {item.reason}{twins}{files}: {item.detail}"


# --- what was asked for ---


def _named(
    store: Repository, found: Candidates, only: Sequence[str], skips: Mapping[str, str], deployed: Deployed
) -> tuple[Topic, ...]:
    """The pull requests of ``only``, as tonight's candidates are ordered."""
    topics = {topic.name: topic for topic in found.topics if topic.kind is Kind.PULL}
    out = {item.name: item for item in found.left_out if item.kind is Kind.PULL}
    unknown = [name for name in only if name not in topics and name not in out]
    if unknown:
        raise UsageError(
            f"--only {unknown[0]}: no source lists an open pull request of that name; "
            f"those that could be merged are: {', '.join(topics) or 'none'}"
        )
    then = dict(deployed.line.included)
    same = [topics[name] for name in only if name in topics and then.get(name) == topics[name].head]
    if same:
        newer = [f"{topic.name}: {topic.newer_head[:12]}" for topic in same if topic.newer_head]
        waiting = f" (newer heads wait for an admission of their own: {', '.join(newer)})" if newer else ""
        raise UsageError(
            f"{listed(topic.name for topic in same)} is deployed already at the head that was admitted{waiting}: "
            "there is nothing to do; leave it out of --only"
        )
    refused = [out[name] for name in only if name not in topics]
    refused += _barred_or_skipped(store, found, only, skips) if not refused else []
    if refused:
        _refuse(deployed.night, [(_FIX, item) for item in refused])
    return tuple(topic for topic in topics.values() if topic.name in only)


def _barred_or_skipped(
    store: Repository, found: Candidates, only: Sequence[str], skips: Mapping[str, str]
) -> list[LeftOut]:
    """Those of ``only`` that a night may not merge, whatever else is merged. All others are read to know whose
    commits are whose.
    """
    reasons = {Reason.CARRIES_BLOCKED, Reason.SKIPPED_BY_CONFIG}
    judged = dedup(store, found, skips).left_out
    return [item for item in judged if item.name in only and item.reason in reasons]


# --- what is deployed ---


def _require_base(base: Base, deployed: Deployed) -> None:
    line = deployed.line
    if base.commit != line.base_commit:
        raise UsageError(
            f"night {deployed.night} is on {line.base} ({line.base_commit[:12]}), and deploy.yaml gives {base.name} "
            f"({base.commit[:12]}): a hotfix keeps the base; {deployed.when_it_was}, or run an ordinary night"
        )


def _merged_then(store: Repository, line: LedgerLine) -> tuple[tuple[str, Sha, Sha], ...]:
    """Name, head and merged commit of each topic, in order; `RemoteError` where line and octopus do not fit."""
    if not store.has(f"{line.composition}^{{commit}}"):
        raise RemoteError(f"night {line.night} was made of {line.composition}, which is not in the store")
    parents = store.parents(line.composition)
    if len(parents) != len(line.included) + 1 or parents[0] != line.base_commit:
        raise RemoteError(
            f"night {line.night}: its commit {line.composition} does not merge what its ledger line names: no hotfix "
            "can be put onto it; run an ordinary night"
        )
    return tuple((name, head, commit) for (name, head), commit in zip(line.included, parents[1:], strict=True))


def _patches(found: Candidates, deployed: Deployed) -> tuple[dict[str, Topic], tuple[LeftOut, ...]]:
    """Today's topics of the patches that are deployed, and those patches of today that the night had left out.

    `UsageError` where any other than these is here, or one of them is another.
    """
    line = deployed.line
    today = {topic.name: topic for topic in found.topics if topic.kind is Kind.PATCH}
    out = {item.name: item.reason.value for item in found.left_out if item.kind is Kind.PATCH}
    then = {name: head for name, head in line.included if "#" not in name}  # a slug holds no #
    reasons_then = dict(line.left_out)
    differ = []
    for name, head in then.items():
        if name not in today:
            differ.append(f"{name} ({out.get(name, 'not in patches/series any more')})")
        elif today[name].head != head:
            differ.append(f"{name} ({head[:12]} then, {today[name].head[:12]} now)")
    fresh = [topic for topic in today.values() if topic.name not in then]
    differ += [f"{topic.name} (new)" for topic in fresh if topic.required or topic.name not in reasons_then]
    if differ:
        raise UsageError(
            f"patches/ is not what night {deployed.night} had, and guards belong to their patches: "
            f"{', '.join(differ)}; {deployed.when_it_was}, or run an ordinary night"
        )
    left_off = tuple(_left_off(topic, reasons_then[topic.name], deployed.night) for topic in fresh)
    return {name: today[name] for name in then}, left_off


def _left_off(patch: Topic, reason: str, night: str) -> LeftOut:
    known = Reason(reason) if reason in set(Reason) else Reason.SWITCHED_OFF
    detail = f"night {night} had left it out, and what is deployed stays as it is"
    return leave_out(patch, Outcome.SKIPPED, known, detail)


def _pull_topic(store: Repository, base: Base, merged: tuple[str, Sha, Sha], patches: Sequence[Topic]) -> Topic:
    """A pull request's topic as that night had it, from the commit that it merged."""
    name, head, commit = merged
    replayed = commit != head
    if replayed:
        begin = store.parents(commit)[0]
        own_from = _cut_from(store, commit, head)
    else:
        found = store.merge_base(base.commit, head)
        if found is None:
            raise RemoteError(f"{name} was merged at {head}, which shares no commit with {base.name}")
        begin = own_from = found
    # On a machine that never saw the head only what was merged is known of its own diff.
    own_from, own_to = (own_from, head) if own_from else (begin, commit)
    reached = set(store.commits(commit, f"^{base.commit}"))
    left_off: tuple[str, ...] = ()
    if replayed and own_to == head:
        left_off = sort_out(store.changes(own_from, head), roots(store, base.tree)).left_off
    return Topic(
        name=name,
        kind=Kind.PULL,
        title="",
        author="",
        head=head,
        commit=commit,
        own_from=own_from,
        own_to=own_to,
        patch_id=store.patch_id(own_from, own_to),
        paths=tuple(readable(change.path) for change in store.changes(begin, commit)),
        requires=tuple(patch.name for patch in patches if patch.commit in reached),
        replayed=replayed,
        not_carried=tuple(map(readable, left_off)),
    )


def _cut_from(store: Repository, commit: Sha, head: Sha) -> Sha | None:
    """Where the own diff of a replayed ``head`` began, as the replayed commit says; None where that is not at hand."""
    if not store.has(f"{head}^{{commit}}"):
        return None
    end = f"..{head}"
    said = [word.removesuffix(end) for word in store.show(commit, "%b").split() if word.endswith(end)]
    found = store.resolve(f"{said[0]}^{{commit}}") if said else None
    return found if found is not None and store.is_ancestor(found, head) else None


def _with_words(store: Repository, topic: Topic, known: Topic | LeftOut | None) -> Topic:
    """Title and author as the pull request has them tonight, or else as its commits had them then.

    Where no GitHub says them, tonight's are those of its newest commit.
    """
    if known is not None and known.title and (known.url or known.head == topic.head):
        target = known.target if isinstance(known, Topic) else ""
        return replace(topic, title=known.title, author=known.author, url=known.url, target=target)
    title, author = readable(store.show(topic.commit, "%s%x00%an")).split("\0")
    return replace(topic, title=title.removeprefix(f"{topic.name}: ") if topic.replayed else title, author=author)
