"""The HTTP interface, plain ASGI: one request is one statement, its result streams back in chunks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import structlog

from infra.embedded.clickhouse_front import engine, limits
from infra.embedded.clickhouse_front.bodies import decompress
from infra.embedded.clickhouse_front.faults import (
    ACCESS_DENIED,
    TOO_MANY_BYTES,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    FrontError,
)
from infra.embedded.clickhouse_front.requests import FrontRequest, read_request
from infra.embedded.clickhouse_front.sessions import Sessions
from infra.embedded.clickhouse_front.users import User, authenticate

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
log = structlog.get_logger()
OK_PATHS = frozenset(("/ping", "/replicas_status"))


class Front:
    """The ASGI application of one engine."""

    def __init__(self, owner: engine.Engine, users: Mapping[str, User]) -> None:
        """Serve this engine to these users."""
        self._engine = owner
        self._users = users
        self._sessions = Sessions(owner)
        self._threads = ThreadPoolExecutor(limits.THREADS_MAX, thread_name_prefix="statement")
        #: Cancelling and session upkeep must not wait behind the statements they are about.
        self._upkeep = ThreadPoolExecutor(2, thread_name_prefix="upkeep")
        self._requests = 0

    def close(self) -> None:
        """Stop what runs, wait for its threads, close sessions; the engine stays open."""
        self._engine.cancel_all()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._upkeep.shutdown(wait=True, cancel_futures=True)
        self._sessions.close()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request; the lifespan protocol is off."""
        if scope["path"] in OK_PATHS:
            await _respond(send, 200, b"Ok.\n", [])
            return
        if scope["path"] != "/":
            await _respond(send, 404, f"There is no handle {scope['path']}\n".encode(), [])
            return
        query_id = ""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            user = authenticate(self._users, headers, scope["query_string"])
            request = await self._read(scope, headers, receive, user)
            if request is None:
                await _respond(send, 200, b"Ok.\n", [])
                return
            query_id = request.query_id
            await self._serve(user, request, receive, send)
        except FrontError as error:
            log.info("statement_refused", code=error.code, query_id=query_id)
            await _respond(send, error.status, self._text(error), self._headers(query_id, code=error.code))

    async def _read(
        self, scope: Mapping[str, Any], headers: Mapping[str, str], receive: Receive, user: User
    ) -> FrontRequest | None:
        # A page in a browser could otherwise write through a visitor's own loopback address.
        if "origin" in headers:
            raise FrontError(ACCESS_DENIED, "requests made by web pages are refused by the embedded ClickHouse")
        body = await _body(receive)
        encoding = headers.get("content-encoding", "")
        if encoding:
            body = await self._run(decompress, body, encoding, limits.BODY_BYTES_MAX)
        return read_request(
            scope["query_string"], headers, body, is_post=scope["method"] == "POST", readonly_user=user.readonly
        )

    async def _serve(self, user: User, request: FrontRequest, receive: Receive, send: Send) -> None:
        if self._requests >= limits.REQUESTS_MAX:
            raise FrontError(TOO_MANY_SIMULTANEOUS_QUERIES, f"{limits.REQUESTS_MAX} requests are under way")
        self._requests += 1
        answered = asyncio.Event()
        watcher = asyncio.create_task(self._cancel_when_gone(request, receive, answered))
        try:
            started = time.monotonic()
            if request.session_id:
                answer = await self._run(self._sessions.start, user.name, request)
            else:
                answer = await self._run(self._engine.start, request)
            try:
                await self._answer(answer, request, send, answered, time.monotonic() - started)
            finally:
                answered.set()
                await asyncio.shield(self._run_upkeep(answer.close))
        finally:
            self._requests -= 1
            watcher.cancel()
            if self._sessions.are_open:
                await self._run_upkeep(self._sessions.expire, time.monotonic())

    async def _answer(
        self, answer: engine.Answer, request: FrontRequest, send: Send, answered: asyncio.Event, seconds: float
    ) -> None:
        tag = uuid4().hex[:16]
        headers = self._headers(request.query_id, answer=answer, seconds=seconds)
        if answer.finished:
            answered.set()
            await _respond(send, 200, b"".join(answer.chunks), headers)
            return
        headers.append((b"x-clickhouse-exception-tag", tag.encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _send_chunks(send, answer)
        last = b""
        try:
            while await self._run(answer.fetch, 1):
                await _send_chunks(send, answer)
        except FrontError as error:
            last = _tagged(self._text(error), tag)
        answered.set()
        await _send_chunks(send, answer)
        await send({"type": "http.response.body", "body": last})

    async def _cancel_when_gone(self, request: FrontRequest, receive: Receive, answered: asyncio.Event) -> None:
        """Stop a query whose client hung up; a write is left to end, its client asks again with the same token."""
        await _disconnected(receive)
        # The server says disconnect after a complete answer too.
        if request.statement.keyword in engine.QUERIES and not answered.is_set():
            log.info("query_cancelled", query_id=request.query_id)
            await self._run_upkeep(self._engine.cancel, request.query_id)

    async def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _run_upkeep(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._upkeep, function, *arguments)

    def _text(self, error: FrontError) -> bytes:
        return f"{error} (version {self._engine.version} (embedded))\n".encode()

    def _headers(
        self, query_id: str, *, answer: engine.Answer | None = None, code: int = 0, seconds: float = 0.0
    ) -> list[tuple[bytes, bytes]]:
        headers = {"x-clickhouse-server-display-name": "quaestor-embedded", "x-clickhouse-timezone": "UTC"}
        if query_id:
            headers["x-clickhouse-query-id"] = _header_safe(query_id)
        if code:
            headers["x-clickhouse-exception-code"] = str(code)
        if answer is not None:
            headers["x-clickhouse-summary"] = _summary(answer, seconds)
            if answer.format_name is not None:
                headers["x-clickhouse-format"] = answer.format_name
                headers["content-type"] = engine.CONTENT_TYPES.get(answer.format_name, "text/plain; charset=UTF-8")
        return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


async def _disconnected(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return


def _summary(answer: engine.Answer, seconds: float) -> str:
    return json.dumps(
        {
            "read_rows": str(answer.read_rows),
            "read_bytes": str(answer.read_bytes),
            "written_rows": str(answer.written_rows),
            "written_bytes": str(answer.written_bytes),
            "elapsed_ns": str(int(seconds * 1e9)),
        }
    )


def _header_safe(text: str) -> str:
    return "".join(character for character in text if " " <= character <= "~")


def _tagged(message: bytes, tag: str) -> bytes:
    """An error in the middle of a stream, framed so that clients can tell it from data."""
    head = f"\r\n__exception__\r\n{tag}\r\n".encode()
    return head + message + f"{len(message)} {tag}\r\n__exception__\r\n".encode()


async def _body(receive: Receive) -> bytes:
    parts = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise FrontError(TOO_MANY_BYTES, "the client hung up before its request was complete")
        part = message.get("body", b"")
        size += len(part)
        if size > limits.BODY_BYTES_MAX:
            raise FrontError(TOO_MANY_BYTES, f"a request body is at most {limits.BODY_BYTES_MAX} bytes here")
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _respond(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def _send_chunks(send: Send, answer: engine.Answer) -> None:
    chunks, answer.chunks = answer.chunks, []
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
