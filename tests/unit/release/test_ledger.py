from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from patchstack.errors import RemoteError
from patchstack.release.ledger import History, dated_tag, format_message, history, make_line, parse_trailer

from .release_bench import FIRST, IMAGE, LANE, Bench


def test_history_is_read_back_from_the_first_parents(bench: Bench) -> None:
    promotions = [bench.night(bench.compose(text), day) for day, text in enumerate("abc")]

    found = bench.read().history

    assert [night.line for night in found.nights] == [made.line for made in reversed(promotions)]
    assert [night.commit for night in found.nights] == [made.commit for made in reversed(promotions)]
    assert [night.previous for night in found.nights[:2]] == [made.previous for made in (promotions[2], promotions[1])]
    assert found.foreign_on_top == 0
    assert found.last is not None
    assert found.last.line.night == "20261123T020000Z"


def test_the_message_tells_a_night_in_git_log(bench: Bench) -> None:
    composition = bench.compose()
    made = bench.night(composition)

    message = bench.remote.show(made.commit, "%B").removesuffix("\n")

    prose, _, trailer = message.rpartition("\n\n")
    assert prose == (
        "production night 20261121T020000Z: 1 topic on sglang==0.5.12.post1\n\n"
        f"Base: {composition.base.commit[:12]}\n"
        "Included:\n"
        f"  fix {composition.included[0].head[:12]}\n"
        "Left out:\n"
        "  #43: conflict"
    )
    assert json.loads(trailer.removeprefix("Patchstack-Night: ")) == {
        "schema_version": 1,
        **json.loads(json.dumps(asdict(made.line))),
    }
    assert trailer.count("\n") == 0


def test_a_nights_image_is_in_its_line_and_in_git_log(bench: Bench) -> None:
    made = bench.night(bench.compose(), image=IMAGE)

    (night,) = bench.read().history.nights
    assert night.line == made.line
    assert night.line.image == IMAGE
    assert f"\nImage: {IMAGE.repository}@{IMAGE.digest}\n" in bench.remote.show(made.commit, "%B")


def test_a_line_from_before_there_were_images_is_read(bench: Bench) -> None:
    made = bench.night(bench.compose())
    body = {"schema_version": 1, **json.loads(json.dumps(asdict(made.line)))}
    del body["image"]

    assert parse_trailer(json.dumps(body), "c") == made.line


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("digest", "nightly"),
        ("dependencies", "nightly"),
        ("repository", "registry.example.com/a; b"),
        ("repository", "registry.example.com/a\x1b[31m"),
        ("tag", "a/b"),
        ("tag", ""),
        ("runtime", "../x"),
        ("runtime", "cpu\n"),
    ],
)
def test_a_line_whose_image_has_no_digest_or_no_name_is_none(bench: Bench, field: str, value: str) -> None:
    made = bench.night(bench.compose(), image=IMAGE)
    right, wrong = (
        json.dumps({"schema_version": 1, **asdict(replace(made.line, image=image))})
        for image in (IMAGE, replace(IMAGE, **{field: value}))
    )

    assert parse_trailer(right, "c") == made.line
    assert parse_trailer(wrong, "c") is None


def test_no_branch_has_no_history(bench: Bench) -> None:
    assert history(bench.store, None, LANE) == History((), 0)
    assert bench.read().history == History((), 0)


def test_a_foreign_branch_has_no_nights_and_says_how_much_it_holds(bench: Bench) -> None:
    bench.store.push(bench.url, {"refs/heads/deploy": bench.foreign(bench.foreign())})

    assert bench.read().history == History((), 2)


def test_commits_by_hand_on_top_are_counted_and_the_night_below_is_found(bench: Bench) -> None:
    made = bench.night(bench.compose())
    bench.store.push(bench.url, {"refs/heads/deploy": bench.foreign(bench.foreign(made.commit))})

    found = bench.read().history

    assert [night.commit for night in found.nights] == [made.commit]
    assert found.foreign_on_top == 2


def test_a_merge_that_puts_nights_aside_is_an_error_and_the_way_out_works(bench: Bench) -> None:
    """Somebody commits on a deploy of yesterday and pulls with a merge: a fast-forward, and tonight is off the line."""
    first = bench.night(bench.compose())
    by_hand = bench.foreign(first.commit)
    second = bench.night(bench.compose("b"), 1)
    pulled = bench.store.commit(bench.store.tree_of(by_hand), (by_hand, second.commit), "Merge branch deploy\n")
    bench.store.push(bench.url, {"refs/heads/deploy": pulled})

    with pytest.raises(RemoteError, match=rf"night {second.line.night} \({second.commit[:12]}\)") as refused:
        bench.read()

    assert f"check {second.commit} out, `git merge --no-ff {pulled}`" in str(refused.value)
    mended = bench.store.commit(bench.store.tree_of(pulled), (second.commit, pulled), "Merge\n")
    bench.store.push(bench.url, {"refs/heads/deploy": mended})
    found = bench.read().history
    assert [entry.commit for entry in found.entries] == [second.commit, first.commit]
    assert found.foreign_on_top == 1


def test_a_topic_that_was_cut_from_an_older_night_and_merged_by_hand_puts_nothing_aside(bench: Bench) -> None:
    first = bench.night(bench.compose())
    second = bench.night(bench.compose("b"), 1)
    topic = bench.foreign(first.commit)
    merged = bench.store.commit(bench.store.tree_of(topic), (second.commit, topic), "Merge pull request\n")
    bench.store.push(bench.url, {"refs/heads/deploy": merged})

    found = bench.read().history

    assert [entry.commit for entry in found.entries] == [second.commit, first.commit]


@pytest.mark.parametrize("what", ["tree", "parent", "single parent"])
def test_a_copied_message_makes_no_night(bench: Bench, what: str) -> None:
    """A cherry-pick, an amended commit or a forged one: git does not hold what the trailer says."""
    made = bench.night(bench.compose())
    line, message = made.line, format_message(made.line)
    tree = bench.tree(other="x") if what == "tree" else line.tree
    second = {"tree": (line.composition,), "parent": (bench.foreign(),), "single parent": ()}[what]
    copy = bench.store.commit(tree, (made.commit, *second), message)
    bench.store.push(bench.url, {"refs/heads/deploy": copy})

    found = bench.read().history

    assert [night.commit for night in found.nights] == [made.commit]
    assert found.foreign_on_top == 1


def test_a_first_night_that_was_merged_as_a_side_branch_is_put_aside_too(bench: Bench) -> None:
    made = bench.night(bench.compose(), branch="elsewhere")
    merge = bench.store.commit(made.line.tree, (bench.foreign(), made.commit), "merge\n")

    with pytest.raises(RemoteError, match=f"night {made.line.night}"):
        history(bench.store, merge, LANE)
    assert history(bench.store, merge, "edge") == History((), 2), "another lane's nights are none of ours"


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: body.pop("tree"),
        lambda body: body.update(tree="--upload-pack=x"),
        lambda body: body.update(included=[["fix", "HEAD"]]),
        lambda body: body.update(tag="../heads/main"),
        lambda body: body.update(at="yesterday"),
        lambda body: body.update(at="2026-11-21T02:00:00"),
        lambda body: body.pop("schema_version"),
        lambda body: body.update(schema_version=0),
    ],
)
def test_a_trailer_that_does_not_read_is_none_of_ours(bench: Bench, damage) -> None:  # type: ignore[no-untyped-def]
    line = make_line("n", FIRST, bench.compose(), ("nightly",))
    body = json.loads(format_message(line).rpartition("Patchstack-Night: ")[2])
    assert parse_trailer(json.dumps(body), "c") == line

    damage(body)

    assert parse_trailer(json.dumps(body), "c") is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "3", '{"schema_version": 1}'])
def test_no_json_object_is_none_of_ours(text: str) -> None:
    assert parse_trailer(text, "c") is None


def test_a_newer_ledger_stops_the_night(bench: Bench) -> None:
    with pytest.raises(RemoteError) as error:
        parse_trailer('{"schema_version": 2}', "c0ffee")

    assert str(error.value) == (
        "commit c0ffee was promoted by a newer patchstack (ledger schema 2, this one reads 1); "
        "update patchstack and run again"
    )


def test_names_of_topics_cannot_add_a_trailer(bench: Bench) -> None:
    line = make_line("n", FIRST, bench.compose(), ("nightly",))
    line = replace(
        line, base="x Patchstack-Night: {}", included=(("ü #1 Patchstack-Night: {}", line.tree),), optional=()
    )
    commit = bench.store.commit(line.tree, (bench.foreign(), line.composition), format_message(line))

    assert [night.line for night in history(bench.store, commit, LANE).nights] == [line]


def test_tags_of_lanes() -> None:
    assert dated_tag("production", "2026-11-21T23:59:59Z", "abcdef0" + "1" * 33) == "nightly-20261121-abcdef0"
    assert dated_tag("edge", "2026-11-21T00:00:00+00:00", "a" * 40) == "edge-nightly-20261121-aaaaaaa"
