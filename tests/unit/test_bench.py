"""`make bench` on a release of a few files: the shape of what it writes, never a time."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.bench import composition, kv_send, kvcm_batch, kvcm_found, pp_found, pp_sync, record
from tests.bench.__main__ import main
from tests.bench.ground import Ground, break_ground
from tests.bench.kv_found import Aborted, Faults, Holding, KvFound, Sending, read_found, write_json
from tests.bench.measure import Cost, Measurement, Patience, Series
from tests.bench.table import show
from tests.unit.builders import Workshop

from patchstack.model import Base

LANE = "production"
CONFIG = """\
schema: 1
fork: {{repo: acme/sglang}}
lanes: {{production: {{upstream: {{git: "{url}", ref: v0.5.12.post1}}, branch: deploy}}}}
pulls: {{sources: [{{refs: "refs/pull/*/head"}}]}}
channels: {{nightly: {{needs: [cpu]}}}}
"""
TOPICS = 10
THIRTY = "".join(f"line {number}\n" for number in range(30))
FILES = {f"python/sglang/m{number}.py": THIRTY for number in range(30)}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A place with an upstream of a few files, no patches, and the bed's suite that every place has."""
    upstream = Workshop(tmp_path / "upstream.git")
    release = upstream.commit("release", FILES)
    upstream.repository.set_refs({"refs/tags/v0.5.12.post1": release})
    place = tmp_path / "place"
    for path, content in {
        "deploy.yaml": CONFIG.format(url=upstream.url),
        "patches/series": "",
        "tests/regression/bed/test_bed.py": "def test_nothing() -> None: ...\n",
    }.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(content)
    return place / "deploy.yaml"


def test_the_file_names_the_machine_and_each_ratio(config: Path, tmp_path: Path) -> None:
    output = tmp_path / "bench"
    options = ["--config", str(config), "--output", str(output), "--repeats", "1", "--release", "lane"]
    sizes = ["--sizes", str(TOPICS), "--decide-sizes", str(TOPICS)]
    assert main([*options, *sizes, "--only", "import", "compose", "decide"]) == 0

    (path,) = output.iterdir()
    assert path.name == "20261121T020000Z.json"
    body: dict[str, Any] = json.loads(path.read_text())
    assert body.keys() == {
        "schema_version",
        "at",
        "machine",
        "load_average_at_start",
        "base",
        "measurements",
        "tallies",
    }
    assert body["machine"].keys() == {"cores", "cpu", "system", "python", "git"}
    assert body["base"].keys() == {"name", "commit", "tree", "composed_on"}
    assert body["base"]["composed_on"] == {name: body["base"][name] for name in ("name", "commit", "tree")}
    rows = {row["key"]: row for row in body["measurements"]}
    assert list(rows) == [
        "base / cold import",
        "compose 10 / git merge loop",
        "heads to commit 10 / git merge loop",
        "first of 10 changed / git merge loop",
        "decide 10 / first plan",
        "decide 10 / git ls-remote",
    ]
    more = {"least_ratios", "ratio_intervals", "compared", "equal"}
    for row in rows.values():
        assert row.keys() == {"key", "ours", "beside", "cpu_ratio", "wall_ratio", *more}
        for side in (row["ours"], row["beside"]):
            assert side.keys() == {"label", "cpu_s", "wall_s", "samples"}
            assert [sample.keys() for sample in side["samples"]] == [{"cpu_s", "wall_s"}]
    assert {row["equal"] for row in rows.values()} == {True}
    assert rows["compose 10 / git merge loop"]["compared"] == "trees; 1 of 10 left out, by whom"


ROW = Measurement("compose 20", Series("ours", (Cost(1.0, 2.0),)), Series("loop", (Cost(4.0, 4.0),)), "trees", True)
MACHINE = record.Machine(2, "a processor", "Linux", "3.11", "2.39.5")


def written(folder: Path, at: str, row: Measurement) -> None:
    record.write(folder, record.encode(at, MACHINE, (0.0, 0.0, 0.0), {}, [row]))


def test_a_later_run_compares_with_the_newest(tmp_path: Path) -> None:
    assert record.newest(tmp_path) is None
    written(tmp_path, "2026-11-20T02:00:00Z", replace(ROW, beside=Series("loop", (Cost(8.0, 8.0),))))
    written(tmp_path, "2026-11-21T02:00:00Z", ROW)
    before = record.newest(tmp_path)

    assert before is not None
    assert (before.at, before.cpu_ratio) == ("2026-11-21T02:00:00Z", {"compose 20 / loop": 0.25})
    console = Console(width=200, file=io.StringIO(), record=True)
    slower = replace(ROW, beside=Series("loop", (Cost(0.5, 1.0),)))
    show(console, replace(MACHINE, cores=4), [slower], before)
    lines = console.export_text().splitlines()
    cells = [part.strip() for line in lines if "compose 20" in line for part in line.strip("│").split("│")]
    figures = ["1.00", "0.50", "2.000", "-", "2.00", "1.00", "2.000", "-", "2.000, 2.000", "0.250"]
    assert cells == ["compose 20", "ours (n=1)", "loop (n=1)", "trees: equal", *figures]
    assert lines[-1] == "'before' is the run of 2026-11-21T02:00:00Z, on another machine or with other versions"


def ground_of(folder: Path, topics: int) -> Ground:
    release = Workshop(folder / "seed.git")
    commit = release.commit("release", FILES)
    base = Base("sglang==0.5.12.post1", "0.5.12.post1", commit, release.repository.tree_of(commit))
    return break_ground(release.repository, base, LANE, topics)


@pytest.mark.parametrize(
    "loop",
    [
        'git merge --quiet --no-ff -m one "$1"',
        composition.LOOP.replace('echo "$head"', "true"),
    ],
    ids=["another-tree", "another-left-out"],
)
def test_a_difference_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    """A loop that stops after the first topic comes to another tree; one that is silent leaves nobody out."""
    monkeypatch.setattr(composition, "LOOP", loop)
    ground = ground_of(tmp_path, topics=TOPICS)

    rows = composition.measure_composition(ground, tmp_path / "turns", Patience(repeats=1, ends_at=0.0))

    assert [row.equal for row in rows] == [False, False, False]


def test_a_pair_that_is_not_the_grounds_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ground = ground_of(tmp_path, topics=TOPICS)
    monkeypatch.setattr(Ground, "pairs", (("#10", ("#8",)),))

    rows = composition.measure_composition(ground, tmp_path / "turns", Patience(repeats=1, ends_at=0.0))

    assert [row.equal for row in rows] == [False, False, False]


def test_the_first_topic_is_another_and_nothing_else(tmp_path: Path) -> None:
    ground = ground_of(tmp_path, topics=3)
    before = ground.with_another_first()
    assert before.pulls[1:] == ground.pulls[1:]
    assert before.pulls[0].head != ground.pulls[0].head
    assert ground.seed.parents(before.pulls[0].head) == (ground.base.commit,)


def test_status_is_beside_what_git_says_of_as_many_nights(config: Path, tmp_path: Path) -> None:
    options = ["--config", str(config), "--output", str(tmp_path / "bench"), "--repeats", "1", "--only", "status"]
    assert main(options) == 0
    (path,) = (tmp_path / "bench").iterdir()
    (row,) = json.loads(path.read_text())["measurements"]
    assert (row["key"], row["equal"]) == ("status 30 / git ls-remote + git log", True)


def test_the_interval_is_that_of_the_median() -> None:
    """Of 100 values it lies between the 41st and the 60th in 95 of 100 cases."""
    ours = Series("ours", tuple(Cost(float(n), 1.0) for n in range(100, 0, -1)))
    beside = Series("beside", (Cost(1.0, 1.0),) * 100)
    assert Measurement("x", ours, beside, "", True).ratio_intervals == ((41.0, 50.5, 60.0), (1.0, 1.0, 1.0))
    assert ROW.ratio_intervals is None


FOUND = KvFound(
    plain_sending=Sending([Cost(1.0, 1.0)], whole=16, rooms=16),
    composed_sending=Sending([Cost(1.0, 1.0)], whole=16, rooms=16),
    plain_faults=Faults(rooms=200, completed=24, injected=1),
    composed_faults=Faults(rooms=200, completed=200, injected=8),
    plain_aborted=Aborted(in_engine_bytes=64, sent_bytes=1028, room_bytes=1024),
    composed_aborted=Aborted(in_engine_bytes=64, sent_bytes=64, room_bytes=1024),
    holding=[Holding(30, [Cost(1.0, 1.0)], [Cost(1.0, 1.0)], [28], [28], expected=28, most_held=4)],
)


@pytest.mark.parametrize(
    ("found", "equal"),
    [
        (FOUND, [True, True, True, True]),
        (replace(FOUND, plain_sending=replace(FOUND.plain_sending, whole=15)), [False, True, True, True]),
        (replace(FOUND, holding=[replace(FOUND.holding[0], on_answered=[27])]), [True, False, True, True]),
        (replace(FOUND, composed_faults=replace(FOUND.composed_faults, completed=199)), [True, True, False, True]),
        (replace(FOUND, composed_aborted=replace(FOUND.composed_aborted, sent_bytes=128)), [True, True, True, False]),
    ],
    ids=["good", "bytes-lost", "answer-lost", "room-lost", "sent-after-an-abort"],
)
def test_what_must_be_equal_of_the_kv_path(found: KvFound, equal: list[bool]) -> None:
    measurements, tallies = kv_send.rows(found)
    assert [row.equal for row in (*measurements, *tallies)] == equal


def test_what_the_bed_found_comes_back_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "found.json", FOUND)
    assert read_found(tmp_path / "found.json") == FOUND


def kvcm_batches(right: int) -> kvcm_found.KvcmFound:
    cost = [Cost(0.002, 0.001)] * 3
    return kvcm_found.KvcmFound([kvcm_found.Batches(2, cost, cost, [Cost(0.004, 0.002)] * 3, right=right, expected=9)])


def test_a_batch_of_kvcm_is_beside_two_others() -> None:
    rows = kvcm_batch.rows(kvcm_batches(right=9))
    assert [(row.beside.label, row.wall_ratio, row.equal) for row in rows] == [
        ("same header + all_reduce", 1.0, True),
        ("broadcast_object_list + all_reduce", 0.5, True),
    ]
    assert [row.equal for row in kvcm_batch.rows(kvcm_batches(right=8))] == [False, False]


def test_batches_of_kvcm_come_back_whole(tmp_path: Path) -> None:
    found = kvcm_batches(right=9)
    kvcm_found.write_json(tmp_path / "found.json", found)
    assert kvcm_found.read_found(tmp_path / "found.json") == found


def rounds_of_stages(same: bool) -> pp_found.Rounds:
    return pp_found.Rounds("idle", 2, [Cost(0.004, 0.002)] * 6, [Cost(0.001, 0.001)] * 6, same_trees=same)


def test_a_round_of_stages_is_beside_one_with_the_switch_off() -> None:
    row = pp_sync.row(rounds_of_stages(same=True))
    said = (row.name, row.ours.label, row.beside.label, row.cpu_ratio, row.equal)
    assert said == ("HiCache round, 2 stages, idle", "pp-sync on", "pp-sync off", 4.0, True)
    assert not pp_sync.row(rounds_of_stages(same=False)).equal


def test_rounds_of_stages_come_back_whole(tmp_path: Path) -> None:
    found = [rounds_of_stages(same=True)]
    pp_found.write_json(tmp_path / "found.json", found)
    assert pp_found.read_found(tmp_path / "found.json") == found
