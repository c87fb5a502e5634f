"""A client that asks a server of the test, and what is said of what fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.support.image_registry import LOGIN, PATH, Asked, Reply, Web, small_image

from patchstack.errors import ImageError
from patchstack.image.login import Login
from patchstack.image.names import Place
from patchstack.image.registry import Registry
from patchstack.image.wire import Limits

IMAGE = small_image()
OTHER = small_image({"other": b"other"})
SECRETS = (LOGIN.reveal(), LOGIN.basic)
BEARER = "bearer-canary-0123456789"
PATIENT = Limits(connect_s=20, silence_s=20, finish_s=20)
SOON = Limits(connect_s=5, silence_s=0.3, finish_s=0.3)

Answers = Callable[[Asked], Reply]


def said(status: int, code: str, message: str = "said so", **headers: str) -> Reply:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Reply(status, {"Content-Type": "application/json", **headers}, body)


@contextmanager
def asking(answer: Answers, login: Login | None = None, limits: Limits = PATIENT) -> Iterator[tuple[Registry, Web]]:
    with Web(answer) as web, Registry.at(Place(web.host, PATH), login, limits=limits) as registry:
        yield registry, web


def failure(act: Callable[[], object]) -> str:
    """What is said of what fails, without the server's address."""
    with pytest.raises(ImageError) as caught:
        act()
    repository, _, rest = str(caught.value).partition(": ")
    assert repository.endswith(f"/{PATH}")
    return rest


def failure_of(answer: Answers, act: Callable[[Registry], object], login: Login | None = None) -> str:
    with asking(answer, login) as (registry, _):
        return failure(lambda: act(registry))


def pages(asked: Asked) -> Reply:
    page = int(asked.query.get("page", "0"))
    onward = {"Link": f'</v2/{PATH}/tags/list?page={page + 1}>; rel="next"'} if page < 3 else {}
    return Reply(headers=onward, body=json.dumps({"tags": [f"c{page}", f"a{page}", "b"]}).encode())
