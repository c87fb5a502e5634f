"""A hotfix: what is deployed as it was merged, whatever became of it since, and what was asked for on top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, C, Fork, edit, names, tell

from patchstack.compose.onto import Deployed, candidates_onto, require_whole
from patchstack.errors import Incomplete, RemoteError, UsageError
from patchstack.git import Repository
from patchstack.model import Base, Candidates, Composition, Hotfix, Kind, LedgerLine, LeftOut, Outcome, Reason, Sha
from patchstack.release.ledger import make_line

D = "python/sglang/d.py"
NIGHT = "20261120T020000Z"
WHEN = "check out main as it was at 2026-11-20T02:00:00Z"


@dataclass
class Team:
    """A fork with a night that was promoted, and what a hotfix onto that night is made of."""

    fork: Fork
    line: LedgerLine | None = None

    def pull(self, number: int, files: dict[str, str], onto: Sha | None = None, *, title: str = "") -> Sha:
        parent = onto or self.fork.base.commit
        return self.fork.pull(number, self.fork.commit(title or f"pull {number}", files, parent))

    def promote(self) -> Composition:
        made = self.fork.compose().composition
        self.line = make_line(NIGHT, datetime(2026, 11, 20, 2, tzinfo=UTC), made, ["nightly"])
        self.fork.deploy(made.commit)
        return made

    def onto(
        self,
        *only: str,
        found: Candidates | None = None,
        skips: dict[str, str] | None = None,
        store: Repository | None = None,
    ) -> tuple[Candidates, Hotfix]:
        assert self.line is not None
        deployed = Deployed(NIGHT, self.line, WHEN)
        tonight = found or self.fork.candidates()
        return candidates_onto(store or self.fork.store, tonight, deployed, only, skips or {})

    def hotfix(self, *only: str, found: Candidates | None = None) -> tuple[Composition, Hotfix]:
        candidates, hotfix = self.onto(*only, found=found)
        composition = self.fork.compose(candidates=candidates).composition
        require_whole(candidates, composition, hotfix)
        return composition, hotfix

    def refused(self, kind: type[Exception], *only: str, found: Candidates | None = None) -> str:
        with pytest.raises(kind) as caught:
            self.hotfix(*only, found=found)
        return str(caught.value)


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(Fork(tmp_path, {A: TEN, B: TEN, C: TEN}))


def blocking(team: Team, number: int) -> Candidates:
    from patchstack.compose.topics import pull_topics

    pulls, refused = team.fork.read()
    admitted = [pull for pull in pulls if pull.number != number]
    topics, left_out = pull_topics(team.fork.store, team.fork.base, team.fork.patches, admitted, lane=team.fork.lane)
    blocked = tuple(pull for pull in pulls if pull.number == number)
    said = tuple(
        LeftOut(one.name, Kind.PULL, "t", "a", one.head, Outcome.EXCLUDED, Reason.BLOCKED, "take the label off")
        for one in blocked
    )
    return Candidates(team.fork.base, (*team.fork.patches, *topics), (*refused, *left_out, *said), blocked=blocked)


# --- what is deployed ---


def test_only_what_was_asked_for_comes_in_and_all_else_is_as_deployed(team: Team) -> None:
    team.fork.patch("lock", {A: edit(TEN, 1, "lock")})
    team.pull(7, {A: edit(TEN, 5, "seven")})
    team.pull(8, {B: edit(TEN, 1, "eight")})
    then = team.promote()
    team.pull(8, {B: edit(TEN, 1, "eight, again")}, title="Another title")
    team.fork.repository.set_refs({"refs/pull/7/head": None})  # closed meanwhile
    nine = team.pull(5, {C: edit(TEN, 1, "five")})
    team.pull(10, {C: edit(TEN, 9, "ten")})

    composition, hotfix = team.hotfix("#5")

    assert names(composition.included) == ["lock", "#7", "#8", "#5"]
    lock, seven, eight = then.included  # to the last field: paths, own diff, patch id, words
    assert composition.included[:3] == (lock, replace(seven, target=""), replace(eight, target=""))
    assert team.fork.store.parents(composition.commit) == (*team.fork.store.parents(then.commit), nine)
    assert team.fork.files(composition.tree) == {
        A: edit(edit(TEN, 1, "lock"), 5, "seven"),
        B: edit(TEN, 1, "eight"),
        C: edit(TEN, 1, "five"),
    }
    assert (hotfix, composition.left_out) == (Hotfix(NIGHT, then.commit, ("#5",)), ())


def test_what_was_replayed_is_taken_as_it_was_replayed(team: Team) -> None:
    """#7 was cut from the stack, #8 from a branch of upstream; it also changes what the base does not carry."""
    lock = team.fork.patch("lock", {A: edit(TEN, 1, "lock")})
    team.pull(7, {A: edit(edit(TEN, 1, "lock"), 3, "seven")}, team.fork.publish_stack())
    upstream = team.fork.branch("theirs", team.fork.commit("upstream", {A: TEN, B: TEN, "docs/x.md": "x\n"}))
    team.pull(8, {B: edit(TEN, 1, "eight"), "docs/x.md": "y\n"}, upstream)
    then = team.promote()
    assert [(topic.replayed, topic.requires) for topic in then.included[1:]] == [(True, ("lock",)), (True, ())]
    team.pull(9, {C: edit(TEN, 1, "nine")})

    composition, _ = team.hotfix("#9")

    assert composition.included[0] == lock
    assert composition.included[1:3] == then.included[1:]
    assert composition.included[2].not_carried == ("docs/x.md",)


def test_on_a_machine_that_never_saw_their_heads_it_is_the_same_commit(team: Team, tmp_path: Path) -> None:
    team.fork.patch("lock", {A: edit(TEN, 1, "lock")})
    team.pull(7, {A: edit(edit(TEN, 1, "lock"), 3, "seven")}, team.fork.publish_stack())
    team.pull(8, {B: edit(TEN, 1, "eight")})
    then = team.promote()
    replayed, by_head = then.included[1:]
    team.fork.repository.set_refs({"refs/pull/7/head": None, "refs/pull/8/head": None})
    nine = team.pull(9, {C: edit(TEN, 1, "nine")})
    fresh = Repository.init(tmp_path / "fresh.git")
    fresh.fetch(team.fork.url, ["+refs/heads/*:refs/x/*", "+refs/pull/9/head:refs/nine"])
    assert (fresh.has(replayed.head), fresh.has(by_head.head), fresh.has(nine)) == (False, True, True)

    here, _ = team.onto("#9")
    there, _ = team.onto("#9", store=fresh)

    assert [topic.commit for topic in there.topics] == [topic.commit for topic in here.topics]
    elsewhere = there.topics[1]
    assert (elsewhere.own_from, elsewhere.own_to) == (fresh.parents(replayed.commit)[0], replayed.commit)
    assert replace(
        elsewhere,
        own_from=replayed.own_from,
        own_to=replayed.own_to,
        patch_id=replayed.patch_id,
        target=replayed.target,
    ) == replace(replayed, title="pull 7")


def test_a_new_head_stands_in_the_place_of_the_deployed_one(team: Team) -> None:
    old = team.pull(7, {A: edit(TEN, 1, "seven")})
    team.pull(8, {B: edit(TEN, 1, "eight")})
    then = team.promote()
    new = team.pull(7, {A: edit(TEN, 1, "seven, mended")})

    composition, hotfix = team.hotfix("#7")

    assert [(topic.name, topic.head) for topic in composition.included] == [("#8", then.included[1].head), ("#7", new)]
    assert team.fork.files(composition.tree)[A] == edit(TEN, 1, "seven, mended")
    assert hotfix.replaced == (("#7", old),)


def test_what_stands_on_a_deployed_one_carries_it_however_that_was_merged(team: Team) -> None:
    """The fix of #7 changes the very line that #7 wrote: as two topics on the base they would conflict."""
    upstream = team.fork.branch("theirs", team.fork.commit("upstream", {A: TEN, B: TEN}))
    seven = team.pull(7, {A: edit(TEN, 1, "seven")}, upstream)
    eight = team.pull(8, {B: edit(TEN, 1, "eight")})
    assert [topic.replayed for topic in team.promote().included] == [True, False]
    team.pull(9, {A: edit(TEN, 1, "nine")}, seven)
    team.pull(11, {B: edit(TEN, 1, "eleven")}, eight)

    composition, _ = team.hotfix("#9", "#11")

    assert names(composition.included) == ["#9", "#11"]
    assert [tell(item) for item in composition.left_out] == [
        "#7 carried: contained with #9",
        "#8 carried: contained with #11",
    ]
    assert team.fork.files(composition.tree) == {A: edit(TEN, 1, "nine"), B: edit(TEN, 1, "eleven"), C: TEN}


def test_what_is_deployed_stays_though_it_is_blocked_or_skipped_now(team: Team) -> None:
    team.pull(7, {A: edit(TEN, 1, "seven")})
    team.pull(8, {B: edit(TEN, 1, "eight")})
    team.promote()
    team.pull(9, {C: edit(TEN, 1, "nine")})
    candidates, _ = team.onto("#9", found=blocking(team, 7), skips={"8": "not now"})
    assert (names(candidates.topics), candidates.blocked, candidates.left_out) == (["#7", "#8", "#9"], (), ())


def test_a_patch_that_the_night_left_out_stays_out(team: Team) -> None:
    team.fork.patch("lock", {A: edit(TEN, 1, "lock")})
    team.fork.patch("other", {A: edit(TEN, 1, "other")}, required=False)
    assert [tell(item) for item in team.promote().left_out] == [f"other excluded: conflict with lock in {A}"]
    team.fork.patch("other", {B: edit(TEN, 1, "other")}, required=False, instead_of="other")  # mended
    team.pull(9, {C: edit(TEN, 1, "nine")})

    composition, _ = team.hotfix("#9")

    assert names(composition.included) == ["lock", "#9"]
    (out,) = composition.left_out
    assert (tell(out), out.detail) == (
        "other skipped: conflict",
        f"night {NIGHT} had left it out, and what is deployed stays as it is",
    )


# --- a hotfix without its fix is none ---


def test_whatever_keeps_it_out_ends_the_night(team: Team) -> None:
    seven = team.pull(7, {A: edit(TEN, 1, "seven")})
    team.pull(8, {B: edit(TEN, 1, "eight")}, seven)
    assert [tell(item) for item in team.promote().left_out] == ["#7 carried: contained with #8"]
    team.pull(9, {A: edit(TEN, 1, "nine")})
    team.pull(10, {"python/pyproject.toml": "[x]\n"})
    team.pull(11, {B: edit(TEN, 1, "eight")})
    team.pull(12, {C: edit(TEN, 1, "twelve")}, team.pull(13, {C: edit(TEN, 9, "thirteen")}))

    begin, end = f"a hotfix onto night {NIGHT} would lack what it is for: ", "; nothing was tested or moved"
    detail = "it conflicts with #8: merge #8 into it, or wait"
    assert team.refused(Incomplete, "#9") == f"{begin}#9: conflict with #8 in {A}: {detail}{end}"
    assert team.refused(Incomplete, "#10").startswith(f"{begin}#10: changes build files in python/pyproject.toml: ")
    # Its change is there, and its commits are not: nobody needs it
    assert "#11: no effect on what is composed so far with #8" in team.refused(Incomplete, "#11")
    assert "#7: contained with #8" in team.refused(Incomplete, "#7")
    blocked = blocking(team, 13)
    assert team.refused(Incomplete, "#13", found=blocked) == f"{begin}#13: blocked: take the label off{end}"
    assert "#12: carries commits of a blocked one with #13" in team.refused(Incomplete, "#12", found=blocked)
    both = team.refused(Incomplete, "#13", "#10", found=blocked)
    assert (begin + "#13: blocked" in both, "; #10: changes build files" in both) == (True, True)
    with pytest.raises(Incomplete, match=r"#9: skipped by deploy\.yaml: not now"):
        team.onto("#9", skips={"9": "not now"})


def test_nothing_to_do_and_names_that_are_none(team: Team) -> None:
    team.pull(7, {A: edit(TEN, 1, "seven")})
    team.promote()
    team.pull(9, {C: edit(TEN, 1, "nine")})
    assert team.refused(UsageError, "#9", "#7") == (
        "#7 is deployed already at the head that was admitted: there is nothing to do; leave it out of --only"
    )
    assert team.refused(UsageError, "#77") == (
        "--only #77: no source lists an open pull request of that name; those that could be merged are: #7, #9"
    )
    found = team.fork.candidates()
    moved = replace(found.topics[0], newer_head=Sha("d" * 40))
    told = team.refused(UsageError, "#7", found=replace(found, topics=(moved, *found.topics[1:])))
    assert "(newer heads wait for an admission of their own: #7: dddddddddddd)" in told


def test_another_base_is_refused(team: Team) -> None:
    team.promote()
    old = team.fork.base.commit
    team.fork.new_base({A: "newer\n"}, release="0.5.13")
    team.pull(9, {B: "nine\n"})
    assert team.refused(UsageError, "#9") == (
        f"night {NIGHT} is on sglang==0.5.12.post1 ({old[:12]}), and deploy.yaml gives sglang==0.5.13 "
        f"({team.fork.base.commit[:12]}): a hotfix keeps the base; {WHEN}, or run an ordinary night"
    )


def test_other_patches_are_refused_with_their_names(team: Team) -> None:
    for slug, line in (("same", 1), ("changed", 3), ("removed", 5)):
        team.fork.patch(slug, {A: edit(TEN, line, slug)})
    then = {topic.name: topic.head[:12] for topic in team.promote().included}
    now = team.fork.patch("changed", {A: edit(TEN, 3, "mended")}, instead_of="changed").head[:12]
    team.fork.patches = [patch for patch in team.fork.patches if patch.name != "removed"]
    team.fork.patch("added", {B: edit(TEN, 1, "added")})
    team.pull(9, {C: edit(TEN, 1, "nine")})
    assert team.refused(UsageError, "#9") == (
        f"patches/ is not what night {NIGHT} had, and guards belong to their patches: changed ({then['changed']} then, "
        f"{now} now), removed (not in patches/series any more), added (new); {WHEN}, or run an ordinary night"
    )


def test_a_line_that_its_octopus_does_not_bear_out_is_refused(team: Team) -> None:
    team.pull(7, {A: edit(TEN, 1, "seven")})
    team.promote()
    team.pull(9, {C: edit(TEN, 1, "nine")})
    assert team.line is not None
    right = team.line
    wrong: Sequence[LedgerLine] = (
        replace(right, included=()),
        replace(right, composition=right.base_commit),
        replace(right, composition=Sha("d" * 40)),
    )
    for line in wrong:
        team.line = line
        with pytest.raises(RemoteError, match=rf"^night {NIGHT}"):
            team.onto("#9")


def test_a_deployed_one_that_does_not_merge_any_more_is_named(team: Team) -> None:
    """Which cannot happen by itself: what merged then merges now. It is looked at all the same."""
    team.pull(7, {A: edit(TEN, 1, "seven")})
    team.promote()
    team.pull(9, {C: edit(TEN, 1, "nine")})
    candidates, hotfix = team.onto("#9")
    base = Base("b", "1", team.fork.base.commit, team.fork.base.tree)
    out = LeftOut("#7", Kind.PULL, "t", "a", None, Outcome.EXCLUDED, Reason.CONFLICT, "why", twins=("#9",), files=(A,))
    fingerprint = team.fork.compose().composition.fingerprint
    lacks = Composition("production", base, Sha("c"), Sha("t"), candidates.topics[1:], (out,), fingerprint)
    with pytest.raises(Incomplete) as caught:
        require_whole(candidates, lacks, hotfix)
    assert str(caught.value) == (
        f"a hotfix onto night {NIGHT} would lack what is deployed: #7: conflict with #9 in {A}: why; nothing was "
        "tested or moved"
    )
