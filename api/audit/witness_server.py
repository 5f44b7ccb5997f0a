"""A witness over HTTP (c2sp.org/tlog-witness): takes checkpoints, shows what it cosigned last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from api.gateway.errors import Problem
from api.gateway.protocol import GatewayProtocol
from api.gateway.wire import ClientGoneError, Receive, Scope, Send, headers_of, read_body
from api.gateway.wire import answer as send_answer
from api.serving import serve
from processors.audit.witness import (
    NOT_FOUND,
    OK,
    TEXT_TYPE,
    UNPROCESSABLE,
    Answer,
    Cosigner,
    FollowedLogs,
    origin_hash,
    origin_of,
)
from schemas.errors import IntegrityError, StoreUnavailableError
from schemas.limits import WITNESS_BODY_BYTES_MAX, WITNESS_REQUESTS_MAX
from sinks.audit.witness_store import WitnessStore, answer

log = structlog.get_logger(__name__)
ADD_CHECKPOINT = "/add-checkpoint"
HEALTH = "/healthz"
METHOD_NOT_ALLOWED, SERVER_ERROR, UNAVAILABLE = 405, 500, 503


@dataclass(frozen=True)
class Witness:
    """The ASGI application of one witness."""

    store: WitnessStore
    cosigner: Cosigner
    logs: FollowedLogs
    #: Seconds since the epoch.
    clock: Callable[[], float] = time.time

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            said = await self._answer(scope, receive)
        except ClientGoneError:
            return
        headers = [(b"content-type", said.content_type.encode("ascii"))]
        await send_answer(send, said.status, headers, said.body.encode("utf-8"))

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        method, path = scope["method"], scope["path"]
        if path == ADD_CHECKPOINT:
            if method != "POST":
                return Answer(METHOD_NOT_ALLOWED, "POST a checkpoint here\n")
            body = await read_body(receive, headers_of(scope), WITNESS_BODY_BYTES_MAX)
            if isinstance(body, Problem):
                return Answer(body.status, body.message + "\n")
            return await self._guarded(self._add, body)
        if method not in {"GET", "HEAD"}:
            return Answer(METHOD_NOT_ALLOWED, "only GET\n")
        if path == HEALTH:
            return Answer(OK, "ok\n")
        return await self._guarded(self._show, path)

    async def _guarded(self, work: Callable[[Any], Answer], asked: Any) -> Answer:
        """Work on the disk, in a thread; what can't be remembered or read is never answered as if it were."""
        try:
            return await asyncio.to_thread(work, asked)
        except StoreUnavailableError as error:
            log.exception("witness_store_unavailable", reason=str(error))
            return Answer(UNAVAILABLE, "the witness can't write now\n")
        except IntegrityError as error:
            log.exception("witness_store_damaged", reason=str(error))
            return Answer(SERVER_ERROR, "the witness's memory is damaged\n")

    def _add(self, body: bytes) -> Answer:
        said = answer(self.store, body, self.logs, self.cosigner, int(self.clock()))
        if said.status == UNPROCESSABLE:
            # Signed by the log's key and no continuation: it may be proof of two histories, so it is kept whole.
            log.error("witness_refused", reason=said.body.strip(), request=body.decode("utf-8"))
        else:
            log.info("witness_answered", status=said.status, origin=origin_of(body))
        return said

    def _show(self, path: str) -> Answer:
        for origin in self.logs:
            if path == f"/{origin_hash(origin)}/checkpoint":
                note = self.store.latest(origin)
                if note is not None:
                    return Answer(OK, note, TEXT_TYPE)
        return Answer(NOT_FOUND, "nothing is here\n")


async def run(witness: Witness, host: str, port: int, stop: asyncio.Event, ready: Callable[[int], None]) -> None:
    """Serve until `stop` is set, as `serve` says; raises ConfigurationError when the address can't be listened on."""
    await serve(witness, GatewayProtocol, host, port, stop, ready, WITNESS_REQUESTS_MAX)
