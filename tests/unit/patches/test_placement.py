"""On another release than the one that a diff was cut on: each hunk lands in its own definition, or not at all."""

from __future__ import annotations

import pytest

from patchstack.errors import CompositionError, ConfigError
from patchstack.model import Base, LeftOut, Topic
from patchstack.patches.topics import build_topics, releases_to_compare

from .stack_bench import Bench

SENDER = """\
import queue


class Sender:
    def start(self):
        for message in self.waiting:
            # take the next one
            self.lock.acquire()
            self.send(message)
            self.lock.release()
            # and go on

    def stop(self):
        self.waiting = None
"""
RETRY = "            self.send(message)\n"
HOOKED = SENDER.replace(RETRY, "            retry(self.send, message)  # SGLANG_X\n")
TWIN = """
    def drain(self):
        for message in self.waiting:
            # take the next one
            self.lock.acquire()
            self.send(message)
            self.lock.release()
            # and go on

    def last(self):
        pass
"""


def build(bench: Bench, base: Base) -> tuple[tuple[Topic, ...], tuple[LeftOut, ...]]:
    return build_topics(bench.store, base, bench.read(), optional_on=(), releases=bench.releases)


def refusal(bench: Bench, base: Base) -> list[str]:
    with pytest.raises(CompositionError) as caught:
        build(bench, base)
    *found, cure = bench.problems(caught.value)
    assert cure == (
        "  end the range in its file name before 2.0, and cut a diff for 2.0 (patchstack patch edit mend FOLDER),"
        " or narrow `bases`"
    )
    return found


HEAD = "required patch `mend` (1.0..2.0.patch) does not apply on 2.0 (it was cut on 1.0):"


def test_a_hunk_that_moved_within_its_definition_is_taken(bench: Bench) -> None:
    cut_on = bench.release("1.0", {"sender.py": SENDER})
    bench.patch("mend", cut_on, {"sender.py": HOOKED}, up_to="2.0")
    moved = SENDER.replace("import queue\n", "import queue\nimport time\n\n\ndef now():\n    return time.time()\n")
    (topic,), left_out = build(bench, bench.release("2.0", {"sender.py": moved}))
    assert left_out == ()
    assert bench.content(topic.commit, "sender.py") == moved.replace(RETRY, HOOKED.splitlines(keepends=True)[8])


def test_a_hunk_that_git_would_put_into_another_function_is_refused(bench: Bench) -> None:
    cut_on = bench.release("1.0", {"sender.py": SENDER})
    bench.patch("mend", cut_on, {"sender.py": HOOKED}, up_to="2.0")
    other = SENDER.replace(RETRY, "            self.push(message)\n") + TWIN
    base = bench.release("2.0", {"sender.py": other})
    # Git itself is content with it:
    diff = bench.read()[0].variants[0].mail.diff
    assert b"retry" in (bench.store.read_blob(f"{bench.store.apply(base.tree, diff)}:sender.py") or b"")
    assert refusal(bench, base) == [
        HEAD,
        "  sender.py hunk 1: it was cut in `Sender.start` (line 6), and would land in `Sender.drain` (line 17)",
    ]


def test_a_new_method_must_land_in_its_own_class(bench: Bench) -> None:
    body = "    x = 1\n\n    y = 2\n\n    def last(self): ...\n"
    cut_on = bench.release("1.0", {"a.py": "class A:\n" + body})
    hooked = body.replace("    y = 2\n", "    y = 2\n\n    def new(self): ...  # SGLANG_X\n")
    bench.patch("mend", cut_on, {"a.py": "class A:\n" + hooked}, up_to="2.0")
    base = bench.release("2.0", {"a.py": "class A:\n    pass\n\n\nclass B:\n" + body})
    assert refusal(bench, base) == [
        HEAD,
        "  a.py hunk 1: it was cut in `A` and `A.new` (line 3), and would land in `B` and `B.new` (line 7)",
    ]


def test_a_hunk_whose_lines_are_gone_names_where_it_was_cut(bench: Bench) -> None:
    cut_on = bench.release("1.0", {"sender.py": SENDER, "gone.py": "x = 1\n"})
    bench.patch("mend", cut_on, {"sender.py": HOOKED, "gone.py": "x = 2\n", "new.py": "x = 1\n"}, up_to="2.0")
    other = SENDER.replace("self.lock.acquire()", "self.lock.take()")
    base = bench.release("2.0", {"sender.py": other, "new.py": "x = 3\n"})
    assert refusal(bench, base) == [
        HEAD,
        "  gone.py: it is not there",
        "  new.py: it is there already, with other content",
        "  sender.py hunk 1 (line 6, in Sender.start): the lines that it changes are not there",
    ]


def test_half_of_a_patch_that_upstream_has_is_told_from_what_is_missing(bench: Bench) -> None:
    cut_on = bench.release("1.0", {"sender.py": SENDER, "a.py": "x = 1\n"})
    bench.patch("mend", cut_on, {"sender.py": HOOKED, "a.py": "x = 2\n"}, up_to="2.0")
    base = bench.release("2.0", {"sender.py": HOOKED, "a.py": "x = 1\n"})
    assert refusal(bench, base) == [
        HEAD,
        "  sender.py hunk 1 (line 6, in Sender.start): its change is there already",
    ]


def test_what_upstream_has_as_a_whole_is_reported_and_what_requires_it_stands(bench: Bench) -> None:
    cut_on = bench.release("1.0", {"sender.py": SENDER})
    low = bench.patch("low", cut_on, {"sender.py": HOOKED, "retry.py": "x = 1\n"}, up_to="2.0")
    bench.patch("high", cut_on, {"retry.py": "x = 2\n"}, parent=low, requires="[low]", up_to="2.0")
    base = bench.release("2.0", {"sender.py": HOOKED, "retry.py": "x = 1\n"})
    (topic,), (left,) = build(bench, base)
    assert (topic.name, topic.own_from, topic.paths) == ("high", base.commit, ("retry.py",))
    assert (left.name, left.outcome, left.reason, left.required) == ("low", "dropped", "no effect on the base", True)
    assert left.detail == "2.0 has all of it already: narrow `bases` in patches/low/patch.md"


def test_on_another_release_a_patch_stands_on_what_it_requires_there(bench: Bench) -> None:
    cut_on = bench.release("1.0", {"sender.py": SENDER})
    low = bench.patch("low", cut_on, {"sender.py": HOOKED}, up_to="2.0")
    higher = HOOKED.replace("retry(", "retry_twice(")
    bench.patch("high", cut_on, {"sender.py": higher}, parent=low, requires="[low]", up_to="2.0")
    base = bench.release("2.0", {"sender.py": "# new\n" + SENDER})
    topics, _ = build(bench, base)
    assert [bench.store.parents(topic.commit) for topic in topics] == [(base.commit,), (topics[0].commit,)]
    assert bench.content(topics[1].commit, "sender.py") == "# new\n" + higher


def test_a_hunk_at_the_end_of_a_file_without_a_newline_is_placed(bench: Bench) -> None:
    cut_on = bench.release("1.0", {"sender.py": SENDER + "    last = 1"})
    bench.patch("mend", cut_on, {"sender.py": SENDER + "    last = 2  # SGLANG_X"}, up_to="2.0")
    (topic,), _ = build(bench, bench.release("2.0", {"sender.py": "# new\n" + SENDER + "    last = 1"}))
    assert bench.content(topic.commit, "sender.py") == "# new\n" + SENDER + "    last = 2  # SGLANG_X"


def test_a_place_that_fits_twice_is_taken_where_git_takes_it_and_only_in_the_same_definition(bench: Bench) -> None:
    cut_on = bench.release("1.0", {"sender.py": SENDER})
    bench.patch("mend", cut_on, {"sender.py": HOOKED}, up_to="2.0")
    (topic,), _ = build(bench, bench.release("2.0", {"sender.py": SENDER + TWIN}))
    assert bench.content(topic.commit, "sender.py") == HOOKED + TWIN


def test_a_file_that_is_no_python_any_more_is_refused(bench: Bench) -> None:
    cut_on = bench.release("1.0", {"sender.py": SENDER})
    bench.patch("mend", cut_on, {"sender.py": HOOKED}, up_to="2.0")
    base = bench.release("2.0", {"sender.py": SENDER + "\n\ndef broken(:\n"})
    assert refusal(bench, base) == [HEAD, "  sender.py: before the patch it is no Python (line 17: invalid syntax)"]


def test_files_without_definitions_are_placed_by_git_alone(bench: Bench) -> None:
    lines = "".join(f"{number}\n" for number in range(20))
    cut_on = bench.release("1.0", {"notes.txt": lines})
    bench.patch("mend", cut_on, {"notes.txt": lines.replace("10\n", "ten\n")}, up_to="2.0")
    (topic,), _ = build(bench, bench.release("2.0", {"notes.txt": "new\n" + lines}))
    assert bench.content(topic.commit, "notes.txt") == "new\n" + lines.replace("10\n", "ten\n")


def test_the_release_that_a_diff_was_cut_on_must_be_at_hand(bench: Bench) -> None:
    cut_on = bench.release("1.0", {"sender.py": SENDER})
    bench.patch("mend", cut_on, {"sender.py": HOOKED}, up_to="2.0")
    base = bench.release("2.0", {"sender.py": SENDER})
    assert releases_to_compare(bench.read(), "2.0") == ("1.0",)
    assert releases_to_compare(bench.read(), "1.0") == ()
    with pytest.raises(ConfigError) as caught:
        build_topics(bench.store, base, bench.read(), optional_on=())
    assert bench.problems(caught.value) == [
        "mend/1.0..2.0.patch:1: Cut-On: 2.0 must be compared with 1.0, which is not at hand: fetch that release as well"
    ]
