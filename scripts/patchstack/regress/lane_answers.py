"""What a machine of another lane can say in its answer, and what nobody but a forger would. Pure.

The code of pull requests has run there, and could have written the file. It can say of each test that is declared for
its job whether that passed; what else stands there is bounded, and of nothing else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple

from patchstack.model import GuardOutcome, GuardResult, Hardware, LaneAnswer, Settings
from patchstack.regress.attempts import follows
from patchstack.regress.declared import Declared, bare
from patchstack.regress.record import MOST_DEVICES, MOST_GIB, MOST_SAMPLES, MOST_SETTINGS

MOST_ATTEMPTS = 100
"""Of one test."""
_LONGEST = 300


def problems_of(answer: LaneAnswer, due: Sequence[Declared], measures: Mapping[str, str]) -> Iterator[str]:
    """Why ``answer`` is none that its job can have; nothing where it is one.

    ``due`` are the tests of its lane, ``measures`` has each metric and the test that measures it.
    """
    files = answer.job.shard.files
    mine = [test for test in due if test.file in files]
    slugs = {answer.job.lane, *(test.guards[0] for test in mine if test.guards)}
    for name, results in (("", answer.results), (" on the last promoted image", answer.beside)):
        again = [test for test, times in Counter(said.test for said in results).items() if times > 1]
        yield from (f"{test} answers twice{name}" for test in again)
        for said in results:
            yield from (f"{said.test}{name} {problem}" for problem in _of_result(said, files, slugs, measures))
    tests = set(measures.values())
    yield from (f"{said.test} measures nothing" for said in answer.beside if bare(said.test) not in tests)
    if answer.hardware is not None and not _is_machine(answer.hardware):
        yield "its machine is none"
    yield from (f"the settings of {one.test} are none" for one in answer.settings if not _are_settings(one, files))
    if len({one.test for one in answer.settings}) < len(answer.settings):
        yield "the settings of a test are there twice"


def _of_result(said: GuardResult, files: Sequence[str], slugs: set[str], measures: Mapping[str, str]) -> Iterator[str]:
    file, divider, _ = said.test.partition("::")
    if file not in files and (divider or not any(each.startswith(f"{file.rstrip('/')}/") for each in files)):
        yield "is none of its job"
    if said.slug not in slugs:
        yield f"guards no {said.slug!r} there"
    took_s = [said.duration_s, *(attempt.duration_s for attempt in said.attempts[: MOST_ATTEMPTS + 1])]
    if not all(math.isfinite(each) and each >= 0 for each in took_s):
        yield "took no time that there is"
    if len(said.attempts) > MOST_ATTEMPTS:
        yield f"ran {len(said.attempts) + 1} times"
    elif said.outcome is GuardOutcome.PASS and not follows(said):
        yield "passed after it had not, and is not called flaky"
    test = bare(said.test)
    if len(said.samples) > MOST_SAMPLES * max(1, len(measures)) or any(
        measures.get(one.metric) != test or not math.isfinite(one.value) for one in said.samples
    ):
        yield "says numbers that it is not to measure"


def _is_machine(hardware: Hardware) -> bool:
    values = astuple(hardware)
    lists = [value for value in values if isinstance(value, tuple)]
    texts = [value for value in values if isinstance(value, str)]
    return (
        all(len(each) <= MOST_DEVICES for each in lists)
        and all(map(_is_plain, [*texts, *(text for each in lists for text in each)]))
        and 0 <= hardware.memory_gib < MOST_GIB
    )


def _are_settings(one: Settings, files: Sequence[str]) -> bool:
    return (
        one.test.partition("::")[0] in files
        and len(one.values) <= MOST_SETTINGS
        and all(_is_plain(name) and _is_plain(value) for name, value in one.values)
    )


def _is_plain(text: str) -> bool:
    return len(text) <= _LONGEST and text.isprintable()
