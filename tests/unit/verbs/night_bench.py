"""Whole nights in a second: a real fork, base, series and remote; only the guards are said to be green.

fork = Fork(tmp_path, monkeypatch)
fork.pull(7, {A: edit(TEN, 1, "one")})
assert fork.night().promotion
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, Content, Workshop
from tests.unit.patches.stack_bench import Bench
from tests.unit.verbs.fork_bench import release, workplace, write_repository
from tests.unit.verbs.test_handed import report_on

from patchstack.git import Repository
from patchstack.model import Base, Composition, GuardReport, NightReport, Sha
from patchstack.nightly import WHOLE, Part, night
from patchstack.store import Run
from patchstack.verbs import rounds
from patchstack.verbs.author import base_of
from patchstack.verbs.selection import select
from patchstack.workplace import Workplace

SOURCES = {A: TEN, B: TEN}
UPSTREAM = "{pypi: sglang==0.5.12.post1}"
CONFIG = """\
schema: 1
fork: {{repo: acme/sglang}}
lanes:
  production:
    upstream: {upstream}
    branch: deploy
channels:
  nightly: {{needs: [cpu]}}
max_lost: {most}
"""


@dataclass
class Fork:
    """Nights of one lane on the embedded remote, each an hour after the one before."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    most: int = 2
    upstream: str = UPSTREAM
    hour: int = 0
    patches: Bench = field(init=False)

    def __post_init__(self) -> None:
        if self.upstream == UPSTREAM:
            release(sources=SOURCES)
        write_repository(self.folder)
        self.configure()
        self.patches = Bench(self.work.store(), self.folder)
        self.monkeypatch.setattr(rounds, "run_guards", green)

    def configure(self, text: str = "") -> None:
        (self.folder / "deploy.yaml").write_text(text or CONFIG.format(upstream=self.upstream, most=self.most))

    @property
    def work(self) -> Workplace:
        return replace(workplace(self.folder, local=True), offline=self.upstream == UPSTREAM)

    @property
    def base(self) -> Base:
        return base_of(self.work, self.work.store(), "production")

    @property
    def remote(self) -> Repository:
        return Repository(self.folder / ".patchstack" / "remote.git")

    def pull(self, number: int, files: dict[str, Content], onto: Sha | None = None) -> Sha:
        """A pull request, cut from the base that is published."""
        shop = Workshop(self.remote.folder)
        begin = onto or self.remote.resolve("refs/heads/base/production")
        assert begin is not None, "the first night publishes the base"
        return shop.pull(number, shop.commit(f"pull {number}", files, begin, when=1_700_000_000 + number))

    def close(self, *numbers: int) -> None:
        """Their refs go, as those of deleted pull requests do."""
        self.remote.set_refs({f"refs/pull/{number}/head": None for number in numbers})

    def copied(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Fork:
        """The same fork in another place, with what is in its state folder."""
        other = copy.copy(self)
        other.folder, other.monkeypatch = Path(shutil.copytree(self.folder, folder)), monkeypatch
        other.patches = Bench(other.work.store(), other.folder, order=list(self.patches.order))
        monkeypatch.setattr(rounds, "run_guards", green)
        return other

    def write(self, path: str, text: str) -> None:
        """One file of the repository."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def replace(self, path: str, old: str, new: str) -> None:
        text = (self.folder / path).read_text()
        assert old in text
        (self.folder / path).write_text(text.replace(old, new))

    def night(self, part: Part = WHOLE, **options: bool) -> NightReport:
        self.hour += 1
        self.monkeypatch.setenv("PATCHSTACK_NOW", f"2026-11-21T{self.hour:02}:00:00+00:00")
        return night(self.work, part=part, **options)  # type: ignore[arg-type]

    def run(self, report: NightReport) -> Run:
        return self.work.state.run(report.night)

    def refs(self) -> dict[str, Sha]:
        """Without the history, which every night that has tested goes on with, promoted or not."""
        return {name: sha for name, sha in self.remote.refs().items() if not name.startswith("refs/heads/history/")}


@dataclass(frozen=True)
class _Stack:
    work: Workplace


def green(work: Workplace, run: Run, composition: Composition, **_: object) -> GuardReport:
    """In place of the guards: each says what it should."""
    report = report_on(_Stack(work), composition, select(work, composition, ()))  # type: ignore[arg-type]
    run.write(report)
    return report
