"""`nightly.yml` and `watchdog.yml`, run by act against a GitHub on this machine, on real SGLang with real guards.

One night is shared: sixteen pull requests of which two conflict, one is a duplicate, one is stacked, one is not
admitted and one plants a workflow. What follows it are runs on what it left behind.
"""

from __future__ import annotations

import json
import re
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.actions.fork import BASE_BRANCH, DEPLOY, SLUG, Fork
from tests.support.actions.runner import Ran, Runner
from tests.support.github_server import Fault, GitHubServer

from patchstack.store import cache_folder

SRT = "python/sglang/srt"
CONFLICTING = f"{SRT}/constants.py"
SPY_IN = f"{SRT}/environ.py"
SPY = """

def _look_around():
    import json, os, pathlib, urllib.request

    configs = [folder / ".git" / "config" for folder in (pathlib.Path.cwd(), *pathlib.Path.cwd().parents)]
    readable = [path.read_text() for path in configs if path.is_file()]
    held = [name for name, value in os.environ.items() if "ghs_" in value or "TOKEN" in name.upper()]
    held += [text for text in readable if "ghs_" in text or "extraheader" in text]
    try:
        body = b'{{"body": "planted"}}'
        urllib.request.urlopen(urllib.request.Request({url!r}, data=body, method="POST"), timeout=5)
        wrote = True
    except OSError:
        wrote = False
    # Of what it may write to, only this is there afterwards.
    folder = pathlib.Path(os.environ["PYTHONPYCACHEPREFIX"])
    (folder / f"{mark}-{{os.getpid()}}.json").write_text(json.dumps({{"held": held, "wrote": wrote}}))


_look_around()
"""
HOSTILE_BRANCH = 'fix/$(touch${IFS}pwned);`id`|"x"&.*'.replace("*", "+")
HOSTILE_TITLE = "$(touch pwned) `id` ${{ github.token }} <script>alert(1)</script> @ann | .*"


@dataclass
class World:
    hub: GitHubServer
    fork: Fork
    runner: Runner
    mark: str
    """What #50 wrote begins with it."""
    before: dict[str, str]
    """What a night may move, as it was before the shared one."""
    night: Ran
    comments: dict[int, list[str]]
    """What stood below each pull request when that night had ended."""
    issues: dict[str, tuple[str, str]]


def propose_sixteen(hub: GitHubServer, fork: Fork, mark: str) -> None:
    """Numbers 41 to 56, each of one commit on the base; all but #47 are admitted."""
    hub.user("carol", write=["acme/sglang"])

    def edit(path: str, more: str, onto: str = BASE_BRANCH, subject: str = "") -> str:
        return fork.commit(onto, {path: fork.read(onto, path) + more}, subject or f"Change {path}")

    def propose(number: int, sha: str, into: str = BASE_BRANCH, branch: str = "", title: str = "") -> None:
        name, title = branch or f"work-{number}", title or f"About {number}"
        fork.propose(name, sha, into=into, number=number, title=title, author="carol")
        if number not in (47, 49):
            fork.repository.label(number, "deploy", by="ann")

    propose(41, edit(CONFLICTING, "FORTY = 41\n"))
    propose(42, edit(CONFLICTING, "FORTY = 42\n"))
    propose(43, edit(f"{SRT}/managers/utils.py", "# 43\n"))
    propose(44, edit(f"{SRT}/managers/utils.py", "# 43\n", subject="The same in other words"))
    below = edit(f"{SRT}/utils/common.py", "# 45\n")
    propose(45, below)
    propose(46, edit(f"{SRT}/utils/patch_tokenizer.py", "# 46\n", onto=below), into="work-45")
    propose(47, edit(f"{SRT}/server_args_config_parser.py", "# 47\n"))
    plant = {".github/workflows/evil.yml": "on: push\n", f"{SRT}/evil.py": "EVIL = 48\n"}
    propose(48, fork.commit(BASE_BRANCH, plant, "Plant a workflow"))
    propose(49, edit(f"{SRT}/sampling/sampling_params.py", "# 49\n"))
    fork.repository.review(49, by="ann", state="APPROVED")
    url = f"{hub.api_url}/repos/acme/sglang/issues/41/comments"
    propose(50, edit(SPY_IN, SPY.format(url=url, mark=mark)))
    propose(51, edit(f"{SRT}/models/llama.py", "# 51\n"), branch=HOSTILE_BRANCH, title=HOSTILE_TITLE)
    for number, name in enumerate(("qwen2", "qwen3", "gemma", "mistral", "opt"), start=52):
        propose(number, edit(f"{SRT}/models/{name}.py", f"# {number}\n"))


@pytest.fixture(scope="module")
def world(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """After the night of the sixteen; tests look at it, or run more and leave `deploy` as it is."""
    folder = tmp_path_factory.mktemp("world")
    mark = uuid.uuid4().hex
    with GitHubServer(folder / "hub") as hub:
        fork = Fork(hub, folder)
        fork.publish_base()
        propose_sixteen(hub, fork, mark)
        before = fork.refs()
        runner = Runner(hub, fork.repository, folder)
        hub.clock.set("2026-11-21T02:00:00Z")
        night = runner.run("nightly", "schedule")
        yield World(hub, fork, runner, mark, before, night, headlines(fork), signals(fork))
    for path in spied(mark):
        path.unlink()


def spied(mark: str) -> list[Path]:
    return list((cache_folder() / "bytecode").glob(f"*/{mark}-*.json"))


def packed(ran: Ran, artifact: str, name: str) -> dict[str, Any]:
    """One JSON file of the pack that a job of the run kept."""
    (pack,) = ran.artifacts[artifact].iterdir()
    with tarfile.open(pack) as tar:
        member = tar.extractfile(name)
        assert member is not None
        found: dict[str, Any] = json.load(member)
    return found


def headlines(fork: Fork) -> dict[int, list[str]]:
    """The first line of each comment below each pull request, without addresses."""
    found: dict[int, list[str]] = {}
    for pull in fork.repository.pulls:
        bodies = [comment.body for comment in fork.repository.comments(pull.number)]
        found[pull.number] = [plain(body.split("\n\n")[1]) for body in bodies]
    return found


def plain(text: str) -> str:
    return re.sub(r"\[`([^`]+)`\]\(<[^>]*>\)", r"\1", text)


def signals(fork: Fork) -> dict[str, tuple[str, str]]:
    """Each issue by the key in its marker: its state and title."""
    found = {}
    for issue in fork.repository.issues:
        key = re.search(r"key=(\S+)", issue.body or "")
        assert key is not None
        assert issue.author == "github-actions[bot]"
        found[key[1]] = (issue.state, issue.title)
    return found


# --- the night ---


def test_every_job_of_the_night_is_green(world: World) -> None:
    assert (world.night.code, world.night.exits) == (0, {}), world.night.why
    assert world.night.jobs == dict.fromkeys(("compose", "image", "test", "promote", "answer"), "success")
    assert set(world.night.artifacts) == {"night-1", "image-1", "tests-1", "promoted-1"}


INCLUDED = [SLUG, "#41", "#43", "#46", "#49", "#50", "#51", "#52", "#53", "#54", "#55", "#56"]
LEFT_OUT = {
    "#42": ("excluded", "conflict", ["#41"], [CONFLICTING]),
    "#44": ("dropped", "same diff", ["#43"], []),
    "#45": ("carried", "contained", ["#46"], []),
    "#47": ("waiting", "needs admission", [], []),
    "#48": ("excluded", "touches protected paths", [], [".github/workflows/evil.yml"]),
}
"""Outcome, reason, who else, and which files."""


def test_the_report_says_what_became_of_each_of_the_sixteen(world: World) -> None:
    report = packed(world.night, "promoted-1", "report.json")
    assert (report["headline"], report["exit_code"], report["nothing_to_do"]) == ("PASS", 0, False)
    composition = report["composition"]
    assert [topic["name"] for topic in composition["included"]] == INCLUDED
    left_out = {
        out["name"]: (out["outcome"], out["reason"], out["twins"], out["files"]) for out in composition["left_out"]
    }
    assert left_out == LEFT_OUT
    assert [(asked["repo"], asked["open_pulls"], asked["others"]) for asked in report["asked"]] == [
        ("acme/sglang", 16, 0)
    ]
    assert [(verdict["channel"], verdict["status"]) for verdict in report["verdicts"]] == [
        ("nightly", "PASS"),
        ("stable", "INCOMPLETE"),
    ]
    assert [proof["standing"] for proof in report["tests"]["proofs"]] == ["proven"]
    (pack,) = world.night.artifacts["promoted-1"].iterdir()
    with tarfile.open(pack) as tar:
        member = tar.extractfile("report.md")
        assert member is not None
        lines = member.read().decode().splitlines()
    for name, (_, reason, *_) in LEFT_OUT.items():
        assert [line for line in lines if f"`{name}`" in line and reason in line], name


def test_the_deploy_branch_holds_exactly_that(world: World) -> None:
    report, fork = packed(world.night, "promoted-1", "report.json"), world.fork
    refs = world.fork.refs()
    moved = {name for name, sha in refs.items() if world.before.get(name) != sha}
    tag = f"refs/tags/{report['promotion']['line']['tag']}"
    assert moved == {f"refs/heads/{DEPLOY}", "refs/heads/stack/production", tag}
    assert refs[f"refs/heads/{DEPLOY}"] == refs[tag] == report["promotion"]["commit"]
    models = ("gemma", "llama", "mistral", "opt", "qwen2", "qwen3")
    others = ("constants", "environ", "managers/utils", "sampling/sampling_params", "utils/common")
    names = sorted((*others, "utils/patch_tokenizer", *(f"models/{name}" for name in models)))
    assert fork.lines_of("diff", "--name-only", "stack/production", DEPLOY) == [f"{SRT}/{name}.py" for name in names]
    assert fork.read(DEPLOY, CONFLICTING).endswith("FORTY = 41\n")
    for number in (41, 43, 45, 46, *range(49, 57)):
        head = fork.repository.pull(number).head
        assert fork.lines_of("merge-base", head, DEPLOY) == [head], number
    assert fork.lines_of("ls-tree", "-r", "--name-only", DEPLOY, ".github") == []


def test_each_pull_request_is_told_once_what_became_of_it(world: World) -> None:
    taken = ["**In tonight's deploy**."]
    assert world.comments == {
        **dict.fromkeys((41, 43, 46, *range(49, 57)), taken),
        42: ["**Left out of the night**: conflict with #41."],
        44: ["**Not taken: its change is there already**: same diff as #43."],
        45: ["**Carried by another pull request**: contained in #46."],
        47: ["**Not in the night yet**: needs admission."],
        48: ["**Left out of the night**: touches protected paths."],
    }


def test_the_conflict_is_an_issue_with_pair_files_and_authors(world: World) -> None:
    assert world.issues == {"conflict:#41:#42": ("open", "Lane `production`: `#42` conflicts with `#41`")}
    (issue,) = [one for one in world.fork.repository.issues if "conflict:#41:#42" in (one.body or "")]
    assert all(word in (issue.body or "") for word in ("`#42`", "`#41`", "`carol`", CONFLICTING))


def test_code_of_a_pull_request_ran_and_saw_no_token(world: World) -> None:
    """#50 looks for one when a guard imports it, and tries to comment."""
    found = [json.loads(path.read_text()) for path in spied(world.mark)]
    assert found
    assert found == [{"held": [], "wrote": False}] * len(found)


def test_no_words_of_a_pull_request_were_run(world: World) -> None:
    assert not list(world.runner.folder.rglob("pwned"))


def test_no_token_is_in_a_log_or_an_artifact(world: World) -> None:
    tokens = [token for token in world.hub.tokens if token.startswith("ghs_")]
    assert tokens
    kept = [path.read_bytes() for path in (world.runner.folder / "shelf").rglob("*") if path.is_file()]
    for token in tokens:
        assert token not in world.night.log
        assert not [text for text in kept if token.encode() in text]


def test_only_jobs_that_ran_no_pull_requests_code_saved_a_cache(world: World) -> None:
    saved = [json.loads(path.read_text()) for path in (world.runner.folder / "shelf" / "caches").glob("*/cache.json")]
    assert saved
    assert {one["job"] for one in saved} == {"compose"}


# --- when GitHub fails ---


def test_a_listing_that_fails_on_page_two_moves_nothing_and_is_said(world: World) -> None:
    repository = world.fork.repository
    before, said = world.fork.refs(), headlines(world.fork)
    many = [repository.open_pull("main", "main", "carol", f"Chore {n}", number=n) for n in range(1001, 1101)]
    world.hub.fail(Fault(path="/repos/acme/sglang/pulls", page=2, status=502, times=10**6))
    asked_before = len(world.hub.requests)
    by_hand = {"inputs": {"lane": "production", "force": "true"}}
    red = world.runner.run("nightly", "workflow_dispatch", payload=by_hand)
    world.hub.mend()
    for number in many:
        repository.close(number, by="ann")
    assert red.exits == {("compose", "Plan and merge"): 8}, red.why
    assert red.jobs == {"compose": "failure", "answer": "success"}
    failed = [one.query["page"] for one in world.hub.requests[asked_before:] if one.status == 502]
    assert failed
    assert set(failed) == {"2"}
    assert world.fork.refs() == before
    assert {number: lines for number, lines in headlines(world.fork).items() if number < 1001} == said
    assert signals(world.fork)["red-night"][0] == "open"
    report = packed(red, "night-1", "report.json")
    assert (report["exit_code"], report["composition"], report["promotion"]) == (8, None, None)

    by_hand["inputs"]["force"] = "false"
    green = world.runner.run("nightly", "workflow_dispatch", payload=by_hand)
    assert (green.code, green.exits) == (0, {}), green.why
    assert green.jobs == {"compose": "success", "answer": "success"}  # settled: nothing to test, nothing to promote
    assert world.fork.refs() == before
    assert headlines(world.fork) == {**said, **{number: [] for number in many}}
    assert signals(world.fork)["red-night"][0] == "closed"


# --- when a job may not do what it is for ---


def test_a_promotion_without_its_permission_is_refused_and_moves_nothing(world: World) -> None:
    """The night's last writing job again, from before it moved anything: without `contents: write`, then with it."""
    fork, path = world.fork, ".github/workflows/nightly.yml"
    after, text = fork.refs(), fork.read("main", ".github/workflows/nightly.yml")
    packs = {name: world.night.artifacts[f"{name}-1"].parent.name for name in ("image", "tests")}
    needed = {
        "needs.image.outputs.pack": packs["image"],
        "needs.test.outputs.pack": packs["tests"],
        "needs.lanes.result": "skipped",
        "needs.divide.outputs.key": "none",
    }
    fork.set_refs(world.before)
    assert text.count("contents: write") == 1
    fork.change_main({path: text.replace("contents: write", "contents: read")}, "Promote reads")
    asked = len(world.hub.requests)
    refused = world.runner.run_again(world.night, "nightly", "schedule", "promote", needed, attempt=2)
    assert refused.exits == {("promote", "Judge again, and promote"): 8}, refused.why
    assert fork.refs() == world.before
    assert 403 in [request.status for request in world.hub.requests[asked:]]

    fork.change_main({path: text}, "Promote writes")
    allowed = world.runner.run_again(world.night, "nightly", "schedule", "promote", needed, attempt=3)
    assert (allowed.code, allowed.exits) == (0, {}), allowed.why
    assert fork.refs().keys() == after.keys()
    assert fork.lines_of("rev-parse", f"{DEPLOY}^{{tree}}") == fork.lines_of(
        "rev-parse", f"{after[f'refs/heads/{DEPLOY}']}^{{tree}}"
    )
    fork.set_refs(after)


# --- when no night runs ---


def test_the_watchdog_says_when_no_night_ran_and_when_one_did_again(world: World) -> None:
    world.hub.clock.set("2026-11-25T14:30:00Z")
    late = world.runner.run("watchdog", "schedule")
    assert late.exits == {("watch", "Was there a night?"): 6}, late.why
    assert signals(world.fork)["overdue"][0] == "open"
    assert late.jobs == {"watch": "failure", "say": "success"}
    again = world.runner.run("watchdog", "schedule")
    assert again.exits == late.exits
    assert len([key for key in signals(world.fork) if key == "overdue"]) == 1

    night = world.runner.run("nightly", "schedule")
    assert (night.code, night.exits) == (0, {}), night.why
    assert signals(world.fork)["overdue"][0] == "closed"
    calm = world.runner.run("watchdog", "schedule")
    assert (calm.code, calm.exits, calm.jobs) == (0, {}, {"watch": "success"}), calm.why
    assert signals(world.fork)["overdue"][0] == "closed"


# --- when a pull request breaks a guard ---


def propose_breaking(world: World, number: int, subject: str) -> None:
    """An admitted pull request after which Mooncake takes TCP, whatever the operator says."""
    path = f"{SRT}/distributed/device_communicators/mooncake_transfer_engine.py"
    broken = world.fork.read(BASE_BRANCH, path) + '\nimport os as _os\n\n_os.environ["MC_FORCE_TCP"] = "1"\n'
    sha = world.fork.commit(BASE_BRANCH, {path: broken}, subject)
    world.fork.propose(f"work-{number}", sha, into=BASE_BRANCH, number=number, title=subject, author="carol")
    world.fork.repository.label(number, "deploy", by="ann")


@pytest.mark.thorough  # minutes of real guards, again and again
def test_who_breaks_a_guard_is_found_and_left_out_and_the_rest_ships(world: World) -> None:
    """Found where pull requests run and no token is; what is left is composed again by who promotes."""
    good = f"{SRT}/models/phi.py"
    sha = world.fork.commit(BASE_BRANCH, {good: world.fork.read(BASE_BRANCH, good) + "# 2000\n"}, "About 2000")
    world.fork.propose("work-2000", sha, into=BASE_BRANCH, number=2000, title="About 2000", author="carol")
    world.fork.repository.label(2000, "deploy", by="ann")
    propose_breaking(world, 2001, "TCP alone")
    before = world.fork.tip(DEPLOY)
    night = world.runner.run("nightly", "schedule")
    assert night.exits == {}, night.why
    assert world.fork.lines_of("rev-list", "--first-parent", f"{before}..{DEPLOY}") == [world.fork.tip(DEPLOY)]
    report = packed(night, "promoted-1", "report.json")
    assert (report["exit_code"], report["headline"]) == (0, "PASS")
    included = {topic["name"] for topic in report["composition"]["included"]}
    assert {"#2000", "#2001"} & included == {"#2000"}
    reasons = {out["name"]: out["reason"] for out in report["composition"]["left_out"]}
    assert reasons["#2001"] == "guilty"
    (finding,) = report["blame"]["findings"]
    assert (finding["certainty"], [who["name"] for who in finding["suspects"]]) == ("CONFIRMED", ["#2001"])
    assert world.fork.read(DEPLOY, good).endswith("# 2000\n")
    assert len(headlines(world.fork)[2001]) == 1


@pytest.mark.thorough  # minutes of real guards, again and again
def test_a_red_night_moves_nothing_and_is_judged_where_no_pull_request_ran(world: World) -> None:
    """With nobody asked who it was."""
    config = world.fork.read("main", "deploy.yaml")
    assert "max_probes: 40" in config
    world.fork.change_main({"deploy.yaml": config.replace("max_probes: 40", "max_probes: 0")}, "Ask nobody")
    propose_breaking(world, 2002, "TCP alone, again")
    before = world.fork.refs()
    red = world.runner.run("nightly", "schedule")
    assert red.exits == {
        ("test", "Look into the image, and run the guards"): 1,
        ("promote", "Judge again, and promote"): 1,
    }, red.why
    assert red.jobs == {
        "compose": "success",
        "image": "success",
        "test": "failure",
        "promote": "failure",
        "answer": "success",
    }
    assert world.fork.refs() == before
    report = packed(red, "promoted-1", "report.json")
    assert (report["exit_code"], report["headline"], report["promotion"]) == (1, "FAIL", None)
    assert "#2002" in {topic["name"] for topic in report["composition"]["included"]}
    assert signals(world.fork)["red-night"][0] == "open"
    assert len(headlines(world.fork)[2002]) == 1
