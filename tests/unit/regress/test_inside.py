"""What tests inside an image are asked, and what their answer means; with real containers it is in tests/e2e."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from patchstack.model import Form, GuardOutcome, LaneJob, Sha, Shard
from patchstack.regress.inside import Printed, Reach, environment, hear, reach, request
from patchstack.regress.stacks import Keep
from patchstack.regress.suites import Suite

FILE = "tests/regression/gpu/test_it.py"
ONE, TWO = f"{FILE}::test_one", f"{FILE}::test_two"
SUITE = Suite("mine", (FILE,), "d")
JOB = LaneJob("1", "1-gpu", Shard(1, 1, (FILE,)), Sha("c"), Sha("t"), Form.DEVICE, "r@sha256:0", 1, 600.0)
OURS = {"KVCM_MANAGER_URL": "http://manager", "TOKEN": "canary"}
COLLECTED = {"collected": [ONE, TWO]}
PASS, TIMEOUT, CRASH, MISSING = GuardOutcome.PASS, GuardOutcome.TIMEOUT, GuardOutcome.CRASH, GuardOutcome.MISSING


def printed(*entries: object, returncode: int = 0, **more: object) -> Printed:
    """What the program prints: record lines as they are, all else as it stands."""
    lines = [entry if isinstance(entry, str) else json.dumps({"record": json.dumps(entry)}) for entry in entries]
    return Printed("".join(f"{line}\n" for line in lines), "last words\n", returncode, **more)


def passed(test: str) -> dict[str, object]:
    return {"test": test, "outcome": "pass", "duration_s": 1.0}


def ended(code: int, *, late: bool = False) -> str:
    return json.dumps({"ended": code, "late": late})


def said(given: Printed, keep: Keep | None = None) -> list[tuple[str, GuardOutcome, str]]:
    return [(one.test, one.outcome, one.reason) for one in hear(SUITE, given, 60.0, keep).results]


# --- what they are asked -------------------------------------------------------------------------------


def test_only_rdma_and_a_manager_elsewhere_reach_out() -> None:
    assert {lane: reach(lane) for lane in ("1-gpu", "rdma", "kvcm-manager")} == {
        "1-gpu": Reach(),
        "rdma": Reach(network=True, nics=True),
        "kvcm-manager": Reach(network=True),
    }


def test_what_they_see() -> None:
    seen = environment(JOB, OURS)
    assert {name for name in seen if name.startswith("PATCHSTACK_")} == {"PATCHSTACK_FORM", "PATCHSTACK_LANE"}
    assert (seen["PATCHSTACK_FORM"], seen["PATCHSTACK_LANE"], seen["HF_HUB_OFFLINE"]) == ("device", "1-gpu", "1")
    assert (seen["MC_FORCE_TCP"], seen["NCCL_SOCKET_IFNAME"]) == ("1", "lo")
    assert not set(OURS) & set(seen)
    elsewhere = environment(LaneJob(**{**vars(JOB), "lane": "kvcm-manager"}), OURS)
    assert elsewhere["KVCM_MANAGER_URL"] == "http://manager"
    assert "TOKEN" not in elsewhere
    assert not {"MC_FORCE_TCP", "NCCL_SOCKET_IFNAME", "SGLANG_HOST_IP"} & set(elsewhere)


def test_pytest_is_told_to_end_before_it_is_ended() -> None:
    asked = json.loads(request(SUITE, {"A": "b"}, ["pytest"], 100.0))
    assert asked["argv"][-2:] == ["--part-limit=70", f"/patchstack/{FILE}"]
    assert (asked["environment"], asked["ours"], asked["limit_s"]) == ({"A": "b"}, ["pytest"], 100.0)


# --- what the answer means -----------------------------------------------------------------------------


def test_a_record_that_is_whole() -> None:
    assert said(printed(COLLECTED, passed(ONE), passed(TWO), ended(0))) == [(ONE, PASS, ""), (TWO, PASS, "")]


@pytest.mark.parametrize(
    ("end", "more", "one", "two"),
    [
        ((ended(-9),), {}, (CRASH, "pytest ended with -9 while it ran"), "pytest ended with -9"),
        ((ended(-9, late=True),), {}, (TIMEOUT, "pytest was ended after 60 s while it ran"), "was ended after 60 s"),
        ((), {"late": True}, (TIMEOUT, "pytest was ended after 60 s while it ran"), "was ended after 60 s"),
        (
            (),
            {"returncode": 137},
            (CRASH, "pytest was ended with its container, which ended with 137 while it ran"),
            "which ended with 137",
        ),
        ((), {"cut": "time is up"}, (MISSING, "time is up"), "time is up"),
    ],
)
def test_what_did_not_answer(
    end: tuple[str, ...], more: dict[str, object], one: tuple[GuardOutcome, str], two: str
) -> None:
    first, second = said(printed(COLLECTED, {"started": ONE}, *end, **more))
    assert first == (ONE, *one)
    assert second[1] is MISSING
    assert two in second[2]


def test_a_line_that_was_being_written_is_none() -> None:
    given = printed(COLLECTED, passed(ONE), passed(TWO))
    cut = Printed(given.stdout + '{"record": "{\\"test', "", 137)
    assert [outcome for _, outcome, _ in said(cut)] == [PASS, PASS]


@pytest.mark.parametrize(
    "line",
    ["nonsense", "{}", '{"record": 1}', '{"record": "{}", "more": 1}', '{"stacks": "a.txt", "base64": "?"}', "null"],
)
def test_what_the_program_would_not_say_is_a_crash(line: str) -> None:
    found = said(printed(COLLECTED, passed(ONE), line, passed(TWO), ended(0)))
    assert [(test, outcome) for test, outcome, _ in found] == [(ONE, PASS), (TWO, PASS), (FILE, CRASH)]


def test_what_is_said_after_the_end_is_a_crash() -> None:
    assert (FILE, CRASH) in [(test, what) for test, what, _ in said(printed(COLLECTED, ended(0), passed(ONE)))]


def test_a_flood_is_a_crash_of_all() -> None:
    ((test, outcome, reason),) = said(printed(COLLECTED, passed(ONE), flooded=True))
    assert (test, outcome) == (FILE, CRASH)
    assert reason.startswith("it printed without end")


def test_where_pytest_never_began_its_last_words_say_why() -> None:
    assert said(printed(ended(1), returncode=0)) == [
        (FILE, MISSING, "nothing was collected; pytest ended with 1: last words")
    ]


def test_stacks_are_kept_under_plain_names_alone(tmp_path: Path) -> None:
    def stack(name: str) -> str:
        return json.dumps({"stacks": name, "base64": base64.b64encode(b"text").decode()})

    late = {**passed(ONE), "outcome": "timeout", "reason": "late", "stacks": ["a.txt", "../b.txt"]}
    given = printed({"collected": [ONE]}, late, stack("a.txt"), stack("../b.txt"), ended(1))
    keep = Keep(tmp_path / "kept", "logs/stacks/it")
    assert said(given, keep) == [(ONE, TIMEOUT, "late; stacks of every process: logs/stacks/it/a.txt")]
    assert [(path.name, path.read_text()) for path in (tmp_path / "kept").iterdir()] == [("a.txt", "text")]
