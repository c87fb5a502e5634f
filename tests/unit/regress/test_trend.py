"""How a number ends: held against the last promoted tree and against the band of earlier nights."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchstack.model import (
    Deployed,
    GuardOutcome,
    GuardReport,
    GuardResult,
    NightRecord,
    Past,
    Sample,
    Sha,
    TreeRun,
    Trend,
)
from patchstack.regress.metrics import Better, Metric
from patchstack.regress.trend import (
    BAND_NIGHTS,
    ENOUGH,
    Band,
    band_of,
    judge,
    measures_of,
    nightly_values,
    said_to_gate,
    told_by_numbers,
)

TEST = "tests/regression/bed/test_costs.py::test_it"
COST = Metric("cost", "ms", Better.LOWER, TEST, 0.1, 0.5)
SPEED = Metric("speed", "requests/s", Better.HIGHER, TEST, 0.1)
NODE = "2 x Any, 8 GiB, no GPU"
STEADY = (98.0, 99.0, 100.0, 101.0, 102.0)
"""Median 100, sigma 1.5: less than the floor of 10."""
WILD = (60.0, 80.0, 100.0, 120.0, 140.0)
"""Median 100, sigma 29.7: two of them are 59."""


def ends(value: float, peer: float | None, band: tuple[float, ...] = (), metric: Metric = COST) -> Trend:
    return judge(metric, value, peer, band_of(band))[0]


# --- the table ---


@pytest.mark.parametrize(
    ("value", "peer", "band", "trend"),
    [
        (112.0, 100.0, STEADY, Trend.FAIL),  # worse than both
        (112.0, 105.0, STEADY, Trend.WARN),  # than the band alone: the machine is slower tonight
        (105.0, 90.0, STEADY, Trend.WARN),  # than the last promoted tree alone
        (105.0, 100.0, STEADY, Trend.PASS),
        (110.0, 100.0, STEADY, Trend.PASS),  # the floor itself is allowed
        (50.0, 100.0, STEADY, Trend.PASS),  # better
        (155.0, 100.0, WILD, Trend.WARN),  # within two sigma of nights that differ
        (160.0, 100.0, WILD, Trend.FAIL),
        (1000.0, None, STEADY, Trend.WARN),  # nobody can tell the machine from the code
        (105.0, None, STEADY, Trend.PASS),
        (105.0, 100.0, STEADY[:4], Trend.INSUFFICIENT),
        (112.0, 100.0, STEADY[:4], Trend.WARN),
        (151.0, 100.0, STEADY[:4], Trend.FAIL),  # by half: no band is needed
        (150.0, 100.0, (), Trend.WARN),
        (1000.0, None, STEADY[:4], Trend.INSUFFICIENT),
        (1000.0, None, (), Trend.INSUFFICIENT),
    ],
)
def test_what_a_metric_ends_as(value: float, peer: float | None, band: tuple[float, ...], trend: Trend) -> None:
    assert ends(value, peer, band) is trend


def test_without_a_share_of_its_own_nothing_is_red_before_there_is_a_band() -> None:
    assert ends(1.0, 100.0, (), SPEED) is Trend.WARN


def test_what_is_better_higher_is_worse_lower() -> None:
    assert [ends(value, 100.0, STEADY, SPEED) for value in (88.0, 95.0, 200.0)] == [Trend.FAIL, Trend.PASS, Trend.PASS]


def test_the_spread_is_not_widened_by_one_night_that_was_out_of_the_ordinary() -> None:
    band = band_of((98.0, 99.0, 100.0, 101.0, 5000.0))
    assert (band.baseline, band.sigma) == (100.0, pytest.approx(1.4826))


def test_a_band_needs_five_nights() -> None:
    assert [band_of(STEADY[:n]).sigma is None for n in (1, 4, 5)] == [True, True, False]
    assert band_of(()) == Band(0, None, None)
    assert (ENOUGH, band_of(STEADY[:4]).holds, band_of(STEADY).holds) == (5, False, True)


def test_the_sentence_has_all_numbers() -> None:
    assert judge(COST, 112.0, 100.0, band_of(STEADY))[1] == (
        "12.0% worse than the last promoted tree (100); 12.0% worse than the median of 5 nights (100, sigma 1.5, 10 is "
        "allowed)"
    )
    assert judge(COST, 151.0, 100.0, band_of(STEADY[:1]))[1] == (
        "51.0% worse than the last promoted tree (100); 1 of 5 nights that a band of this node needs; 50% is red "
        "without one"
    )
    assert judge(COST, 0.0, 0.0, band_of(()))[1].startswith("as good as the last promoted tree (0)")


# --- what holds for all numbers ---

NUMBERS = st.floats(min_value=0.01, max_value=1e6)
BANDS = st.lists(NUMBERS, max_size=9).map(tuple)
PEERS = st.none() | NUMBERS
_RANK = {Trend.PASS: 0, Trend.INSUFFICIENT: 0, Trend.WARN: 1, Trend.FAIL: 2}


@given(NUMBERS, PEERS, BANDS, NUMBERS)
def test_a_worse_number_never_ends_better(
    value: float, peer: float | None, band: tuple[float, ...], more: float
) -> None:
    assert _RANK[ends(value + more, peer, band)] >= _RANK[ends(value, peer, band)]


@given(NUMBERS, PEERS, BANDS, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_unit_does_not_matter(value: float, peer: float | None, band: tuple[float, ...], by: float) -> None:
    scaled = ends(value * by, None if peer is None else peer * by, tuple(one * by for one in band))
    assert scaled is ends(value, peer, band)


@given(NUMBERS, PEERS, BANDS)
def test_lower_and_higher_are_each_others_mirror(value: float, peer: float | None, band: tuple[float, ...]) -> None:
    mirrored = ends(-value, None if peer is None else -peer, tuple(-one for one in band), SPEED)
    plain = Metric("cost", "ms", Better.LOWER, TEST, 0.1)
    assert mirrored is ends(value, peer, band, plain)


@given(NUMBERS, BANDS)
def test_what_is_as_good_as_the_last_promoted_tree_is_never_red(value: float, band: tuple[float, ...]) -> None:
    assert ends(value, value, band) is not Trend.FAIL


@given(NUMBERS, BANDS)
def test_without_another_tree_nothing_is_red(value: float, band: tuple[float, ...]) -> None:
    assert ends(value, None, band) is not Trend.FAIL


@given(st.lists(NUMBERS, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_nights_does_not_matter(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert band_of(values) == band_of(shuffled)
    assert band_of(values).baseline == median(values)


# --- of a night ---


def night(number: int, value: float, *, promoted: bool = True, node: str = NODE, metric: str = "cost") -> NightRecord:
    at = f"2026-11-{number:02}T02:00:00+00:00"
    return NightRecord(
        f"202611{number:02}T020000Z", at, "production", Sha("a" * 40), promoted, node, ((metric, value),), ()
    )


def past(*nights: NightRecord) -> Past:
    return Past("production", Deployed("n", Sha("c" * 40), Sha("b" * 40), Sha("d" * 40)), nights)


def said(
    *values: float, outcome: GuardOutcome = GuardOutcome.PASS, metric: str = "cost", reason: str = "", test: str = TEST
) -> GuardResult:
    samples = tuple(Sample(metric, value) for value in values)
    return GuardResult(test, "bed", True, outcome, 1.0, reason, samples=samples)


def report(*tonight: GuardResult, beside: tuple[GuardResult, ...] | None = None, node: str = NODE) -> GuardReport:
    runs = [TreeRun("base", False, Sha("0" * 40), (said(1.0),)), TreeRun("composed", True, Sha("a" * 40), tonight)]
    if beside is not None:
        runs.append(TreeRun("last promoted", False, Sha("b" * 40), beside, beside=True))
    return GuardReport("cpu", "bed", tuple(runs), (), node=node)


FIVE = past(*(night(number, 100.0) for number in range(1, 6)))


def test_the_median_of_tonights_samples_is_held_against_the_median_beside_and_the_nights() -> None:
    measures = measures_of((COST,), report(said(90.0, 120.0, 500.0), beside=(said(99.0, 101.0, 1.0),)), FIVE)
    assert measures is not None
    assert (measures.node, measures.against, measures.missing) == (NODE, Sha("b" * 40), ())
    (measure,) = measures.measures
    assert (measure.value, measure.peer, measure.n, measure.baseline) == (120.0, 99.0, 5, 100.0)
    assert (measure.sigma, measure.trend, measure.unit, measure.test) == (0.0, Trend.FAIL, "ms", TEST)


TEXTS = Metric("texts", "share of texts", Better.EQUAL, TEST, 0.1, 0.5)


@pytest.mark.parametrize(
    ("tonight", "beside", "share", "trend"),
    [
        ((7.0, 8.0, 9.0, 10.0), (7.0, 8.0, 9.0, 10.0), 1.0, Trend.PASS),
        ((7.0, 8.0, 9.0, 10.0), (7.0, 8.0, 9.0, 11.0), 0.75, Trend.WARN),
        ((7.0, 8.0, 9.0, 10.0), (8.0, 7.0, 10.0, 9.0), 0.0, Trend.FAIL),  # each at its place
        ((7.0, 8.0), (7.0, 8.0, 9.0, 10.0), 0.5, Trend.WARN),  # what is not there is not the same
    ],
)
def test_digests_are_the_same_at_their_place_or_not(
    tonight: tuple[float, ...], beside: tuple[float, ...], share: float, trend: Trend
) -> None:
    def texts(values: tuple[float, ...]) -> GuardResult:
        return replace(said(*values), samples=tuple(Sample("texts", value) for value in values))

    both = report(texts(tonight), beside=(texts(beside),))
    measures = measures_of((TEXTS,), both, FIVE)
    assert measures is not None
    (measure,) = measures.measures
    assert (measure.value, measure.peer, measure.n, measure.trend) == (share, 1.0, 0, trend)
    assert told_by_numbers((TEXTS,), measures, [texts(tonight)]) == (texts(tonight),)
    alone = measures_of((TEXTS,), report(texts(tonight)), FIVE)
    assert alone is not None
    assert (alone.measures, alone.missing) == ((), ())


def test_what_the_base_measured_is_nobodys_number() -> None:
    measures = measures_of((COST,), report(said(100.0)), FIVE)
    assert measures is not None
    assert [(measure.value, measure.peer) for measure in measures.measures] == [(100.0, None)]


def test_parameters_of_a_test_are_its_samples() -> None:
    results = (said(1.0, test=f"{TEST}[a]"), said(3.0, test=f"{TEST}[b]"), said(9.0, test=f"{TEST}_too"))
    measures = measures_of((COST,), report(*results), None)
    assert measures is not None
    assert measures.measures[0].value == 2.0


def test_only_promoted_nights_of_this_node_are_a_band() -> None:
    """A regression that is red for a week would else be the measure of the next week."""
    others = (night(6, 500.0, promoted=False), night(7, 500.0, node="8 x Any"), night(8, 500.0, metric="speed"))
    assert nightly_values("cost", past(*others, *FIVE.nights), NODE) == [100.0] * 5
    assert nightly_values("cost", None, NODE) == []


def test_the_band_is_of_the_newest_nights() -> None:
    many = past(*(night(1, float(number)) for number in range(BAND_NIGHTS + 3)))
    assert nightly_values("cost", many, NODE) == [float(number) for number in range(BAND_NIGHTS)]


def test_what_is_declared_and_was_not_measured_is_missing() -> None:
    measures = measures_of((COST, SPEED), report(said(1.0)), None)
    assert measures is not None
    assert measures.missing == (("speed", f"{TEST} passed and measured nothing"),)
    nobody = measures_of((COST,), report(), None)
    assert nobody is not None
    assert nobody.missing == (("cost", f"{TEST} did not run"),)
    assert said_to_gate(nobody).open_ends == (f"metric cost is missing: {TEST} did not run",)


@pytest.mark.parametrize(
    "outcome",
    [
        outcome
        for outcome in GuardOutcome
        if outcome is not GuardOutcome.PASS and outcome is not GuardOutcome.SKIPPED_BY_RULE
    ],
)
def test_of_a_test_that_did_not_pass_its_own_outcome_tells(outcome: GuardOutcome) -> None:
    """What it measured before it failed is no number; and of one in quarantine nothing is missing."""
    measures = measures_of((COST,), report(said(5.0, outcome=outcome)), None)
    assert measures is not None
    assert (measures.measures, measures.missing) == ((), ())


def test_a_last_promoted_tree_that_does_not_answer_is_named() -> None:
    beside = (said(5.0, outcome=GuardOutcome.CRASH, reason="ProgramEnded: server"),)
    measures = measures_of((COST,), report(said(100.0), beside=beside), FIVE)
    assert measures is not None
    (measure,) = measures.measures
    assert (measure.peer, measure.trend) == (None, Trend.PASS)
    assert measure.detail.endswith("(crash: ProgramEnded: server)")


def test_no_metric_is_no_measure() -> None:
    assert measures_of((), report(said(1.0)), FIVE) is None
    assert said_to_gate(None) == said_to_gate(measures_of((COST,), report(said(1.0)), None))


def test_the_gate_hears_what_is_red_and_what_got_worse() -> None:
    worse = measures_of((COST,), report(said(130.0), beside=(said(100.0),)), FIVE)
    off = measures_of((COST,), report(said(130.0), beside=(said(125.0),)), FIVE)
    (red,) = said_to_gate(worse).red
    assert red.startswith("metric cost: 130 ms: 30.0% worse than the last promoted tree (100)")
    assert red.endswith(f"({TEST})")
    assert (said_to_gate(worse).warnings, said_to_gate(off).red) == ((), ())
    assert len(said_to_gate(off).warnings) == 1


def test_who_looks_for_the_culprit_hears_a_number_as_a_failure() -> None:
    tonight = measures_of((COST,), report(said(130.0), beside=(said(100.0),)), FIVE)
    assert tonight is not None
    other = said(1.0, test="tests/regression/bed/test_costs.py::test_other")
    bad, good, crashed = said(128.0), said(101.0), said(128.0, outcome=GuardOutcome.CRASH)
    outcomes = [
        [result.outcome.value for result in told_by_numbers((COST,), tonight, (result, other))]
        for result in (bad, good, crashed)
    ]
    assert outcomes == [["fail", "pass"], ["pass", "pass"], ["crash", "pass"]]
    (failed, _) = told_by_numbers((COST,), tonight, (bad, other))
    assert failed.reason.startswith("cost: 128 ms: 28.0% worse than the last promoted tree")


def test_only_what_is_red_is_a_failure_and_only_of_what_passed() -> None:
    off = measures_of((COST,), report(said(130.0), beside=(said(125.0),)), FIVE)
    assert [one.outcome.value for one in told_by_numbers((COST,), off, (said(130.0),))] == ["pass"]
    assert [one.outcome.value for one in told_by_numbers((COST,), None, (said(130.0),))] == ["pass"]
    tonight = measures_of((COST,), report(said(130.0), beside=(said(100.0),)), FIVE)
    both = (said(test=f"{TEST}[a]", outcome=GuardOutcome.CRASH), said(130.0, test=f"{TEST}[b]"))
    assert [one.outcome.value for one in told_by_numbers((COST,), tonight, both)] == ["crash", "fail"]
