"""The order of the questions, and what follows: small nights, told whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from patchstack.culprits import Ask, Certainty, Target
from patchstack.regress.blame import AT_ONCE, decide
from patchstack.regress.evidence import LAST, TONIGHT
from patchstack.regress.question import Answer, End, Question, Red, Wanted
from patchstack.results import GuardOutcome

from .oracle import BASE, CRASH, FAIL, MISSING, PASS, TIMEOUT, Guard, Played, World, names, patch, play, pull, pulls

CONFIRMED, NARROWED, FLAKY, INFRA = Certainty.CONFIRMED, Certainty.NARROWED, Certainty.FLAKY, Certainty.INFRA
TEST = Guard().test


def by(*causes: str) -> Guard:
    """A guard that fails where all of one of ``"#1 #2"`` are there."""
    return Guard(causes=tuple(frozenset(cause.split()) for cause in causes))


def asked(played: Played, world: World) -> list[str]:
    """``runs x what is there``, probe by probe."""
    told = []
    for wanted in played.wanted:
        there = " ".join(item.name for item in world.items if item.name not in wanted.target.without)
        told.append(f"{wanted.times} x {'last' if wanted.target == LAST else there or 'nothing'}")
    return told


def found(played: Played) -> list[tuple[Certainty, tuple[str, ...]]]:
    return [(finding.certainty, names(finding)) for finding in played.findings]


def test_one_culprit_among_four() -> None:
    world = World(pulls(4), (by("#3"),))
    played = play(world)
    assert asked(played, world) == [
        "2 x #1 #2 #3 #4",  # again
        "2 x last",
        "2 x nothing",
        "1 x #1 #2",  # halving
        "1 x #1 #2 #3",
        "2 x #3",  # alone
        "2 x #1 #2 #4",  # without
        "2 x #1 #2 #3 #4",  # again, for it must be no chance
    ]
    [finding] = played.findings
    assert (finding.certainty, names(finding), finding.tests) == (CONFIRMED, ("#3",), (TEST,))
    assert finding.detail == "it fails with #3, and passes without"
    assert finding.probes == (1, 2, 3, 4, 5, 6, 7, 8)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("number", range(1, 6))
def test_who_is_guilty_has_failed_six_times_and_is_missing_where_it_passed_six_times(
    number: int, *, last: bool
) -> None:
    world = World(pulls(5), (by(f"#{number}"),), last=last)
    played = play(world)
    assert played.confirmed == [(f"#{number}",)]
    runs = {PASS: 0, FAIL: 0}
    for wanted, answer in zip(played.wanted, played.answers, strict=True):
        if wanted.why != "which half it is in":
            for outcome in answer.outcomes[0][1]:
                runs[outcome] += 1
    assert runs == {PASS: 6, FAIL: 6}


def test_a_pair_that_fails_only_together_is_told_in_merge_order() -> None:
    played = play(World(pulls(16), (by("#11 #4"),)))
    assert "whether it passes without #11" in [wanted.why for wanted in played.wanted]
    [finding] = played.findings
    assert (finding.certainty, names(finding)) == (CONFIRMED, ("#4", "#11"))
    assert finding.detail == "it fails with #4 and #11 together, and not with fewer of them, and passes without"


def test_three_that_fail_only_together() -> None:
    assert play(World(pulls(16), (by("#16 #1 #7"),))).confirmed == [("#1", "#7", "#16")]


def test_two_culprits_of_one_guard_have_a_finding_each() -> None:
    assert found(play(World(pulls(16), (by("#5", "#12"),)))) == [(CONFIRMED, ("#5",)), (CONFIRMED, ("#12",))]


def test_a_culprit_beside_a_pair() -> None:
    assert play(World(pulls(9), (by("#2 #9", "#5"),))).confirmed == [("#5",), ("#2", "#9")]


def test_two_culprits_of_two_guards_and_one_flaky() -> None:
    world = World(
        pulls(16),
        (
            replace(by("#5"), test="a.py::test_a"),
            replace(by("#12"), test="b.py::test_b"),
            Guard("c.py::test_c", flakes=0.5),
        ),
    )
    question = Question(tuple(Red(guard.test, FAIL) for guard in world.guards), world.items, BASE)
    assert {finding.tests: (finding.certainty, names(finding)) for finding in play(world, question).findings} == {
        ("a.py::test_a",): (CONFIRMED, ("#5",)),
        ("b.py::test_b",): (CONFIRMED, ("#12",)),
        ("c.py::test_c",): (FLAKY, ()),
    }


def test_guards_with_one_culprit_make_one_finding_of_the_same_probes() -> None:
    one, two = replace(by("#2"), test="a.py::test_a"), replace(by("#2"), test="a.py::test_b", red=TIMEOUT)
    alone, both = play(World(pulls(4), (one,))), play(World(pulls(4), (one, two)))
    assert [finding.tests for finding in both.findings] == [("a.py::test_a", "a.py::test_b")]
    assert [wanted.target for wanted in both.wanted] == [wanted.target for wanted in alone.wanted]


def test_who_breaks_all_is_found_by_some_of_the_guards_the_first_of_each_file() -> None:
    guards = tuple(replace(by("#2"), test=f"{file}.py::test_{number}") for file in "abcde" for number in range(4))
    played = play(World(pulls(4), guards))
    first, rest = played.findings
    assert {len(wanted.tests) for wanted in played.wanted} == {AT_ONCE}
    assert set("abcde") == {test[0] for test in first.tests}
    assert (first.certainty, names(first)) == (CONFIRMED, ("#2",))
    assert (rest.certainty, names(rest)) == (NARROWED, ("#2",))
    assert rest.detail == "it was not asked for itself: others have found these guilty"
    assert len(first.tests) + len(rest.tests) == 20


def test_guards_beyond_the_first_are_asked_when_those_have_no_culprit() -> None:
    flaky = tuple(Guard(f"{number}.py::test_it", flakes=0.5) for number in range(AT_ONCE))
    world = World(pulls(4), (*flaky, replace(by("#2"), test="z.py::test_it")))
    question = Question(tuple(Red(guard.test, FAIL) for guard in world.guards), world.items, BASE)
    assert play(world, question).confirmed == [("#2",)]


# --- nobody is blamed ----------------------------------------------------------------------------------


def test_what_passes_once_on_the_same_tree_is_flaky() -> None:
    world = World(pulls(4), (by("#3"),))
    for runs in ((FAIL, PASS), (PASS,), (GuardOutcome.FLAKY,)):
        [finding] = _decide(world, Answer(TONIGHT, (TEST,), ((TEST, runs),)))
        assert (finding.certainty, finding.suspects) == (FLAKY, ())


def test_what_fails_on_the_last_promoted_tree_is_the_machine_or_the_guard() -> None:
    played = play(World(pulls(4), (by("#3"),), broken_from=0))
    assert found(played) == [(INFRA, ())]
    assert [wanted.target for wanted in played.wanted] == [TONIGHT, LAST, TONIGHT]
    assert "last promoted tree as well" in played.findings[0].detail


def test_any_red_on_the_last_promoted_tree_counts() -> None:
    world = World(pulls(4), (by("#3"),))
    again = Answer(TONIGHT, (TEST,), ((TEST, (FAIL,) * 8),))
    [finding] = _decide(world, again, Answer(LAST, (TEST,), ((TEST, (CRASH, TIMEOUT)),)))
    assert finding.certainty is INFRA


@pytest.mark.parametrize("moment", range(1, 9))
def test_a_machine_that_breaks_in_between_gets_nobody_blamed(moment: int) -> None:
    [finding] = play(World(pulls(4), (by("#3"),), broken_from=moment)).findings
    late = moment == 8  # only the tree that fails anyhow was asked after it
    assert finding.certainty is (CONFIRMED if late else INFRA)


@pytest.mark.parametrize("moment", range(1, 8))
def test_a_machine_that_breaks_has_not_as_many_culprits_as_are_tried(moment: int) -> None:
    [finding] = play(World(pulls(7), (by("#1"),), broken_from=moment)).findings
    assert (finding.certainty, finding.suspects) == (INFRA, ())


def test_a_guard_that_fails_no_more_has_no_partner_sought_for() -> None:
    world = World(pulls(8), (Guard(flakes=0.0),))
    question = Question((Red(TEST, FAIL),), world.items, BASE)
    again = Answer(TONIGHT, (TEST,), ((TEST, (FAIL, FAIL)),))
    answers = [again]
    while isinstance(step := decide(question, tuple(answers)), Wanted):
        answers.append(world.answer(step, len(answers)))
    assert [(finding.certainty, finding.suspects) for finding in step] == [(FLAKY, ())]
    assert len(answers) == 8  # again, last, nothing, three of a halving, alone, and again


def test_a_machine_that_dies_is_asked_once_more() -> None:
    played = play(World(pulls(4), (by("#3"),), dead_from=4))
    assert found(played) == [(INFRA, ())]
    assert [answer.end for answer in played.answers] == [End.RAN, End.RAN, End.RAN, End.DIED, End.DIED]


def test_a_machine_that_has_died_once_is_forgiven() -> None:
    world = World(pulls(1), (by("#1"),))
    died = Answer(TONIGHT, (TEST,), end=End.DIED)
    missing = Answer(TONIGHT, (TEST,), ((TEST, (MISSING,)),))
    ran = Answer(TONIGHT, (TEST,), ((TEST, (FAIL, FAIL)),))
    for silent in (died, missing, Answer(TONIGHT, (TEST,))):
        again = decide(world.question(), (silent,))
        assert isinstance(again, Wanted)
        assert again.target == TONIGHT
        assert decide(world.question(), (silent, ran)) == decide(world.question(), (ran,))
        assert isinstance(decide(world.question(), (silent, ran, silent)), Wanted)
        [finding] = _decide(world, silent, silent)
        assert finding.certainty is INFRA


def test_a_guard_that_is_not_asked_any_more_is_not_dead() -> None:
    world = World(pulls(1), (replace(by("#1"), test="a.py::test_a"), replace(by("#1"), test="b.py::test_b")))
    flaky = Answer(TONIGHT, ("a.py::test_a", "b.py::test_b"), (("a.py::test_a", (PASS,)), ("b.py::test_b", (FAIL,))))
    died = Answer(TONIGHT, ("b.py::test_b",), end=End.DIED)
    first, second = _decide(world, flaky, died, died)
    assert (first.certainty, first.tests) == (FLAKY, ("a.py::test_a",))
    assert (second.certainty, second.tests) == (INFRA, ("b.py::test_b",))
    assert (first.probes, second.probes) == ((1,), (1, 2, 3))


def test_a_culprit_of_a_guard_that_is_flaky_besides_is_no_flaky_guard() -> None:
    """It would be promoted for it."""
    world = World(pulls(4), (by("#3"),))
    again = Answer(TONIGHT, (TEST,), ((TEST, (FAIL, FAIL)),))
    last = Answer(LAST, (TEST,), ((TEST, (PASS, FAIL)),))
    ever = decide(world.question(), (again, last))
    assert (ever.target, ever.times) == (TONIGHT, 6)
    tried = Answer(TONIGHT, (TEST,), ((TEST, (FAIL,) * 6),))
    sound = decide(world.question(), (again, last, tried))
    assert (sound.target, sound.times) == (LAST, 2)
    for runs in ((PASS, PASS), (PASS, FAIL)):
        [finding] = _decide(world, again, last, tried, Answer(LAST, (TEST,), ((TEST, runs),)))
        assert (finding.certainty, finding.suspects) == (NARROWED, ())
    [finding] = _decide(world, again, last, tried, Answer(LAST, (TEST,), ((TEST, (FAIL, FAIL)),)))
    assert finding.certainty is INFRA


# --- the base, and what is not there any more ----------------------------------------------------------


def test_the_base_is_guilty_where_it_fails_without_all_else() -> None:
    played = play(World(pulls(4), (by(BASE.name),), base_changed=True))
    assert found(played) == [(CONFIRMED, (BASE.name,))]
    assert {wanted.target.ask for wanted in played.wanted} == {Ask.TONIGHT, Ask.LAST}


def test_who_does_not_go_with_the_new_base_is_guilty() -> None:
    assert play(World(pulls(4), (by(f"{BASE.name} #2"),), base_changed=True)).confirmed == [("#2",)]


def test_what_was_removed_is_among_the_suspects_and_so_is_the_base() -> None:
    world = World(pulls(4), (by("#90"),), removed=("#90",))
    assert found(play(world)) == [(NARROWED, ("#90",))]
    world.base_changed = True
    assert found(play(world)) == [(NARROWED, ("#90", BASE.name))]


def test_without_a_last_promoted_night_the_base_is_suspected_and_a_pull_request_is_guilty() -> None:
    assert found(play(World(pulls(4), (by(BASE.name),), last=False))) == [(NARROWED, (BASE.name,))]
    played = play(World(pulls(4), (by("#2"),), last=False))
    assert played.confirmed == [("#2",)]
    assert LAST not in {wanted.target for wanted in played.wanted}


def test_where_nothing_changed_nobody_is_suspected() -> None:
    world = World((), (Guard(flakes=1.0),))
    always = Answer(TONIGHT, (TEST,), ((TEST, (FAIL,) * 8),))
    passes = Answer(LAST, (TEST,), ((TEST, (PASS, PASS)),))
    [finding] = _decide(world, always, passes)
    assert (finding.certainty, finding.suspects) == (NARROWED, ())
    assert finding.detail == "it fails without all that changed"


# --- closed sets, patches, what does not compose -------------------------------------------------------


def test_who_carries_anothers_commits_goes_out_with_it() -> None:
    items = (pull(1), pull(2, 4), pull(3), pull(4, 3))  # 3 carries 4's commits, and 4 carries 2's
    world = World(items, (by("#2"),))
    played = play(world)
    assert played.confirmed == [("#2",)]
    for wanted in played.wanted:
        out = wanted.target.without
        assert out & {"#2", "#3", "#4"} in ({*()}, {"#3"}, {"#3", "#4"}, {"#2", "#3", "#4"})
    assert Target(Ask.TONIGHT, frozenset({"#2", "#3", "#4"})) in {wanted.target for wanted in played.wanted}


def test_a_carrier_that_is_no_item_goes_out_too() -> None:
    played = play(World((pull(1, 77), pull(2)), (by("#1"),)))
    assert played.confirmed == [("#1",)]
    assert Target(Ask.TONIGHT, frozenset({"#1", "#77"})) in {wanted.target for wanted in played.wanted}


def test_two_that_carry_each_other_cannot_be_told_apart() -> None:
    assert found(play(World((pull(1, 2), pull(2, 1), pull(3)), (by("#2"),)))) == [(NARROWED, ("#1", "#2"))]


def test_a_new_patch_stays_for_its_own_guard_and_can_be_suspected() -> None:
    items = (patch("needed"), patch("mine"), pull(1), pull(2))
    guard = replace(by("#2"), context=("needed", "mine"))
    played = play(World(items, (guard,)))
    assert played.confirmed == [("#2",)]
    assert not any({"needed", "mine"} & wanted.target.without for wanted in played.wanted)
    assert LAST not in {wanted.target for wanted in played.wanted}  # it fails there: its patch is not there yet
    assert found(play(World(items, (replace(guard, causes=(frozenset({"mine"}),)),)))) == [
        (NARROWED, ("needed", "mine"))
    ]


def test_what_a_staying_patch_stands_on_stays_too() -> None:
    items = (patch("needed", "mine"), patch("mine"), pull(1), pull(2))
    played = play(World(items, (replace(by("#2"), context=("mine",)),)))
    assert played.confirmed == [("#2",)]
    assert not any("needed" in wanted.target.without for wanted in played.wanted)


def test_a_guard_is_not_asked_where_its_patch_is_not_there() -> None:
    one = replace(by("#2"), test="a.py::test_a")
    mine = replace(by("#2"), test="b.py::test_b", context=("mine",))
    played = play(World((patch("mine"), pull(1), pull(2)), (one, mine)))
    assert {finding.tests for finding in played.findings} == {(one.test, mine.test)}
    for wanted in played.wanted:
        assert mine.test not in wanted.tests or "mine" not in wanted.target.without


def test_a_new_patch_may_go_out_for_the_guard_of_another() -> None:
    assert play(World((patch("mine"), pull(1), pull(2)), (by("mine"),))).confirmed == [("mine",)]


def test_the_older_version_in_its_place_tells_whether_a_changed_patch_is_guilty() -> None:
    items = (patch("mine", old=True), pull(1), pull(2))
    guard = replace(by("mine"), context=("mine",))
    assert found(play(World(items, (guard,)))) == [(CONFIRMED, ("mine",))]
    assert found(play(World(items, (replace(guard, needs_new=True),)))) == [(NARROWED, ("mine",))]
    both = replace(guard, causes=(frozenset({"mine"}), frozenset({"#2"})))
    assert found(play(World(items, (both,)))) == [(CONFIRMED, ("mine",)), (CONFIRMED, ("#2",))]


def test_what_does_not_compose_is_gone_round() -> None:
    world = World(pulls(8), (by("#6"),), clashes=(("#6", "#3"), ("#4", "#8")))
    assert play(world).confirmed == [("#6",)]


def test_who_cannot_go_out_without_others_is_narrowed() -> None:
    [finding] = play(World(pulls(4), (by("#2"),), clashes=(("#3", "#2"),))).findings
    assert (finding.certainty, names(finding)) == (NARROWED, ("#2",))
    assert finding.detail == "without #2 it cannot be asked: that does not compose, or is red in another way"


def test_red_in_another_way_is_another_failure() -> None:
    """Without what it stands on it crashes; that is not what was red tonight."""
    world = World(pulls(8), (by("#5"),), crashes=(("#2", "#7"),))
    assert play(world).confirmed == [("#5",)]
    world.guards = (replace(by("#5"), red=CRASH),)
    assert play(world).confirmed == [("#5",)]


def test_who_cannot_go_out_of_the_set_is_asked_about_in_all_of_tonight() -> None:
    """Without #3 nothing of the set needs #6, and without #6 #1 crashes: that #3 is one of them is seen elsewhere."""
    items = (pull(1), pull(3), pull(6, 3), pull(9))
    assert play(World(items, (by("#1 #3 #9"),), crashes=(("#1", "#6"),))).confirmed == [("#1", "#3", "#9")]
    assert play(World(items, (by("#1 #9"),), crashes=(("#1", "#6"),))).confirmed == [("#1", "#9")]


# --- budgets -------------------------------------------------------------------------------------------


def test_over_the_budget_it_is_narrowed_to_what_is_left() -> None:
    left = []
    for probes in range(8):
        [finding] = play(World(pulls(4), (by("#3"),), max_probes=probes)).findings
        assert finding.certainty is NARROWED
        left.append(" ".join(names(finding)))
    assert left == [*["#1 #2 #3 #4"] * 4, "#3 #4", *["#3"] * 3]
    assert play(World(pulls(4), (by("#3"),), max_probes=8)).confirmed == [("#3",)]


def test_when_the_time_is_over_it_is_asked_with_the_probes_that_there_are() -> None:
    world = World(pulls(4), (by("#3"),))
    played = play(world)
    question = replace(world.question(), max_probes=5)
    [finding] = decide(question, played.answers[:5])
    assert (finding.certainty, names(finding), finding.probes) == (NARROWED, ("#3",), (1, 2, 3, 4, 5))


def test_a_guard_that_is_decided_stays_so_when_the_budget_is_over() -> None:
    guards = (replace(by("#3"), test="a.py::test_a"), replace(by("#1"), test="b.py::test_b"))
    whole = play(World(pulls(4), guards))
    assert whole.confirmed == [("#3",), ("#1",)]
    cut = play(World(pulls(4), guards, max_probes=len(whole.wanted) - 1))
    assert found(cut) == [(CONFIRMED, ("#3",)), (NARROWED, ("#1",))]


def _decide(world: World, *answers: Answer) -> tuple:
    decided = decide(world.question(), answers)
    assert isinstance(decided, tuple), decided
    return decided
