"""The series: the order, what is refused in it, and what `requires` may name."""

from __future__ import annotations

import pytest

from patchstack.errors import ConfigError
from patchstack.patches.series import read_series, with_required

from .stack_bench import Bench, front_matter


def problems(bench: Bench) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        bench.read()
    return bench.problems(caught.value)


def test_the_order_is_the_series_and_comments_are_none_of_it(bench: Bench) -> None:
    for slug in ("alpha", "beta", "gamma"):
        bench.write(slug, front_matter())
    bench.series("# the stack", "", "gamma  # first", "alpha optional", "beta")
    assert [(patch.slug, patch.optional) for patch in bench.read()] == [
        ("gamma", False),
        ("alpha", True),
        ("beta", False),
    ]


def test_an_empty_series_is_an_empty_stack(bench: Bench) -> None:
    bench.series("# none yet")
    assert bench.read() == ()


def test_everything_wrong_in_the_series_is_named_at_once(bench: Bench) -> None:
    for slug in ("alpha", "beta", "orphan"):
        bench.write(slug, front_matter())
    bench.series("alpha", "Beta", "alpha optional", "gone", "beta required", "../alpha")
    assert problems(bench) == [
        "series:2: Beta: not a slug: write lower-case words joined by '-'",
        "series:3: alpha: it stands on line 1 already: keep one",
        "series:5: beta: 'required' behind it means nothing: write `optional`, or nothing",
        "series:6: ../alpha: not a slug: write lower-case words joined by '-'",
        "series:1: beta: this folder's patch is not in the series: add its line, or remove the folder",
        "series:1: orphan: this folder's patch is not in the series: add its line, or remove the folder",
        "series:4: gone: it has no folder: make gone, or remove the line",
    ]


def test_a_missing_series_is_no_empty_stack(bench: Bench) -> None:
    with pytest.raises(ConfigError, match=r"series:1: .*it is not there: write one slug a line"):
        read_series(bench.folder)


def test_requires_names_earlier_patches_of_the_series(bench: Bench) -> None:
    bench.write("first", front_matter(requires="[second, ghost, first]"))
    bench.write("spare", front_matter(), optional=True)
    bench.write("second", front_matter(requires="[spare]"))
    assert problems(bench) == [
        "first/patch.md:6: requires: second comes later in the series: move it up, before first",
        "first/patch.md:6: requires: no patch of the series is called ghost: mend the name, or add it",
        "first/patch.md:6: requires: it names the patch itself: remove first",
        "second/patch.md:6: requires: spare is optional and second is not: make both the same",
    ]


def test_the_closure_of_requires_is_in_series_order(bench: Bench) -> None:
    bench.write("one", front_matter())
    bench.write("two", front_matter())
    bench.write("three", front_matter(requires="[one]"))
    bench.write("four", front_matter(requires="[three, two]"))
    patches = bench.read()
    assert [patch.slug for patch in with_required(patches, "four")] == ["one", "two", "three", "four"]
    assert [patch.slug for patch in with_required(patches, "three")] == ["one", "three"]


# --- the diffs in a patch's folder ---

MAIL = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: Acme SGLang maintainers <sglang@acme.example>
Date: Sat, 21 Nov 2026 00:00:00 +0000
Subject: pd: mend it

Cut-On: 1.0

diff --git a/a.py b/a.py
new file mode 100644
index 0000000000000000000000000000000000000000..d00491fd7e5bb6fa28c517a0bb32b8b506539d4d
--- /dev/null
+++ b/a.py
@@ -0,0 +1 @@
+1
"""


@pytest.mark.parametrize(
    ("name", "mail", "problem"),
    [
        ("1.0.patch", MAIL, "1: (file name): it names no range of releases: call it 0.5.12.post1..0.5.13.patch"),
        ("2.0..1.0.patch", MAIL, "1: (file name): it names no range of releases: call it 0.5.12.post1..0.5.13.patch"),
        ("a..b.patch", MAIL, "1: (file name): it names no range of releases: call it 0.5.12.post1..0.5.13.patch"),
        (
            "2.0..3.0.patch",
            MAIL,
            "1: Cut-On: 1.0 is not in the range: end the message with the release of its range that it was cut on",
        ),
        (
            "1.0..1.0.patch",
            MAIL.replace("Cut-On: 1.0\n", "It mends.\n"),
            "1: Cut-On: the trailer is missing: end the message with the release of its range that it was cut on",
        ),
        (
            "1.0..1.0.patch",
            MAIL.replace("Cut-On: 1.0", "Cut-On: main"),
            "1: Cut-On: main is no release: write one, as 0.5.12.post1",
        ),
        (
            "1.0..1.0.patch",
            MAIL[MAIL.index("diff --git") :],
            "1: (mail header): there is none: write the file with `patchstack patch export`",
        ),
        (
            "1.0..1.0.patch",
            MAIL[: MAIL.index("diff --git")],
            "1: (diff): there is none, it changes nothing: remove the patch from the series",
        ),
        (
            "1.0..1.0.patch",
            MAIL.replace("From: Acme", "From: Zoë"),
            "1: (mail header): it holds bytes that are not ASCII: encode them as RFC 2047 says",
        ),
        (
            "1.0..1.0.patch",
            MAIL.replace("Subject: pd", "Subject: =?ghost?q?pd?="),
            "1: (mail header): '=?ghost?q?pd?=: mend it' cannot be decoded (unknown encoding: ghost): write it",
        ),
        ("1.0..1.0.patch", MAIL.replace("Date: Sat, 21 Nov 2026 00:00:00 +0000\n", ""), "1: Date: it is missing"),
        ("1.0..1.0.patch", MAIL.replace("Sat, 21 Nov 2026 00:00:00 +0000", "today"), "1: Date: it is missing or no d"),
        ("1.0..1.0.patch", MAIL.replace("Subject: pd: mend it\n", ""), "1: Subject: it is missing: write the title"),
        (
            "1.0..1.0.patch",
            MAIL.replace("From: Acme SGLang maintainers <sglang@acme.example>\n", ""),
            "1: From: it names no author: write `From: Name <address>`",
        ),
        ("1.0..1.0.patch", MAIL.replace("+1\n", ""), "8: (diff): it cannot be read"),
        (
            "1.0..1.0.patch",
            MAIL.replace("index 0000000000000000000000000000000000000000..d00491fd", "unindexed "),
            "8: a.py: it has no `index` line: export it again",
        ),
        (
            "1.0..1.0.patch",
            MAIL[: MAIL.index("diff --git")]
            + "diff --git a/a.py b/b.py\nsimilarity index 100%\nrename from a.py\nrename to b.py\n",
            "8: b.py: a rename: write it as a deletion and an addition",
        ),
    ],
)
def test_a_diff_that_cannot_be_taken_is_named(bench: Bench, name: str, mail: str, problem: str) -> None:
    bench.write("mend", front_matter(), {name: mail.encode()})
    (found,) = problems(bench)
    assert found.startswith(f"mend/{name}:{problem}")


def test_ranges_that_meet_are_refused(bench: Bench) -> None:
    later = MAIL.replace("Cut-On: 1.0", "Cut-On: 1.2")
    bench.write("mend", front_matter(), {"1.0..1.2.patch": MAIL.encode(), "1.1..1.9.patch": later.encode()})
    assert problems(bench) == [
        (
            "mend/1.1..1.9.patch:1: (file name): it and 1.0..1.2.patch are for the same releases:"
            " rename one so that their ranges do not meet"
        )
    ]


def test_a_release_finds_its_diff(bench: Bench) -> None:
    later = MAIL.replace("Cut-On: 1.0", "Cut-On: 1.10")
    bench.write("mend", front_matter(), {"1.0..1.2.post1.patch": MAIL.encode(), "1.9..1.10.patch": later.encode()})
    (patch,) = bench.read()
    found = {version: patch.variant_for(version) for version in ("0.9", "1.0", "1.2.post1", "1.3", "1.9.post1", "1.11")}
    assert {version: variant.low if variant else None for version, variant in found.items()} == {
        "0.9": None,
        "1.0": "1.0",
        "1.2.post1": "1.0",
        "1.3": None,
        "1.9.post1": "1.9",
        "1.11": None,
    }
