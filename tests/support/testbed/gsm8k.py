"""GSM8K's questions, and whether a text has the answer to one.

The file is that of https://github.com/openai/grade-school-math: a JSON object a line with ``question`` and ``answer``,
the number behind ``####`` at the answer's end. The first `SHOTS` are shown with their answers, the others are asked.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from testbed.pd_traffic import Traffic

SHOTS = 5
NEXT = "\n\nQuestion:"
"""Where a model has said its answer, and goes on to a question of its own."""

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Problem:
    question: str
    answer: str

    @property
    def number(self) -> float:
        """Raises ValueError for an answer without one."""
        found = number_in(self.answer.rpartition("####")[2])
        if found is None:
            raise ValueError(f"the answer to {self.question!r} has no number behind ####")
        return found


def read_problems(file: Path) -> list[Problem]:
    """All of the file, in its order. Raises ValueError for a line that is none."""
    problems = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        said = json.loads(line)
        if not isinstance(said, dict) or not {"question", "answer"} <= said.keys():
            raise ValueError(f"{file}:{number}: no question with an answer")
        problems.append(Problem(str(said["question"]), str(said["answer"])))
    return problems


def prompts(problems: list[Problem], count: int) -> list[tuple[str, Problem]]:
    """The first ``count`` questions behind those that are shown. Raises ValueError where there are fewer."""
    asked = problems[SHOTS : SHOTS + count]
    if len(asked) < count:
        raise ValueError(f"{len(problems)} problems are fewer than {SHOTS} to show and {count} to ask")
    shown = "".join(f"Question: {each.question}\nAnswer: {each.answer}\n\n" for each in problems[:SHOTS])
    return [(f"{shown}Question: {each.question}\nAnswer:", each) for each in asked]


def number_in(text: str) -> float | None:
    """The number that a text ends with, behind ``####`` if it has that; None where there is none."""
    said = text.partition(NEXT)[0]
    found = _NUMBER.findall(said.rpartition("####")[2]) if "####" in said else _NUMBER.findall(said)[-1:]
    return float(found[0].replace(",", "")) if found else None


def is_right(text: str, problem: Problem) -> bool:
    return number_in(text) == problem.number


def write_problems(file: Path, traffic: Traffic) -> Path:
    """A file of the same shape with the bed's own word problems, for a rehearsal."""
    pairs = zip(traffic.prompts(), traffic.solutions(), strict=True)
    lines = [json.dumps({"question": text, "answer": f"{one} and {two}.\n#### {one}"}) for text, (one, two) in pairs]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
    return file
