"""`patchstack explain` on a real registry: what it tells, and what it does not let pass."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.e2e.image_bench import ImageBench
from tests.support.image_registry import registry, skopeo, small_image
from tests.unit.image.fixed_image import (
    CONTENTS,
    ED25519,
    OTHER,
    P256,
    RECIPE,
    SOURCES,
    pem,
    public_of,
    public_pem,
    signer,
)

from patchstack import process
from patchstack.cli import main_group
from patchstack.contents import Contents, Item, Package
from patchstack.credential import SIGNING_KEY
from patchstack.errors import PatchstackError
from patchstack.image.append import Lower, append, read_dependencies
from patchstack.image.contents import contents_digest, files_of, labels_of
from patchstack.image.embedded import serve
from patchstack.image.explain import Seen, Signature
from patchstack.image.inventory import Inventory
from patchstack.image.layer import FileEntry, make_layer
from patchstack.image.manifest import extend
from patchstack.image.names import Place, dependency_tag, statement_tag
from patchstack.image.oci import digest_of
from patchstack.image.registry import Registry
from patchstack.image.sbom import sbom
from patchstack.image.signing import Private
from patchstack.image.statement import PAYLOAD, push_statement, read_statements, statement
from patchstack.model import Kind, Sha
from patchstack.report.inside import render_inside
from patchstack.verbs.explain import explain

ROOT = "/opt/sglang/lib/python3.11/site-packages"
PACKAGES = (Package("debian", "libc6", "2.36-9+deb12u10"), Package("python", "numpy", "2.3.5"))
TAG = "cpu-20261121-eeeeeee"
DEPS = dependency_tag("cpu", RECIPE)
NIGHT = "opt/patchstack/contents.json"

DEPLOY = """\
schema: 1
fork: {{repo: Acme/sglang, remote: remote.git}}
lanes:
  production:
    upstream: {{pypi: sglang==0.5.12.post1}}
    branch: deploy
    image: {{repository: "{repository}", runtime: cpu{key}}}
channels:
  nightly: {{needs: [cpu]}}
"""


@dataclass
class Bench:
    """A lane's repository with a dependency image in it, and a checkout that knows of it."""

    registry: Registry
    data: Path
    checkout: Path
    lower: Lower

    @property
    def place(self) -> Place:
        return self.registry.place

    def contents(self, **more: object) -> Contents:
        return replace(CONTENTS, **{"packages": PACKAGES, "dependencies": self.lower.digest, **more})  # type: ignore[arg-type]

    def files(self, contents: Contents, **more: bytes) -> Mapping[str, bytes]:
        made = files_of(contents, SOURCES, night=render_inside(contents), sbom=sbom(contents))
        return {**made, f"{ROOT[1:]}/sglang/a.py": b"A = 1\n", **more}

    def labels(self, contents: Contents) -> Mapping[str, str]:
        return labels_of(contents, contents_digest(contents), f"{self.place.name}:{DEPS}")

    def push(
        self,
        contents: Contents | None = None,
        *,
        tag: str = TAG,
        files: Mapping[str, bytes] | None = None,
        labels: Mapping[str, str] | None = None,
        key: Private | None = ED25519,
        lower: Lower | None = None,
    ) -> str:
        """A night's image as the verb makes it, with what is given in place of what belongs there."""
        said = contents or self.contents()
        layer = make_layer({path: FileEntry(data) for path, data in (files or self.files(said)).items()})

        def sign(digest: str) -> str:
            return push_statement(self.registry, said, self.place.name, digest, signer(key)) if key else ""

        wanted = labels or self.labels(said)
        return append(self.registry, lower or self.lower, layer, wanted, said.created, lambda _: tag, sign).digest

    def configure(self, key: Private | None) -> None:
        said = ", public_key: image.pub.pem" if key else ""
        (self.checkout / "deploy.yaml").write_text(DEPLOY.format(repository=self.place.name, key=said))
        if key:
            (self.checkout / "image.pub.pem").write_bytes(public_pem(key))

    def explain(self, *argv: str) -> Result:
        """The verb, in this process."""
        where = ["--config", str(self.checkout / "deploy.yaml")]
        return CliRunner().invoke(main_group, [*where, "explain", *argv])

    def explain_apart(self, *argv: str) -> process.Completed:
        """The verb, in a process of its own in the checkout."""
        program = [sys.executable, "-c", "from patchstack.cli import main; main()"]
        return process.run([*program, "explain", *argv], cwd=self.checkout, env=dict(os.environ), check=False)

    def refusal(self, *argv: str, code: int = 5) -> str:
        """What it says when it refuses, with nothing on standard output."""
        done = self.explain(*argv)
        assert isinstance(done.exception, PatchstackError), done.output
        assert (done.exception.exit_code, done.stdout) == (code, "")
        return str(done.exception)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    data, checkout = tmp_path / "registry", tmp_path / "checkout"
    checkout.mkdir()
    with registry(data) as place, Registry.at(place) as client:
        dependencies(client, PACKAGES).push(client, DEPS)
        lower = read_dependencies(client, DEPS, f"{place.name}:{DEPS}")
        assert lower is not None
        made = Bench(client, data, checkout, lower)
        made.configure(ED25519)
        yield made


def dependencies(client: Registry, packages: tuple[Package, ...]) -> Any:
    return small_image({"opt/patchstack/dependencies.json": Inventory(packages, ROOT).encode()})


# --- what it tells -------------------------------------------------------------------------------------


def test_an_image_is_explained_and_verified(bench: Bench) -> None:
    digest = bench.push()

    done = bench.explain_apart(TAG)

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        f"Image {bench.place.name}@{digest}",
        "2 patches and 1 pull request on sglang==0.5.12.post1, composed by Acme/sglang.",
    ]
    assert f"Pull it: podman pull {bench.place.name}@{digest}" in lines
    said = [line for line in lines if "verified: " in line]
    assert said[0].startswith(
        f"  - verified: the statement on this digest is signed by {public_of(ED25519).fingerprint}"
    )
    assert [line.startswith("  - verified: ") for line in said] == [True] * 5 + [False]
    assert any(
        line.startswith("  - zmq-locked-sends: pd: lock shared PUSH sockets; off with SGLANG_ZMQ") for line in lines
    )
    assert any(line.startswith("  - #43 excluded: conflict (#41, zmq-locked-sends)") for line in lines)


@pytest.mark.parametrize("form", ["{tag}", "{digest}", "{place}:{tag}", "{place}@{digest}"])
def test_every_way_to_name_it_finds_the_same(bench: Bench, form: str) -> None:
    digest = bench.push()
    name = form.format(tag=TAG, digest=digest, place=bench.place.name)

    body = json.loads(bench.explain(name, "--json").stdout)

    assert (body["type"], body["repository"], body["digest"]) == ("Explained", bench.place.name, digest)
    assert [item["name"] for item in body["contents"]["items"]] == ["ib-device-map", "zmq-locked-sends", "#41"]
    assert body["signature"] == "verified"


def test_only_small_layers_are_read(bench: Bench) -> None:
    """An image of the fixture has two layers; a third below them is never asked for: it is not even there."""
    big = Lower(bench.lower.name, *_with_a_layer_below(bench), bench.lower.inventory)
    bench.registry.push_manifest(big.manifest.raw, big.manifest.media_type)
    contents = bench.contents(dependencies=big.digest)
    layer = make_layer({path: FileEntry(data) for path, data in bench.files(contents).items()})
    made = extend(big.manifest, big.config, layer, bench.labels(contents), contents.created)
    for blob in (layer.data, made.config):
        bench.registry.push_blob(blob, digest_of(blob))
    bench.registry.push_manifest(made.manifest.raw, made.manifest.media_type, TAG)
    push_statement(bench.registry, contents, bench.place.name, made.digest, signer(ED25519))
    below = made.manifest.layers[0].digest.removeprefix("sha256:")
    (bench.data / f"docker/registry/v2/blobs/sha256/{below[:2]}/{below}/data").unlink()

    assert bench.explain(TAG).exit_code == 0


def _with_a_layer_below(bench: Bench) -> tuple[Any, bytes]:
    """The dependency image with a layer of its own below the one that lists the packages."""
    wheels = make_layer({"opt/wheels": FileEntry(b"w" * 100)})
    listed = make_layer({"opt/patchstack/dependencies.json": FileEntry(bench.lower.inventory.encode())})
    empty = replace(bench.lower.manifest, layers=())
    config = json.dumps({"config": {}, "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    one = extend(empty, config, wheels, {}, CONTENTS.created)
    two = extend(one.manifest, one.config, listed, {}, CONTENTS.created)
    for blob in (wheels.data, listed.data, one.config, two.config):
        bench.registry.push_blob(blob, digest_of(blob))
    return two.manifest, two.config


def test_without_a_key_it_says_what_nobody_can_know(bench: Bench) -> None:
    bench.configure(None)
    bench.push(tag="signed")
    bench.push(bench.contents(lane="edge"), tag="unsigned", key=None)

    signed, unsigned = bench.explain("signed"), bench.explain("unsigned")

    assert (signed.exit_code, unsigned.exit_code) == (0, 0)
    assert "- not verified: who made it: there is a signed statement, but no key to verify it with" in signed.stdout
    assert "- not verified: who made it: it is not signed, and no key is configured" in unsigned.stdout


def test_two_images_are_compared(bench: Bench) -> None:
    bench.push(tag="before")
    new = Item("colocate-tp", Kind.PATCH, "colocate", "us", Sha("8" * 40), (), kill_switch="SGLANG_COLOCATE=0")
    bench.push(bench.contents(items=(*CONTENTS.items[:2], new), tree=Sha("7" * 40)), tag="after")

    text = bench.explain("before..after").stdout
    body = json.loads(bench.explain("before..after", "--json").stdout)
    same = bench.explain(f"before..{bench.place.name}:before").stdout

    assert "  - colocate-tp added: colocate; head 888888888888, off with SGLANG_COLOCATE=0\n" in text
    assert "  - #41 removed: fix/metrics; head was 333333333333\n" in text
    assert [(item["name"], item["change"]) for item in body["items"]] == [("colocate-tp", "added"), ("#41", "removed")]
    assert body["packages"] == []
    assert same.endswith("It is one image.\n")


def test_what_a_night_makes_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verb that makes images and the one that reads them agree on every part."""
    monkeypatch.delenv("PATCHSTACK_IMAGE")
    monkeypatch.setenv(SIGNING_KEY, pem(ED25519))
    with registry(tmp_path / "registry") as place:
        made = ImageBench(tmp_path / "lane", place, ", public_key: image.pub.pem")
        (made.folder / "image.pub.pem").write_bytes(public_pem(ED25519))
        made.push_dependencies()
        composition = made.compose({"python/sglang/a.py": "changed\n"})
        image = made.make(composition)

        found = explain(made.work, image.tag)

    assert (found.repository, found.digest, found.labels) == (image.repository, image.digest, image.labels)
    assert (found.signature, found.compared, found.not_compared) == (Signature.VERIFIED, tuple(Seen), ())
    assert found.contents.tree == composition.tree
    assert [(item.name, item.author, item.head) for item in found.contents.items] == [
        ("#1", "Bob", composition.included[0].head)
    ]


def test_the_registry_of_this_machine_needs_no_signature(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    local = bench.checkout.parent / "local"
    local.mkdir()
    deploy = DEPLOY.format(repository=bench.place.name, key=", public_key: image.pub.pem")
    (local / "deploy.yaml").write_text(deploy.replace(", remote: remote.git", ""))
    (local / "image.pub.pem").write_bytes(public_pem(ED25519))
    with serve(local / ".patchstack" / "registry") as place, Registry.at(place) as client:
        dependencies(client, PACKAGES).push(client, DEPS)
        digest = replace(bench, registry=client).push(key=None)
        other = replace(bench, registry=client).push(bench.contents(lane="edge"), key=OTHER, tag="foreign")
    argv = ["--config", str(local / "deploy.yaml"), "--local", "explain"]

    for name in (TAG, f"sglang:{TAG}", f"sglang@{digest}", digest):
        done = CliRunner().invoke(main_group, [*argv, name])

        assert (done.exit_code, done.stdout.splitlines()[0]) == (0, f"Image sglang@{digest}"), done.output
        assert "patchstack --local registry serves it" in done.stdout
        assert "not verified: who made it: it is not signed" in done.stdout
    refused = CliRunner().invoke(main_group, [*argv, "foreign"]).exception
    assert f"the statement on {other} is not signed by" in str(refused)


# --- what it does not let pass -------------------------------------------------------------------------


def _other_contents(bench: Bench) -> str:
    files = bench.files(bench.contents(lane="edge"))
    bench.push(files={**bench.files(bench.contents()), NIGHT: files[NIGHT]})
    return "label io.github.acme.patchstack.contents must be"


def _other_label(bench: Bench) -> str:
    bench.push(labels={**bench.labels(bench.contents()), "io.github.acme.patchstack.tree": "0" * 40})
    return f"label io.github.acme.patchstack.tree must be '{'e' * 40}' and is '{'0' * 40}'"


def _further_label(bench: Bench) -> str:
    bench.push(labels={**bench.labels(bench.contents()), "verdict": "PASS"})
    return "label verdict must be None and is 'PASS'"


def _other_bill(bench: Bench) -> str:
    bill = sbom(bench.contents(packages=(*PACKAGES, Package("python", "six", "1.17.0"))))
    bench.push(files={**bench.files(bench.contents()), "opt/patchstack/sbom.cdx.json": bill})
    return "its sbom.cdx.json and its contents.json differ in 1 packages: six 1.17.0"


def _no_bill(bench: Bench) -> str:
    files = bench.files(bench.contents())
    bench.push(files={path: data for path, data in files.items() if not path.endswith(".cdx.json")})
    return "its sbom.cdx.json does not read"


def _other_packages(bench: Bench) -> str:
    bench.push(bench.contents(packages=PACKAGES[:1]))
    return "its contents.json and its dependencies list other packages"


def _other_dependencies(bench: Bench) -> str:
    other = small_image({"other": b""}).push(bench.registry)
    bench.push(bench.contents(dependencies=other))
    return f"it is not made on {other}, as it says"


def _damaged_contents(bench: Bench) -> str:
    bench.push(files={**bench.files(bench.contents()), NIGHT: b"{}"})
    return "its contents.json does not read: it is damaged, or was made by another version of patchstack"


def _damaged_layer(bench: Bench) -> str:
    bench.push()
    layer = bench.registry.manifest(TAG).layers[-1].digest
    hexadecimal = layer.removeprefix("sha256:")
    blob = bench.data / f"docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"
    data = blob.read_bytes()
    blob.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    return f"reading blob {layer}"


def _no_night(bench: Bench) -> str:
    bench.registry.tag(bench.lower.digest, TAG)
    return "is no image of a night: its last layer has no /opt/patchstack/contents.json"


def _not_signed(bench: Bench) -> str:
    digest = bench.push(key=None)
    return f"{digest} is not signed: there is no statement of {bench.checkout}/image.pub.pem ("


def _signed_by_another(bench: Bench) -> str:
    bench.push(key=OTHER)
    return f"it is by {public_of(OTHER).fingerprint}, or was changed since"


def _replaced_under_its_tag(bench: Bench) -> str:
    """Whoever can write to the registry puts code into the image and moves the tag: everything fits together."""
    bench.push()
    mine = bench.push(files={**bench.files(bench.contents()), f"{ROOT[1:]}/evil.pth": b"x"}, tag="mine", key=None)
    bench.registry.tag(mine, TAG, move=True)
    return f"{mine} is not signed"


def _statement_of_another_image(bench: Bench) -> str:
    good = bench.push(tag="good")
    mine = bench.push(files={**bench.files(bench.contents()), f"{ROOT[1:]}/evil.pth": b"x"}, key=None)
    bench.registry.tag(bench.registry.resolve(statement_tag(good)) or "", statement_tag(mine))
    return f"is signed, but is about another image: {good}"


def _statement_changed(bench: Bench) -> str:
    digest = bench.push(key=OTHER)
    (foreign,) = read_statements(bench.registry, digest)
    body = json.loads(foreign)
    body["signatures"][0]["keyid"] = public_of(ED25519).fingerprint
    _put_statement(bench, digest, json.dumps(body).encode())
    return f"the statement on {digest} is not signed by {bench.checkout}/image.pub.pem"


def _statement_of_other_contents(bench: Bench) -> str:
    """Signed by our key, on this digest, and it tells of other contents: a mistake of ours would be seen, too."""
    digest = bench.push(key=None)
    wrong = bench.contents(lane="edge")
    _put_statement(bench, digest, signer(ED25519).envelope(statement(wrong, bench.place.name, digest), PAYLOAD))
    return "its statement is about other contents than it has"


def _put_statement(bench: Bench, digest: str, envelope: bytes) -> None:
    """Have ``envelope`` in the place of the statement, in the same layout."""
    push_statement(bench.registry, bench.contents(), "x", digest, signer(Ed25519PrivateKey.generate()))
    there = bench.registry.manifest(statement_tag(digest))
    body = json.loads(there.raw)
    body["layers"] = [{**body["layers"][-1], "digest": digest_of(envelope), "size": len(envelope)}]
    raw = json.dumps(body).encode()
    bench.registry.push_blob(envelope, digest_of(envelope))
    bench.registry.push_manifest(raw, there.media_type, statement_tag(digest), move=True)


TAMPERED: tuple[Callable[[Bench], str], ...] = (
    _other_contents,
    _other_label,
    _further_label,
    _other_bill,
    _no_bill,
    _other_packages,
    _other_dependencies,
    _damaged_contents,
    _damaged_layer,
    _no_night,
    _not_signed,
    _signed_by_another,
    _replaced_under_its_tag,
    _statement_of_another_image,
    _statement_changed,
    _statement_of_other_contents,
)


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda made: made.__name__.strip("_"))
def test_what_was_tampered_with_is_refused(bench: Bench, tamper: Callable[[Bench], str]) -> None:
    problem = tamper(bench)

    assert problem in bench.refusal(TAG)


def test_a_refusal_is_one_message_and_its_exit_code(bench: Bench) -> None:
    digest = bench.push(key=OTHER)

    done = bench.explain_apart(TAG)

    said = f"patchstack: the statement on {digest} is not signed by image.pub.pem ({public_of(ED25519).fingerprint}): "
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (5, "", 1)
    assert done.stderr.startswith(said)


def test_an_annotation_that_is_not_the_label_is_refused(bench: Bench) -> None:
    digest = bench.push()
    body = json.loads(bench.registry.manifest(digest).raw)
    body["annotations"]["io.github.acme.patchstack.lane"] = "edge"
    raw = json.dumps(body).encode()
    bench.registry.push_manifest(raw, body["mediaType"], TAG, move=True)

    assert "annotation io.github.acme.patchstack.lane must be 'production' and is 'edge'" in bench.refusal(TAG)


def test_another_key_is_asked_for_on_the_command_line(bench: Bench, tmp_path: Path) -> None:
    bench.push()
    other, ours = tmp_path / "other.pem", tmp_path / "ours.pem"
    other.write_bytes(public_pem(OTHER))
    ours.write_bytes(public_pem(ED25519))
    bench.configure(None)

    assert f"is not signed by {other}" in bench.refusal(TAG, "--key", str(other))
    assert bench.explain(TAG, "--key", str(ours)).exit_code == 0


def test_a_wrong_request_is_told_apart_from_a_wrong_image(bench: Bench, tmp_path: Path) -> None:
    bench.push()

    assert "there is no image" in bench.refusal("absent")
    assert "are not two images" in bench.refusal("a..b..c", code=2)
    assert "names no image" in bench.refusal("a b", code=2)
    assert "cannot be read: No such file" in bench.refusal(TAG, "--key", str(tmp_path / "absent.pem"), code=2)
    (bench.checkout / "image.pub.pem").write_text("no key")
    said = bench.refusal(TAG, code=3)
    assert "deploy.yaml:7: lanes.production.image.public_key: " in said
    assert "image.pub.pem is no public key: write an Ed25519 or" in said


# --- the statement in the registry ---------------------------------------------------------------------


def test_a_statement_is_laid_out_as_cosign_lays_it_out(bench: Bench) -> None:
    digest = bench.push()
    name = f"docker://{bench.place.name}:sha256-{digest.removeprefix('sha256:')}.att"

    manifest = skopeo("inspect", "--raw", name)
    config = skopeo("inspect", "--config", "--raw", name)

    (layer,) = manifest["layers"]
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert layer["mediaType"] == "application/vnd.dsse.envelope.v1+json"
    assert layer["annotations"] == {
        "dev.cosignproject.cosign/signature": "",
        "predicateType": "https://slsa.dev/provenance/v1",
    }
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer["digest"]]}


@pytest.mark.parametrize("private", [ED25519, P256], ids=["ed25519", "p256"])
def test_what_is_stated_already_is_not_stated_again(bench: Bench, private: Private) -> None:
    digest = bench.push(key=private)
    before = bench.registry.bytes_sent

    again = push_statement(bench.registry, bench.contents(), bench.place.name, digest, signer(private))

    assert again == bench.registry.resolve(statement_tag(digest))
    assert bench.registry.bytes_sent == before


def test_ours_is_replaced_and_those_of_others_stay(bench: Bench) -> None:
    digest = bench.push(key=OTHER)
    (foreign,) = read_statements(bench.registry, digest)
    wrong = push_statement(bench.registry, bench.contents(lane="edge"), bench.place.name, digest, signer(ED25519))

    right = push_statement(bench.registry, bench.contents(), bench.place.name, digest, signer(ED25519))

    ours = signer(ED25519).envelope(statement(bench.contents(), bench.place.name, digest), PAYLOAD)
    assert read_statements(bench.registry, digest) == (ours, foreign)
    assert right != wrong
    assert bench.explain(TAG).exit_code == 0
