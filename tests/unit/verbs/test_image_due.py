"""Whether a night is to be made again for the image that the last promoted one lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.verbs.fork_bench import workplace

from patchstack.model import Base, ImageRef, ImageResult, LedgerImage, LedgerLine, Native, Sha
from patchstack.store import Run
from patchstack.verbs import image_tags
from patchstack.verbs.image_tags import image_is_due

REPOSITORY = Path(__file__).parents[3]
SHA = Sha("a" * 40)
DIGEST = f"sha256:{'1' * 64}"
NATIVE = Native("cp311", "manylinux_2_34_x86_64", "sglang-1-cp311-cp311-manylinux_2_34_x86_64.whl", "a" * 64)
BASE = Base("sglang==0.5.12.post1", "0.5.12.post1", SHA, SHA, (NATIVE,))
LINE = LedgerLine(
    night="20261121T020000Z",
    lane="production",
    at="2026-11-21T02:00:00Z",
    base=BASE.name,
    base_commit=SHA,
    composition=SHA,
    tree=SHA,
    fingerprint="print",
    included=(),
    left_out=(),
    channels=("nightly",),
    tag="nightly-20261121-aaaaaaa",
)
IMAGE = LedgerImage("sglang", DIGEST, "cpu-20261121-aaaaaaa", "cpu", "r", DIGEST)
DEPLOY = """\
schema: 1
fork: {repo: acme/sglang}
lanes:
  production:
    upstream: {pypi: sglang==0.5.12.post1}
    branch: deploy
    image: {repository: registry.example.com/acme/sglang, runtime: cuda}
channels:
  nightly: {needs: [cpu]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lane on a machine that has all that images are made with."""
    monkeypatch.delenv("PATCHSTACK_IMAGE")
    for name in ("builder_at_hand", "engine_at_hand", "find_program"):
        monkeypatch.setattr(image_tags, name, lambda: object())
    (tmp_path / "deploy.yaml").write_text(DEPLOY)
    (tmp_path / "tests" / "support").mkdir(parents=True)
    (tmp_path / "tests" / "support" / "locks").symlink_to(REPOSITORY / "tests" / "support" / "locks")
    return tmp_path


@pytest.mark.parametrize("remote", [None, "https://git.example.com/acme/sglang"], ids=["embedded", "elsewhere"])
def test_an_image_that_can_be_made_is_due_until_there_is_one(
    folder: Path, remote: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = workplace(folder, remote=remote, local=True)
    assert work.embedded == (remote is None)
    assert image_is_due(work, LINE, BASE)
    assert not image_is_due(work, replace(LINE, image=IMAGE), BASE)
    monkeypatch.setenv("PATCHSTACK_IMAGE", "none")
    assert not image_is_due(work, LINE, BASE)


@pytest.mark.parametrize("missing", ["builder_at_hand", "engine_at_hand"])
def test_what_is_not_installed_makes_no_night(folder: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_tags, missing, lambda: None)
    assert not image_is_due(workplace(folder, local=True), LINE, BASE)


def test_a_machine_without_a_registry_of_its_own_is_not_asked_again_every_night(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_tags, "find_program", lambda: None)
    assert not image_is_due(workplace(folder, local=True), LINE, BASE)
    assert image_is_due(workplace(folder, remote="https://git.example.com/acme/sglang", local=True), LINE, BASE)


@pytest.mark.parametrize("remote", [None, "https://git.example.com/acme/sglang"], ids=["embedded", "elsewhere"])
def test_a_release_without_a_lock_is_not_asked_again_every_night(folder: Path, remote: str | None) -> None:
    work = workplace(folder, remote=remote, local=True)
    assert not image_is_due(work, LINE, replace(BASE, name="sglang==9.9", version="9.9"))
    assert not image_is_due(work, LINE, replace(BASE, natives=()))


def test_somebody_elses_image_needs_no_builder_and_no_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_tags, "builder_at_hand", lambda: None)
    base = f'base: {{name: "registry.example.com/lmsys/sglang@{DIGEST}", root: /opt}}'
    (folder / "deploy.yaml").write_text(DEPLOY.replace("runtime: cuda", f"runtime: cuda, {base}"))
    work = workplace(folder, remote="https://git.example.com/acme/sglang", local=True)
    assert image_is_due(work, LINE, replace(BASE, name="sglang==9.9", version="9.9"))


def test_an_image_that_was_made_in_vain_is_not_made_again_every_night(folder: Path) -> None:
    work = workplace(folder, local=True)
    run = Run(work.state.runs / LINE.night)
    run.write(ImageResult(None, "no builder was at hand"))
    assert image_is_due(work, LINE, BASE)
    run.write(ImageResult(ImageRef("sglang", DIGEST, "cpu-20261121-aaaaaaa", "cpu", "r", DIGEST, (), 1, False)))
    assert not image_is_due(work, LINE, BASE)
    run.path(ImageResult).write_text("{}")
    assert image_is_due(work, LINE, BASE)
