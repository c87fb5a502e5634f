from __future__ import annotations

from pathlib import Path

import pytest

from patchstack.errors import MachineError, RemoteError
from patchstack.git import Repository
from patchstack.release.hold import hold
from patchstack.release.ledger import History
from patchstack.release.promote import promote
from patchstack.release.remote import RemoteState, ensure_embedded_remote, read_remote
from patchstack.release.tags import tag_faults

from .release_bench import BRANCH, FIRST, LANE, Bench


def _everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_it_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "state" / "remote.git"
    url = ensure_embedded_remote(path)
    before = _everything(path)

    assert ensure_embedded_remote(path) == url == str(path)
    assert _everything(path) == before
    assert (path / "HEAD").read_text() == "ref: refs/heads/deploy\n"


def test_a_half_made_one_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "remote.git"
    Repository.init(path)

    ensure_embedded_remote(path)

    remote = Repository(path)
    assert remote.run("config", "receive.denyNonFastForwards") == "true"
    assert remote.run("config", "receive.denyDeletes") == "true"


@pytest.mark.parametrize("branch", ["deploy", "base/production", "topic"])
def test_a_branch_goes_forward_only_and_stays(bench: Bench, branch: str) -> None:
    bench.night(bench.compose())
    root = bench.foreign()
    tip = bench.refs().get(f"refs/heads/{branch}") or bench.foreign(root)
    bench.store.push(bench.url, {f"refs/heads/{branch}": tip})

    for refspec, why in ((f"+{root}:refs/heads/{branch}", "non-fast-forward"), (f":refs/heads/{branch}", "deletion")):
        answer = bench.store.attempt("push", bench.url, refspec)
        assert answer.returncode == 1
        assert why in answer.stderr

    assert bench.refs()[f"refs/heads/{branch}"] == tip


def test_a_pull_request_may_be_rewritten_and_closed(bench: Bench) -> None:
    root = bench.foreign()
    for refspec in (f"{bench.foreign(root)}:refs/pull/1/head", f"+{root}:refs/pull/1/head", ":refs/pull/1/head"):
        assert bench.store.attempt("push", bench.url, refspec).returncode == 0

    assert bench.refs() == {}


def test_something_else_in_its_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "remote.git"
    path.mkdir()
    (path / "notes").write_text("mine")

    with pytest.raises(MachineError) as error:
        ensure_embedded_remote(path)

    assert str(error.value) == f"{path} is not a git repository, and not empty; move it away and run again"
    assert [item.name for item in path.iterdir()] == ["notes"]


def test_an_empty_remote_has_nothing_of_a_lane(bench: Bench) -> None:
    assert bench.read() == RemoteState(LANE, BRANCH, None, None, None, History(()), ())


def test_only_the_refs_that_are_meant_are_read(bench: Bench) -> None:
    """ls-remote matches patterns against the end of a name."""
    commit = bench.foreign()
    bench.store.push(
        bench.url,
        {
            "refs/heads/x/refs/heads/deploy": commit,
            "refs/tags/nightly-20261121-abcdef0": commit,
            "refs/tags/edge-nightly-20261121-abcdef0": commit,
            "refs/heads/x/refs/tags/nightly-1": commit,
        },
    )

    assert bench.read() == RemoteState(
        LANE, BRANCH, None, None, None, History(()), (("nightly-20261121-abcdef0", commit),)
    )


def test_what_it_reads_is_the_remote_and_not_the_memory(bench: Bench, tmp_path: Path) -> None:
    """A second machine promoted in between."""
    bench.night(bench.compose("a"))
    elsewhere = Bench(Repository.init(tmp_path / "elsewhere.git"), bench.remote)
    theirs = elsewhere.night(elsewhere.compose("b"), day=1)

    ours = bench.night(bench.compose("c"), day=2)

    assert ours.previous == theirs.commit
    assert [night.line.night for night in bench.read().history.nights] == [
        "20261123T020000Z",
        "20261122T020000Z",
        "20261121T020000Z",
    ]


def test_a_remote_that_cannot_be_asked_is_an_error(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="cannot be read"):
        read_remote(repository, str(tmp_path / "none.git"), lane=LANE, branch=BRANCH)


def test_a_branch_that_begins_at_another_lane_s_has_none_of_its_nights_and_holds(bench: Bench) -> None:
    bench.night(bench.compose("a"))
    remote = bench.read()
    held = hold(remote, at=FIRST, reason="")
    promote(bench.store, bench.url, held)
    bench.store.push(bench.url, {"refs/heads/deploy-edge": held.promotion.commit})

    begun = bench.read("edge", "deploy-edge").history
    assert (begun.entries, begun.foreign_on_top, tag_faults(begun.entries, ())) == ((), 3, ())
    made = bench.night(bench.compose("b", lane="edge"), day=1, branch="deploy-edge")

    assert [entry.line for entry in bench.read("edge", "deploy-edge").history.entries] == [made.line]
    assert bench.read().history.hold is not None
