"""One night with something of everything in it, and the values that it is made of."""

from __future__ import annotations

from dataclasses import replace

from patchstack.losses import Losses, Lost, MovedBase
from patchstack.model import (
    Base,
    Composition,
    Fingerprint,
    GuardOutcome,
    GuardReport,
    GuardResult,
    ImageCheck,
    ImageRef,
    ImageResult,
    ImageTests,
    Kind,
    LedgerImage,
    LedgerLine,
    LeftOut,
    NightReport,
    Outcome,
    Promotion,
    Proof,
    RangeDiff,
    Reason,
    Scenario,
    Sha,
    Standing,
    Status,
    Timing,
    Topic,
    TreeRun,
    Verdict,
)


def sha(digit: str) -> Sha:
    return Sha(digit * 40)


BASE = Base("sglang==0.5.12.post1", "0.5.12.post1", sha("b"), sha("c"))


def topic(name: str, title: str, **more: object) -> Topic:
    kind = Kind.PULL if name.startswith("#") else Kind.PATCH
    author = "Acme SGLang maintainers" if kind is Kind.PATCH else "mallory"
    made = Topic(name, kind, title, author, sha("1"), sha("1"), sha("b"), sha("1"), "id", ("a.py",))
    return replace(made, **more)  # type: ignore[arg-type]


TOPICS = (
    topic("ib-device-map", "pd: rail map for --disaggregation-ib-device", required=True),
    topic("zmq-locked-sends", "pd: lock shared PUSH sockets", requires=("ib-device-map",), head=sha("2")),
    topic("#41", "fix/metrics", replayed=True, not_carried=("docs/a.md", "test/b.py"), head=sha("3")),
)


def left_out(name: str, outcome: Outcome, reason: Reason, detail: str, **more: object) -> LeftOut:
    kind = Kind.PULL if name.startswith("#") else Kind.PATCH
    made = LeftOut(name, kind, f"title of {name}", "mallory", sha("4"), outcome, reason, detail)
    return replace(made, **more)  # type: ignore[arg-type]


LEFT_OUT = (
    left_out(
        "#43",
        Outcome.EXCLUDED,
        Reason.CONFLICT,
        "Rebase it: `git rebase --onto stack/production 4444444`.",
        twins=("#41", "zmq-locked-sends"),
        files=("python/sglang/srt/a.py", "python/sglang/srt/b.py"),
    ),
    left_out("#44", Outcome.CARRIED, Reason.CONTAINED, "#41 has all of its commits.", twins=("#41",)),
    left_out("#45", Outcome.DROPPED, Reason.NO_EFFECT_ON_BASE, "Upstream has it; close it."),
    left_out("#46", Outcome.EXCLUDED, Reason.HEAD_MISSING, "The remote has no such head.", head=None, author=""),
    left_out("pd-transfer-parking", Outcome.SKIPPED, Reason.SWITCHED_OFF, "Add it to `optional` in deploy.yaml."),
)

COMPOSITION = Composition("production", BASE, sha("d"), sha("e"), TOPICS, LEFT_OUT, Fingerprint("f" * 64, ()))

GUARD = GuardResult(
    "tests/regression/zmq_locked_sends/test_zmq.py::test_two_threads",
    "zmq-locked-sends",
    False,
    GuardOutcome.PASS,
    1.25,
)
CONTROL = GuardResult(
    "tests/regression/zmq_locked_sends/test_zmq.py::test_one_thread", "zmq-locked-sends", True, GuardOutcome.PASS, 0.5
)
TESTS = GuardReport(
    "cpu",
    "cpu-3f2a",
    (
        TreeRun("composed", True, sha("e"), (GUARD, CONTROL)),
        TreeRun(
            "base + ib-device-map",
            False,
            sha("9"),
            (replace(GUARD, outcome=GuardOutcome.FAIL, reason="AssertionError: frames were mixed"), CONTROL),
            kept=True,
        ),
    ),
    (Proof("zmq-locked-sends", "base + ib-device-map", Standing.PROVEN, "1 guards fail without it and pass with it"),),
    (Scenario("1-gpu", "tests/regression/gpu/test_pd.py::test_pair"),),
)
KILLER = replace(GUARD, test=f"{GUARD.test}[2]", outcome=GuardOutcome.FAIL, reason="frames", kills=("no-lock",))
MUTANTS = (
    TreeRun("mutant zmq-locked-sends/no-lock", False, sha("7"), (KILLER,), True, "zmq-locked-sends/no-lock"),
    TreeRun(
        "mutant zmq-locked-sends/late-lock",
        False,
        sha("8"),
        (KILLER, replace(GUARD, kills=("late-lock",)), replace(CONTROL, outcome=GuardOutcome.TIMEOUT, reason="5 s")),
        mutant="zmq-locked-sends/late-lock",
    ),
)
"""One that is killed, and one that a guard lets live while another does not end."""
RED_TESTS = replace(
    TESTS,
    runs=(
        TreeRun(
            "composed",
            True,
            sha("e"),
            (replace(GUARD, outcome=GuardOutcome.FAIL, reason="AssertionError: frames were mixed"), CONTROL),
        ),
        TESTS.runs[1],
        *MUTANTS,
    ),
    proofs=(Proof("zmq-locked-sends", "base + ib-device-map", Standing.BROKEN, f"not green with it: {GUARD.test}"),),
)

PREVIOUS = LedgerLine(
    night="20261120T020000Z",
    lane="production",
    at="2026-11-20T02:00:00Z",
    base=BASE.name,
    base_commit=BASE.commit,
    composition=sha("8"),
    tree=sha("9"),
    fingerprint="0" * 64,
    included=(("ib-device-map", sha("1")), ("zmq-locked-sends", sha("5")), ("#40", sha("6"))),
    left_out=(("#39", "conflict"),),
    channels=("nightly",),
    tag="nightly-20261120-9999999",
)
LINE = replace(
    PREVIOUS,
    night="20261121T020000Z",
    at="2026-11-21T02:00:00Z",
    composition=COMPOSITION.commit,
    tree=COMPOSITION.tree,
    fingerprint="f" * 64,
    included=tuple((item.name, item.head) for item in TOPICS),
    left_out=tuple((item.name, item.reason.value) for item in LEFT_OUT),
    tag="nightly-20261121-eeeeeee",
)
PROMOTION = Promotion(
    "production",
    "deploy",
    sha("7"),
    sha("a"),
    LINE,
    (("refs/heads/deploy", sha("a")), ("refs/tags/nightly-20261121-eeeeeee", sha("a"))),
)

IMAGE = ImageRef(
    repository="registry.example.com/acme/sglang",
    digest=f"sha256:{'a' * 64}",
    tag="nightly-20261121-eeeeeee",
    runtime="cuda",
    recipe="1" * 64,
    dependencies=f"sha256:{'b' * 64}",
    labels=(),
    bytes_new=2_345_678,
    built=False,
    provenance=f"sha256:{'c' * 64}",
)
IMAGE_TESTS = ImageTests(
    IMAGE.repository,
    IMAGE.digest,
    (
        ImageCheck("tree", GuardOutcome.PASS, "2154 files are those of tree eeeeeeeeeeee", 3.25),
        ImageCheck("imports", GuardOutcome.FAIL, "`import sglang`: ImportError: no `x` | in y", 12.0),
        ImageCheck("one request", GuardOutcome.SKIPPED_BY_RULE, "a server of the cuda runtime needs a GPU"),
    ),
)
LEDGER_IMAGE = LedgerImage(IMAGE.repository, IMAGE.digest, IMAGE.tag, "cuda", IMAGE.recipe, IMAGE.dependencies)

VERDICTS = (
    Verdict("nightly", Status.PASS, (), ("image: nightly does not need it",)),
    Verdict("stable", Status.INCOMPLETE, ("it needs image, which did not run",)),
)

LOSSES = Losses(
    PREVIOUS.night,
    1,
    (
        Lost("#40", sha("6"), Reason.MERGED.value, (), (), "it was merged into main", counts=False),
        Lost(
            "#43",
            sha("4"),
            Reason.CONFLICT.value,
            ("#41",),
            ("python/sglang/srt/a.py", "b|c.py"),
            "Rebase it: `git rebase`.",
            counts=True,
        ),
        Lost("a-patch", sha("3"), "no longer in patches/series", (), (), "", counts=True),
    ),
    MovedBase("https://git.example.com/sglang.git@main", sha("5"), BASE.commit),
)

RANGE_DIFFS = (
    RangeDiff("ib-device-map", "unchanged"),
    RangeDiff(
        "zmq-locked-sends",
        "changed",
        "1:  555555555555 ! 1:  222222222222 pd: lock shared PUSH sockets\n    @@ a.py\n    -    +old\n    +    +new",
    ),
    RangeDiff("#41", "new"),
    RangeDiff("#40", "gone", "dropped: no effect on the base"),
)

NIGHT = NightReport(
    night="20261121T020000Z",
    at="2026-11-21T02:00:00Z",
    lane="production",
    remote="the embedded remote",
    headline=Status.PASS,
    nothing_to_do=False,
    composition=COMPOSITION,
    tests=TESTS,
    verdicts=VERDICTS,
    promotion=PROMOTION,
    previous=PREVIOUS,
    range_diffs=RANGE_DIFFS,
    timings=(Timing("plan", 2.5), Timing("merge", 0.25), Timing("test", 61.0)),
    notes=("no GitHub was asked: the candidates are the remote's refs/pull/*/head",),
    image=ImageResult(None, "no builder is at hand: `make builder` installs one"),
)

NOTHING_TO_DO = replace(
    NIGHT,
    nothing_to_do=True,
    composition=None,
    tests=None,
    image=None,
    verdicts=(),
    promotion=None,
    range_diffs=(),
    timings=(Timing("plan", 2.5),),
    left_out=LEFT_OUT[-1:],
)

RED = replace(
    NIGHT,
    headline=Status.FAIL,
    tests=RED_TESTS,
    verdicts=(Verdict("nightly", Status.FAIL, (f"{GUARD.test}: fail: AssertionError: frames were mixed",)),),
    promotion=None,
    failure="channel nightly is FAIL, nothing was moved",
    exit_code=1,
    image=ImageResult(replace(IMAGE, built=True, provenance="")),
    image_tests=IMAGE_TESTS,
)

STOPPED = replace(
    NOTHING_TO_DO,
    nothing_to_do=False,
    headline=Status.FAIL,
    failure="patch zmq-locked-sends does not apply:\npython/sglang/srt/a.py: hunk 2, in `Manager.send`: cut it again",
    exit_code=4,
    previous=None,
)
