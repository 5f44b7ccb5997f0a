"""The gateway as an ASGI application: paths, authentication, and what is refused before anything is tried.

docs/reference/gateway.md describes the HTTP surface.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.gateway import errors
from api.gateway.errors import INTERNAL, JSON_TYPE, Header, Problem, invalid
from api.gateway.events import Context, decision, no_decision, received, refused
from api.gateway.exchange import Exchange
from api.gateway.intake import NO_LABELS, Ask, Labels, read_ask, read_labels
from api.gateway.parts import Parts
from api.gateway.readiness import Readiness
from api.gateway.wire import ClientGoneError, Receive, Scope, Send, answer, headers_of, read_body, refuse
from processors.control import ControlState, VirtualKey
from processors.routing import Routed, RouteRefusal, RouteRefusalCode, RouteRequest, is_known, models_for
from schemas.errors import QuaestorError
from schemas.events import Event, Operation, RequestEvent, RoutingDecision
from schemas.limits import CONCURRENT_REQUESTS_MAX

log = structlog.get_logger(__name__)

CALLS = {"/v1/chat/completions": Operation.CHAT_COMPLETIONS, "/v1/embeddings": Operation.EMBEDDINGS}
BEARER = b"bearer "
KEY_BYTES_MAX = 256
REFUSAL_STATUS = {
    RouteRefusalCode.MODEL_NOT_FOUND: 404,
    RouteRefusalCode.MODEL_NOT_ALLOWED: 403,
    RouteRefusalCode.MODEL_AMBIGUOUS: 400,
    RouteRefusalCode.MODEL_WITHOUT_PRICE: 400,
    RouteRefusalCode.NO_CANDIDATE: 503,
}


class Gateway:
    """The application of one worker."""

    def __init__(self, parts: Parts, readiness: Readiness) -> None:
        """Serve with these parts."""
        self._parts, self._readiness = parts, readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; only ASGI's own events reach here otherwise."""
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        operation = CALLS.get(path)
        if operation is not None:
            if method == "POST":
                await self._serve(operation, scope, receive, send)
            else:
                await refuse(send, errors.method_not_allowed(method, "POST"))
        elif path in {"/v1/models", "/healthz", "/readyz", "/metrics"}:
            if method in {"GET", "HEAD"}:
                await self._tell(path, scope, send)
            else:
                await refuse(send, errors.method_not_allowed(method, "GET"))
        else:
            await refuse(send, errors.unknown_url(method, path))

    async def _serve(self, operation: Operation, scope: Scope, receive: Receive, send: Send) -> None:
        """One call, counted."""
        meters = self._parts.meters
        if meters.in_flight >= CONCURRENT_REQUESTS_MAX:
            await refuse(send, errors.TOO_BUSY)
            return
        meters.in_flight += 1
        began_at = time.perf_counter()
        status = INTERNAL.status
        try:
            status = await self._call(operation, scope, receive, send)
        except ClientGoneError:
            status = 499
        except Exception:  # also a bug: the caller gets an error of the API. One who has half an answer is cut off.
            log.exception("request_failed")
            await refuse(send, INTERNAL)
        finally:
            meters.in_flight -= 1
            meters.request(operation.value, status, time.perf_counter() - began_at)

    async def _call(self, operation: Operation, scope: Scope, receive: Receive, send: Send) -> int:
        """Authenticate, understand, route, and hand over to an Exchange; returns the status answered."""
        parts = self._parts
        started_at = parts.now()
        closed = parts.journal.closed()
        if closed is not None:
            return await self._answer(send, closed)
        headers = headers_of(scope)
        state = parts.control.state
        key = authenticate(headers, state)
        if key is None or isinstance(key, Problem):
            return await self._answer(send, key or errors.MISSING_KEY)
        request_id = parts.new_id(started_at)
        if key.revoked:
            context = self._context(key, request_id, operation, started_at)
            return await self._refuse(send, context, errors.REVOKED_KEY)
        labels = read_labels(headers)
        if isinstance(labels, Problem):
            context = self._context(key, request_id, operation, started_at)
            return await self._refuse(send, context, labels)
        body = await read_body(receive, headers, parts.options.body_bytes_max)
        if isinstance(body, Problem):
            context = self._context(key, request_id, operation, started_at, labels)
            return await self._refuse(send, context, body)
        ask = read_ask(operation, body, labels)
        if isinstance(ask, Problem):
            context = self._context(key, request_id, operation, started_at, labels, body=body)
            return await self._refuse(send, context, ask)
        context = self._context(key, request_id, operation, started_at, labels, ask, body)
        return await self._route(send, receive, context, ask, body, key, labels, state)

    async def head_refused(self, method: bytes, path: str, headers: Sequence[Header]) -> None:
        """A call whose head is over the limits was answered 431: record it where these headers name a key.

        Not while too much runs already.
        """
        operation, parts, meters = CALLS.get(path), self._parts, self._parts.meters
        if operation is None or method != b"POST" or parts.journal.closed() is not None:
            return
        key = authenticate(headers_of({"headers": headers}), parts.control.state)
        if not isinstance(key, VirtualKey) or meters.in_flight >= CONCURRENT_REQUESTS_MAX:
            return
        meters.in_flight += 1
        try:
            started_at = parts.now()
            context = self._context(key, parts.new_id(started_at), operation, started_at)
            await self._record_refusal(context, errors.HEADERS_TOO_LARGE)
        finally:
            meters.in_flight -= 1

    async def _route(
        self,
        send: Send,
        receive: Receive,
        context: Context,
        ask: Ask,
        body: bytes,
        key: VirtualKey,
        labels: Labels,
        state: ControlState,
    ) -> int:
        parts = self._parts
        asked = RouteRequest(key=key, model=ask.model, operation=ask.operation, stream=ask.stream)
        routed = parts.router.decide(asked, state, context.started_at)
        if isinstance(routed, RouteRefusal):
            return await self._refuse_route(send, context, ask.model, routed, state)
        first, decided = await self._opening(context, ask, body, routed)
        exchange = Exchange(parts, context, ask, routed, state, first, decided, labels)
        await exchange.run(send, receive)
        return exchange.status

    async def _opening(
        self, context: Context, ask: Ask, body: bytes, routed: Routed
    ) -> tuple[RequestEvent, RoutingDecision]:
        """RECEIVED and DECISION."""
        parts = self._parts
        event_id = parts.new_id(context.started_at)
        personal = await parts.subjects.personal(context.tenant_id, ask.user, ask.tags, body, event_id)
        first = received(context, event_id, personal)
        now = parts.now()
        return first, decision(context, parts.new_id(now), now, event_id, routed)

    def _context(
        self,
        key: VirtualKey,
        request_id: str,
        operation: Operation,
        started_at: int,
        labels: Labels = NO_LABELS,
        ask: Ask | None = None,
        body: bytes = b"",
    ) -> Context:
        return Context(
            tenant_id=key.tenant_id,
            request_id=request_id,
            actor=self._parts.actor,
            run_id=labels.run_id,
            key_id=key.key_id,
            team_id=key.team_id,
            project_id=key.project_id,
            operation=operation,
            model_requested=ask.model if ask else None,
            stream=ask.stream if ask else False,
            started_at=started_at,
            body_bytes=len(body),
        )

    async def _refuse_route(
        self, send: Send, context: Context, model: str, refusal: RouteRefusal, state: ControlState
    ) -> int:
        """No candidate: say why, and record what was considered. A name that nobody knows may be anything: not kept."""
        status = REFUSAL_STATUS[refusal.code]
        problem = Problem(status, refusal.code.value, refusal.message, param="model")
        if status >= 500:  # noqa: PLR2004 - server errors, as HTTP says
            problem = errors.retry_later(refusal.code.value, refusal.message)
        if not is_known(model, context.tenant_id, state):
            context = msgspec.structs.replace(context, model_requested=None)
            return await self._refuse(send, context, problem)
        now = self._parts.now()
        event = no_decision(context, self._parts.new_id(now), now, model, refusal)
        return await self._refuse(send, context, problem, event)

    async def _refuse(self, send: Send, context: Context, problem: Problem, *before: Event) -> int:
        """Record a refusal of a known tenant, then answer it; the answer does not hang on the record."""
        await self._record_refusal(context, problem, *before)
        request_id = (b"x-quaestor-request-id", context.request_id.encode())
        await refuse(send, problem, (request_id,))
        return problem.status

    async def _record_refusal(self, context: Context, problem: Problem, *before: Event) -> None:
        now = self._parts.now()
        cause = before[-1].event_id if before else None
        event = refused(context, self._parts.new_id(now), now, problem, causation_id=cause)
        try:
            await self._parts.journal.conclude([*before, event], None)
        except QuaestorError as error:
            log.error("refusal_not_recorded", request_id=context.request_id, error=str(error))  # noqa: TRY400 - no trace

    async def _answer(self, send: Send, problem: Problem) -> int:
        await refuse(send, problem)
        return problem.status

    async def _tell(self, path: str, scope: Scope, send: Send) -> None:
        """The paths that only read."""
        if path == "/v1/models":
            await self._tell_models(scope, send)
        elif path == "/healthz":
            await _tell_json(send, 200, {"status": "ok"})
        elif path == "/readyz":
            parts = self._readiness.parts()
            ready = all(part["ok"] for part in parts.values())
            await _tell_json(send, 200 if ready else 503, {"ready": ready, "parts": parts})
        else:
            journal = self._parts.journal
            self._parts.meters.gauges(journal.spooled_bytes, spool_unwritable=journal.unwritable is not None)
            body = self._readiness.merged(generate_latest(self._parts.meters.metrics.registry))
            await answer(send, 200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], body)

    async def _tell_models(self, scope: Scope, send: Send) -> None:
        """What the key may ask for; also while nothing can be recorded, but not before keys are known."""
        if self._parts.journal.closed() is errors.STARTING:
            await refuse(send, errors.STARTING)
            return
        state = self._parts.control.state
        key = authenticate(headers_of(scope), state)
        if key is None or isinstance(key, Problem):
            await refuse(send, key or errors.MISSING_KEY)
        elif key.revoked:
            await refuse(send, errors.REVOKED_KEY)
        else:
            models = [_model(name) for name in models_for(key, state, self._parts.router, self._parts.now())]
            await _tell_json(send, 200, {"object": "list", "data": models})


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "quaestor"}


async def _tell_json(send: Send, status: int, body: Any) -> None:
    await answer(send, status, [JSON_TYPE], msgspec.json.encode(body))


def authenticate(headers: Mapping[bytes, bytes], state: ControlState) -> VirtualKey | Problem | None:
    """The key of a request, also a revoked one; None when there is none, a Problem when it can't be one.

    Looked up by the SHA-256 of its text, so that timing tells nothing of a key; the hash found is compared in constant
    time as well.
    """
    header = headers.get(b"authorization")
    if header is None:
        return None
    if header[:7].lower() != BEARER:
        return invalid("The Authorization header must read 'Bearer <key>'.", "Authorization")._replace(status=401)
    text = header[7:].strip()
    if not text:
        return None
    if len(text) > KEY_BYTES_MAX:
        return errors.WRONG_KEY
    digest = hashlib.sha256(text).hexdigest()
    key = state.key_by_hash(digest)
    if key is None or not hmac.compare_digest(key.key_hash, digest):
        return errors.WRONG_KEY
    return key
