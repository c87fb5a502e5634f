"""The list of upstream's releases that lint tries ranges on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from patchstack.errors import CompositionError, ConfigError, RemoteError
from patchstack.patches.known import read_known_releases, releases_to_try
from patchstack.patches.lint import lint
from patchstack.verbs.author import read_releases

from .stack_bench import Bench

HOOK = "import os\n\non = os.environ.get('SGLANG_X') != '0'\n"


def stack(bench: Bench, *listed: str) -> None:
    """A patch for 1.0 to 3.0, cut on 2.0; ``listed`` are the lines of `patches/releases`."""
    base = bench.release("2.0", {"a.py": "x = 1\ny = 1\n"})
    bench.patch("mend", base, {"a.py": "x = 2\ny = 1\n", "hook.py": HOOK}, bases='{">=1.0,<=3.0": needed}')
    diff = bench.folder / "mend" / "2.0..2.0.patch"
    diff.rename(diff.with_name("1.0..3.0.patch"))
    (bench.folder / "releases").write_text("".join(f"{line}\n" for line in listed))


def known(bench: Bench) -> tuple[str, ...]:
    return read_known_releases(bench.folder, bench.read())


def test_a_diff_is_tried_on_every_release_of_its_range(bench: Bench) -> None:
    stack(bench, "# oldest first", "0.9", "1.0", "2.0  # of the lane", "2.0.post1", "3.0", "3.1")
    assert releases_to_try(bench.read(), known(bench)) == ("1.0", "2.0", "2.0.post1", "3.0")


def test_a_release_in_the_middle_that_moved_the_lines_is_found(bench: Bench) -> None:
    stack(bench, "1.0", "2.0", "3.0")
    bench.release("1.0", {"a.py": "x = 1\ny = 1\n"})
    bench.release("3.0", {"a.py": "x = 7\ny = 1\n"})
    report = lint(bench.read(), bench.releases, bench.store, root=bench.root)
    with pytest.raises(CompositionError) as caught:
        report.require_clean()
    assert bench.problems(caught.value)[0] == (
        "required patch `mend` (1.0..3.0.patch) does not apply on 3.0 (it was cut on 2.0):"
    )
    assert [line.removeprefix(f"{bench.folder}/") for line in report.checked] == [
        "mend/1.0..3.0.patch applies on 2.0",
        "mend/1.0..3.0.patch applies on 1.0",
    ]


def test_the_list_has_the_ends_of_every_range_and_is_in_order(bench: Bench) -> None:
    stack(bench, "2.0", "1.0", "2.0", "newest")
    with pytest.raises(ConfigError) as caught:
        known(bench)
    assert bench.problems(caught.value) == [
        "releases:4: newest: it is no release: write one a line, as 0.5.12.post1",
        "releases:2: 1.0: it stands below 2.0: list each once, the oldest first",
        (
            "releases:1: 3.0: mend/1.0..3.0.patch is for it, and it is not listed: add its line, and those of the"
            " releases in between"
        ),
    ]


def test_without_ranges_no_list_is_needed(bench: Bench) -> None:
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    bench.patch("mend", base, {"a.py": "x = 2\n", "hook.py": HOOK})
    assert known(bench) == ()


def test_without_the_network_all_missing_releases_are_named(bench: Bench, tmp_path: Path) -> None:
    work = SimpleNamespace(cache=tmp_path / "cache", offline=True, progress=lambda line: None)
    with pytest.raises(RemoteError) as caught:
        read_releases(work, bench.store, ["0.5.10", "0.5.9"])
    assert str(caught.value) == (
        f"2 releases of sglang are not in the cache {tmp_path / 'cache'} and the network is not to be used: "
        "0.5.9, 0.5.10; run it once with the network"
    )
