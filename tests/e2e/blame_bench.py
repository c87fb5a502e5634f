"""Red nights in a minute: real commits, real pytest in the real bed, guards that read what pull requests have written.

bench = Bench(copy_workplace(tmp_path / "fork", SLUG))
bench.night()                          # the first one publishes the base
bench.pull(7, "break-a")
assert bench.night()["blame"]["left_out"] == ["#7"]
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.test_night import GUARDS, MODULE, Done, Place
from tests.unit.builders import Workshop

from patchstack.git import Repository
from patchstack.model import Sha

WORDS = "python/sglang/words"
"""The folder in which each pull request has a file of words."""
BED = """\
import os
from pathlib import Path

import pytest


@pytest.mark.control
def test_the_release_is_there() -> None:
    assert (Path(os.environ["PATCHSTACK_TREE"]) / "python/sglang/version.py").is_file()
"""
GUARD = f"""\
import os
import random
import sys
from pathlib import Path

import pytest

TREE = Path(os.environ["PATCHSTACK_TREE"])
WORDS = {{word for file in (TREE / "{WORDS}").glob("*.txt") for word in file.read_text().split()}}


def test_the_module_is_there() -> None:
    assert (TREE / "{MODULE}").is_file()


@pytest.mark.control
@pytest.mark.parametrize("word", ["break-a", "break-b", "break-c"])
def test_nobody_says(word: str) -> None:
    assert word not in WORDS


@pytest.mark.control
def test_nobody_says_both() -> None:
    assert not {{"left", "right"}} <= WORDS


@pytest.mark.control
def test_nobody_says_all_three() -> None:
    assert not {{"one", "two", "three"}} <= WORDS
"""
EVERY_OTHER_TIME = f"""\
import os
import sys
from pathlib import Path

TREE = Path(os.environ["PATCHSTACK_TREE"])


def test_every_other_time() -> None:
    \"\"\"It counts beside what Python has compiled of this tree: that stays from one run to the next.\"\"\"
    assert (TREE / "{MODULE}").is_file()
    counter = Path(str(sys.pycache_prefix)) / "counter"
    times = int(counter.read_text()) if counter.is_file() else 0
    counter.write_text(str(times + 1))
    assert times % 2
"""
BY_CHANCE = f"""\
import os
import random
from pathlib import Path

TREE = Path(os.environ["PATCHSTACK_TREE"])


def test_by_chance() -> None:
    assert (TREE / "{MODULE}").is_file()
    assert random.random() > {{rate}}
"""
FAILS_HERE = f"""\
import os
from pathlib import Path

import pytest


@pytest.mark.control
def test_here() -> None:
    assert not (Path(os.environ["PATCHSTACK_TREE"]) / "{MODULE}").is_file()
"""
"""A guard that has changed, or a machine: it fails wherever the patch is, also where it is deployed."""
BROKEN_BED = BED.replace("is_file()", "is_dir()")
ON_A_GPU = """\
import pytest


@pytest.mark.lane("1-gpu", est_s=60, guards=["mooncake-protocol"], owner="@acme/pd")
def test_on_a_gpu() -> None:
    pass
"""
TOLD = f"{GUARDS}/test_words.py"
ONE = f"{TOLD}::test_nobody_says[break-a]"


@dataclass
class Bench:
    """Nights of one workplace, a day apart."""

    place: Place
    day: int = 1
    commits: dict[int, Sha] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in ("tests/regression/bed", GUARDS):
            shutil.rmtree(self.place.root / folder)
        self.write("tests/regression/bed/test_bed.py", BED)
        self.write(TOLD, GUARD)

    def write(self, path: str, text: str) -> None:
        file = self.place.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def change(self, path: str, old: str, new: str) -> None:
        text = (self.place.root / path).read_text()
        assert old in text
        self.write(path, text.replace(old, new))

    def pull(self, number: int, *words: str, onto: Sha | None = None) -> Sha:
        """Open a pull request, or push to it: one commit that writes its file of words."""
        remote = Repository(self.place.remote)
        begin = onto or remote.resolve("refs/heads/base/production")
        assert begin is not None, "the first night publishes the base"
        shop = Workshop(self.place.remote)
        text = "".join(f"{word}\n" for word in (f"pull-{number}", *words))
        made = shop.commit(f"pull {number}", {f"{WORDS}/{number}.txt": text}, begin, when=1_700_000_000 + number)
        self.commits[number] = made
        return shop.pull(number, made)

    def copied(self, place: Place) -> Bench:
        """The same in another folder."""
        other = object.__new__(Bench)
        other.place, other.day, other.commits = place, self.day, dict(self.commits)
        return other

    def run(self, *argv: str) -> Done:
        """A night of the next day, or a part of one."""
        now = f"2026-11-{self.day:02}T02:00:00+00:00"
        return self.place.run("--local", *argv, PATCHSTACK_NOW=now, PATCHSTACK_IMAGE="none")

    def night(self, *argv: str, code: int = 0) -> dict[str, Any]:
        done = self.begin(*argv)
        assert done.code == code, done.err
        return done.json

    def begin(self, *argv: str) -> Done:
        """A night, however it ends."""
        self.day += 1
        return self.run("nightly", "--json", *argv)

    def deployed_tree(self) -> str:
        return self.place.git("rev-parse", "refs/heads/deploy^{tree}")

    def says(self, number: int) -> bool:
        """Whether what is deployed has the pull request's file."""
        return bool(self.place.git("ls-tree", "--name-only", "refs/heads/deploy", f"{WORDS}/{number}.txt"))

    @staticmethod
    def branches(refs: str) -> list[str]:
        """What is deployed and published, without the history that every night goes on with."""
        return [line for line in refs.splitlines() if "refs/heads/history/" not in line]

    @staticmethod
    def first_blame(report: dict[str, Any]) -> dict[str, Any]:
        blame: dict[str, Any] = report["blame"]
        while blame["before"] is not None:
            blame = blame["before"]
        return blame


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {verdict["channel"]: verdict["status"] for verdict in report["verdicts"]}


def found(report: dict[str, Any]) -> list[tuple[str, list[str], list[str]]]:
    """Certainty, suspects and tests of each finding, round by round."""
    rounds = []
    blame = report["blame"]
    while blame is not None:
        rounds.insert(0, blame)
        blame = blame["before"]
    return [
        (
            one["certainty"],
            [suspect["name"] for suspect in one["suspects"]],
            [test.split("::")[1] for test in one["tests"]],
        )
        for blame in rounds
        for one in blame["findings"]
    ]


def left_out(report: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["reason"] for item in report["composition"]["left_out"]}


def included(report: dict[str, Any]) -> list[str]:
    return [item["name"] for item in report["composition"]["included"]]
