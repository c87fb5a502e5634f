"""What follows from deploy is put right from its newest line, whatever a push that was killed left behind."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta

import pytest

from patchstack.errors import MachineError, RemoteError
from patchstack.git import Repository
from patchstack.leftovers import sweep
from patchstack.model import Composition, Promotion, Sha
from patchstack.release.promote import Source, promote
from patchstack.release.repair import Repair, decide_repair, next_moment, promotion_of, repair

from .release_bench import FIRST, Bench

LINES = ("base/production", "stack/production")


def mend(bench: Bench, composition: Composition) -> Repair:
    base = Source(composition.base.commit, composition.base.tree)
    stack = Source(composition.commit, composition.tree)  # as `Bench.decide` has it
    done = repair(bench.store, bench.url, bench.read(), base=base, stack=stack)
    assert decide_repair(bench.read(), base=base, stack=stack).pushed == {}
    return done


def two_nights(bench: Bench) -> tuple[Composition, Promotion, dict[str, Sha]]:
    """The second one moves every ref; and where these were before it."""
    bench.night(bench.compose("a"))
    before = bench.refs()
    composition = bench.compose("b", base=bench.base("2"))
    return composition, bench.night(composition, day=1), before


@pytest.mark.parametrize("lost", [lost for few in (1, 2, 3) for lost in itertools.combinations(range(3), few)])
def test_whatever_did_not_move_with_deploy_is_moved_after_it(bench: Bench, lost: tuple[int, ...]) -> None:
    composition, made, before = two_nights(bench)
    whole = bench.refs()
    names = ["refs/heads/base/production", "refs/heads/stack/production", f"refs/tags/{made.line.tag}"]
    bench.remote.set_refs({names[at]: before.get(names[at]) for at in lost})

    assert mend(bench, composition) == Repair(
        tuple(LINES[at] for at in lost if at < 2), tuple(made.line.tag for at in lost if at == 2)
    )

    assert bench.refs() == whole  # the very commits, for they are dated as the ledger line
    assert mend(bench, composition) == Repair()


@pytest.mark.parametrize("ahead", [("base",), ("stack",), ("base", "stack")])
def test_a_line_that_moved_without_deploy_goes_on_to_what_is_deployed(bench: Bench, ahead: tuple[str, ...]) -> None:
    _, made, before = two_nights(bench)
    first = bench.compose("a")
    tips = bench.refs()
    bench.remote.set_refs({name: before.get(name) for name in ("refs/heads/deploy", f"refs/tags/{made.line.tag}")})
    bench.remote.set_refs(
        {
            f"refs/heads/{name}/production": before[f"refs/heads/{name}/production"]
            for name in {"base", "stack"} - {*ahead}
        }
    )

    assert mend(bench, first).lines == tuple(f"{name}/production" for name in ahead)

    for name in ahead:
        ref, wanted = f"refs/heads/{name}/production", first.base.commit if name == "base" else first.commit
        assert bench.remote.parents(bench.refs()[ref]) == (tips[ref], wanted)
        assert bench.remote.tree_of(ref) == bench.remote.tree_of(wanted)
    again = bench.night(bench.compose("b", base=bench.base("2")), day=2)
    assert bench.refs()["refs/heads/deploy"] == again.commit
    assert mend(bench, bench.compose("b", base=bench.base("2"))) == Repair()


def test_what_nobody_knows_stays(bench: Bench) -> None:
    composition, _, before = two_nights(bench)
    bench.remote.set_refs({name: before[name] for name in before if name.startswith("refs/heads/stack")})

    base = Source(composition.base.commit, composition.base.tree)
    assert repair(bench.store, bench.url, bench.read(), base=base, stack=None) == Repair()


def test_nothing_is_repaired_where_no_night_was(bench: Bench) -> None:
    assert repair(bench.store, bench.url, bench.read(), base=None, stack=None) == Repair()
    assert bench.refs() == {}


def test_another_machine_that_repairs_at_once_is_no_error(bench: Bench) -> None:
    composition, _, before = two_nights(bench)
    whole = bench.refs()
    bench.remote.set_refs({"refs/heads/stack/production": before["refs/heads/stack/production"]})
    state = bench.read()
    mend(bench, composition)
    bench.remote.set_refs({"refs/heads/stack/production": whole["refs/heads/stack/production"]})

    base, stack = Source(composition.base.commit, composition.base.tree), Source(composition.commit, composition.tree)
    assert repair(bench.store, bench.url, state, base=base, stack=stack).elsewhere == ()
    assert bench.refs() == whole


def test_a_remote_that_refuses_the_repair_is_named_with_what_is_behind(
    bench: Bench, hook: Callable[[str, str], None]
) -> None:
    composition, _, before = two_nights(bench)
    bench.remote.set_refs({"refs/heads/stack/production": before["refs/heads/stack/production"]})
    hook("pre-receive", "exit 1")
    left = bench.refs()

    with pytest.raises(RemoteError, match=r"deploy is whole, but .* \(heads/stack/production\)"):
        mend(bench, composition)

    assert bench.refs() == left


# --- a push that ends with an error is looked after ---


def told(bench: Bench, composition: Composition, day: int = 0) -> tuple[Promotion, list[str]]:
    notes: list[str] = []
    return promote(bench.store, bench.url, bench.decide(composition, day), tell=notes.append), notes


@pytest.mark.parametrize("name", ["post-receive", "post-update", "reference-transaction"])
def test_a_server_that_dies_after_it_moved_everything_has_promoted(
    bench: Bench, hook: Callable[[str, str], None], name: str
) -> None:
    bench.night(bench.compose("a"))
    hook(name, f'[ "{name}" != reference-transaction ] || [ "$1" = committed ] || exit 0; kill -9 $PPID')

    made, notes = told(bench, bench.compose("b"), day=1)

    assert bench.refs()["refs/heads/deploy"] == made.commit
    assert [note.partition(": ")[0] for note in notes] == ["the push ended with an error and arrived all the same"]


@pytest.mark.parametrize("name", ["pre-receive", "update", "reference-transaction"])
def test_a_server_that_dies_before_it_moved_anything_has_not(
    bench: Bench, hook: Callable[[str, str], None], name: str
) -> None:
    bench.night(bench.compose("a"))
    before = bench.refs()
    hook(name, f'[ "{name}" != reference-transaction ] || [ "$1" = prepared ] || exit 0; kill -9 $PPID')

    with pytest.raises(RemoteError, match=r"^the push to .* failed: .*; nothing was moved: run again"):
        told(bench, bench.compose("b"), day=1)
    assert bench.refs() == before
    (bench.remote.folder / "hooks" / name).unlink()

    left = sweep(bench.remote.folder).removed
    assert ("refs/heads/deploy.lock" in left) is (name == "reference-transaction")
    made, notes = told(bench, bench.compose("b"), day=1)
    assert (bench.refs()["refs/heads/deploy"], notes) == (made.commit, [])


def test_a_lock_that_a_killed_server_left_is_named_with_who_can_help(bench: Bench) -> None:
    bench.night(bench.compose("a"))
    (bench.remote.folder / "refs" / "heads" / "deploy.lock").touch()

    with pytest.raises(RemoteError, match=r"deploy\.lock': File exists.*whoever runs it removes it"):
        told(bench, bench.compose("b"), day=1)


def test_a_remote_that_cannot_be_looked_at_leaves_it_open(bench: Bench, hook: Callable[[str, str], None]) -> None:
    bench.night(bench.compose("a"))
    decision = bench.decide(bench.compose("b"), day=1)
    gone = bench.remote.folder.with_name("gone.git")
    hook("post-receive", f"mv '{bench.url}' '{gone}'; kill -9 $PPID")

    with pytest.raises(RemoteError) as error:
        promote(bench.store, bench.url, decision)

    said = str(error.value)
    assert "whether it arrived is not known" in said
    assert f"if deploy holds {decision.promotion.commit[:12]} by then, that is found out" in said
    assert Repository(gone).resolve("refs/heads/deploy") == decision.promotion.commit


def test_what_a_server_moved_without_deploy_is_said(bench: Bench, hook: Callable[[str, str], None]) -> None:
    bench.night(bench.compose("a"))
    base = bench.base("2")
    bench.store.push(bench.url, {"refs/heads/there": base.commit})
    decision = bench.decide(bench.compose("b", base=base), day=1)
    hook(
        "pre-receive",
        f"env -u GIT_QUARANTINE_PATH git update-ref refs/heads/base/production {base.commit}; kill -9 $PPID",
    )

    with pytest.raises(
        RemoteError, match=r"deploy is where it was, and what did move \(base/production\) is put right"
    ):
        promote(bench.store, bench.url, decision)


def test_our_commit_below_another_s_has_arrived(bench: Bench, hook: Callable[[str, str], None]) -> None:
    bench.night(bench.compose("a"))
    decision = bench.decide(bench.compose("b"), day=1)
    own = f"{decision.promotion.commit}"
    who = "GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x"
    theirs = f"{who} git commit-tree -p {own} -m theirs '{own}^{{tree}}'"
    hook("post-receive", f"new=$({theirs}); git update-ref refs/heads/deploy $new; kill -9 $PPID")

    assert promote(bench.store, bench.url, decision).commit == own
    assert bench.read().history.foreign_on_top == 1


# --- what deploy tells of itself, and clocks ---


def test_a_promotion_that_nobody_wrote_down_is_read_from_deploy(bench: Bench) -> None:
    first, second = bench.night(bench.compose("a")), bench.night(bench.compose("b"), day=1)
    newest, oldest = bench.read().history.entries

    for made, entry in ((first, oldest), (second, newest)):
        found = promotion_of(entry, "production", "deploy")
        assert (found.commit, found.line, found.previous) == (made.commit, made.line, made.previous)
        assert found.pushed == made.pushed[:1]


def test_a_clock_that_is_behind_the_ledger(bench: Bench) -> None:
    assert next_moment(bench.read().history, FIRST) == FIRST
    bench.night(bench.compose("a"))
    history = bench.read().history
    minute = timedelta(minutes=1)

    assert next_moment(history, FIRST + minute) == FIRST + minute
    assert next_moment(history, FIRST - 5 * minute) == FIRST
    with pytest.raises(MachineError) as error:
        next_moment(history, FIRST - 6 * minute)
    assert "moved by 20261121T020000Z at 2026-11-21T02:00:00Z" in str(error.value)
    assert "this machine's clock says 2026-11-21T01:54:00Z" in str(error.value)
