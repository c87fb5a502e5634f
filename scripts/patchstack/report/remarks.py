"""What a night says on each pull request of the fork, and in which state that leaves it.

A remark's state is what a reader would act on. The night's name, its time and the words are not part of it:
a comment is written when the state has changed, and never again for as long as it stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from patchstack.config import NIGHTLY
from patchstack.model import Kind, LeftOut, NightReport, Outcome, Reason, Status, Topic
from patchstack.report import blame_words, words
from patchstack.report.fit import cut, fitted
from patchstack.report.marker import PullMarker, digest
from patchstack.report.page import Badge, Line, Page, Prose, Quoted, Section
from patchstack.report.place import Place

IN_DEPLOY, NOT_SHIPPED = "in deploy", "not shipped"

# Of these the night has nothing to say there: other nights' candidates, strangers', and what is no candidate at all.
_SILENT = {
    Reason.INTO_MAIN,
    Reason.INTO_OTHER,
    Reason.OTHER_LANE,
    Reason.OTHER_OWNER,
    Reason.NOT_WANTED,
    Reason.ON_REQUEST,
}
# In these a new commit changes nothing for whoever reads the comment.
_WHATEVER_THE_HEAD = {
    Reason.DRAFT,
    Reason.BLOCKED,
    Reason.NEEDS_ADMISSION,
    Reason.INTO_DEPLOY,
    Reason.FORK_GONE,
    Reason.SKIPPED_BY_CONFIG,
}
# Before the merge these are not final: whoever carries or has the same may fall.
_OPEN_BEFORE_THE_MERGE = {Outcome.CARRIED, Outcome.DROPPED}

_SAYS = {
    Outcome.CARRIED: "Carried by another pull request",
    Outcome.DROPPED: "Not taken: its change is there already",
    Outcome.EXCLUDED: "Left out of the night",
    Outcome.WAITING: "Not in the night yet",
    Outcome.SKIPPED: "Left out by deploy.yaml",
}
"""An outcome in a few words, for the head of a comment."""


@dataclass(frozen=True)
class Remark:
    number: int
    state: str
    """Equal as long as a reader would do the same about it."""
    body: str
    """Markdown, its marker first."""


def remarks(report: NightReport, place: Place) -> tuple[Remark, ...]:
    """One for each of the fork's open pull requests of which this night knows what became of it; by number.

    A hotfix knows it of those alone that it was asked for: the others are what they were.
    """
    left_out = report.composition.left_out if report.composition else report.left_out
    found = [*_included(report, place)]
    for item in left_out:
        final = report.composition is not None or item.outcome not in _OPEN_BEFORE_THE_MERGE
        if final and item.outcome is not Outcome.GONE and item.reason not in _SILENT and _is_ours(item):
            found.append(_left_out(report, item, place))
    if report.hotfix:
        asked_for = {_number(name) for name in report.hotfix.only if name.startswith("#")}
        found = [remark for remark in found if remark.number in asked_for]
    return tuple(sorted(found, key=lambda remark: remark.number))


def _is_ours(item: Topic | LeftOut) -> bool:
    """A pull request of the fork; one of another repository is ``owner/name#41``."""
    return item.kind is Kind.PULL and item.name.startswith("#")


def _number(name: str) -> int:
    return int(name.removeprefix("#"))


# --- in the night ---


def _included(report: NightReport, place: Place) -> Iterator[Remark]:
    topics = report.composition.included if report.composition else report.planned
    before = dict(report.previous.included) if report.previous else {}
    for topic in filter(_is_ours, topics):
        if report.promotion:
            yield _in_deploy(report, topic, place)
        elif before.get(topic.name) == topic.head:
            yield _still_in_deploy(report, topic, place)
        elif report.composition and report.exit_code:
            if blame_words.confirmed(report, topic.name, topic.head):
                yield _guilty(report, topic, "", place)
            else:
                yield _not_shipped(report, topic, place)


def _in_deploy(report: NightReport, topic: Topic, place: Place) -> Remark:
    assert report.promotion
    line = report.promotion.line
    where: Line = (
        *("Night ", Quoted(report.night), " is promoted to ", Quoted(report.promotion.branch), ", tag "),
        *(Quoted(line.tag), ", with this pull request at ", words.short(topic.head), "."),
    )
    return _deployed(report, topic, "In tonight's deploy", where, place)


def _still_in_deploy(report: NightReport, topic: Topic, place: Place) -> Remark:
    """Whatever became of tonight: what is deployed has this very head."""
    assert report.previous
    where: Line = (
        *("Night ", Quoted(report.previous.night), ", tag ", Quoted(report.previous.tag), ", was promoted with this "),
        *("pull request at ", words.short(topic.head), ", and is what is deployed."),
    )
    return _deployed(report, topic, "In the deploy branch", where, place)


def _deployed(report: NightReport, topic: Topic, title: str, where: Line, place: Place) -> Remark:
    lead = [where]
    if topic.newer_head:
        lead.append(
            (
                *("Its newer head ", words.short(topic.newer_head), " is not in it: only what was admitted is merged"),
                ". It waits for an approval, or for the label to be put on again.",
            )
        )
    if topic.replayed or topic.not_carried:
        lead.append(("How it was merged: ", *words.topic_notes(topic), "."))
    state = digest(IN_DEPLOY, topic.head, topic.newer_head)
    return _remark(report, topic.name, state, ((Badge(title), "."), lead), [], place)


def _not_shipped(report: NightReport, topic: Topic, place: Place) -> Remark:
    verdict = next((item for item in report.verdicts if item.channel == NIGHTLY), None)
    because: list[Line] = []
    if verdict and verdict.status is not Status.PASS:
        because = [(Prose(reason),) for reason in verdict.reasons]
        why: Line = ("channel ", Quoted(verdict.channel), " is ", Badge(verdict.status.value))
    else:
        because = [(Prose(line),) for line in report.failure.splitlines() if line.strip()]
        why = ("the night is ", Badge(report.headline.value))
    lead: list[Line] = [
        (
            *("Night ", Quoted(report.night), " has this pull request at ", words.short(topic.head), ", but nothing "),
            *("was moved: ", *why, ". It ships with the next green night that it merges into."),
        )
    ]
    state = digest(NOT_SHIPPED, topic.head, topic.newer_head)
    return _remark(report, topic.name, state, ((Badge("Composed, and not deployed"), "."), lead), because, place)


# --- not in the night ---


def _left_out(report: NightReport, item: LeftOut, place: Place) -> Remark:
    if item.reason is Reason.GUILTY:
        return _guilty(report, item, item.detail, place)
    others: Line = (" ", *place.names(item.twins)) if item.twins else ()
    head: Line = (Badge(_SAYS[item.outcome]), ": ", words.reason(item), *others, ".")
    lead: list[Line] = [(Prose(item.detail[:1].upper() + item.detail[1:]),)] if item.detail else []
    known = {topic.name: topic for topic in report.composition.included} if report.composition else {}
    about: list[Line] = []
    for twin in item.twins:
        if twin in known:
            topic = known[twin]
            about.append((place.name(twin), " ", Quoted(topic.title), " by ", Quoted(topic.author)))
    if item.newer_head:
        lead.append(("This is about ", words.short(item.head), ", which was admitted; its newer head is not."))
    about += [("In ", Quoted(file)) for file in item.files]
    admitted = None if item.reason in _WHATEVER_THE_HEAD else item.head
    newer = item.newer_head if admitted else None
    state = digest(item.outcome, item.reason, sorted(item.twins), sorted(item.files), admitted, newer)
    return _remark(report, item.name, state, (head, lead), about, place)


def _guilty(report: NightReport, item: Topic | LeftOut, detail: str, place: Place) -> Remark:
    """Of a set that fails only together, one is told; in the nights after it the state is the same."""
    found = blame_words.confirmed(report, item.name, item.head)
    lead: list[Line] = []
    if found:
        blame, finding = found
        guards = blame_words.tests(finding.tests, dict(blame.tests))
        others = [suspect.name for suspect in finding.suspects[:-1]]
        together: Line = (" together with ", *place.names(others)) if others else ()
        lead.append(
            (
                *("With this pull request at ", words.short(item.head), *together, " night ", Quoted(report.night)),
                *(" is red, and without it is not: ", *guards, "."),
            )
        )
        lead += blame_words.evidence(blame, finding)
    elif detail:
        lead.append((Prose(detail[:1].upper() + detail[1:]),))
    if isinstance(item, LeftOut):
        lead.append(("The rest of the night goes on without it.",))
    release = Quoted(f"patchstack release-hold '{item.name}'")
    lead.append(
        (
            "It comes back by itself with a mended head that is admitted. Where it is not to blame an operator lets ",
            *("this very head in again: ", release, "."),
        )
    )
    if item.newer_head:
        lead.append(("This is about ", words.short(item.head), ", which was admitted; its newer head is not."))
    state = digest(Reason.GUILTY, item.head, item.newer_head)
    return _remark(report, item.name, state, ((Badge("Found guilty of a red night"), "."), lead), [], place)


def _remark(
    report: NightReport, name: str, state: str, said: tuple[Line, list[Line]], items: list[Line], place: Place
) -> Remark:
    head, lead = said

    def page(rows: int) -> Page:
        shown, more = cut(items, rows)
        return Page(head, tuple(lead), (Section("", items=shown, more=more), place.run()))

    return Remark(_number(name), state, fitted(PullMarker(report.lane, state), page))
