"""An accumulator branch becomes patches: what each is called, what it stands on, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchstack.compose.carried import restrict, roots
from patchstack.errors import CompositionError, UsageError
from patchstack.git import EMPTY_TREE, Repository, Signature
from patchstack.model import Base, Sha
from patchstack.patches.accumulator import (
    NOBODY,
    Fate,
    Step,
    Turned,
    _Bench,
    first_parent_line,
    named,
    slug_of,
    turn,
)
from patchstack.patches.header import read_header
from patchstack.patches.mail import format_mail, read_mail
from patchstack.patches.replay import replay
from patchstack.patches.skeleton import header_text
from patchstack.patches.todo import todo_problems

RELEASE = "0.5.12.post1"
A, B, NEW = "python/sglang/a.py", "python/sglang/b.py", "python/sglang/new.py"
TEN = "".join(f"line {number}\n" for number in range(1, 11))


def edit(text: str, number: int, line: str) -> str:
    lines = text.splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"


@dataclass
class Branch:
    """A release with two files, and a branch cut from upstream's repository, which holds its docs as well."""

    store: Repository
    base: Base
    begin: Sha
    tip: Sha
    minute: int = 0

    def tree(self, files: Mapping[str, str | None], onto: str = EMPTY_TREE) -> Sha:
        entries = [
            ("0", "0" * 40, path) if text is None else ("100644", self.store.write_blob(text.encode()), path)
            for path, text in files.items()
        ]
        return self.store.edit_tree(onto, entries)

    def write(self, message: str, files: Mapping[str, str | None], *parents: Sha, author: str = "Ann") -> Sha:
        """A commit on ``parents``, one minute after the one before."""
        self.minute += 1
        who = Signature(author, f"{author.lower()}@example.com", f"@{1_700_000_000 + 60 * self.minute} +0100")
        return self.store.commit(self.tree(files, self.store.tree_of(parents[0])), parents, message, who)

    def gather(self, message: str, files: Mapping[str, str | None], author: str = "Ann") -> Sha:
        self.tip = self.write(message, files, self.tip, author=author)
        return self.tip

    def merge(self, message: str, other: Sha) -> Sha:
        merged = self.store.merge_tree(self.tip, other)
        assert merged.clean
        who = Signature("Merger", "merger@example.com", "@1800000000 +0000")
        self.tip = self.store.commit(merged.tree, (self.tip, other), message, who)
        return self.tip

    def gather_one(self, title: str) -> list[Step]:
        self.gather(f"{title}\n", {A: edit(TEN, 1, title)})
        return self.steps()

    def text(self, path: str) -> str:
        return (self.store.read_blob(f"{self.tip}:{path}") or b"").decode()

    def steps(self) -> list[Step]:
        carried = roots(self.store, self.base.tree)
        return [
            Step(
                commit,
                named(self.store, commit),
                restrict(self.store, self.store.parents(commit)[0], carried),
                restrict(self.store, commit, carried),
                tuple(
                    change.path
                    for change in self.store.changes(self.store.parents(commit)[0], commit)
                    if not change.path.startswith("python/sglang/")
                ),
            )
            for commit in first_parent_line(self.store, self.begin, self.tip)
        ]

    def turn(self, *taken: str) -> Turned:
        return turn(self.store, self.base, (), self.steps(), taken)


@pytest.fixture
def branch(repository: Repository) -> Branch:
    sources = {A: TEN, B: TEN}
    made = Branch(repository, Base("", "", EMPTY_TREE, EMPTY_TREE), EMPTY_TREE, EMPTY_TREE)
    tree = made.tree({**sources, "python/tools/tag.py": "TAG = 1\n"})
    commit = repository.commit(tree, (), "Sources of it\n")
    made.base = Base(f"sglang=={RELEASE}", RELEASE, commit, tree)
    made.begin = made.tip = repository.commit(made.tree({**sources, "docs/x.md": "x\n"}), (), "Release\n")
    return made


def told(turned: Turned) -> list[str]:
    return [f"{patch.slug} on {', '.join(patch.requires) or 'the base'}" for patch in turned.imported]


def test_what_does_not_apply_without_an_earlier_one_requires_it(branch: Branch) -> None:
    branch.gather("a: one\n", {A: edit(TEN, 1, "ONE")})
    branch.gather("b: one\n", {B: edit(TEN, 1, "ONE")})
    branch.gather("new: begin\n", {NEW: TEN})
    branch.gather("a: far from the first\n", {A: edit(branch.text(A), 10, "TEN")})
    branch.gather("a: on the first\n", {A: edit(branch.text(A), 1, "ONE AGAIN")})
    branch.gather("new and b\n", {NEW: edit(TEN, 5, "FIVE"), B: edit(branch.text(B), 2, "TWO")})
    turned = branch.turn()
    assert told(turned) == [
        "a-one on the base",
        "b-one on the base",
        "new-begin on the base",
        "a-far-from-the-first on the base",
        "a-on-the-first on a-one",
        "new-and-b on b-one, new-begin",
    ]
    assert turned.not_imported == ()


def test_a_requirement_of_a_requirement_is_not_named(branch: Branch) -> None:
    for round_ in range(3):
        branch.gather(f"round {round_}\n", {A: edit(branch.text(A), 5, f"round {round_}")})
    assert told(branch.turn()) == ["round-0 on the base", "round-1 on round-0", "round-2 on round-1"]


def test_neighbours_that_apply_alone_and_conflict_when_they_are_merged_stand_on_each_other(branch: Branch) -> None:
    """Each applies to the base by itself; side by side in one hunk they cannot be merged."""
    branch.gather("three\n", {A: edit(TEN, 3, "THREE")})
    branch.gather("four\n", {A: edit(branch.text(A), 4, "FOUR")})
    assert told(branch.turn()) == ["three on the base", "four on three"]


def test_a_place_where_the_stack_would_become_another_is_none(branch: Branch) -> None:
    branch.gather("one", {A: edit(TEN, 1, "ONE")})
    (step,) = branch.steps()
    bench = _Bench(branch.store, branch.base)
    whole = replay(branch.store, step.before, step.after, bench.stack)
    assert bench._stands("one", step, [], whole.tree) is not None
    assert bench._stands("one", step, [], branch.base.tree) is None


def test_what_the_release_lacks_is_left_off_and_what_changes_nothing_is_no_patch(branch: Branch) -> None:
    branch.gather("docs only\n", {"docs/x.md": "y\n"})
    branch.gather("both\n", {"docs/x.md": "z\n", A: edit(TEN, 1, "ONE"), "python/pyproject.toml": "x\n"})
    branch.gather("nothing\n", {})
    branch.gather("back\n", {A: TEN})
    branch.gather("again\n", {A: edit(TEN, 1, "ONE")})
    turned = branch.turn()
    assert told(turned) == ["both on the base", "back on both", "again on the base"]
    assert turned.imported[0].left_off == ("docs/x.md", "python/pyproject.toml")
    assert turned.imported[0].paths == (A,)
    assert [(item.title, item.fate, item.left_off) for item in turned.not_imported] == [
        ("docs only", Fate.NOT_CARRIED, ("docs/x.md",)),
        ("nothing", Fate.EMPTY, ()),
    ]


def test_what_the_release_has_is_not_imported(branch: Branch) -> None:
    fixed = edit(TEN, 7, "SEVEN")
    tree = branch.tree({A: fixed, B: TEN})
    branch.base = Base("sglang==0.5.13", "0.5.13", branch.store.commit(tree, (), "Sources\n"), tree)
    branch.gather("backport of seven\n", {A: fixed})
    branch.gather("b\n", {B: edit(TEN, 1, "ONE")})
    turned = branch.turn()
    assert told(turned) == ["b on the base"]
    assert [(item.title, item.fate) for item in turned.not_imported] == [("backport of seven", Fate.IN_BASE)]


def test_a_merge_is_one_patch_named_by_what_it_brought(branch: Branch) -> None:
    begin = branch.begin
    one = branch.write("pd: mend it\n\nWhy.\n", {A: edit(TEN, 1, "ONE")}, begin, author="Bob")
    two = branch.write("half\n", {B: edit(TEN, 1, "ONE")}, begin, author="Eve")
    two = branch.write("other half\n", {B: edit(TEN, 10, "TEN")}, two, author="Eve")
    branch.merge("Merge branch 'fix/pd' into deploy\n", one)
    branch.merge("Merge pull request #7 from eve/b-halves\n\nb: both halves\n\nAt last.\n", two)
    three = branch.write("x\n", {NEW: "1\n"}, begin)
    three = branch.write("y\n", {NEW: "2\n"}, three)
    branch.merge("Merge remote-tracking branch 'origin/two/things'\n", three)
    turned = branch.turn()
    assert [(patch.slug, patch.title, patch.body) for patch in turned.imported] == [
        ("pd-mend-it", "pd: mend it", "Why.\n\nBranch fix/pd."),
        ("b-both-halves", "b: both halves", "At last.\n\nPull request #7, branch b-halves."),
        ("two-things", "two/things", "Branch two/things."),
    ]
    authors = [read_mail(format_mail(branch.store, patch.commit)).author.name for patch in turned.imported]
    assert authors == ["Bob", "Eve", "Ann"]


def test_a_conflict_names_commit_files_and_whom(branch: Branch) -> None:
    tree = branch.tree({A: edit(TEN, 5, "otherwise"), B: TEN})
    branch.base = Base("sglang==0.5.13", "0.5.13", branch.store.commit(tree, (), "Sources\n"), tree)
    commit = branch.gather("five\n", {A: edit(TEN, 5, "FIVE")})
    with pytest.raises(CompositionError) as error:
        branch.turn()
    assert f"{commit[:12]} 'five' conflicts with sglang==0.5.13 itself in {A}; nothing was written" in str(error.value)


def test_a_slug_is_words_of_the_subject_and_its_own(branch: Branch) -> None:
    def of(title: str) -> str:
        (step,) = Branch(branch.store, branch.base, branch.begin, branch.begin).gather_one(title)
        return slug_of(step)

    assert of("[PD] Fix: don't  crash (#123)") == "pd-fix-don-t-crash-123"
    assert of("日本語 only") == "only"
    assert of("日本語").startswith("commit-")
    long = of("a " * 60 + "end")
    assert (len(long) <= 48, long.endswith("-")) == (True, False)
    assert of("x" * 100) == "x" * 48
    for number in (1, 2, 3):
        branch.gather("Fix\n", {A: edit(branch.text(A), number * 3, f"{number}")})
    branch.gather("Fix 2\n", {B: edit(TEN, 1, "1")})
    assert [patch.slug for patch in branch.turn().imported] == ["fix", "fix-2", "fix-3", "fix-2-2"]


def test_a_slug_of_the_series_is_refused(branch: Branch) -> None:
    branch.gather("Fix\n", {A: edit(TEN, 3, "3")})
    with pytest.raises(UsageError, match="would be patch fix, and patches/ has one of that name"):
        branch.turn("fix")


@pytest.mark.parametrize(
    "message",
    [
        "plain\n",
        "Subject that is so long that a mail folds it: " + "words and " * 20 + "ümläuts\n",
        "two\nlines of subject\n\nbody\n",
        "[PATCH 1/2] tags\n\n---\ncut here\n",
        "diff in a body\n\ndiff --git a/x b/x\nindex 1..2\n--- a/x\n+++ b/x\n",
        "trailers\n\nSigned-off-by: A <a@b>\nCut-On: 9.9\n",
        "tab\there \x07 bell\n",
        "quote \"it\" and 'that' \\ #: {yes}\n",
    ],
)
def test_author_date_and_words_survive_and_the_mail_is_canonical(branch: Branch, message: str, tmp_path: Path) -> None:
    branch.gather(message, {A: edit(TEN, 3, "3")}, author='Zoë "Z" O\'Neil <')
    (patch,) = branch.turn().imported
    mail = read_mail(format_mail(branch.store, patch.commit))
    again = branch.store.commit(
        branch.store.tree_of(patch.commit), branch.store.parents(patch.commit), mail.message, mail.author
    )
    assert (again, mail.subject, mail.cut_on) == (patch.commit, patch.title, RELEASE)
    assert (mail.author.name, mail.author.email) == ('Zoë "Z" O\'Neil', NOBODY)
    assert mail.author.date == "@1700000060 +0100"
    folder = tmp_path / patch.slug
    folder.mkdir()
    (folder / "patch.md").write_text(header_text(patch, owner="acme", release=RELEASE))
    header, problems = read_header(folder, optional=False, variants=())
    assert header is not None, problems
    assert header.title == mail.subject


def test_what_is_to_write_is_named_line_by_line(branch: Branch, tmp_path: Path) -> None:
    branch.gather("Fix\n\nhttps://github.com/sgl-project/sglang/pull/7\n", {A: edit(TEN, 3, "3")})
    (patch,) = branch.turn().imported
    folder = tmp_path / "patches" / patch.slug
    folder.mkdir(parents=True)
    (folder / "patch.md").write_text(header_text(patch, owner="acme", release=RELEASE))
    header, _ = read_header(folder, optional=False, variants=())
    assert header is not None
    assert header.upstream == ("https://github.com/sgl-project/sglang/pull/7",)
    named_keys = [problem.split(": ")[1] for problem in todo_problems(header, tmp_path)]
    assert named_keys == ["owner", "upstream-status", "kill-switch", "remove-when", *["(prose)"] * 6]


def test_a_branch_that_adds_nothing_or_comes_from_elsewhere_is_refused(branch: Branch) -> None:
    with pytest.raises(UsageError, match="adds no commit"):
        branch.turn()
    branch.tip = branch.store.commit(branch.base.tree, (), "elsewhere\n")
    with pytest.raises(UsageError, match="no commit in common"):
        branch.turn()
    branch.tip = branch.store.commit(branch.base.tree, (branch.tip, branch.begin), "joined\n")
    with pytest.raises(UsageError, match="does not come from"):
        branch.turn()
