"""A console over a log in a folder, asked as an ASGI application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from api.console.app import Console
from api.console.log import PublicLog
from api.console.parts import Parts, ReceiptFile
from api.why.tell import Story
from processors.audit.checkpoint import Checkpoint
from processors.audit.entry import Source
from processors.audit.note import Verifier
from sinks.audit.process import published
from sinks.audit.search import AuditSearch
from streams.metrics import Metrics
from tests.support.audit import AuditWorld

TOKEN = "qa_of_the_tests"
LOG = "main"


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class ConsoleWorld:
    """A console and the log it shows."""

    def __init__(self, folder: Path, *, log_is_public: bool = True) -> None:
        """Nothing is entered yet."""
        self.audit = AuditWorld(folder)
        self.stories: dict[str, Story] = {}
        self.receipts: dict[str, list[ReceiptFile]] = {}
        self.fault: Exception | None = None
        self.works = True
        #: Cleared, a story takes until it is set.
        self.go = asyncio.Event()
        self.go.set()
        ids = count(1)
        self.metrics = Metrics()
        self.parts = Parts(
            is_admin=lambda token: token == TOKEN,
            log=PublicLog(LOG, self.audit.files),
            log_is_public=log_is_public,
            search=AuditSearch(self.audit.store, self._actors),
            published=self._published,
            tell=self._tell,
            receipts=self._receipts,
            ready=self._ready,
            new_id=lambda: f"id-{next(ids)}",
            metrics=self.metrics,
        )
        self.console = Console(self.parts)

    async def ask(
        self,
        path: str,
        query: str = "",
        *,
        token: str | None = TOKEN,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make one request."""
        given = {"authorization": f"Bearer {token}"} if token is not None else {}
        given |= headers or {}
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
        answer = Answer()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.body += message["body"]

        await self.console(scope, receive, send)
        return answer

    async def _actors(self, sources: Any) -> dict[str, str]:
        """Even offsets are Ann's."""
        asked: list[Source] = list(sources)
        return {each.event_id: "cli/ann" if each.offset % 2 == 0 else "cli/bob" for each in asked if each.event_id}

    async def _published(self) -> tuple[Verifier, Checkpoint]:
        keys, checkpoint = published(self.audit.layout)
        return keys.today.verifier, checkpoint

    async def _tell(self, request_id: str) -> Story:
        await self.go.wait()
        if self.fault is not None:
            raise self.fault
        return self.stories.get(request_id, Story(request_id, [], []))

    async def _receipts(self, request_id: str) -> list[ReceiptFile]:
        if self.fault is not None:
            raise self.fault
        return self.receipts.get(request_id, [])

    async def _ready(self) -> Mapping[str, bool]:
        return {"postgres": self.works}
