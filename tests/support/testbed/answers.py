"""What a server says to a request for text, whatever it says: tokens, a refusal, a broken line or nothing."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

LOOPBACK = "127.0.0.1"


class NoAnswer(Exception):
    """Tokens were asked of an answer that has none."""


@dataclass(frozen=True)
class Answer:
    """The end of one request, or one step of a stream."""

    status: int
    """HTTP status; 0 if no whole answer came."""
    body: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    """What the server said instead of text, or why there is no answer."""
    stacks: str = ""
    """If it hung: the stacks of every process of the servers that were asked, which have been ended."""

    @property
    def ok(self) -> bool:
        """It ended as asked: status 200, and not aborted."""
        return self.status == 200 and self.finish != "abort"

    @property
    def hung(self) -> bool:
        """Nothing came within the limit."""
        return bool(self.stacks)

    @property
    def tokens(self) -> list[int]:
        """The new token ids. Raises `NoAnswer` if there is no text."""
        return list(self._body()["output_ids"])

    @property
    def text(self) -> str:
        return str(self._body()["text"])

    @property
    def cached_tokens(self) -> int:
        """How many tokens of the prompt came out of a cache."""
        return int(self._body()["meta_info"]["cached_tokens"])

    @property
    def prompt_tokens(self) -> int:
        return int(self._body()["meta_info"]["prompt_tokens"])

    @property
    def finish(self) -> str:
        """``length``, ``stop`` or ``abort``; empty while it goes on or where there is no text."""
        reason = self.body.get("meta_info", {}).get("finish_reason")
        return str(reason["type"]) if reason else ""

    def describe(self) -> str:
        """One line on what came; then, if it hung, the stacks."""
        if self.status == 200 and not self.error:
            return f"answered, finish {self.finish or 'none yet'}: {self.body.get('output_ids')}"
        said = f"status {self.status}: {self.error}" if self.status else self.error
        return f"{said}\n{self.stacks}" if self.stacks else said

    def _body(self) -> Mapping[str, Any]:
        if self.status != 200:
            raise NoAnswer(self.describe())
        return self.body


class Pending:
    """A request under way, in a thread of its own."""

    def __init__(self, ask: Callable[[], Answer], on_hang: Callable[[], str]) -> None:
        self._future: Future[Answer] = Future()
        self._on_hang = on_hang
        Thread(target=self._run, args=(ask,), daemon=True).start()

    @property
    def answered(self) -> bool:
        return self._future.done()

    def answer(self, limit_s: float = 60.0) -> Answer:
        """The answer. If none comes within ``limit_s``, the servers are ended and their stacks are in it."""
        try:
            return self._future.result(limit_s)
        except NotYet:
            return hung(limit_s, self._on_hang)

    def answered_within(self, limit_s: float) -> bool:
        """Whether the answer is there after at most ``limit_s``; nothing is ended."""
        try:
            self._future.result(limit_s)
        except NotYet:
            return False
        return True

    def _run(self, ask: Callable[[], Answer]) -> None:
        try:
            self._future.set_result(ask())
        except BaseException as error:
            self._future.set_exception(error)


def hung(limit_s: float, on_hang: Callable[[], str]) -> Answer:
    return Answer(0, error=f"no answer within {limit_s:.0f} s", stacks=on_hang() or "(no process was left)")


def request_body(
    prompt: str | Sequence[int], new_tokens: int, *, rid: str | None, more: Mapping[str, object]
) -> dict[str, object]:
    """A greedy request for exactly ``new_tokens`` tokens."""
    body: dict[str, object] = {"text": prompt} if isinstance(prompt, str) else {"input_ids": list(prompt)}
    body["sampling_params"] = {"max_new_tokens": new_tokens, "temperature": 0, "ignore_eos": True}
    if rid is not None:
        body["rid"] = rid
    return {**body, **more}


def ask(port: int, body: Mapping[str, object], limit_s: float) -> Answer:
    """POST ``/generate`` and wait for the end. Raises TimeoutError; a refusal or a broken line is an answer."""
    try:
        status, payload = call(port, "POST", "/generate", body, limit_s)
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, error=f"the line broke: {type(error).__name__}: {error}")
    return _answer(status, payload)


def ask_for_stream(port: int, body: Mapping[str, object], limit_s: float) -> Iterator[Answer]:
    """The same as a stream: an answer for each step, each with all tokens so far. Raises TimeoutError."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=limit_s)
    try:
        connection.request("POST", "/generate", json.dumps({**body, "stream": True}), _JSON)
        response = connection.getresponse()
        if response.status != 200:
            yield _answer(response.status, response.read())
            return
        while line := response.readline():
            data = line.decode().strip().removeprefix("data:").strip()
            if data and data != "[DONE]":
                yield _answer(200, data.encode())
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException) as error:
        yield Answer(0, error=f"the line broke: {type(error).__name__}: {error}")
    finally:
        connection.close()


def call(
    port: int, method: str, path: str, body: Mapping[str, object] | None = None, limit_s: float = 30.0
) -> tuple[int, bytes]:
    """One HTTP exchange on loopback: status and body. Raises TimeoutError or OSError."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=limit_s)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), _JSON)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


_JSON = {"Content-Type": "application/json"}


def _answer(status: int, payload: bytes) -> Answer:
    try:
        body = json.loads(payload)
    except ValueError:
        return Answer(status, error=payload.decode(errors="replace").strip() or "no body")
    if not isinstance(body, dict):
        return Answer(status, error=f"not an answer: {body!r}")
    if status != 200 or "error" in body:
        refused = body.get("error", body)
        said = refused.get("message", refused) if isinstance(refused, dict) else refused
        return Answer(status if status != 200 else 500, body, str(said))
    reason = (body.get("meta_info") or {}).get("finish_reason") or {}
    if reason.get("type") == "abort":
        return Answer(status, body, str(reason.get("message", "aborted")))
    return Answer(status, body)
