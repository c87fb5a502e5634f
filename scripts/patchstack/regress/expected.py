"""What should have answered, held against what did: expected minus executed is `missing`.

pytest says what it has collected, and a test that it has not (a hook, a filter, a file that was not read, a guard
that code of a candidate took away) would be a silent skip, the commonest false green. What is expected is known from
the text of the guards. What answers though no text promises it is not believed either: nobody would miss it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from patchstack.model import GuardOutcome, GuardResult, Sha, TreeRun
from patchstack.regress.declared import bare

NOT_HEARD = "its file has this test, and pytest said nothing of it"
NOT_DECLARED = "its file does not show this test, so that nobody would miss it: write it there as a function of its own"

Place = tuple[str, bool, Sha, str]
"""Label of a tree, whether it is the composed one, the tree, and the mutant on it."""


@dataclass(frozen=True)
class Due:
    """What must answer on one tree."""

    label: str
    composed: bool
    tree: Sha
    tests: tuple[tuple[str, str], ...]
    """Slug of the suite, and the test without parameters; or a file, of which no more is known to run there."""
    mutant: str = ""


def completed(
    runs: Sequence[TreeRun], dues: Sequence[Due], why: Callable[[str], str] = lambda _: NOT_HEARD
) -> tuple[TreeRun, ...]:
    """``runs`` with a result for every test of ``dues``: what has not answered is missing.

    ``why`` says for a file why its tests have not. A file, a folder or a class that answers as a whole (it could not
    be collected, or never began) has answered for all of its tests.
    """
    found = list(runs)
    for due in dues:
        at = next((number for number, run in enumerate(found) if _place(run) == _place(due)), None)
        run = found[at] if at is not None else TreeRun(due.label, due.composed, due.tree, (), mutant=due.mutant)
        run = replace(run, results=(*_believed(run, due), *_missing(run, due, why)))
        if at is not None:
            found[at] = run
        elif run.results:
            found.append(run)
    return tuple(found)


def _place(at: TreeRun | Due) -> Place:
    return at.label, at.composed, at.tree, at.mutant


def _missing(run: TreeRun, due: Due, why: Callable[[str], str]) -> Iterator[GuardResult]:
    heard = {(result.slug, bare(result.test)) for result in run.results}
    for slug, test in due.tests:
        if not any((slug, whole) in heard for whole in _wholes(test)):
            yield GuardResult(test, slug, False, GuardOutcome.MISSING, 0.0, why(test.partition("::")[0]))


def _wholes(test: str) -> Iterator[str]:
    """The test, its classes, its file and the folders of that: ``a/b.py::T::t``, ``a/b.py::T``, ``a/b.py``, ``a``."""
    file, *names = test.split("::")
    for length in range(len(names), -1, -1):
        yield "::".join([file, *names[:length]])
    while "/" in file:
        file = file.rpartition("/")[0]
        yield file


def _believed(run: TreeRun, due: Due) -> Iterator[GuardResult]:
    """The results, where none is green that no text promises."""
    known = {(slug, whole) for slug, test in due.tests for whole in _wholes(test)}
    for result in run.results:
        yield (
            result if _is_believed(result, known) else replace(result, outcome=GuardOutcome.CRASH, reason=NOT_DECLARED)
        )


def _is_believed(result: GuardResult, known: Collection[tuple[str, str]]) -> bool:
    test = bare(result.test)
    file = test.partition("::")[0]
    # Of a file of which nothing is due here, nothing is said.
    return result.outcome is not GuardOutcome.PASS or (result.slug, test) in known or (result.slug, file) not in known
