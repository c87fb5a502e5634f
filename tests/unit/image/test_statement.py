"""What is stated of an image, and when a statement counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from patchstack import __version__
from patchstack.contents import Item
from patchstack.errors import ImageError
from patchstack.image.contents import contents_digest
from patchstack.image.statement import PAYLOAD, Verified, statement, verified, verify
from patchstack.model import Kind

from .fixed_image import CONTENTS, DIGEST, ED25519, OTHER, P256, REPOSITORY, public_of, signer

OTHER_DIGEST = f"sha256:{'9' * 64}"
STATED = statement(CONTENTS, REPOSITORY, DIGEST)
KEY = public_of(ED25519)


def _envelope(payload: bytes = STATED) -> bytes:
    return signer(ED25519).envelope(payload, PAYLOAD)


def test_a_statement_is_in_totos_with_slsas_provenance() -> None:
    source = "https://github.com/Acme/sglang"
    assert json.loads(STATED) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": REPOSITORY, "digest": {"sha256": "a" * 64}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{source}/patchstack/night@v1",
                "externalParameters": {
                    "lane": "production",
                    "runtime": "cpu",
                    "base": "sglang==0.5.12.post1",
                    "included": [
                        {"name": "ib-device-map", "head": "1" * 40},
                        {"name": "zmq-locked-sends", "head": "2" * 40},
                        {"name": "#41", "head": "3" * 40},
                    ],
                },
                "internalParameters": {"fingerprint": "f" * 64, "recipe": "1" * 64},
                "resolvedDependencies": [
                    {
                        "name": "sglang==0.5.12.post1",
                        "uri": f"git+{source}",
                        "digest": {"gitCommit": "b" * 40, "gitTree": "c" * 40},
                    },
                    {"name": "dependencies", "uri": f"oci://{REPOSITORY}", "digest": {"sha256": "b" * 64}},
                    {"name": "ib-device-map", "uri": f"git+{source}", "digest": {"gitCommit": "1" * 40}},
                    {"name": "zmq-locked-sends", "uri": f"git+{source}", "digest": {"gitCommit": "2" * 40}},
                    {"name": "#41", "uri": f"git+{source}", "digest": {"gitCommit": "3" * 40}},
                ],
            },
            "runDetails": {
                "builder": {"id": source, "version": {"patchstack": __version__}},
                "byproducts": [
                    {"name": "contents.json", "digest": {"sha256": contents_digest(CONTENTS)[7:]}},
                    {
                        "name": "composition",
                        "uri": f"git+{source}",
                        "digest": {"gitCommit": "d" * 40, "gitTree": "e" * 40},
                    },
                ],
            },
        },
    }


def test_a_pull_request_is_named_by_its_address() -> None:
    pull = Item("#41", Kind.PULL, "t", "a", CONTENTS.tree, (), url="https://github.com/Acme/sglang/pull/41")
    body = json.loads(statement(replace(CONTENTS, items=(pull,)), REPOSITORY, DIGEST))

    assert body["predicate"]["buildDefinition"]["resolvedDependencies"][-1]["uri"] == pull.url


def test_a_night_that_is_made_again_states_the_same() -> None:
    assert statement(replace(CONTENTS), REPOSITORY, DIGEST) == STATED
    assert _envelope() == _envelope()


def test_a_statement_counts_for_its_image_by_its_key() -> None:
    assert verify(_envelope(), KEY, DIGEST) == Verified(
        key=KEY.fingerprint,
        image=DIGEST,
        contents=contents_digest(CONTENTS),
        lane="production",
        builder=f"https://github.com/Acme/sglang, patchstack {__version__}",
    )


def test_a_statement_on_another_image_does_not_count() -> None:
    with pytest.raises(ImageError, match=rf"is signed, but is about another image: {DIGEST}$"):
        verify(_envelope(), KEY, OTHER_DIGEST)


def test_a_statement_by_another_key_does_not_count() -> None:
    with pytest.raises(ImageError, match=rf"^the statement on {DIGEST} is not signed by key\.pub\.pem"):
        verify(_envelope(), public_of(OTHER), DIGEST)


def _with(change: Callable[[dict[str, Any]], object]) -> bytes:
    body = json.loads(STATED)
    change(body)
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"{}", "does not read as a statement of patchstack"),
        (b"[]", "does not read"),
        (b"\xff", "does not read"),
        (_with(lambda body: body.update(_type="https://in-toto.io/Statement/v0.1")), "states something else"),
        (_with(lambda body: body.update(predicateType="https://cyclonedx.org/bom")), "states something else: 'https"),
        (_with(lambda body: body["subject"].clear()), "about another image: nothing"),
        (_with(lambda body: body["subject"].append({"digest": {"sha256": "0" * 64}})), "about another image"),
        (_with(lambda body: body["predicate"]["runDetails"].pop("byproducts")), "does not read"),
        (_with(lambda body: body.update(predicate=None)), "does not read"),
    ],
    ids=["empty", "list", "no text", "type", "predicate", "no subject", "two subjects", "no contents", "no predicate"],
)
def test_what_is_signed_and_states_something_else_does_not_count(payload: bytes, problem: str) -> None:
    with pytest.raises(ImageError, match=problem):
        verify(_envelope(payload), KEY, DIGEST)


def test_one_good_statement_among_others_is_enough() -> None:
    foreign = signer(OTHER).envelope(STATED, PAYLOAD)
    of_another = signer(ED25519).envelope(statement(CONTENTS, REPOSITORY, OTHER_DIGEST), PAYLOAD)

    assert verified([b"junk", foreign, of_another, _envelope()], KEY, DIGEST).image == DIGEST
    with pytest.raises(ImageError, match="is not signed by"):
        verified([foreign, of_another], KEY, DIGEST)


def test_no_statement_at_all_is_told_as_that() -> None:
    with pytest.raises(ImageError, match=rf"^{DIGEST} is not signed: there is no statement of key\.pub\.pem"):
        verified([], KEY, DIGEST)


def test_an_ecdsa_key_does_as_well() -> None:
    envelope = signer(P256).envelope(STATED, PAYLOAD)

    assert verify(envelope, public_of(P256), DIGEST).key == public_of(P256).fingerprint
