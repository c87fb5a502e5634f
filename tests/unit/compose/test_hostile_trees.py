"""Attributes, links, submodules, and the configuration of whoever runs it: none changes what is composed."""

from __future__ import annotations

from copy import copy
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, Content, Fork, Link, Program, Submodule, edit

from patchstack.git import Repository
from patchstack.release.remote import ensure_embedded_remote
from patchstack.upstream.lay import materialise

HERE = "python/sglang"
PROTECTED = "touches protected paths"

ATTRIBUTES = """\
* text eol=crlf ident filter=evil merge=evil diff=evil working-tree-encoding=UTF-16 export-ignore export-subst
*.py merge=ours
"""

CONFIG = """\
[core]
	attributesFile = {home}/attributes
	hooksPath = {home}/hooks
	fsmonitor = {evil}
	autocrlf = true
	symlinks = false
	fileMode = false
	quotePath = false
	abbrev = 4
[init]
	templateDir = {home}/template
	defaultObjectFormat = sha1
[filter "evil"]
	clean = {evil}
	smudge = {evil}
	required = true
[merge]
	renames = false
	default = evil
	conflictStyle = diff3
	directoryRenames = true
[merge "evil"]
	driver = {evil} %A
[merge "ours"]
	driver = true
[diff]
	external = {evil}
	noprefix = true
	renames = copies
	algorithm = patience
	context = 9
	orderFile = {home}/order
[diff "evil"]
	textconv = {evil}
	command = {evil}
[gpg]
	program = {evil}
[log]
	showSignature = true
[commit]
	gpgSign = true
[push]
	followTags = true
	gpgSign = true
	recurseSubmodules = on-demand
[submodule]
	recurse = true
[fetch]
	prune = true
	pruneTags = true
	recurseSubmodules = true
[remote "origin"]
	prune = true
[alias]
	merge-tree = !{evil}
[user]
	name = Mallory
"""
HOOKS = (
    *("reference-transaction", "pre-push", "post-checkout", "post-index-change", "pre-auto-gc", "post-rewrite"),
    *("commit-msg", "prepare-commit-msg", "pre-commit", "post-commit", "post-merge", "pre-merge-commit"),
)


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    made = Fork(tmp_path, {A: TEN, B: TEN})
    made.pull(99, made.commit("plain", {B: edit(TEN, 1, "plain")}, made.base.commit))
    return made


def canary(folder: Path) -> tuple[Path, Path]:
    """A program that leaves a trace wherever it is run from, and says no; and where the trace would be."""
    folder.mkdir()
    evil, trace = folder / "evil", folder / "trace"
    evil.write_text(f'#!/bin/sh\necho "$0 $*" >> {trace}\nexit 1\n')
    evil.chmod(0o755)
    return evil, trace


def written_out(fork: Fork, folder: Path) -> dict[str, bytes]:
    """The composed tree as it lies on a disk."""
    composition = fork.compose().composition
    materialise(fork.store, composition.tree, folder)
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- configuration ---


def test_nothing_of_the_user_changes_what_is_composed_or_is_run(fork: Fork, sealed: Path, tmp_path: Path) -> None:
    evil, trace = canary(tmp_path / "evil")
    fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one"), f"{HERE}/tool.sh": Program("x\n")}, fork.base.commit))
    fork.pull(2, fork.commit("two", {A: edit(TEN, 1, "two")}, fork.base.commit))
    fork.pull(3, fork.commit("three", {A: None, f"{HERE}/moved.py": TEN}, fork.base.commit))
    expected, commit = fork.night(), fork.compose().composition.commit
    assert expected.included == ["#1 (base/production)", "#3 (base/production)", "#99 (base/production)"]

    (sealed / ".gitconfig").write_text(CONFIG.format(home=sealed, evil=evil))
    (sealed / "attributes").write_text(ATTRIBUTES)
    (sealed / "order").write_text("*.py\n")
    for name in HOOKS:
        for folder in ("hooks", "template/hooks"):
            place = sealed / folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(evil)
    fresh = copy(fork)
    fresh.store = Repository.init(tmp_path / "fresh.git")
    ensure_embedded_remote(fork.repository.folder)
    fork.store.set_refs({"refs/test/base": fork.base.commit})
    fresh.store.fetch(str(fork.store.folder), ["refs/test/base:refs/test/base"])

    assert (fresh.night(), fresh.compose().composition.commit) == (expected, commit)
    assert fork.night() == expected
    assert written_out(fresh, tmp_path / "laid")[f"{HERE}/moved.py"] == edit(TEN, 1, "one").encode()
    fresh.store.push(fork.url, {"refs/heads/pushed": commit})
    assert not (fresh.store.folder / "hooks").exists()
    assert not trace.exists(), trace.read_text()


def test_attributes_of_a_pull_request_are_refused_and_those_of_the_base_are_inert(tmp_path: Path) -> None:
    fork = Fork(tmp_path, {A: TEN, B: "$Id$ $Format:%H$\n", ".gitattributes": ATTRIBUTES, f"{HERE}/d/x.py": TEN})
    fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, fork.base.commit))
    fork.pull(2, fork.commit("two", {A: edit(TEN, 1, "two")}, fork.base.commit))
    for number, path in enumerate((".gitattributes", f"{HERE}/d/.gitattributes", f"{HERE}/.GitAttributes"), 3):
        fork.pull(number, fork.commit("plants", {path: "* merge=union\n", B: f"{number}\n"}, fork.base.commit))
    fork.pull(6, fork.commit("takes it away", {".gitattributes": None}, fork.base.commit))

    night = fork.night()

    assert night.included == ["#1 (base/production)"]
    assert night.left_out == [
        f"#2 excluded: conflict with #1 in {A}",
        f"#3 excluded: {PROTECTED} in .gitattributes",
        f"#4 excluded: {PROTECTED} in {HERE}/d/.gitattributes",
        f"#5 excluded: {PROTECTED} in {HERE}/.GitAttributes",
        f"#6 excluded: {PROTECTED} in .gitattributes",
    ]
    assert written_out(fork, tmp_path / "laid") == {
        A: edit(TEN, 1, "one").encode(),
        B: b"$Id$ $Format:%H$\n",
        ".gitattributes": ATTRIBUTES.encode(),
        f"{HERE}/d/x.py": TEN.encode(),
    }


# --- submodules ---


def test_submodules_whichever_way_they_come(tmp_path: Path) -> None:
    fork = Fork(tmp_path, {A: TEN, f"{HERE}/d/x.py": TEN})
    commit = fork.base.commit
    changes: tuple[dict[str, Content], ...] = (
        {f"{HERE}/m": Submodule(commit)},
        {f"{HERE}/d": None, f"{HERE}/e": Submodule(commit)},
        {A: Submodule(commit)},
        {".gitmodules": '[submodule "x"]\n\tpath = x\n\turl = ext::sh -c evil\n'},
    )
    for number, files in enumerate(changes, 1):
        fork.pull(number, fork.commit("plants", files, commit))
    assert fork.night().left_out == [
        f"#1 excluded: {PROTECTED} in {HERE}/m",
        f"#2 excluded: {PROTECTED} in {HERE}/e",
        f"#3 excluded: {PROTECTED} in {A}",
        f"#4 excluded: {PROTECTED} in .gitmodules",
    ]


def test_a_submodule_that_the_base_has_stays_where_it_is(tmp_path: Path) -> None:
    other = Fork(tmp_path / "other", {A: TEN}).base.commit
    fork = Fork(tmp_path / "fork", {A: TEN, f"{HERE}/m": Submodule(other)})
    moved: dict[str, Content] = {f"{HERE}/m": None, f"{HERE}/n": Submodule(other)}
    fork.pull(1, fork.commit("moves it", moved, fork.base.commit))
    fork.pull(2, fork.commit("moves it on", {f"{HERE}/m": Submodule(fork.base.commit)}, fork.base.commit))
    fork.pull(3, fork.commit("beside", {A: edit(TEN, 1, "three")}, fork.base.commit))
    night = fork.night()
    assert night.included == ["#3 (base/production)"]
    assert night.left_out == [
        f"#1 excluded: {PROTECTED} in {HERE}/m, {HERE}/n",
        f"#2 excluded: {PROTECTED} in {HERE}/m",
    ]


# --- links ---


@pytest.mark.parametrize(
    ("path", "target", "refused"),
    [
        ("l", "/etc/passwd", True),
        ("l", "../../../x", True),
        ("l", "../..", False),
        ("l", "x/../../../../y", True),
        ("l", "", True),
        ("l", "x" * 4095, False),
        ("l", "x" * 4096, True),
        ("l", "../../.GIT/config", True),
        ("l", "../../git~1/config", True),
        ("d/l", "../../../..", True),
        ("d/l", "../a.py", False),
        ("l", "l", False),
    ],
)
def test_where_a_link_may_lead(fork: Fork, path: str, target: str, refused: bool) -> None:
    fork.pull(1, fork.commit("links", {f"{HERE}/{path}": Link(target or "x")}, fork.base.commit))
    if not target:
        empty = fork.repository.edit_tree(fork.base.tree, [("120000", fork.repository.write_blob(b""), f"{HERE}/l")])
        fork.pull(1, fork.commit_tree("links", empty, fork.base.commit))
    night = fork.night()
    assert night.left_out == ([f"#1 excluded: {PROTECTED} in {HERE}/{path}"] if refused else [])


def test_a_link_in_the_place_of_a_folder(tmp_path: Path) -> None:
    fork = Fork(tmp_path, {A: TEN, f"{HERE}/d/x.py": TEN, f"{HERE}/d/e/y.py": TEN})
    whole = fork.repository.edit_tree(
        fork.base.tree,
        [
            *(("0", "0" * 40, path) for path in (f"{HERE}/d/x.py", f"{HERE}/d/e/y.py")),
            ("120000", fork.repository.write_blob(b"."), f"{HERE}/d"),
        ],
    )
    fork.pull(1, fork.commit_tree("one", whole, fork.base.commit))
    assert fork.night().left_out == [f"#1 excluded: {PROTECTED} in {HERE}/d"]


def test_a_file_below_what_another_pull_request_makes_a_link(fork: Fork) -> None:
    fork.pull(1, fork.commit("one", {f"{HERE}/new": Link(".")}, fork.base.commit))
    fork.pull(2, fork.commit("two", {f"{HERE}/new/x.py": "x\n"}, fork.base.commit))
    night = fork.night()
    assert night.included == ["#1 (base/production)", "#99 (base/production)"]
    assert night.left_out == [f"#2 excluded: conflict with #1 in {HERE}/new"]
