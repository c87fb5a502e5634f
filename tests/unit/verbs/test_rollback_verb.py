"""`patchstack rollback`, `hold` and `release-hold` on a real remote: what moves, what is barred, what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.unit.release.release_bench import FIRST, GREEN, Bench
from tests.unit.verbs.fork_bench import TWO_LANES

from patchstack.cli import main_group
from patchstack.errors import Incomplete, MachineError, NightRunning, RemoteError, UsageError
from patchstack.git import Repository
from patchstack.lock import night_lock
from patchstack.model import Action, Bar, Barring, Composition, Kind, Promotion, Sha, Topic
from patchstack.release.hold import require_promotable
from patchstack.release.ledger import History, format_message
from patchstack.release.promote import Source, decide
from patchstack.release.remote import ensure_embedded_remote
from patchstack.verbs import rollback as verb


@dataclass
class Fork:
    """Nights of one day each on a remote, and the command line on it; the clock is that of the newest of both."""

    folder: Path
    bench: Bench
    monkeypatch: pytest.MonkeyPatch
    day: int = 0

    def tick(self) -> None:
        self.day += 1
        self.monkeypatch.setenv("PATCHSTACK_NOW", (FIRST + timedelta(days=self.day - 1)).isoformat())

    def compose(self, text: str, *pulls: int) -> Composition:
        """The patch ``fix``, and pull requests whose heads follow from their numbers and ``text``."""
        made = self.bench.compose(text)
        topics = [
            replace(made.included[0], name=f"#{number}", kind=Kind.PULL, head=self.head(number, text))
            for number in pulls
        ]
        return replace(made, included=(*made.included, *topics))

    def head(self, number: int, text: str) -> Sha:
        return self.bench.store.commit(self.bench.tree(pull=f"{number}{text}"), (), f"{number} {text}\n")

    def night(self, text: str, *pulls: int) -> Promotion:
        self.tick()
        return self.bench.night(self.compose(text, *pulls), self.day - 1)

    def nights(self, *texts: str) -> list[Promotion]:
        return [self.night(text) for text in texts]

    def run(self, *argv: str, before: tuple[str, ...] = ()) -> Result:
        base = ("--config", str(self.folder / "deploy.yaml"), "--remote", self.bench.url, *before)
        return CliRunner().invoke(main_group, [*base, *argv])

    def done(self, *argv: str) -> dict[str, Any]:
        """What the verb says as JSON, a day later."""
        self.tick()
        done = self.run(*argv, "--json")
        assert done.exit_code == 0, done.exception or done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def refused(self, said: str, *argv: str) -> None:
        """A wrong request: its own error, and nothing on the remote has moved; with --dry-run it is the same."""
        before = self.bench.refs()
        for more in ((), ("--dry-run",)):
            done = self.run(*argv, *more)
            assert isinstance(done.exception, UsageError), done.exception
            assert str(done.exception) == said
        assert self.bench.refs() == before

    @property
    def history(self) -> History:
        return self.bench.read().history

    @property
    def deploy(self) -> Sha:
        return self.bench.refs()["refs/heads/deploy"]

    @property
    def files(self) -> dict[str, str]:
        """What is deployed, by file."""
        names = self.bench.remote.run("ls-tree", "--name-only", "-r", "refs/heads/deploy").split()
        return {name: self.bench.remote.run("show", f"refs/heads/deploy:{name}") for name in names}


@pytest.fixture
def fork(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fork:
    (tmp_path / "deploy.yaml").write_text(TWO_LANES)
    bench = Bench(repository, Repository(Path(ensure_embedded_remote(tmp_path / "remote.git"))))
    return Fork(tmp_path, bench, monkeypatch)


def test_a_rollback_is_one_more_commit_with_the_older_content(fork: Fork) -> None:
    one, two, three = fork.nights("a", "b", "c")
    told = fork.done("rollback", "--reason", "  it   crashes ")

    assert told["line"]["bars"] == [{"kind": "plan", "name": three.line.night, "value": three.line.fingerprint}]
    (line,) = [entry.line for entry in fork.history.entries if entry.line.action is Action.ROLLBACK]
    assert (line.night, line.to, line.because) == ("20261124T020000Z", two.line.night, "it crashes")
    assert (line.tree, line.composition, line.included, line.channels) == (
        *(two.line.tree, two.line.composition, two.line.included, two.line.channels),
    )
    assert fork.files == {"base.py": "1", "fix.py": "b"}
    assert fork.bench.remote.parents(fork.deploy) == (three.commit, two.line.composition)
    assert fork.deploy == told["commit"]
    refs = fork.bench.refs()
    assert fork.bench.remote.tree_of(refs["refs/heads/stack/production"]) == two.line.tree
    assert refs[f"refs/tags/nightly-20261124-{two.line.tree[:7]}"] == fork.deploy
    assert refs[f"refs/tags/{three.line.tag}"] == three.commit
    assert [entry.content for entry in fork.history.standing] == [two.line.night, one.line.night]
    assert [ref for ref, _ in told["pushed"]] == [
        "refs/heads/deploy",
        "refs/heads/stack/production",
        f"refs/tags/nightly-20261124-{two.line.tree[:7]}",
    ]
    assert all(refs[ref] == sha for ref, sha in told["pushed"])


def test_the_message_tells_a_rollback_in_git_log(fork: Fork) -> None:
    fork.night("a")
    bad = fork.night("b", 41)
    fork.done("rollback", "--because", "41", "--reason", "it crashes")

    prose = fork.bench.remote.show(fork.deploy, "%B").rpartition("\n\n")[0]
    assert prose.splitlines()[:5] == [
        "production rollback 20261123T020000Z: back to 20261121T020000Z",
        "",
        "Because: it crashes",
        f"Barred: {bad.line.night} {bad.line.fingerprint[:12]}",
        f"Barred: #41 {fork.head(41, 'b')[:12]}",
    ]


@pytest.mark.parametrize("named", ["#41", "41", "acme/sglang#41", "ACME/sglang#41"])
def test_a_pull_request_of_the_fork_is_barred_by_any_of_its_names(fork: Fork, named: str) -> None:
    fork.night("a")
    fork.night("b", 41, 42)
    told = fork.done("rollback", "--because", named, "--because", named)
    assert told["line"]["bars"][1:] == [{"kind": "head", "name": "#41", "value": fork.head(41, "b")}]


def test_a_patch_and_several_can_be_barred(fork: Fork) -> None:
    fork.night("a")
    bad = fork.night("b", 41)
    told = fork.done("rollback", "--because", "fix", "--because", "#41")
    heads = dict(bad.line.included)
    assert [(bar["name"], bar["value"]) for bar in told["line"]["bars"][1:]] == [
        ("fix", heads["fix"]),
        ("#41", heads["#41"]),
    ]


@pytest.mark.parametrize("by", ["night", "tag"])
def test_a_rollback_over_several_nights_bars_each(fork: Fork, by: str) -> None:
    one, two, three = fork.nights("a", "b", "c")
    fork.done("rollback", "--to", getattr(one.line, by))
    assert [(bar.kind, bar.name) for _, bar in fork.history.bars] == [
        (Barring.PLAN, three.line.night),
        (Barring.PLAN, two.line.night),
    ]
    assert fork.files["fix.py"] == "a"


def test_a_rollback_of_a_rollback_goes_below_the_night_that_it_stands_for(fork: Fork) -> None:
    one, two, _ = fork.nights("a", "b", "c")
    fork.done("rollback")
    fork.done("rollback")
    last = fork.history.last
    assert last is not None
    assert (last.content, [bar.name for bar in last.line.bars]) == (one.line.night, [two.line.night])
    assert fork.files["fix.py"] == "a"
    four = fork.night("d")
    assert [entry.content for entry in fork.history.standing] == [four.line.night, one.line.night]
    fork.refused(
        f"--to {two.line.night!r} was taken back already; what can be gone back to: {one.line.night} ({last.line.tag})",
        *("rollback", "--to", two.line.night),
    )


def test_what_is_committed_by_hand_on_top_is_taken_back_as_well(fork: Fork) -> None:
    one, two = fork.nights("a", "b")
    by_hand = fork.bench.foreign(fork.bench.foreign(two.commit))
    fork.bench.store.push(fork.bench.url, {"refs/heads/deploy": by_hand})
    fork.tick()
    done = fork.run("rollback")
    assert done.exit_code == 0, done.exception
    assert "2 commits on top that no promotion made are taken back as well" in done.stderr
    assert fork.bench.remote.parents(fork.deploy) == (by_hand, one.line.composition)
    assert fork.files == {"base.py": "1", "fix.py": "a"}
    assert fork.history.foreign_on_top == 0


def test_what_is_committed_by_hand_can_be_taken_back_alone(fork: Fork) -> None:
    (one,) = fork.nights("a")
    fork.bench.store.push(fork.bench.url, {"refs/heads/deploy": fork.bench.foreign(one.commit)})
    fork.refused(
        f"night {one.line.night} is the only one that stands: nothing to go back to; --to {one.line.night} takes back "
        "what is on top of it",
        "rollback",
    )
    told = fork.done("rollback", "--to", one.line.night)
    assert told["line"]["bars"] == []
    assert fork.files == {"base.py": "1", "fix.py": "a"}
    assert [entry.content for entry in fork.history.standing] == [one.line.night]


def test_what_cannot_be_gone_back_to_is_said_and_nothing_moves(fork: Fork) -> None:
    fork.refused("no night is deployed, so there is none to go back to; run `patchstack nightly`", "rollback")
    one = fork.night("a")
    fork.refused(f"night {one.line.night} is the only one that stands: nothing to go back to", "rollback")
    two = fork.night("b")
    can = f"what can be gone back to: {one.line.night} ({one.line.tag})"
    fork.refused(f"--to 'yesterday' is no night of production; {can}", "rollback", "--to", "yesterday")
    fork.refused(f"--to {two.line.night}: that is what is deployed; {can}", "rollback", "--to", two.line.night)
    fork.refused(f"--because 'x': night {two.line.night} has no such topic; it has: fix", "rollback", "--because", "x")
    fork.refused(
        "--reason 'a\\x1b[31m'...: write one printable line of at most 1,000 letters",
        *("rollback", "--reason", "a\x1b[31m"),
    )


def test_to_bar_what_the_target_has_too_is_refused_with_a_night_without_it(fork: Fork) -> None:
    one = fork.night("a")
    two = fork.compose("b", 41)
    for _ in range(2):
        fork.tick()
        fork.bench.night(two, fork.day - 1)
    head = fork.head(41, "b")[:12]
    fork.refused(
        f"--because '#41': night 20261122T020000Z has it too, at {head}, so going back there keeps it; go back to a "
        f"night without it: --to {one.line.night}",
        *("rollback", "--because", "#41", "--to", "20261122T020000Z"),
    )


def test_a_night_that_was_proven_again_is_no_way_back(fork: Fork) -> None:
    one, two, three = fork.nights("a", "b", "b")
    told = fork.done("rollback")
    assert (told["line"]["to"], fork.files["fix.py"]) == (one.line.night, "a")
    assert told["line"]["bars"] == [{"kind": "plan", "name": three.line.night, "value": two.line.fingerprint}]


def test_a_barred_head_that_an_older_night_has_is_named_when_that_is_gone_back_to(fork: Fork) -> None:
    one, _, _ = fork.night("a", 41), fork.night("b"), fork.night("a", 41)
    fork.done("rollback", "--because", "41")
    fork.tick()
    done = fork.run("rollback", "--to", one.line.night)
    assert done.exit_code == 0, done.exception
    head = fork.head(41, "a")[:12]
    assert f"#41 is deployed again at {head}, which is barred: no night merges it like that" in done.stderr


def test_where_every_night_that_stands_has_one_tree_there_is_nothing_to_go_back_to(fork: Fork) -> None:
    _, two = fork.nights("a", "a")
    fork.refused(f"night {two.line.night} has the tree of all nights that stand: nothing to go back to", "rollback")


def test_the_plan_that_is_gone_back_to_is_not_barred(fork: Fork) -> None:
    one, two, _ = fork.nights("a", "b", "a")
    told = fork.done("rollback", "--to", one.line.night)
    assert told["line"]["bars"] == [{"kind": "plan", "name": two.line.night, "value": two.line.fingerprint}]


def test_a_rollback_that_arrived_says_so_whatever_fails_after_it(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be said again, and go back one more night."""
    one, _ = fork.nights("a", "b")

    def refuse(*_: object) -> tuple[str, ...]:
        raise RemoteError("the remote cannot be read")

    monkeypatch.setattr(verb, "repair", refuse)
    fork.tick()
    done = fork.run("rollback")
    assert str(done.exception) == (
        "rollback 20261123T020000Z is on deploy, do not say it again; what follows from it is looked after by the next "
        "night, for now the remote cannot be read"
    )
    last = fork.history.last
    assert last is not None
    assert last.content == one.line.night


def test_a_rollback_of_which_nobody_knows_whether_it_arrived_names_its_night(
    fork: Fork, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _, _ = fork.nights("a", "b", "c")
    two = fork.history.standing[1].content

    def lost(store: Repository, url: str, refs: Mapping[str, str]) -> None:
        push(store, url, refs)
        fork.bench.remote.folder.rename(fork.folder / "away.git")
        raise RemoteError("the connection broke off")

    push = Repository.push
    monkeypatch.setattr(Repository, "push", lost)
    fork.tick()
    said = str(fork.run("rollback").exception)
    assert f"say it again with `--to {two}` when the remote answers" in said
    (fork.folder / "away.git").rename(fork.bench.remote.folder)
    monkeypatch.setattr(Repository, "push", push)
    fork.tick()
    can = f"what can be gone back to: {one.line.night} ({one.line.tag})"
    fork.refused(f"--to {two}: that is what is deployed; {can}", "rollback", "--to", two)


def test_a_dry_run_says_what_a_rollback_does(fork: Fork) -> None:
    fork.nights("a", "b")
    before = fork.bench.refs()
    fork.tick()
    dry, as_json = fork.run("rollback", "--dry-run"), fork.run("rollback", "--dry-run", "--json")
    assert fork.bench.refs() == before
    assert "Back to night 20261121T020000Z" in dry.stdout
    assert (
        "the plan of night 20261122T020000Z, until it changes or patchstack release-hold 20261122T020000Z" in dry.stdout
    )
    assert "Nothing was written." in dry.stdout
    assert fork.run("rollback", "--json").stdout == as_json.stdout


def test_another_writer_or_another_night_stops_it(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    _, two = fork.nights("a", "b")
    with night_lock(fork.folder / ".patchstack" / "lock"):
        for argv in (("rollback",), ("hold",), ("release-hold",)):
            assert isinstance(fork.run(*argv).exception, NightRunning)
    hook = fork.bench.remote.folder / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    for argv in (("rollback",), ("hold",)):
        assert isinstance(fork.run(*argv).exception, RemoteError)
    assert fork.deploy == two.commit


def test_a_clock_that_is_behind_writes_nothing(fork: Fork) -> None:
    fork.nights("a", "b", "c")
    before = fork.bench.refs()
    fork.monkeypatch.setenv("PATCHSTACK_NOW", FIRST.isoformat())
    for argv in (("rollback",), ("hold",)):
        assert isinstance(fork.run(*argv).exception, MachineError)
    assert fork.bench.refs() == before


# --- hold and release ---


def test_a_hold_changes_nothing_of_what_is_deployed(fork: Fork) -> None:
    one, two = fork.nights("a", "b")
    refs = fork.bench.refs()
    told = fork.done("hold", "--reason", "a release is on")
    assert told["pushed"] == [["refs/heads/deploy", fork.deploy]]
    assert fork.bench.refs() == refs | {"refs/heads/deploy": fork.deploy}
    assert fork.bench.remote.parents(fork.deploy) == (two.commit, two.line.composition)
    assert fork.files["fix.py"] == "b"
    history = fork.history
    assert history.hold is not None
    assert (history.hold.line.at, history.hold.line.because) == ("2026-11-23T02:00:00Z", "a release is on")
    assert [entry.line.night for entry in history.standing] == [two.line.night, one.line.night]


def test_a_hold_keeps_what_was_committed_by_hand(fork: Fork) -> None:
    (one,) = fork.nights("a")
    by_hand = fork.bench.foreign(one.commit)
    fork.bench.store.push(fork.bench.url, {"refs/heads/deploy": by_hand})
    fork.done("hold")
    assert fork.bench.remote.tree_of(fork.deploy) == fork.bench.remote.tree_of(by_hand)
    assert fork.history.hold is not None
    assert (fork.history.foreign_on_top, fork.history.last and fork.history.last.commit) == (1, one.commit)
    fork.done("release-hold")
    assert (fork.files, fork.history.foreign_on_top, fork.history.hold) == ({"other.py": "x"}, 1, None)


def test_what_is_held_is_not_held_again_and_what_is_not_is_not_released(fork: Fork) -> None:
    fork.refused("no night was ever promoted to deploy: there is nothing to hold yet", "hold")
    fork.night("a")
    fork.refused("there is no hold in force; nothing is barred: name what to release", "release-hold")
    fork.refused("'#41' is not barred; nothing is barred", "release-hold", "41")
    fork.done("hold", "--reason", "x")
    fork.refused(
        "promotion is on hold since 2026-11-22T02:00:00Z (x) already: `patchstack release-hold` ends it", "hold"
    )
    fork.done("release-hold")
    fork.refused("there is no hold in force; nothing is barred: name what to release", "release-hold")


def test_what_is_barred_is_released_by_name_and_a_hold_stays(fork: Fork) -> None:
    fork.night("a")
    bad = fork.night("b", 41)
    fork.done("rollback", "--because", "41")
    fork.done("hold")
    fork.refused(
        f"'fix' is not barred; barred are: {bad.line.night}, #41",
        *("release-hold", "41", "fix"),
    )
    told = fork.done("release-hold", "41")
    assert told["line"]["releases"] == ["#41"]
    assert [bar.name for _, bar in fork.history.bars] == [bad.line.night]
    assert fork.history.hold is not None
    fork.done("release-hold", bad.line.night)
    fork.done("release-hold")
    assert (fork.history.bars, fork.history.hold) == ((), None)


def test_nothing_is_promoted_under_a_hold_and_no_barred_plan_or_head(fork: Fork) -> None:
    fork.night("a")
    bad = fork.compose("b", 41)
    fork.tick()
    fork.bench.night(bad, fork.day - 1)
    other = replace(fork.compose("c").fingerprint, digest="other")
    require_promotable(fork.history, bad.fingerprint, bad.included)
    fork.done("rollback", "--because", "41", "--reason", "it crashes")

    def stopped(digest: Any, topics: tuple[Topic, ...]) -> str:
        with pytest.raises(Incomplete) as error:
            require_promotable(fork.history, digest, topics)
        return str(error.value)

    by = "rollback 20261123T020000Z (it crashes)"
    assert stopped(bad.fingerprint, ()) == (
        f"this plan is that of night 20261122T020000Z, which {by} took back: it does not come back as it is. Change "
        "what was wrong with it, or `patchstack release-hold 20261122T020000Z`"
    )
    assert stopped(other, bad.included) == (
        f"#41 is in this plan at {fork.head(41, 'b')[:12]}, which {by} barred: mend it, or `patchstack release-hold "
        "'#41'`"
    )
    newer = replace(bad.included[1], head=fork.head(41, "mended"))
    require_promotable(fork.history, other, (bad.included[0], newer))
    fork.done("hold", "--reason", "a release")
    assert stopped(other, ()) == (
        "promotion is on hold since 2026-11-24T02:00:00Z (a release), nothing was moved; `patchstack release-hold` "
        "ends it"
    )


def test_bars_read_back_as_they_were_written(fork: Fork) -> None:
    fork.night("a")
    bad = fork.night("b", 41)
    fork.done("rollback", "--because", "41")
    assert [bar for _, bar in fork.history.bars] == [
        Bar(Barring.PLAN, bad.line.night, bad.line.fingerprint),
        Bar(Barring.HEAD, "#41", fork.head(41, "b")),
    ]


def test_a_stack_that_is_not_at_hand_leaves_its_line(fork: Fork) -> None:
    """A night of before the ledger named it: nobody knows what its line was made of."""
    fork.tick()
    first = fork.compose("a")
    decided = decide(
        night="n",
        at=FIRST,
        composition=first,
        stack=Source(first.commit, first.tree),
        verdicts=GREEN,
        remote=fork.bench.read(),
    )
    line = replace(decided.promotion.line, stack=None)
    old = fork.bench.store.commit(line.tree, (fork.bench.foreign(), line.composition), format_message(line))
    fork.bench.store.push(fork.bench.url, {"refs/heads/deploy": old})
    fork.night("b")
    stack = fork.bench.refs()["refs/heads/stack/production"]
    fork.done("rollback")
    assert fork.files["fix.py"] == "a"
    assert fork.bench.refs()["refs/heads/stack/production"] == stack
