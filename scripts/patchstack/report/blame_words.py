"""Who made a night red, in words: what was found, whom it is about, and the probes that say so, round by round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from patchstack.culprits import Blame, Certainty, Culprit, Finding, Probe, Suspect
from patchstack.model import GuardOutcome, LeftOut, NightReport, Sha, Status, Topic
from patchstack.report import words
from patchstack.report.page import Badge, Line, Part, Prose, Quoted, Section, Table

BLAME, PROBES = "Blame", "Probes"
PROBE_COLUMNS = ("Probe", "Tree", "Outcome", "Why", "Seconds")
FINDINGS, PROBE_ROWS = 30, 60
"""How many a round shows; no default budget is cut."""
ROUNDS = 10
"""How many are shown, the newest: deploy.yaml allows no more."""
_SUSPECTS = 10
_TREES = 3
_FEW = 5

_KINDS = {Culprit.PULL: "pull request ", Culprit.PATCH: "patch ", Culprit.BASE: "the base "}
Named = Callable[[str], Part]
"""How a topic is shown by its name: as text, or as a link."""


def rounds(blame: Blame | None) -> tuple[Blame, ...]:
    """What was found of each composition that was red, the first one first."""
    return tuple(reversed(list(islice(_back(blame), ROUNDS))))


def _back(blame: Blame | None) -> Iterator[Blame]:
    while blame is not None:
        yield blame
        blame = blame.before


def guilty(report: NightReport) -> tuple[str, ...]:
    """Everybody whom this night has left out for a red guard, and who carries their commits."""
    return tuple(dict.fromkeys(name for blame in rounds(report.blame) for name in blame.left_out))


def without_the_guilty(report: NightReport) -> bool:
    """The rest is as it should be."""
    return report.headline is Status.PASS and bool(guilty(report))


# --- for the report ---


def lead(report: NightReport) -> tuple[Line, ...]:
    """What was found, in one line, and who is left out for it; nothing where nobody asked."""
    found = list(dict.fromkeys(_in_short(finding) for blame in rounds(report.blame) for finding in blame.findings))
    if report.failure and report.blame and report.composition and report.blame.composition == report.composition.commit:
        found = []  # the failure has said so
    shown = words.joined(found[:_FEW])
    more = f"; {words.more(len(found) - _FEW)}" if len(found) > _FEW else ""
    said: list[Line] = [("Blame: ", *shown, f"{more}.")] if found else []
    if guilty(report):
        rest = "; the rest was composed again, and tested." if report.headline is Status.PASS else "."
        said.append(("Left out for it: ", *words.names(guilty(report)), rest))
    return tuple(said)


def _in_short(finding: Finding) -> Line:
    certainty = Badge(finding.certainty.value)
    if finding.suspects:
        to = " to " if finding.certainty is Certainty.NARROWED else " "
        together = (" together",) if _is_together(finding) else ()
        return (certainty, to, *words.names([suspect.name for suspect in finding.suspects]), *together)
    return (certainty, f", {words.count(len(finding.tests), 'guard', 'guards')}")


def sections(report: NightReport) -> tuple[Section, ...]:
    """Two a round: what was found, and the probes."""
    every = rounds(report.blame)
    made: list[Section] = []
    for number, blame in enumerate(every, 1):
        which = f", round {number}" if len(every) > 1 else ""
        found = findings(report, blame)
        more = words.more(len(found) - FINDINGS)
        made.append(Section(f"{BLAME}{which}", tuple(_intro(blame)), items=found[:FINDINGS], more=more))
        made += _probes(f"{PROBES}{which}", blame.probes)
    return tuple(made)


def _intro(blame: Blame) -> Iterator[Line]:
    took_s = sum(probe.seconds for probe in blame.probes)
    red = words.count(len(blame.tests), "guard was", "guards were")
    asked = f"{words.count(len(blame.probes), 'probe', 'probes')} in {words.seconds(took_s)} s."
    where: Line = (words.short(blame.composition), ", tree ", words.short(blame.tree))
    yield (f"{red} red in composition ", *where, f"; {asked}")
    if blame.left_out:
        yield ("Left out for it: ", *words.names(blame.left_out), ".")


# --- findings ---


def findings(report: NightReport, blame: Blame, name: Named = Quoted) -> tuple[Line, ...]:
    """One line each: how certain, who, which guards, what follows, and from which probes."""
    known = _known(report)
    ended = dict(blame.tests)
    return tuple(_finding(finding, known, ended, name) for finding in blame.findings)


def _finding(
    finding: Finding,
    known: Mapping[str, Topic | LeftOut],
    ended: Mapping[str, GuardOutcome],
    name: Named,
) -> Line:
    detail: Line = (" ", *sentence(finding.detail)) if finding.detail.strip() else ()
    numbers = ", ".join(str(number) for number in finding.probes[:PROBE_ROWS])
    probes: Line = (f" {'Probe' if len(finding.probes) == 1 else 'Probes'} {numbers}.",) if finding.probes else ()
    return (
        Badge(finding.certainty.value),
        *_whom(finding, known, name),
        ": ",
        *tests(finding.tests, ended),
        ".",
        *detail,
        *probes,
    )


def _whom(finding: Finding, known: Mapping[str, Topic | LeftOut], name: Named) -> Line:
    if not finding.suspects:
        return () if finding.certainty is Certainty.NARROWED else (", nobody is blamed",)
    those = [suspect_said(suspect, known, name) for suspect in finding.suspects]
    rest = words.more(len(those) - _SUSPECTS)
    shown: Line = (*words.joined(those[:_SUSPECTS]), *((f"; {rest}",) if rest else ()))
    if finding.certainty is Certainty.NARROWED and len(those) > 1:
        return (f" to {len(those)}, ", *shown)
    return (", only together, " if _is_together(finding) else " ", *shown)


def _is_together(finding: Finding) -> bool:
    return finding.certainty is Certainty.CONFIRMED and len(finding.suspects) > 1


def suspect_said(suspect: Suspect, known: Mapping[str, Topic | LeftOut], name: Named = Quoted) -> Line:
    """``pull request #41 title by author at head``."""
    topic = known.get(suspect.name)
    return (_KINDS[suspect.culprit], name(suspect.name), *about(topic, suspect.head))


def about(topic: Topic | LeftOut | None, head: str) -> Line:
    title: Line = (" ", Quoted(topic.title)) if topic and topic.title.strip() else ()
    author: Line = (" by ", Quoted(topic.author)) if topic and topic.author.strip() else ()
    return (*title, *author, " at ", words.short(head or None))


def _known(report: NightReport) -> dict[str, Topic | LeftOut]:
    composition = report.composition
    if composition is None:
        return {}
    every: list[Topic | LeftOut] = [*composition.left_out, *composition.included]
    return {item.name: item for item in every}


def tests(names: Sequence[str], ended: Mapping[str, GuardOutcome]) -> Line:
    """``a (fail), b (crash) and 3 more``."""
    those = [_test(test, ended.get(test)) for test in names[:_FEW]]
    rest = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return (*words.joined(those, ", "), rest) if those else ("no guard",)


def _test(test: str, outcome: GuardOutcome | None) -> Line:
    return (Quoted(test), " (", Badge(outcome_said(outcome)), ")") if outcome else (Quoted(test),)


def outcome_said(outcome: GuardOutcome) -> str:
    return outcome.value.replace("_", " ")


def sentence(text: str) -> Line:
    """``text`` as a sentence: one full stop behind it, and a capital before it where it begins with a plain word."""
    said = text.strip().rstrip(".")
    begin = said[:1].upper() if said.partition(" ")[0].isalpha() else said[:1]
    return (Prose(begin + said[1:]), ".")


# --- probes ---


def _probes(title: str, probes: Sequence[Probe]) -> tuple[Section, ...]:
    rows = tuple(_row(probe) for probe in probes[:PROBE_ROWS])
    more = words.more(len(probes) - PROBE_ROWS)
    return (Section(title, table=Table(PROBE_COLUMNS, rows), more=more),) if rows else ()


def _row(probe: Probe) -> tuple[Line, ...]:
    tree: Line = (", tree ", words.short(probe.tree)) if probe.tree else ()
    return (
        (str(probe.number),),
        (Quoted(probe.target), *tree),
        _answer(probe),
        (Prose(probe.why),),
        (words.seconds(probe.seconds),),
    )


def _answer(probe: Probe) -> Line:
    """One word where all guards say the same; else each outcome with whose it is."""
    if probe.tree is None:
        return (Badge("does not compose"),)
    by_outcome: dict[GuardOutcome, dict[str, int]] = {}
    for test, outcome in probe.outcomes:  # a probe may run each guard more than once
        of = by_outcome.setdefault(outcome, {})
        of[test] = of.get(test, 0) + 1
    if not by_outcome:
        return ("no answer",)
    if len(by_outcome) == 1:
        ((outcome, of),) = by_outcome.items()
        guards = f", {len(of)} guards" if len(of) > 1 else ""
        runs = f", {max(of.values())} times" if max(of.values()) > 1 else ""
        return (Badge(outcome_said(outcome)), guards, runs)
    return words.joined([_of_some(outcome, list(of)) for outcome, of in by_outcome.items()])


def _of_some(outcome: GuardOutcome, those: Sequence[str]) -> Line:
    if outcome is GuardOutcome.PASS:
        return (Badge(outcome_said(outcome)), f" {len(those)}")
    return (Badge(outcome_said(outcome)), " ", *words.names([test.rpartition("::")[2] for test in those]))


# --- for the author of a pull request ---


def confirmed(report: NightReport, name: str, head: Sha | None) -> tuple[Blame, Finding] | None:
    """What this night knows against a topic at ``head``: the newest finding that has it left out, were it possible.

    Of a set that fails only together that is the last one.
    """
    for blame in _back(report.blame):
        for finding in blame.findings:
            if finding.certainty is Certainty.CONFIRMED and finding.suspects:
                last = finding.suspects[-1]
                if (last.name, last.head) == (name, head):
                    return blame, finding
    return None


def evidence(blame: Blame, finding: Finding) -> tuple[Line, ...]:
    """In two lines: on which trees its guards were red, and on which they were green."""
    of = [probe for probe in blame.probes if probe.number in finding.probes]
    red = [probe for probe in of if _outcomes_of(probe, finding) - {GuardOutcome.PASS}]
    green = [probe for probe in of if _outcomes_of(probe, finding) == {GuardOutcome.PASS}]
    said = (("Red on ", red), ("Green on ", green))
    return tuple((begin, *_on(those), ".") for begin, those in said if those)


def _outcomes_of(probe: Probe, finding: Finding) -> set[GuardOutcome]:
    return {outcome for test, outcome in probe.outcomes if test in finding.tests}


def _on(probes: Sequence[Probe]) -> Line:
    """Each tree once, with its probes; those first that lack the least of tonight."""
    by_target: dict[str, list[int]] = {}
    for probe in sorted(probes, key=lambda probe: len(probe.without)):
        by_target.setdefault(probe.target, []).append(probe.number)
    those: list[Line] = [
        (Quoted(target), f" (probe{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers[:_FEW]))})")
        for target, numbers in by_target.items()
    ]
    rest = f" and {len(those) - _TREES} more" if len(those) > _TREES else ""
    return (*words.joined(those[:_TREES], ", "), rest)
