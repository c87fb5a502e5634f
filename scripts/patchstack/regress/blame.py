"""Who made a night red: which tree is asked next, and what follows from the answers.

Nothing here runs a guard, looks at a clock or draws a number: the same answers give the same next probe, so that a
night can be replayed from its record. `verbs/blame.py` asks. The order of the questions is `Inquiry.steps`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from patchstack.culprits import Certainty, Finding
from patchstack.regress.evidence import Evidence
from patchstack.regress.inquiry import Conclusion, Conclusions, Inquiry, Need
from patchstack.regress.question import Answer, Question, Red, Wanted
from patchstack.regress.subsets import Subsets

AT_ONCE = 8
"""Guards that are asked about: who breaks what all import makes all red, and each probe would take as long as a night.
When one of these has a culprit, the others are left to the tests of what remains without it."""


def decide(question: Question, answers: Sequence[Answer]) -> Wanted | tuple[Finding, ...]:
    """The next probe, or, when there is none, at least one finding for every red test, in the order of the question.

    ``answers`` are those to the probes that it asked for before, all of them, oldest first: `Finding.probes` counts
    them from 1. When the time is over, ask with ``max_probes=len(answers)``: what is open then is NARROWED.
    """
    waiting = _spread(question.reds)
    concluded: dict[Red, Conclusions] = {}
    guilty: tuple[Conclusion, ...] = ()
    while waiting and not guilty:
        some, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        inquiries = [(red, _follow(question, red, answers)) for red in some]
        needs = [(red, result) for red, result in inquiries if isinstance(result, Need)]
        if needs and len(answers) < question.max_probes:
            return _wanted(question, needs, answers)
        concluded |= {red: _conclusions(result) for red, result in inquiries}
        guilty = tuple(one for red in some for one in concluded[red] if one.certainty is Certainty.CONFIRMED)
    concluded |= {red: (_not_asked(guilty),) for red in waiting}
    return _findings(answers, [(red, concluded[red]) for red in question.reds])


def _spread(reds: Sequence[Red]) -> list[Red]:
    """The first of every file, then the second of every file, and so on."""
    rank: dict[Red, int] = {}
    seen: dict[str, int] = {}
    for red in reds:
        file = red.test.partition("::")[0]
        rank[red] = seen[file] = seen.get(file, -1) + 1
    return sorted(reds, key=rank.__getitem__)


def _follow(question: Question, red: Red, answers: Sequence[Answer]) -> Need | Conclusions:
    """From the first question on, as far as the answers go."""
    evidence = Evidence(red, answers)
    steps = Inquiry(question, red, evidence).steps()
    try:
        need = next(steps)
        while (reading := evidence.reading(need.target, need.runs, need.since)) is not None:
            need = steps.send(reading)
    except StopIteration as end:
        conclusions: Conclusions = end.value
        return conclusions
    return need


def _wanted(question: Question, needs: Sequence[tuple[Red, Need]], answers: Sequence[Answer]) -> Wanted:
    """What the first open guard needs; the others that are open and can pass on that tree are asked with it."""
    _, first = needs[0]
    tests, times = [], 0
    for red, need in needs:
        if not _context(question, red) & first.target.without:
            tests.append(red.test)
        if need.target == first.target:
            times = max(times, need.runs - Evidence(red, answers).tally(need.target, need.since).words)
    return Wanted(first.target, tuple(tests), times, first.why)


def _context(question: Question, red: Red) -> frozenset[str]:
    """What the guard cannot do without."""
    older = {item.name for item in question.items if item.old}
    return Subsets(question.items, set(red.context) - older).stay


def _conclusions(result: Need | Conclusions) -> Conclusions:
    if not isinstance(result, Need):
        return result
    return (Conclusion(Certainty.NARROWED, result.among, f"no probe was left to tell {result.why}"),)


def _not_asked(guilty: Iterable[Conclusion]) -> Conclusion:
    suspects = dict.fromkeys(suspect for one in guilty for suspect in one.suspects)
    return Conclusion(
        Certainty.NARROWED, tuple(suspects), "it was not asked for itself: others have found these guilty"
    )


def _findings(answers: Sequence[Answer], concluded: Iterable[tuple[Red, Conclusions]]) -> tuple[Finding, ...]:
    """Guards of which the same is concluded make one finding."""
    alike: dict[Conclusion, list[str]] = {}
    for red, conclusions in concluded:
        for conclusion in conclusions:
            alike.setdefault(conclusion, []).append(red.test)
    return tuple(
        Finding(
            conclusion.certainty,
            tuple(tests),
            conclusion.suspects,
            conclusion.detail,
            tuple(number for number, answer in enumerate(answers, 1) if set(tests) & set(answer.tests)),
        )
        for conclusion, tests in alike.items()
    )
