"""The files of a patch that was made of a commit: all that is known filled in, and `TODO` where it is not."""

from __future__ import annotations

import json
import re

from patchstack.patches.accumulator import Imported
from patchstack.patches.prose import HEADINGS
from patchstack.patches.todo import GUARD_TO_WRITE, TODO

GUARDS = "tests/regression"

_UPSTREAM = re.compile(r"https://github\.com/sgl-project/sglang/(?:pull|issues)/\d+")

_ASKED = {
    "Symptom": "what goes wrong without it, in the words of the log.",
    "Cause": "why.",
    "Cure": "what it does about it.",
    "Switches": "the kill switch, its default, and when it is read.",
    "Log lines": "what it writes, or `None.`",
    "Removal": "when it can go.",
}


def guard_folder(slug: str) -> str:
    """Where its guards are, relative to the repository's root."""
    return f"{GUARDS}/{slug.replace('-', '_')}"


def header_text(patch: Imported, *, owner: str, release: str) -> str:
    """Its `patch.md`; ``owner`` is an organisation of GitHub."""
    upstream = sorted(set(_UPSTREAM.findall(patch.body)))
    keys = {
        "title": json.dumps(patch.title, ensure_ascii=False),
        "owner": json.dumps(f"@{owner}/{TODO}"),
        "upstream-status": json.dumps(f"Pending [{TODO}: is it upstream, was it submitted, why not?]"),
        "upstream": json.dumps(upstream),
        "requires": f"[{', '.join(patch.requires)}]",
        "bases": f'{{"{release}": needed}}',
        "guards": f"[{guard_folder(patch.slug)}/]",
        "mutants": "[]",
        "kill-switch": json.dumps(f"{TODO}=0"),
        "remove-when": json.dumps(f"{TODO}: one sentence that a stranger can check"),
    }
    front = "".join(f"{key}: {value}\n" for key, value in keys.items())
    prose = "\n".join(f"## {heading}\n\n{TODO}: {_ASKED[heading]}\n" for heading in HEADINGS)
    return f"---\n{front}---\n{prose}"


def guard_text(slug: str) -> str:
    """A guard that passes on no tree, so that the gate lets nothing through until it is written."""
    return f'''\
"""{GUARD_TO_WRITE} of patch `{slug}`: it fails without the patch and passes with it (docs/patch-authors.md)."""

import pytest


def test_it_is_written() -> None:
    pytest.fail("{GUARD_TO_WRITE} of patch `{slug}`; until then no night that holds it is promoted")
'''
