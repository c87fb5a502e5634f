"""A night asks GitHub: from people's pushes, labels and reviews to pull requests at exact commits."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, Clone, edit
from tests.unit.pulls.scene import FORK, OWN, TEAM, UPSTREAM, WAITS, Scene, Told

from patchstack.config import GitHubSource
from patchstack.git import Repository
from patchstack.model import Asked, Sha
from patchstack.pulls.listing import BRANCHES, HEADS, TARGETS

# --- the whole of a night ---


def test_a_night_of_every_kind(scene: Scene) -> None:
    scene.push("main", scene.commit("this code", {"patches/series": ""}))
    alice = scene.fork_of("alice")
    scene.propose(41, "fix/a")
    scene.label(41)
    scene.propose(42, "fix/b")
    scene.approve(42, by="max")
    scene.propose(43, "fix/c")
    scene.propose(44, "fix/d", draft=True)
    scene.label(44)
    scene.propose(45, "fix/e")
    scene.label(45)
    scene.label(45, label="blocked", by="bob")
    scene.propose(46, "fix/f", into="main")
    scene.propose(47, "fix/g", head_repo=alice, author="alice")
    scene.label(47)
    scene.upstream()
    acme = "acme/up"
    scene.hub.repository(acme, fork_of=UPSTREAM)
    one = scene.upstream_commit("up", {B: "up\n"})
    scene.propose(900, "up", one, into="main", repo=UPSTREAM, head_repo=acme)
    scene.approve(900, repo=UPSTREAM)
    for number in (901, 902):
        scene.propose(number, f"x{number}", one, into="main", repo=UPSTREAM, head_repo=UPSTREAM, author="stranger")

    assert scene.discover(OWN, TEAM) == Told(
        pulls=[
            "#41 for 41 -> base/production",
            "#42 for 42 -> base/production",
            "sgl-project/sglang#900 up -> main",
        ],
        refused=[
            f"#43 {WAITS}",
            "#44 waiting: draft",
            "#45 excluded: blocked",
            "#46 skipped: into main: never composed",
            "#47 skipped: from a repository that deploy.yaml does not list",
        ],
        blocked=["#45"],
    )
    assert scene.found is not None
    assert scene.found.asked == (Asked(FORK, 7, 0, 9), Asked(UPSTREAM, 3, 2, 3))
    assert [(pull.merge_base, pull.shared, pull.author, pull.url) for pull in scene.found.pulls] == [
        (scene.base.commit, False, "bob", f"{scene.hub.server_url}/{FORK}/pull/41"),
        (scene.base.commit, False, "bob", f"{scene.hub.server_url}/{FORK}/pull/42"),
        (scene.upstream().branches["main"], True, "bob", f"{scene.hub.server_url}/{UPSTREAM}/pull/900"),
    ]
    heads = {f"{HEADS}{pull.name.replace('#', '/').lstrip('/')}": pull.head for pull in scene.found.pulls}
    heads |= {f"{HEADS}45": scene.found.blocked[0].head}
    main = {f"{TARGETS}{UPSTREAM}/main": Sha(scene.upstream().branches["main"])}
    assert scene.store.refs(HEADS, TARGETS) == heads | main
    assert set(scene.store.refs(BRANCHES)) == {f"{BRANCHES}{name}" for name in scene.fork.branches}


def test_nobody_and_nothing(scene: Scene) -> None:
    assert scene.discover() == Told()
    assert scene.asked() == {f"/repos/{FORK}/pulls": 1}


# --- admitted: which commit ---


def test_what_was_labelled_is_taken_and_what_came_later_waits(scene: Scene) -> None:
    first = scene.propose(1, "fix")
    scene.label(1)
    second = scene.push("fix", scene.commit("second", {B: "2\n"}, first))

    assert scene.discover() == Told(pulls=["#1 for 1 -> base/production (now second)"])
    assert scene.found is not None
    assert (scene.found.pulls[0].head, scene.found.pulls[0].newer_head) == (first, second)

    scene.approve(1, by="max")
    assert scene.discover() == Told(pulls=["#1 second -> base/production"])


def test_a_label_before_any_commit_of_now(scene: Scene) -> None:
    scene.propose(1, "fix")
    scene.fork.label(1, "deploy", "ann")
    scene.push("fix", scene.commit("rewritten"))
    assert scene.discover() == Told(pulls=["#1 for 1 -> base/production (now rewritten)"])

    scene.fork.unlabel(1, "deploy", "bob")
    assert scene.discover() == Told(refused=[f"#1 {WAITS}"])

    scene.label(1)
    assert scene.discover() == Told(pulls=["#1 rewritten -> base/production"])


def test_a_label_by_somebody_without_write_access_admits_nothing(scene: Scene) -> None:
    scene.propose(1, "fix")
    scene.label(1, by="mallory")
    assert scene.discover() == Told(refused=[f"#1 {WAITS}"])
    assert scene.detail("#1").startswith("mallory admitted it, and has no write access to acme/sglang; somebody")


def test_an_approval_of_an_older_head_admits_that(scene: Scene) -> None:
    scene.propose(1, "fix")
    scene.approve(1)
    scene.push("fix", scene.commit("rewritten"))
    assert scene.discover() == Told(pulls=["#1 for 1 -> base/production (now rewritten)"])


def test_an_approval_that_was_dismissed_and_one_by_a_stranger(scene: Scene) -> None:
    scene.propose(1, "fix")
    scene.approve(1)
    scene.fork.review(1, "ann", "DISMISSED")
    scene.propose(2, "fix2")
    scene.approve(2, by="mallory")
    assert scene.discover() == Told(refused=[f"#1 {WAITS}", f"#2 {WAITS}"])


def test_upstream_is_admitted_by_who_may_write_to_the_fork(scene: Scene) -> None:
    scene.upstream()
    scene.hub.repository("acme/up", fork_of=UPSTREAM)
    scene.hub.user("upstreamer", write=[UPSTREAM])
    for number, by in ((1, "upstreamer"), (2, "ann")):
        head = scene.upstream_commit(f"up {number}", {f"python/sglang/{number}.py": "x\n"})
        scene.propose(number, f"up{number}", head, into="main", repo=UPSTREAM, head_repo="acme/up")
        scene.approve(number, by=by, repo=UPSTREAM)
    assert scene.discover(OWN, TEAM) == Told(
        pulls=["sgl-project/sglang#2 up 2 -> main"], refused=[f"sgl-project/sglang#1 {WAITS}"]
    )


def test_who_loses_write_access_takes_the_admission_along(scene: Scene) -> None:
    scene.propose(1, "fix")
    scene.approve(1)
    assert scene.discover() == Told(pulls=["#1 for 1 -> base/production"])
    scene.hub.user("ann").write.clear()
    assert scene.discover() == Told(refused=[f"#1 {WAITS}"])


def test_a_branch_in_a_private_fork_is_admitted_by_approval_alone(scene: Scene) -> None:
    secret = scene.hub.repository("alice/sglang", fork_of=FORK, private=True)
    scene.propose(1, "fix", head_repo=secret.name, author="alice")
    scene.label(1)
    friends = GitHubSource(repo=FORK, into=("base/production",), heads=("alice",))
    assert scene.discover(friends) == Told(refused=[f"#1 {WAITS}"])
    assert "an approval names the commit" in scene.detail("#1")
    scene.approve(1)
    assert scene.discover(friends) == Told(pulls=["#1 for 1 -> base/production"])


def test_a_label_does_not_follow_a_branch_to_its_new_name(scene: Scene) -> None:
    head = scene.propose(1, "fix")
    scene.label(1)
    scene.push("renamed", head)
    scene.fork.pull(1).head_ref = "renamed"
    assert scene.discover() == Told(refused=[f"#1 {WAITS}"])
    assert "GitHub does not tell when its branch was pushed before" in scene.detail("#1")
    scene.approve(1)
    assert scene.discover() == Told(pulls=["#1 for 1 -> base/production"])


def test_a_fork_that_is_deleted_and_a_friend_whose_fork_is_not(scene: Scene) -> None:
    friends = GitHubSource(repo=FORK, into=("base/production",), heads=("alice", "carol"))
    for number, owner in ((1, "alice"), (2, "carol")):
        scene.propose(number, "fix", head_repo=scene.fork_of(owner), author=owner)
        scene.label(number)
    scene.hub.delete_repository("alice/sglang")
    assert scene.discover(friends) == Told(
        pulls=["#2 for 2 -> base/production"], refused=["#1 excluded: the repository of its branch is gone"]
    )
    assert scene.detail("#1") == (
        "the repository of its branch fix is gone: push its commits elsewhere and open it again"
    )


def test_an_admitted_head_that_is_gone_waits_for_another(scene: Scene) -> None:
    first = scene.propose(1, "fix")
    scene.label(1)
    new = scene.push("fix", scene.commit("rewritten"))
    scene.hub.settle(scene.fork)
    lose(scene, first)

    assert scene.discover() == Told(refused=[f"#1 {WAITS}"])
    detail = scene.detail("#1")
    assert detail.startswith(f"ann admitted {first[:12]}, which is not handed over any more (")
    assert detail.endswith(f"); somebody with write access to acme/sglang must admit {new[:12]}")


def test_a_server_that_gives_only_what_its_branches_hold(scene: Scene, sealed: Path) -> None:
    # The first protocol asks for nothing that was not listed: https://git-scm.com/docs/protocol-v2
    with (sealed / ".gitconfig").open("a") as config:
        config.write("[protocol]\n\tversion = 0\n")
    scene.workshop.repository.run("config", "uploadpack.allowAnySHA1InWant", "false")
    first = scene.propose(1, "fix")
    scene.label(1)
    scene.push("fix", scene.commit("second", {B: "2\n"}, first))
    scene.propose(2, "fix2")
    scene.label(2)
    scene.push("fix2", scene.commit("rewritten"))

    assert scene.discover() == Told(pulls=["#1 for 1 -> base/production (now second)"], refused=[f"#2 {WAITS}"])
    assert scene.store.refs(HEADS) == {f"{HEADS}1": first}


def test_what_moves_between_the_answer_and_the_fetch_is_taken_as_it_was_admitted(scene: Scene) -> None:
    begin = scene.commit("begin")
    head = scene.propose(1, "fix", scene.commit("end", {B: "end\n"}, begin))
    scene.approve(1)
    moved = scene.commit("another end", {B: "another\n"}, begin)

    def move(_request: object, _body: object) -> None:
        scene.hub.observe = None
        scene.push("fix", moved)

    scene.hub.observe = move
    assert scene.discover() == Told(pulls=["#1 end -> base/production"])
    assert scene.found is not None
    assert scene.store.refs(HEADS) == {f"{HEADS}1": head}
    assert scene.fork.branches["fix"] == moved
    assert not scene.found.pulls[0].shared  # `begin` is on no branch but its own


def test_a_head_that_is_not_handed_over_is_missing_and_costs_only_itself(scene: Scene, tmp_path: Path) -> None:
    for number in range(1, 8):
        scene.propose(number, f"fix{number}")
        scene.approve(number)
    scene.remote = tmp_path / "remote.git"
    held = [f"+refs/heads/{name}:refs/heads/{name}" for name in scene.fork.branches if name not in {"fix2", "fix6"}]
    Repository.init(scene.remote).fetch(str(scene.fork.path), held)

    assert scene.discover() == Told(
        pulls=[f"#{number} for {number} -> base/production" for number in (1, 3, 4, 5, 7)],
        refused=["#2 excluded: head is missing", "#6 excluded: head is missing"],
    )
    assert scene.detail("#2").startswith("acme/sglang lists it and does not hand it over (fetching from")
    assert set(scene.store.refs(HEADS)) == {f"{HEADS}{number}" for number in (1, 3, 4, 5, 7)}


def lose(scene: Scene, sha: Sha) -> None:
    """The remote has the commit no more."""
    (scene.fork.path / "objects" / sha[:2] / sha[2:]).unlink()
    if scene.store.has(sha):
        raise AssertionError("the store has it already")


# --- blocked, stacked, refused as they stand ---


def test_a_blocked_one_is_handed_over_with_its_own_commits(scene: Scene) -> None:
    lower = scene.propose(1, "one")
    scene.label(1, label="BLOCKED", by="bob")
    scene.propose(2, "two", scene.commit("upper", {B: "2\n"}, lower), into="one")
    scene.label(2)

    assert scene.discover() == Told(
        pulls=["#2 upper -> base/production"], refused=["#1 excluded: blocked"], blocked=["#1"]
    )
    assert scene.found is not None
    (blocked,), (upper,) = scene.found.blocked, scene.found.pulls
    assert (blocked.head, blocked.merge_base) == (lower, scene.base.commit)
    assert lower in scene.store.commits(upper.head, f"^{upper.merge_base}")
    assert scene.detail("#1") == "take the label blocked off to have it back"


def test_a_blocked_one_that_stands_on_deploy_bars_nobody_of_that_night(scene: Scene) -> None:
    night = deploy(scene)
    scene.propose(1, "one", scene.commit("mine", {B: "mine\n"}, night))
    scene.label(1, label="blocked")
    assert scene.discover() == Told(refused=["#1 excluded: blocked"], blocked=["#1"])
    assert scene.found is not None
    (blocked,) = scene.found.blocked
    assert scene.store.commits(blocked.head, f"^{blocked.merge_base}") == (blocked.head,)


def test_a_blocked_one_that_cannot_be_read_says_what_is_not_known(scene: Scene) -> None:
    scene.push("orphan-base", scene.workshop.commit("elsewhere", {B: "x\n"}))
    orphan = scene.workshop.commit("no history", {A: "x\n"})
    scene.propose(1, "one", orphan)
    scene.label(1, label="blocked")
    assert scene.discover() == Told(refused=["#1 excluded: blocked"])
    assert scene.detail("#1").endswith("(they share nothing with its target), and so not who else carries them")


def test_a_stack_of_three_and_a_circle(scene: Scene) -> None:
    one = scene.propose(1, "one")
    two = scene.propose(2, "two", scene.commit("second", {B: "2\n"}, one), into="one")
    scene.propose(3, "three", scene.commit("third", {A: edit(TEN, 3, "3")}, two), into="two")
    for number in (1, 2, 3):
        scene.approve(number)
    scene.propose(4, "four")
    scene.propose(5, "five", scene.commit("fifth", {B: "5\n"}), into="four")
    scene.fork.retarget(4, "five", by="bob")

    assert scene.discover() == Told(
        pulls=["#1 for 1 -> base/production", "#2 second -> base/production", "#3 third -> base/production"],
        refused=[f"#{number} skipped: into a branch that is not composed" for number in (4, 5)],
    )
    assert scene.found is not None
    assert {pull.merge_base for pull in scene.found.pulls} == {scene.base.commit}
    assert not any(pull.shared for pull in scene.found.pulls)


def test_the_target_that_github_names_counts_and_not_the_nearest_branch(scene: Scene) -> None:
    stack = scene.push("stack/production", scene.commit("a patch", {A: edit(TEN, 1, "patch")}))
    scene.propose(1, "one", scene.commit("on the stack", {B: "1\n"}, stack), into="base/production")
    scene.propose(2, "two", scene.commit("on the stack too", {B: "1\n"}, stack), into="stack/production")
    scene.approve(1)
    scene.approve(2)

    assert scene.discover() == Told(
        pulls=["#1 on the stack -> base/production", "#2 on the stack too -> stack/production"]
    )
    assert scene.found is not None
    assert [(pull.merge_base, pull.shared) for pull in scene.found.pulls] == [(scene.base.commit, True), (stack, True)]


def test_of_several_merge_bases_the_nearest_counts(scene: Scene) -> None:
    stack = scene.push("stack/production", scene.commit("a patch", {A: edit(TEN, 1, "patch")}))
    begin = scene.commit("begin", {B: "1\n"})
    merged = scene.commit("merge the stack", {A: edit(TEN, 1, "patch")}, begin, stack)
    scene.propose(1, "one", scene.commit("end", {B: "2\n"}, merged), into="stack/production")
    scene.approve(1)
    scene.discover()
    assert scene.found is not None
    assert [pull.merge_base for pull in scene.found.pulls] == [stack]


def test_commits_of_another_branch_are_shared(scene: Scene) -> None:
    work = scene.commit("work of others", {B: "w\n"})
    scene.push("feature", scene.commit("goes on", {B: "ww\n"}, work))
    scene.propose(1, "one", scene.commit("mine", {A: edit(TEN, 1, "m")}, work))
    scene.propose(2, "two", scene.commit("mine too", {A: edit(TEN, 9, "m")}))
    scene.push("two-goes-on", scene.commit("built on it", {B: "b\n"}, Sha(scene.fork.branches["two"])))
    scene.approve(1)
    scene.approve(2)
    assert scene.discover() == Told(pulls=["#1 mine -> base/production", "#2 mine too -> base/production"])
    assert scene.found is not None
    assert [pull.shared for pull in scene.found.pulls] == [True, False]


def test_a_branch_that_moved_on_since_the_admission_is_not_another_branch(scene: Scene) -> None:
    first = scene.propose(1, "fix")
    scene.approve(1)
    scene.push("fix", scene.commit("second", {B: "2\n"}, scene.commit("rebased", {A: edit(TEN, 1, "x")}, first)))
    assert scene.discover() == Told(pulls=["#1 for 1 -> base/production (now second)"])
    assert scene.found is not None
    assert not scene.found.pulls[0].shared


def deploy(scene: Scene) -> Sha:
    """Promote a night, as the release stage does; the tip of ``deploy``."""
    repository = scene.workshop.repository
    octopus = repository.commit(repository.tree_of(scene.base.commit), [scene.base.commit], "octopus\n")
    genesis = repository.commit(repository.tree_of(scene.base.commit), [], "genesis\n")
    return scene.push("deploy", repository.commit(repository.tree_of(octopus), [genesis, octopus], "a night\n"))


def commands(detail: str) -> list[list[str]]:
    """The commands in a sentence, as argv."""
    return [shlex.split(command) for command in detail.split("`")[1].split(" && ")]


@pytest.mark.parametrize("into", ["deploy", "base/production"])
def test_what_stands_on_deploy_is_refused_with_the_command_that_mends_it(
    scene: Scene, tmp_path: Path, into: str
) -> None:
    night = deploy(scene)
    scene.push("stack/production", scene.commit("a patch", {A: edit(TEN, 1, "patch")}))
    scene.propose(1, "mine", scene.commit("b", {B: edit(TEN, 2, "b")}, scene.commit("a", {B: TEN}, night)), into=into)
    scene.label(1)

    reason = "into a deploy branch" if into == "deploy" else "contains a deploy commit"
    assert scene.discover() == Told(refused=[f"#1 excluded: {reason}"])
    detail = scene.detail("#1")
    assert detail.startswith("only promotions move deploy, and it") == (into == "deploy")
    assert detail.endswith("then change its base to stack/production") == (into == "deploy")

    clone = Clone(str(scene.fork.path), tmp_path / "clone", "mine")
    assert [clone.type(*argv[1:]) for argv in commands(detail) if argv[0] == "git"] == [True, True]
    rebased = clone.resolve("HEAD")
    assert rebased is not None
    scene.workshop.repository.fetch(str(clone.folder), [f"+{rebased}:refs/test/rebased"])
    scene.push("mine", rebased)
    if into == "deploy":
        scene.fork.retarget(1, "stack/production", by="bob")
    scene.approve(1)
    told = scene.discover()
    assert [line.split(" -> ")[0] for line in told.pulls] == ["#1 b"]
    assert scene.found is not None
    assert len(scene.store.commits(rebased, f"^{scene.fork.branches['stack/production']}")) == 2


def test_into_deploy_from_the_base_only_its_base_must_change(scene: Scene) -> None:
    deploy(scene)
    scene.propose(1, "mine", into="deploy")
    scene.push("deploy-edge", scene.commit("edge"))
    scene.propose(2, "other", into="deploy-edge")
    assert scene.discover() == Told(refused=[f"#{number} excluded: into a deploy branch" for number in (1, 2)])
    assert scene.detail("#1") == "only promotions move deploy: change its base to base/production"
    assert scene.detail("#2") == "only promotions move deploy-edge: change its base to base/edge"


def test_no_common_history_is_told_and_the_night_goes_on(scene: Scene) -> None:
    scene.propose(1, "alien", scene.workshop.commit("alien", {A: TEN}))
    scene.approve(1)
    scene.propose(2, "fix")
    scene.approve(2)
    assert scene.discover() == Told(pulls=["#2 for 2 -> base/production"], refused=["#1 excluded: no common history"])


# --- gone ---


def test_what_the_last_night_had_and_nobody_lists_any_more(scene: Scene) -> None:
    scene.push("main", scene.commit("this code"))
    heads = {f"#{number}": scene.propose(number, f"fix{number}") for number in range(1, 7)}
    scene.approve(1)
    scene.fork.merge(2, "ann")
    scene.fork.close(3, "bob")
    scene.fork.delete_branch("fix4", "bob")
    scene.fork.retarget(5, "main", by="bob")
    scene.upstream()
    scene.hub.repository("acme/up", fork_of=UPSTREAM)
    head = scene.upstream_commit("up", {B: "up\n"})
    scene.propose(7, "up", head, into="main", repo=UPSTREAM, head_repo="acme/up")
    scene.propose(8, "up", head, into="main", repo=UPSTREAM, head_repo=UPSTREAM, author="stranger")
    previous = {**heads, "#99": head, f"{UPSTREAM}#7": head, f"{UPSTREAM}#8": head, "old/repo#5": head}
    scene.asked()

    assert scene.discover(OWN, TEAM, previous=previous) == Told(
        pulls=["#1 for 1 -> base/production"],
        refused=[
            "#2 gone: merged",
            "#3 gone: closed",
            "#4 gone: closed",
            "#5 skipped: into main: never composed",
            f"#6 {WAITS}",
            "#99 gone: no longer listed",
            f"{UPSTREAM}#7 {WAITS}",
            f"{UPSTREAM}#8 gone: no longer listed",
            "old/repo#5 gone: no longer listed",
        ],
    )
    assert scene.found is not None
    gone = {item.name: item.head for item in scene.found.refused if item.outcome == "gone"}
    assert gone == {name: previous[name] for name in gone}
    alone = {path: count for path, count in scene.asked().items() if path.removesuffix("/reviews")[-1].isdigit()}
    assert {path: count for path, count in alone.items() if not path.endswith("/reviews")} == {
        f"/repos/{FORK}/pulls/{number}": 1 for number in (2, 3, 4, 99)
    }
    assert scene.detail(f"{UPSTREAM}#8").startswith("it is open, and no source in deploy.yaml lists it any more")


def test_one_that_slips_through_the_pages_is_not_gone(scene: Scene) -> None:
    head = Sha("")
    heads = {f"b{number}": scene.commit(f"c{number}") for number in range(1, 4)}
    scene.fork.push_many(heads, "bob")
    for number in range(1, 103):
        scene.fork.open_pull(f"b{1 + number % 3}", "base/production", "bob", number=number)
    scene.fork.review(101, "ann")
    head = Sha(scene.fork.pull(101).head)

    def close_one(request: object, _body: object) -> None:
        scene.hub.observe = None
        scene.fork.close(7, "bob")

    scene.hub.observe = close_one
    none_but = GitHubSource(repo=FORK, into=("base/production",), include=("b3",))
    told = scene.discover(none_but, previous={"#101": head})
    assert told.pulls == ["#101 c3 -> base/production"]


# --- names are only names ---


NAMES = [
    "$(touch${IFS}pwned)",
    "a;b|c&d",
    "quote'\"`x`",
    "(.+)$",
    "ünï/cödé",
    "line\u2028end",
    "--upload-pack=x",
    "bidi\u202eevil",
    "@",
    "100%s%n",
]


def test_any_name_that_git_allows_is_only_a_name(scene: Scene, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES, 1):
        scene.propose(number, f"{name}", title=f"title {name}", author="bob")
        scene.label(number)
    told = scene.discover(GitHubSource(repo=FORK, into=("base/production",), exclude=("nothing(*",)))
    assert told == Told(pulls=[f"#{number} for {number} -> base/production" for number in range(1, len(NAMES) + 1)])
    assert scene.found is not None
    assert [pull.title for pull in scene.found.pulls] == [f"title {name}" for name in NAMES]
    assert not list(tmp_path.rglob("pwned"))


def test_a_title_that_cannot_be_written_down_is_an_escape(scene: Scene) -> None:
    scene.propose(1, "fix", title="half \ud83d of a pair")
    scene.approve(1)
    scene.discover()
    assert scene.found is not None
    assert scene.found.pulls[0].title == r"half \ud83d of a pair"
