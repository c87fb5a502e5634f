"""Equal inputs give an equal commit, whoever composes them, where, when and with which configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, C, Fork, edit

from patchstack.compose.compose import Composed, verify
from patchstack.errors import PatchstackError
from patchstack.model import Composition, Deduped, MergePlan
from patchstack.store import decode, encode

ROOT = Path(__file__).parents[3]
NOBODY = 65534

HOSTILE_CONFIG = """\
[user]
	name = Mallory
	email = mallory@example.com
[author]
	name = Mallory
[core]
	autocrlf = true
	attributesFile = ATTRIBUTES
	abbrev = 7
	quotePath = true
[merge]
	renames = false
	directoryRenames = true
	conflictStyle = diff3
	renormalize = true
[merge "theirs"]
	driver = false
[diff]
	renames = copies
	algorithm = patience
	noprefix = true
	context = 0
[i18n]
	commitEncoding = ISO-8859-1
	logOutputEncoding = UTF-16
[log]
	showSignature = true
	date = relative
[commit]
	gpgSign = true
[fetch]
	prune = true
	fsckObjects = true
[protocol]
	version = 0
"""


def a_night(folder: Path) -> Composed:
    """Every kind of topic: patches, by head, replayed, carried, in conflict, with odd names."""
    fork = Fork(folder, {A: TEN, B: TEN})
    first = fork.patch("first", {A: edit(TEN, 1, "first")})
    fork.patch("second", {A: edit(edit(TEN, 1, "first"), 5, "second")}, on=first)
    stack = fork.publish_stack()
    one = fork.pull(1, fork.commit("ein Müßiggang", {A: edit(TEN, 9, "one")}, fork.base.commit, author="Jürgen"))
    fork.pull(2, fork.commit("two", {B: None, C: edit(TEN, 3, "two")}, one))
    fork.pull(
        3, fork.commit("drei \u2028 §", {B: edit(TEN, 7, "drei"), "test/t.py": "t\n"}, stack, author="Zoë O'$(x)")
    )
    fork.pull(4, fork.commit("four", {A: edit(TEN, 9, "four")}, fork.base.commit))
    return fork.compose()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can reach; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="patchstack-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


# Everything is imported before the user changes: the interpreter may be where only we can read.
CHILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.unit.compose.test_same_everywhere import a_night
from patchstack.store import encode
encode(a_night(Path(sys.argv[2], "ours")).composition)
os.umask(0o077)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(sys.argv[3]))
    os.setuid(int(sys.argv[3]))
sys.stdout.reconfigure(encoding="utf-8")
print(encode(a_night(Path(sys.argv[2], "theirs")).composition), end="")
"""


def test_another_user_with_another_zone_locale_umask_and_a_hostile_configuration(
    tmp_path: Path, open_folder: Path
) -> None:
    home = open_folder / "home"
    home.mkdir(mode=0o755)
    (home / "attributes").write_text("*.py merge=theirs text eol=crlf ident\n")
    (home / ".gitconfig").write_text(HOSTILE_CONFIG.replace("ATTRIBUTES", str(home / "attributes")))
    (home / ".gitconfig").chmod(0o644)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TZ": "Pacific/Chatham",
        "LC_ALL": "tr_TR.ISO-8859-9",
        "LANGUAGE": "tr",
        "GIT_AUTHOR_NAME": "Mallory",
        "GIT_COMMITTER_DATE": "2001-01-01T00:00:00+0900",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "merge.renames",
        "GIT_CONFIG_VALUE_0": "false",
        "GIT_DIR": str(open_folder / "nowhere"),
        "GIT_INDEX_FILE": str(open_folder / "no-index"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    argv = [sys.executable, "-c", CHILD, str(ROOT), str(open_folder), str(NOBODY)]
    theirs = subprocess.run(argv, env=environment, capture_output=True, cwd=open_folder, timeout=120, check=False)
    assert theirs.returncode == 0, theirs.stderr.decode()

    ours = a_night(tmp_path).composition

    assert decode(Composition, theirs.stdout.decode(), "the child") == ours
    assert [topic.name for topic in ours.included] == ["first", "second", "#2", "#3"]


def test_every_stages_value_survives_its_file(tmp_path: Path) -> None:
    composed = a_night(tmp_path)
    for kind, value in ((Deduped, composed.deduped), (MergePlan, composed.plan), (Composition, composed.composition)):
        assert decode(kind, encode(value), "a file") == value


def test_the_octopus_has_the_base_and_every_topic_as_parents_and_the_latest_date(tmp_path: Path) -> None:
    fork = Fork(tmp_path, {A: TEN, B: TEN})
    fork.patch("first", {A: edit(TEN, 1, "first")})
    fork.pull(1, fork.commit("one", {A: edit(TEN, 9, "one")}, fork.base.commit, when=1_900_000_000))
    fork.pull(2, fork.commit("two", {B: edit(TEN, 9, "two")}, fork.base.commit, when=1_850_000_000))

    composition = fork.compose().composition

    assert fork.store.parents(composition.commit) == (
        fork.base.commit,
        *(topic.commit for topic in composition.included),
    )
    assert fork.store.show(composition.commit, "%an %at %cn %ct%n%B").splitlines() == [
        "patchstack 1900000000 patchstack 1900000000",
        "sglang==0.5.12.post1 with 3 topics",
        "",
        f"{fork.base.commit} sglang==0.5.12.post1",
        *(f"{topic.head} {topic.name}" for topic in composition.included),
    ]


def test_without_topics_the_octopus_is_the_base_alone(tmp_path: Path) -> None:
    fork = Fork(tmp_path, {A: TEN})

    composition = fork.compose().composition

    assert (composition.tree, fork.store.parents(composition.commit)) == (fork.base.tree, (fork.base.commit,))


def test_verify_composes_again_and_names_both_when_they_differ(tmp_path: Path) -> None:
    fork = Fork(tmp_path, {A: TEN, B: TEN})
    fork.pull(1, fork.commit("one", {A: edit(TEN, 9, "one")}, fork.base.commit))
    composition = fork.compose().composition
    candidates = fork.candidates()

    verify(fork.store, candidates, composition, skips={})
    with pytest.raises(PatchstackError, match=f"(?s)not {composition.commit}"):
        verify(fork.store, candidates, composition, skips={"1": "other inputs"})
    forged = replace(composition, commit=fork.base.commit)
    with pytest.raises(PatchstackError, match=f"(?s){composition.commit}.*not {fork.base.commit}"):
        verify(fork.store, candidates, forged, skips={})
