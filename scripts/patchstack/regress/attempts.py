"""Guards that are run again on the same tree: when, and what several ends of one guard mean together.

An assertion that failed is an answer, and nobody asks again. What died with its process has said nothing, and is
asked again: what it says then is its answer. A guard that crashed or hung by itself is asked again too, but a hang
now and then is what patches cure: if it passes then it is flaky, not green.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from patchstack.model import Attempt, GuardOutcome, GuardResult

_ANSWERS = {GuardOutcome.PASS, GuardOutcome.FAIL}
_ITS_OWN_END = {GuardOutcome.CRASH, GuardOutcome.TIMEOUT}
_SAY_NOTHING = {GuardOutcome.MISSING, GuardOutcome.SKIPPED_BY_RULE}

MOST_NAMED = 32 << 10
"""Characters of all tests that are asked again at once. The record is a candidate's to write to: a program that is
named more than the system takes cannot be started, and that would be the machine's fault and end the night."""

Results = tuple[GuardResult, ...]


def merge_attempts(runs: Sequence[GuardResult]) -> GuardResult:
    """What a guard says that ran several times on one tree; ``runs`` has at least one, oldest first, none excused.

    Pass and anything else is `FLAKY`. Without a pass a failed assertion decides, wherever it stands; else the last
    end that was the guard's own. What died with its process decides only where nothing else was heard.
    """
    ends = [end for run in runs for end in _ends(run)]
    said = [end for end in ends if not end.by_machine and end.outcome not in _SAY_NOTHING]
    kinds = {end.outcome for end in said}
    shape = next((run for run in reversed(runs) if run.outcome in _ANSWERS), runs[-1])
    if len(ends) == 1:
        return runs[-1]
    if GuardOutcome.FLAKY in kinds or (GuardOutcome.PASS in kinds and len(kinds) > 1):
        reason = f"on one tree it ended otherwise each time: {', then '.join(map(_told, ends))}"
        return replace(shape, outcome=GuardOutcome.FLAKY, reason=reason, attempts=tuple(ends), by_machine=False)
    failed = [end for end in said if end.outcome is GuardOutcome.FAIL]
    decides = (failed or said or ends)[-1]
    at = max(index for index, end in enumerate(ends) if end is decides)
    return replace(
        shape,
        outcome=decides.outcome,
        reason=decides.reason,
        duration_s=decides.duration_s,
        attempts=(*ends[:at], *ends[at + 1 :]),
        by_machine=decides.by_machine,
    )


def _ends(run: GuardResult) -> tuple[Attempt, ...]:
    """Each end that ``run`` tells of, its own last; a flaky one's are all among its attempts."""
    own = Attempt(run.outcome, run.reason, run.duration_s, run.by_machine)
    flaky = run.outcome is GuardOutcome.FLAKY and run.attempts
    return run.attempts if flaky else (*run.attempts, own)


def _told(end: Attempt) -> str:
    return f"{end.outcome.value} ({end.reason})" if end.reason else end.outcome.value


def follows(result: GuardResult) -> bool:
    """Whether what ``result`` says is what its attempts say together."""
    if result.outcome is GuardOutcome.FLAKY and not result.attempts:
        return False
    again = [GuardResult(result.test, "", False, end.outcome, 0.0, by_machine=end.by_machine) for end in _ends(result)]
    return all(end.outcome is not GuardOutcome.FLAKY for end in again) and (
        merge_attempts(again).outcome is result.outcome
    )


def is_asked_again(result: GuardResult, *, must_pass: bool) -> bool:
    """Whether a guard that ended so may run again on the same tree.

    ``must_pass``: it is to be green there. Elsewhere only its own assertion proves something, and what crashed
    there is not asked until it fails as it should.
    """
    return result.by_machine or (must_pass and result.outcome in _ITS_OWN_END)


def run_with_attempts(
    run: Callable[[tuple[str, ...], int], Results],
    paths: tuple[str, ...],
    retries: int,
    *,
    must_pass: bool,
    files: Iterable[str] = (),
) -> Results:
    """What ``run`` says of ``paths``, and again of those tests that may be asked again, ``retries`` times at most.

    ``run`` is given files, folders or tests, and the number of the attempt, from 1. Of results that are of none of
    ``files`` none is asked again: nobody knows where they come from.
    """
    heard = _Heard({*paths, *files})
    heard.take(run(paths, 1))
    for attempt in range(2, retries + 2):
        again = _nameable(heard.to_ask(must_pass=must_pass))
        if not again:
            break
        heard.take(run(tuple(again), attempt))
    return heard.results()


def _nameable(tests: Iterable[str]) -> list[str]:
    """The first of them, as far as they fit."""
    found: list[str] = []
    left = MOST_NAMED
    for test in tests:
        left -= len(ascii(test))
        if left < 0:
            break
        found.append(test)
    return found


@dataclass
class _Heard:
    """All that was said so far, by test, in the order in which they were first heard of."""

    mine: set[str]
    """Files and folders that were asked."""
    runs: dict[str, list[GuardResult]] = field(default_factory=dict)

    def take(self, results: Results) -> None:
        wholes = [test for test in self.runs if test in self.mine]
        for result in results:
            if result.test not in self.runs:
                # Of a file that could not be read nobody knew its tests: its end was the end of each of them.
                before = [run for whole in wholes if _is_in(result.test, whole) for run in self.runs[whole]]
                self.runs[result.test] = before and [replace(run, test=result.test) for run in before]
            self.runs[result.test].append(result)
        for whole in wholes:
            if any(_is_in(result.test, whole) for result in results):
                del self.runs[whole]

    def to_ask(self, *, must_pass: bool) -> list[str]:
        """Each test that may be asked again; a file as a whole only where none of its tests has answered."""
        mine = {test: runs for test, runs in self.runs.items() if test.partition("::")[0] in self.mine}
        ask = [test for test, runs in mine.items() if is_asked_again(merge_attempts(runs), must_pass=must_pass)]
        return [test for test in ask if "::" in test or not any(_is_in(other, test) for other in self.runs)]

    def results(self) -> Results:
        return tuple(merge_attempts(runs) for runs in self.runs.values())


def _is_in(test: str, whole: str) -> bool:
    """Whether ``test`` is one of the file or folder ``whole``, and not that itself."""
    return test.startswith((f"{whole}::", f"{whole.rstrip('/')}/"))
