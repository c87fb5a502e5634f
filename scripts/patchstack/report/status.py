"""Where a lane stands, as a page.

The release stage's values are known here by their shape, as stages do not import each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from patchstack.model import Bar, LaneRuns, LedgerLine, Sha, Status
from patchstack.report import hotfix, image_words, lane_words, operator, words
from patchstack.report.page import Line, Page, Section


class ChannelView(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def night(self) -> str | None: ...
    @property
    def tag(self) -> str | None: ...
    @property
    def current(self) -> bool: ...
    @property
    def why_not(self) -> tuple[str, ...]: ...
    @property
    def taken_back(self) -> str | None: ...


class TagView(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def expected(self) -> Sha: ...
    @property
    def found(self) -> Sha | None: ...


class ImageTagView(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def wanted(self) -> str: ...
    @property
    def found(self) -> str | None: ...


class LastRunView(Protocol):
    @property
    def night(self) -> str: ...
    @property
    def status(self) -> Status: ...
    @property
    def nothing_to_do(self) -> bool: ...
    @property
    def failure(self) -> str: ...
    @property
    def lanes(self) -> LaneRuns | None: ...


class SignView(Protocol):
    """That a night was there: promoted, judged, or with nothing to do."""

    @property
    def what(self) -> str: ...
    @property
    def night(self) -> str: ...
    @property
    def at(self) -> str: ...


class StatusView(Protocol):
    """The release stage's `StatusReport`, as far as it is shown."""

    @property
    def lane(self) -> str: ...
    @property
    def branch(self) -> str: ...
    @property
    def remote(self) -> str: ...
    @property
    def tip(self) -> Sha | None: ...
    @property
    def night(self) -> LedgerLine | None: ...
    @property
    def age_s(self) -> int | None: ...
    @property
    def foreign_on_top(self) -> int: ...
    @property
    def channels(self) -> Sequence[ChannelView]: ...
    @property
    def tags_missing(self) -> tuple[str, ...]: ...
    @property
    def tags_elsewhere(self) -> Sequence[TagView]: ...
    @property
    def last_run(self) -> LastRunView | None: ...
    @property
    def image_night(self) -> str | None: ...
    @property
    def image_tags_lag(self) -> Sequence[ImageTagView]: ...
    @property
    def registry_problem(self) -> str: ...
    @property
    def newest(self) -> SignView | None: ...
    @property
    def held(self) -> LedgerLine | None: ...
    @property
    def bars(self) -> Sequence[tuple[str, Bar]]: ...


def status_page(status: StatusView) -> Page:
    lead: list[Line] = []
    parts: list[Section] = []
    if status.night is None or status.tip is None or status.age_s is None:
        lead.append(words.no_night(status.branch, status.remote))
    else:
        lead += [
            words.deployed(status.night, status.branch, status.age_s),
            *operator.reason(status.night),
            *hotfix.deployed(status.night),
            *((operator.held(status.held),) if status.held else ()),
            words.at_tip(status.tip, status.night),
            words.ledger_included(status.night),
            words.ledger_left_out(status.night),
            words.published_on(status.remote),
            *image_words.deployed(status.night, status.image_night),
        ]
        channels = tuple(
            words.channel_current(channel.name, channel.taken_back)
            if channel.current
            else words.channel_behind(channel.name, channel.night, channel.tag, channel.why_not, channel.taken_back)
            for channel in status.channels
        )
        parts += [Section(words.VERDICTS, items=channels), *operator.bars_section(status.bars)]
    if status.foreign_on_top:
        lead.append(words.foreign(status.foreign_on_top, status.branch))
    if status.last_run:
        run = status.last_run
        lead.append(words.last_run(run.night, run.status.value, run.nothing_to_do, run.failure))
        parts += lane_words.standing(run.lanes)
    tags = [words.tag_missing(name) for name in status.tags_missing]
    tags += [words.tag_elsewhere(fault.name, fault.expected, fault.found) for fault in status.tags_elsewhere]
    tags += [image_words.tag_lags(tag.name, tag.wanted, tag.found) for tag in status.image_tags_lag]
    tags += [image_words.registry_problem(status.registry_problem)] if status.registry_problem else []
    if tags:
        parts.append(Section(words.TAGS, items=tuple(tags)))
    return Page(words.status_title(status.lane), tuple(lead), tuple(parts))
