"""A gateway in this process on fakes: a log, holds, a vault and a provider in memory, and a caller without sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from api.gateway.app import Gateway
from api.gateway.counting import Counting
from api.gateway.grace import Grace
from api.gateway.journal import Journal
from api.gateway.meters import Meters
from api.gateway.options import GatewayOptions
from api.gateway.parts import Parts
from api.gateway.readiness import Readiness
from api.gateway.spool import Spool
from api.gateway.subjects import Subjects
from api.providers.errors import UpstreamError
from api.providers.memory import MemoryAnswer, MemoryUpstream
from api.providers.tokens import MemoryTokenCounter
from api.providers.upstream import Call
from processors.control import ControlState, Limit, Provider, Route, RouteCandidate, VirtualKey
from processors.pricing import Price, PriceBook, Rates, make_book
from schemas.errors import StoreUnavailableError
from schemas.events import Event
from sinks.postgres.key_encryption import RingKeys
from sinks.postgres.vault import SubjectVault, VaultSecrets
from sinks.postgres.vault_keys import KeyRing
from sinks.postgres.vault_rows import MemoryRows, SubjectRow
from sinks.redis.memory import MemoryHoldStore
from streams.codec import Codec, LocalSchemas
from streams.memory import MemoryLog
from streams.metrics import Metrics
from streams.recorder import Recorder
from tests.support.gateway_answers import chat_answer

KEY = "qk_" + "a" * 43
OTHER_KEY = "qk_" + "b" * 43
REVOKED_KEY = "qk_" + "c" * 43
TENANT = "acme"
RING = KeyRing(b"l" * 32, {1: b"m" * 32})
#: 2 and 8 dollars per million tokens.
RATES = Rates(input=2_000_000, output=8_000_000, cached_input=500_000)


@lru_cache(maxsize=1)
def codec() -> Codec:
    """One codec for all worlds: making one parses every schema."""
    return Codec(LocalSchemas())


async def until(condition: Callable[[], bool]) -> None:
    """Give the loop time until this is so; the caller sets the deadline."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
        await asyncio.sleep(0)


class Health:
    """A log that answers, until told otherwise."""

    def __init__(self) -> None:
        """All is well."""
        self.reachable, self.caught_up = True, True
        self.answered_at = time.monotonic()


class StandingControl:
    """A control state that stands still."""

    def __init__(self, state: ControlState) -> None:
        """Caught up."""
        self.state, self.caught_up, self.lag_events = state, True, 0


def price(provider_id: str, model: str, **fields: Any) -> Price:
    """A price in dollars."""
    return Price(price_id=f"{provider_id}/{model}", provider_id=provider_id, model=model, rates=RATES, **fields)


def virtual_key(text: str, key_id: str, **fields: Any) -> VirtualKey:
    """A key of the tenant."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    given = {"tenant_id": TENANT, "team_id": "search", "project_id": "web", "key_hash": digest}
    return VirtualKey(key_id=key_id, **given | fields)


def control_state(limits: tuple[Limit, ...] = (), **fields: Any) -> ControlState:
    """Two providers behind the alias `default`, three keys, one of them revoked."""
    keys = {
        "key_a": virtual_key(KEY, "key_a"),
        "key_b": virtual_key(OTHER_KEY, "key_b", allowed_models=("cheap",)),
        "key_c": virtual_key(REVOKED_KEY, "key_c", revoked_at=1),
    }
    providers = {
        name: Provider(provider_id=name, base_url=f"http://{name}.test/v1", models={"big": f"{name}-big"})
        for name in ("one", "two")
    }
    prices = {
        (name, f"{name}-big"): price(name, f"{name}-big", max_output_tokens=1_000, context_tokens=100_000)
        for name in ("one", "two")
    }
    books: dict[str, PriceBook] = {name: make_book(name, [prices[name, f"{name}-big"]]) for name in ("one", "two")}
    route = Route(
        alias="default",
        tenant_id="_system",
        candidates=(RouteCandidate("one", "big"), RouteCandidate("two", "big")),
    )
    by_scope: dict[tuple[str, str, str], tuple[Limit, ...]] = {}
    for limit in limits:
        scope = (limit.tenant_id, limit.scope, limit.scope_id)
        by_scope[scope] = (*by_scope.get(scope, ()), limit)
    given: dict[str, Any] = {
        "keys": keys,
        "keys_by_hash": {key.key_hash: key for key in keys.values()},
        "providers": providers,
        "routes": {("_system", "default"): route, ("_system", "cheap"): replace_alias(route, "cheap")},
        "route_versions": {("_system", "default"): "v1"},
        "limits": {limit.limit_id: limit for limit in limits},
        "limits_by_scope": by_scope,
        "scopes_limited": {TENANT: frozenset(limit.scope for limit in limits)},
        "books": books,
        "prices": prices,
        "tenants": frozenset({TENANT}),
    }
    return ControlState(**given | fields)


def replace_alias(route: Route, alias: str) -> Route:
    """The same route under another name."""
    return Route(alias=alias, tenant_id=route.tenant_id, candidates=route.candidates)


def limit(amount_nano: int, limit_id: str = "lim_a", scope: str = "tenant", scope_id: str = TENANT) -> Limit:
    """A hard limit of this month."""
    return Limit(
        limit_id=limit_id,
        tenant_id=TENANT,
        scope=scope,  # type: ignore[arg-type]  # a literal in the product
        scope_id=scope_id,
        amount_nano=amount_nano,
        currency="USD",
        window="month",
    )


@dataclass
class Response:
    """What a caller got."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: Body messages as they were sent.
    pieces: list[bytes] = field(default_factory=list)

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error in the body."""
        return self.json["error"]


Answering = Callable[[Call], MemoryAnswer | UpstreamError]


class World:
    """The gateway and what stands around it."""

    def __init__(
        self, directory: Path, answer: Answering | None = None, state: ControlState | None = None, **options: Any
    ) -> None:
        """Nothing runs before `async with`."""
        self.log = MemoryLog()
        self.codec = codec()
        self.holds = MemoryHoldStore(lambda: time.time_ns() // 1_000_000)
        self.holds.open_tenant(TENANT)
        self.upstream = MemoryUpstream(answer or (lambda _: chat_answer()))
        self.vault = memory_vault(self.erased)
        self.health = Health()
        self.control = StandingControl(state or control_state())
        given: dict[str, Any] = {
            "data_directory": directory,
            "kafka_bootstrap": "",
            "registry_url": "",
            "redis_url": "",
            "postgres_dsn": "",
        }
        self.options = GatewayOptions(**given | options)
        self.spool = Spool(self.options.spool_directory, "gateway-test")
        recorder = Recorder(self.log.publisher(), self.codec)
        remembered = self.options.hold_tombstone_seconds
        self.journal = Journal(
            recorder,
            self.spool,
            self.options.spool_directory,
            self.health,
            tombstone_seconds=remembered,
            now_micros=self._now_micros,
        )
        self.tokens = MemoryTokenCounter()
        self.parts = Parts(
            options=self.options,
            actor="gateway/test",
            control=self.control,
            journal=self.journal,
            holds=self.holds,
            upstream=self.upstream,
            subjects=Subjects(self.vault, self.options.tags_allowed, self.erased),
            meters=Meters(Metrics()),
            grace=Grace(self.options.fail_open_nano, self.options.grace_file),
            counting=Counting(self.tokens),
        )
        self.readiness = Readiness(self.control, self.journal, self.holds)  # type: ignore[arg-type]  # stands still
        self.gateway = Gateway(self.parts, self.readiness)

    async def __aenter__(self) -> Self:
        """Open for requests."""
        self.journal.start()
        async with asyncio.timeout(5):
            await until(lambda: self.journal.closed() is None)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        self.parts.counting.close()
        await self.journal.stop()

    def _now_micros(self) -> int:
        """As the gateway's clock says, which a test may have set."""
        return self.parts.now()

    def erased(self, handle: str) -> bool:
        """Whether the control topic has the erasure of a handle."""
        return handle in self.control.state.erasures

    def with_state(self, **fields: Any) -> None:
        """Change the control state."""
        self.control.state = control_state(**fields)

    def take_log_away(self) -> None:
        """Kafka stops answering."""
        self.log.away, self.health.reachable = True, False

    def bring_log_back(self) -> None:
        """Kafka answers again."""
        self.log.away, self.health.reachable = False, True
        self.health.answered_at = time.monotonic() + 0.001

    def events(self, *topics: str) -> list[Event]:
        """Everything in the log (of these topics), in the order of its writing within a topic."""
        found: list[Event] = []
        for partition, records in self.log.records.items():
            if not topics or partition.topic.removeprefix("quaestor.") in topics:
                found += [self.codec.decode_event(one.topic, one.value or b"") for one in records]
        return found

    def one(self, event_type: type, /, **fields: Any) -> Any:
        """The only event of a type with these fields."""
        found = [
            event
            for event in self.events()
            if isinstance(event, event_type) and all(getattr(event, name) == value for name, value in fields.items())
        ]
        assert len(found) == 1
        return found[0]

    def kinds(self) -> list[str]:
        """Topic and kind of every event in the log, sorted."""
        names = []
        for partition, records in self.log.records.items():
            for one in records:
                event: Any = self.codec.decode_event(one.topic, one.value or b"")
                kind = getattr(event, "kind", getattr(event, "outcome", ""))
                names.append(f"{partition.topic.removeprefix('quaestor.')} {kind}".strip())
        return sorted(names)

    async def call(
        self,
        path: str = "/v1/chat/completions",
        body: Mapping[str, Any] | bytes | None = None,
        *,
        key: str | None = KEY,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        hang_up: asyncio.Event | None = None,
        on_piece: Callable[[bytes], None] | None = None,
    ) -> Response:
        """Make one request; `hang_up` ends the connection when it is set."""
        given = dict(headers or {})
        if key is not None:
            given.setdefault("authorization", f"Bearer {key}")
        raw = body if isinstance(body, bytes) else json.dumps(body or chat()).encode()
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        }
        caller = _Caller(raw, hang_up, on_piece)
        await self.gateway(scope, caller.receive, caller.send)
        return caller.response


class _Caller:
    """The other side of ASGI."""

    def __init__(self, body: bytes, hang_up: asyncio.Event | None, on_piece: Callable[[bytes], None] | None) -> None:
        self.response = Response()
        self._messages = [{"type": "http.request", "body": body, "more_body": False}]
        self._hang_up = hang_up or asyncio.Event()
        self._on_piece = on_piece

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop(0)
        await self._hang_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        response = self.response
        if message["type"] == "http.response.start":
            response.status = message["status"]
            response.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif not self._hang_up.is_set():
            response.body += message["body"]
            response.pieces.append(message["body"])
            if self._on_piece is not None:
                self._on_piece(message["body"])


def nobody(handle: str) -> bool:
    """Nothing was ever erased."""
    return False


def memory_vault(erased: Callable[[str], bool] = nobody, rows: MemoryRows | None = None) -> SubjectVault:
    """A vault in memory."""
    return SubjectVault(rows or MemoryRows(), VaultSecrets(RING.lookup, RingKeys(lambda: RING)), erased)


class AwayRows(MemoryRows):
    """Rows that can't be reached, for as long as `away` is set."""

    away = True
    asked = 0

    async def find(self, tenant_id: str, lookup_hash: bytes) -> SubjectRow | None:
        """As the seam says."""
        self.asked += 1
        if self.away:
            raise StoreUnavailableError
        return await super().find(tenant_id, lookup_hash)


def chat(**fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": "default", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 10, **fields}


__all__ = ["KEY", "TENANT", "AwayRows", "Response", "World", "chat", "control_state", "limit", "memory_vault", "nobody"]
