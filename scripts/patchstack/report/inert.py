"""Outside text made visible: titles, authors, file names and diffs come from people whom nobody vetted.

Whatever could steer a terminal, hide text, turn its direction or end a line is written as an escape that a
reader can see. What is left is plain text on one line; what it means in Markdown is `markdown.py`'s care.
"""

from __future__ import annotations

import unicodedata

MARKER = "<!--"
"""Begins an HTML comment, which Markdown hides, and by which tools find their own earlier messages."""


def visible(text: str, limit: int | None = None) -> str:
    """``text`` on one line, nothing in it hidden or acting; cut to ``limit`` characters with an ellipsis."""
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return "".join(map(_character, text)).replace(MARKER, r"\x3c!--")


def visible_lines(text: str, limit: int | None = None) -> tuple[str, ...]:
    """Every line of ``text`` made visible, tabs as blanks; line ends are ``\\n`` alone."""
    return tuple(visible(line.expandtabs(4), limit) for line in text.removesuffix("\n").split("\n"))


def _character(character: str) -> str:
    # C*: controls, formats (bidi overrides, zero width), surrogates (bytes that are no UTF-8), unassigned.
    # Zl, Zp: separators that some readers take for a line's end.
    category = unicodedata.category(character)
    if category[0] != "C" and category not in {"Zl", "Zp"}:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte that is no UTF-8 (surrogateescape)
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
