"""The console as a process, told what it serves by whoever starts it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import structlog

from api.console.app import Console
from api.console.parts import Parts
from api.console.problems import CONTENT_TYPE, Problem
from api.protocol import BoundedProtocol
from api.serving import serve
from schemas.errors import ConfigurationError
from schemas.limits import CONSOLE_REQUESTS_MAX

log = structlog.get_logger(__name__)

#: Connections, most of which are idle; beyond them uvicorn itself answers 503.
CONNECTIONS_MAX = 4 * CONSOLE_REQUESTS_MAX
REFUSALS = {
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The request headers are too large or too many.",
    HTTPStatus.BAD_REQUEST: "The request is not valid HTTP.",
}


class ConsoleProtocol(BoundedProtocol):
    """One connection."""

    def refusal(self, status: HTTPStatus) -> tuple[bytes, bytes]:
        """As the base says; no request, so no correlation id."""
        return CONTENT_TYPE.encode(), Problem(status, "invalid_request", REFUSALS[status]).body("")


async def run(parts: Parts, host: str, port: int, stop: asyncio.Event, ready: Callable[[int], None]) -> None:
    """Serve until `stop`; `ready` is called with the port once it listens (port 0 takes a free one).

    Raises ConfigurationError when the address can't be listened on, with the setting to change.
    """

    def listening(bound: int) -> None:
        log.info("console_listening", host=host, port=bound)
        ready(bound)

    try:
        await serve(Console(parts), ConsoleProtocol, host, port, stop, listening, CONNECTIONS_MAX)
    except ConfigurationError as error:
        raise ConfigurationError(f"the console {error}: set QUAESTOR_CONSOLE_PORT") from None
