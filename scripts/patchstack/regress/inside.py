"""A lane's tests inside an image: what the program in there is asked, and what its answer means. Pure.

It runs pytest with the bed's plugin by the image's own Python, and prints the record as it grows
(`image/probe/suite.py`), so that nothing of this machine is written to from inside. What it prints is a candidate's to
forge, as a record in the bed is: it is bounded, and read as strictly.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from patchstack.model import GuardOutcome, LaneJob
from patchstack.regress import stacks
from patchstack.regress.execute import STACKS_BEFORE_S
from patchstack.regress.record import RECORD_BYTES, Said, hear_record, unanswered
from patchstack.regress.suites import Suite

ROOT = "/patchstack"
TESTS, HARNESS = f"{ROOT}/tests", f"{ROOT}/harness"
"""Where the repository's tests and pytest are in there, read-only."""
_HOME, _RECORD, _STACKS = "/tmp/home", "/tmp/record.jsonl", f"/tmp/{stacks.NAME}"  # noqa: S108 - the container's own

OUTPUT_BYTES = 16 << 20
"""Of what pytest prints: half of it are the beginning, half the end."""
MOST_BYTES = 4 * (RECORD_BYTES + stacks.MOST_BYTES + OUTPUT_BYTES)
"""Of all that may come out of a container: text within JSON is longer than it is."""

GRACE_S = 30.0
"""What the program in there may take to say what it has, when the time of its tests is up."""

RDMA, MANAGER = "rdma", "kvcm-manager"
MANAGER_VARIABLES = ("KVCM_MANAGER_URL", "KVCM_DEBUG_URL", "KVCM_INSTANCE_GROUP")
"""Which manager, in the environment of the job."""
_LOOPBACK = {
    "SGLANG_HOST_IP": "127.0.0.1",
    "MC_FORCE_TCP": "1",
    "NCCL_SOCKET_IFNAME": "lo",
    "GLOO_SOCKET_IFNAME": "lo",
}
"""What finds its way where loopback is all the network that there is."""


@dataclass(frozen=True)
class Reach:
    """What a lane's tests reach of the machine, beside its GPUs."""

    network: bool = False
    """The machine's own, in which others are; else a loopback of their own."""
    nics: bool = False


def reach(lane: str) -> Reach:
    """RDMA needs NICs in the network that they are in, a manager somewhere else the way there; all others nothing."""
    return Reach(network=lane in (RDMA, MANAGER), nics=lane == RDMA)


def environment(job: LaneJob, ours: Mapping[str, str]) -> dict[str, str]:
    """What tests of ``job`` see beside the image's own variables: of ``ours`` only which manager is meant."""
    outside = reach(job.lane)
    manager = {name: ours[name] for name in MANAGER_VARIABLES if job.lane == MANAGER and ours.get(name)}
    return {
        "PATCHSTACK_FORM": job.form.value,
        "PATCHSTACK_LANE": job.lane,
        "HF_HUB_OFFLINE": "1",
        "HOME": _HOME,
        "TMPDIR": "/tmp",  # noqa: S108 - the container's own
        "TESTBED_NETWORK": "container",
        "PYTHONPYCACHEPREFIX": "/tmp/bytecode",  # noqa: S108
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        "TZ": "UTC",
        **({} if outside.network else _LOOPBACK),
        **manager,
    }


def request(suite: Suite, seen: Mapping[str, str], ours: Sequence[str], limit_s: float) -> str:
    """What the program in the image is asked: ``suite`` for ``limit_s`` seconds, with ``ours`` of the harness."""
    options = ["-p", "testbed.plugin", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", ROOT]
    options += ["--record", _RECORD, "--stacks", _STACKS]
    options += [f"--part-limit={max(limit_s - STACKS_BEFORE_S, limit_s / 2):g}"]
    return json.dumps(
        {
            "argv": ["-m", "pytest", "-q", *options, *(f"{ROOT}/{path}" for path in suite.paths)],
            "environment": dict(seen),
            "support": f"{TESTS}/support",
            "harness": HARNESS,
            "ours": list(ours),
            "record": _RECORD,
            "stacks": _STACKS,
            "most_bytes": {"record": RECORD_BYTES, "stacks": stacks.MOST_BYTES, "output": OUTPUT_BYTES},
            "limit_s": limit_s,
        }
    )


@dataclass(frozen=True)
class Printed:
    """What came out of a container, and how it ended."""

    stdout: str
    stderr: str
    returncode: int
    late: bool = False
    """It was ended from outside, for its time was up."""
    flooded: bool = False
    """It was ended because more came out than a program of ours prints."""
    cut: str = ""
    """Why we ended it ourselves."""


@dataclass(frozen=True)
class _Answer:
    lines: tuple[str, ...]
    stacks: tuple[tuple[str, bytes], ...]
    ended: int | None
    """pytest's own return code; None where nobody said it."""
    late: bool


_NO_LINE = "{}"
"""Which no plugin writes into a record."""


def hear(suite: Suite, printed: Printed, limit_s: float, keep: stacks.Keep | None = None) -> Said:
    """What the tests of ``suite`` said inside, with all that was collected and did not answer as `missing`."""
    if printed.flooded:
        reason = "it printed without end, past the program that runs it: somebody else has written there"
        return Said(tuple(replace(one, outcome=GuardOutcome.CRASH) for one in unanswered(suite, reason)))
    answer = _read(printed.stdout)
    taken = stacks.take_texts(answer.stacks, keep) if keep is not None else {}
    if answer.late or (printed.late and answer.ended is None):
        ended = f"was ended after {limit_s:.0f} s"
    elif answer.ended is not None:
        ended = f"ended with {answer.ended}"
    else:
        ended = f"was ended with its container, which ended with {printed.returncode}"
    killed = answer.ended == -9 or (answer.ended is None and not printed.late and printed.returncode == _KILLED)
    said = hear_record(suite, answer.lines, ended, cut=printed.cut, killed=killed and not answer.late, taken=taken)
    if not answer.lines and not printed.cut:
        # Nobody has come so far as to write a record: what was printed last says why.
        last = next((line.strip() for line in reversed(printed.stderr.splitlines()) if line.strip()), "")
        words = f": {last[:_LONGEST_LINE]}" if last else ""
        said = replace(said, results=tuple(replace(one, reason=f"{one.reason}{words}") for one in said.results))
    return said


_KILLED = 137
_LONGEST_LINE = 300


def _read(stdout: str) -> _Answer:
    """The program's lines; what is none of them stands in the record as a line that no plugin writes."""
    lines: list[str] = []
    found: list[tuple[str, bytes]] = []
    ended, late = None, False
    whole = stdout.split("\n")
    for number, line in enumerate(whole, start=1):
        entry = _entry(line)
        match entry:
            case {"record": str(text), **more} if not more and ended is None:
                lines.append(text)
            case {"stacks": str(name), "base64": str(coded), **more} if not more and ended is None:
                try:
                    found.append((name, base64.b64decode(coded, validate=True)))
                except binascii.Error:
                    lines.append(_NO_LINE)
            case {"ended": int(code), "late": bool(was_late), **more} if not more and ended is None:
                ended, late = code, was_late
            case None if number == len(whole):
                pass  # nothing, or a line that was being written when the container was ended
            case _:
                lines.append(_NO_LINE)
    return _Answer(tuple(lines), tuple(found), ended, late)


def _entry(line: str) -> object:
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found
