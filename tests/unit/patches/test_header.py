"""Front matter: what is refused, with which line, and that everything wrong is said at once."""

from __future__ import annotations

import pytest

from patchstack.errors import ConfigError
from patchstack.patches.header import Need

from .stack_bench import PROSE, Bench, front_matter


def problems(bench: Bench, text: str) -> list[str]:
    bench.write("mend", text)
    with pytest.raises(ConfigError) as caught:
        bench.read()
    assert caught.value.exit_code == 3
    return bench.problems(caught.value)


def test_a_good_header_is_read_whole(bench: Bench) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    bench.patch("mend", base, {"a.py": "x = 2  # SGLANG_X\n"}, bases='{"1.0": needed, ">=2.1": hardening}')
    (patch,) = bench.read()
    assert (patch.slug, patch.title, patch.owner) == ("mend", "pd: mend it", "@acme/pd")
    assert (patch.upstream_status, patch.requires, patch.mutants) == ("Backport [0.5.13]", (), ())
    assert (patch.guards, patch.switch_name) == (("tests/regression/guard/",), "SGLANG_X")
    assert patch.author == "Acme SGLang maintainers <sglang@acme.example>"
    assert (patch.prose, patch.prose_line, patch.optional) == (PROSE, 13, False)
    assert [patch.need_on(version) for version in ("1.0", "1.0.post1", "2.0", "2.1", "2.2.dev1")] == [
        Need.NEEDED,
        None,
        None,
        Need.HARDENING,
        Need.HARDENING,
    ]
    assert [(variant.path.name, variant.cut_on) for variant in patch.variants] == [("1.0..1.0.patch", "1.0")]


def test_every_problem_is_named_at_once_with_its_line(bench: Bench) -> None:
    text = """\
---
title: "two
  lines\\nhere"
owner: acme
upstream-status: Backported
upstream: https://example.com/1
requires: [Not A Slug]
bases: {"1.0": needed, "~>2": hardening, "3": maybe}
guards: []
mutants: [../escape.patch]
kill-switch: 0
colour: red
owner: "@acme/pd"
---
"""
    assert problems(bench, text) == [
        "mend/patch.md:2: remove-when: Field required: add it",
        "mend/patch.md:2: title: it must be one line without space around it: write it on one line, in quotes",
        (
            "mend/patch.md:5: upstream-status: not of the right form: write"
            ' "Backport [0.5.13]", or Submitted [url], Pending [why], Denied [url], Inappropriate [why]'
        ),
        "mend/patch.md:6: upstream: Input should be a valid list: write a list: [a, b]",
        "mend/patch.md:7: requires.0: not of the right form: write a slug: lower-case words joined by '-'",
        "mend/patch.md:8: bases.3: Input should be 'needed' or 'hardening': write needed or hardening",
        (
            "mend/patch.md:8: bases.~>2: '~>2' is neither a release nor a PEP 440 specifier:"
            " write 0.5.12.post1 or '>=0.5.22'"
        ),
        "mend/patch.md:9: guards: List should have at least 1 item after validation, not 0: name at least one",
        "mend/patch.md:10: mutants.0: '../escape.patch' leads out of its folder: write a plain relative path",
        "mend/patch.md:11: kill-switch: Input should be a valid string: write a text in quotes",
        "mend/patch.md:12: colour: Extra inputs are not permitted: remove the key, or mend its spelling",
        "mend/patch.md:13: owner: the key stands twice: keep one",
    ]


@pytest.mark.parametrize("key", ["title", "owner", "upstream-status", "upstream", "requires", "bases", "guards"])
def test_a_missing_key_is_asked_for(bench: Bench, key: str) -> None:
    assert problems(bench, front_matter(**{key: None})) == [f"mend/patch.md:2: {key}: Field required: add it"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1: (front matter): it must stand between two lines `---`: begin the file with one"),
        ("---\ntitle: x\n", "1: (front matter): it must stand between two lines `---`: begin the file with one"),
        ("---\n---\n", "2: (front matter): it must be a mapping: write `key: value` lines"),
        ("---\n- a\n---\n", "2: (front matter): it must be a mapping: write `key: value` lines"),
        (
            "---\ntitle: x\nrequires: [a\n---\n",
            "4: (front matter): not YAML: expected ',' or ']', but got '<stream end>': write `key: value` lines",
        ),
        (
            "---\ntitle: !!python/object:os.system x\n---\n",
            (
                "2: (front matter): not YAML: could not determine a constructor for the tag"
                " 'tag:yaml.org,2002:python/object:os.system': write `key: value` lines"
            ),
        ),
    ],
)
def test_what_is_no_front_matter_gives_one_clear_problem(bench: Bench, text: str, problem: str) -> None:
    assert problems(bench, text) == [f"mend/patch.md:{problem}"]


def test_a_file_that_is_missing_or_no_text_is_named(bench: Bench) -> None:
    folder = bench.write("mend", "")
    (folder / "patch.md").write_bytes(b"---\ntitle: \xff\n---\n")
    with pytest.raises(ConfigError, match=r"patch.md:1: \(the whole file\): not UTF-8"):
        bench.read()
    (folder / "patch.md").unlink()
    with pytest.raises(ConfigError, match=r"patch.md:1: \(the whole file\): it is not there: write it"):
        bench.read()


def test_problems_of_several_patches_are_named_together(bench: Bench) -> None:
    bench.write("first", front_matter(owner="7"))
    bench.write("second", front_matter(colour="red", title=None))
    with pytest.raises(ConfigError) as caught:
        bench.read()
    assert bench.problems(caught.value) == [
        "first/patch.md:3: owner: Input should be a valid string: write a text in quotes",
        "second/patch.md:2: title: Field required: add it",
        "second/patch.md:11: colour: Extra inputs are not permitted: remove the key, or mend its spelling",
    ]


def test_the_digest_follows_header_diffs_and_mutants_and_not_the_prose(bench: Bench) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    bench.patch("mend", base, {"a.py": "x = 2\n"})
    folder = bench.folder / "mend"
    first = bench.read()[0].digest

    def with_changed(name: str, data: bytes) -> str:
        path = folder / name
        before = path.read_bytes() if path.exists() else None
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        digest = bench.read()[0].digest
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)
        return digest

    text = (folder / "patch.md").read_bytes()
    diff = (folder / "1.0..1.0.patch").read_bytes()
    assert with_changed("patch.md", text.replace(b"It fails.", b"It hangs.")) == first
    changed = {
        with_changed("patch.md", text.replace(b"@acme/pd", b"@acme/kv")),
        with_changed("1.0..1.0.patch", diff.replace(b"+x = 2", b"+x = 3")),
        with_changed("mutants/a.patch", b"x"),
        first,
    }
    assert len(changed) == 4
    assert bench.read()[0].digest == first
