"""The console as an ASGI application: who may ask what, and how an error is told (docs/guides/console.md)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import NamedTuple

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Message, Receive, Scope, Send

from api.console import audit, budgets, problems, rates, requests
from api.console.operations import JSON, Operation, document, token_of
from api.console.parts import Parts
from api.console.problems import Problem
from schemas.errors import LogUnavailableError, SchemaUnknownError, StoreUnavailableError
from schemas.limits import CONSOLE_REQUESTS_MAX

log = structlog.get_logger(__name__)

OPERATIONS: tuple[Operation, ...] = (
    *audit.OPERATIONS,
    *budgets.OPERATIONS,
    *rates.OPERATIONS,
    *requests.OPERATIONS,
)
TOKEN_CHARACTERS_MAX = 256
CORRELATION_ID = "x-correlation-id"
NOWHERE = "nowhere"


@lru_cache(maxsize=1)
def openapi() -> bytes:
    """What the operations promise, as an OpenAPI document: the same for every console."""
    return msgspec.json.encode(document(OPERATIONS))


class Place(NamedTuple):
    """An address, its name for metrics, whether it needs the token, and what answers there."""

    route: Route
    name: str
    guarded: bool
    answer: Callable[[Request], Awaitable[Response | Problem]]


class Console:
    """The application. Every answer carries a correlation id, every error is a problem document with the same."""

    def __init__(self, parts: Parts) -> None:
        """Serve with these parts."""
        self._parts = parts
        self._in_flight = 0
        self._places = [
            _place("/healthz", "healthz", self._alive),
            _place("/readyz", "readyz", self._ready),
            _place("/metrics", "metrics", self._metrics),
            _place("/audit/{log}/{path:path}", "audit_log", self._log_file, guarded=not parts.log_is_public),
            _place("/api/openapi.json", "openapi", self._described, guarded=True),
            *(_place(each.path, each.name, self._running(each), each.method, guarded=True) for each in OPERATIONS),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; only ASGI's own events reach here otherwise."""
        if scope["type"] != "http":
            return
        began_at, correlation_id = time.perf_counter(), self._parts.new_id()
        place = self._find(scope)
        name = NOWHERE if isinstance(place, Problem) else place.name
        self._in_flight += 1
        try:
            answer = await self._answered(place, Request(scope, receive), correlation_id)
            answer.headers[CORRELATION_ID] = correlation_id
            await answer(scope, receive, _without_body(send) if scope["method"] == "HEAD" else send)
        finally:
            self._in_flight -= 1
        metrics = self._parts.metrics
        metrics.counter("quaestor_console_requests_total").labels(name, str(answer.status_code)).inc()
        metrics.histogram("quaestor_console_request_seconds").labels(name).observe(time.perf_counter() - began_at)

    def _find(self, scope: Scope) -> Place | Problem:
        """What stands at the address of a request, whose scope gets the path's parameters."""
        allowed: set[str] = set()
        for place in self._places:
            match, found = place.route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                return place
            if match is Match.PARTIAL:
                allowed |= place.route.methods or set()
        return problems.method_not_allowed(", ".join(sorted(allowed))) if allowed else problems.NOT_FOUND

    async def _answered(self, place: Place | Problem, request: Request, correlation_id: str) -> Response:
        try:
            found = place if isinstance(place, Problem) else await self._asked(place, request)
        except StoreUnavailableError as error:
            log.warning("store_away", correlation_id=correlation_id, path=request.url.path, error=str(error))
            found = problems.AWAY
        except (LogUnavailableError, SchemaUnknownError) as error:
            log.warning("log_away", correlation_id=correlation_id, path=request.url.path, error=str(error))
            found = problems.LOG_AWAY
        except Exception:  # whatever it is, the caller gets a problem and the log the reason
            log.exception("request_failed", correlation_id=correlation_id, path=request.url.path)
            found = problems.INTERNAL
        return found.answer(correlation_id) if isinstance(found, Problem) else found

    async def _asked(self, place: Place, request: Request) -> Response | Problem:
        if self._in_flight > CONSOLE_REQUESTS_MAX:
            return problems.TOO_BUSY
        refused = self._refused(request) if place.guarded else None
        return refused or await place.answer(request)

    def _refused(self, request: Request) -> Problem | None:
        """Why a request may not ask; None for the admin's."""
        token = token_of(request)
        if not token:
            return problems.NO_TOKEN
        if len(token) > TOKEN_CHARACTERS_MAX or not self._parts.is_admin(token):
            return problems.WRONG_TOKEN
        return None

    def _running(self, operation: Operation) -> Callable[[Request], Awaitable[Response | Problem]]:
        async def run(request: Request) -> Response | Problem:
            answer = await operation.run(self._parts, request)
            return answer if isinstance(answer, Problem) else _json(answer)

        return run

    async def _alive(self, _request: Request) -> Response:
        return _json({"status": "ok"})

    async def _ready(self, _request: Request) -> Response:
        parts = await self._parts.ready()
        ready = all(parts.values())
        body = {"ready": ready, "parts": {name: {"ok": works} for name, works in parts.items()}}
        return _json(body, 200 if ready else 503)

    async def _metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self._parts.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _described(self, _request: Request) -> Response:
        return Response(openapi(), media_type=JSON)

    async def _log_file(self, request: Request) -> Response | Problem:
        # As it was asked for: a pattern's end lets a newline pass.
        _, _, name, path = request.scope["path"].split("/", 3)
        return await self._parts.log.answer(name, path, request)


def _place(
    path: str,
    name: str,
    answer: Callable[[Request], Awaitable[Response | Problem]],
    method: str = "GET",
    *,
    guarded: bool = False,
) -> Place:
    return Place(Route(path, answer, methods=[method]), name, guarded, answer)


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, {"cache-control": "no-store"}, JSON)


def _without_body(send: Send) -> Send:
    """HEAD is answered as GET, without the body."""

    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head
