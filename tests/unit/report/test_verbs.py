"""What each verb shows, whole."""

from __future__ import annotations

from dataclasses import replace

from patchstack.model import GuardOutcome, GuardReport, MergePlan, TreeRun, Verdicts
from patchstack.release.status import ChannelStatus, ImageTagStatus, LastRun, StatusReport
from patchstack.release.tags import TagFault
from patchstack.report.terminal import (
    render_composition,
    render_guards,
    render_plan,
    render_promotion,
    render_proof,
    render_status,
)

from . import fixed_lanes
from . import fixed_night as night


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def test_plan() -> None:
    plan = MergePlan("production", night.BASE, night.TOPICS[:1], night.LEFT_OUT[3:4], night.COMPOSITION.fingerprint)

    assert _lines(render_plan(plan, "20261121T020000Z")) == [
        "Plan of run 20261121T020000Z, lane production",
        "Base sglang==0.5.12.post1, commit bbbbbbbbbbbb, tree cccccccccccc.",
        "1 patch and 0 pull requests to merge, fingerprint ffffffffffff.",
        "",
        "Included",
        "  Topic          Title                                        Author                   Head          Notes",
        "  ib-device-map  pd: rail map for --disaggregation-ib-device  Acme SGLang maintainers  111111111111",
        "",
        "Excluded",
        "  These are not in the night, and their authors have something to do.",
        "  - #46 title of #46: head is missing. The remote has no such head.",
    ]


def test_composition_of_nothing() -> None:
    composition = replace(night.COMPOSITION, included=(), left_out=())

    assert _lines(render_composition(composition, "r")) == [
        "Composition of run r, lane production",
        "Base sglang==0.5.12.post1, commit bbbbbbbbbbbb, tree cccccccccccc.",
        "Composed 0 patches and 0 pull requests into commit dddddddddddd, tree eeeeeeeeeeee, fingerprint ffffffffffff.",
        "",
        "Included",
        "  Nothing is included: the composed tree is the base's.",
    ]


def test_guards_show_both_trees() -> None:
    assert _lines(render_guards(night.TESTS, Verdicts(night.VERDICTS))) == [
        "Guards, lane cpu",
        "",
        "Proofs",
        "  Patch             Standing  Compared with         Why",
        "  zmq-locked-sends  proven    base + ib-device-map  1 guards fail without it and pass with it",
        "",
        "Guards",
        "  Test bed cpu-3f2a.",
        "  On composed (tree eeeeeeeeeeee): 2 pass in 1.8 s.",
        (
            "  On base + ib-device-map (tree 999999999999): 1 fail, 1 pass in 1.8 s; "
            "kept from an earlier run with equal inputs."
        ),
        (
            "  Test                                                             Kind     composed  without it  "
            "compared with"
        ),
        (
            "  tests/regression/zmq_locked_sends/test_zmq.py::test_two_threads  guard    pass      fail        "
            "base + ib-device-map"
        ),
        (
            "  tests/regression/zmq_locked_sends/test_zmq.py::test_one_thread   control  pass      pass        "
            "base + ib-device-map"
        ),
        "",
        "Not run here",
        "  1 scenario skipped by rule: lane cpu never runs them.",
        "  - tests/regression/gpu/test_pd.py::test_pair needs 1-gpu",
        "",
        "Channels",
        "  - nightly PASS (skipped by rule: image: nightly does not need it)",
        "  - stable INCOMPLETE: it needs image, which did not run",
    ]


def test_a_proof_of_one_patch() -> None:
    """Its one guard kills a mutant, and is not on the ground; its control is."""
    killer = replace(night.KILLER, test=night.GUARD.test)
    (proof,) = night.TESTS.proofs
    report = GuardReport(
        "cpu",
        "cpu-3f2a",
        (
            TreeRun(
                "base + zmq-locked-sends",
                True,
                night.sha("e"),
                (replace(killer, outcome=GuardOutcome.PASS), night.CONTROL),
            ),
            TreeRun("base", False, night.sha("9"), (night.CONTROL,), kept=True),
            replace(night.MUTANTS[0], results=(killer,), kept=False),
        ),
        (replace(proof, ground="base", detail="1 guards kill 1 mutants"),),
    )
    assert _lines(render_proof(report)) == [
        "Patch zmq-locked-sends on base: proven",
        "1 guards kill 1 mutants.",
        "",
        "Mutants",
        "  1 of 1 mutant killed in 1.2 s.",
        "  Mutant                    Outcome  Killed by",
        "  zmq-locked-sends/no-lock  killed   tests/regression/zmq_locked_sends/test_zmq.py::test_two_threads",
        "",
        "Guards",
        "  Test bed cpu-3f2a.",
        "  On base + zmq-locked-sends (tree eeeeeeeeeeee): 2 pass in 1.8 s.",
        "  On base (tree 999999999999): 1 pass in 0.5 s; kept from an earlier run with equal inputs.",
        (
            "  Test                                                             Kind           "
            "base + zmq-locked-sends  without it  compared with"
        ),
        ("  tests/regression/zmq_locked_sends/test_zmq.py::test_two_threads  kills no-lock  pass"),
        (
            "  tests/regression/zmq_locked_sends/test_zmq.py::test_one_thread   control        "
            "pass                     pass        base"
        ),
    ]


def test_a_control_that_is_red_on_the_base_is_told() -> None:
    bad = replace(night.CONTROL, outcome=night.GuardOutcome.CRASH, reason="ImportError: no torch")
    report = replace(night.TESTS, runs=(night.TESTS.runs[0], replace(night.TESTS.runs[1], results=(bad,))))

    assert (
        "  - tests/regression/zmq_locked_sends/test_zmq.py::test_one_thread on base + ib-device-map: "
        "crash: ImportError: no torch"
    ) in _lines(render_guards(report, Verdicts(())))


def test_promotion() -> None:
    refs = [
        "Dated tag: nightly-20261121-eeeeeee.",
        "",
        "Refs",
        "  Ref                                 Moves to",
        "  refs/heads/deploy                   aaaaaaaaaaaa",
        "  refs/tags/nightly-20261121-eeeeeee  aaaaaaaaaaaa",
    ]
    assert _lines(render_promotion(night.PROMOTION, dry_run=False)) == [
        "Promotion, lane production",
        "Moved deploy from 777777777777 to aaaaaaaaaaaa.",
        *refs,
    ]
    assert _lines(render_promotion(replace(night.PROMOTION, previous=None), dry_run=True)) == [
        "Promotion, lane production",
        "Would move deploy for the first time to aaaaaaaaaaaa. Nothing was written.",
        *refs,
    ]


EMPTY = StatusReport(
    lane="production",
    branch="deploy",
    remote="",
    tip=None,
    night=None,
    night_commit=None,
    age_s=None,
    nights=0,
    foreign_on_top=0,
    channels=(ChannelStatus("nightly", None, None, False, ()),),
    tags_missing=(),
    tags_elsewhere=(),
    last_run=None,
)


def test_status_before_the_first_night() -> None:
    assert _lines(render_status(EMPTY)) == [
        "Status, lane production",
        "No night was ever promoted to deploy yet; `make nightly` makes the first.",
    ]
    assert _lines(render_status(replace(EMPTY, remote="file:///r", foreign_on_top=2))) == [
        "Status, lane production",
        "No night was ever promoted to deploy on file:///r; `make nightly` makes the first.",
        "2 commits on top of deploy came from no promotion; the next night goes on from there.",
    ]


def test_status_of_a_night() -> None:
    status = replace(
        EMPTY,
        remote="file:///r",
        tip=night.sha("a"),
        night=night.LINE,
        night_commit=night.sha("a"),
        age_s=7500,
        nights=2,
        foreign_on_top=1,
        channels=(
            ChannelStatus("nightly", "20261121T020000Z", night.LINE.tag, True, ()),
            ChannelStatus("stable", "20261120T020000Z", night.PREVIOUS.tag, False, ("it needs image",)),
            ChannelStatus("canary", None, None, False, ()),
        ),
        tags_missing=("nightly-20261121-eeeeeee",),
        tags_elsewhere=(TagFault("nightly-20261120-9999999", night.sha("7"), night.sha("0")),),
        last_run=LastRun("20261122T020000Z", night.Status.FAIL, False, "the gate says FAIL", 1, fixed_lanes.LANES),
    )

    assert _lines(render_status(status)) == [
        "Status, lane production",
        "deploy holds night 20261121T020000Z, promoted 2 h 5 min ago at 2026-11-21T02:00:00Z.",
        "Tip aaaaaaaaaaaa, tree eeeeeeeeeeee, base sglang==0.5.12.post1.",
        "Included: ib-device-map, zmq-locked-sends, #41.",
        (
            "Left out: #43 (conflict), #44 (contained), #45 (no effect on the base), #46 (head is missing), "
            "pd-transfer-parking (optional and not switched on)."
        ),
        "Remote: file:///r",
        "1 commit on top of deploy came from no promotion; the next night goes on from there.",
        "Last run on this machine: 20261122T020000Z FAIL: the gate says FAIL",
        "",
        "Channels",
        "  - nightly moved with this night",
        "  - stable stays at night 20261120T020000Z nightly-20261120-9999999: it needs image",
        "  - canary never moved: no reason is kept on this machine; the night's report has it",
        "",
        "Other lanes",
        "  - 1-gpu: 1 pass, 1 fail, 1 flaky on 1 x NVIDIA H200, 140 GiB (slurm)",
        "  - 2-gpu: 1 missing on unknown hardware (local)",
        "  - 4-gpu: 1 pass, 1 fail, rehearsed on a CPU, never run on a GPU (local)",
        "",
        "Tags",
        "  - nightly-20261121-eeeeeee missing; the next night makes it",
        "  - nightly-20261120-9999999 elsewhere at 000000000000, not at 777777777777; never moved",
    ]


OF_A_NIGHT = replace(EMPTY, tip=night.sha("a"), night=night.LINE, night_commit=night.sha("a"), age_s=60, nights=2)


def test_status_of_images() -> None:
    imaged = replace(OF_A_NIGHT, night=replace(night.LINE, image=night.LEDGER_IMAGE), image_night=night.LINE.night)
    named = f"{night.IMAGE.repository}@{night.IMAGE.digest}"
    assert f"Image {named}, tag nightly-20261121-eeeeeee." in _lines(render_status(imaged))
    assert "Tags" not in _lines(render_status(imaged))

    lagging = replace(
        imaged,
        image_tags_lag=(
            ImageTagStatus("nightly", night.IMAGE.digest, night.IMAGE.dependencies),
            ImageTagStatus("stable", night.IMAGE.digest, None),
        ),
        registry_problem="registry.example.com did not answer",
    )
    follows = "the ledger says sha256:aaaaaaaaaaaa; the next night moves it"
    assert _lines(render_status(lagging))[-4:] == [
        "Tags",
        f"  - image tag nightly lags: at sha256:bbbbbbbbbbbb, {follows}",
        f"  - image tag stable lags: absent, {follows}",
        "  - registry could not be asked where the image tags are: registry.example.com did not answer",
    ]


def test_status_of_a_night_without_an_image() -> None:
    never = _lines(render_status(OF_A_NIGHT))
    assert not [line for line in never if "image" in line]

    older = _lines(render_status(replace(OF_A_NIGHT, image_night="20261120T020000Z")))
    assert "The night has no image; the newest image is that of night 20261120T020000Z." in older
