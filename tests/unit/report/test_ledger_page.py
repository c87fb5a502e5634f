"""The ledger, as a table and as commands to copy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from patchstack.model import Bar, LedgerImage, LedgerLine
from patchstack.report.ledger import ledger_markdown, render_ledger

from . import fixed_night

GOLDEN = Path(__file__).with_name("golden")
WITH_IMAGE = replace(
    fixed_night.LINE,
    channels=("nightly", "stable"),
    image=LedgerImage(
        repository="registry.example.com/acme/sglang",
        digest=f"sha256:{'a' * 64}",
        tag="nightly-20261121-eeeeeee",
        runtime="cuda",
        recipe="1" * 64,
        dependencies=f"sha256:{'b' * 64}",
    ),
)
assert WITH_IMAGE.image is not None
LOCAL = replace(WITH_IMAGE, image=replace(WITH_IMAGE.image, repository="sglang", tag="cpu-20261121-eeeeeee"))


@dataclass(frozen=True)
class _Ledger:
    nights: tuple[LedgerLine, ...]
    lane: str = "production"
    branch: str = "deploy"
    remote: str = "the embedded remote"
    promoted: int = 12
    taken_back: tuple[str, ...] = ()
    said: tuple[LedgerLine, ...] = ()
    held: LedgerLine | None = None
    bars: tuple[tuple[str, Bar], ...] = ()


NIGHTS = _Ledger((WITH_IMAGE, LOCAL, fixed_night.PREVIOUS))


@pytest.mark.parametrize("kind", ["md", "txt"])
def test_the_last_nights(kind: str) -> None:
    text = ledger_markdown(NIGHTS) if kind == "md" else render_ledger(NIGHTS)

    assert "".join(f"{line.rstrip()}\n" for line in text.splitlines()) == (GOLDEN / f"ledger.{kind}").read_text()


def test_no_night_yet() -> None:
    assert render_ledger(_Ledger((), remote="", promoted=0)).splitlines() == [
        "Ledger, lane production",
        "No night was ever promoted to deploy yet; `make nightly` makes the first.",
    ]


def test_a_command_to_copy_is_whole_however_long() -> None:
    assert WITH_IMAGE.image is not None
    repository = "registry.example.com/" + "/".join(["long"] * 40)
    night = replace(WITH_IMAGE, image=replace(WITH_IMAGE.image, repository=repository))
    command = f"docker pull {repository}@sha256:{'a' * 64}"

    assert f": {command}\n" in render_ledger(_Ledger((night,)))
    assert f"`{command}`\n" in ledger_markdown(_Ledger((night,)))
