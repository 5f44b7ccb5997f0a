"""A console over a log in a folder, asked as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from api.console.app import Console
from api.console.control import ControlPlane
from api.console.log import PublicLog
from api.console.parts import Parts, ReceiptFile
from api.control.session import ControlSession
from api.control.standings import standings_of
from api.why.tell import Story
from processors.audit.checkpoint import Checkpoint
from processors.audit.entry import Source
from processors.audit.note import Verifier
from schemas.events import ControlEvent
from schemas.topics import CONTROL
from sinks.audit.process import published
from sinks.audit.search import AuditSearch
from sinks.redis.hours import MemoryHours
from sinks.redis.reads import TenantState
from streams.codec import Codec, LocalSchemas
from streams.log import Partition
from streams.memory import MemoryLog
from streams.metrics import Metrics
from streams.records import event_of
from tests.support.audit import AuditWorld

TOKEN = "qa_of_the_tests"
LOG = "main"
CODEC = Codec(LocalSchemas())


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class LiveStates:
    """What Redis says, in this process."""

    def __init__(self) -> None:
        """Nothing is used."""
        self.hours = MemoryHours()
        self.states: dict[str, TenantState] = {}

    async def tenant_state(self, tenant_id: str) -> TenantState:
        """A tenant's slot."""
        nothing = TenantState(
            tenant_id, "g", is_open=True, cursor=0, sums={}, holds={}, unconfirmed={}, unconfirmed_sums={}
        )
        return self.states.get(tenant_id, nothing)


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
        self.control_log = MemoryLog()
        self.sittings = 0
        self.token = TOKEN
        self.token = TOKEN
        #: What Redis would say of a tenant.
        self.live = LiveStates()
        self.now = 1_800_000_000_000_000
        self.metrics = Metrics()
        self.parts = Parts(
            is_admin=lambda token: token == self.token,
            log=PublicLog(LOG, self.audit.files),
            log_is_public=log_is_public,
            search=AuditSearch(self.audit.store, self._actors),
            published=self._published,
            tell=self._tell,
            receipts=self._receipts,
            control=ControlPlane(self._sit),
            standings=lambda limits, now: standings_of(self.live, limits, now),
            handle_of=self._handle_of,
            tags_allowed=("environment", "team"),
            ready=self._ready,
            new_id=lambda: f"id-{next(ids)}",
            now_micros=lambda: self.now,
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
        body: bytes = b"",
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
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.body += message["body"]

        await self.console(scope, receive, send)
        return answer

    async def change(self, path: str, body: Any = None, key: str = "key-1", query: str = "", **more: Any) -> Answer:
        """Make one change; without a body, a removal."""
        headers = {"idempotency-key": key, "content-type": "application/json"}
        data = b"" if body is None else json.dumps(body).encode()
        return await self.ask(
            path, query, method="DELETE" if body is None else "POST", headers=headers, body=data, **more
        )

    def events(self) -> list[ControlEvent]:
        """What stands on the control topic."""
        records = self.control_log.records[Partition(CONTROL.name, 0)]
        return [event for record in records if isinstance(event := event_of(CODEC, record), ControlEvent)]

    @contextlib.contextmanager
    def _sit(self) -> Iterator[ControlSession]:
        """A session on the log in memory."""
        self.sittings += 1
        session = ControlSession(self.control_log.publisher(), self.control_log.reader(), CODEC, "console")
        session.refresh()
        yield session

    async def _handle_of(self, tenant_id: str, user: str) -> str:
        if self.fault is not None:
            raise self.fault
        return f"{tenant_id}-{len(user)}"

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
