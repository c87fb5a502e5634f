"""Every sentence that this stage says to a user. Functions return a line: our words with outside text marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from patchstack.errors import EXIT_CODES
from patchstack.losses import Lost
from patchstack.model import (
    Asked,
    Base,
    Composition,
    GuardResult,
    LedgerLine,
    LeftOut,
    Outcome,
    Promotion,
    Proof,
    Reason,
    Scenario,
    Sha,
    Status,
    Topic,
    TreeRun,
    Verdict,
)
from patchstack.paging import pages_of
from patchstack.report.page import Badge, Line, Part, Prose, Quoted

INCLUDED = "Included"
RANGE_DIFF = "Against the last promoted night"
PROOFS = "Proofs"
GUARDS = "Guards"
MUTANTS = "Mutants"
NOT_RUN = "Not run here"
VERDICTS = "Channels"
TIMINGS = "Timings"
NOTES = "Notes"
TAGS = "Tags"
GITHUB = "GitHub"
MOVES = "Refs"

LEFT_OUT = {
    Outcome.CARRIED: ("Carried", "Their change is in the night, within another topic."),
    Outcome.EXCLUDED: ("Excluded", "These are not in the night, and their authors have something to do."),
    Outcome.WAITING: ("Waiting", "These are not in the night until somebody says so."),
    Outcome.DROPPED: ("Dropped", "Nothing is lost: their change is already there."),
    Outcome.SKIPPED: ("Skipped", "Left out by rule or by configuration."),
    Outcome.GONE: ("Gone", "They were there in the last promoted night, and are listed no more."),
}
"""Section title and what the outcome means, in the order in which a reader is told."""

INCLUDED_COLUMNS = ("Topic", "Title", "Author", "Head", "Notes")
PROOF_COLUMNS = ("Patch", "Standing", "Compared with", "Why")
MUTANT_COLUMNS = ("Mutant", "Outcome", "Killed by")
KILLED, ALIVE = "killed", "alive"
GUARD_COLUMNS = ("Test", "Kind")
GROUND_COLUMNS = ("without it", "compared with")
TIMING_COLUMNS = ("Stage", "Seconds")
MOVE_COLUMNS = ("Ref", "Moves to")
TOTAL = "all"
GUARD, CONTROL = "guard", "control"

NOTHING_INCLUDED: Line = ("Nothing is included: the composed tree is the base's.",)
FIRST_NIGHT: Line = ("This is the first night: there is nothing to compare with.",)
NO_TESTS: Line = ("No guard ran.",)
NOTHING_MOVED: Line = ("Nothing was moved.",)

# What stands between the reason and the twins; without twins the reason stands alone.
_WITH_TWINS: dict[str, str] = {
    Reason.SAME_HEAD: "same head as",
    Reason.CONTAINED: "contained in",
    Reason.SAME_DIFF: "same diff as",
    Reason.NO_EFFECT_ON_STACK: "no effect on what is composed so far; the change is in",
    Reason.CONFLICT: "conflict with",
    Reason.REQUIRED_LEFT_OUT: "it requires what is left out:",
    Reason.CARRIER_LEFT_OUT: "its carrier is left out:",
    Reason.CONTAINS_DEPLOY: "contains a deploy commit of",
    Reason.CARRIES_BLOCKED: "carries commits of the blocked",
}

_MANY = 5
"""How many names one line shows before it counts the rest."""


def short(sha: str | None) -> Quoted:
    return Quoted(sha[:12] if sha else "none")


def more(count: int) -> str:
    """What was cut, and where it is; empty when nothing was."""
    return f"{count} more in report.json" if count > 0 else ""


def more_lines(count: int) -> str:
    return f"{count} more lines in report.json" if count > 0 else ""


def names(items: Sequence[str]) -> Line:
    """``a, b, c and 4 more``."""
    shown: list[Part] = []
    for item in items[:_MANY]:
        shown += [", ", Quoted(item)] if shown else [Quoted(item)]
    if len(items) > _MANY:
        shown.append(f" and {len(items) - _MANY} more")
    return tuple(shown)


def count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def seconds(value: float) -> str:
    return f"{value:.1f}"


def age(age_s: int) -> str:
    """An age for people, in its two largest units; the exact seconds are in the JSON."""
    if age_s < 0:
        return f"{-age_s} s in the future: a clock is wrong"
    for size, unit, smaller, smaller_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if age_s >= size:
            rest = age_s % size // smaller
            return f"{age_s // size} {unit} {rest} {smaller_unit} ago" if rest else f"{age_s // size} {unit} ago"
    return f"{age_s} s ago"


# --- a night ---


def night_title(night: str, lane: str, headline: Status, *, exclusions: bool = False) -> Line:
    """``exclusions``: it was red with those that it has left out, and the rest is not."""
    but = (" with exclusions",) if exclusions else ()
    return ("Night ", Quoted(night), ", lane ", Quoted(lane), ": ", Badge(headline.value), *but)


def on_base(base: Base) -> Line:
    return ("Base ", Quoted(base.name), ", commit ", short(base.commit), ", tree ", short(base.tree), ".")


def composed(composition: Composition) -> Line:
    included = counted(composition.included)
    return (
        f"Composed {included} into commit ",
        short(composition.commit),
        ", tree ",
        short(composition.tree),
        ", fingerprint ",
        short(composition.fingerprint.digest),
        ".",
    )


def of_composition(commit: Sha) -> Line:
    return ("What they said of commit ", short(commit), ".")


def counted(topics: Iterable[Topic]) -> str:
    """``5 patches and 2 pull requests``."""
    kinds = [topic.kind.value for topic in topics]
    patches, pulls = kinds.count("patch"), kinds.count("pull")
    return f"{count(patches, 'patch', 'patches')} and {count(pulls, 'pull request', 'pull requests')}"


def moved(promotion: Promotion) -> Line:
    return ("Moved ", *_move(promotion))


def would_move(promotion: Promotion) -> Line:
    return ("Would move ", *_move(promotion), " Nothing was written.")


def _move(promotion: Promotion) -> Line:
    origin: Line = ("from ", short(promotion.previous)) if promotion.previous else ("for the first time",)
    return (Quoted(promotion.branch), " ", *origin, " to ", short(promotion.commit), ".")


def nothing_to_do(previous: LedgerLine | None) -> Line:
    night: Line = ("night ", Quoted(content(previous))) if previous else ("the last promoted night",)
    return ("Nothing to do: ", *night, " had the same inputs. Nothing was built, tested or moved.")


def failed(exit_code: int) -> Line:
    meaning = EXIT_CODES.get(exit_code, "unknown")
    return ("The night stopped with exit code ", Badge(str(exit_code)), f" ({meaning}):")


def published_on(remote: str) -> Line:
    return ("Remote: ", Quoted(remote))


# --- topics ---


def topic_notes(topic: Topic) -> Line:
    parts: list[Line] = []
    if topic.requires:
        parts.append(("on ", *names(topic.requires)))
    if topic.replayed:
        parts.append(("its own diff, replayed onto the base",))
    if topic.not_carried:
        files = count(len(topic.not_carried), "file", "files")
        parts.append((f"{files} that the base does not carry left off: ", *names(topic.not_carried)))
    return joined(parts)


def joined(parts: Sequence[Line], between: str = "; ") -> Line:
    line: list[Part] = []
    for part in parts:
        line += [between, *part] if line else part
    return tuple(line)


def reason(item: LeftOut | Lost) -> str:
    """Why it is left out, in words that its twins follow where it has any."""
    plain = str(item.reason)
    return _WITH_TWINS.get(plain, plain) if item.twins else plain


def left_out(item: LeftOut) -> Line:
    """Who, why, with whom, in which files, and what to do."""
    author: Line = (" by ", Quoted(item.author)) if item.author else ()
    head: Line = (" at ", short(item.head)) if item.head else ()
    twins: Line = (" ", *names(item.twins)) if item.twins else ()
    files: Line = (" in ", *names(item.files)) if item.files else ()
    detail: Line = (". ", Prose(item.detail)) if item.detail else (".",)
    title: Line = (" ", Quoted(item.title)) if item.title else ()
    newer: Line = ("; ", *newer_head(item.newer_head)) if item.newer_head else ()
    return (Quoted(item.name), *title, *author, *head, ": ", Badge(reason(item)), *twins, *files, *newer, *detail)


def newer_head(sha: Sha) -> Line:
    return ("only what was admitted counts: its newer head ", short(sha), " waits for an admission of its own")


# --- what GitHub was asked ---


def asked(items: Sequence[Asked]) -> Line:
    """The pages are what a night has to read; what it asks besides is told apart, for it should not grow with them."""
    calls, pages = sum(item.calls for item in items), sum(map(_pages, items))
    rest = calls - pages
    times = count(calls, "time", "times")
    besides = count(rest, "time", "times")
    return (f"GitHub was asked {times}: for {count(pages, 'page', 'pages')} of pull requests, and {besides} besides.",)


def asked_of(item: Asked) -> Line:
    others = (
        f", {item.others} of them from owners that deploy.yaml does not list: these are not named"
        if item.others
        else ""
    )
    return (Quoted(item.repo), f": {count(item.open_pulls, 'open pull request', 'open pull requests')}{others}.")


def _pages(item: Asked) -> int:
    """What it takes to list them, if none closes meanwhile."""
    return pages_of(item.open_pulls)


# --- tests and verdicts ---


def tree_run(run: TreeRun) -> Line:
    """One tree's results in numbers."""
    tally: dict[str, int] = {}
    for result in run.results:
        tally[result.outcome.value] = tally.get(result.outcome.value, 0) + 1
    numbers = ", ".join(f"{number} {outcome}" for outcome, number in tally.items()) or "nothing ran"
    took = f" in {seconds(sum(result.duration_s for result in run.results))} s"
    kept = "; kept from an earlier run with equal inputs" if run.kept else ""
    return ("On ", Quoted(run.label), " (tree ", short(run.tree), f"): {numbers}{took}{kept}.")


def kind(result: GuardResult) -> Line:
    """``control``, ``guard``, or ``kills one-string``."""
    if result.kills:
        return ("kills ", *names(result.kills))
    return (CONTROL if result.control else GUARD,)


def mutants(killed: int, runs: Sequence[TreeRun]) -> Line:
    kept = sum(run.kept for run in runs)
    took_s = sum(result.duration_s for run in runs for result in run.results)
    again = f"; {kept} of the answers kept from an earlier run with equal inputs" if kept else ""
    return (f"{killed} of {count(len(runs), 'mutant', 'mutants')} killed in {seconds(took_s)} s{again}.",)


def not_green(label: str, result: GuardResult) -> Line:
    reason: Line = (": ", Prose(result.reason)) if result.reason else ()
    return (Quoted(result.test), " on ", Quoted(label), ": ", Badge(result.outcome.value), *reason)


def not_run(scenarios: Sequence[Scenario], lane: str) -> Line:
    number = count(len(scenarios), "scenario", "scenarios")
    return (f"{number} skipped by rule: lane ", Quoted(lane), " never runs them.")


def scenario(item: Scenario) -> Line:
    return (Quoted(item.test), " needs ", Quoted(item.lane))


def verdict(item: Verdict, moved_channels: Sequence[str] | None) -> Line:
    """``moved_channels`` are those that a promotion moved; None when there was none."""
    did = ""
    if moved_channels is not None:
        did = ", moved" if item.channel in moved_channels else ", not moved"
    why: Line = (": ", *_few(item.reasons)) if item.reasons else ()
    warned: Line = (" (warned: ", *_few(item.warnings), ")") if item.warnings else ()
    skipped: Line = (" (skipped by rule: ", *_few(item.skipped_by_rule), ")") if item.skipped_by_rule else ()
    return (Quoted(item.channel), " ", Badge(item.status.value), did, *why, *warned, *skipped)


def _few(sentences: Sequence[str]) -> Line:
    shown = joined([(Prose(said),) for said in sentences[:_MANY]])
    rest = more(len(sentences) - _MANY)
    return (*shown, *((f"; {rest}",) if rest else ()))


# --- range-diff ---


def since(previous: LedgerLine, changed: int, new: int, gone: int, unchanged: int) -> Line:
    numbers = f"{changed} changed, {new} new, {gone} gone, {unchanged} unchanged"
    back: Line = (", which ", Quoted(previous.night), " went back to") if previous.to else ()
    return ("Since night ", Quoted(content(previous)), *back, f": {numbers}.")


def content(line: LedgerLine) -> str:
    """The night whose content a ledger line is of."""
    return line.to or line.night


def difference(name: str, change: str, why: str = "") -> Line:
    reason: Line = (" (", Prose(why), ")") if why else ()
    return (Quoted(name), " ", Badge(change), *reason)


# --- the verbs ---


def plan_title(run: str, lane: str) -> Line:
    return ("Plan of run ", Quoted(run), ", lane ", Quoted(lane))


def to_merge(topics: Sequence[Topic], digest: str) -> Line:
    return (f"{counted(topics)} to merge, fingerprint ", short(digest), ".")


def composition_title(run: str, lane: str) -> Line:
    return ("Composition of run ", Quoted(run), ", lane ", Quoted(lane))


def guards_title(lane: str) -> Line:
    return ("Guards, lane ", Quoted(lane))


def bed(name: str) -> Line:
    return ("Test bed ", Quoted(name), ".")


def proof_title(proof: Proof) -> Line:
    return ("Patch ", Quoted(proof.slug), " on ", Quoted(proof.ground), ": ", Badge(proof.standing.value))


def why(proof: Proof) -> Line:
    return (Prose(proof.detail), ".")


def promotion_title(lane: str) -> Line:
    return ("Promotion, lane ", Quoted(lane))


def tagged(tag: str) -> Line:
    return ("Dated tag: ", Quoted(tag), ".")


# --- status ---


def status_title(lane: str) -> Line:
    return ("Status, lane ", Quoted(lane))


def no_night(branch: str, remote: str) -> Line:
    place: Line = ("on ", Quoted(remote)) if remote else ("yet",)
    return ("No night was ever promoted to ", Quoted(branch), " ", *place, "; `make nightly` makes the first.")


def deployed(line: LedgerLine, branch: str, age_s: int) -> Line:
    if line.to:
        back: Line = (" holds night ", Quoted(line.to), " again, since rollback ", Quoted(line.night))
        return (Quoted(branch), *back, f" {age(age_s)} at ", Quoted(line.at), ".")
    return (Quoted(branch), " holds night ", Quoted(line.night), f", promoted {age(age_s)} at ", Quoted(line.at), ".")


def at_tip(tip: str, line: LedgerLine) -> Line:
    return ("Tip ", short(tip), ", tree ", short(line.tree), ", base ", Quoted(line.base), ".")


def ledger_tree(line: LedgerLine) -> Line:
    return ("It is tree ", short(line.tree), " on base ", Quoted(line.base), ", tag ", Quoted(line.tag), ".")


def ledger_included(line: LedgerLine) -> Line:
    return ("Included: ", *(names_all([name for name, _ in line.included]) or ("nothing",)), ".")


def ledger_left_out(line: LedgerLine) -> Line:
    parts: list[Line] = [(Quoted(name), " (", Prose(reason), ")") for name, reason in line.left_out]
    return ("Left out: ", *(joined(parts, ", ") or ("nothing",)), ".")


def names_all(items: Sequence[str]) -> Line:
    return joined([(Quoted(item),) for item in items], ", ")


def foreign(number: int, branch: str) -> Line:
    commits = count(number, "commit", "commits")
    return (f"{commits} on top of ", Quoted(branch), " came from no promotion; the next night goes on from there.")


def channel_current(name: str, taken_back: str | None = None) -> Line:
    if taken_back:
        back: Line = (": night ", Quoted(taken_back), ", which had moved it, was taken back")
        return (Quoted(name), " ", Badge("went back"), " with this rollback", *back)
    return (Quoted(name), " ", Badge("moved"), " with this night")


def channel_behind(
    name: str, night: str | None, tag: str | None, why_not: Sequence[str], taken_back: str | None = None
) -> Line:
    """``taken_back``: the night that moved it last, where a rollback took that one back."""
    place: Line = (" never moved",)
    if night:
        place = (" went back to night " if taken_back else " stays at night ", Quoted(night), " ", Quoted(tag or ""))
    elif taken_back:
        place = (" has no night that stands",)
    back: Line = ("night ", Quoted(taken_back), ", which had moved it, was taken back") if taken_back else ()
    why = joined([*([back] if back else []), *((Prose(reason),) for reason in why_not)]) or (
        "no reason is kept on this machine; the night's report has it",
    )
    return (Quoted(name), *place, ": ", *why)


def tag_missing(name: str) -> Line:
    return (Quoted(name), " ", Badge("missing"), "; the next night makes it")


def tag_elsewhere(name: str, expected: str, found: str | None) -> Line:
    return (Quoted(name), " ", Badge("elsewhere"), " at ", short(found), ", not at ", short(expected), "; never moved")


def last_run(night: str, status: str, nothing: bool, failure: str) -> Line:
    did = " with nothing to do" if nothing else ""
    why: Line = (": ", Prose(failure)) if failure else (".",)
    return ("Last run on this machine: ", Quoted(night), f"{did} ", Badge(status), *why)


# --- tables of the README and of docs/gpu.md ---

PATCH_COLUMNS = ("Patch", "Symptom", "Need", "Upstream", "On a GPU")
SCENARIO_COLUMNS = ("Scenario", "What its file shows", "Lane", "Form and model", "GPU minutes", "On its hardware")
MODEL_COLUMNS = ("Model", "Lanes")
LANE_COLUMNS = ("Lane", "GPUs", "Scenarios", "Minutes", "GPU minutes", "On its hardware")
OPTIONAL, NEVER_ON_GPU, NEVER = "optional", "never run on a GPU", "never run"
NOT_IN_THE_IMAGE = "not in the image"


# --- progress ---


def done(stage: str, took_s: float) -> str:
    return f"{stage}: done in {took_s:.1f} s"


def stopped(stage: str, took_s: float) -> str:
    return f"{stage}: stopped after {took_s:.1f} s"
