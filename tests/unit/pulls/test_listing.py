"""The remote is asked once, each head is fetched at the commit that it named, and nothing is lost silently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, Fork, Workshop, edit

from patchstack.errors import RemoteError
from patchstack.git import Repository
from patchstack.model import Sha
from patchstack.pulls.listing import BRANCHES, HEADS, Missing, fetch_exactly, read_listing


@pytest.fixture
def remote(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "remote.git")


def lose_object(repository: Repository, sha: str) -> None:
    (repository.folder / "objects" / sha[:2] / sha[2:]).unlink()


def test_branches_and_heads_are_fetched_at_exactly_what_was_listed(remote: Workshop, repository: Repository) -> None:
    one = remote.pull(12, remote.branch("fix/one", remote.commit("one", {"a": "1"})))
    two = remote.pull(3, remote.commit("two", {"b": "2"}))

    listing = read_listing(repository, remote.url)

    assert (dict(listing.branches), dict(listing.heads), dict(listing.missing)) == (
        {"fix/one": one},
        {3: two, 12: one},
        {},
    )
    assert repository.refs("refs/") == {f"{BRANCHES}fix/one": one, f"{HEADS}12": one, f"{HEADS}3": two}


def test_an_empty_remote_is_an_empty_listing(remote: Workshop, repository: Repository) -> None:
    listing = read_listing(repository, remote.url)
    assert (dict(listing.branches), dict(listing.heads), dict(listing.missing)) == ({}, {}, {})


def test_what_is_no_pull_requests_head_is_not_taken_for_one(remote: Workshop, repository: Repository) -> None:
    commit = remote.commit("one", {"a": "1"})
    others = (
        "refs/pull/1/merge",
        "refs/pull/x/head",
        "refs/pull/007/head",
        "refs/pull/0/head",
        "refs/elsewhere/pull/1/head",
    )
    remote.repository.set_refs(dict.fromkeys(others, commit))
    assert dict(read_listing(repository, remote.url).heads) == {}


def test_a_remote_that_cannot_be_read_is_an_error(tmp_path: Path, repository: Repository) -> None:
    with pytest.raises(RemoteError, match="nowhere"):
        read_listing(repository, str(tmp_path / "nowhere"))


def test_a_second_listing_follows_what_moved_went_and_made_room(remote: Workshop, repository: Repository) -> None:
    old = remote.commit("old", {"a": "1"})
    remote.branch("topic", old)
    remote.pull(1, old)
    remote.pull(2, old)
    read_listing(repository, remote.url)

    new = remote.commit("new", {"a": "2"})
    remote.repository.set_refs({"refs/heads/topic": None, "refs/pull/2/head": None, "refs/pull/1/head": new})
    remote.branch("topic/deeper", new)
    read_listing(repository, remote.url)

    assert repository.refs("refs/") == {f"{BRANCHES}topic/deeper": new, f"{HEADS}1": new}


def test_one_head_that_is_missing_costs_only_itself(remote: Workshop, repository: Repository) -> None:
    good = remote.pull(1, remote.commit("good", {"a": "1"}))
    gone = remote.pull(2, remote.commit("gone", {"a": "2"}))
    lose_object(remote.repository, gone)
    hollow = remote.pull(3, remote.commit("its files are gone", {"a": "3"}))
    lose_object(remote.repository, remote.repository.tree_of(hollow))
    late = remote.pull(4, remote.commit("late", {"a": "4"}))

    listing = read_listing(repository, remote.url)

    assert dict(listing.heads) == {1: good, 4: late}
    assert {number: lost.sha for number, lost in listing.missing.items()} == {2: gone, 3: hollow}
    assert repository.refs(HEADS) == {f"{HEADS}1": good, f"{HEADS}4": late}


def test_a_head_that_goes_missing_is_not_replaced_by_the_one_it_had(remote: Workshop, repository: Repository) -> None:
    remote.pull(1, remote.commit("old", {"a": "1"}))
    read_listing(repository, remote.url)
    lose_object(remote.repository, remote.pull(1, remote.commit("new", {"a": "2"})))

    listing = read_listing(repository, remote.url)

    assert (dict(listing.heads), list(listing.missing)) == ({}, [1])
    assert repository.refs(HEADS) == {}


class MovingRemote(Repository):
    """A store that asks a remote which changes right after its first answer."""

    def __init__(self, store: Repository, move: Callable[[], object]) -> None:
        super().__init__(store.folder)
        self.moves = [move]

    def ls_remote(self, url: str, *patterns: str) -> dict[str, Sha]:
        listed = super().ls_remote(url, *patterns)
        if self.moves:
            self.moves.pop()()
        return listed


def test_a_head_that_moves_while_it_is_read_is_taken_as_it_was_listed(remote: Workshop, repository: Repository) -> None:
    old, new = remote.commit("old", {"a": "1"}), remote.commit("new", {"a": "2"})
    remote.pull(1, old)

    listing = read_listing(MovingRemote(repository, lambda: remote.pull(1, new)), remote.url)

    assert (dict(listing.heads), dict(listing.missing)) == ({1: old}, {})


def test_a_head_that_is_rewritten_or_closed_while_it_is_read_is_missing(
    remote: Workshop, repository: Repository
) -> None:
    new = remote.commit("new", {"a": "9"})
    rewritten = remote.pull(1, remote.commit("rewritten", {"a": "1"}))
    closed = remote.pull(2, remote.commit("closed", {"a": "2"}))

    def move() -> None:
        remote.pull(1, new)
        remote.repository.set_refs({"refs/pull/2/head": None})
        lose_object(remote.repository, rewritten)
        lose_object(remote.repository, closed)

    listing = read_listing(MovingRemote(repository, move), remote.url)

    assert dict(listing.heads) == {}
    assert dict(listing.missing) == {
        1: Missing(rewritten, f"it is at {new} now: it moved while it was read"),
        2: Missing(closed, "it is gone: it moved while it was read"),
    }


def test_a_remote_that_goes_away_while_it_is_read_is_an_error(
    remote: Workshop, repository: Repository, tmp_path: Path
) -> None:
    remote.pull(1, remote.commit("one", {"a": "1"}))
    away = MovingRemote(repository, lambda: remote.repository.folder.rename(tmp_path / "elsewhere"))
    with pytest.raises(RemoteError, match=r"remote\.git"):
        read_listing(away, remote.url)


def test_a_remote_that_goes_away_while_a_missing_head_is_looked_for_is_an_error(
    remote: Workshop, repository: Repository, tmp_path: Path
) -> None:
    commits = {f"{HEADS}{number}": remote.commit(f"c{number}", {"a": f"{number}"}) for number in (1, 2)}
    lose_object(remote.repository, commits[f"{HEADS}2"])

    class Leaving(Repository):
        def fetch(self, url: str, refspecs: Sequence[str], *, strict: bool = False) -> None:
            if len(refspecs) == 1 and remote.repository.folder.exists():
                remote.repository.folder.rename(tmp_path / "elsewhere")
            super().fetch(url, refspecs, strict=strict)

    with pytest.raises(RemoteError, match=r"remote\.git cannot be read"):
        fetch_exactly(Leaving(repository.folder), remote.url, {}, commits)


def test_a_head_that_is_no_commit_is_missing(remote: Workshop, repository: Repository) -> None:
    blob = remote.repository.write_blob(b"no commit")
    remote.pull(1, blob)
    assert read_listing(repository, remote.url).missing[1].why == f"{blob} is not a commit"


def test_a_branch_that_cannot_be_fetched_stops_the_night(remote: Workshop, repository: Repository) -> None:
    remote.pull(1, remote.commit("good", {"a": "1"}))
    lose_object(remote.repository, remote.branch("base/production", remote.commit("base", {"a": "0"})))
    with pytest.raises(RemoteError, match="fetching from"):
        read_listing(repository, remote.url)


HOSTILE_CONFIG = """\
[fetch]
	prune = true
	pruneTags = true
	recurseSubmodules = true
	writeCommitGraph = true
[remote "origin"]
	prune = true
[core]
	autocrlf = true
	attributesFile = /nonexistent/attributes
[merge]
	renames = false
	directoryRenames = true
[diff]
	renames = copies
	algorithm = patience
	noprefix = true
[log]
	showSignature = true
[user]
	name = Mallory
"""


def test_the_users_configuration_does_not_change_what_is_kept(
    remote: Workshop, repository: Repository, sealed: Path
) -> None:
    (sealed / ".gitconfig").write_text(HOSTILE_CONFIG)
    one = remote.pull(1, remote.branch("a", remote.commit("one", {"a": "1"})))
    read_listing(repository, remote.url)
    two = remote.pull(2, remote.commit("two", {"a": "2"}, one))
    read_listing(repository, remote.url)
    assert repository.refs("refs/") == {f"{BRANCHES}a": one, f"{HEADS}1": one, f"{HEADS}2": two}


@pytest.mark.parametrize(
    "name",
    [
        "$(touch pwned)".replace(" ", "${IFS}"),
        "a;b|c&d",
        "quote'\"`x`",
        "(.+)$",
        "ünï/cödé",
        "line\u2028end",
        "--upload-pack=x",
        "@",
    ],
)
def test_any_name_that_git_allows_is_only_a_name(tmp_path: Path, name: str) -> None:
    fork = Fork(tmp_path, {A: TEN})
    head = fork.commit(f"subject {name} %H %x00", {A: edit(TEN, 2, "two")}, fork.base.commit, author=f"{name} %an")
    fork.branch(name, fork.commit("more", {A: TEN}, head))
    fork.pull(1, head)

    assert fork.night().included == ["#1 (base/production)"]
    assert fork.read()[0][0].title == f"subject {name} %H %x00"
    assert not list(tmp_path.rglob("pwned"))
