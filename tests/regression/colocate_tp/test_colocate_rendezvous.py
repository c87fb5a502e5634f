"""CO-2, CO-3, CO-4, CO-10, CO-12: a client joins its own owner's server, whatever lies at the rendezvous.

Each file that is laid there is right in all but the one thing that its row names, and leads to a neighbour that answers
as the owner's server would.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed import Children, Link
from testbed.colocate_rendezvous import KEY, NONCE, Clock, Meeting
from testbed.colocate_server import PeerServer

SOMEBODY_ELSE = 54_321
"""A user id."""


@pytest.fixture
def meeting(tmp_path: Path) -> Any:
    with Meeting(tmp_path) as meeting:
        yield meeting


def joined(meeting: Meeting) -> str:
    """Whom the client joins when the owner's own file comes while it waits."""
    return meeting.wait([meeting.publish])


# The file.


@pytest.mark.kills("rendezvous-trusted-as-it-lies")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606, 0o700], ids=oct)
def test_a_file_that_others_may_have_written_or_read(meeting: Meeting, mode: int) -> None:
    meeting.put(meeting.fake(), mode)
    assert joined(meeting) == "owner"


@pytest.mark.kills("rendezvous-trusted-as-it-lies")
def test_a_file_with_another_name(meeting: Meeting) -> None:
    os.link(meeting.put(meeting.fake()), meeting.root / "another-name")
    assert joined(meeting) == "owner"


@pytest.mark.kills("rendezvous-trusted-as-it-lies")
def test_a_file_of_another_user(meeting: Meeting) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(meeting.put(meeting.fake()), SOMEBODY_ELSE, SOMEBODY_ELSE)
    assert joined(meeting) == "owner"


@pytest.mark.kills("rendezvous-trusted-as-it-lies")
def test_a_file_that_is_longer_than_any_record(meeting: Meeting) -> None:
    meeting.put(json.dumps(meeting.fake()).encode() + b" " * (64 << 10))
    assert joined(meeting) == "owner"


@pytest.mark.kills("rendezvous-trusted-as-it-lies")
def test_a_file_that_leads_elsewhere(meeting: Meeting) -> None:
    elsewhere = meeting.put(meeting.fake()).rename(meeting.root / "elsewhere")
    meeting.path.symlink_to(elsewhere)
    assert joined(meeting) == "owner"


@pytest.mark.kills("rendezvous-trusted-as-it-lies")
def test_what_is_no_file(meeting: Meeting) -> None:
    """A pipe must not hold the client up, nor a folder end it."""
    os.mkfifo(meeting.path, 0o600)
    assert meeting.wait([meeting.path.unlink, meeting.path.mkdir, meeting.path.rmdir, meeting.publish]) == "owner"


# What it says.


@pytest.mark.kills("rendezvous-trusted-as-it-lies")
def test_what_is_no_record(meeting: Meeting) -> None:
    whole = json.dumps(meeting.fake()).encode()
    missing = meeting.fake()
    del missing["boot_id"]
    rows: dict[str, bytes | dict[str, Any]] = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "followed by another": whole * 2,
        "no text": b"\xff\xfe" + whole,
        "no object": b"[]",
        "a deep list": b"[" * 30_000,
        "a field missing": missing,
        "a field too many": meeting.fake(more=1),
        "another version": meeting.fake(version=2),
        "another status": meeting.fake(status="up"),
        "a number for the address": meeting.fake(url=8000),
        "a text for the process": meeting.fake(pid=str(meeting.owner.pid)),
        "a text for the size": meeting.fake(tp_size="2"),
        "a number for yes": meeting.fake(offloaded=1),
        "devices in one text": meeting.fake(devices="2,5"),
        "other devices": meeting.fake(devices=["2", "6"]),
        "another size": meeting.fake(tp_size=4),
        "no server process": meeting.fake(server_pid=None, server_pid_start_time=None),
        "another machine's address": meeting.fake(url="file:///etc/passwd"),
    }
    found = {}
    for row, said in rows.items():
        meeting.put(said)
        found[row] = meeting.wait([lambda: meeting.put(meeting.record())])
    assert found == dict.fromkeys(rows, "owner")


@pytest.mark.kills("stale-file-accepted")
def test_a_file_of_an_earlier_run(meeting: Meeting) -> None:
    """Its owner may even be the same process, when a trainer makes its engine anew."""
    meeting.put(meeting.fake(nonce=NONCE[::-1]))
    assert joined(meeting) == "owner"


@pytest.mark.kills("stale-file-accepted")
def test_a_failure_of_an_earlier_run(meeting: Meeting) -> None:
    meeting.put(meeting.failed("out of memory", nonce=NONCE[::-1]))
    assert joined(meeting) == "owner"


def dead_process() -> int:
    """The id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


@pytest.mark.kills("health-ignores-owner")
def test_a_process_is_known_by_its_start() -> None:
    from sglang.srt.colocate.process_identity import ProcessIdentity

    here = ProcessIdentity.current()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    zombie = ProcessIdentity.of(ended.pid)
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    alive = {
        "this one": here,
        "started at another time": replace(here, start_time_ticks=here.start_time_ticks + 1),
        "before the machine was started anew": replace(here, boot_id="another"),
        "ended and not waited for": zombie,
    }
    found = {name: identity.is_alive() for name, identity in alive.items()}
    ended.wait()
    assert found == {**dict.fromkeys(alive, False), "this one": True}
    assert not zombie.is_alive()


@pytest.mark.kills("stale-file-accepted")
def test_a_file_of_a_process_that_is_not_the_owner(meeting: Meeting) -> None:
    rows: dict[str, dict[str, Any]] = {
        "ended": meeting.fake(pid=dead_process()),
        "the same number, given again": meeting.fake(pid_start_time=meeting.owner.start_time_ticks - 1),
        "before the machine was started anew": meeting.fake(boot_id="4b2c1c9e-6a53-4bb5-9d3a-1f7a1d1a6f0e"),
        "another that runs": meeting.fake(pid=os.getppid()),
    }
    found = {}
    for row, said in rows.items():
        meeting.put(said)
        found[row] = meeting.wait([lambda: meeting.put(meeting.record())])
    assert found == dict.fromkeys(rows, "owner")


# The server behind it.


@pytest.mark.kills("any-server-will-do")
@pytest.mark.parametrize(
    ("api_key", "tp_size"),
    [
        pytest.param(None, 2, id="says-200-to-every-key"),
        pytest.param(KEY, 4, id="of-another-size"),
    ],
)
def test_a_port_that_another_server_has_taken(meeting: Meeting, api_key: str | None, tp_size: int) -> None:
    with PeerServer(api_key, tp_size) as other:
        meeting.put(meeting.record(url=other.url))
        assert joined(meeting) == "owner"


# The folder.


def opened(root: Path) -> str:
    """Whether SGLang takes the folder below ``root``."""
    from sglang.srt.colocate.errors import RendezvousRefused
    from sglang.srt.colocate.rendezvous import Folder

    try:
        Folder.open(str(root)).close()
    except RendezvousRefused:
        return "refused"
    return "taken"


@pytest.mark.kills("rendezvous-trusted-as-it-lies")
def test_a_folder_that_others_have_made(tmp_path: Path) -> None:
    name, elsewhere = f"sglang-colocate-{os.geteuid()}", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)

    def lay(row: str) -> Path:
        root = tmp_path / row
        root.mkdir(mode=0o700)
        return root / name

    lay("symlink").symlink_to(elsewhere)
    lay("file").write_text("")
    open_to_all = lay("open to all")
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    lay("ours").mkdir(mode=0o700)
    lay("none yet")
    lay("in a root where others may rename").parent.chmod(0o777)
    rows = ("symlink", "file", "open to all", "in a root where others may rename", "ours", "none yet")
    assert {row: opened(tmp_path / row) for row in rows} == {
        **dict.fromkeys(rows, "refused"),
        "ours": "taken",
        "none yet": "taken",
    }


@pytest.mark.kills("rendezvous-trusted-as-it-lies")
def test_a_folder_of_another_user(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    folder = tmp_path / f"sglang-colocate-{os.geteuid()}"
    folder.mkdir(mode=0o700)
    os.chown(folder, SOMEBODY_ELSE, SOMEBODY_ELSE)
    assert opened(tmp_path) == "refused"


def meet_with_umask(link: Link, root: Path, mask: int) -> dict[str, str]:
    """What others may do with what an owner lays down."""
    from sglang.srt.colocate.errors import RendezvousRefused

    os.umask(mask)
    try:
        return laid_down(root)
    except (RendezvousRefused, OSError) as error:
        return {type(error).__name__: str(error)}


def laid_down(root: Path) -> dict[str, str]:
    with Meeting(root) as meeting:
        meeting.publish()
        found = [meeting.path.parent, *meeting.path.parent.iterdir()]
        return {path.suffix: stat.filemode(path.lstat().st_mode) for path in found}


@pytest.mark.kills("umask-trusted")
@pytest.mark.parametrize("mask", [0o000, 0o177], ids=oct)
def test_no_umask_opens_or_shuts_it(children: Children, tmp_path: Path, mask: int) -> None:
    children.start(meet_with_umask, tmp_path, mask)
    assert children.join(60).values() == [{"": "drwx------", ".json": "-rw-------", ".lock": "-rw-------"}]


# Time.


@pytest.mark.kills("failed-status-ignored")
def test_a_failed_start_fails_the_client_at_once(meeting: Meeting) -> None:
    clock = Clock([lambda: meeting.put(meeting.failed("the model does not fit"))])
    assert (meeting.wait(clock=clock), clock.pauses) == ("ColocateStartFailed", 1)


@pytest.mark.kills("client-has-the-owners-budget")
def test_a_slow_owner_is_waited_for(meeting: Meeting) -> None:
    """A second before the client's time is up: after the owner's own, which begins later."""
    clock = Clock()
    begun_s, budget_s = clock.now_s, meeting.settings.client_budget_s
    assert budget_s == meeting.settings.health_timeout_s + 60

    def at_the_last_second() -> None:
        if clock.now_s < begun_s + budget_s - 1:
            clock.then(at_the_last_second)
        else:
            meeting.publish()

    clock.then(at_the_last_second)
    assert meeting.wait(clock=clock) == "owner"
    assert clock.now_s - begun_s >= budget_s - 1


@pytest.mark.kills("client-has-the-owners-budget")
def test_an_owner_that_never_comes_is_not_waited_for(meeting: Meeting) -> None:
    clock = Clock()
    begun_s = clock.now_s
    assert meeting.wait(clock=clock) == "ColocateStartTimeout"
    assert 0 <= clock.now_s - begun_s - meeting.settings.client_budget_s <= meeting.settings.poll_s


def wait_to_be_killed(link: Link) -> None:
    link.receive(None)


@pytest.mark.kills("health-ignores-owner")
def test_an_owner_that_dies_meanwhile(children: Children, tmp_path: Path) -> None:
    """Nothing in its file says so: it says ``starting`` for ever."""
    owner = children.start(wait_to_be_killed)
    with Meeting(tmp_path, owner.pid) as meeting:
        meeting.put(meeting.starting())
        assert meeting.wait([lambda: None, owner.end]) == "ColocateOwnerLost"


# Two owners.


@pytest.mark.kills("owner-knows-no-other")
def test_what_a_successor_has_laid_down_stays(meeting: Meeting) -> None:
    """Somebody has cleaned the folder up under an owner, and another engine of the job has come up since."""
    from sglang.srt.colocate.record import Record
    from sglang.srt.colocate.rendezvous import Folder, OwnerFile

    first = meeting.publish()
    for path in meeting.path.parent.iterdir():
        path.unlink()
    with Folder.open(str(meeting.root)) as folder:
        second = OwnerFile(folder, meeting.name, NONCE[::-1])
        second.acquire()
        said = json.dumps(meeting.record(nonce=NONCE[::-1])).encode()
        second.publish(Record.from_bytes(said))
        before = {path.name: path.stat().st_ino for path in meeting.path.parent.iterdir()}
        first.remove()
        assert {path.name: path.stat().st_ino for path in meeting.path.parent.iterdir()} == before
        second.remove()
        assert not meeting.path.exists()


def acquire(link: Link, root: Path) -> None:
    from sglang.srt.colocate.errors import RendezvousTaken
    from sglang.srt.colocate.rendezvous import OwnerFile

    meeting = Meeting(root)
    owner = OwnerFile(meeting.folder, meeting.name, NONCE)
    while True:
        try:
            owner.acquire()
        except RendezvousTaken:
            link.send("taken")
        else:
            link.send("acquired")
        if link.receive() == "end":
            return


@pytest.mark.kills("owner-knows-no-other")
def test_of_two_owners_one_waits_for_the_other_to_end(children: Children, tmp_path: Path) -> None:
    racers = [children.start(acquire, tmp_path) for _ in range(2)]
    said = [racer.receive() for racer in racers]
    assert sorted(said) == ["acquired", "taken"]
    winner, other = racers[said.index("acquired")], racers[said.index("taken")]
    other.send("again")
    assert other.receive() == "taken"
    winner.end()  # kill -9
    other.send("again")
    assert other.receive() == "acquired"
