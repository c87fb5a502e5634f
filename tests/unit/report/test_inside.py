"""NIGHT.md, as a person reads it who has only the image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from tests.unit.image.fixed_image import CONTENTS

from patchstack.contents import Item
from patchstack.model import Kind
from patchstack.report.inside import render_inside

from . import hostile

GOLDEN = Path(__file__).with_name("golden")
PARSER = MarkdownIt("commonmark", {"html": True})
PULLS = replace(
    CONTENTS,
    items=(
        Item("#41", Kind.PULL, "fix", "ann", CONTENTS.tree, (), url="https://github.com/Acme/sglang/pull/41"),
        Item("#42", Kind.PULL, "fix", "ann", CONTENTS.tree, (), url="javascript:alert(1)"),
    ),
)


def test_the_whole_text() -> None:
    assert render_inside(CONTENTS) == (GOLDEN / "inside.md").read_text()


def test_nothing_is_cut_off_for_there_is_no_report_beside_it() -> None:
    items = tuple(replace(CONTENTS.items[0], name=f"patch-{number}") for number in range(90))
    text = render_inside(replace(CONTENTS, items=items))

    assert [f"`patch-{number}`" in text for number in range(90)] == [True] * 90


def test_equal_contents_give_equal_text() -> None:
    assert render_inside(replace(CONTENTS)) == render_inside(CONTENTS)


def test_an_image_of_the_base_alone_says_none_of_each() -> None:
    text = render_inside(replace(CONTENTS, items=(), left_out=(), packages=()))

    assert text.count("\nNone.\n") == 3
    assert "- 0 patches and 0 pull requests on `sglang==0.5.12.post1`" in text
    assert "On packages that nobody has listed" in text


def test_a_pull_request_is_linked_and_no_other_address_is() -> None:
    text = render_inside(PULLS)

    assert "- [`#41`](<https://github.com/Acme/sglang/pull/41>): `fix` by `ann`; head" in text
    assert "- `#42`: `fix`" in text


def _hostile(text: str) -> str:
    items = tuple(replace(item, title=text, author=text, upstream_status=text, url=text) for item in CONTENTS.items)
    left_out = tuple(replace(item, detail=text, twins=(text,)) for item in CONTENTS.left_out)
    return render_inside(replace(CONTENTS, items=items, left_out=left_out))


def _blocks(markdown: str) -> list[str]:
    return [f"{token.type} {token.level}" for token in PARSER.parse(markdown)]


@pytest.mark.parametrize("text", hostile.TEXTS, ids=ascii)
def test_outside_text_is_inert(text: str) -> None:
    markdown = _hostile(text)

    assert _blocks(markdown) == _blocks(_hostile("plain"))
    assert not [sign for sign in markdown if sign != "\n" and not sign.isprintable()]
    assert "html_block" not in str(_blocks(markdown))
