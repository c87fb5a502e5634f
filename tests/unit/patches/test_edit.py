"""A human edits a patch with ordinary git: work tree, change, export, and what is never lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchstack import process
from patchstack.errors import CompositionError, UsageError
from patchstack.git import Signature
from patchstack.patches.edit import Edited, edit
from patchstack.patches.export import export
from patchstack.patches.lint import lint

from .stack_bench import Bench

LINES = "".join(f"line_{number} = {number}\n" for number in range(40))


def git(folder: Path, *argv: str) -> str:
    """The human's own git, with the human's own configuration."""
    return process.run(["git", *argv], cwd=folder).stdout.rstrip("\n")


class Desk:
    """The human's place: a stack of three patches, of which the last is edited."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.base = bench.release("1.0", {"a.py": LINES, "b.py": "x = 1\n"})
        bench.patch("low", self.base, {"a.py": LINES.replace("line_1 = 1\n", "line_1 = 0  # SGLANG_X\n")}, title="low")
        bench.patch("spare", self.base, {"spare.py": "SGLANG_X = 1\n"}, title="spare", optional=True)
        author = Signature("Zoë Ünal", "zoe@example.org", "@1795219200 +0530")
        files = {"a.py": LINES.replace("line_30 = 30", "line_30 = 0  # SGLANG_X"), "new.py": "n = 1\n"}
        bench.patch("top", self.base, files, title="top: ümlaut", author=author, body="Why.\n\n")
        self.folder = bench.root / "work"

    @property
    def diff(self) -> Path:
        return self.bench.folder / "top" / "1.0..1.0.patch"

    def edit(self, slug: str = "top", folder: Path | None = None) -> Edited:
        return edit(self.bench.store, self.base, self.bench.read(), slug, folder or self.folder)

    def export(self, slug: str = "top", *, dry_run: bool = False, folder: Path | None = None) -> tuple[Path, ...]:
        where = folder or self.folder
        return export(self.bench.store, self.base, self.bench.read(), slug, where, dry_run=dry_run)

    def append(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text((path.read_text() if path.exists() else "") + text)

    def lint(self) -> None:
        lint(self.bench.read(), {"1.0": self.base}, self.bench.store, root=self.bench.root).require_clean()


@pytest.fixture
def desk(bench: Bench) -> Desk:
    return Desk(bench)


def test_the_work_tree_is_the_stack_as_commits_up_to_the_patch(desk: Desk) -> None:
    made = desk.edit()
    assert made == Edited(desk.folder, "patchstack/top", ("low",), "")
    assert git(desk.folder, "log", "--format=%an|%s", "patchstack/top").splitlines() == [
        "Zoë Ünal|top: ümlaut",
        "Acme SGLang maintainers|low",
        "patchstack|Sources of 1.0",
    ]
    assert git(desk.folder, "status", "--porcelain") == ""
    assert git(desk.folder, "rev-parse", "--abbrev-ref", "HEAD") == "patchstack/top"
    assert sorted(path.name for path in desk.folder.iterdir()) == [".git", "a.py", "b.py", "new.py"]
    text = (desk.folder / "a.py").read_text()
    assert "line_1 = 0  # SGLANG_X" in text
    assert "line_30 = 0  # SGLANG_X" in text


def test_the_work_tree_lives_without_the_store(desk: Desk) -> None:
    desk.edit()
    desk.bench.store.folder.rename(desk.bench.root / "moved.git")
    git(desk.folder, "fsck", "--full", "--strict")
    assert git(desk.folder, "show", "HEAD:b.py") == "x = 1"


def test_an_unchanged_patch_is_exported_byte_by_byte(desk: Desk) -> None:
    before = desk.diff.read_bytes()
    desk.edit()
    assert desk.export() == ()
    assert desk.diff.read_bytes() == before


def test_a_changed_patch_is_exported_changed_without_its_neighbour(desk: Desk) -> None:
    desk.edit()
    desk.append("a.py", "last = 1\n")
    (desk.folder / "new.py").unlink()
    desk.append("other.py", "SGLANG_X = 0\n")
    git(desk.folder, "add", "--all")
    git(desk.folder, "commit", "--quiet", "--amend", "--no-edit")
    before = desk.diff.read_bytes()
    assert desk.export(dry_run=True) == (desk.diff,)
    assert desk.diff.read_bytes() == before
    assert desk.export() == (desk.diff,)
    assert desk.export() == ()
    mail = desk.diff.read_text()
    assert mail.startswith("""\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: =?UTF-8?q?Zo=C3=AB=20=C3=9Cnal?= <zoe@example.org>
Date: Sat, 21 Nov 2026 05:30:00 +0530
Subject: =?UTF-8?q?top:=20=C3=BCmlaut?=
MIME-Version: 1.0
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: 8bit

Why.

Cut-On: 1.0

diff --git a/a.py b/a.py
""")
    assert "+last = 1\n" in mail
    assert "line_1 = 0" not in mail
    assert "new.py" not in mail
    assert "b/other.py" in mail
    desk.lint()


def test_further_commits_join_the_first_and_its_message_stays(desk: Desk) -> None:
    desk.edit()
    for number in range(2):
        desk.append("b.py", f"y = {number}\n")
        git(desk.folder, "commit", "--quiet", "--all", "-m", f"fixup {number}")
    desk.export()
    mail = desk.diff.read_text()
    assert "Subject: =?UTF-8?q?top:=20=C3=BCmlaut?=" in mail
    assert "fixup" not in mail
    assert "+y = 0\n+y = 1\n" in mail


def test_an_exported_work_tree_may_be_made_anew_for_another_patch(desk: Desk) -> None:
    desk.edit()
    desk.append("b.py", "y = 1\n")
    git(desk.folder, "commit", "--quiet", "--all", "--amend", "--no-edit")
    desk.export()
    assert desk.edit("low").below == ()
    assert git(desk.folder, "log", "-1", "--format=%s %D") == "low HEAD -> patchstack/low"
    assert desk.edit("spare").below == ("low",)
    assert desk.edit().below == ("low",)
    assert (desk.folder / "b.py").read_text() == "x = 1\ny = 1\n"


HOSTILE = {
    "user.name": "Somebody",
    "user.email": "somebody@example.net",
    "core.abbrev": "4",
    "core.autocrlf": "true",
    "core.eol": "crlf",
    "color.ui": "always",
    "commit.cleanup": "verbatim",
    "diff.noprefix": "true",
    "diff.mnemonicPrefix": "true",
    "diff.algorithm": "patience",
    "diff.renames": "copies",
    "diff.context": "0",
    "format.attach": "true",
    "format.signature": "bye",
    "format.subjectPrefix": "EVIL",
    "format.from": "true",
    "i18n.commitEncoding": "ISO-8859-1",
    "i18n.logOutputEncoding": "ISO-8859-1",
    "status.showUntrackedFiles": "no",
    "transfer.fsckObjects": "false",
}


def test_the_humans_configuration_does_not_show_in_the_diff(desk: Desk) -> None:
    desk.edit()
    desk.append("a.py", "last = 1\n")
    git(desk.folder, "commit", "--quiet", "--all", "--amend", "--no-edit")
    desk.export()
    plain = desk.diff.read_bytes()
    for key, value in HOSTILE.items():
        git(desk.bench.root, "config", "--global", key, value)
    other = desk.bench.root / "other"
    desk.edit(folder=other)
    assert git(other, "status", "--porcelain") == ""
    for key, value in HOSTILE.items():
        if key != "core.autocrlf":
            git(other, "config", key, value)
    git(other, "commit", "--quiet", "--amend", "--no-edit", "--allow-empty")
    assert "encoding ISO-8859-1\n" in git(other, "cat-file", "commit", "HEAD")
    assert desk.export(folder=other) == ()
    assert desk.diff.read_bytes() == plain


# --- what could be lost ---


def refused(desk: Desk, what: str, slug: str = "top") -> str:
    before = {path: path.read_bytes() for path in desk.folder.rglob("*") if path.is_file() and ".git" not in path.parts}
    with pytest.raises(UsageError) as caught:
        desk.edit(slug) if what == "edit" else desk.export(slug)
    assert caught.value.exit_code == 2
    for path, content in before.items():
        assert path.read_bytes() == content
    return str(caught.value).replace(str(desk.folder), "work")


@pytest.mark.parametrize("change", ["changed", "staged", "new", "deleted"])
def test_a_dirty_work_tree_is_refused_and_left_alone(desk: Desk, change: str) -> None:
    desk.edit()
    name = "new file.py" if change == "new" else "b.py"
    if change == "deleted":
        (desk.folder / "b.py").unlink()
    else:
        desk.append(name, "precious = 1\n")
    if change == "staged":
        git(desk.folder, "add", "b.py")
    shown = '"new file.py"' if change == "new" else "b.py"
    expected = f"work: not committed: {shown}; commit it (git commit --amend), or take it away"
    assert refused(desk, "edit") == expected
    assert refused(desk, "export") == expected


def test_commits_that_were_not_exported_are_refused(desk: Desk) -> None:
    desk.edit()
    desk.append("b.py", "precious = 1\n")
    git(desk.folder, "commit", "--quiet", "--all", "-m", "more")
    head = git(desk.folder, "rev-parse", "HEAD")
    assert refused(desk, "edit", "low") == (
        "work has commits that were not exported: run `patchstack patch export top --from work`, or name a new folder"
    )
    assert git(desk.folder, "rev-parse", "HEAD") == head


def test_a_foreign_folder_a_file_and_a_foreign_repository_are_refused(desk: Desk) -> None:
    desk.folder.mkdir()
    (desk.folder / "thesis.txt").write_text("all of it\n")
    assert refused(desk, "edit") == "work is not empty, and no work tree of `patch edit`: name a new folder"
    assert refused(desk, "export") == ("work is no work tree of `patch edit`: make one with `patchstack patch edit`")
    git(desk.folder, "init", "--quiet")
    assert refused(desk, "edit") == "work is not empty, and no work tree of `patch edit`: name a new folder"
    (desk.folder / "thesis.txt").unlink()
    assert "no work tree" in refused(desk, "edit")
    file = desk.bench.root / "file"
    file.write_text("x")
    with pytest.raises(UsageError, match="is a file: name a new folder"):
        desk.edit(folder=file)
    assert file.read_text() == "x"


def test_an_empty_folder_is_taken(desk: Desk) -> None:
    desk.folder.mkdir()
    assert desk.edit().note == ""


def test_a_rebase_under_way_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.edit()
    monkeypatch.setenv("GIT_SEQUENCE_EDITOR", "sed -i s/^pick/edit/")
    git(desk.folder, "rebase", "--interactive", "HEAD~1")
    assert refused(desk, "export").startswith("work is on no patch's branch, not on patchstack/top")
    assert refused(desk, "edit") == "work: a rebase, merge or `git am` is under way: finish it or abort it first"


def test_another_branch_is_refused(desk: Desk) -> None:
    desk.edit()
    git(desk.folder, "checkout", "--quiet", "-b", "mine")
    assert refused(desk, "export") == "work is on no patch's branch, not on patchstack/top: check that branch out"
    git(desk.folder, "checkout", "--quiet", "patchstack/top")
    assert refused(desk, "export", "low") == ("work is on patch 'top', not on patchstack/low: check that branch out")


def test_a_rewritten_patch_below_is_refused_and_not_lost_in_silence(desk: Desk) -> None:
    desk.edit()
    git(desk.folder, "checkout", "--quiet", "HEAD~1")
    desk.append("b.py", "precious = 1\n")
    git(desk.folder, "commit", "--quiet", "--all", "--amend", "--no-edit")
    git(desk.folder, "checkout", "--quiet", "-B", "patchstack/top")
    desk.append("a.py", "last = 1\n")
    git(desk.folder, "commit", "--quiet", "--all", "-m", "top: ümlaut")
    assert refused(desk, "export") == (
        "work: the commits below top were rewritten, and would be lost: edit each of those patches in a work tree of"
        " its own; this stack is still at refs/patchstack/onto"
    )


def test_a_patch_that_was_emptied_is_refused(desk: Desk) -> None:
    desk.edit()
    git(desk.folder, "reset", "--quiet", "--hard", "HEAD~1")
    assert refused(desk, "export") == "work: nothing on top of the stack: commit the change of top first"


def test_another_title_is_refused_until_patch_md_says_the_same(desk: Desk) -> None:
    desk.edit()
    git(desk.folder, "commit", "--quiet", "--amend", "-m", "top: better")
    header = desk.bench.folder / "top" / "patch.md"
    assert refused(desk, "export") == (
        f"the commit is called 'top: better' and {header} 'top: ümlaut': give both the same title"
    )
    header.write_text(header.read_text().replace("top: ümlaut", "top: better"))
    assert desk.export() == (desk.diff,)
    assert "Subject: top: better\n\nCut-On: 1.0\n\ndiff --git" in desk.diff.read_text()


def test_a_work_tree_of_another_base_is_refused(desk: Desk) -> None:
    desk.edit()
    desk.base = desk.bench.release("1.0", {"a.py": LINES, "b.py": "x = 1\n", "more.py": ""})
    assert refused(desk, "export") == (
        "work was made on another base than sglang==1.0: use the lane that it was made in"
    )


def test_an_unknown_patch_is_refused(desk: Desk) -> None:
    assert refused(desk, "edit", "ghost") == "no patch is called 'ghost'; the series has: low, spare, top"


# --- a change that stands on another patch, a new patch, one that does not apply ---


def test_a_change_that_stands_on_another_patch_asks_for_requires(desk: Desk) -> None:
    desk.edit()
    text = (desk.folder / "a.py").read_text()
    (desk.folder / "a.py").write_text(text.replace("line_1 = 0", "line_1 = 7"))
    git(desk.folder, "commit", "--quiet", "--all", "--amend", "--no-edit")
    before = desk.diff.read_bytes()
    with pytest.raises(CompositionError) as caught:
        desk.export()
    assert str(caught.value) == (
        "patch `top` does not stand on what it requires: its change in a.py builds on another patch below it:"
        " add that one to `requires` (one of low)"
    )
    assert desk.diff.read_bytes() == before
    header = desk.bench.folder / "top" / "patch.md"
    header.write_text(header.read_text().replace("requires: []", "requires: [low]"))
    assert desk.export() == (desk.diff,)
    desk.lint()


def test_a_new_patch_is_a_header_a_series_line_and_a_commit(desk: Desk) -> None:
    text = (desk.bench.folder / "top" / "patch.md").read_text()
    desk.bench.write("fresh", text.replace("top: ümlaut", "fresh"))
    made = desk.edit("fresh")
    assert made.below == ("low", "top")
    assert made.note == "the patch has no diff for 1.0 yet: make it one or more commits"
    desk.append("fresh.py", "SGLANG_X = 1\n")
    git(desk.folder, "add", "fresh.py")
    git(desk.folder, "commit", "--quiet", "--date", "@1795219200 +0000", "-m", "fresh")
    path = desk.bench.folder / "fresh" / "1.0..1.0.patch"
    assert desk.export("fresh") == (path,)
    assert path.read_text().startswith(
        "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n"
        "From: Tester <tester@example.com>\nDate: Sat, 21 Nov 2026 00:00:00 +0000\nSubject: fresh\n\nCut-On: 1.0\n"
    )
    desk.lint()


def test_a_diff_that_does_not_apply_any_more_is_mended_with_git_am(desk: Desk) -> None:
    header = desk.bench.folder / "top" / "patch.md"
    header.write_text(header.read_text().replace("requires: []", "requires: [low]"))
    made = desk.edit()
    assert made.note.splitlines() == [
        "required patch `top` (1.0..1.0.patch) does not apply on 1.0, on which it was cut:",
        "  a.py: it was cut on blob d19928e7278b, and here it is 88097a1d7692: its hunks would still find a place",
        "  mend it in a work tree (patchstack patch edit top FOLDER) and write it back (patch export)",
        f"The work tree is the stack below it: git -C {desk.folder} am --keep --keep-cr --3way {desk.diff}",
    ]
    assert git(desk.folder, "log", "-1", "--format=%s") == "low"
    git(desk.folder, *made.note.splitlines()[-1].partition(f"git -C {desk.folder} ")[2].split())
    assert desk.export() == (desk.diff,)
    desk.lint()


def test_a_diff_of_another_release_is_edited_there(desk: Desk) -> None:
    desk.bench.patch("wide", desk.base, {"w.py": "SGLANG_X = 1\n"}, title="wide", up_to="2.0")
    with pytest.raises(UsageError) as caught:
        edit(desk.bench.store, desk.bench.release("2.0", {"w.txt": ""}), desk.bench.read(), "wide", desk.folder)
    assert str(caught.value) == (
        "1.0..2.0.patch of wide was cut on 1.0, and this lane is on 2.0: edit it in a lane of that release,"
        " or narrow the range in its file name and edit it here to cut another diff"
    )
    assert not desk.folder.exists()


# --- export without a work tree ---


def test_a_diff_as_it_stands_is_made_canonical(desk: Desk) -> None:
    canonical = desk.diff.read_bytes()
    desk.diff.write_bytes(
        canonical.replace(b"\ndiff --git", b"---\n a.py | 2 +-\n\ndiff --git", 1) + b"-- \n2.39.5\n\n"
    )
    stale = desk.diff.read_bytes()
    run = {"store": desk.bench.store, "base": desk.base, "slug": "top"}
    assert export(patches=desk.bench.read(), dry_run=True, **run) == (desk.diff,)
    assert desk.diff.read_bytes() == stale
    assert export(patches=desk.bench.read(), **run) == (desk.diff,)
    assert desk.diff.read_bytes() == canonical
    assert export(patches=desk.bench.read(), **run) == ()
