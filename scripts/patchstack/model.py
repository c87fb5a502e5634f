"""The values that stages hand to each other. Frozen, and nothing in them runs.

Each value of `store.STAGE_FILES` is written as JSON into the run folder, so that a stage can be started from the
file of the one before it. Ids are full 40-digit hexadecimal SHA-1; times are ISO 8601 in UTC; durations carry
their unit in the name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from patchstack.culprits import Blame as Blame
from patchstack.ids import Sha as Sha
from patchstack.lanes import Form as Form
from patchstack.lanes import Hardware as Hardware
from patchstack.lanes import JobEnd as JobEnd
from patchstack.lanes import JobState as JobState
from patchstack.lanes import LaneAnswer as LaneAnswer
from patchstack.lanes import LaneJob as LaneJob
from patchstack.lanes import LaneRun as LaneRun
from patchstack.lanes import LaneRuns as LaneRuns
from patchstack.lanes import Settings as Settings
from patchstack.losses import Losses
from patchstack.measures import Deployed as Deployed
from patchstack.measures import LaneRecord as LaneRecord
from patchstack.measures import Measure as Measure
from patchstack.measures import Measures as Measures
from patchstack.measures import NightRecord as NightRecord
from patchstack.measures import Past as Past
from patchstack.measures import Trend as Trend
from patchstack.reasons import Outcome as Outcome
from patchstack.reasons import Reason as Reason
from patchstack.results import Attempt as Attempt
from patchstack.results import Division as Division
from patchstack.results import GuardOutcome as GuardOutcome
from patchstack.results import GuardReport as GuardReport
from patchstack.results import GuardResult as GuardResult
from patchstack.results import Proof as Proof
from patchstack.results import Quarantined as Quarantined
from patchstack.results import Sample as Sample
from patchstack.results import Scenario as Scenario
from patchstack.results import Shard as Shard
from patchstack.results import Standing as Standing
from patchstack.results import TreeRun as TreeRun

SCHEMA_VERSION = 1

# --- upstream ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Native:
    """The wheel that carries a release's compiled parts for one Python and platform."""

    python: str
    platform: str
    filename: str
    sha256: str


@dataclass(frozen=True)
class Base:
    """A release, or a git ref, as one commit of ours in the local store (sources only)."""

    name: str
    """What was asked for: ``sglang==0.5.12.post1`` or ``URL@ref``."""
    version: str
    """The release's version (PEP 440): patches choose their variant by it."""
    commit: Sha
    tree: Sha
    natives: tuple[Native, ...] = ()


# --- candidates ----------------------------------------------------------------------------------------


class Kind(StrEnum):
    PATCH = "patch"
    PULL = "pull"


@dataclass(frozen=True)
class Pull:
    """A pull request as it was admitted: one head, and where its own diff begins."""

    number: int
    name: str
    """``#41`` of the fork, ``owner/name#41`` of another repository."""
    head: Sha
    """The commit that was admitted; the pull request may have moved on since (`newer_head`)."""
    title: str
    author: str
    target: str
    """The branch that it is meant for."""
    merge_base: Sha
    """Where ``head`` left ``target``: its own diff is from here to ``head``."""
    shared: bool
    """Some of its commits are on a published branch but not in the base: merged by its head, it would carry them."""
    url: str = ""
    newer_head: Sha | None = None
    """Where it is now, when that is not what was admitted: it waits for an admission of its own."""
    barred_by: str = ""
    """The rollback, or the night, that barred this head; empty for all others."""


@dataclass(frozen=True)
class Mutant:
    """A small diff of ours that brings the known fault back into a patch; the patch's guards must see it."""

    name: str
    """As guards name it: without ``.patch``."""
    commit: Sha | None
    """On the patch's own topic commit; None where ``problems`` say why there is none."""
    tree: Sha | None
    problems: tuple[str, ...] = ()
    """``LINE: path: problem: fix``; the line is that of its file."""


@dataclass(frozen=True)
class Topic:
    """A patch or a pull request as one commit that can be merged on the base."""

    name: str
    """The patch's slug, or the pull request's name."""
    kind: Kind
    title: str
    author: str
    head: Sha
    """A pull request's head as it was admitted; a patch's own topic commit."""
    commit: Sha
    """What is merged: ``head`` itself, or its own diff replayed onto the base (``replayed``)."""
    own_from: Sha
    """The commit from which the topic's own diff starts: a patch's parent, a pull request's merge base."""
    own_to: Sha
    """The commit at which its own diff ends: for a pull request its head."""
    patch_id: str
    """``git patch-id --stable`` of the whole own diff; empty when it changes nothing."""
    paths: tuple[str, ...]
    """What ``commit`` changes, sorted; both sides of a rename."""
    required: bool = False
    requires: tuple[str, ...] = ()
    """Slugs of the patches that it stands on."""
    target: str = ""
    """A pull request's target branch."""
    replayed: bool = False
    not_carried: tuple[str, ...] = ()
    """Paths of the own diff that the base does not carry (tests, docs, the gateway), left off."""
    url: str = ""
    newer_head: Sha | None = None
    """A pull request's head now, where another was admitted."""
    mutants: tuple[Mutant, ...] = ()
    """A patch's, in the order of its front matter."""


@dataclass(frozen=True)
class LeftOut:
    """A candidate that is not a parent of tonight's commit, with all that its author needs to know."""

    name: str
    kind: Kind
    title: str
    author: str
    head: Sha | None
    outcome: Outcome
    reason: Reason
    detail: str
    """One sentence: what is in the way, and what to do (the command, where there is one)."""
    twins: tuple[str, ...] = ()
    """Who has the same change, carries it, or is in conflict with it."""
    files: tuple[str, ...] = ()
    required: bool = False
    url: str = ""
    newer_head: Sha | None = None
    """A pull request's head now, where another was admitted."""


@dataclass(frozen=True)
class Asked:
    """What was asked of one GitHub repository tonight."""

    repo: str
    open_pulls: int
    """How many are open there, candidates or not."""
    others: int
    """How many of them are none of ours: from owners that the source does not list. They are not named one by one."""
    calls: int
    """Requests, each page for one."""


@dataclass(frozen=True)
class Candidates:
    """Patches in series order, then the fork's pull requests, then others', by number; each at an exact SHA."""

    base: Base
    topics: tuple[Topic, ...]
    left_out: tuple[LeftOut, ...]
    asked: tuple[Asked, ...] = ()
    blocked: tuple[Pull, ...] = ()
    """Those of ``left_out`` that are blocked or barred, with their commits at hand: they bar what contains these."""


@dataclass(frozen=True)
class Deduped:
    kept: tuple[Topic, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Fingerprint:
    """Equal digest: equal night. ``inputs`` name what it was made of, so that a change can be named."""

    digest: str
    inputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Hotfix:
    """What is deployed, taken as it was merged, and the pull requests that are added to it."""

    onto: str
    """The night whose content is deployed."""
    composition: Sha
    """That night's."""
    only: tuple[str, ...]
    """The pull requests that were asked for."""
    replaced: tuple[tuple[str, Sha], ...] = ()
    """Those of ``only`` that are deployed at another head, with that head: it is left off."""


@dataclass(frozen=True)
class MergePlan:
    lane: str
    base: Base
    steps: tuple[Topic, ...]
    left_out: tuple[LeftOut, ...]
    fingerprint: Fingerprint
    hotfix: Hotfix | None = None
    """None for a night that takes all that there is."""


@dataclass(frozen=True)
class Composition:
    lane: str
    base: Base
    commit: Sha
    """The octopus: parents are the base and every included topic, in order."""
    tree: Sha
    included: tuple[Topic, ...]
    left_out: tuple[LeftOut, ...]
    fingerprint: Fingerprint
    hotfix: Hotfix | None = None
    bound: tuple[tuple[str, str], ...] = ()
    """Pairs of included pull requests: the first has commits that are the second's own, and goes where that goes."""


@dataclass(frozen=True)
class KillMark:
    """One name in ``@pytest.mark.kills(...)``, as it is written in a guard's file."""

    file: str
    """Relative to the repository's root, with forward slashes."""
    line: int
    mutant: str


# --- proof ---------------------------------------------------------------------------------------------


class Status(StrEnum):
    PASS = "PASS"  # noqa: S105
    FAIL = "FAIL"
    INCOMPLETE = "INCOMPLETE"


@dataclass(frozen=True)
class Verdict:
    channel: str
    status: Status
    reasons: tuple[str, ...]
    skipped_by_rule: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What does not hold it and somebody should know: flaky guards, metrics that got worse."""


@dataclass(frozen=True)
class Verdicts:
    verdicts: tuple[Verdict, ...]


# --- image ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageRef:
    """An image in a registry, pushed and read back."""

    repository: str
    """As deploy.yaml names it; of the embedded registry the bare name."""
    digest: str
    """``sha256:`` and 64 hexadecimal digits."""
    tag: str
    """The tag that it was pushed by, which is never moved."""
    runtime: str
    recipe: str
    dependencies: str
    """The dependency image's digest, which all its layers but the last are from."""
    labels: tuple[tuple[str, str], ...]
    bytes_new: int
    """What was pushed and the registry did not hold before."""
    built: bool
    """The dependency image was built or pushed for it; else it was extended by one layer."""
    provenance: str = ""
    """The digest of its signed statement in the same repository; empty where no key is configured."""


@dataclass(frozen=True)
class ImageResult:
    """What became of tonight's image."""

    image: ImageRef | None
    why_not: str = ""
    """Where there is none: one sentence, with what to do."""


class Look(StrEnum):
    """What is looked at in an image, in this order; a gate that misses one of them is not passed."""

    DIGEST = "digest"
    TREE = "tree"
    PACKAGES = "packages"
    IMPORTS = "imports"
    REQUEST = "one request"


@dataclass(frozen=True)
class ImageCheck:
    """One thing that was looked at in the image as it was pulled."""

    name: str
    """A `Look`'s."""
    outcome: GuardOutcome
    detail: str
    duration_s: float = 0.0


@dataclass(frozen=True)
class ImageTests:
    """What was seen inside the image of one digest."""

    repository: str
    digest: str
    checks: tuple[ImageCheck, ...]


# --- release -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LedgerImage:
    """The image of a promoted night."""

    repository: str
    digest: str
    tag: str
    runtime: str
    recipe: str
    dependencies: str


class Action(StrEnum):
    """What a commit on `deploy` is."""

    NIGHT = "night"
    ROLLBACK = "rollback"
    HOLD = "hold"
    """From here on nights are tested and not promoted."""
    RELEASE = "release"
    """A hold, or something that a rollback barred, is in force no more."""


class Barring(StrEnum):
    PLAN = "plan"
    HEAD = "head"


@dataclass(frozen=True)
class Bar:
    """What no night may bring back as it is."""

    kind: Barring
    name: str
    """The id of the night that was taken back, a pull request's name, or a patch's slug."""
    value: str
    """The plan's fingerprint, or the head as it was admitted; a patch's is its own commit."""


@dataclass(frozen=True)
class LedgerLine:
    """One commit on `deploy`: its JSON trailer. What holds or releases repeats what is deployed."""

    night: str
    """The run's id; of what no run made, an id of the same form."""
    lane: str
    at: str
    base: str
    base_commit: Sha
    composition: Sha
    tree: Sha
    fingerprint: str
    included: tuple[tuple[str, Sha], ...]
    """Name and head of every included topic, in order."""
    left_out: tuple[tuple[str, str], ...]
    """Name and reason."""
    channels: tuple[str, ...]
    tag: str
    """The dated tag that is derived from this line."""
    image: LedgerImage | None = None
    """Moving image tags are derived from it; None where the night had none."""
    action: Action = Action.NIGHT
    upstream: str = ""
    """What deploy.yaml said of the base, as `Workplace.upstream_words` has it; empty in older lines."""
    stack: Sha | None = None
    """What ``stack/LANE`` is made of: the base with its required patches alone."""
    optional: tuple[str, ...] = ()
    """Those patches of ``included`` that are not in ``stack``."""
    lost: tuple[tuple[str, str], ...] = ()
    """Name and reason of what the night before had and this one has not."""
    onto: str = ""
    """Of a hotfix: the night whose content it added pull requests to."""
    to: str = ""
    """Of a rollback: the night whose content this is again."""
    because: str = ""
    """Of all but a night: why, in the words of who did it."""
    bars: tuple[Bar, ...] = ()
    """What this rollback bars from now on; of a night: the heads that it has found guilty and left out."""
    patches: tuple[tuple[str, str], ...] = ()
    """Slug and `Patch.digest` of every patch of ``included``; empty in older lines."""
    releases: tuple[str, ...] = ()
    """Of a release: names of `Bar`s; none: the hold."""


@dataclass(frozen=True)
class Promotion:
    lane: str
    branch: str
    previous: Sha | None
    """The branch's tip before; None on the first night."""
    commit: Sha
    line: LedgerLine
    pushed: tuple[tuple[str, Sha], ...]
    """Every ref that the push moved, and to what."""


@dataclass(frozen=True)
class RangeDiff:
    """How one topic differs from its form in the last promoted night."""

    name: str
    change: str
    """``new``, ``unchanged``, ``changed`` or ``gone``."""
    text: str = ""


@dataclass(frozen=True)
class Timing:
    stage: str
    seconds: float


@dataclass(frozen=True)
class Refusal:
    """The patch that stopped a night because it does not apply, or does not merge (exit code 4)."""

    patch: str
    """Its slug."""
    files: tuple[str, ...] = ()
    """In which files, where that is known apart from the failure's words."""


@dataclass(frozen=True)
class NightReport:
    """All that a reader of a night is told; the report stage turns it into words."""

    night: str
    at: str
    lane: str
    remote: str
    headline: Status
    nothing_to_do: bool
    """The fingerprint equals the last promoted one: nothing was built, tested or moved."""
    composition: Composition | None
    tests: GuardReport | None
    verdicts: tuple[Verdict, ...]
    promotion: Promotion | None
    previous: LedgerLine | None
    """The last promoted night before this one."""
    range_diffs: tuple[RangeDiff, ...]
    timings: tuple[Timing, ...]
    notes: tuple[str, ...]
    """What was not asked or not done by rule (no GitHub asked, proof kept, ...)."""
    failure: str = ""
    exit_code: int = 0
    left_out: tuple[LeftOut, ...] = ()
    """When there is no composition: what discover, dedup and plan had left out."""
    asked: tuple[Asked, ...] = ()
    """What GitHub was asked; empty where it was not."""
    planned: tuple[Topic, ...] = ()
    """When there is no composition: what the plan would merge."""
    refused: Refusal | None = None
    """The patch that stopped the night, if one did."""
    image: ImageResult | None = None
    """None where the night ended before it came to the image."""
    image_tests: ImageTests | None = None
    hotfix: Hotfix | None = None
    """None for a night that takes all that there is, and for a hotfix that ended before its plan."""
    losses: Losses | None = None
    """None where the night ended before its merge."""
    held: LedgerLine | None = None
    """The hold in force: what passes is not promoted."""
    bars: tuple[tuple[str, Bar], ...] = ()
    """What is barred, each with the id of the rollback, or of the night, that barred it."""
    blame: Blame | None = None
    """What was found out about a red night; None where it was not red, or nobody asked."""
    measures: Measures | None = None
    """None where no guard has measured anything."""
    quarantined_green: tuple[tuple[str, int], ...] = ()
    """Guards in quarantine that passed, each with the nights in a row in which it did, tonight among them."""
    lanes: LaneRuns | None = None
    """What other lanes than `cpu` said; None where none was asked."""
