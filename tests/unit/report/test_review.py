"""What an engineer reads of a verdict, whole; and that a verdict full of hostile text does nothing in a comment."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from patchstack.github import COMMENT_LIMIT
from patchstack.report.review import MARKER, is_review, render_review, review_comment
from patchstack.verdict import (
    SCHEMA_PATH,
    CandidateChange,
    Candidates,
    Change,
    Fate,
    Guard,
    LaneReview,
    LeftOutPatch,
    Lint,
    PatchChange,
    PatchRefusal,
    PatchVerdict,
    Stack,
    StaleFile,
    Stopped,
    encode,
    line,
    name,
    schema_text,
)

from . import hostile
from .test_inert import ALLOWED, GITHUB_ACTS, _hidden

HEAD, BASE = "a" * 40, "b" * 40
BEFORE = Stack(base="sglang==1.0", commit="c" * 40, tree="d" * 40, patches=("one", "two"))
AFTER = Stack(base="sglang==1.0", commit="e" * 40, tree="f" * 40, patches=("one", "two", "three"))
CLEAN = PatchVerdict(
    number=7,
    head=HEAD,
    base=BASE,
    lanes=(LaneReview(lane="production", before=BEFORE, after=AFTER),),
    patches=(
        PatchChange(
            slug="one",
            title="pd: one",
            change=Change.CHANGED,
            files=("1.0..1.0.patch",),
            range_diff=("1:  aaaa ! 1:  bbbb pd: one", "    -+ONE", "    ++UNO"),
            on_lane="production",
            guards=(
                Guard(path="tests/regression/one/", there=True, tests=3),
                Guard(path="tests/regression/gpu/test_one.py", there=False, tests=0),
            ),
        ),
        PatchChange(slug="two", title="pd: two", change=Change.UNCHANGED, moved=True),
        PatchChange(slug="three", title="pd: three", change=Change.NEW, guards=(Guard(path="t", there=True, tests=1),)),
        PatchChange(slug="four", title="pd: four", change=Change.GONE),
    ),
    lint=Lint(tried_on=("1.0",), left_to_lint=("1.1", "1.2")),
    candidates=Candidates(
        compared=12,
        changes=(
            CandidateChange(
                lane="production",
                name="#41",
                title="Fix it",
                author="ann",
                before=Fate(),
                after=Fate(reason="excluded: conflict", twins=("one",), files=("python/sglang/a.py",)),
            ),
        ),
    ),
)
REFUSED = PatchVerdict(
    head=HEAD,
    base=BASE,
    lanes=(
        LaneReview(
            lane="production",
            before=BEFORE,
            after=Stack(
                base="sglang==1.0",
                refusals=(
                    PatchRefusal(
                        patch="two",
                        optional=False,
                        files=("python/sglang/a.py",),
                        conflicts_with=("one",),
                        holds_up=("three",),
                        said=("required patch `two` does not apply:", "  a.py: it was cut on blob 1"),
                    ),
                ),
            ),
        ),
    ),
    lint=Lint(
        problems=("patches/one/patch.md:3: owner: Field required: add it",),
        stale=(StaleFile(file="patches/one/1.0..1.0.patch", patch="one"), StaleFile(file="README.md")),
        tried_on=("1.0",),
    ),
    candidates=Candidates(why="lane production: its stack does not compose"),
)


def lines(text: str) -> list[str]:
    return [one.rstrip() for one in text.splitlines()]


def test_on_a_terminal() -> None:
    assert lines(render_review(CLEAN)) == [
        "Patches at aaaaaaaaaaaa against bbbbbbbbbbbb: composes",
        "Lane production on sglang==1.0: 3 patches compose into tree ffffffffffff; main's is dddddddddddd.",
        ("Lint on 1.0: nothing to mend. 2 releases more of the changed patches' ranges are left to patchstack lint."),
        "Tonight's candidates: 12 composed on either side, 1 fares otherwise.",
        "",
        "Candidates that fare otherwise",
        (
            "  - #41 Fix it by ann in lane production: in; with this pull request excluded: conflict with one in "
            "python/sglang/a.py"
        ),
        "",
        "Patches",
        "  1 new, 1 changed, 1 unchanged, 1 gone.",
        "  - one changed in 1.0..1.0.patch",
        "  - two unchanged, moved in the series",
        "  - three new: pd: three",
        "  - four gone: pd: four",
        "  - Range-diff of one on lane production",
        "    1:  aaaa ! 1:  bbbb pd: one",
        "        -+ONE",
        "        ++UNO",
        "",
        "Guards of what has changed",
        "  No guard has run here. patchstack prove SLUG runs a patch's own, without it and with it.",
        "  - one: tests/regression/one/ (3 tests), tests/regression/gpu/test_one.py (missing)",
        "  - three: t (1 test)",
    ]


def test_in_a_comment() -> None:
    assert review_comment(REFUSED).splitlines() == [
        "<!-- patchstack:review v1 -->",
        "",
        "Patches at `aaaaaaaaaaaa` against `bbbbbbbbbbbb`: **does not compose**",
        "",
        "Lane `production` on `sglang==1.0`: `two` does not compose; main's stack composes.",
        "",
        "Lint on `1.0`: 1 problem, 2 stale files.",
        "",
        "Tonight's candidates were not asked for: lane production: its stack does not compose.",
        "",
        (
            "Found by the pull request's own code, so a reviewer may want to see it from main's: "
            f"`patchstack review --against {BASE}` says the same on any machine."
        ),
        "",
        "### What does not compose",
        "",
        "`two` of lane `production` against `one` in `python/sglang/a.py`; it holds up `three`:",
        "",
        "```diff",
        "required patch `two` does not apply:",
        "  a.py: it was cut on blob 1",
        "```",
        "",
        "### Lint",
        "",
        "- `patches/one/patch.md:3`: owner: Field required: add it",
        (
            "- `patches/one/1.0..1.0.patch` is not as the tool writes it: run `patchstack patch export one` "
            "and commit what it changes"
        ),
        "- `README.md` is not as the tool writes it: run `make schema` and commit what it changes",
    ]


@pytest.mark.parametrize(
    ("found", "title", "said"),
    [
        (REFUSED, "does not compose", "two does not compose; main's stack composes."),
        (
            PatchVerdict(head=HEAD, base=BASE, lint=Lint(problems=("x: y",))),
            "not composed",
            "Nothing was composed: mend what lint says first.",
        ),
        (
            CLEAN.model_copy(update={"lint": Lint(problems=("x", "y"), stale=(StaleFile(file="z"),))}),
            "composes, but lint has 3 problems",
            "2 problems, 1 stale file",
        ),
        (
            CLEAN.model_copy(update={"lint": Lint(refused=("x",), tried_on=("1.0", "1.1"))}),
            "does not compose",
            "Lint on 1.0, 1.1: a diff that does not apply",
        ),
        (
            PatchVerdict(head=HEAD, base=BASE, stopped=Stopped(code=8, said=("the index is gone", "run again"))),
            "not composed",
            "The review is incomplete (exit code 8: a remote failed or refused): the index is gone run again",
        ),
        (
            CLEAN.model_copy(update={"lanes": (LaneReview(lane="edge", before=BEFORE, after=None),)}),
            "not composed",
            "Lane edge is gone.",
        ),
        (
            CLEAN.model_copy(update={"lanes": (LaneReview(lane="edge", before=None, after=AFTER),)}),
            "composes",
            "3 patches compose into tree ffffffffffff, nothing to compare it with.",
        ),
        (
            CLEAN.model_copy(update={"lanes": (LaneReview(lane="edge", before=AFTER, after=AFTER),)}),
            "composes",
            "3 patches compose into tree ffffffffffff, the same as main's.",
        ),
        (CLEAN.model_copy(update={"left_off": 12}), "composes", "12 lines were left off for size."),
        (
            CLEAN.model_copy(update={"before_problems": ("deploy.yaml:1: x", "more")}),
            "composes",
            "What it is compared with cannot be read: deploy.yaml:1: x",
        ),
        (
            CLEAN.model_copy(
                update={
                    "lanes": (
                        LaneReview(
                            lane="edge",
                            before=None,
                            after=AFTER.model_copy(
                                update={"left_out": (LeftOutPatch(patch="three", reason="skipped: x", detail=""),)}
                            ),
                        ),
                    )
                }
            ),
            "composes",
            "three new: pd: three; not composed in lane edge, skipped: x",
        ),
    ],
)
def test_what_is_said_of(found: PatchVerdict, title: str, said: str) -> None:
    text = render_review(found)
    assert text.splitlines()[0].rstrip().endswith(f": {title}")
    assert said in text


def with_text(text: str, many: int = 2) -> PatchVerdict:
    """A verdict with ``text`` wherever its form lets anybody write."""
    where, said = name(text), line(text)
    fate = Fate(reason=said, twins=(where,) * many, files=(where,) * many)
    refusal = PatchRefusal(patch="one", optional=True, files=(where,) * many, said=(said,) * many)
    stack = Stack(
        base=where,
        refusals=(refusal,) * many,
        left_out=(LeftOutPatch(patch="one", reason=said, detail=said),) * many,
    )
    change = PatchChange(
        slug="one",
        title=said,
        change=Change.NEW,
        files=(where,) * many,
        range_diff=(said,) * many,
        guards=(Guard(path=where, there=True, tests=1), Guard(path=where, there=False, tests=1)) * many,
    )
    candidate = CandidateChange(lane="edge", name=where, title=said, author=said, before=fate, after=fate)
    return PatchVerdict(
        number=7,
        head=HEAD,
        base=BASE,
        before_problems=(said,) * many,
        lanes=(
            LaneReview(lane="edge", before=stack, after=stack),
            LaneReview(lane="edge", before=BEFORE, after=AFTER.model_copy(update={"base": where})),
        )
        * many,
        patches=(change,) * many,
        lint=Lint(problems=(said,) * many, refused=(said,) * many, stale=(StaleFile(file=where),) * many),
        candidates=Candidates(compared=3, why=said, changes=(candidate,) * many),
        stopped=Stopped(code=70, said=(said,) * many),
    )


def blocks_and_text(markdown: str) -> tuple[list[str], str]:
    """The blocks of a comment below its marker, and the text in it that is not code."""
    blocks, outside = [], []
    for token in MarkdownIt("commonmark", {"html": True}).parse(markdown.removeprefix(MARKER)):
        blocks.append(f"{token.type} {token.tag} {token.level} {token.info}")
        assert token.type != "html_block"
        within = False
        for part in token.children or []:
            assert part.type in ALLOWED, f"{part.type} {part.content!r}"
            if part.type == "html_inline":
                assert part.content in {"<code>", "</code>"}
                within = part.content == "<code>"
            elif part.type == "text" and not within:
                outside.append(part.content)
    return blocks, "\n".join(outside)


@pytest.mark.parametrize("text", hostile.TEXTS, ids=ascii)
def test_hostile_text_is_inert(text: str) -> None:
    found = PatchVerdict.model_validate_json(encode(with_text(text.encode(errors="backslashreplace").decode())))
    comment = review_comment(found)
    blocks, outside = blocks_and_text(comment)
    assert blocks == blocks_and_text(review_comment(with_text("plain" if text.strip() else text)))[0]
    assert GITHUB_ACTS.search(outside) is None
    assert comment.count("<!--") == 1
    assert _hidden(comment) == set()
    assert _hidden(render_review(found)) == set()


@pytest.mark.parametrize("sign", ["x", "|", "`", "@", "\\", "\U0010ffff", "é", "\x1b", "a\U0010fffe|` "])
@pytest.mark.parametrize("many", [1, 100])
def test_the_comment_is_within_what_github_takes(sign: str, many: int) -> None:
    found = with_text(sign * 600, min(many, 12)).model_copy(
        update={"patches": with_text(sign * 600, 2).patches * (many // 2 + 1)}
    )
    text = review_comment(found)
    assert len(text.encode()) <= COMMENT_LIMIT
    assert text.startswith(MARKER)
    assert text.splitlines()[2].startswith("Patches at `aaaaaaaaaaaa`")


def test_ours_begins_with_the_marker() -> None:
    assert is_review(review_comment(CLEAN))
    assert not is_review("<!-- patchstack:pull v1 lane=production state=x -->\n")
    assert not is_review(f"> {MARKER}")


def test_the_schema_is_fresh() -> None:
    assert SCHEMA_PATH.read_text() == schema_text()


def test_equal_verdicts_are_equal_comments() -> None:
    again = PatchVerdict.model_validate_json(encode(CLEAN))
    assert again == CLEAN
    assert review_comment(again) == review_comment(CLEAN)
