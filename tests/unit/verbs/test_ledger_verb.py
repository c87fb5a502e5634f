"""`patchstack ledger`: the nights of the deploy branch of a real remote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.unit.release.release_bench import IMAGE, Bench
from tests.unit.verbs.fork_bench import TWO_LANES

from patchstack.cli import main_group
from patchstack.errors import RemoteError
from patchstack.git import Repository
from patchstack.release.remote import ensure_embedded_remote


@pytest.fixture
def bench(repository: Repository, tmp_path: Path) -> Bench:
    (tmp_path / "deploy.yaml").write_text(TWO_LANES)
    return Bench(repository, Repository(Path(ensure_embedded_remote(tmp_path / "remote.git"))))


def _ledger(folder: Path, *argv: str, before: tuple[str, ...] = ()) -> Result:
    return CliRunner().invoke(main_group, ["--config", str(folder / "deploy.yaml"), *before, "ledger", *argv])


def test_the_newest_nights_are_listed_newest_first(bench: Bench, tmp_path: Path) -> None:
    for day in range(12):
        bench.night(bench.compose(f"text {day}"), day, image=IMAGE if day % 2 else None)
    remote = ("--remote", bench.url)

    shown = json.loads(_ledger(tmp_path, "--json", before=remote).stdout)
    two = _ledger(tmp_path, "--last", "2", before=remote)

    assert (shown["lane"], shown["branch"], shown["promoted"]) == ("production", "deploy", 12)
    assert [night["at"][:10] for night in shown["nights"]] == [
        f"2026-{date}" for date in ("12-02", "12-01", *(f"11-{day}" for day in range(30, 22, -1)))
    ]
    assert [night["image"] is None for night in shown["nights"]] == [False, True] * 5
    assert "The newest 2 nights of 12 on deploy." in two.stdout
    assert f": docker pull {IMAGE.repository}@{IMAGE.digest}\n" in two.stdout
    assert ": this night had no image\n" in two.stdout


def test_in_a_workflow_it_goes_to_the_runs_page(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.night(bench.compose(), image=IMAGE)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))

    assert _ledger(tmp_path, "--json", before=("--remote", bench.url)).exit_code == 0

    text = (tmp_path / "summary.md").read_text()
    assert text.startswith("# Ledger, lane `production`\n")
    assert f"`docker pull {IMAGE.repository}@{IMAGE.digest}`" in text


def test_before_the_first_night_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "deploy.yaml").write_text(TWO_LANES)

    done = _ledger(tmp_path, before=("--local",))

    assert (done.exit_code, done.stdout.splitlines()[1]) == (
        0,
        "No night was ever promoted to deploy on the embedded remote; `make nightly` makes the first.",
    )
    assert not (tmp_path / ".patchstack" / "remote.git").exists()


def test_another_lane_has_its_own(bench: Bench, tmp_path: Path) -> None:
    bench.night(bench.compose(), image=IMAGE)

    done = _ledger(tmp_path, "--json", before=("--remote", bench.url, "--lane", "edge"))

    assert (json.loads(done.stdout)["branch"], json.loads(done.stdout)["nights"]) == ("deploy-edge", [])


def test_a_remote_that_cannot_be_read_is_no_empty_ledger(tmp_path: Path) -> None:
    (tmp_path / "deploy.yaml").write_text(TWO_LANES)

    done = _ledger(tmp_path, before=("--remote", str(tmp_path / "absent.git")))

    assert isinstance(done.exception, RemoteError)
    assert done.stdout == ""
