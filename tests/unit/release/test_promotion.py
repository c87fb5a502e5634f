from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from patchstack.errors import GateFailed, Incomplete, RemoteError
from patchstack.git import EMPTY_TREE
from patchstack.model import Sha, Status, Verdict
from patchstack.release.promote import GENESIS, Draft, Source, decide, promote
from patchstack.store import encode

from .release_bench import FIRST, GREEN, LANE, Bench


def test_first_night_stands_on_genesis_and_publishes_everything_at_once(bench: Bench) -> None:
    composition = bench.compose()

    made = bench.night(composition)

    assert bench.refs() == {
        "refs/heads/deploy": made.commit,
        "refs/heads/base/production": composition.base.commit,
        "refs/heads/stack/production": composition.commit,
        f"refs/tags/nightly-20261121-{composition.tree[:7]}": made.commit,
    }
    assert dict(made.pushed) == bench.refs()
    assert made.previous is None
    assert bench.remote.parents(made.commit) == (GENESIS.sha, composition.commit)
    assert bench.remote.tree_of(made.commit) == composition.tree
    assert bench.remote.tree_of(GENESIS.sha) == EMPTY_TREE


def test_genesis_is_the_same_commit_everywhere() -> None:
    assert GENESIS.sha == "18b48a2b456a5e7bde02f729600a5dbf24798501"


def test_second_night_goes_on_from_the_first(bench: Bench) -> None:
    first, changed = bench.night(bench.compose("a")), bench.compose("b")

    second = bench.night(changed, day=1)

    assert second.previous == first.commit
    assert bench.remote.parents(second.commit) == (first.commit, changed.commit)
    stack = bench.refs()["refs/heads/stack/production"]
    assert bench.remote.parents(stack) == (bench.compose("a").commit, changed.commit)
    assert bench.remote.tree_of(stack) == changed.tree
    assert bench.refs()["refs/heads/base/production"] == changed.base.commit
    assert [ref for ref, _ in second.pushed] == [
        "refs/heads/deploy",
        "refs/heads/stack/production",
        f"refs/tags/nightly-20261122-{changed.tree[:7]}",
    ]


def test_a_line_that_holds_the_commit_already_is_left_alone(bench: Bench) -> None:
    nights = [bench.night(bench.compose(text), day) for day, text in enumerate("abbb")]
    lines = [dict(night.pushed).get("refs/heads/stack/production") for night in nights]

    assert lines[0] == bench.compose("a").commit
    assert lines[1] not in (None, bench.compose("b").commit)
    assert lines[2:] == [None, None]
    assert len({night.commit for night in nights}) == 4


def test_a_line_holds_a_commit_only_with_its_tree_and_a_tree_only_with_its_commit(bench: Bench) -> None:
    composition = bench.compose()
    again = dataclasses.replace(
        composition, commit=bench.store.commit(composition.tree, (composition.base.commit,), "other message\n")
    )
    ref = "refs/heads/stack/production"
    bench.night(composition)

    other_commit = dict(bench.night(again, day=1).pushed)[ref]
    assert bench.remote.parents(other_commit) == (composition.commit, again.commit)

    by_hand = bench.store.commit(bench.tree(other="x"), (other_commit, again.commit), "by hand\n")
    bench.store.push(bench.url, {ref: by_hand})
    other_tree = dict(bench.night(again, day=2).pushed)[ref]
    assert bench.remote.parents(other_tree) == (by_hand, again.commit)
    assert bench.remote.tree_of(other_tree) == composition.tree


def test_the_remote_of_a_first_night_is_whole(bench: Bench) -> None:
    """Git knows the empty tree by heart, and so would not miss it in a store that never wrote it."""
    decision = bench.decide(bench.compose())
    (bench.store.folder / "objects" / EMPTY_TREE[:2] / EMPTY_TREE[2:]).unlink()

    promote(bench.store, bench.url, decision)

    assert bench.remote.run("fsck", "--strict", "--no-dangling") == ""
    assert (bench.remote.folder / "objects" / EMPTY_TREE[:2] / EMPTY_TREE[2:]).is_file()


def test_a_base_that_changes_and_comes_back_stays_a_line(bench: Bench) -> None:
    tips = []
    for day, text in enumerate("121"):
        bench.night(bench.compose(base=bench.base(text)), day)
        tips.append(bench.refs()["refs/heads/base/production"])

    assert tips[0] == bench.base("1").commit
    assert bench.remote.parents(tips[1]) == (tips[0], bench.base("2").commit)
    assert bench.remote.parents(tips[2]) == (tips[1], bench.base("1").commit)
    assert bench.remote.tree_of(tips[2]) == bench.base("1").tree


def test_deciding_writes_nothing_and_names_the_ids_that_git_then_gives(bench: Bench) -> None:
    composition = bench.compose()
    before = bench.store.run("count-objects", "-v")

    decision = bench.decide(composition)

    assert bench.store.run("count-objects", "-v") == before
    assert bench.refs() == {}
    assert bench.decide(composition) == decision
    assert '"type": "Decision"' in encode(decision)
    assert promote(bench.store, bench.url, decision) == decision.promotion
    assert bench.refs()["refs/heads/deploy"] == decision.promotion.commit


def test_a_draft_has_the_id_that_git_gives_it(bench: Bench) -> None:
    parents = (bench.base("1").commit, bench.base("2").commit)
    draft = Draft(bench.tree(base="1"), parents, "subject ü\n\nbody\n", 1_795_226_400)

    assert draft.write(bench.store) == draft.sha
    assert bench.store.show(draft.sha, "%at %ct %an <%ce>") == "1795226400 1795226400 patchstack <patchstack@localhost>"


def test_an_existing_branch_of_a_fork_is_gone_on_from(bench: Bench) -> None:
    theirs = bench.foreign(bench.foreign())
    bench.store.push(bench.url, {"refs/heads/deploy": theirs})

    made = bench.night(bench.compose())

    assert made.previous == theirs
    assert bench.remote.parents(made.commit)[0] == theirs
    assert bench.read().history.foreign_on_top == 0


def test_a_race_that_was_lost_before_the_push_moves_nothing(bench: Bench) -> None:
    bench.night(bench.compose("a"))
    late = bench.decide(bench.compose("b"), day=1)
    winner = bench.night(bench.compose("c"), day=1)
    before = bench.refs()

    with pytest.raises(RemoteError) as error:
        promote(bench.store, bench.url, late)

    assert str(error.value) == (
        "another writer moved the remote since it was read, nothing was moved: "
        f"refs/heads/deploy was {late.promotion.previous[:12]} and is {winner.commit[:12]}; "
        f"refs/heads/stack/production was {bench.compose('a').commit[:12]} "
        f"and is {before['refs/heads/stack/production'][:12]}; run again"
    )
    assert bench.refs() == before


def test_a_branch_that_was_set_back_is_not_promoted_over(bench: Bench) -> None:
    first = bench.night(bench.compose("a"))
    bench.night(bench.compose("b"), day=1)
    late = bench.decide(bench.compose("c"), day=2)
    bench.remote.set_refs({"refs/heads/deploy": first.commit})

    with pytest.raises(RemoteError, match="refs/heads/deploy was"):
        promote(bench.store, bench.url, late)

    assert bench.refs()["refs/heads/deploy"] == first.commit


def test_a_race_that_is_lost_within_the_push_moves_nothing(bench: Bench, hook: Callable[[str, str], None]) -> None:
    """The other writer lands after our look and before the server's compare-and-swap."""
    first = bench.night(bench.compose("a"))
    other = bench.foreign(first.commit)
    bench.store.push(bench.url, {"refs/heads/other": other})
    before = bench.refs()
    # Within pre-receive git forbids to move refs, by a variable of the quarantine.
    hook("pre-receive", f"env -u GIT_QUARANTINE_PATH git update-ref refs/heads/deploy {other}")

    with pytest.raises(RemoteError, match=r"nothing was moved: .*cannot lock ref 'refs/heads/deploy'"):
        bench.night(bench.compose("b"), day=1)

    assert bench.refs() == {**before, "refs/heads/deploy": other}


@pytest.mark.parametrize("refused", ["refs/heads/deploy", "refs/heads/stack/production", "refs/tags/"])
def test_a_hook_that_refuses_one_ref_refuses_the_night(
    bench: Bench, hook: Callable[[str, str], None], refused: str
) -> None:
    hook("update", f'case "$1" in {refused}*) echo no entry >&2; exit 1;; esac')

    with pytest.raises(RemoteError, match=r"nothing was moved: .*\(hook declined\).*; remote: no entry"):
        bench.night(bench.compose())

    assert bench.refs() == {}


def test_a_remote_that_is_not_there(bench: Bench) -> None:
    decision = bench.decide(bench.compose())

    with pytest.raises(RemoteError, match="cannot be read"):
        promote(bench.store, bench.url + "-gone", decision)


def test_a_tag_that_something_else_holds_is_reported_and_not_moved(bench: Bench) -> None:
    composition, theirs = bench.compose(), bench.foreign()
    tag = f"nightly-20261121-{composition.tree[:7]}"
    bench.store.push(bench.url, {f"refs/tags/{tag}": theirs})

    decision = bench.decide(composition)
    promote(bench.store, bench.url, decision)

    assert decision.notes == (
        f"tag {tag} exists and holds {theirs[:12]}, which is no night of this tree: it was not moved",
    )
    assert bench.refs()[f"refs/tags/{tag}"] == theirs
    assert bench.refs()["refs/heads/deploy"] == decision.promotion.commit


def test_two_nights_of_one_day_and_tree_share_a_tag(bench: Bench) -> None:
    composition = bench.compose()
    first = bench.night(composition)
    again = bench.decide(dataclasses.replace(composition, left_out=()))

    second = promote(bench.store, bench.url, again)

    assert again.notes == ()
    assert second.commit != first.commit
    assert second.line.tag == first.line.tag
    assert bench.refs()[f"refs/tags/{first.line.tag}"] == first.commit


def test_another_lane_has_its_own_branches_and_tags(bench: Bench) -> None:
    bench.night(bench.compose("a"))
    made = bench.night(bench.compose("b", lane="edge"), branch="deploy-edge")

    assert made.previous is None
    assert [ref for ref, _ in made.pushed] == [
        "refs/heads/deploy-edge",
        "refs/heads/base/edge",
        "refs/heads/stack/edge",
        f"refs/tags/edge-nightly-20261121-{made.line.tree[:7]}",
    ]
    assert [name for name, _ in bench.read().tags] == [f"nightly-20261121-{bench.compose('a').tree[:7]}"]


@pytest.mark.parametrize(
    ("verdicts", "kind", "message"),
    [
        (
            (Verdict("nightly", Status.FAIL, ("guard x: fail",)),),
            GateFailed,
            "channel nightly is FAIL, nothing was moved: guard x: fail",
        ),
        (
            (Verdict("nightly", Status.INCOMPLETE, ()), GREEN[0]),
            Incomplete,
            "channel nightly is INCOMPLETE, nothing was moved: no reason given",
        ),
        (
            (Verdict("stable", Status.PASS, ()),),
            Incomplete,
            "no verdict for channel nightly: run the tests first; nothing was moved",
        ),
        ((), Incomplete, "no verdict for channel nightly: run the tests first; nothing was moved"),
    ],
)
def test_nothing_is_decided_unless_nightly_passed(
    bench: Bench, verdicts: tuple[Verdict, ...], kind: type[Exception], message: str
) -> None:
    composition = bench.compose()
    stack = Source(composition.commit, composition.tree)

    with pytest.raises(kind) as error:
        decide(
            night="n",
            at=FIRST,
            composition=composition,
            stack=stack,
            verdicts=verdicts,
            remote=bench.read(),
        )

    assert str(error.value) == message


def test_only_the_channels_that_passed_are_in_the_line(bench: Bench) -> None:
    assert bench.night(bench.compose()).line.channels == ("nightly",)


def test_the_line_of_a_lane_is_where_it_was_read(bench: Bench) -> None:
    assert bench.read().refs == (
        ("refs/heads/deploy", None),
        (f"refs/heads/base/{LANE}", None),
        (f"refs/heads/stack/{LANE}", None),
    )
    made = bench.night(bench.compose())
    assert dict(bench.read().refs)["refs/heads/deploy"] == Sha(made.commit)
