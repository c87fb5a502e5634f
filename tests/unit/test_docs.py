"""README, CONTRIBUTING and docs/ say what the code does: verbs, options, exit codes, keys, reasons, links, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import click
import pytest
import yaml

from patchstack.cli import main_group
from patchstack.config import load
from patchstack.errors import EXIT_CODES
from patchstack.model import GuardOutcome, Reason, Standing
from patchstack.patches import header
from patchstack.patches.prose import HEADINGS
from patchstack.store import STAGE_FILES

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
OPERATORS, NIGHT, AUTHORS = (ROOT / "docs" / name for name in ("operators.md", "night.md", "patch-authors.md"))

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def column(page: Path, heading: str, number: int = 0) -> list[str]:
    """One column of the tables whose first heading is ``heading``, without the backquotes."""
    found: list[str] = []
    inside = False
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif cells[0] == heading:
            inside = True
        elif inside and not set(cells[0]) <= set("-: "):
            found.append(cells[number])
    return found


def spans(cells: list[str]) -> list[str]:
    return [span for cell in cells for span in SPAN.findall(cell)]


# --- the command line ---


def verbs(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from verbs(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def options(command: click.Command) -> set[str]:
    """The long names of its options, less `--help`, which all have."""
    declared = [option.opts for option in command.params if isinstance(option, click.Option)]
    return {next(name for name in names if name.startswith("--")) for names in declared} - {"--help"}


def test_every_verb_and_each_of_its_options_is_documented() -> None:
    documented = zip(column(OPERATORS, "verb"), column(OPERATORS, "verb", 1), strict=True)
    assert {verb.strip("`"): set(SPAN.findall(listed)) for verb, listed in documented} == {
        verb: options(command) for verb, command in verbs(main_group)
    }


def test_every_option_before_the_verb_is_documented() -> None:
    (line,) = [line for line in OPERATORS.read_text().splitlines() if line.startswith("Options before the verb:")]
    assert set(SPAN.findall(line.partition(".")[0])) == options(main_group)


def commands(page: Path) -> Iterator[str]:
    """Each `patchstack …` of a fenced block (of a console: behind the prompt), and each quoted in the text."""
    text = page.read_text()
    for kind, block in FENCE.findall(text):
        lines = [line.strip() for line in block.splitlines()]
        shown = [line.removeprefix("$ ") for line in lines if line.startswith("$ ") or kind in {"sh", "bash"}]
        for line in shown:
            yield from (part.strip() for part in re.split(r"&&|;|\|", line) if "patchstack " in f"{part} ")
    yield from (span for span in SPAN.findall(FENCE.sub("", text)) if span.split()[0] == "patchstack")


def parse(line: str) -> None:
    """Parse a command line without running it; a verb that is only named needs no arguments."""
    words = shlex.split(line, comments=True)
    program = next(number for number, word in enumerate(words) if Path(word).name == "patchstack")
    command: click.Command = main_group
    context, rest = None, words[program + 1 :]
    while isinstance(command, click.Group):
        context = command.make_context(command.name, [*rest, "VERB"], parent=context)
        rest = command.make_parser(context).parse_args(rest)[1]
        if not rest:
            return
        name, *rest = rest
        found = command.get_command(context, name)
        assert found is not None, f"no verb {name!r}"
        command = found
    if rest:
        command.make_context(command.name, rest, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_command_line_that_is_quoted_parses(page: Path) -> None:
    wrong = []
    for line in commands(page):
        try:
            parse(line)
        except (click.ClickException, AssertionError) as error:
            wrong.append(f"{line}: {error}")
    assert wrong == []


def test_a_wrong_command_line_would_be_seen() -> None:
    for line in (
        "patchstack plan --jsom",
        "patchstack --remote plan --json",
        "patchstack patch exprot x",
        "patchstack nite",
    ):
        with pytest.raises((click.ClickException, AssertionError)):
            parse(line)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_make_target_that_is_quoted_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    quoted = set(re.findall(r"(?:`|\$ |&& )make ([a-z-]+)", page.read_text()))
    assert quoted <= targets


# --- tables ---


def test_every_exit_code_is_in_the_readme() -> None:
    assert sorted(map(int, column(ROOT / "README.md", "code"))) == sorted(EXIT_CODES)


def test_what_to_do_names_known_exit_codes() -> None:
    assert set(map(int, column(OPERATORS, "code"))) <= EXIT_CODES.keys()


def test_the_front_matter_is_documented_as_it_is_read() -> None:
    fields = header._FrontMatter.model_fields.items()
    assert spans(column(AUTHORS, "key")) == [field.alias or name for name, field in fields]


def test_the_sections_of_a_patch_are_documented() -> None:
    assert f"sections {', '.join(HEADINGS[:-1])} and {HEADINGS[-1]}," in AUTHORS.read_text()


@pytest.mark.parametrize(
    ("heading", "values"),
    [("reason", Reason), ("a patch is", Standing), ("a test's outcome", GuardOutcome)],
    ids=["reasons", "standings", "outcomes"],
)
def test_every_word_of_a_report_is_explained(heading: str, values: type[StrEnum]) -> None:
    assert sorted(spans(column(NIGHT, heading))) == sorted(value.value for value in values)


def test_every_file_of_a_run_is_documented() -> None:
    logs = {"logs/TREE/SLUG.log", "logs/TREE/stacks/SLUG/*.txt"}
    beside_the_stages = {"report.md", "junit.xml", "answers.md", "traceback.txt", *logs}
    assert set(spans(column(OPERATORS, "file"))) == {*STAGE_FILES.values(), *beside_the_stages}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_quoted_parts_of_deploy_yaml_are_read(page: Path, tmp_path: Path) -> None:
    """Each fenced block that begins with a key of the file, laid over the repository's own."""
    own = yaml.safe_load((ROOT / "deploy.yaml").read_text())
    for kind, block in FENCE.findall(page.read_text()):
        said = yaml.safe_load(block) if kind == "yaml" else None
        if isinstance(said, dict) and said.keys() <= own.keys():
            (tmp_path / "deploy.yaml").write_text(
                yaml.safe_dump({**own, **said, "channels": {"nightly": {"needs": ["cpu"]}}})
            )
            load(tmp_path / "deploy.yaml")


# --- between pages ---


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def test_quoted_guards_stand_in_the_files_that_are_named() -> None:
    quoted = re.findall(r"<!-- quoted from (\S+) -->\n```python\n(.*?)```", AUTHORS.read_text(), re.DOTALL)
    assert quoted
    for path, code in quoted:
        source = (ROOT / path).read_text()
        missing = [part for part in code.strip().split("\n\n\n") if part not in source]
        assert missing == [], path


def test_make_test_rehearses_every_lane() -> None:
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("LANES := ")]
    assert line.split()[2:] == [lane for lane in load(ROOT / "deploy.yaml").tests.lanes if lane != "cpu"]
