"""What a ledger tells of its past: which nights stand, what is deployed, held and barred. On values alone.

told("night 1", "night 2", "rollback to 1")     the oldest first, as they happened
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from patchstack.model import Action, Bar, Barring, LedgerLine, Sha
from patchstack.release.ledger import Entry, History, dated_tag, entry_id, repeat_line

BEGIN = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


def sha(text: str) -> Sha:
    return Sha((text.encode().hex() * 40)[:40])


def night(name: str, at: datetime) -> LedgerLine:
    moment = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    return LedgerLine(
        night=name,
        lane="production",
        at=moment,
        base="sglang==1.0",
        base_commit=sha("base"),
        composition=sha(f"octopus {name}"),
        tree=sha(name),
        fingerprint=f"plan {name}",
        included=(("fix", sha(name)), ("#41", sha(name))),
        left_out=(),
        channels=("nightly",),
        tag=dated_tag("production", moment, sha(name)),
        lost=(("#40", "conflict"),),
    )


def told(*events: str) -> History:
    """One entry an hour; ``night NAME``, ``rollback to NAME [bars NAME...]``, ``hold``, ``release [NAME...]``."""
    entries: list[Entry] = []
    for number, event in enumerate(events):
        at = BEGIN + timedelta(hours=number)
        verb, *words = event.split()
        commit, previous = sha(f"commit {number}"), sha(f"commit {number - 1}")
        if verb == "night":
            entries.append(Entry(commit, previous, night(words[0], at)))
            continue
        name, past = f"entry{number}", {entry.line.night: entry.line for entry in entries}
        if verb == "rollback":
            to, names = words[1], words[3:]
            bars = [
                Bar(Barring.HEAD, bar, sha(bar)) if bar[0] == "#" else Bar(Barring.PLAN, bar, f"plan {bar}")
                for bar in names
            ]
            line = repeat_line(past.get(to, entries[0].line), Action.ROLLBACK, name, at, to=to, bars=bars)
        else:
            deployed = History(tuple(reversed(entries))).last
            assert deployed is not None
            line = repeat_line(deployed.line, Action(verb), name, at, releases=words)
        entries.append(Entry(commit, previous, line))
    return History(tuple(reversed(entries)))


def standing(history: History) -> list[str]:
    return [f"{entry.line.action.value[0]}:{entry.content}" for entry in history.standing]


@pytest.mark.parametrize(
    ("events", "stands"),
    [
        ((), []),
        (("night 1", "night 2", "night 3"), ["n:3", "n:2", "n:1"]),
        (("night 1", "night 2", "night 3", "rollback to 2"), ["r:2", "n:1"]),
        (("night 1", "night 2", "night 3", "rollback to 1"), ["r:1"]),
        (("night 1", "night 2", "night 3", "rollback to 2", "night 4"), ["n:4", "r:2", "n:1"]),
        # Back again, to the night that a rollback stands for, and below it.
        (("night 1", "night 2", "night 3", "rollback to 2", "night 4", "rollback to 2"), ["r:2", "n:1"]),
        (("night 1", "night 2", "night 3", "rollback to 2", "night 4", "rollback to 1"), ["r:1"]),
        (("night 1", "night 2", "night 3", "rollback to 2", "rollback to 1"), ["r:1"]),
        (("night 1", "night 2", "rollback to 1", "rollback to 1"), ["r:1"]),
        # To what does not stand any more, or never was there: nothing is taken back by it.
        (("night 1", "night 2", "night 3", "rollback to 1", "rollback to 2"), ["r:2", "r:1"]),
        (("night 1", "night 2", "rollback to 9"), ["r:9", "n:2", "n:1"]),
        (("night 1", "hold", "night 2", "release", "rollback to 1", "hold"), ["r:1"]),
    ],
)
def test_what_stands_is_what_nobody_took_back(events: tuple[str, ...], stands: list[str]) -> None:
    history = told(*events)
    assert standing(history) == stands
    assert (history.last.content if history.last else None) == (stands[0][2:] if stands else None)


def test_what_is_deployed_after_a_rollback_has_the_older_content_and_its_own_id() -> None:
    history = told("night 1", "night 2", "rollback to 1 bars 2", "hold")
    assert history.last is not None
    line, first = history.last.line, history.nights[-1].line
    assert (line.night, line.action, line.to, line.at) == ("entry2", Action.ROLLBACK, "1", "2026-11-21T04:00:00Z")
    assert (line.tree, line.composition, line.included, line.fingerprint, line.channels) == (
        *(first.tree, first.composition, first.included, first.fingerprint, first.channels),
    )
    assert line.lost == ()
    assert [entry.line.night for entry in history.nights] == ["2", "1"]


@pytest.mark.parametrize(
    ("events", "since"),
    [
        (("night 1",), None),
        (("night 1", "hold"), "entry1"),
        (("night 1", "hold", "night 2", "rollback to 1"), "entry1"),
        (("night 1", "hold", "release"), None),
        (("night 1", "hold", "release #41"), "entry1"),
        (("night 1", "release", "hold"), "entry2"),
        (("night 1", "hold", "hold"), "entry2"),
        (("night 1", "hold", "hold", "release"), None),
        (("night 1", "hold", "release", "release #41"), None),
    ],
)
def test_a_hold_is_in_force_until_its_release(events: tuple[str, ...], since: str | None) -> None:
    hold = told(*events).hold
    assert (hold.line.night if hold else None) == since


@pytest.mark.parametrize(
    ("events", "bars"),
    [
        (("night 1", "night 2"), []),
        (("night 1", "night 2", "rollback to 1 bars 2 #41"), ["entry2 2", "entry2 #41"]),
        (("night 1", "night 2", "rollback to 1 bars 2 #41", "night 3", "hold"), ["entry2 2", "entry2 #41"]),
        (("night 1", "night 2", "rollback to 1 bars 2 #41", "release #41"), ["entry2 2"]),
        (("night 1", "night 2", "rollback to 1 bars 2 #41", "release 2 #41"), []),
        (("night 1", "night 2", "rollback to 1 bars 2 #41", "hold", "release"), ["entry2 2", "entry2 #41"]),
        # Barred again after its release; and one release for both, whoever barred it.
        (
            ("night 1", "night 2", "rollback to 1 bars #41", "release #41", "night 3", "rollback to 1 bars #41"),
            ["entry5 #41"],
        ),
        (("night 1", "night 2", "rollback to 1 bars #41", "night 3", "rollback to 1 bars #41", "release #41"), []),
        (
            ("night 1", "night 2", "rollback to 1 bars 2", "night 3", "rollback to 1 bars 3"),
            ["entry4 3", "entry2 2"],
        ),
    ],
)
def test_a_bar_is_in_force_until_its_name_is_released(events: tuple[str, ...], bars: list[str]) -> None:
    assert [f"{entry.line.night} {bar.name}" for entry, bar in told(*events).bars] == bars


def test_an_entry_without_a_run_has_an_id_of_its_own() -> None:
    assert entry_id(told(), BEGIN) == "20261121T020000Z"
    assert entry_id(told("night 20261121T020000Z"), BEGIN) == "20261121T020000Z-2"
    assert entry_id(told("night 20261121T020000Z", "night 20261121T020000Z-2"), BEGIN) == "20261121T020000Z-3"
