"""Red nights in seconds: as `night_bench`, and guards are as red as what is composed says.

fork = RedFork(tmp_path, monkeypatch)
fork.begin()                                   # a promoted night of three patches
fork.says(7, "bad")
assert fork.night().blame.left_out == ("#7",)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.unit.verbs.night_bench import Fork, green

from patchstack.model import Composition, GuardOutcome, GuardReport, NightReport, Sha
from patchstack.regress.prove import prove
from patchstack.regress.question import Wanted
from patchstack.store import Run
from patchstack.verbs import probes, rounds
from patchstack.verbs.selection import select
from patchstack.verbs.test import write_report
from patchstack.workplace import Workplace

WORDS = "python/sglang/words"
TEST = "tests/regression/guard/test_it.py::test_it"
Oracle = Callable[[set[str]], GuardOutcome]
"""What the guard says of a tree with these words."""


def bad(words: set[str]) -> GuardOutcome:
    return GuardOutcome.FAIL if "bad" in words or {"left", "right"} <= words else GuardOutcome.PASS


@dataclass
class RedFork(Fork):
    oracle: Oracle = bad
    asked: list[Sha] = field(default_factory=list)
    """Trees of probes, in order; each as often as it was asked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.listen()

    def listen(self) -> None:
        self.monkeypatch.setattr(rounds, "run_guards", self.run_guards)
        self.monkeypatch.setattr(probes.Prober, "_heard", lambda _, wanted, __, tree: self._probe(wanted, tree))

    def begin(self) -> NightReport:
        for path in ("conftest.py", "support/locks/l.txt", "support/testbed/t.py"):
            self.write(f"tests/{path}", "")
        self.write("README.md", "# A fork\n")
        for slug in ("first", "second", "extra"):
            self.patch(slug)
        report = self.night()
        assert report.promotion, report.failure
        return report

    def patch(self, slug: str, *words: str) -> None:
        """A patch of the series; `extra` is optional. It can say words as pull requests do."""
        files = {f"python/sglang/{slug}.py": f"{slug} = 1\n", f"{WORDS}/{slug}.txt": "\n".join((slug, *words)) + "\n"}
        order = list(self.patches.order)
        self.patches.patch(slug, self.base, files, optional=slug == "extra")
        self.patches.series(*dict.fromkeys([*order, *self.patches.order]))

    def says(self, number: int, *words: str, onto: Sha | None = None) -> Sha:
        text = "\n".join((f"pull-{number}", *words)) + "\n"
        return self.pull(number, {f"{WORDS}/{number}.txt": text}, onto)

    def heard_of(self, tree: Sha) -> GuardOutcome:
        store = self.work.store()
        found = [entry for entry in store.list_tree(tree) if entry.path.startswith(f"{WORDS}/")]
        words = {word for entry in found for word in (store.read_blob(entry.sha) or b"").decode().split()}
        return self.oracle(words)

    def run_guards(self, work: Workplace, run: Run, composition: Composition, **more: object) -> GuardReport:
        report = green(work, run, composition, **more)
        outcome = self.heard_of(composition.tree)
        if outcome is not GuardOutcome.PASS:
            runs = tuple(
                replace(ran, results=tuple(replace(said, outcome=outcome, reason="assert 0") for said in ran.results))
                if ran.composed
                else ran
                for ran in report.runs
            )
            claims = select(work, composition, ()).claims
            report = replace(report, runs=runs, proofs=prove(claims, runs))
            write_report(run, report)
        return report

    def _probe(self, wanted: Wanted, tree: Sha) -> tuple[tuple[str, GuardOutcome], ...]:
        found = []
        for _ in range(wanted.times):
            self.asked.append(tree)
            found += [(test, self.heard_of(tree)) for test in wanted.tests]
        return tuple(found)
