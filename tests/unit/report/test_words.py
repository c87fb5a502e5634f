from __future__ import annotations

import pytest

from patchstack.model import Outcome
from patchstack.report import words


@pytest.mark.parametrize(
    ("age_s", "said"),
    [
        (0, "0 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (125, "2 min 5 s ago"),
        (3600, "1 h ago"),
        (7500, "2 h 5 min ago"),
        (86400, "1 d ago"),
        (200_000, "2 d 7 h ago"),
        (-5, "5 s in the future: a clock is wrong"),
    ],
)
def test_age(age_s: int, said: str) -> None:
    assert words.age(age_s) == said


def test_every_outcome_has_its_section() -> None:
    assert set(words.LEFT_OUT) == set(Outcome)


def test_an_unknown_exit_code_is_no_crash() -> None:
    assert "".join(str(part) for part in words.failed(99) if isinstance(part, str)).endswith("(unknown):")
