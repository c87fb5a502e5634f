"""Every open pull request that stays open is listed, whatever else closes or opens while the pages are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.github_server import GitHubServer, Repository, Request
from tests.unit.builders import Workshop

from patchstack.errors import RemoteError
from patchstack.github import RESTARTS, GitHub, Token
from patchstack.paging import PAGE, next_page, pages_of

REPO = "acme/sglang"


class Listing:
    """Open pull requests, and what happens to them after each page that was answered."""

    def __init__(self, hub: GitHubServer) -> None:
        self.hub = hub
        self.fork: Repository = hub.repository(REPO)
        workshop = Workshop(self.fork.path)
        root = workshop.commit("base", {"a": "1\n"})
        self.fork.push_many({"main": root, "topic": workshop.commit("topic", {"a": "2\n"}, root)}, by="bob")
        token = hub.token("github-actions[bot]", repo=REPO, permissions={"pull-requests": "read"})
        self.github = GitHub(hub.api_url, Token(token))

    def open(self, *numbers: int) -> None:
        for number in numbers:
            self.fork.open_pull("topic", "main", "bob", number=number)

    def close(self, *numbers: int) -> None:
        for number in numbers:
            self.fork.close(number)

    def after(self, *happenings: Callable[[], None]) -> None:
        """The first one after the first page, and so on; then nothing."""
        left = iter(happenings)

        def observe(_request: Request, _body: object) -> None:
            next(left, lambda: None)()

        self.hub.observe = observe

    def read(self) -> tuple[list[int], int]:
        """Their numbers, and what it cost."""
        before = self.github.calls
        found = [pull.number for pull in self.github.open_pulls(REPO)]
        return found, self.github.calls - before


@pytest.fixture
def listing(tmp_path: Path) -> Iterator[Listing]:
    with GitHubServer(tmp_path) as hub:
        yield Listing(hub)


def test_one_that_another_moves_out_of_the_pages_is_listed(listing: Listing) -> None:
    listing.open(*range(1, 103))
    listing.after(lambda: listing.close(7))
    assert listing.read() == ([*range(1, 7), *range(8, 103)], 2 + 2)


def test_where_the_pages_still_overlap_it_goes_on(listing: Listing) -> None:
    listing.open(*range(1, 251))
    listing.after(lambda: None, lambda: listing.close(150))
    found, cost = listing.read()
    assert set(found) >= {*range(1, 251)} - {150}
    assert cost == 3


def test_one_that_closes_on_a_page_that_is_still_to_come_moves_nothing(listing: Listing) -> None:
    listing.open(*range(1, 151))
    listing.after(lambda: listing.close(120))
    assert listing.read() == ([number for number in range(1, 151) if number != 120], 2)


def test_so_many_close_that_the_next_page_is_empty(listing: Listing) -> None:
    listing.open(*range(1, 131))
    listing.after(lambda: listing.close(*range(1, 61)))
    assert listing.read() == ([*range(61, 131)], 2 + 1)


def test_one_that_is_opened_meanwhile_may_be_listed_and_none_is_missed(listing: Listing) -> None:
    listing.open(*range(1, 151))
    listing.after(lambda: listing.open(151))
    assert listing.read() == ([*range(1, 152)], 2)


def test_one_that_is_opened_again_meanwhile_moves_others_onto_both_pages(listing: Listing) -> None:
    listing.open(*range(1, 151))
    listing.close(3, 4)

    def open_again() -> None:
        for number in (3, 4):
            listing.fork.reopen(number)

    listing.after(open_again)
    found, cost = listing.read()
    assert len(found) == len(set(found))
    assert set(found) | {3, 4} == set(range(1, 151))
    assert cost == 2


def test_what_moves_each_time_is_an_error_that_says_what_to_do(listing: Listing) -> None:
    listing.open(*range(1, 121))
    stay: Callable[[], None] = lambda: None  # noqa: E731
    listing.after(lambda: listing.close(1), stay, lambda: listing.close(2), stay, lambda: listing.close(3))
    with pytest.raises(RemoteError, match=r"the open pull requests of acme/sglang, .* 3 times in a row; run again"):
        listing.read()
    assert listing.github.calls == 2 * (1 + RESTARTS)
    assert listing.read()[0] == [*range(4, 121)]


def test_what_is_into_one_branch_is_read_in_the_same_way(listing: Listing) -> None:
    listing.open(*range(1, 103))
    listing.after(lambda: listing.fork.retarget(7, "topic", by="bob"))
    found = [pull.number for pull in listing.github.open_pulls(REPO, into="main")]
    assert found == [*range(1, 7), *range(8, 103)]


# --- the pages ---


@pytest.mark.parametrize(("rows", "pages"), [(0, 1), (100, 1), (101, 2), (198, 2), (199, 3), (1200, 14), (20_000, 228)])
def test_how_many_pages_it_takes(rows: int, pages: int) -> None:
    assert pages_of(rows) == pages


def test_each_page_begins_among_what_was_read_and_goes_on() -> None:
    for read in range(PAGE, 20_000):
        number, size = next_page(read)
        assert size <= PAGE
        assert (number - 1) * size < read
        assert number * size > read + PAGE // 2
