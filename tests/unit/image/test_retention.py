"""What may go from a repository, and what never."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from patchstack.errors import ImageError
from patchstack.image.names import PromotedImage, dependency_tag, immutable_tag, moving_tags, statement_tag
from patchstack.image.retention import Holding, Needed, Retirement, follows_ledger, night_of, retire
from patchstack.model import LedgerImage

TODAY = date(2026, 11, 21)
KEEP_DAYS = 14
LANES = ("production", "edge")


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def night(days: int, number: int, lane: str = "production", runtime: str = "cuda") -> str:
    """The tag of an image that is so many days old."""
    return immutable_tag(lane, runtime, TODAY - timedelta(days=days), f"{number:040x}"[::-1], digest(number), {})


DEPS_OLD, DEPS_NOW = dependency_tag("cuda", "1" * 64), dependency_tag("cuda", "2" * 64)
NOTHING = Needed((), (), ())


def gone(holding: Holding, needed: Needed = NOTHING, lane: str = "production") -> Retirement:
    return retire(holding, needed, lane=lane, lanes=LANES, today=TODAY, keep_days=KEEP_DAYS)


def names(retirement: Retirement) -> list[str]:
    return [tag for item in retirement.all for tag in item.tags]


# --- images ---


def test_an_image_goes_when_it_is_older_than_it_is_kept_and_its_statement_before_it() -> None:
    old, young = night(15, 1), night(14, 2)
    holding = Holding(
        {
            old: digest(1),
            young: digest(2),
            statement_tag(digest(1)): digest(11),
            statement_tag(digest(2)): digest(12),
        },
        {},
    )
    assert names(gone(holding)) == [statement_tag(digest(1)), old]
    assert gone(holding).images[0].why == "of 2026-11-06, and never promoted"
    assert gone(holding).statements[0].why == f"the statement on {old}"


def test_what_was_promoted_stays() -> None:
    holding = Holding({night(900, 1): digest(1)}, {})
    assert gone(holding, replace(NOTHING, promoted=[digest(1)])) == Retirement((), (), ())


@pytest.mark.parametrize("name", ["v1", "pinned-by-ann", "nightly-2026", "nightly-20261399-abcdef0", "nightly-x"])
def test_whatever_has_a_name_of_somebodys_own_stays(name: str) -> None:
    assert gone(Holding({night(900, 1): digest(1), name: digest(1)}, {})) == Retirement((), (), ())


def test_an_image_of_two_nights_is_as_young_as_its_youngest_name() -> None:
    both = {night(900, 1): digest(1), night(3, 1): digest(1)}
    assert gone(Holding(both, {})) == Retirement((), (), ())
    older = {night(900, 1): digest(1), night(20, 1): digest(1), f"{night(20, 1)}-2": digest(1)}
    assert sorted(names(gone(Holding(older, {})))) == sorted(older)


def test_a_lane_clears_away_its_own_images_alone() -> None:
    holding = Holding(
        {
            night(900, 1): digest(1),
            night(900, 2, runtime="cpu"): digest(2),
            night(900, 3, lane="edge"): digest(3),
            night(900, 4, lane="edge", runtime="cpu"): digest(4),
            night(900, 5, lane="gone"): digest(5),
        },
        {},
    )
    assert sorted(names(gone(holding))) == [night(900, 2, runtime="cpu"), night(900, 1)]
    assert names(gone(holding, lane="edge")) == [
        night(900, 4, lane="edge", runtime="cpu"),
        night(900, 3, lane="edge"),
    ]


def test_a_statement_with_another_name_stays() -> None:
    holding = Holding({night(15, 1): digest(1), statement_tag(digest(1)): digest(11), "audit": digest(11)}, {})
    assert names(gone(holding)) == [night(15, 1)]


# --- dependencies ---


def test_dependencies_go_with_the_last_image_that_was_made_on_them() -> None:
    tags = {DEPS_OLD: digest(7), DEPS_NOW: digest(8), night(15, 1): digest(1)}
    holding = Holding(tags, {digest(1): digest(7)})
    assert names(gone(holding, replace(NOTHING, recipes=[DEPS_NOW]))) == [night(15, 1), DEPS_OLD]


@pytest.mark.parametrize(
    "holding",
    [
        Holding({DEPS_OLD: digest(7), night(3, 1): digest(1)}, {digest(1): digest(7)}),
        Holding({DEPS_OLD: digest(7), "pinned": digest(1)}, {digest(1): digest(7)}),
        Holding({DEPS_OLD: digest(7), "keep": digest(7)}, {}),
        Holding({DEPS_OLD: digest(7), "an-index": digest(9)}, {}, unread=("an-index",)),
    ],
    ids=["a young image", "somebody's image", "a name of its own", "an image that cannot be read"],
)
def test_dependencies_stay_while_something_needs_them(holding: Holding) -> None:
    assert gone(holding) == Retirement((), (), ())


def test_dependencies_of_the_ledger_and_of_tonight_stay() -> None:
    holding = Holding({DEPS_OLD: digest(7), DEPS_NOW: digest(8)}, {})
    assert names(gone(holding, Needed((), [digest(7)], [DEPS_NOW]))) == []
    assert names(gone(holding, Needed((), [], [DEPS_NOW]))) == [DEPS_OLD]


# --- a ledger that is not whole ---


@pytest.mark.parametrize("tag", ["nightly", "stable", "previous", "cpu-latest", "edge-nightly"])
def test_a_moving_tag_that_the_ledger_does_not_know_stops_it(tag: str) -> None:
    holding = Holding({night(900, 1): digest(1), tag: digest(2)}, {})
    with pytest.raises(ImageError, match=f"tag {tag} is {digest(2)}, an image that the ledger does not name"):
        gone(holding)


def test_every_moving_tag_is_known() -> None:
    images = [
        LedgerImage("r", digest(number), "t", runtime, "1" * 64, digest(9))
        for number, runtime in enumerate(["cuda", "cuda", "cpu", "cpu"])
    ]
    for lane in LANES:
        made = moving_tags(lane, [PromotedImage(("nightly", "stable"), image) for image in images])
        assert set(made) == set(follows_ledger(lane))


# --- whatever a repository holds ---

DIGESTS = st.integers(0, 9).map(digest)
NAMES = st.one_of(
    st.builds(
        night,
        st.integers(0, 40),
        st.integers(0, 9),
        st.sampled_from([*LANES, "gone"]),
        st.sampled_from(["cuda", "cpu"]),
    ),
    st.sampled_from([tag for lane in LANES for tag in follows_ledger(lane)]),
    st.sampled_from([DEPS_OLD, DEPS_NOW, "v1", "mine"]),
    st.builds(statement_tag, DIGESTS),
)


@given(
    st.dictionaries(NAMES, DIGESTS, max_size=12),
    st.dictionaries(DIGESTS, DIGESTS),
    st.frozensets(DIGESTS, max_size=3),
    st.frozensets(DIGESTS, max_size=2),
)
def test_nothing_that_is_needed_ever_goes(
    tags: dict[str, str], made_on: dict[str, str], promoted: frozenset[str], promoted_on: frozenset[str]
) -> None:
    moving = {tag for lane in LANES for tag in follows_ledger(lane)}
    assume(all(tags[tag] in promoted for tag in moving & tags.keys()))
    found = gone(Holding(tags, made_on), Needed(promoted, promoted_on, [DEPS_NOW]))

    went = {item.digest for item in found.all}
    left = {tag: held for tag, held in tags.items() if held not in went}
    assert not went & promoted
    assert all(tag in left for tag in moving & tags.keys())
    assert all(tag in left for tag in ("v1", "mine", DEPS_NOW) if tag in tags)
    for tag in tags:
        day = night_of("production", tag)
        if day is not None and day >= TODAY - timedelta(days=KEEP_DAYS):
            assert tag in left
    needed = {made_on.get(held) for tag, held in left.items()}
    assert not {item.digest for item in found.dependencies} & (needed | promoted_on)
    # And what went can be told: each is named by all its tags.
    assert all({*item.tags} == {tag for tag, held in tags.items() if held == item.digest} for item in found.all)
