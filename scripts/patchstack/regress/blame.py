"""Who made a night red: which tree is asked next, and what follows from the answers.

Nothing here runs a guard, looks at a clock or draws a number: the same answers give the same next probe, so that a
night can be replayed from its record. `verbs/blame.py` asks.
"""

from __future__ import annotations

from collections.abc import Sequence

from patchstack.culprits import Finding
from patchstack.regress.question import Answer, Question, Wanted


def decide(question: Question, answers: Sequence[Answer]) -> Wanted | tuple[Finding, ...]:
    """The next probe, or, when there is none, at least one finding for every red test, in the order of the question.

    ``answers`` are those to the probes that it asked for before, all of them, oldest first: `Finding.probes` counts
    them from 1. When the time is over, ask with ``max_probes=len(answers)``: what is open then is NARROWED.
    """
    raise NotImplementedError
