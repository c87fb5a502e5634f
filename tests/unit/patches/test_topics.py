"""Patches as commits on a base: what each stands on, what is left out and why, and equal ids everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchstack.errors import CompositionError, ConfigError, UsageError
from patchstack.git import Repository, Signature
from patchstack.model import Base, LeftOut, Topic
from patchstack.patches.topics import build_topics

from .stack_bench import AUTHOR, Bench

ENGINE = """\
class Engine:
    def start(self):
        self.up = True

    def stop(self):
        self.up = False
"""


def build(
    bench: Bench, base: Base, *, optional_on: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> tuple[tuple[Topic, ...], tuple[LeftOut, ...]]:
    return build_topics(bench.store, base, bench.read(), optional_on=optional_on, without=without)


def refusal(bench: Bench, base: Base) -> list[str]:
    with pytest.raises(CompositionError) as caught:
        build(bench, base)
    assert caught.value.exit_code == 4
    assert f"`{caught.value.patch}`" in str(caught.value)
    return bench.problems(caught.value)


MEND = "  mend it in a work tree (patchstack patch edit {slug} FOLDER) and write it back (patch export)"


def test_a_patch_is_a_commit_on_the_base_and_not_on_its_neighbour(bench: Bench) -> None:
    base = bench.release("1.0", {"engine.py": ENGINE, "log.py": "x = 1\n"})
    first = bench.patch("first", base, {"engine.py": ENGINE.replace("True", "1"), "new.py": "y = 1\n"})
    second = bench.patch("second", base, {"log.py": None}, optional=True)
    topics, left_out = build(bench, base, optional_on=("second",))
    assert left_out == ()
    assert [(topic.name, topic.required, topic.paths) for topic in topics] == [
        ("first", True, ("engine.py", "new.py")),
        ("second", False, ("log.py",)),
    ]
    assert topics[0] == Topic(
        name="first",
        kind=topics[0].kind,
        title="pd: mend it",
        author="Acme SGLang maintainers <sglang@acme.example>",
        head=topics[0].commit,
        commit=topics[0].commit,
        own_from=base.commit,
        own_to=topics[0].commit,
        patch_id=bench.store.patch_id(base.commit, first),
        paths=("engine.py", "new.py"),
        required=True,
    )
    for topic, written in zip(topics, (first, second), strict=True):
        assert bench.store.parents(topic.commit) == (base.commit,)
        assert bench.store.tree_of(topic.commit) == bench.store.tree_of(written)
        assert bench.store.show(topic.commit, "%an <%ae> %ad|%cn %cd|%s|%(trailers:only,unfold)").strip() == (
            "Acme SGLang maintainers <sglang@acme.example> Sat Nov 21 00:00:00 2026 +0000"
            "|patchstack Sat Nov 21 00:00:00 2026 +0000|pd: mend it|Cut-On: 1.0"
        )


def test_equal_inputs_give_equal_commits_in_another_folder_and_environment(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n", "b.py": "y = 1\n"})
    author = Signature("Zoë Ünal", "zoe@example.org", "@1795219200 +0530")
    one = bench.patch("one", base, {"a.py": "x = 2\n"}, author=author, title="Mend “it”")
    two = bench.patch("two", base, {"b.py": "y = 2\n"})
    joined = bench.store.commit(bench.store.merge_tree(one, two).tree, (one, two), "join\n")
    bench.patch("three", base, {"c.py": "z = 1\n"}, parent=joined, requires="[one, two]")
    here = build(bench, base)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "somebody")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "@7 +0000")
    (Path.home() / ".gitconfig").write_text("[core]\n\tautocrlf = true\n[diff]\n\tnoprefix = true\n")
    other = Bench(Repository.init(tmp_path / "other.git"), tmp_path)
    assert other.release("1.0", {"a.py": "x = 1\n", "b.py": "y = 1\n"}) == base
    assert build_topics(other.store, base, bench.read(), optional_on=()) == here
    # The same on any machine: these never change unless the rules do.
    assert [topic.commit for topic in here[0]] == [
        "9b78ecb06004cc9e0a766406e331600f5f92eafc",
        "61aa6be638301a92d4c42986532a7cdbe97d2215",
        "041a4e2ac578b22cec87feb4d0dff5dbb577f65b",
    ]


# --- requires ---


def test_a_patch_stands_on_the_one_that_it_requires(bench: Bench) -> None:
    base = bench.release("1.0", {"engine.py": ENGINE})
    low = bench.patch("low", base, {"engine.py": ENGINE.replace("True", "1")})
    middle = bench.patch("middle", base, {"a.py": "a = 1\n"}, parent=low, requires="[low]")
    bench.patch("high", base, {"engine.py": ENGINE.replace("True", "2")}, parent=middle, requires="[middle, low]")
    topics, _ = build(bench, base)
    assert [(topic.name, bench.store.parents(topic.commit), topic.requires) for topic in topics] == [
        ("low", (base.commit,), ()),
        ("middle", (topics[0].commit,), ("low",)),
        ("high", (topics[1].commit,), ("middle", "low")),
    ]
    assert topics[2].paths == ("engine.py",)


def test_several_requirements_are_joined_first(bench: Bench) -> None:
    base = bench.release("1.0", {f"{name}.py": "x = 1\n" for name in "abc"})
    later = Signature(AUTHOR.name, AUTHOR.email, "@1800000000 +0200")
    commits = [
        bench.patch("one", base, {"a.py": "x = 2\n"}),
        bench.patch("two", base, {"b.py": "x = 2\n"}, author=later),
        bench.patch("three", base, {"c.py": "x = 2\n"}),
    ]
    joined = bench.commit(base.commit, {f"{name}.py": "x = 2\n" for name in "abc"}, "joined\n")
    bench.patch("top", base, {"c.py": "x = 3\n"}, parent=joined, requires="[three, one, two]")
    topics, _ = build(bench, base)
    parent = topics[3].own_from
    assert bench.store.parents(parent) == tuple(topic.commit for topic in topics[:3])
    assert bench.store.tree_of(parent) == bench.store.tree_of(joined)
    assert bench.store.show(parent, "%s|%ct") == "What top requires: one, two, three|1800000000"
    assert topics[3].paths == ("c.py",)
    assert [topic.own_from for topic in topics[:3]] == [base.commit] * len(commits)


def test_requirements_that_conflict_are_named(bench: Bench) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    bench.patch("one", base, {"a.py": "x = 2\n"})
    bench.patch("two", base, {"a.py": "x = 3\n"})
    bench.patch("top", base, {"b.py": "y = 1\n"}, requires="[one, two]")
    assert refusal(bench, base) == [
        "patch `top` requires patches that conflict on 1.0: `two` with `one` in a.py",
    ]


# --- left out ---


def test_what_is_left_out_says_why_and_takes_along_what_requires_it(bench: Bench) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    bench.patch("spare", base, {"b.py": "b = 1\n"}, optional=True)
    bench.patch("on-spare", base, {"c.py": "c = 1\n"}, requires="[spare]", optional=True)
    bench.patch("asked", base, {"d.py": "d = 1\n"})
    bench.patch("on-asked", base, {"e.py": "e = 1\n"}, requires="[asked]")
    bench.patch("on-on-asked", base, {"f.py": "f = 1\n"}, requires="[on-asked]")
    bench.patch("not-here", base, {"g.py": "g = 1\n"}, bases='{">=2": needed}')
    bench.patch("on-not-here", base, {"h.py": "h = 1\n"}, requires="[not-here]")
    topics, left_out = build(bench, base, optional_on=("on-spare",), without=("asked",))
    assert [(topic.name, topic.own_from) for topic in topics] == [("on-not-here", base.commit)]
    assert [(left.name, left.outcome, left.reason, left.twins, left.required) for left in left_out] == [
        ("spare", "skipped", "optional and not switched on", (), False),
        ("on-spare", "excluded", "what it requires is left out", ("spare",), False),
        ("asked", "skipped", "left out by --without", (), True),
        ("on-asked", "excluded", "what it requires is left out", ("asked",), True),
        ("on-on-asked", "excluded", "what it requires is left out", ("on-asked",), True),
        ("not-here", "skipped", "not for this base", (), True),
    ]
    assert [left.detail for left in left_out] == [
        "switch it on with `optional: [spare]` in the lane",
        "it requires what is left out (spare: optional and not switched on)",
        "--without asked was given",
        "it requires what is left out (asked: left out by --without)",
        "it requires what is left out (on-asked: what it requires is left out)",
        "1.0 matches no key of its `bases` (>=2)",
    ]
    assert {(left.head, left.author, left.title) for left in left_out} == {
        (None, "Acme SGLang maintainers <sglang@acme.example>", "pd: mend it")
    }


def test_names_that_mean_nothing_are_refused(bench: Bench) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    bench.patch("mend", base, {"a.py": "x = 2\n"})
    with pytest.raises(UsageError, match="--without ghost: no such patch; the series has: mend"):
        build(bench, base, without=("ghost",))
    with pytest.raises(ConfigError) as caught:
        build(bench, base, optional_on=("ghost", "mend"))
    assert caught.value.problems == [
        "optional: no patch of the series is called ghost: mend the name",
        "optional: mend is not optional in patches/series: remove it from the list",
    ]


def test_a_release_that_bases_matches_needs_a_diff(bench: Bench) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    bench.patch("mend", base, {"a.py": "x = 2\n"}, bases='{">=1": needed}')
    with pytest.raises(ConfigError) as caught:
        build(bench, bench.release("2.0", {"a.py": "x = 1\n"}))
    assert bench.problems(caught.value) == [
        "mend/patch.md:1: bases: it is for 2.0, and no diff is: add 2.0..2.0.patch, or narrow `bases`"
    ]


# --- on the release that it was cut on ---


def test_a_pre_image_that_does_not_match_is_refused_though_every_hunk_would_apply(bench: Bench) -> None:
    base = bench.release("1.0", {"engine.py": ENGINE})
    bench.patch("mend", base, {"engine.py": ENGINE.replace("True", "1")})
    other = bench.release("1.0", {"engine.py": ENGINE + "\nlast = 1\n"})
    assert refusal(bench, other) == [
        "required patch `mend` (1.0..1.0.patch) does not apply on 1.0, on which it was cut:",
        "  engine.py: it was cut on blob 00964747f335, and here it is 901893d3d4ae: its hunks would still find a place",
        MEND.format(slug="mend"),
    ]


def test_patches_that_conflict_are_refused_with_patch_file_hunk_and_definition(bench: Bench) -> None:
    long = ENGINE + "\n\n" + "".join(f"line_{number} = {number}\n" for number in range(20))
    base = bench.release("1.0", {"engine.py": long, "gone.py": "x = 1\n", "mode.py": "x = 1\n"})
    bench.patch("low", base, {"engine.py": long.replace("= False", "= None"), "gone.py": None, "+x mode.py": "x = 1\n"})
    changed = long.replace("= False", "= 0").replace("line_18 = 18", "line_18 = 0")
    files = {"engine.py": changed, "gone.py": "x = 2\n", "mode.py": "x = 2\n", "new.py": "x = 1\n"}
    bench.patch("high", base, files, requires="[low]")
    assert refusal(bench, base) == [
        "required patch `high` (1.0..1.0.patch) does not apply on 1.0, on which it was cut:",
        (
            "  engine.py: it was cut on blob 87a54cf37e88, and here it is dd5c6130ac67:"
            " engine.py hunk 1 (line 3, in Engine.stop): the lines that it changes are not there"
        ),
        "  gone.py: it is not there",
        "  mode.py: it was cut on mode 100644, and here it is 100755",
        MEND.format(slug="high"),
    ]


def test_a_new_file_that_is_there_already_is_refused(bench: Bench) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    bench.patch("mend", base, {"b.py": "x = 1\n"})
    other = bench.release("1.0", {"a.py": "x = 1\n", "b.py": "x = 1\n"})
    assert refusal(bench, other)[1] == "  b.py: it is a new file of the patch, and is there already"


def test_a_hunk_moved_by_hand_is_refused(bench: Bench) -> None:
    base = bench.release("1.0", {"engine.py": "# 1\n# 2\n" + ENGINE})
    bench.patch("mend", base, {"engine.py": "# 1\n# 2\n" + ENGINE.replace("= False", "= 0")})
    path = bench.folder / "mend" / "1.0..1.0.patch"
    data = path.read_bytes()
    assert b"@@ -5,4 +5,4 @@" in data
    path.write_bytes(data.replace(b"@@ -5,4 +5,4 @@", b"@@ -3,4 +3,4 @@"))
    assert refusal(bench, base)[1] == "  engine.py hunk 1: it says line 3, and its lines stand at 5"


def test_binary_files_mode_changes_and_odd_bytes_survive(bench: Bench) -> None:
    files: dict[str, str | bytes] = {
        "bin.dat": bytes(range(256)),
        "run.sh": "echo\n",
        "crlf.txt": b"one\r\ntwo\r\n",
        "latin.txt": b"caf\xe9\n",
        "naïve file.txt": "no newline",
        "empty.txt": "",
        "feed.py": b"x = 1\n\x0c\ny = 1\n",
    }
    base = bench.release("1.0", files)
    commit = bench.patch(
        "mend",
        base,
        {
            "bin.dat": bytes(reversed(range(256))),
            "+x run.sh": "echo\n",
            "crlf.txt": b"one\r\n2\r\n",
            "latin.txt": b"th\xe9\n",
            "naïve file.txt": "still no newline",
            "empty.txt": None,
            "empty too.txt": "",
            "feed.py": b"x = 1\n\x0c\ny = 2\n",
        },
    )
    (topic,), _ = build(bench, base)
    assert bench.store.tree_of(topic.commit) == bench.store.tree_of(commit)
    assert len(topic.paths) == 8
