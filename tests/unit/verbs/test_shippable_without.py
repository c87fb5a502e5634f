"""Whom a red night goes on without, by what was found out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.report.fixed_night import COMPOSITION, sha

from patchstack.culprits import Certainty, Culprit, Finding, Suspect
from patchstack.model import Hotfix
from patchstack.verbs.blame import _shippable_without

OURS = Suspect(Culprit.PULL, "#41", sha("3"))
OTHER = Suspect(Culprit.PULL, "#42", sha("4"))
GUILTY = Finding(Certainty.CONFIRMED, ("t.py::a",), (OURS,), "", (1,))
NOT_ASKED = Finding(Certainty.NARROWED, ("t.py::b",), (OURS,), "it was not asked for itself", ())


@pytest.mark.parametrize(
    ("findings", "out"),
    [
        ((GUILTY,), ("#41",)),
        ((GUILTY, NOT_ASKED), ("#41",)),
        ((GUILTY, replace(NOT_ASKED, certainty=Certainty.FLAKY, suspects=())), ("#41",)),
        ((GUILTY, replace(NOT_ASKED, suspects=(OURS, OTHER))), ()),
        ((GUILTY, replace(NOT_ASKED, suspects=())), ()),
        ((GUILTY, replace(NOT_ASKED, certainty=Certainty.INFRA, suspects=())), ()),
        ((NOT_ASKED,), ()),
    ],
    ids=["alone", "others were not asked", "flaky", "narrowed to more", "narrowed to nobody", "infra", "narrowed"],
)
def test_whom_the_night_goes_on_without(findings: tuple[Finding, ...], out: tuple[str, ...]) -> None:
    assert _shippable_without(COMPOSITION, findings) == out


def test_a_hotfix_is_never_shipped_in_part() -> None:
    hotfix = replace(COMPOSITION, hotfix=Hotfix("n", sha("d"), ("#41",)))

    assert _shippable_without(hotfix, (GUILTY,)) == ()
