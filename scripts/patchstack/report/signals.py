"""What is wrong with a lane, one issue a signal; and when a signal has gone.

A signal is there or not, or a night does not know: one that failed before its merge says nothing about
conflicts, and closes none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from patchstack.errors import EXIT_CODES
from patchstack.model import Composition, LedgerLine, LeftOut, NightReport, Reason, Sha, Status, Topic
from patchstack.report import advice, blame_words, lane_words, measure_words, operator, steady_words, words
from patchstack.report.fit import cut, fitted
from patchstack.report.markdown import inline
from patchstack.report.marker import SignalMarker
from patchstack.report.page import Badge, Line, Page, Prose, Quoted, Section
from patchstack.report.place import Place
from patchstack.report.sections import not_green
from patchstack.report.status import SignView, StatusView

CONFLICT, PATCH, GUILTY = "conflict", "patch", "guilty"
"""What the key of a signal of one topic or pair begins with."""
RED, NO_NIGHT, OVERDUE, HOLD, UNSTEADY = "red-night", "no-night", "overdue", "hold", "unsteady-guards"
"""The keys of those that a lane has once."""
_BASE = "~base"
"""Stands in a key for the base, as a name that no topic can have."""

WHO, WHAT_TO_DO, FAILURE = "Who", "What to do", "What stopped it"
NOT_GREEN, FLAKY = "Not green", "Flaky"


@dataclass(frozen=True)
class Signal:
    key: str
    title: str
    """One line of Markdown."""
    body: str
    """Markdown, its marker first."""
    stays: bool = False
    """An open issue with an equal marker is left as it is: the night that opened it knew more."""


def signals(report: NightReport, place: Place) -> tuple[Signal, ...]:
    """Everything that the night knows to be wrong, one each."""
    made: list[Signal] = []
    if report.composition:
        made += _conflicts(report.composition, place)
        made += _guilty(report, report.composition, place)
    if report.refused:
        made.append(_refused(report, report.refused.patch, report.refused.files, place))
    elif report.exit_code:
        made.append(_red(report, place))
    if steady_words.worth_an_issue(report):
        made.append(_unsteady(report))
    if report.held:
        made.append(_held(report.lane, report.held))
    return tuple({signal.key: signal for signal in made}.values())


def finished(report: NightReport) -> bool:
    """Whether it went as far as it could: promoted, held back, nothing to do, or failed. One of some stages did not."""
    return bool(report.promotion or report.nothing_to_do or report.exit_code or _is_held_back(report))


def _is_held_back(report: NightReport) -> bool:
    """It passed, and there its promotion would have been; until then it is INCOMPLETE."""
    return report.held is not None and report.headline is Status.PASS


def gone(report: NightReport, marker: SignalMarker) -> str | None:
    """The line that closes the issue of a signal which the night does not raise; None where it does not know."""
    green = not report.exit_code and bool(report.promotion or report.nothing_to_do)
    kind, _, _ = marker.key.partition(":")
    if kind == CONFLICT and report.composition and not report.hotfix:  # which was asked for a few alone
        said: Line = (" merged what there is without this conflict.",)
    elif kind == GUILTY and report.composition and not report.hotfix:
        said = (" left out nothing of that name for a red guard.",)
    elif kind == UNSTEADY and report.tests and report.verdicts:
        said = (" had no flaky guard, and none in quarantine.",)
    elif kind == PATCH and (report.composition or report.nothing_to_do):
        said = (" composed every patch that it needs.",)
    elif kind == RED and green and report.promotion:
        said = (" is green, and promoted.",)
    elif kind == RED and _is_held_back(report) and not report.nothing_to_do:
        said = (" is green; promotion is on hold.",)
    elif kind == HOLD and green and report.held is None:
        said = (" found no hold.",)
    elif kind == RED and green and report.previous and report.previous.fingerprint != marker.inputs:
        # Had the red night the same inputs, that they were green once before would prove nothing.
        said = (
            " had nothing to do: its inputs are those of night ",
            Quoted(report.previous.night),
            ", which is green.",
        )
    elif kind == NO_NIGHT and finished(report):
        said = (" ran to its end and reported.",)
    elif kind == OVERDUE and (report.nothing_to_do or report.verdicts):
        said = (" ran.",)
    else:
        return None
    return inline(("Gone: night ", Quoted(report.night), " (", Quoted(report.at), ")", *said))


def ran_again(status: StatusView, marker: SignalMarker) -> str | None:
    """The line that closes the issue about no night for too long, once there was one in time."""
    if marker.key != OVERDUE or status.newest is None:
        return None
    return inline(("Gone: ", *_sign(status.newest)))


def twin(number: int) -> str:
    """The line that closes the younger of two issues of one signal."""
    return f"Closed: #{number} tells of the same, and is older."


def _page(lead: Line, sections: Iterable[Section]) -> Page:
    return Page(lead, (), tuple(section for section in sections if section.intro or section.items or section.more))


# --- conflicts ---


def _conflicts(composition: Composition, place: Place) -> Iterator[Signal]:
    for item in composition.left_out:
        if item.reason is Reason.CONFLICT:
            yield from (_conflict(composition, item, twin, place) for twin in item.twins or (None,))


def _conflict(composition: Composition, item: LeftOut, twin: str | None, place: Place) -> Signal:
    key = ":".join((CONFLICT, *sorted((item.name, twin or _BASE))))
    other: Line = (Quoted(twin),) if twin else ("the base",)
    title: Line = ("Lane ", Quoted(composition.lane), ": ", Quoted(item.name), " conflicts with ", *other)
    left_out = ("Left out: ", place.name(item.name), *_about(item.title, item.author, item.head))
    base: Line = ("the base ", Quoted(composition.base.name))
    other_one = ("With: ", *(_topic(composition, twin, place) if twin else base))
    others = [name for name in item.twins if name != twin]
    besides: tuple[Line, ...] = (("It conflicts with these too: ", *place.names(others)),) if others else ()

    def page(rows: int) -> Page:
        files, more = cut([(Quoted(file),) for file in item.files], rows)
        lead = ("They do not merge, so the later one is left out of every night until one of them is mended.",)
        who, more_who = cut([left_out, other_one, *besides], rows)
        mend, more_mend = cut([(Prose(item.detail),)] if item.detail else [], rows)
        sections = (
            Section(WHO, items=who, more=more_who),
            Section("Files", items=files, more=more),
            Section(WHAT_TO_DO, items=mend, more=more_mend),
        )
        return _page(lead, sections)

    return Signal(key, inline(title), fitted(SignalMarker(composition.lane, key), page))


def _topic(composition: Composition, name: str, place: Place) -> Line:
    included: dict[str, Topic | LeftOut] = {topic.name: topic for topic in composition.included}
    known = included.get(name) or next((item for item in composition.left_out if item.name == name), None)
    return (place.name(name), *(_about(known.title, known.author, known.head) if known else ()))


def _about(title: str, author: str, head: Sha | None) -> Line:
    called: Line = (" ", Quoted(title)) if title.strip() else ()
    by: Line = (" by ", Quoted(author)) if author.strip() else ()
    at: Line = (" at ", words.short(head)) if head else ()
    return (*called, *by, *at)


# --- a night that did not end well ---


def _refused(report: NightReport, patch: str, files: tuple[str, ...], place: Place) -> Signal:
    key = f"{PATCH}:{patch}"
    title: Line = ("Lane ", Quoted(report.lane), ": patch ", Quoted(patch), " does not apply any more")
    lead: Line = ("Patch ", Quoted(patch), " stops every night of lane ", Quoted(report.lane), " until it is mended.")
    mend: tuple[Line, ...] = (
        ("Open it in a work tree: ", Quoted(f"patchstack patch edit {patch} FOLDER"), "."),
        ("Write it back with ", Quoted(f"patchstack patch export {patch} --from FOLDER"), " and open a pull request."),
    )

    def page(rows: int) -> Page:
        failure, more = cut([(Prose(line),) for line in report.failure.splitlines() if line.strip()], rows)
        shown, more_files = cut([(Quoted(file),) for file in files], rows)
        sections = (
            Section(FAILURE, items=failure, more=more),
            Section("Files", items=shown, more=more_files),
            Section(WHAT_TO_DO, items=mend),
        )
        return _page(lead, sections)

    return Signal(key, inline(title), fitted(SignalMarker(report.lane, key), page))


def _red(report: NightReport, place: Place) -> Signal:
    title: Line = ("Lane ", Quoted(report.lane), f": the night is {report.headline.value}")
    inputs = report.composition.fingerprint.digest if report.composition else ""
    meaning = EXIT_CODES.get(report.exit_code, "unknown")

    def page(rows: int) -> Page:
        failure, more = cut([(Prose(line),) for line in report.failure.splitlines() if line.strip()], rows)
        red = [words.verdict(item, None) for item in report.verdicts if item.status is not Status.PASS]
        verdicts, more_verdicts = cut(red, rows)
        guards, more_guards = cut(not_green(report.tests) if report.tests else [], rows)
        lead: Line = (
            *("Night ", Quoted(report.night), " ended with ", Badge(report.headline.value)),
            f" (exit code {report.exit_code}: {meaning}). ",
            *_moved(report),
        )
        sections = (
            Section(FAILURE, items=failure, more=more),
            Section(words.VERDICTS, items=verdicts, more=more_verdicts),
            *_findings(report, rows, place),
            Section(NOT_GREEN, items=guards, more=more_guards),
            _metrics(report, rows),
            _lanes(report, rows),
            Section(WHAT_TO_DO, items=advice.what_to_do(report)),
        )
        return _page(lead, (*sections, place.run()))

    return Signal(RED, inline(title), fitted(SignalMarker(report.lane, RED, inputs), page))


def _moved(report: NightReport) -> Line:
    if report.promotion:
        return words.moved(report.promotion)
    if report.previous is None:
        return ("Nothing was moved, and no night was ever promoted.",)
    return ("Nothing was moved: what is deployed stays night ", Quoted(words.content(report.previous)), ".")


# --- what was found out about it ---


def _findings(report: NightReport, rows: int, place: Place) -> Iterator[Section]:
    every = blame_words.rounds(report.blame)
    for number, blame in enumerate(every, 1):
        which = f", round {number}" if len(every) > 1 else ""
        items, more = cut(blame_words.findings(report, blame, place.name), rows)
        yield Section(f"{blame_words.BLAME}{which}", items=items, more=more)


def _metrics(report: NightReport, rows: int) -> Section:
    items, more = cut(measure_words.worse(report.measures), rows)
    return Section(measure_words.TITLE, items=items, more=more)


def _lanes(report: NightReport, rows: int) -> Section:
    items, more = cut(lane_words.red(report.lanes), rows)
    return Section(lane_words.TITLE, items=items, more=more)


# --- whom nobody else tells ---


def _guilty(report: NightReport, composition: Composition, place: Place) -> Iterator[Signal]:
    """Patches, and pull requests of other repositories; a pull request of the fork has a comment."""
    for item in composition.left_out:
        if item.reason is Reason.GUILTY and not item.name.startswith("#"):
            yield _guilty_one(report, item, place)


def _guilty_one(report: NightReport, item: LeftOut, place: Place) -> Signal:
    key = f"{GUILTY}:{item.name}"
    title: Line = ("Lane ", Quoted(report.lane), ": ", Quoted(item.name), " makes guards red, and is left out")
    who: Line = (place.name(item.name), *_about(item.title, item.author, item.head))
    found = blame_words.confirmed(report, item.name, item.head)

    def page(rows: int) -> Page:
        evidence = blame_words.evidence(*found) if found else ()
        said, more = cut([who, *([(Prose(item.detail),)] if item.detail else []), *evidence], rows)
        lead: Line = ("The night leaves it out at this commit, and ships the rest. Mended, it comes back by itself.",)
        return _page(lead, (Section(WHO, items=said, more=more),))

    marker = SignalMarker(report.lane, key, item.head or "")
    return Signal(key, inline(title), fitted(marker, page), stays=found is None)


# --- guards that are no judges for now ---


def _unsteady(report: NightReport) -> Signal:
    assert report.tests
    title: Line = ("Lane ", Quoted(report.lane), ": guards are flaky, or in quarantine")
    flaky = steady_words.flaky(report.tests)
    excused = steady_words.quarantined(report.tests, dict(report.quarantined_green), report.lanes)

    def page(rows: int) -> Page:
        first, more = cut(flaky, rows)
        second, more_excused = cut(excused, rows)
        lead: Line = ("A guard that passes and fails on one tree proves nothing, and one in quarantine holds nothing.",)
        sections = (
            Section(FLAKY, items=first, more=more),
            Section(steady_words.QUARANTINE, items=second, more=more_excused),
            Section(WHAT_TO_DO, items=(advice.UNSTEADY,)),
        )
        return _page(lead, sections)

    return Signal(UNSTEADY, inline(title), fitted(SignalMarker(report.lane, UNSTEADY), page))


# --- what an operator said ---


def _held(lane: str, line: LedgerLine) -> Signal:
    title: Line = ("Lane ", Quoted(lane), ": promotion is on hold")

    def page(rows: int) -> Page:
        return _page(operator.held(line), ())

    return Signal(HOLD, inline(title), fitted(SignalMarker(lane, HOLD), page))


# --- no night at all ---


def no_night(lane: str, url: str) -> Signal:
    """The workflow's run at ``url`` ended without a report."""
    title: Line = ("Lane ", Quoted(lane), ": a night ended without a report")
    lead: Line = ("A run of the night ended before it could say anything. Nothing is known of what it found.",)
    items: tuple[Line, ...] = (
        ("Its log: ", Quoted(url)),
        ("Look which job failed, mend that, and run the workflow again; a night that reports closes this issue.",),
    )

    def page(rows: int) -> Page:
        return _page(lead, (Section(WHAT_TO_DO, items=items),))

    return Signal(NO_NIGHT, inline(title), fitted(SignalMarker(lane, NO_NIGHT), page))


def overdue(status: StatusView, place: Place) -> Signal:
    """No night was promoted, tested or found to have nothing to do for too long."""
    title: Line = ("Lane ", Quoted(status.lane), ": no night for too long")
    newest: Line = (
        ("The newest that is known: ", *_sign(status.newest)) if status.newest else ("None is known at all.",)
    )
    held: Line = (Quoted(status.branch), " never had a night.")
    if status.night:
        held = (Quoted(status.branch), " holds night ", Quoted(words.content(status.night)), ".")
    lead: Line = ("No night was promoted, tested, or found to have nothing to do. ", *newest, " ", *held)
    items: tuple[Line, ...] = (
        ("Look whether the nightly workflow is switched off, waits for a runner, or fails before it can report.",),
        ("Start it by hand; the next night that runs closes this issue.",),
    )

    def page(rows: int) -> Page:
        return _page(lead, (Section(WHAT_TO_DO, items=items), place.run()))

    return Signal(OVERDUE, inline(title), fitted(SignalMarker(status.lane, OVERDUE), page))


def _sign(sign: SignView) -> Line:
    return ("night ", Quoted(sign.night), f", {sign.what} at ", Quoted(sign.at), ".")
