"""`deploy.yaml`: the one configuration file. Unknown keys are refused, and all problems are named at once.

The JSON schema beside this module is generated from these classes (`make schema`), and a test keeps it fresh.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from patchstack.errors import ConfigError, MachineError
from patchstack.yamltext import YamlProblem, compose_mapping, construct, line_of, problem_of, repeated_keys

SCHEMA_PATH = Path(__file__).with_name("deploy.schema.json")

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


def _branch(value: str) -> str:
    # The part of git check-ref-format that the pattern below leaves open.
    parts = value.split("/")
    if ".." in value or any(not part or part.startswith(".") or part.endswith((".", ".lock")) for part in parts):
        raise ValueError(f"{value!r} is no branch name that git accepts; use letters, digits, '-', '_', '.', '/'")
    return value


Branch = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/+-]*$"), AfterValidator(_branch)]
Repository = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+$")]
Owner = Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:-?[A-Za-z0-9])*$")]
Pattern = Annotated[str, Field(min_length=1, description="As in a shell: `fix/*`; * crosses slashes")]

WORKFLOWS = ".github/"
"""What GitHub runs by itself; no candidate may bring it, whatever deploy.yaml protects."""
NIGHTLY = "nightly"
"""The channel that moves the deploy branch."""

IMAGE = "image"
"""What a channel can need besides test lanes."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Fork(_Part):
    repo: Repository
    main: Branch = "main"
    remote: str | None = Field(default=None, min_length=1, description="Git URL; none: the embedded remote")

    @field_validator("remote")
    @classmethod
    def _no_option(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("-"):
            raise ValueError("a URL cannot begin with '-'; write the remote's full URL")
        return value


class Upstream(_Part):
    pypi: str | None = Field(default=None, description="A release: sglang==X")
    git: str | None = Field(default=None, min_length=1, description="URL of a git repository, with `ref`")
    ref: str | None = Field(default=None, min_length=1)
    tree: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$", description="The tree that the base must have")

    @field_validator("pypi")
    @classmethod
    def _exact_release(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            requirement = Requirement(value)
        except InvalidRequirement as error:
            raise ValueError(f"{error}; write a release as sglang==0.5.12.post1") from error
        pins = list(requirement.specifier)
        plain = not (requirement.extras or requirement.url or requirement.marker)
        if len(pins) != 1 or pins[0].operator != "==" or "*" in pins[0].version or not plain:
            raise ValueError("the base must be one exact release; write it as sglang==0.5.12.post1")
        return value

    @field_validator("git", "ref")
    @classmethod
    def _no_option(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("-"):
            raise ValueError("cannot begin with '-'")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Upstream:
        if (self.pypi is None) == (self.git is None):
            raise ValueError("name one source: either `pypi: sglang==X` or `git: URL` with `ref: R`")
        if (self.git is None) != (self.ref is None):
            raise ValueError("`git` and `ref` belong together; add the one that is missing")
        return self


_HOST = r"(?:localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)+|[a-z0-9-]+(?=:))(?::[0-9]{1,5})?"
_IN_A_REGISTRY = re.compile(rf"{_HOST}(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+")


def _repository_problem(name: str) -> str:
    """Why a repository cannot be one in a registry; empty where it can."""
    if _IN_A_REGISTRY.fullmatch(name) is None:
        return f"{name!r} is no repository of a registry; write it as registry.example.com/name/name"
    port = name.partition("/")[0].partition(":")[2]
    return f"{name!r} has a port that no host has; mend it" if port and not 0 < int(port) < 1 << 16 else ""


class BaseImage(_Part):
    """Somebody else's image that the night's layer goes on, instead of a dependency image of ours."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}$", description="REPOSITORY@sha256:DIGEST")
    root: str = Field(pattern=r"^(/[A-Za-z0-9._@+-]+)+$", description="The folder in it that sglang/ is in")


class Image(_Part):
    repository: str = Field(pattern=r"^[a-z0-9][a-z0-9._:/-]*$")
    runtime: Literal["cuda", "cpu"]
    base: BaseImage | None = None
    public_key: str | None = Field(
        default=None, min_length=1, description="PEM file beside deploy.yaml: images are signed with its other half"
    )
    keep_days: int = Field(default=14, gt=0, description="How long an image that was never promoted is kept")


class Lane(_Part):
    upstream: Upstream
    branch: Branch
    image: Image | None = None
    optional: tuple[Slug, ...] = Field(default=(), description="Optional patches that are on")

    @field_validator("image")
    @classmethod
    def _image_is_in_a_registry(cls, value: Image | None) -> Image | None:
        names = [value.repository, *([value.base.name.partition("@")[0]] if value.base else [])] if value else []
        for problem in filter(None, map(_repository_problem, names)):
            raise ValueError(problem)
        return value


class RefSource(_Part):
    """Every `refs/pull/N/head` of the remote, at its exact SHA; no GitHub is asked."""

    refs: Literal["refs/pull/*/head"]


class GitHubSource(_Part):
    """Open pull requests of a GitHub repository into some branches, from some owners' heads."""

    repo: Repository
    into: tuple[Branch, ...] = Field(min_length=1)
    heads: tuple[Owner, ...] = Field(
        default=(), description="Owners of the repositories that a head may be in; none: only `repo` itself"
    )
    include: tuple[Pattern, ...] = Field(default=(), description="Only head branches that match one of these")
    exclude: tuple[Pattern, ...] = Field(default=(), description="No head branch that matches one of these")


class Admission(_Part):
    label: str = Field(default="deploy", min_length=1)
    blocked: str = Field(default="blocked", min_length=1, description="The label that keeps one out, and its carriers")

    @model_validator(mode="after")
    def _labels_differ(self) -> Admission:
        if self.label.casefold() == self.blocked.casefold():  # GitHub does not tell labels apart by letter case
            raise ValueError(f"{self.label!r} would both admit and block; give `blocked` another label")
        return self


class Skip(_Part):
    pr: int = Field(gt=0)
    repo: Repository | None = Field(default=None, description="Of which repository; none: of whichever has the number")
    because: str = Field(min_length=1)

    def name_in(self, fork: str) -> str:
        """``#41`` or ``owner/name#41``; where no repository is named, the bare number."""
        if self.repo is None:
            return str(self.pr)
        return f"#{self.pr}" if self.repo == fork else f"{self.repo}#{self.pr}"


class Pulls(_Part):
    sources: tuple[RefSource | GitHubSource, ...] = ()
    admit: Admission = Admission()
    skip: tuple[Skip, ...] = ()
    protected: tuple[str, ...] = Field(
        default=(WORKFLOWS, ".gitattributes", ".gitmodules"),
        min_length=1,
        description="Paths that no candidate may touch, .github/ always among them; a name with a final slash is a "
        "folder, at any depth",
    )

    @field_validator("protected")
    @classmethod
    def _no_workflow_on_deploy(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        # GitHub runs what it finds there, with a token of the fork.
        return tuple(dict.fromkeys((WORKFLOWS, *paths)))

    @model_validator(mode="after")
    def _one_kind_of_source(self) -> Pulls:
        kinds = {type(source) for source in self.sources}
        if len(kinds) > 1:
            raise ValueError("`refs` and `repo` list the same pull requests; keep one kind of source")
        return self


class TestLane(_Part):
    """A kind of machine that guards run on."""

    __test__ = False  # pytest would take it for a test

    because: str = Field(min_length=1, description="What it has that others have not, or what it is for")
    shards: int = Field(default=1, gt=0, le=256, description="How many machines share its guards, by measured times")
    gpus: int = Field(default=0, ge=0, le=64, description="GPUs that each of its machines gives to one job")
    executor: Literal["local", "slurm", "github"] | None = Field(
        default=None, description="Who runs it: this machine, a Slurm cluster, GitHub's runners; none: nobody"
    )
    labels: tuple[str, ...] = Field(default=(), description="With github: those of the runners, such as self-hosted")
    limit_min: int = Field(default=120, gt=0, description="Minutes that one of its jobs may take, waiting not counted")

    @model_validator(mode="after")
    def _labels_of_runners(self) -> TestLane:
        if self.executor == "github" and not self.labels:
            raise ValueError("executor github needs `labels`: those of the runners that have what the lane needs")
        if self.executor != "github" and self.labels:
            raise ValueError("`labels` are those of GitHub's runners; write `executor: github`, or leave them out")
        return self


class Slurm(_Part):
    """How jobs are given to a Slurm cluster whose nodes see this repository and its cache by the same paths."""

    partition: str = Field(default="", description="None: the cluster's own choice")
    account: str = ""
    gres: str = Field(default="gpu:{gpus}", description="Of a lane with GPUs; {gpus} is their number")
    options: tuple[str, ...] = Field(default=(), description="More options of sbatch, such as --qos=night")

    @field_validator("gres")
    @classmethod
    def _gres_of_gpus(cls, value: str) -> str:
        if "{gpus}" not in value or set(value.replace("{gpus}", "")) & set("{}"):
            raise ValueError(f"{value!r} does not say how many GPUs; write {{gpus}} where their number belongs")
        return value

    @field_validator("options")
    @classmethod
    def _options_left_to_us(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for option in value:
            name = option.partition("=")[0]
            if not re.fullmatch("--[a-z][a-z-]*", name):
                raise ValueError(f"{option!r} is not an option of sbatch on its own; write it as --name=value")
            if any(ours.startswith(name) for ours in _SBATCH_OURS):
                raise ValueError(f"sbatch's {name} is set by the night itself; take it out")
        return value


_SBATCH_OURS = (
    *("--array", "--job-name", "--output", "--error", "--input", "--open-mode", "--chdir", "--time", "--gres"),
    *("--requeue", "--no-requeue", "--parsable", "--wait", "--wrap", "--export", "--export-file", "--get-user-env"),
    *("--partition", "--account", "--nodes", "--ntasks", "--propagate", "--clusters", "--hold", "--test-only", "--uid"),
)
"""sbatch takes shortened names, too."""


_LANES = {
    "cpu": TestLane(because="every machine can run it: real servers of a tiny model on a CPU"),
    "1-gpu": TestLane(because="CUDA kernels, and prefill and decode on one card", gpus=1),
    "2-gpu": TestLane(because="two ranks: tensor or pipeline parallel, or prefill and decode on a card each", gpus=2),
    "4-gpu": TestLane(because="tensor and pipeline parallel at once", gpus=4),
    "rdma": TestLane(because="KV transfer over a NIC, which TCP on loopback does not show", gpus=2),
    "kvcm-manager": TestLane(because="a real KV cache manager, at KVCM_MANAGER_URL"),
}


class Tests(_Part):
    """Where guards run, and what a night does when they do not answer."""

    __test__ = False

    lanes: dict[Slug, TestLane] = Field(default=_LANES, min_length=1)
    retries: int = Field(
        default=1,
        ge=0,
        le=5,
        description="How often a guard is run again that died with its machine; never for an assertion",
    )
    max_flaky: int = Field(default=2, ge=0, description="More flaky guards than this make a night INCOMPLETE")
    slurm: Slurm = Slurm()
    models: str = Field(
        default="",
        description="Folder with the models of GPU lanes, each below it by its name; none: PATCHSTACK_MODELS says it",
    )

    @field_validator("lanes")
    @classmethod
    def _has_cpu(cls, value: dict[str, TestLane]) -> dict[str, TestLane]:
        if "cpu" not in value:
            raise ValueError("lane cpu is missing, and the night runs it itself; add it")
        if value["cpu"].executor is not None or value["cpu"].gpus:
            raise ValueError("lane cpu runs where the night runs, without a GPU: take out its `executor` and `gpus`")
        if IMAGE in value:
            raise ValueError(f"{IMAGE!r} is what channels call the night's image; give the lane another name")
        return value


class BlameBudget(_Part):
    """How far a red night goes to find out who made it red."""

    max_probes: int = Field(default=40, ge=0, description="Runs of the failing guards, on other trees; 0: no blame")
    max_minutes: int = Field(default=60, gt=0)
    rounds: int = Field(default=3, gt=0, le=10, description="How often what is left is composed and tested again")


class Channel(_Part):
    needs: tuple[Slug, ...] = Field(min_length=1, description="Test lanes, and `image`")
    flaky: Literal["warn", "hold"] = Field(
        default="warn", description="Whether a guard that passes and fails on one tree keeps it where it is"
    )


class Config(_Part):
    """The whole of `deploy.yaml`."""

    version: Literal[1] = Field(alias="schema", description="Version of this file's layout")
    fork: Fork
    lanes: dict[Slug, Lane] = Field(min_length=1)
    pulls: Pulls = Pulls()
    channels: dict[Slug, Channel] = Field(min_length=1)
    schedule_utc: str = Field(default="02:00", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")
    max_lost: int = Field(default=2, ge=0)
    max_age_days: int = Field(default=7, gt=0)
    deadline_min: int = Field(
        default=300, gt=0, description="Minutes after which a night ends INCOMPLETE with what it has"
    )
    tests: Tests = Tests()
    blame: BlameBudget = BlameBudget()

    @model_validator(mode="after")
    def _needs_are_lanes(self) -> Config:
        known = [*self.tests.lanes, IMAGE]
        for name, channel in self.channels.items():
            for need in channel.needs:
                if need not in known:
                    raise ValueError(
                        f"channel {name} needs {need!r}, which is no lane of tests.lanes; write one of "
                        f"{', '.join(known)}"
                    )
        return self

    @model_validator(mode="after")
    def _branches_differ(self) -> Config:
        owner: dict[str, str] = {self.fork.main: "fork.main"}
        for name, lane in self.lanes.items():
            for branch, what in (
                (lane.branch, f"lanes.{name}.branch"),
                (f"base/{name}", f"the base of lane {name}"),
                (f"stack/{name}", f"the stack of lane {name}"),
                (f"history/{name}", f"the history of lane {name}"),
            ):
                if branch in owner:
                    raise ValueError(f"branch {branch!r} is both {owner[branch]} and {what}; give each its own")
                nested = next((other for other in owner if f"{branch}/".startswith(f"{other}/")), None) or next(
                    (other for other in owner if f"{other}/".startswith(f"{branch}/")), None
                )
                if nested is not None:  # git keeps a branch as a file: x and x/y cannot both be there
                    raise ValueError(f"branches {branch!r} and {nested!r} cannot both be in one repository; rename one")
                owner[branch] = what
        return self

    @model_validator(mode="after")
    def _image_tags_differ(self) -> Config:
        # The image tags of lane x begin with x-, and those of a cpu image, in any lane, with cpu-.
        for name, lane in self.lanes.items():
            if lane.image and lane.image.runtime == "cuda" and f"-{name}".endswith("-cpu"):
                raise ValueError(f"lane {name!r} would have image tags that cpu images have; give it another name")
        return self

    @model_validator(mode="after")
    def _sources_are_composed(self) -> Config:
        closed = {lane.branch for lane in self.lanes.values()} | {f"history/{name}" for name in self.lanes}
        for source in self.pulls.sources:
            if isinstance(source, GitHubSource) and source.repo == self.fork.repo:
                for branch in source.into:
                    if branch == self.fork.main or branch in closed:
                        raise ValueError(
                            f"pull requests into {branch!r} of the fork are never composed; take it out of `into` and "
                            "name base/LANE and stack/LANE"
                        )
        return self

    @model_validator(mode="after")
    def _repositories_are_spelled_alike(self) -> Config:
        sources = {source.repo for source in self.pulls.sources if isinstance(source, GitHubSource)}
        for repo in sources:
            # GitHub does not tell repositories apart by letter case, and names of pull requests do.
            if repo != self.fork.repo and repo.casefold() == self.fork.repo.casefold():
                raise ValueError(f"source {repo!r} is fork.repo, {self.fork.repo!r}; spell both alike")
        for skip in self.pulls.skip:
            if skip.repo is not None and skip.repo not in {self.fork.repo, *sources}:
                raise ValueError(
                    f"skip: no source lists pull requests of {skip.repo!r}; mend its spelling, or take the entry of "
                    f"{skip.pr} out"
                )
        return self

    @field_validator("channels")
    @classmethod
    def _moves_the_branch(cls, value: dict[str, Channel]) -> dict[str, Channel]:
        if NIGHTLY not in value:
            raise ValueError(f"channel {NIGHTLY} is missing, and it is what moves the branch; add it")
        return value


_FIXES = {
    "extra_forbidden": "remove the key, or mend its spelling",
    "missing": "add it",
    "string_type": "write it in quotes",
    "int_type": "write a whole number, without quotes",
    "tuple_type": "write a list: [a, b]",
    "dict_type": "write a mapping: {key: value}",
}
_PLURAL_UNIONS = {"RefSource", "GitHubSource"}


def load(path: Path) -> Config:
    """The configuration at ``path``; `ConfigError` with every problem as ``file:line: path: problem: fix``."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            [f"{path}:1: : there is no such file: run from the repository's root, or use --config"]
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}:1: : it is not UTF-8 ({error.reason}): save it as UTF-8"]) from error
    except OSError as error:
        raise MachineError(f"{path} cannot be read: {error.strerror}") from error
    try:
        root = compose_mapping(text)
        values = construct(root)
        problems = [f"{path}:{line}: {where}: the key stands twice: keep one" for line, where in repeated_keys(root)]
    except YamlProblem as problem:
        fix = "write plain `key: value` lines, `schema: 1` first"
        raise ConfigError([f"{path}:{problem.line}: : {problem}: {fix}"]) from problem
    try:
        config = Config.model_validate_json(json.dumps(values, default=str, ensure_ascii=False))
    except ValidationError as error:
        problems += _problems(path, root, error)
        config = None
    if problems or config is None:
        raise ConfigError(sorted(problems, key=_line_number))
    return config


def line_in(path: Path, *location: int | str) -> int:
    """The line of what stands at ``location`` of a file that loads."""
    return line_of(compose_mapping(path.read_text(encoding="utf-8")), location)


def _line_number(problem: str) -> int:
    found = re.match(r".*?:(\d+): ", problem)
    return int(found.group(1)) if found else 0


def _problems(path: Path, root: yaml.Node, error: ValidationError) -> list[str]:
    """Every problem once. A union reports each member's view: only that of the member that was meant is told."""
    details = error.errors(include_url=False)
    deeper = {detail["loc"][: depth + 1] for detail in details for depth in range(len(detail["loc"]) - 1)}
    found: list[str] = []
    for detail in details:
        location = tuple(part for part in detail["loc"] if part not in _PLURAL_UNIONS and part != "[key]")
        if detail["type"] == "too_short" and detail["loc"] in deeper:
            continue  # it counts only the entries that are right; the wrong ones are named by themselves
        member = next((part for part in detail["loc"] if part in _PLURAL_UNIONS), None)
        if member is not None and member != _meant_source(root, location):
            continue
        where = ".".join(map(str, location)) or "(the whole file)"
        said = problem_of(detail, _FIXES, "mend the value")
        found.append(f"{path}:{line_of(root, location)}: {where}: {said}")
    return found


def _meant_source(root: yaml.Node, location: tuple[int | str, ...]) -> str:
    """Which kind of source the mapping at ``pulls.sources.N`` was meant to be."""
    node: yaml.Node = root
    for part in location[:3]:
        if isinstance(node, yaml.MappingNode):
            node = next(value for key, value in node.value if key.value == str(part))
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
    keys = {key.value for key, _ in node.value} if isinstance(node, yaml.MappingNode) else set()
    return "RefSource" if "refs" in keys else "GitHubSource"


def schema_text() -> str:
    """The JSON schema of `deploy.yaml`, as it is committed beside this module."""
    schema = Config.model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "deploy.yaml", **schema}
    return json.dumps(schema, indent=2, ensure_ascii=True) + "\n"
