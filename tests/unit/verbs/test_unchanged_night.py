"""What makes another night and what does not, each changed alone in a fork whose night is deployed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.builders import TEN, A, B, Workshop, edit
from tests.unit.verbs.fork_bench import release
from tests.unit.verbs.night_bench import CONFIG, SOURCES, UPSTREAM, Fork, green

from patchstack.errors import Incomplete
from patchstack.image import files
from patchstack.model import Fingerprint, GuardOutcome, GuardReport, MergePlan, NightReport, Sha
from patchstack.nightly import Part, Until
from patchstack.store import cache_folder
from patchstack.verbs import plan as plan_verb
from patchstack.verbs import rounds
from patchstack.verbs.inputs import inputs_now

GUARDS = ("guards of bed", "guards of extra", "guards of first", "guards of second")
PLAIN = CONFIG.format(upstream=UPSTREAM, most=2)
LANE = f"upstream: {UPSTREAM}\n    branch: deploy\n"
SCENARIO = """\
@pytest.mark.lane("1-gpu", est_s=60, guards=["first"], owner="@acme/pd")
def test_it() -> None: ...
"""
IMAGE = "image: {repository: registry.example.com/acme/sglang, runtime: cuda}"


@dataclass(frozen=True)
class Deployed:
    """A fork with a promoted night, and the cache that has its base."""

    fork: Fork
    cache: Path
    fingerprint: Fingerprint


@pytest.fixture(scope="module")
def deployed(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("deployed")
        monkeypatch.setenv("PATCHSTACK_CACHE", str(folder / "cache"))
        fork = Fork(folder / "fork", monkeypatch)
        for path in ("conftest.py", "regression/thresholds.yaml", "support/locks/l.txt", "support/testbed/t.py"):
            fork.write(f"tests/{path}", "")
        fork.write("README.md", "# A fork\n")
        for slug in ("first", "second", "extra"):
            files_of = {f"python/sglang/{slug}.py": f"{slug} = 1\n"}
            fork.patches.patch(slug, fork.base, files_of, optional=slug == "extra")
        first = fork.night()
        assert first.promotion, first.failure
        fork.pull(7, {A: edit(TEN, 1, "seven")})
        fork.pull(8, {"docs/eight.md": "left out: nothing that the base carries\n"})
        second = fork.night()
        assert second.promotion, second.failure
        yield Deployed(fork, cache_folder(), _fingerprint(fork, second))


@pytest.fixture
def fork(deployed: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fork:
    monkeypatch.setenv("PATCHSTACK_CACHE", str(shutil.copytree(deployed.cache, tmp_path / "cache")))
    return deployed.fork.copied(tmp_path / "fork", monkeypatch)


def _fingerprint(fork: Fork, report: NightReport) -> Fingerprint:
    return fork.run(report).read(MergePlan).fingerprint


def configure(old: str, new: str) -> Callable[[Fork], None]:
    def change(fork: Fork) -> None:
        assert old in PLAIN
        fork.configure(PLAIN.replace(old, new))

    return change


def write(path: str, text: str = "# another\ndef test_it() -> None: ...\n") -> Callable[[Fork], None]:
    return lambda fork: fork.write(path, text)


def replaced(path: str, old: str, new: str) -> Callable[[Fork], None]:
    return lambda fork: fork.replace(path, old, new)


def patch(slug: str, **options: bool) -> Callable[[Fork], object]:
    """The same patch with another diff, or a new one behind all others."""

    def change(fork: Fork) -> None:
        order = list(fork.patches.order)
        fork.patches.patch(slug, fork.base, {f"python/sglang/{slug}.py": f"{slug} = 2\n"}, **options)  # type: ignore[arg-type]
        fork.patches.series(*dict.fromkeys([*order, *fork.patches.order]))

    return change


def wheel(**more: str) -> Callable[[Fork], None]:
    return lambda _: release(sources={**SOURCES, **{f"python/sglang/{name}": text for name, text in more.items()}})


def recipe(name: str) -> Callable[[Fork], None]:
    """Another recipe of the image; the real one is this project's own."""

    def change(fork: Fork) -> None:
        folder = Path(shutil.copytree(files.RECIPE, fork.folder.parent / "recipe"))
        found = next(folder.rglob(name))
        found.write_text(found.read_text() + "# another\n")
        fork.monkeypatch.setattr(files, "RECIPE", folder)

    return change


def tool(name: str, value: object) -> Callable[[Fork], None]:
    return lambda fork: fork.monkeypatch.setattr(plan_verb, name, value)


QUARANTINE = """
- test: tests/regression/guard/test_it.py
  owner: "@acme/pd"
  because: It hangs now and then.
  since: 2026-11-20
  until: 2026-12-04
  back: Ten green nights.
"""


def test_the_day_on_which_an_entry_expires_is_another_night(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    fork.write("tests/regression/quarantine.yaml", QUARANTINE)
    found = []
    for day in ("2026-11-21", "2026-12-03", "2026-12-04"):
        monkeypatch.setenv("PATCHSTACK_NOW", f"{day}T02:00:00+00:00")
        found.append({*inputs_now(fork.work).items()})
    assert found[0] == found[1]
    assert {key for key, _ in found[1] ^ found[2]} == {"input quarantine"}


CHANGES: dict[str, tuple[Callable[[Fork], object], set[str]]] = {
    "another tree under the base's name": (lambda _: release(sources={**SOURCES, B: "b\n"}), {"base", "natives"}),
    "another compiled part": (wheel(**{"_core.so": "compiled"}), {"natives"}),
    "another git": (tool("git_version", lambda: (9, 9, 9)), {"git"}),
    "another patchstack": (tool("__version__", "9.9"), {"patchstack"}),
    "the order of the series": (lambda fork: fork.patches.series("second", "first", "extra optional"), {"series"}),
    "a new patch": (patch("third"), {"series", "patch third", "input guards of third"}),
    "a patch's diff": (patch("first"), {"patch first"}),
    "a patch's header": (replaced("patches/first/patch.md", "is 0.5.13 or", "is 0.5.14 or"), {"patch first"}),
    "a patch's mutant": (write("patches/first/mutants/m.patch"), {"patch first"}),
    "the diff of a patch that is off": (patch("extra", optional=True), {"patch extra"}),
    "an optional patch that is on": (
        configure(LANE, f"{LANE}    optional: [extra]\n"),
        {"input optional", "left out extra"},
    ),
    "a push": (lambda fork: fork.pull(7, {A: edit(TEN, 1, "other")}), {"pull request #7"}),
    "a push to what is left out for its content": (
        lambda fork: fork.pull(8, {"docs/eight.md": "other\n"}),
        {"pull request #8"},
    ),
    "a pull request that is opened": (lambda fork: fork.pull(9, {B: edit(TEN, 1, "nine")}), {"pull request #9"}),
    "a pull request that is gone": (lambda fork: fork.close(7), {"pull request #7"}),
    "a skip": (
        lambda fork: fork.configure(f"{PLAIN}pulls: {{skip: [{{pr: 7, because: x}}]}}\n"),
        {"skipped", "pull request #7"},
    ),
    "protected paths": (
        lambda fork: fork.configure(f"{PLAIN}pulls: {{protected: [.github/, secret/]}}\n"),
        {"protected"},
    ),
    "a guard": (write("tests/regression/guard/test_it.py"), {f"input {name}" for name in GUARDS[1:]}),
    "a file beside a guard": (write("tests/regression/guard/data.txt"), {f"input {name}" for name in GUARDS[1:]}),
    "the bed's own controls": (write("tests/regression/bed/test_bed.py"), {"input guards of bed"}),
    "a conftest above": (write("tests/conftest.py"), {f"input {name}" for name in GUARDS}),
    "a guard in quarantine": (write("tests/regression/quarantine.yaml", QUARANTINE), {"input quarantine"}),
    "an entry that expires today": (
        write("tests/regression/quarantine.yaml", QUARANTINE.replace("2026-12-04", "2026-11-21")),
        {"input quarantine"},
    ),
    "thresholds": (write("tests/regression/thresholds.yaml"), {f"input {name}" for name in GUARDS}),
    **{
        f"the bed's {name.partition('/')[0]}": (
            write(f"tests/support/{name}"),
            {"input test bed", *(f"input {guards}" for guards in GUARDS)},
        )
        for name in ("locks/l.txt", "standins/s.py", "testbed/t.py")
    },
    "the image's Containerfile": (recipe("Containerfile"), {"input image"}),
    "the image's locks": (recipe("cuda.txt"), {"input image"}),
    "the image's settings": (configure(LANE, f"{LANE}    {IMAGE}\n"), {"input image"}),
    "a channel": (configure("[cpu]}", "[cpu]}\n  stable: {needs: [cpu, 1-gpu]}"), {"input channels"}),
    "what a flaky guard does to a channel": (
        configure("{needs: [cpu]}", "{needs: [cpu], flaky: hold}"),
        {"input channels"},
    ),
    "how many guards may be flaky": (lambda fork: fork.configure(f"{PLAIN}tests: {{max_flaky: 0}}\n"), {"input tests"}),
    "how often guards run again": (lambda fork: fork.configure(f"{PLAIN}tests: {{retries: 0}}\n"), {"input tests"}),
    "the base's pin": (
        lambda fork: fork.configure(PLAIN.replace("post1}", f"post1, tree: {fork.base.tree}}}")),
        {"input upstream"},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_night(deployed: Deployed, fork: Fork, name: str) -> None:
    change, expected = CHANGES[name]
    change(fork)
    report = fork.night(Part(Until.MERGE))
    assert not report.nothing_to_do
    found = _fingerprint(fork, report)
    assert found.digest != deployed.fingerprint.digest
    differ = {*found.inputs} ^ {*deployed.fingerprint.inputs}
    assert {key for key, _ in differ} == expected


ORDER = """\
max_lost: 2
channels:
  nightly: {needs: [cpu]}
lanes:
  production:
    branch: deploy
    upstream: {pypi: sglang==0.5.12.post1}
fork: {repo: acme/sglang}
schema: 1
"""
NO_CHANGES: dict[str, Callable[[Fork], object]] = {
    "nothing": lambda _: None,
    "the README": write("README.md"),
    "a comment in deploy.yaml": lambda fork: fork.configure(f"# why\n{PLAIN}"),
    "the order of keys": lambda fork: fork.configure(ORDER),
    "how much may be lost, and when it is late": configure("max_lost: 2\n", "max_lost: 9\ndeadline_min: 9\n"),
    "a comment in the series": lambda fork: fork.patches.series("# why", "first", "second", "extra optional"),
    "a patch's prose": replaced("patches/first/patch.md", "When upstream has it.", "When upstream has it, in full."),
    "a comment in an empty quarantine": write("tests/regression/quarantine.yaml", "# nobody\n[]\n"),
    "a scenario for a GPU": write("tests/regression/gpu/test_gpu.py", SCENARIO),
    "bytecode beside a guard": write("tests/regression/guard/__pycache__/test_it.pyc"),
    "what serves the tool's own tests": write("tests/support/github_server/server.py"),
    "a run's folder": write(".patchstack/runs/20261121T000000Z-9/notes.txt"),
    "a pull request into main": lambda fork: fork.pull(9, {A: "main\n"}, _main(fork)),
}


def _main(fork: Fork) -> Sha:
    shop = Workshop(fork.remote.folder)
    return shop.branch("main", shop.commit("the project itself", {"README.md": "# A fork\n"}))


@pytest.mark.parametrize("name", NO_CHANGES)
def test_nothing_to_do(deployed: Deployed, fork: Fork, name: str) -> None:
    NO_CHANGES[name](fork)
    before = None if "main" in name else fork.refs()
    report = fork.night()
    assert (report.exit_code, report.nothing_to_do, report.timings[-1].stage) == (0, True, "plan"), report.failure
    assert _fingerprint(fork, report) == deployed.fingerprint
    assert before is None or fork.refs() == before


# --- what is no proof is not taken for one ---


def _red(*given: Any, **more: Any) -> GuardReport:
    report = green(*given, **more)
    composed, *others = report.runs
    first, *rest = composed.results
    red = replace(composed, results=(replace(first, outcome=GuardOutcome.FAIL, reason="assert 1 == 2"), *rest))
    return replace(report, runs=(red, *others))


def _incomplete(*_: Any, **__: Any) -> GuardReport:
    raise Incomplete("the night's deadline of 1 min was over before any guard began")


def _crash(*_: Any, **__: Any) -> GuardReport:
    raise ZeroDivisionError("a bug")


def _interrupted(*_: Any, **__: Any) -> GuardReport:
    raise KeyboardInterrupt


ENDS = {1: _red, 6: _incomplete, 70: _crash, 130: _interrupted}


@pytest.mark.parametrize("code", ENDS)
def test_a_night_that_was_not_green_is_never_stamped(fork: Fork, code: int) -> None:
    """Unchanged it runs again, and again, until it is promoted; then there is nothing to do."""
    fork.pull(9, {B: edit(TEN, 1, "nine")})
    before = fork.refs()
    fork.monkeypatch.setattr(rounds, "run_guards", ENDS[code])
    for _ in range(2):
        report = fork.night()
        assert (report.exit_code, report.nothing_to_do, report.promotion) == (code, False, None), report.failure
        assert fork.refs() == before
    fork.monkeypatch.setattr(rounds, "run_guards", green)
    again = fork.night()
    assert (again.exit_code, again.promotion is not None) == (0, True), again.failure
    assert fork.night().nothing_to_do


@pytest.mark.parametrize("code", ENDS)
def test_nor_does_the_deployed_night_stand_for_one_that_was_not_green(fork: Fork, code: int) -> None:
    """The very plan that is deployed was tried again, and was not green: that it was green once proves nothing."""
    fork.monkeypatch.setattr(rounds, "run_guards", ENDS[code])
    assert fork.night(force=True).exit_code == code
    report = fork.night()
    assert (report.exit_code, report.nothing_to_do) == (code, False)
    fork.monkeypatch.setattr(rounds, "run_guards", green)
    assert fork.night().promotion is not None
    assert fork.night().nothing_to_do


def test_a_night_that_was_killed_is_as_if_it_had_not_been(fork: Fork) -> None:
    fork.pull(9, {B: edit(TEN, 1, "nine")})
    fork.monkeypatch.setattr(rounds, "run_guards", _crash)
    killed = fork.run(fork.night())
    killed.path(NightReport).unlink()  # as SIGKILL leaves it: stages, and no report
    report = fork.night()
    assert (report.exit_code, report.nothing_to_do) == (70, False)
