"""Pages on a terminal, or as plain lines where there is none; and the progress of a run."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO, cast

from patchstack.model import Composition, GuardReport, ImageTests, MergePlan, NightReport, Promotion, Verdicts
from patchstack.report import image_words, operator, pages, words
from patchstack.report.inert import visible
from patchstack.report.page import Badge, Block, Line, Link, Page, Prose, Quoted, Section, Table
from patchstack.report.status import StatusView, status_page

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.table import Table as RichTable
    from rich.text import Text

QUOTED_LIMIT = 160
PROSE_LIMIT = 2000
PLAIN_WIDTH = 160
"""Columns where nothing says how many there are: a file or a pipe."""

_STYLES = {
    "PASS": "bold green",
    "pass": "green",
    "proven": "green",
    "killed": "green",
    "moved": "green",
    "FAIL": "bold red",
    "fail": "red",
    "crash": "red",
    "timeout": "red",
    "broken": "red",
    "alive": "red",
    "INCOMPLETE": "bold yellow",
    "CONFIRMED": "bold red",
    "NARROWED": "bold yellow",
    "FLAKY": "bold yellow",
    "INFRA": "bold yellow",
    "flaky": "bold yellow",
    "quarantined": "bold yellow",
    "warn": "bold yellow",
    "expired": "red",
    "missing": "bold yellow",
    "lost": "bold yellow",
    "late": "bold yellow",
    "refused": "bold yellow",
}


def render_terminal(report: NightReport, console: Console | None = None) -> None:
    """Print a night; to standard output where no console is given."""
    print_page(pages.night_page(report), console or make_console(sys.stdout))


def render_plan(plan: MergePlan, run: str) -> str:
    return page_text(pages.plan_page(plan, run))


def render_composition(composition: Composition, run: str) -> str:
    return page_text(pages.composition_page(composition, run))


def render_guards(report: GuardReport, verdicts: Verdicts) -> str:
    return page_text(pages.guards_page(report, verdicts))


def render_proof(report: GuardReport) -> str:
    return page_text(pages.proof_page(report))


def render_promotion(promotion: Promotion, dry_run: bool) -> str:
    return page_text(pages.promotion_page(promotion, dry_run))


def render_operation(promotion: Promotion, dry_run: bool) -> str:
    return page_text(operator.operation_page(promotion, dry_run))


def render_image_tests(tests: ImageTests) -> str:
    return page_text(image_words.tests_page(tests))


def render_status(status: StatusView) -> str:
    return page_text(status_page(status))


def page_text(page: Page) -> str:
    """A page as plain text."""
    stream = io.StringIO()
    print_page(page, make_console(stream))
    return stream.getvalue()


def make_console(stream: TextIO) -> Console:
    """A console that interprets nothing in what it prints; without colour and at a fixed width off a terminal."""
    from rich.console import Console

    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def print_page(page: Page, console: Console) -> None:
    from rich.text import Text

    # Soft wrap: a terminal may fold a long line, but a command in it can be copied whole.
    def say(*parts: str | Text) -> None:
        console.print(Text("").join(Text(part) if isinstance(part, str) else part for part in parts), soft_wrap=True)

    title = _text(page.title)
    title.stylize("bold")
    say(title)
    for line in page.lead:
        say(_text(line))
    for section in page.sections:
        say("")
        say(Text(section.title, style="bold"))
        _print_section(section, console, say)


def _print_section(section: Section, console: Console, say: Callable[..., None]) -> None:
    for line in section.intro:
        say("  ", _text(line))
    if section.table:
        console.print(_table(section.table))
    for line in section.items:
        say("  - ", _text(line))
    for block in section.blocks:
        _print_block(block, say)
    if section.more:
        say("  ", section.more)


def _print_block(block: Block, say: Callable[..., None]) -> None:
    say("  - ", _text(block.caption))
    for line in block.lines:
        say("    ", line)
    if block.more:
        say("    ", block.more)


def _table(table: Table) -> RichTable:
    from rich.table import Table as RichTable

    made = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False, header_style="bold")
    made.add_column("")
    for column in table.columns:
        made.add_column(visible(column), overflow="fold")
    for row in table.rows:
        made.add_row("", *map(_text, row))
    return made


def _text(line: Line) -> Text:
    """A line with outside text made visible. `Text` is never read as markup."""
    from rich.text import Text

    text = Text()
    for part in line:
        if isinstance(part, Quoted | Link):
            whole = isinstance(part, Quoted) and part.whole
            text.append(visible(part.text, None if whole else QUOTED_LIMIT))
        elif isinstance(part, Prose):
            text.append(visible(part.text, PROSE_LIMIT))
        elif isinstance(part, Badge):
            text.append(part.text, style=_STYLES.get(part.text, "bold"))
        else:
            text.append(part)
    return text


class _Unheard:
    """A stream that may lose its reader (a terminal that was closed, `2>&1 | head`) without a night stopping for it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding or "utf-8"

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


class Progress:
    """What a run is doing, on standard error, so that `--json` on standard output stays clean.

    A spinner while a stage runs on a terminal; plain lines ``stage: message`` otherwise. Calling it says a
    message, within the stage that is open, if one is.
    """

    def __init__(self, stream: TextIO | None = None, clock_s: Callable[[], float] = time.monotonic) -> None:
        heard = stream if stream is not None else sys.stderr
        self._console = make_console(cast("TextIO", _Unheard(heard)))
        self._clock_s = clock_s
        self._stage = ""
        self._spinner: Status | None = None

    def __call__(self, message: str) -> None:
        text = visible(f"{self._stage}: {message}" if self._stage else message)
        if self._spinner is not None:
            from rich.text import Text

            self._spinner.update(Text(text))
        else:
            self._say(text)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Name the stage that runs in the block, and say afterwards how long it took."""
        from rich.text import Text

        outer, self._stage = self._stage, name
        begin_s = self._clock_s()
        spinner = None
        if self._console.is_terminal and self._spinner is None:
            spinner = self._spinner = self._console.status(Text(name))
            spinner.start()
        ended = words.stopped
        try:
            yield self
            ended = words.done
        finally:
            if spinner is not None:
                spinner.stop()
                self._spinner = None
            self._stage = outer
            self._say(ended(name, self._clock_s() - begin_s))

    def _say(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text), soft_wrap=True)
