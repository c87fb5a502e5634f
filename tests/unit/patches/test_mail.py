"""The canonical form: what is read is what is written, whatever the user's configuration and the content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchstack.git import Signature
from patchstack.patches.mail import Mail, authorship, format_mail, message_of, read_mail, with_cut_on

from .stack_bench import AUTHOR, Bench

HOSTILE = """\
[user]
	name = Somebody Else
	email = else@example.net
[core]
	abbrev = 4
	autocrlf = true
	quotepath = false
	attributesFile = ATTRIBUTES
[color]
	ui = always
[diff]
	noprefix = true
	mnemonicPrefix = true
	algorithm = patience
	context = 9
	interHunkContext = 9
	renames = copies
	external = false
	suppressBlankEmpty = true
	indentHeuristic = false
	orderFile = /dev/null
[diff "upper"]
	textconv = tr a-z A-Z <
[format]
	attach = true
	from = true
	headers = "X-Evil: 1\\n"
	to = everybody@example.net
	signature = bye
	subjectPrefix = EVIL
	suffix = .txt
	numbered = true
	coverLetter = true
	signOff = true
	notes = true
	thread = deep
	encodeEmailHeaders = false
	useAutoBase = true
	outputDirectory = /nonexistent
	pretty = oneline
[i18n]
	commitEncoding = ISO-8859-1
	logOutputEncoding = ISO-8859-1
[log]
	date = relative
	showSignature = true
[trailer]
	separators = "="
"""


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's git configuration and environment that would change every line of a diff."""
    home = Path.home()
    (home / ".attributes").write_text("* diff=upper text=auto\n")
    (home / ".gitconfig").write_text(HOSTILE.replace("ATTRIBUTES", str(home / ".attributes")))
    for name, value in {
        "GIT_EXTERNAL_DIFF": "false",
        "GIT_DIFF_OPTS": "--unified=0",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "diff.noprefix",
        "GIT_CONFIG_VALUE_0": "true",
        "GIT_PAGER": "false",
        "LANG": "de_DE.ISO-8859-1",
    }.items():
        monkeypatch.setenv(name, value)
    assert os.environ["HOME"] == str(home)


CONTENTS: dict[str, tuple[dict[str, str | bytes | None], dict[str, str | bytes | None]]] = {
    "change": ({"a.py": "x = 1\n"}, {"a.py": "x = 2\n"}),
    "new file": ({}, {"new.py": "x = 1\n"}),
    "empty new file": ({}, {"new.py": ""}),
    "deletion": ({"a.py": "x = 1\n"}, {"a.py": None}),
    "rename": ({"a.py": "x = 1\n" * 20}, {"a.py": None, "b.py": "x = 1\n" * 20}),
    "mode": ({"run.sh": "echo\n"}, {"+x run.sh": "echo\n"}),
    "mode and content": ({"run.sh": "echo\n"}, {"+x run.sh": "echo 1\n"}),
    "binary": ({"b.dat": bytes(range(256))}, {"b.dat": bytes(range(255, -1, -1))}),
    "new binary": ({}, {"b.dat": bytes(range(256))}),
    "deleted binary": ({"b.dat": bytes(range(256))}, {"b.dat": None}),
    "carriage returns": ({"a.txt": b"1\r\n2\r\n"}, {"a.txt": b"1\r\n3\r\n", "b.txt": b"1\r2\r\r\n"}),
    "no newline at the end": ({"a.py": "x = 1"}, {"a.py": "x = 2", "b.py": "y"}),
    "newline added at the end": ({"a.py": "x = 1"}, {"a.py": "x = 1\n"}),
    "latin-1": ({"a.txt": b"caf\xe9\n"}, {"a.txt": b"th\xe9\n"}),
    "odd names": ({}, {"päth/ünïcode.py": "1\n", "with space.py": "1\n", 'quo"te.py': "1\n", "tab\t.py": "1\n"}),
    "lines that look like a diff": ({"a.txt": "-- x\n"}, {"a.txt": "++ y\n---\n+++ z\ndiff --git a/q b/q\nFrom x\n"}),
    "form feed and other line ends": ({"a.txt": "1\x0c2\n"}, {"a.txt": "1\x0c3\n\x85\n\u2028\n\x1c\n"}),
}


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_exported_is_the_same_under_a_hostile_configuration(bench: Bench, content: str) -> None:
    before, after = CONTENTS[content]
    base = bench.release("1.0", {"keep.py": "k = 1\n", **before})
    author = Signature('Zoë "Z" Ünal, Jr', "zoe@example.org", "@1795219200 +0530")
    title = "Überlange Überschrift: so that the subject has to be folded over more than one line, äöü, 日本語"
    commit = bench.patch("mend", base, after, author=author, title=title, body="Why: “quoted”.\n\n")
    data = (bench.folder / "mend" / "1.0..1.0.patch").read_bytes()
    assert format_mail(bench.store, commit) == data
    mail = read_mail(data)
    assert (mail.author, mail.subject, mail.cut_on) == (author, title, "1.0")
    assert mail.message == f"{title}\n\nWhy: “quoted”.\n\nCut-On: 1.0\n"
    tree = bench.store.apply(base.tree, mail.diff)
    again = bench.store.commit(tree, (base.commit,), mail.message, mail.author)
    assert again == commit
    assert format_mail(bench.store, again) == data
    assert (authorship(bench.store, again), message_of(bench.store, again)) == (author, mail.message)


def test_the_form_is_this(bench: Bench) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n", "b.py": "y = 1\n"})
    commit = bench.patch("mend", base, {"a.py": "x = 2\n", "b.py": None, "c.py": "y = 1\n"}, body="Why.\n\n")
    assert (
        format_mail(bench.store, commit).decode()
        == """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: Acme SGLang maintainers <sglang@acme.example>
Date: Sat, 21 Nov 2026 00:00:00 +0000
Subject: pd: mend it

Why.

Cut-On: 1.0

diff --git a/a.py b/a.py
index 7d4290a117a4ddcc11daae7ea675841033830c8f..407de3068e7b5950585d5abed9776d104235a85d 100644
--- a/a.py
+++ b/a.py
@@ -1 +1 @@
-x = 1
+x = 2
diff --git a/b.py b/b.py
deleted file mode 100644
index a003ef79b149f0f62ae533496392b1cc94c5ef54..0000000000000000000000000000000000000000
--- a/b.py
+++ /dev/null
@@ -1 +0,0 @@
-y = 1
diff --git a/c.py b/c.py
new file mode 100644
index 0000000000000000000000000000000000000000..a003ef79b149f0f62ae533496392b1cc94c5ef54
--- /dev/null
+++ b/c.py
@@ -0,0 +1 @@
+y = 1
"""
    )


def test_a_mail_that_somebody_else_wrote_is_read_as_git_am_reads_it() -> None:
    mail = read_mail(
        b"From 1234567890 Mon Sep 17 00:00:00 2001\n"
        b"From: Jane <jane@example.org>\n"
        b"Date: Sat, 21 Nov 2026 05:30:00 +0530\n"
        b"Subject: a\n subject\n"
        b"\n"
        b"Body.\n"
        b"---\n"
        b" a.py | 2 +-\n"
        b"\n"
        b"diff --git a/a.py b/a.py\n"
        b"-- \n2.39.5\n"
    )
    assert mail == Mail(
        author=Signature("Jane", "jane@example.org", "@1795219200 +0530"),
        message="a subject\n\nBody.\n",
        diff=b"diff --git a/a.py b/a.py\n-- \n2.39.5\n",
        diff_line=11,
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("title\n", "title\n\nCut-On: 2.0\n"),
        ("title\n\nbody\n", "title\n\nbody\n\nCut-On: 2.0\n"),
        ("title\n\nbody\n\nCut-On: 1.0\n", "title\n\nbody\n\nCut-On: 2.0\n"),
        ("title\n\nSigned-off-by: A <a@b>\n", "title\n\nSigned-off-by: A <a@b>\nCut-On: 2.0\n"),
        ("title\n\nCut-On: 1.0\nSigned-off-by: A <a@b>\n", "title\n\nSigned-off-by: A <a@b>\nCut-On: 2.0\n"),
        ("title\n\nbody\n---\nmore\n", "title\n\nbody\n---\nmore\n\nCut-On: 2.0\n"),
    ],
)
def test_the_trailer_names_one_release(bench: Bench, message: str, expected: str) -> None:
    assert with_cut_on(bench.store, message, "2.0") == expected


_NAMES = (
    st.text(
        st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"), exclude_characters="<>\x85\u2028\u2029"),
        min_size=1,
        max_size=40,
    )
    .map(lambda text: " ".join(text.split()).strip(".,:;<>\"\\'"))
    .filter(bool)
)
_TITLES = (
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=150)
    .map(lambda text: " ".join(text.split()))
    .filter(bool)
)


@settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(name=_NAMES, title=_TITLES)
def test_any_author_and_subject_comes_back(bench: Bench, name: str, title: str) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    author = Signature(name, AUTHOR.email, AUTHOR.date)
    commit = bench.commit(base.commit, {"a.py": "x = 2\n"}, f"{title}\n\nCut-On: 1.0\n", author)
    mail = read_mail(format_mail(bench.store, commit))
    assert (mail.author, mail.subject, mail.cut_on) == (author, title, "1.0")
