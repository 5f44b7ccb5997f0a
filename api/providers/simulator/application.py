"""The simulated provider as a raw ASGI application: no framework and no model objects, it runs beside benchmarks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec

from api.providers.simulator import answers
from api.providers.simulator.egress import EgressLog
from api.providers.simulator.failures import Failure, FailurePlan
from api.providers.simulator.requests import ChatRequest, EmbeddingsRequest, Simulate, fault
from api.providers.simulator.settings import MODELS, SimulatorSettings
from schemas.limits import BODY_BYTES_MAX, REQUEST_TIMEOUT_SECONDS

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

#: Key of the scope under which the server puts the connection, since ASGI has no message to cut it.
TRANSPORT = "quaestor.transport"
#: A call that never answers ends after this long, so that nothing stays for ever.
TIMEOUT_SECONDS = 2 * REQUEST_TIMEOUT_SECONDS
RATE_LIMITED = 429
JSON: Header = (b"content-type", b"application/json")
SSE: Header = (b"content-type", b"text/event-stream; charset=utf-8")
GARBAGE = b"<html><body>upstream connect error \xff\xfe</body></html>"
STREAM_GARBAGE = b'data: {"id": "chatcmpl-\xff\xfe", "choices": [{\n\n'

_CHAT = msgspec.json.Decoder(ChatRequest)
_EMBEDDINGS = msgspec.json.Decoder(EmbeddingsRequest)
_ERRORS = {
    400: ("The request was refused by the simulated provider.", "invalid_request_error", "bad_request"),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    404: ("Not found.", "invalid_request_error", "model_not_found"),
    429: ("Rate limit reached.", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request.", "server_error", None),
    503: ("The engine is currently overloaded.", "server_error", None),
}


class Simulator:
    """One simulated provider; the ASGI application of `quaestor simulator`."""

    def __init__(self, settings: SimulatorSettings) -> None:
        """Opens the egress log when one is asked for; raises ConfigurationError when it can't be written."""
        self._settings = settings
        self._plan = FailurePlan(settings.seed, settings.error_rate, settings.error, settings.script)
        self._egress = EgressLog(settings.egress_log) if settings.egress_log else None
        self._key = f"Bearer {settings.api_key}".encode() if settings.api_key else None
        #: Calls of models taken so far.
        self.requests = 0
        #: Of those, calls that were made to fail.
        self.failed = 0

    def close(self) -> None:
        """Close the egress log."""
        if self._egress is not None:
            self._egress.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        if method == "POST" and path in {"/v1/chat/completions", "/v1/embeddings"}:
            await self._model_call(scope, receive, send)
        elif method == "GET" and path.startswith("/v1/models"):
            await _listing(path, send)
        elif path in {"/healthz", "/simulator/stats"}:
            body = msgspec.json.encode({"status": "ok", "requests": self.requests, "failed": self.failed})
            await _answer(send, 200, body)
        else:
            await _error(send, 404, f"Unknown request URL: {method} {path}.", "unknown_url")

    async def _model_call(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body is None:
            await _error(send, 413, f"The body is longer than {BODY_BYTES_MAX} bytes.", "body_too_long")
            return
        if self._key is not None and self._key != dict(scope["headers"]).get(b"authorization"):
            await _failed(send, 401)
            return
        chat = scope["path"] == "/v1/chat/completions"
        try:
            request = _CHAT.decode(body) if chat else _EMBEDDINGS.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            await _error(send, 400, f"We could not parse the JSON body of your request: {error}", "invalid_json")
            return
        if (wrong := fault(request)) is not None:
            await _error(send, 400, wrong, "invalid_value")
            return
        await self._serve(scope, receive, send, request, body)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, request: ChatRequest | EmbeddingsRequest, body: bytes
    ) -> None:
        self.requests += 1
        simulate = request.simulate or Simulate()
        digest = answers.digest_of(self._settings.seed, body)
        failure = self._plan.failure(self.requests, digest, simulate.fail, simulate.fail_times)
        self.failed += failure is not None
        if self._egress is not None:
            self._egress.note(self.requests, scope["path"], request.model, failure, scope["headers"])
        wait = answers.latency_of(simulate, digest, self._settings)
        if failure is Failure.SLOW_HEADERS:
            wait += self._settings.slow_milliseconds
        if wait > 0:
            await asyncio.sleep(wait / 1000)
        if failure is Failure.TIMEOUT:
            await _until_gone(receive)
        elif failure is not None and failure.status is not None:
            await _failed(send, failure.status)
        elif isinstance(request, ChatRequest) and request.stream:
            await self._stream(scope, receive, send, request, digest, failure)
        else:
            await self._plain(scope, receive, send, request, digest, failure)

    async def _plain(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request: ChatRequest | EmbeddingsRequest,
        digest: bytes,
        failure: Failure | None,
    ) -> None:
        if failure is Failure.DISCONNECT:
            await _reset(scope, receive)
            return
        with_usage = failure is not Failure.NO_USAGE
        if failure is Failure.GARBAGE:
            body = GARBAGE
        elif isinstance(request, ChatRequest):
            body = answers.plain_body(answers.answer_of(request, digest, self._settings, with_usage=with_usage))
        else:
            body = answers.embeddings_body(request, digest, with_usage=with_usage)
        if failure is Failure.TRUNCATE:
            await _start(send, 200, [JSON, (b"content-length", str(len(body)).encode())])
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            scope[TRANSPORT].close()
            await _until_gone(receive)
            return
        await _answer(send, 200, body, _request_id(digest))

    async def _stream(
        self, scope: Scope, receive: Receive, send: Send, request: ChatRequest, digest: bytes, failure: Failure | None
    ) -> None:
        simulate = request.simulate or Simulate()
        include_usage = request.stream_options is not None and request.stream_options.include_usage
        answer = answers.answer_of(request, digest, self._settings, with_usage=failure is not Failure.NO_USAGE)
        size = simulate.chunk_tokens or self._settings.chunk_tokens
        chunks: Iterable[bytes] = answers.stream_chunks(answer, size, include_usage=include_usage)
        if failure in {Failure.DISCONNECT, Failure.TRUNCATE, Failure.GARBAGE}:
            listed = list(chunks)
            chunks = listed[: len(listed) // 2]
        pace = simulate.chunk_milliseconds
        pace = self._settings.chunk_milliseconds if pace is None else pace
        await _start(send, 200, [SSE, (b"cache-control", b"no-cache"), _request_id(digest)])
        await _paced(send, chunks, pace)
        if failure is Failure.DISCONNECT:
            await _reset(scope, receive)
            return
        last = STREAM_GARBAGE if failure is Failure.GARBAGE else b""
        await send({"type": "http.response.body", "body": last, "more_body": False})


async def _paced(send: Send, chunks: Iterable[bytes], pace_milliseconds: float) -> None:
    """Send each chunk by itself, the pace between two."""
    pause = 0.0
    for chunk in chunks:
        if pause:
            await asyncio.sleep(pause)
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        pause = pace_milliseconds / 1000


async def _body(receive: Receive) -> bytes | None:
    """The whole body, None when it is too long; a client that goes away leaves an empty one."""
    message = await receive()
    body: bytes = message.get("body", b"")
    parts = [body]
    total = len(body)
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
        total += len(parts[-1])
        if total > BODY_BYTES_MAX:
            return None
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _until_gone(receive: Receive) -> None:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return


async def _reset(scope: Scope, receive: Receive) -> None:
    """Reset the connection and wait until the server has noticed, so that it does not take this for a fault."""
    scope[TRANSPORT].abort()
    await _until_gone(receive)


async def _start(send: Send, status: int, headers: list[Header]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _answer(send: Send, status: int, body: bytes, *headers: Header) -> None:
    await _start(send, status, [JSON, (b"content-length", str(len(body)).encode()), *headers])
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _request_id(digest: bytes) -> Header:
    return b"x-request-id", f"req_{digest[:16].hex()}".encode()


async def _failed(send: Send, status: int) -> None:
    message, kind, code = _ERRORS[status]
    retry = [(b"retry-after", b"1")] if status == RATE_LIMITED else []
    await _answer(send, status, answers.error_body(message, kind, code), *retry)


async def _error(send: Send, status: int, message: str, code: str) -> None:
    await _answer(send, status, answers.error_body(message, "invalid_request_error", code))


async def _listing(path: str, send: Send) -> None:
    """The models, or one of them."""
    listed = [
        {"id": name, "object": "model", "created": answers.CREATED_BASE_SECONDS, "owned_by": "quaestor-simulator"}
        for name in MODELS
    ]
    name = path.removeprefix("/v1/models").removeprefix("/")
    if not name:
        await _answer(send, 200, msgspec.json.encode({"object": "list", "data": listed}))
        return
    found = next((model for model in listed if model["id"] == name), None)
    if found is None:
        await _error(send, 404, f"The model '{name}' does not exist.", "model_not_found")
    else:
        await _answer(send, 200, msgspec.json.encode(found))
