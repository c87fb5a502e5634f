"""What to do about a red night, in the words of its issue."""

from __future__ import annotations

from patchstack.culprits import Certainty, Culprit, Suspect
from patchstack.model import NightReport
from patchstack.report import blame_words
from patchstack.report.page import Line, Quoted

UNSTEADY: Line = (
    "Mend what is flaky, or give it an entry with an owner and a day in ",
    Quoted("tests/regression/quarantine.yaml"),
    "; take an entry out once what it says under ",
    Quoted("back"),
    " is so.",
)
_FEW = 5

_BY_HAND: Line = (
    "Find out who did it by leaving things out: ",
    Quoted("patchstack test --suite SLUG --without OTHER"),
    " for a patch, an entry under ",
    Quoted("skip"),
    " in ",
    Quoted("deploy.yaml"),
    " for a pull request. ",
)
_OF_A_KIND: dict[Certainty, Line] = {
    Certainty.NARROWED: (
        "What is narrowed: leave out one after the other of those that are named, by an entry under ",
        Quoted("skip"),
        " in ",
        Quoted("deploy.yaml"),
        " or by ",
        Quoted("patchstack test --suite SLUG --without OTHER"),
        "; or raise the budgets under ",
        Quoted("blame"),
        ".",
    ),
    Certainty.FLAKY: (
        "What is flaky: mend the guard or what it guards. Until then an entry in ",
        Quoted("tests/regression/quarantine.yaml"),
        " has it hold nothing.",
    ),
    Certainty.INFRA: (
        "What fails where nothing has changed, or dies with its machine: look at the machine, the test bed, and the ",
        "guards that have changed; then run the night again.",
    ),
}


def what_to_do(report: NightReport) -> tuple[Line, ...]:
    """By what was found out about it, and where the docs have the rest."""
    page: Line = (
        Quoted("docs/operators.md"),
        f" says under “When a night is not green” what exit code {report.exit_code} asks.",
    )
    found = _by_findings(report)
    if report.exit_code != 1 or found:
        return (*found, page)
    return ((*_BY_HAND, *page),)


def _by_findings(report: NightReport) -> tuple[Line, ...]:
    """One line for whoever is guilty and stays, and one for each other kind of finding of the newest round."""
    findings = report.blame.findings if report.blame else ()
    out = set(blame_words.guilty(report))
    stay = dict.fromkeys(
        finding.suspects[-1]
        for finding in findings
        if finding.certainty is Certainty.CONFIRMED
        and finding.suspects
        and out.isdisjoint(suspect.name for suspect in finding.suspects)
    )
    kinds = {finding.certainty for finding in findings}
    return (*map(_mend, list(stay)[:_FEW]), *(line for kind, line in _OF_A_KIND.items() if kind in kinds))


def _mend(suspect: Suspect) -> Line:
    who: Line = (Quoted(suspect.name), " is guilty, and was not left out: ")
    match suspect.culprit:
        case Culprit.PATCH:
            edit = Quoted(f"patchstack patch edit {suspect.name} FOLDER")
            return (*who, "mend it (", edit, "), or take back what has changed in it.")
        case Culprit.BASE:
            back: Line = ("under ", Quoted("upstream"), " in ", Quoted("deploy.yaml"))
            return (*who, "mend what fails on it, or go back to the one before, ", *back, ".")
        case Culprit.PULL:
            return (*who, "have its author mend it, or keep it out with the label ", Quoted("blocked"), ".")
