"""deploy.yaml: what is refused, and that everything wrong is said at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from patchstack import config
from patchstack.errors import ConfigError

ROOT = Path(__file__).parents[3]


def problems(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "deploy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert caught.value.exit_code == 3
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


GOOD = """\
schema: 1
fork: {repo: acme/sglang}
lanes:
  production:
    upstream: {pypi: sglang==0.5.12.post1}
    branch: deploy
channels:
  nightly: {needs: [cpu]}
"""


PLAIN = "write plain `key: value` lines, `schema: 1` first"


def test_the_committed_file_validates_and_the_least_file_has_defaults(tmp_path: Path) -> None:
    committed = config.load(ROOT / "deploy.yaml")
    assert committed.lanes["production"].branch == "deploy"
    assert committed.pulls.sources == config.load(designed(tmp_path)).pulls.sources
    (tmp_path / "deploy.yaml").write_text(GOOD)
    least = config.load(tmp_path / "deploy.yaml")
    assert (least.fork.main, least.fork.remote, least.max_lost, least.pulls.sources) == ("main", None, 2, ())


def test_every_problem_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
schema: 2
fork: {repo: acme, remote: -x}
lanes:
  production:
    upstream: {pypi: sglang>=0.5}
    branch: main
    branch: main
    colour: red
  edge:
    upstream: {git: u}
    branch: "a..b"
pulls:
  sources:
    - {repo: acme/sglang, into: base/production}
    - {refs: x}
    - 7
  skip: [{pr: "x"}]
channels:
  nightly: {needs: [GPU]}
max_lost: many
"""
    assert problems(tmp_path, text) == [
        "1: schema: Input should be 1: mend the value",
        "2: fork.repo: 'acme' is not of the right form: write it to match ^[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+$",
        "2: fork.remote: a URL cannot begin with '-'; write the remote's full URL",
        "5: lanes.production.upstream.pypi: the base must be one exact release; write it as sglang==0.5.12.post1",
        "7: lanes.production.branch: the key stands twice: keep one",
        "8: lanes.production.colour: Extra inputs are not permitted: remove the key, or mend its spelling",
        "10: lanes.edge.upstream: `git` and `ref` belong together; add the one that is missing",
        "11: lanes.edge.branch: 'a..b' is no branch name that git accepts; use letters, digits, '-', '_', '.', '/'",
        "14: pulls.sources.0.into: Input should be a valid array: write a list: [a, b]",
        "15: pulls.sources.1.refs: Input should be 'refs/pull/*/head': mend the value",
        "16: pulls.sources.2: Input should be an object: mend the value",
        "17: pulls.skip.0.pr: Input should be a valid integer: write a whole number, without quotes",
        "17: pulls.skip.0.because: Field required: add it",
        "19: channels.nightly.needs.0: 'GPU' is not of the right form: write it to match ^[a-z0-9][a-z0-9-]*$",
        "20: max_lost: Input should be a valid integer: write a whole number, without quotes",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1", f"1: : not YAML: expected ',' or ']', but got '<stream end>': {PLAIN}"),
        ("- 1\n", f"1: : it must be a mapping: {PLAIN}"),
        ("", f"1: : it must be a mapping: {PLAIN}"),
        ("a: &a [*a]\n", f"1: : not YAML: aliases are not taken; write the value out: {PLAIN}"),
        (f"{GOOD}b: {{<<: *a}}\n", f"9: : not YAML: aliases are not taken; write the value out: {PLAIN}"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("? [a]\n: 1\n", f"1: : a key must be a plain word: {PLAIN}"),
        ("? {a: b}\n: 1\n", f"1: : a key must be a plain word: {PLAIN}"),
        (f"{GOOD}2020-01-01: 1\n", f"9: : a key must be a plain word: {PLAIN}"),
        (f"{GOOD}max_lost: 2020-13-45\n", f"9: : not YAML: '2020-13-45' is no timestamp: {PLAIN}"),
        (f"{GOOD}max_lost: !!bool x\n", f"9: : not YAML: 'x' is no bool: {PLAIN}"),
        (f"{GOOD}max_lost: {'9' * 5000}\n", "9: : not YAML: '9999"),
        (f"{GOOD}max_lost: \x00\n", "9: : not YAML: special characters are not allowed"),
        (f"{GOOD}---\na: 1\n", "9: : not YAML: but found another document"),
        (GOOD.replace("nightly", "stable"), "7: channels: channel nightly is missing, and it is what moves the branch"),
        (
            GOOD.replace("branch: deploy", "branch: a.lock/b"),
            "6: lanes.production.branch: 'a.lock/b' is no branch",
        ),
        (GOOD.replace("branch: deploy", "branch: base"), "branches 'base/production' and 'base' cannot both be in one"),
        (GOOD.replace("branch: deploy", "branch: main/x"), "branches 'main/x' and 'main' cannot both be in one"),
        ("a: !!python/object:os.system x\n", "could not determine a constructor"),
        (
            GOOD.replace("branch: deploy", "branch: stack/production"),
            "1: (the whole file): branch 'stack/production' is both lanes.production.branch and the stack of lane",
        ),
        (
            GOOD.replace("branch: deploy", "branch: history/production"),
            "branch 'history/production' is both lanes.production.branch and the history of lane production",
        ),
        (GOOD.replace("branch: deploy", "branch: history"), "'history/production' and 'history' cannot both be in one"),
    ],
)
def test_broken_files_give_one_clear_problem(tmp_path: Path, text: str, problem: str) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert problem in found[0]


IMAGED = GOOD.replace("branch: deploy", "branch: deploy\n    image: {repository: REPO, runtime: cuda}")


def loaded(tmp_path: Path, text: str, lane: str = "production") -> config.Image:
    path = tmp_path / "deploy.yaml"
    path.write_text(text)
    image = config.load(path).lanes[lane].image
    assert image is not None
    return image


@pytest.mark.parametrize(
    ("repository", "problem"),
    [
        ("acme", "'acme' is no repository of a registry; write it as registry.example.com/name/name"),
        ("acme/sglang", "'acme/sglang' is no repository of a registry"),
        ("registry.example.com", "'registry.example.com' is no repository of a registry"),
        ("registry.example.com/acme:tag", "'registry.example.com/acme:tag' is no repository of a registry"),
        ("registry.example.com//acme", "is no repository of a registry"),
        ("registry.example.com:99999/acme", "'registry.example.com:99999/acme' has a port that no host has"),
        ("registry.example.com:0/acme", "has a port that no host has"),
        ("r.example.com/a, base: {name: 'a@sha256:" + "1" * 64 + "', root: /x}", "'a' is no repository of a registry"),
    ],
)
def test_an_image_that_is_in_no_registry_is_a_problem_of_the_file(
    tmp_path: Path, repository: str, problem: str
) -> None:
    (found,) = problems(tmp_path, IMAGED.replace("REPO", repository))
    assert found.startswith("7: lanes.production.image: ")
    assert problem in found


@pytest.mark.parametrize(
    "repository", ["registry.example.com/acme/sglang", "localhost/a", "registry:5000/a/b_c", "127.0.0.1:5000/a.b--c/d"]
)
def test_where_an_image_can_be(tmp_path: Path, repository: str) -> None:
    assert loaded(tmp_path, IMAGED.replace("REPO", repository)).repository == repository


@pytest.mark.parametrize("lane", ["cpu", "edge-cpu"])
def test_a_lane_whose_image_tags_are_those_of_cpu_images(tmp_path: Path, lane: str) -> None:
    text = IMAGED.replace("REPO", "registry.example.com/a").replace("production", lane)
    (found,) = problems(tmp_path, text)
    assert f"lane '{lane}' would have image tags that cpu images have; give it another name" in found
    assert loaded(tmp_path, text.replace("runtime: cuda", "runtime: cpu"), lane).runtime == "cpu"


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run from the repository's root, or use --config"):
        config.load(tmp_path / "deploy.yaml")


def test_the_committed_schema_is_fresh_and_accepts_the_committed_file() -> None:
    assert config.SCHEMA_PATH.read_text() == config.schema_text()
    schema = json.loads(config.schema_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(yaml.safe_load((ROOT / "deploy.yaml").read_text()))


def test_the_schema_refuses_what_the_loader_refuses() -> None:
    schema = Draft202012Validator(json.loads(config.schema_text()))
    document = yaml.safe_load(GOOD)
    schema.validate(document)
    assert not schema.is_valid({**document, "colour": "red"})
    assert not schema.is_valid({**document, "max_lost": "many"})


DESIGNED = """\
# yaml-language-server: $schema=scripts/patchstack/deploy.schema.json
schema: 1
fork: {repo: acme/sglang, main: main}
lanes:
  production:
    upstream: {pypi: sglang==0.5.12.post1, tree: c65aba1567fe6cef93554f72c44493b99b01029b}
    branch: deploy
    image: {repository: registry.example.com/acme/sglang, runtime: cuda}
    optional: [pd-transfer-parking]          # optional patches that are on
pulls:
  sources:
    - {repo: acme/sglang, into: [base/production, stack/production]}
    - {repo: sgl-project/sglang, into: [main], heads: [acme]}
  admit: {label: deploy}
  skip: [{pr: 23003, because: superseded by 9}]
channels:
  nightly: {needs: [cpu]}
  stable: {needs: [cpu, image, 1-gpu, 2-gpu]}
schedule_utc: "02:00"
max_lost: 2
max_age_days: 7
"""


def designed(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = DESIGNED
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "deploy.yaml"
    path.write_text(text)
    return path


def test_the_design_s_own_file_validates(tmp_path: Path) -> None:
    found = config.load(designed(tmp_path))
    assert found.lanes["production"].optional == ("pd-transfer-parking",)
    assert found.pulls.sources == (
        config.GitHubSource(repo="acme/sglang", into=("base/production", "stack/production")),
        config.GitHubSource(repo="sgl-project/sglang", into=("main",), heads=("acme",)),
    )
    Draft202012Validator(json.loads(config.schema_text())).validate(yaml.safe_load(DESIGNED))


SKIP = "{pr: 23003, because: superseded by 9}"


@pytest.mark.parametrize(
    ("skip", "name"),
    [
        (SKIP, "23003"),
        ("{pr: 41, repo: acme/sglang, because: not yet}", "#41"),
        ("{pr: 41, repo: sgl-project/sglang, because: not yet}", "sgl-project/sglang#41"),
    ],
)
def test_a_skip_is_of_one_repository_or_of_whichever_has_the_number(tmp_path: Path, skip: str, name: str) -> None:
    (entry,) = config.load(designed(tmp_path, (SKIP, skip))).pulls.skip
    assert entry.name_in("acme/sglang") == name


@pytest.mark.parametrize(
    ("written", "protected"),
    [
        ("{}", (".github/", ".gitattributes", ".gitmodules")),
        ("{protected: [Dockerfile]}", (".github/", "Dockerfile")),
        ("{protected: [Dockerfile, .github/]}", (".github/", "Dockerfile")),
    ],
)
def test_workflows_are_protected_whatever_else_is(tmp_path: Path, written: str, protected: tuple[str, ...]) -> None:
    (tmp_path / "deploy.yaml").write_text(f"{GOOD}pulls: {written}\n")
    assert config.load(tmp_path / "deploy.yaml").pulls.protected == protected


def test_the_fork_has_pull_requests_also_where_github_is_not_asked(tmp_path: Path) -> None:
    own = "{repo: acme/sglang, into: [base/production, stack/production]}"
    team = "{repo: sgl-project/sglang, into: [main], heads: [acme]}"
    skip = "{pr: 41, repo: acme/sglang, because: not yet}"
    changes = ((own, "{refs: refs/pull/*/head}"), (f"    - {team}\n", ""), (SKIP, skip))
    assert config.load(designed(tmp_path, *changes)).pulls.skip[0].name_in("acme/sglang") == "#41"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            SKIP,
            "{pr: 41, repo: sglproject/sglang, because: not yet}",
            "no source lists pull requests of 'sglproject/sglang'; mend its spelling, or take the entry of 41 out",
        ),
        ("repo: acme/sglang, into", "repo: Acme/sglang, into", "source 'Acme/sglang' is fork.repo, 'acme/sglang'"),
        ("into: [base/production, stack/production]", "into: [deploy]", "'deploy' of the fork are never composed"),
        ("into: [base/production, stack/production]", "into: [main]", "'main' of the fork are never composed"),
        (
            "into: [base/production, stack/production]",
            "into: [history/production]",
            "'history/production' of the fork are never composed",
        ),
        ("label: deploy", "label: Blocked", "'Blocked' would both admit and block"),
        (
            "{repo: sgl-project/sglang, into: [main], heads: [acme]}",
            "{refs: refs/pull/*/head}",
            "`refs` and `repo` list the same pull requests; keep one kind of source",
        ),
        ("heads: [acme]", "heads: [-x]", "pulls.sources.1.heads.0: '-x' is not of the right form"),
        ("heads: [acme]", 'include: [""]', "pulls.sources.1.include.0: String should have at least 1 character"),
    ],
)
def test_sources_that_cannot_be_meant_are_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(designed(tmp_path, (old, new)))
    (found,) = caught.value.problems
    assert problem in found
