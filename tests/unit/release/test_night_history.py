"""The branch ``history/LANE``: what is written onto it, and what is believed of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.unit.release.release_bench import Bench

from patchstack.errors import RemoteError, UsageError
from patchstack.git import EMPTY_TREE, Repository
from patchstack.model import LaneRecord, NightRecord, Sha
from patchstack.release import history
from patchstack.release.history import (
    MOST_BYTES,
    NIGHTS_KEPT,
    NIGHTS_READ,
    Recorded,
    decide_change,
    green_in_a_row,
    history_ref,
    keep_night,
    read_history,
    read_record,
    record_problem,
)
from patchstack.store import encode

LANE = "production"
FIRST = datetime(2026, 11, 1, 2, tzinfo=UTC)
NOW = FIRST + timedelta(days=1000)
REF = history_ref(LANE)
LANE_RECORD = LaneRecord("1-gpu", "16 x Any; 1 x H200", True, (("speed", 100.0),), (("test_gpu.py::test_x", "flaky"),))


def record(day: int = 0, *, promoted: bool = True) -> NightRecord:
    at = FIRST + timedelta(days=day)
    return NightRecord(
        night=f"{at:%Y%m%dT%H%M%SZ}",
        at=at.isoformat(),
        lane=LANE,
        tree=Sha(f"{day:040x}"),
        promoted=promoted,
        node="2 x Any, 8 GiB, no GPU",
        samples=(("cost", 100.0 + day),),
        outcomes=(("tests/regression/x/test_x.py::test_x[a]", "flaky"),),
        quarantined_green=("tests/regression/x/test_x.py::test_q",),
        blamed=(("#41", "CONFIRMED"),),
        lanes=(LANE_RECORD,),
    )


def lane(one: NightRecord, **change: object) -> NightRecord:
    """``one`` with another record of its lane."""
    return replace(one, lanes=(replace(LANE_RECORD, **change),))  # type: ignore[arg-type]


def keep(bench: Bench, day: int = 0) -> str:
    return keep_night(bench.store, bench.url, record(day), NOW)


def read(bench: Bench, store: Repository | None = None) -> Recorded:
    return read_history(store or bench.store, bench.url, LANE, NOW, bench.store.ls_remote(bench.url))


def tip(bench: Bench) -> Sha:
    return bench.store.ls_remote(bench.url, REF)[REF]


def put(bench: Bench, name: str, data: bytes, *, mode: str = "100644") -> None:
    """Somebody else writes a file onto the branch."""
    blob = bench.store.write_blob(data)
    below = bench.store.ls_remote(bench.url, REF).get(REF)
    tree = bench.store.edit_tree(bench.store.tree_of(below) if below else EMPTY_TREE, [(mode, blob, name)])
    commit = bench.store.commit(tree, [below] if below else [], "by hand\n")
    bench.store.push(bench.url, {REF: commit})


# --- a line that only goes forward ---


def test_nights_come_back_as_they_were_kept_the_newest_first(bench: Bench, tmp_path: Path) -> None:
    assert [keep(bench, day) for day in range(3)] == ["", "", ""]
    elsewhere = Repository.init(tmp_path / "elsewhere.git")
    assert read(bench, elsewhere) == Recorded((record(2), record(1), record(0)), ())


def test_no_branch_is_no_night(bench: Bench) -> None:
    assert read(bench) == Recorded((), ())


def test_each_state_is_a_commit_on_the_one_before(bench: Bench) -> None:
    tips = []
    for day in range(3):
        keep(bench, day)
        tips.append(tip(bench))
    assert [bench.store.parents(commit) for commit in tips] == [(), (tips[0],), (tips[1],)]
    assert bench.store.show(tips[2], "%an %ae %at %s").endswith(
        f"{int((FIRST + timedelta(days=2)).timestamp())} history/production: night 20261103T020000Z, promoted"
    )


def test_two_lanes_have_a_branch_each(bench: Bench) -> None:
    keep(bench)
    keep_night(bench.store, bench.url, replace(record(), lane="edge"), NOW)
    listed = bench.store.ls_remote(bench.url)
    assert {name for name in listed if "history" in name} == {REF, "refs/heads/history/edge"}
    assert read(bench).nights == (record(),)


def test_said_twice_is_written_once(bench: Bench) -> None:
    keep(bench)
    before = tip(bench)
    assert (keep(bench), tip(bench)) == ("", before)


def test_a_part_that_runs_again_says_how_it_ended_then(bench: Bench) -> None:
    keep_night(bench.store, bench.url, record(promoted=False), NOW)
    keep_night(bench.store, bench.url, record(), NOW)
    assert read(bench).nights == (record(),)


def test_another_night_of_the_same_second_stays(bench: Bench) -> None:
    keep(bench)
    other = replace(record(), tree=Sha("f" * 40))
    said = keep_night(bench.store, bench.url, other, NOW)
    assert said == "history/production has another night 20261101T020000Z: it stays"
    assert read(bench).nights == (record(),)


def test_another_writer_that_was_quicker_is_built_upon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(bench)
    push, pushes = Repository.push, []

    def late(self: Repository, url: str, refs: dict[str, str]) -> None:
        pushes.append(refs)
        if len(pushes) == 1:
            keep(bench, 1)
        push(self, url, refs)

    monkeypatch.setattr(Repository, "push", late)
    assert keep(bench, 2) == ""
    assert read(bench).nights == (record(2), record(1), record(0))
    assert len(pushes) == 3


# --- a failed write is a note ---


def test_a_remote_that_refuses_costs_the_night_its_place_and_nothing_else(
    bench: Bench, hook: Callable[[str, str], None]
) -> None:
    hook("pre-receive", "echo history is closed >&2\nexit 1")
    said = keep(bench)
    assert said.startswith("this night is not kept in history/production, and later ones have it in no band: ")
    assert "history is closed" in said
    assert REF not in bench.store.ls_remote(bench.url)


def test_a_remote_that_is_gone_is_a_note(bench: Bench, tmp_path: Path) -> None:
    said = keep_night(bench.store, str(tmp_path / "nowhere"), record(), NOW)
    assert said.startswith("this night is not kept in history/production")
    assert "\n" not in said


def test_a_branch_called_history_is_in_the_way(bench: Bench) -> None:
    bench.store.push(bench.url, {"refs/heads/history": bench.base().commit})
    assert keep(bench).startswith("this night is not kept in history/production")


def test_a_branch_that_is_not_handed_over_is_an_error(bench: Bench) -> None:
    with pytest.raises(RemoteError, match="fetching from"):
        read_history(bench.store, bench.url, LANE, NOW, {REF: Sha("1" * 40)})


def test_what_a_reader_would_refuse_is_not_written(bench: Bench) -> None:
    said = keep_night(bench.store, bench.url, replace(record(), node="two\nlines"), NOW)
    assert said == "this night is not kept in history/production: it has names that nobody gives"
    assert REF not in bench.store.ls_remote(bench.url)


# --- what others may have written ---

WRONG: list[tuple[str, Callable[[NightRecord], NightRecord], str]] = [
    ("another lane's", lambda one: replace(one, lane="edge"), "it is of lane 'edge'"),
    ("of tomorrow", lambda one: replace(one, at=(NOW + timedelta(hours=1)).isoformat()), "has not come yet"),
    ("without a zone", lambda one: replace(one, at="2026-11-01T02:00:00"), "its moment is none in UTC"),
    ("at no moment", lambda one: replace(one, at="soon"), "its moment is none in UTC"),
    ("of no tree", lambda one: replace(one, tree=Sha("deploy")), "an id that is none"),
    ("endless", lambda one: replace(one, samples=(("cost", float("inf")),)), "not finite"),
    ("no number", lambda one: replace(one, samples=(("cost", float("nan")),)), "not finite"),
    ("a name of two lines", lambda one: replace(one, samples=(("a\nb", 1.0),)), "names that nobody gives"),
    ("no name", lambda one: replace(one, blamed=(("", "CONFIRMED"),)), "names that nobody gives"),
    ("an escape", lambda one: replace(one, node="\x1b[31m"), "names that nobody gives"),
    ("a test's escape", lambda one: replace(one, outcomes=(("\x1b", "flaky"),)), "names that nobody gives"),
    ("a green one's", lambda one: replace(one, quarantined_green=("\x1b",)), "names that nobody gives"),
    ("too many", lambda one: replace(one, samples=(("cost", 1.0),) * 301), "names that nobody gives"),
    ("a lane's escape", lambda one: lane(one, lane="\x1b"), "names that nobody gives"),
    ("hardware of two lines", lambda one: lane(one, hardware="a\nb"), "names that nobody gives"),
    ("a lane's metric", lambda one: lane(one, samples=(("", 1.0),)), "names that nobody gives"),
    ("a lane's many", lambda one: lane(one, samples=(("cost", 1.0),) * 301), "names that nobody gives"),
    ("many lanes", lambda one: replace(one, lanes=(LANE_RECORD,) * 301), "names that nobody gives"),
    ("a lane's endless", lambda one: lane(one, samples=(("cost", float("inf")),)), "not finite"),
    ("a lane's outcome", lambda one: lane(one, outcomes=(("a", "splendid"),)), "outcomes that no guard has"),
    ("an outcome", lambda one: replace(one, outcomes=(("a", "splendid"),)), "outcomes that no guard has"),
]


@pytest.mark.parametrize(("change", "said"), [pytest.param(change, said, id=name) for name, change, said in WRONG])
def test_what_no_night_would_say_is_none(change: Callable[[NightRecord], NightRecord], said: str) -> None:
    assert record_problem(record(), LANE, NOW) == ""
    assert said in record_problem(change(record()), LANE, NOW)


def test_records_of_before_there_were_lanes_are_read() -> None:
    older = json.loads(encode(record()))
    del older["lanes"]
    found = read_record(f"{record().night}.json", json.dumps(older).encode(), LANE, NOW)
    assert found == replace(record(), lanes=())


def test_a_clock_that_is_a_little_ahead_is_no_reason() -> None:
    assert record_problem(record(), LANE, FIRST - timedelta(minutes=5)) == ""
    assert record_problem(record(), LANE, FIRST - timedelta(minutes=6)) != ""


def test_what_is_no_record_is_named_and_passed_over(bench: Bench) -> None:
    keep(bench)
    text = encode(record(1))
    put(bench, "nights/20261102T020000Z.json", text.replace("promoted", "Promoted").encode())
    put(bench, "nights/20261103T020000Z.json", text.encode())
    put(bench, "nights/20261104T020000Z.json", b"\xff")
    put(bench, "nights/20261105T020000Z.json", b"[" * 10_000)
    put(bench, "nights/20261106T020000Z.json", b" " * (MOST_BYTES + 1))
    put(bench, "nights/20261107T020000Z.json/x", b"{}")
    put(bench, "nights/\x1b[31m.json", b"{}")
    put(bench, "README.md", b"hello\n")
    found = read(bench)
    assert found.nights == (record(),)
    (note,) = found.notes
    assert note == (
        "branch history/production has what is no record of a night, which is passed over: ?[31m.json: no name of a "
        "night; 20261107T020000Z.json: not a file of at most 65536 bytes; 20261106T020000Z.json: not a file of at "
        "most 65536 bytes; and 4 more"
    )
    assert keep(bench, 10) == ""
    assert read(bench).nights == (record(10), record())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff", "it is not UTF-8"),
        (b"{}", "it does not read as a record of this version"),
        (encode(record(1)).encode(), "it is of night '20261102T020000Z'"),
        (json.dumps({**json.loads(encode(record())), "schema_version": 2}).encode(), "does not read"),
    ],
)
def test_a_file_holds_the_record_of_its_name(data: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_record("20261101T020000Z.json", data, LANE, NOW)


def test_a_link_is_no_file_that_is_followed(bench: Bench) -> None:
    keep(bench)
    put(bench, "nights/20261102T020000Z.json", b"20261101T020000Z.json", mode="120000")
    assert (read(bench).nights, len(read(bench).notes)) == ((record(),), 1)


def test_a_folder_of_nights_that_is_a_file_is_no_history(bench: Bench) -> None:
    put(bench, "nights", b"mine\n")
    assert read(bench).nights == ()


# --- how much is kept ---


def names(count: int) -> list[str]:
    return [f"{record(day).night}.json" for day in range(count)]


def test_the_newest_are_kept() -> None:
    held = names(NIGHTS_KEPT)
    assert decide_change(record(NIGHTS_KEPT - 1), held, NOW).dropped == ()
    assert decide_change(record(NIGHTS_KEPT), held, NOW).dropped == (held[0],)
    assert decide_change(record(NIGHTS_KEPT), [*held, "README", "nights.json"], NOW).dropped == (held[0],)


def test_of_nights_in_one_second_the_higher_number_is_the_newer() -> None:
    second = record().night
    held = [f"{second}.json", f"{second}-2.json", f"{second}-10.json", *names(NIGHTS_KEPT)[1:]]
    assert decide_change(record(NIGHTS_KEPT), held, NOW).dropped == tuple(
        sorted(f"{second}{number}.json" for number in ("", "-2", "-10"))
    )
    assert decide_change(record(1), held, NOW).dropped == (f"{second}-2.json", f"{second}.json")


def test_only_the_newest_are_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "NIGHTS_READ", 2)
    for day in range(4):
        keep(bench, day)
    assert read(bench).nights == (record(3), record(2))
    assert NIGHTS_READ <= NIGHTS_KEPT


def test_what_falls_out_is_removed_from_the_branch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "NIGHTS_KEPT", 2)
    for day in (1, 2, 3):
        keep(bench, day)
    assert read(bench).nights == (record(3), record(2))
    before = tip(bench)
    assert (keep(bench, 0), tip(bench)) == ("", before)  # older than all that are kept


def test_nights_to_come_are_none_and_take_nobody_s_place(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few of these would otherwise be the newest for ever, and no number would be held against a band again."""
    monkeypatch.setattr(history, "NIGHTS_KEPT", 2)
    for name in ("99991231T235959Z", "20991301T020000Z", "99999999T999999Z-9999"):
        put(bench, f"nights/{name}.json", encode(record()).encode())
    for day in range(3):
        assert keep(bench, day) == ""
    found = read(bench)
    assert found.nights == (record(2), record(1))
    assert "99991231T235959Z.json: no name of a night" in found.notes[0]


def test_what_is_no_record_takes_no_record_s_place(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "NIGHTS_READ", 2)
    for day in range(3):
        keep(bench, day)
    for day in range(3, 6):
        put(bench, f"nights/{record(day).night}.json", b"{}")
    assert read(bench).nights == (record(2), record(1))


def test_nights_in_a_row() -> None:
    green, other = record(), replace(record(), quarantined_green=())
    test = green.quarantined_green[0]
    assert [green_in_a_row(nights, test) for nights in ((), (green, green, other, green), (other, green))] == [0, 2, 0]
