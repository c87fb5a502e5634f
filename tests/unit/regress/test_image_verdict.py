"""What an image, and what was seen inside it, does to each channel's verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

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
    Look,
    Sha,
    Status,
    TreeRun,
    Verdict,
)
from patchstack.regress.gate import image_to_promote, judge

TREE, BASE_TREE, COMMIT = Sha("a" * 40), Sha("b" * 40), Sha("c" * 40)
COMPOSITION = Composition(
    "production", Base("sglang==1.0", "1.0", COMMIT, BASE_TREE), COMMIT, TREE, (), (), Fingerprint("f", ())
)
GREEN_GUARDS = GuardReport(
    "cpu",
    "bed",
    (
        TreeRun("composed", True, TREE, (GuardResult("t", "bed", True, GuardOutcome.PASS, 0.1),)),
        TreeRun("base", False, BASE_TREE, (GuardResult("t", "bed", True, GuardOutcome.PASS, 0.1),)),
    ),
    (),
)
CHANNELS = {"nightly": ["cpu"], "stable": ["cpu", "image"]}
DIGEST = f"sha256:{'1' * 64}"
IMAGE = ImageRef(
    repository="registry.example.com/acme/sglang",
    digest=DIGEST,
    tag="nightly-20261121-aaaaaaa",
    runtime="cuda",
    recipe="r",
    dependencies="d",
    labels=(("io.github.acme.patchstack.tree", TREE),),
    bytes_new=1,
    built=False,
)
SEEN = ImageTests(
    IMAGE.repository,
    DIGEST,
    tuple(
        ImageCheck(look.value, GuardOutcome.SKIPPED_BY_RULE if look is Look.REQUEST else GuardOutcome.PASS, "words")
        for look in Look
    ),
)


def verdicts(
    image: ImageResult | None, tests: ImageTests | None, runtime: str = "cuda", guards: GuardReport = GREEN_GUARDS
) -> tuple[Verdict, Verdict]:
    nightly, stable = judge(CHANNELS, COMPOSITION, {}, guards, image, tests, runtime).verdicts
    return nightly, stable


def said(look: Look, outcome: GuardOutcome) -> ImageTests:
    """All as in `SEEN`, but one."""
    check = ImageCheck(look.value, outcome, "words")
    return replace(SEEN, checks=tuple(check if old.name == look.value else old for old in SEEN.checks))


def test_a_green_image_satisfies_who_needs_it_and_is_no_word_to_who_does_not() -> None:
    assert verdicts(ImageResult(IMAGE), SEEN) == (
        Verdict("nightly", Status.PASS, ()),
        Verdict("stable", Status.PASS, ()),
    )


@pytest.mark.parametrize(
    "outcome", [GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.TIMEOUT, GuardOutcome.FLAKY], ids=str
)
@pytest.mark.parametrize("look", Look)
def test_a_red_check_fails_every_channel(look: Look, outcome: GuardOutcome) -> None:
    reasons = (f"image: {look.value}: {outcome.value}: words",)
    nightly, stable = verdicts(ImageResult(IMAGE), said(look, outcome))
    assert (nightly.status, nightly.reasons) == (Status.FAIL, reasons)
    assert (stable.status, stable.reasons) == (Status.FAIL, reasons)


NOT_NEEDED = ("image: nightly does not need it",)
OF_ANOTHER = replace(SEEN, digest=f"sha256:{'2' * 64}")
OF_ANOTHER_REPOSITORY = replace(SEEN, repository="registry.example.com/else")
CPU_IMAGE = replace(IMAGE, runtime="cpu")
CPU_SEEN = said(Look.REQUEST, GuardOutcome.PASS)


@pytest.mark.parametrize(
    ("image", "tests", "runtime", "reasons"),
    [
        (None, None, "cuda", ["it needs image, which did not run"]),
        (
            ImageResult(None, "no builder: install buildah"),
            None,
            "cuda",
            ["it needs image, which did not run: no builder: install buildah"],
        ),
        (
            ImageResult(IMAGE),
            None,
            "cuda",
            ["it needs image, and nobody looked inside the image sha256:111111111111: run `patchstack image-check`"],
        ),
        (
            ImageResult(IMAGE),
            OF_ANOTHER,
            "cuda",
            [
                (
                    "it needs image, and what was looked at is registry.example.com/acme/sglang@sha256:222222222222, "
                    "not the image sha256:111111111111"
                )
            ],
        ),
        (
            ImageResult(IMAGE),
            OF_ANOTHER_REPOSITORY,
            "cuda",
            [
                (
                    "it needs image, and what was looked at is registry.example.com/else@sha256:111111111111, "
                    "not the image sha256:111111111111"
                )
            ],
        ),
        (
            ImageResult(CPU_IMAGE),
            CPU_SEEN,
            "cuda",
            ["it needs the cuda image, and this night made the cpu one"],
        ),
        (ImageResult(IMAGE), SEEN, "", ["it needs image, and deploy.yaml has none for this lane: add it"]),
        (
            ImageResult(replace(IMAGE, labels=(("io.github.acme.patchstack.tree", "d" * 40),))),
            SEEN,
            "cuda",
            ["it needs image, and the image sha256:111111111111 is of tree dddddddddddd, not of aaaaaaaaaaaa"],
        ),
        (
            ImageResult(replace(IMAGE, labels=())),
            SEEN,
            "cuda",
            ["it needs image, and the image sha256:111111111111 is of tree none, not of aaaaaaaaaaaa"],
        ),
        (ImageResult(IMAGE), replace(SEEN, checks=SEEN.checks[1:]), "cuda", ["image: digest: nobody looked"]),
        (
            ImageResult(IMAGE),
            replace(SEEN, checks=(*SEEN.checks, SEEN.checks[1])),
            "cuda",
            ["image: tree: it answers twice"],
        ),
        (
            ImageResult(IMAGE),
            replace(SEEN, checks=()),
            "cuda",
            [f"image: {look.value}: nobody looked" for look in Look],
        ),
        (ImageResult(IMAGE), said(Look.TREE, GuardOutcome.MISSING), "cuda", ["image: tree: missing: words"]),
        (ImageResult(IMAGE), said(Look.TREE, GuardOutcome.QUARANTINED), "cuda", ["image: tree: quarantined: words"]),
        # A rule leaves out the packages of somebody else's image, and the request without a GPU: nothing else.
        (
            ImageResult(IMAGE),
            said(Look.TREE, GuardOutcome.SKIPPED_BY_RULE),
            "cuda",
            ["image: tree: skipped_by_rule: words"],
        ),
        (ImageResult(CPU_IMAGE), SEEN, "cpu", ["image: one request: skipped_by_rule: words"]),
    ],
)
def test_what_is_missing_keeps_back_who_needs_it_and_nobody_else(
    image: ImageResult | None, tests: ImageTests | None, runtime: str, reasons: list[str]
) -> None:
    assert verdicts(image, tests, runtime) == (
        Verdict("nightly", Status.PASS, (), NOT_NEEDED),
        Verdict("stable", Status.INCOMPLETE, tuple(reasons)),
    )


def test_what_was_seen_of_another_image_says_nothing_of_this_one() -> None:
    """Not even when it was red."""
    red = replace(said(Look.TREE, GuardOutcome.FAIL), digest=OF_ANOTHER.digest)
    assert [verdict.status for verdict in verdicts(ImageResult(IMAGE), red)] == [Status.PASS, Status.INCOMPLETE]


def test_the_image_of_somebody_else_whose_packages_nobody_knows_is_in_order() -> None:
    nightly, stable = verdicts(ImageResult(IMAGE), said(Look.PACKAGES, GuardOutcome.SKIPPED_BY_RULE))
    assert (nightly.status, stable.status) == (Status.PASS, Status.PASS)


def test_the_runtime_of_a_lane_can_be_cpu() -> None:
    nightly, stable = verdicts(ImageResult(CPU_IMAGE), CPU_SEEN, "cpu")
    assert (nightly.status, stable.status) == (Status.PASS, Status.PASS)


def test_a_red_guard_and_a_red_image_are_both_told() -> None:
    (composed, base) = GREEN_GUARDS.runs
    failed = replace(composed, results=(replace(composed.results[0], outcome=GuardOutcome.FAIL, reason="no"),))
    guards = replace(GREEN_GUARDS, runs=(failed, base))
    nightly, stable = verdicts(ImageResult(IMAGE), said(Look.IMPORTS, GuardOutcome.FAIL), guards=guards)
    assert nightly.status is stable.status is Status.FAIL
    assert nightly.reasons[:2] == stable.reasons[:2] == ("image: imports: fail: words", "t: fail: no")


def test_a_channel_that_needs_the_image_alone_is_not_kept_back_by_guards() -> None:
    empty = replace(GREEN_GUARDS, runs=())
    (only,) = judge({"images": ["image"]}, COMPOSITION, {}, empty, ImageResult(IMAGE), SEEN, "cuda").verdicts
    assert only == Verdict("images", Status.PASS, ())


def test_what_is_promoted_is_what_satisfies_who_needs_it() -> None:
    twice = replace(SEEN, checks=(*SEEN.checks, SEEN.checks[0]))
    for seen in (twice, replace(SEEN, checks=SEEN.checks[1:]), replace(SEEN, digest=f"sha256:{'2' * 64}"), None):
        nightly, stable = verdicts(ImageResult(IMAGE), seen)
        assert (nightly.status, stable.status) == (Status.PASS, Status.INCOMPLETE)
        assert image_to_promote(COMPOSITION, ImageResult(IMAGE), seen) is None
    assert image_to_promote(COMPOSITION, ImageResult(IMAGE), SEEN) == IMAGE


@pytest.mark.parametrize("look", Look)
@pytest.mark.parametrize("outcome", GuardOutcome)
def test_no_outcome_is_promoted_that_is_none_for_who_needs_it(look: Look, outcome: GuardOutcome) -> None:
    tests = said(look, outcome)
    _, stable = verdicts(ImageResult(IMAGE), tests)
    promoted = image_to_promote(COMPOSITION, ImageResult(IMAGE), tests)
    assert promoted == (IMAGE if stable.status is Status.PASS else None)


def test_an_image_of_another_tree_is_not_promoted() -> None:
    other = replace(IMAGE, labels=(("io.github.acme.patchstack.tree", BASE_TREE),))
    assert image_to_promote(COMPOSITION, ImageResult(other), SEEN) is None
    assert image_to_promote(COMPOSITION, ImageResult(None, "no builder"), None) is None
    assert image_to_promote(COMPOSITION, None, None) is None


def test_a_local_nights_image_is_promoted_though_no_channel_is_satisfied_by_it() -> None:
    local = replace(IMAGE, runtime="cpu")
    seen = said(Look.REQUEST, GuardOutcome.PASS)
    _, stable = verdicts(ImageResult(local), seen, "cuda")
    assert stable.status is Status.INCOMPLETE
    assert image_to_promote(COMPOSITION, ImageResult(local), seen) == local
