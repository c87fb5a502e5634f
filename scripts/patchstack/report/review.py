"""What an engineer who opened a patch pull request is told, on a terminal and in the one comment on it.

Every text of a verdict comes from outside, whatever it says of itself: it is shown, and never followed.
"""

from __future__ import annotations

from collections.abc import Sequence

from patchstack import verdict
from patchstack.errors import EXIT_CODES
from patchstack.report.fit import ROWS, fitted
from patchstack.report.inert import visible_lines
from patchstack.report.page import Badge, Block, Line, Page, Prose, Quoted, Section
from patchstack.report.terminal import page_text
from patchstack.report.words import count, joined, names, short
from patchstack.verdict import Change, PatchVerdict

MARKER = "<!-- patchstack:review v1 -->"
"""The first line of the comment, by which the next one finds it."""

COMPOSES, DOES_NOT, NOT_COMPOSED = "composes", "does not compose", "not composed"
REFUSED = "What does not compose"
LINT = "Lint"
CANDIDATES = "Candidates that fare otherwise"
PATCHES = "Patches"
GUARDS = "Guards of what has changed"
TO_PROVE: Line = (
    "No guard has run here. ",
    Quoted("patchstack prove SLUG"),
    " runs a patch's own, without it and with it.",
)
_DIFF_LINES = 4
"""Lines of a range-diff for each line that a list may show."""
_WIDTH = 200
_LANES = 5


def render_review(found: PatchVerdict) -> str:
    """For the terminal of whoever ran it."""
    return page_text(Page(*_title_and_lead(found), _sections(found, ROWS[0])))


def review_comment(found: PatchVerdict) -> str:
    """The comment on the pull request, within what GitHub takes; equal verdicts give equal comments."""
    title, lead = _title_and_lead(found)
    lead = (*lead, _by_its_own_code(found))
    return fitted(MARKER, lambda rows: Page(title, lead, _sections(found, rows)))


def is_review(body: str) -> bool:
    """Whether a text that we wrote is such a comment."""
    return body.startswith(MARKER)


def posted(repo: str, number: int, did: str) -> str:
    """``did``: written, edited, or unchanged."""
    return f"{repo}#{number}: comment {did}"


# --- the few lines that everybody reads ---


def _title_and_lead(found: PatchVerdict) -> tuple[Line, tuple[Line, ...]]:
    title: Line = ("Patches at ", short(found.head), " against ", short(found.base), ": ", Badge(_headline(found)))
    lead: list[Line] = [_lane(lane) for lane in found.lanes[:_LANES]]
    if len(found.lanes) > _LANES:
        lead.append((_more(len(found.lanes), _LANES), "."))
    if found.before_problems:
        lead.append(("What it is compared with cannot be read: ", Prose(found.before_problems[0])))
    if not found.lanes and not found.stopped:
        lead.append(("Nothing was composed: mend what lint says first.",))
    lead += [_lint_in_numbers(found.lint, bool(found.lanes)), _candidates_in_numbers(found.candidates)]
    if found.stopped:
        meaning = EXIT_CODES.get(found.stopped.code, "unknown")
        said = joined([(Prose(text),) for text in found.stopped.said[:2]], " ")
        lead.append(("The review is ", Badge("incomplete"), f" (exit code {found.stopped.code}: {meaning}): ", *said))
    if found.left_off:
        lead.append((f"{count(found.left_off, 'line was', 'lines were')} left off for size.",))
    return title, tuple(lead)


def _headline(found: PatchVerdict) -> str:
    if found.refusals or found.lint.refused:
        return DOES_NOT
    if not any(lane.after for lane in found.lanes):
        return NOT_COMPOSED
    problems = len(found.lint.problems) + len(found.lint.stale)
    return f"{COMPOSES}, but lint has {count(problems, 'problem', 'problems')}" if problems else COMPOSES


def _lane(lane: verdict.LaneReview) -> Line:
    before, after = lane.before, lane.after
    if after is None:
        return ("Lane ", Quoted(lane.lane), " is gone.")
    head: Line = ("Lane ", Quoted(lane.lane), " on ", Quoted(after.base), ": ")
    if not after.composes:
        refused = [refusal.patch for refusal in after.refusals]
        verb = "does" if len(refused) == 1 else "do"
        return (*head, *names(refused), f" {verb} not compose", *_main_when_refused(before), ".")
    patches = count(len(after.patches), "patch composes", "patches compose")
    return (*head, f"{patches} into tree ", short(after.tree), *_and_main(before, after), ".")


def _main_when_refused(before: verdict.Stack | None) -> Line:
    if before is None:
        return ()
    return ("; main's stack composes",) if before.composes else ("; main's stack does not compose either",)


def _and_main(before: verdict.Stack | None, after: verdict.Stack) -> Line:
    if before is None:
        return (", nothing to compare it with",)
    if not before.composes:
        return ("; main's does not compose",)
    if before.tree == after.tree:
        return (", the same as main's",)
    moved: Line = (" on ", Quoted(before.base)) if before.base != after.base else ()
    return ("; main's is ", short(before.tree), *moved)


def _lint_in_numbers(lint: verdict.Lint, composed: bool) -> Line:
    tried: Line = (" on ", *names(lint.tried_on)) if lint.tried_on else ()
    rest: Line = ()
    if lint.left_to_lint:
        releases = count(len(lint.left_to_lint), "release", "releases")
        rest = (f" {releases} more of the changed patches' ranges are left to ", Quoted("patchstack lint"), ".")
    parts = []
    if lint.problems:
        parts.append(count(len(lint.problems), "problem", "problems"))
    if lint.refused:
        parts.append("a diff that does not apply")
    if lint.stale:
        parts.append(count(len(lint.stale), "stale file", "stale files"))
    if not parts and not tried:
        return ("Lint did not run.",)
    return ("Lint", *(tried if composed else ()), ": ", ", ".join(parts) or "nothing to mend", ".", *rest)


def _candidates_in_numbers(found: verdict.Candidates) -> Line:
    if found.compared is None:
        return ("Tonight's candidates were not asked for: ", Prose(found.why or "the review did not come to it"), ".")
    fare = f"{len(found.changes)} fare otherwise" if len(found.changes) != 1 else "1 fares otherwise"
    rest: Line = ("; not asked for: ", Prose(found.why)) if found.why else ()
    return (f"Tonight's candidates: {found.compared} composed on either side, {fare}", *rest, ".")


def _by_its_own_code(found: PatchVerdict) -> Line:
    return (
        "Found by the pull request's own code, so a reviewer may want to see it from main's: ",
        Quoted(f"patchstack review --against {found.base}"),
        " says the same on any machine.",
    )


# --- the rest, each with something in it ---


def _sections(found: PatchVerdict, rows: int) -> tuple[Section, ...]:
    made = (
        _refused(found, rows),
        _lint(found.lint, rows),
        _candidates(found.candidates.changes, rows),
        _patches(found, rows),
        _guards(found.patches, rows),
    )
    return tuple(section for section in made if section.intro or section.items or section.blocks)


def _refused(found: PatchVerdict, rows: int) -> Section:
    before = {lane.lane: lane.before.refusals if lane.before else () for lane in found.lanes}
    refusals = found.refusals
    blocks = tuple(
        _block(_refusal(lane, refusal, refusal in before[lane]), refusal.said, rows)
        for lane, refusal in refusals[:rows]
    )
    items = tuple((Prose(text),) for text in found.lint.refused[:rows])
    return Section(REFUSED, items=items, blocks=blocks, more=_more(len(refusals) + len(found.lint.refused), rows))


def _refusal(lane: str, refusal: verdict.PatchRefusal, known: bool) -> Line:
    kind = "optional " if refusal.optional else ""
    twins: Line = (" against ", *names(refusal.conflicts_with)) if refusal.conflicts_with else ()
    files: Line = (" in ", *names(refusal.files)) if refusal.files else ()
    above: Line = ("; it holds up ", *names(refusal.holds_up)) if refusal.holds_up else ()
    already = ", as on main" if known else ""
    return (kind, Quoted(refusal.patch), " of lane ", Quoted(lane), *twins, *files, already, *above, ":")


def _lint(lint: verdict.Lint, rows: int) -> Section:
    items: list[Line] = [(Prose(text),) for text in lint.problems]
    items += [_stale(stale) for stale in lint.stale]
    return Section(LINT, items=tuple(items[:rows]), more=_more(len(items), rows))


def _stale(stale: verdict.StaleFile) -> Line:
    command = f"patchstack patch export {stale.patch}" if stale.patch else "make schema"
    return (Quoted(stale.file), " is not as the tool writes it: run ", Quoted(command), " and commit what it changes")


def _candidates(changes: Sequence[verdict.CandidateChange], rows: int) -> Section:
    return Section(CANDIDATES, items=tuple(map(_candidate, changes[:rows])), more=_more(len(changes), rows))


def _candidate(change: verdict.CandidateChange) -> Line:
    author: Line = (" by ", Quoted(change.author)) if change.author else ()
    who: Line = (Quoted(change.name), " ", Quoted(change.title), *author, " in lane ", Quoted(change.lane))
    return (*who, ": ", *_fate(change.before), "; with this pull request ", *_fate(change.after))


def _fate(fate: verdict.Fate) -> Line:
    if not fate.reason:
        return (Badge("in"),)
    twins: Line = (" with ", *names(fate.twins)) if fate.twins else ()
    files: Line = (" in ", *names(fate.files)) if fate.files else ()
    return (Quoted(fate.reason), *twins, *files)


def _patches(found: PatchVerdict, rows: int) -> Section:
    patches = found.patches
    if not patches:
        return Section(PATCHES)
    tally = [f"{sum(patch.change is change for patch in patches)} {change.value}" for change in Change]
    touched = [patch for patch in patches if patch.change is not Change.UNCHANGED or patch.moved or patch.became]
    blocks = tuple(
        _block(("Range-diff of ", Quoted(patch.slug), " on lane ", Quoted(patch.on_lane)), patch.range_diff, rows)
        for patch in touched
        if patch.range_diff
    )
    return Section(
        PATCHES,
        ((f"{', '.join(tally)}.",),),
        items=tuple((*_patch(patch), *_not_composed(patch, found.lanes)) for patch in touched[:rows]),
        blocks=blocks[:rows],
        more=_more(len(touched), rows),
    )


def _patch(patch: verdict.PatchChange) -> Line:
    files: Line = (" in ", *names(patch.files)) if patch.files else ()
    title: Line = (": ", Quoted(patch.title)) if patch.change in {Change.NEW, Change.GONE} and patch.title else ()
    became = f", now {patch.became}" if patch.became else ""
    moved = ", moved in the series" if patch.moved else ""
    return (Quoted(patch.slug), " ", Badge(patch.change.value), *files, became, moved, *title)


def _not_composed(patch: verdict.PatchChange, lanes: Sequence[verdict.LaneReview]) -> Line:
    """In which lanes it is not, by rule; that is no fault, and an author who expects it there wants to know."""
    stacks = ((lane.lane, lane.after) for lane in lanes[:_LANES] if lane.after)
    out = [(lane, item.reason) for lane, stack in stacks for item in stack.left_out if item.patch == patch.slug]
    return tuple(
        part for lane, reason in out for part in ("; not composed in lane ", Quoted(lane), ", ", Quoted(reason))
    )


def _guards(patches: Sequence[verdict.PatchChange], rows: int) -> Section:
    items = [
        (Quoted(patch.slug), ": ", *joined([_guard(guard) for guard in patch.guards], ", "))
        for patch in patches
        if patch.guards
    ]
    intro = (TO_PROVE,) if items else ()
    return Section(GUARDS, intro, items=tuple(items[:rows]), more=_more(len(items), rows))


def _guard(guard: verdict.Guard) -> Line:
    if not guard.there:
        return (Quoted(guard.path), " (", Badge("missing"), ")")
    return (Quoted(guard.path), f" ({count(guard.tests, 'test', 'tests')})")


def _block(caption: Line, texts: Sequence[str], rows: int) -> Block:
    shown = tuple(line for text in texts[: rows * _DIFF_LINES] for line in visible_lines(text, _WIDTH))
    return Block(caption, shown, _more(len(texts), rows * _DIFF_LINES))


def _more(number: int, shown: int) -> str:
    return f"{number - shown} more in the verdict" if number > shown else ""
