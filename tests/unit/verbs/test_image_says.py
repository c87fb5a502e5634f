"""What a lane's image says of itself and is signed with: patches, keys, and the names that `explain` takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.image.fixed_image import ED25519, OTHER, pem, public_of, public_pem
from tests.unit.verbs.fork_bench import workplace

from patchstack.credential import SIGNING_KEY
from patchstack.errors import ConfigError, UsageError
from patchstack.git import Signature
from patchstack.model import Base, Composition, Fingerprint, Kind, Sha, Topic
from patchstack.patches.series import read_series
from patchstack.verbs.explain import two_names
from patchstack.verbs.image_contents import describe
from patchstack.verbs.signing import public_key_of, signer_for
from patchstack.workplace import Workplace

ROOT = Path(__file__).parents[3]
KEY = ", public_key: keys/image.pub.pem"
DEPLOY = """\
schema: 1
fork: {{repo: acme/sglang{remote}}}
lanes:
  production:
    upstream: {{pypi: sglang==0.5.12.post1}}
    branch: deploy
    image: {{repository: registry.example.com/acme/sglang, runtime: cuda{key}}}
channels:
  nightly: {{needs: [cpu]}}
"""


def _work(folder: Path, *, key: str = KEY, remote: str = ", remote: remote.git") -> Workplace:
    (folder / "deploy.yaml").write_text(DEPLOY.format(remote=remote, key=key))
    (folder / "keys").mkdir(exist_ok=True)
    (folder / "keys" / "image.pub.pem").write_bytes(public_pem(ED25519))
    return workplace(folder)


# --- keys ---


def test_the_key_is_beside_deploy_yaml_whatever_the_working_folder(tmp_path: Path) -> None:
    found = public_key_of(_work(tmp_path))

    assert found is not None
    assert found.fingerprint == public_of(ED25519).fingerprint


def test_a_night_signs_with_the_other_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIGNING_KEY, pem(ED25519))

    signer = signer_for(_work(tmp_path))

    assert signer is not None
    assert signer.public.fingerprint == public_of(ED25519).fingerprint


@pytest.mark.parametrize(
    ("private", "problem"),
    [(None, f"{SIGNING_KEY} is not set"), (pem(OTHER), "is the private key of another one")],
    ids=["absent", "another"],
)
def test_a_night_without_the_other_half_does_not_begin(
    private: str | None, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if private is not None:
        monkeypatch.setenv(SIGNING_KEY, private)

    with pytest.raises(UsageError, match=problem):
        signer_for(_work(tmp_path))


def test_a_lane_that_names_no_key_signs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIGNING_KEY, pem(ED25519))
    work = _work(tmp_path, key="")

    assert (public_key_of(work), signer_for(work)) == (None, None)


def test_on_this_machine_alone_who_has_the_key_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = _work(tmp_path, remote="")
    assert work.embedded

    assert signer_for(work) is None
    monkeypatch.setenv(SIGNING_KEY, pem(ED25519))
    assert signer_for(work) is not None


def test_a_key_file_that_is_wrong_is_told_by_its_line(tmp_path: Path) -> None:
    work = _work(tmp_path)
    (tmp_path / "keys" / "image.pub.pem").unlink()

    with pytest.raises(ConfigError) as refused:
        public_key_of(work)

    (problem,) = refused.value.problems
    assert problem.startswith(f"{tmp_path}/deploy.yaml:7: lanes.production.image.public_key: the public key {tmp_path}")
    assert "cannot be read: No such file or directory" in problem


# --- contents ---


def test_the_repositorys_own_patches_tell_of_themselves(tmp_path: Path) -> None:
    work = _work(tmp_path)
    (tmp_path / "patches").symlink_to(ROOT / "patches")
    composition = _composition(work)

    inside = describe(
        work,
        composition,
        runtime="cuda",
        recipe="1" * 64,
        dependencies=f"sha256:{'2' * 64}",
        dependency_name="registry.example.com/acme/sglang:deps-cuda-1",
        packages=(),
    )

    slugs = [item.name for item in inside.contents.items]
    assert len(slugs) > 5
    assert [item.name for item in inside.contents.items if "=" not in item.kill_switch] == []
    night = inside.files["opt/patchstack/NIGHT.md"].decode()
    assert [item.name for item in inside.contents.items if f"off with `{item.kill_switch}`" not in night] == []
    kept = [path.removeprefix("opt/patchstack/patches/") for path in inside.files if "/patches/" in path]
    assert [sorted(path.rpartition(".")[2] for path in kept if path.startswith(f"{slug}/")) for slug in slugs] == [
        ["md", "patch"]
    ] * len(slugs)
    assert inside.contents.created == "2023-11-14T22:13:20Z"
    assert json.loads(inside.files["opt/patchstack/contents.json"])["type"] == "Contents"


def _composition(work: Workplace) -> Composition:
    """All patches of the series, as if each had merged; the octopus has a date in another time zone."""
    store = work.store()
    tree = store.edit_tree(store.run("mktree", stdin=b""), [])
    commit = store.commit(tree, (), "octopus\n", Signature(date="@1700000000 +0100"))
    topics = tuple(
        Topic(patch.slug, Kind.PATCH, patch.title, patch.author, commit, commit, commit, commit, "id", ())
        for patch in read_series(work.patches_folder)
    )
    base = Base("sglang==0.5.12.post1", "0.5.12.post1", commit, tree)
    return Composition("production", base, commit, Sha(tree), topics, (), Fingerprint("f" * 64, ()))


# --- names ---


def test_two_names() -> None:
    assert two_names("previous..nightly") == ("previous", "nightly")
    assert two_names("r.example.com:5000/a/b:x..r.example.com/a/b@sha256:1") == (
        "r.example.com:5000/a/b:x",
        "r.example.com/a/b@sha256:1",
    )
    assert two_names("r.example.com/a/b:1.2") is None


@pytest.mark.parametrize("text", ["..", "a..", "..b", "a..b..c", "..."])
def test_what_are_not_two_names_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"are not two images: write A\.\.B"):
        two_names(text)
