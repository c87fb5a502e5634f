"""One issue a signal: what is raised, when it has gone, and what a night does not know."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from patchstack.model import LedgerLine, LeftOut, NightReport, Outcome, Reason, Refusal, Verdict
from patchstack.report.marker import SignalMarker, signal_of
from patchstack.report.place import Place
from patchstack.report.signals import gone, no_night, overdue, ran_again, signals

from . import fixed_lanes, fixed_night

PLACE = Place("acme/sglang", "https://github.com", "https://github.com/acme/sglang/actions/runs/7")
CONFLICT = fixed_night.LEFT_OUT[0]
REFUSED = replace(fixed_night.STOPPED, refused=Refusal("zmq-locked-sends", ("python/sglang/srt/a.py",)))
ON_THE_BASE = replace(CONFLICT, name="#47", twins=())
UNFINISHED = replace(fixed_night.NIGHT, tests=None, verdicts=(), promotion=None)
"""Composed and packed; the parts after that never spoke."""
NO_REMOTE = replace(
    fixed_night.NIGHT,
    composition=None,
    tests=None,
    verdicts=(),
    promotion=None,
    failure="the remote did not answer",
    exit_code=8,
)


def with_left_out(*items: LeftOut) -> NightReport:
    return replace(fixed_night.NIGHT, composition=replace(fixed_night.COMPOSITION, left_out=items))


def keys(report: NightReport) -> list[str]:
    return [signal.key for signal in signals(report, PLACE)]


@pytest.mark.parametrize(
    ("report", "raised"),
    [
        (fixed_night.NIGHT, ["conflict:#41:#43", "conflict:#43:zmq-locked-sends"]),
        (fixed_night.RED, ["conflict:#41:#43", "conflict:#43:zmq-locked-sends", "red-night"]),
        (REFUSED, ["patch:zmq-locked-sends"]),
        (fixed_night.STOPPED, ["red-night"]),
        (NO_REMOTE, ["red-night"]),
        (fixed_night.NOTHING_TO_DO, []),
        (UNFINISHED, ["conflict:#41:#43", "conflict:#43:zmq-locked-sends"]),
        (with_left_out(ON_THE_BASE), ["conflict:#47:~base"]),
        (with_left_out(replace(CONFLICT, twins=("#50",)), replace(CONFLICT, twins=("#50",))), ["conflict:#43:#50"]),
        (with_left_out(replace(CONFLICT, reason=Reason.REQUIRED_LEFT_OUT)), []),
    ],
    ids=[
        "promoted",
        "red",
        "refused",
        "exit 4 of no patch",
        "no remote",
        "nothing",
        "unfinished",
        "base",
        "twice",
        "-",
    ],
)
def test_what_is_raised(report: NightReport, raised: list[str]) -> None:
    assert keys(report) == raised


def test_a_pair_has_one_key_whoever_of_them_comes_first() -> None:
    turned = replace(CONFLICT, name="#41", twins=("#43",))

    assert keys(with_left_out(replace(CONFLICT, twins=("#41",)))) == keys(with_left_out(turned))


def test_a_conflict() -> None:
    signal, _ = signals(fixed_night.NIGHT, PLACE)

    assert signal.title == "Lane `production`: `#43` conflicts with `#41`"
    assert (
        signal.body
        == """\
<!-- patchstack:signal v1 lane=production key=conflict:#41:#43 -->

They do not merge, so the later one is left out of every night until one of them is mended.

### Who

- Left out: [`#43`](<https://github.com/acme/sglang/pull/43>) `title of #43` by `mallory` at `444444444444`
- With: [`#41`](<https://github.com/acme/sglang/pull/41>) `fix/metrics` by `mallory` at `333333333333`
- It conflicts with these too: `zmq-locked-sends`

### Files

- `python/sglang/srt/a.py`
- `python/sglang/srt/b.py`

### What to do

- Rebase it: `git rebase --onto stack/production 4444444`.
"""
    )


def test_a_red_night_names_the_lanes_that_are_red_on_what_they_are_for() -> None:
    """Neither what did not answer nor a rehearsal is: the verdicts say what is missing."""
    (_, _, red) = signals(fixed_lanes.RED, PLACE)
    _, found, rest = red.body.partition("### Other lanes\n\n")
    lines, _, _ = rest.partition("\n\n###")

    assert found
    assert lines == (
        "- Lane `1-gpu` is red on `1 x NVIDIA H200, 140 GiB`: 1 pass, 1 fail, 1 flaky.\n"
        "- `tests/regression/gpu/test_pd_abort.py::test_those_who_stay_are_told_the_same` of `1-gpu`: **fail**: "
        "AssertionError: 198 of 200\n"
        "- `answers-a-second`: **fail**, of `tests/regression/gpu/test_hicache_pp.py::test_one_stage`. "
        "29.7% worse than the median of 5 nights (100.2)."
    )


def test_a_night_without_other_lanes_does_not_speak_of_them() -> None:
    assert not [signal for signal in signals(fixed_night.RED, PLACE) if "Other lanes" in signal.body]


def test_a_conflict_does_not_change_with_the_night() -> None:
    later = replace(fixed_night.NIGHT, night="20261122T020000Z", at="2026-11-22T02:00:00Z", headline="FAIL")  # type: ignore[arg-type]

    assert signals(later, replace(PLACE, run_url="")) == signals(fixed_night.NIGHT, PLACE)


def test_a_pull_request_of_another_repository_is_not_linked() -> None:
    """GitHub would tell that repository's readers of it."""
    (signal,) = signals(with_left_out(replace(CONFLICT, name="sgl-project/sglang#41", twins=("#41",))), PLACE)

    assert signal.key == "conflict:#41:sgl-project/sglang#41"
    assert "Left out: `sgl-project/sglang#41` `title of #43` by" in signal.body


def test_a_patch_that_does_not_apply() -> None:
    (signal,) = signals(REFUSED, PLACE)

    assert signal.title == "Lane `production`: patch `zmq-locked-sends` does not apply any more"
    assert (
        signal.body
        == """\
<!-- patchstack:signal v1 lane=production key=patch:zmq-locked-sends -->

Patch `zmq-locked-sends` stops every night of lane `production` until it is mended.

### What stopped it

- patch zmq-locked-sends does not apply:
- python/sglang/srt/a.py: hunk 2, in `Manager.send`: cut it again

### Files

- `python/sglang/srt/a.py`

### What to do

- Open it in a work tree: `patchstack patch edit zmq-locked-sends FOLDER`.
- Write it back with `patchstack patch export zmq-locked-sends --from FOLDER` and open a pull request.
"""
    )


def test_a_red_night() -> None:
    signal = signals(fixed_night.RED, PLACE)[-1]

    assert signal.title == "Lane `production`: the night is FAIL"
    expected = f"""\
<!-- patchstack:signal v1 lane=production key=red-night inputs={"f" * 64} -->

Night `20261121T020000Z` ended with **FAIL** (exit code 1: the gate says FAIL, or a patch is not proven). Nothing was moved: what is deployed stays night `20261120T020000Z`.

### What stopped it

- channel nightly is FAIL, nothing was moved

### Channels

- `nightly` **FAIL**: `tests/regression/zmq_locked_sends/test_zmq.py::test_two_threads`: fail: AssertionError: frames were mixed

### Not green

- `tests/regression/zmq_locked_sends/test_zmq.py::test_two_threads` on `composed`: **fail**: AssertionError: frames were mixed

### What to do

- Find out who did it by leaving things out: `patchstack test --suite SLUG --without OTHER` for a patch, an entry under `skip` in `deploy.yaml` for a pull request. `docs/operators.md` says under “When a night is not green” what exit code 1 asks.

All of it: [`the workflow's run`](<{PLACE.run_url}>).
"""  # noqa: E501
    assert signal.body == expected


def test_a_first_night_that_is_red_has_no_night_to_stay_at() -> None:
    (*_, signal) = signals(replace(fixed_night.RED, previous=None), PLACE)

    assert "Nothing was moved, and no night was ever promoted." in signal.body


def test_a_night_that_moved_deploy_and_failed_after_that_says_so() -> None:
    (*_, signal) = signals(replace(fixed_night.NIGHT, exit_code=8, failure="the tag was refused"), PLACE)

    assert signal.key == "red-night"
    assert "Moved `deploy` from `777777777777` to `aaaaaaaaaaaa`." in signal.body
    assert "Nothing was moved" not in signal.body


# --- gone, or not known ---

GREEN = "Gone: night `20261121T020000Z` (`2026-11-21T02:00:00Z`)"
KEYS = ("conflict:#1:#2", "patch:x", "red-night", "no-night", "overdue")


@pytest.mark.parametrize(
    ("report", "known"),
    [
        (fixed_night.NIGHT, ["conflict:#1:#2", "patch:x", "red-night", "no-night", "overdue"]),
        (fixed_night.RED, ["conflict:#1:#2", "patch:x", "no-night", "overdue"]),
        (UNFINISHED, ["conflict:#1:#2", "patch:x"]),
        (REFUSED, ["no-night"]),
        (NO_REMOTE, ["no-night"]),
        (fixed_night.NOTHING_TO_DO, ["patch:x", "red-night", "no-night", "overdue"]),
    ],
    ids=["promoted", "red", "unfinished", "refused", "no remote", "nothing"],
)
def test_what_a_night_knows_to_be_gone(report: NightReport, known: list[str]) -> None:
    assert [key for key in KEYS if gone(report, SignalMarker("production", key))] == known


@pytest.mark.parametrize(
    ("report", "key", "line"),
    [
        (fixed_night.NIGHT, "conflict:#1:#2", f"{GREEN} merged what there is without this conflict."),
        (fixed_night.NIGHT, "patch:x", f"{GREEN} composed every patch that it needs."),
        (fixed_night.NIGHT, "red-night", f"{GREEN} is green, and promoted."),
        (fixed_night.RED, "no-night", f"{GREEN} ran to its end and reported."),
        (fixed_night.NIGHT, "overdue", f"{GREEN} ran."),
        (
            fixed_night.NOTHING_TO_DO,
            "red-night",
            f"{GREEN} had nothing to do: its inputs are those of night `20261120T020000Z`, which is green.",
        ),
    ],
)
def test_the_line_that_closes_it(report: NightReport, key: str, line: str) -> None:
    assert gone(report, SignalMarker("production", key)) == line


def test_a_red_night_on_the_inputs_of_a_green_one_is_not_gone_because_they_were_green_once() -> None:
    same = SignalMarker("production", "red-night", fixed_night.PREVIOUS.fingerprint)

    assert gone(fixed_night.NOTHING_TO_DO, same) is None
    assert gone(fixed_night.NIGHT, same) == f"{GREEN} is green, and promoted."


# --- no night at all ---


def test_a_run_that_ended_without_a_report() -> None:
    signal = no_night("production", "https://github.com/acme/sglang/actions/runs/8")

    assert (signal.key, signal.title) == ("no-night", "Lane `production`: a night ended without a report")
    assert "- Its log: `https://github.com/acme/sglang/actions/runs/8`\n" in signal.body


@dataclass(frozen=True)
class Sign:
    what: str = "promoted"
    night: str = "20261120T020000Z"
    at: str = "2026-11-20T02:00:00Z"


@dataclass(frozen=True)
class Standing:
    lane: str = "production"
    branch: str = "deploy"
    night: LedgerLine | None = fixed_night.PREVIOUS
    newest: Sign | None = Sign()


def test_no_night_for_too_long() -> None:
    signal = overdue(Standing(), PLACE)

    assert (signal.key, signal.title) == ("overdue", "Lane `production`: no night for too long")
    assert (
        "No night was promoted, tested, or found to have nothing to do. The newest that is known: night "
        "`20261120T020000Z`, promoted at `2026-11-20T02:00:00Z`. `deploy` holds night `20261120T020000Z`.\n"
    ) in signal.body
    assert (
        "None is known at all. `deploy` never had a night.\n" in overdue(Standing(night=None, newest=None), PLACE).body
    )


def test_the_watchdog_closes_what_it_opened_and_nothing_else() -> None:
    line = "Gone: night `20261120T020000Z`, promoted at `2026-11-20T02:00:00Z`."

    assert ran_again(Standing(), SignalMarker("production", "overdue")) == line
    assert ran_again(Standing(newest=None), SignalMarker("production", "overdue")) is None
    assert [key for key in KEYS if ran_again(Standing(), SignalMarker("production", key))] == ["overdue"]


# --- markers ---


@pytest.mark.parametrize(
    "marker",
    [
        SignalMarker("production", "conflict:#41:#43"),
        SignalMarker("a--b", "conflict:a--b/c--d#1:#2", "0" * 64),
        SignalMarker("x y=z", "--> <!-- @team"),
    ],
)
def test_a_marker_is_read_back_and_ends_where_it_should(marker: SignalMarker) -> None:
    written = str(marker)

    assert signal_of(f"{written}\r\n\r\ntext") == marker
    assert written.count("--") == 2
    assert written.count(">") == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text\n<!-- patchstack:signal v1 lane=production key=red-night -->",
        "<!-- patchstack:signal v1 lane=production key=red-night",
        "<!-- patchstack:signal v1 lane=production -->",
        "<!-- patchstack:signal v2 lane=production key=red-night -->",
        "<!-- patchstack:pull v1 lane=production state=red-night -->",
        " <!-- patchstack:signal v1 lane=production key=red-night -->",
    ],
)
def test_what_is_no_marker(text: str) -> None:
    assert signal_of(text) is None


def test_what_is_long_is_cut_and_says_where_the_rest_is() -> None:
    red = replace(
        fixed_night.RED,
        failure="\n".join(f"line {number}" for number in range(40)),
        verdicts=(Verdict("nightly", fixed_night.RED.headline, tuple(f"reason {n}" for n in range(40))),),
    )
    body = signals(red, PLACE)[-1].body

    assert ("- line 29\n\n10 more in the report\n" in body, "line 30" in body) == (True, False)
    files = replace(CONFLICT, files=tuple(f"f{number}.py" for number in range(35)), outcome=Outcome.EXCLUDED)
    assert "- `f29.py`\n\n5 more in the report\n" in signals(with_left_out(files), PLACE)[0].body
