from __future__ import annotations

from collections.abc import Callable

import pytest

from patchstack.errors import RemoteError
from patchstack.release.repair import Repair, repair
from patchstack.release.tags import TagFault

from .release_bench import Bench


def _repair(bench: Bench) -> Repair:
    return repair(bench.store, bench.url, bench.read(), base=None, stack=None)


def _tags(bench: Bench) -> dict[str, str]:
    return bench.remote.refs("refs/tags")


def test_missing_tags_are_made_again_where_they_were(bench: Bench) -> None:
    for day, text in enumerate("abc"):
        bench.night(bench.compose(text), day)
    whole = _tags(bench)
    lost = sorted(whole)[:2]
    bench.remote.set_refs(dict.fromkeys(lost))

    assert _repair(bench) == Repair(tags=tuple(name.removeprefix("refs/tags/") for name in lost))
    assert _tags(bench) == whole
    assert _repair(bench) == Repair()


def test_a_tag_elsewhere_is_reported_and_left_while_others_are_made(bench: Bench) -> None:
    first, second = bench.night(bench.compose("a")), bench.night(bench.compose("b"), day=1)
    theirs = bench.foreign()
    bench.store.push(bench.url, {"refs/heads/other": theirs})
    bench.remote.set_refs({f"refs/tags/{first.line.tag}": theirs, f"refs/tags/{second.line.tag}": None})

    assert _repair(bench) == Repair((), (second.line.tag,), (TagFault(first.line.tag, first.commit, theirs),))
    assert _tags(bench) == {f"refs/tags/{first.line.tag}": theirs, f"refs/tags/{second.line.tag}": second.commit}


def test_the_older_of_two_nights_gets_the_tag_that_they_share(bench: Bench) -> None:
    first, second = bench.night(bench.compose()), bench.night(bench.compose())
    assert first.line.tag == second.line.tag
    bench.remote.set_refs({f"refs/tags/{first.line.tag}": None})

    assert _repair(bench).tags == (first.line.tag,)
    assert _tags(bench) == {f"refs/tags/{first.line.tag}": first.commit}


def test_either_of_two_nights_may_hold_the_tag(bench: Bench) -> None:
    first, second = bench.night(bench.compose()), bench.night(bench.compose())
    bench.remote.set_refs({f"refs/tags/{first.line.tag}": second.commit})

    assert _repair(bench) == Repair()


def test_no_night_no_tag(bench: Bench) -> None:
    assert _repair(bench) == Repair()
    assert bench.refs() == {}


def test_a_remote_that_refuses_gets_none_of_them(bench: Bench, hook: Callable[[str, str], None]) -> None:
    nights = [bench.night(bench.compose(text), day) for day, text in enumerate("ab")]
    bench.remote.set_refs({f"refs/tags/{night.line.tag}": None for night in nights})
    hook("update", f'test "$1" != refs/tags/{nights[1].line.tag}')

    with pytest.raises(RemoteError, match="refused the push, nothing was moved"):
        _repair(bench)

    assert _tags(bench) == {}
