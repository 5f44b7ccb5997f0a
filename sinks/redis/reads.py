"""What others read from Redis: a tenant's budgets with their cursor at one moment, gates, cursors, provider health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from processors.budgets import Counter, OpenHold, Sums
from schemas.errors import StoreUnavailableError
from schemas.topics import BUDGETS, HEALTH
from sinks.redis.client import RedisClient
from sinks.redis.connection import text, texts
from sinks.redis.fullness import Fullness
from sinks.redis.hours import RedisHours
from sinks.redis.keys import PROJECTION, Names
from sinks.redis.posted import PostedSums
from streams.log import Partition

#: What one step of a read looks at: under a millisecond in which nobody is admitted.
FIELDS_AT_ONCE = 1_000

Body = tuple[tuple[Counter, int], ...]


class TenantState(NamedTuple):
    """One tenant's slot at one moment."""

    tenant_id: str
    #: None when there is no slot.
    generation: str | None
    is_open: bool
    #: Every event of the tenant below it is applied, and there is none of it between here and the partition's cursor.
    cursor: int
    #: Applied sums, zero ones left out.
    sums: dict[Counter, Sums]
    #: Open holds the log has confirmed.
    holds: dict[str, Body]
    #: Holds the log has not confirmed, pinned ones included, dropped ones not.
    unconfirmed: dict[str, Body]
    #: What those hold per counter, as the slot sums it.
    unconfirmed_sums: dict[Counter, int]


class Difference(NamedTuple):
    """Something that should be equal to the fold of the log and is not."""

    #: For example `sum limit|USD|0|0` or `hold <id>`.
    what: str
    expected: str
    actual: str


class GateView(NamedTuple):
    """A partition's gate."""

    partition: int
    generation: str
    is_open: bool
    cursor: int
    end_offset: int
    lag: int
    applied_at_millis: int
    #: Next offset to read: ahead of the cursor while slots are folded anew in the sink's memory.
    read: int


class RedisReads:
    """Reads of one server; every method raises StoreUnavailableError."""

    def __init__(self, url: str, projection: str = PROJECTION) -> None:
        """Connect nothing yet; `projection` is the version that is read."""
        self._client = RedisClient(url, name="quaestor-reads")
        self._names = Names(projection)

    async def connect(self) -> None:
        """Connect, or go on trying in the background."""
        await self._client.open()

    async def open(self) -> None:
        """Connect; raises StoreUnavailableError."""
        await self.connect()
        if not self._client.connected:
            raise StoreUnavailableError("Redis is away")

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.close()

    async def fullness(self) -> Fullness:
        """How full the server is."""
        return await self._client.fullness()

    async def tenant_state(self, tenant_id: str) -> TenantState:
        """The tenant's applied state, its cursor and its overlay, atomically."""
        keys = self._names.slot(tenant_id)
        answer = await self._client.run("tenant_read", (keys.state, keys.holds, keys.overlay))
        state, holds, overlay = (_pairs(part) for part in answer)
        if "restoring" in state:
            state, holds, overlay = {}, {}, {}  # nobody's yet
        entries = {name: value for name, value in overlay.items() if name[0] not in "=!" and value[0] != "d"}
        return TenantState(
            tenant_id=tenant_id,
            generation=state.get("generation"),
            is_open=state.get("open") == "1",
            cursor=int(state.get("cursor", 0)),
            sums=_sums(state),
            holds={name: _body(value) for name, value in holds.items()},
            unconfirmed={name: _body(value.partition(" ")[2]) for name, value in entries.items()},
            unconfirmed_sums={_counter(n[1:]): int(v) for n, v in overlay.items() if n.startswith("=") and v != "0"},
        )

    async def posted(self, tenant_id: str, counters: Sequence[Counter]) -> PostedSums:
        """What these counters of a tenant have charged, and the cursor it is charged up to."""
        names = [f"p:{counter}" for counter in counters]
        state = self._names.slot(tenant_id).state
        cursor, is_open, *values = await self._client.call("HMGET", state, "cursor", "open", *names)
        found = {counter: int(value) for counter, value in zip(counters, values, strict=True) if value is not None}
        return PostedSums(int(cursor or 0), is_open is not None and text(is_open) == "1", found)

    async def all_posted(self, tenant_id: str) -> PostedSums:
        """What every counter of a tenant has charged, read in steps: a call that waits for one waits for few fields.

        What is applied meanwhile may be in it. A state that was put back meanwhile is not open.
        """
        state, found, at = self._names.slot(tenant_id).state, dict[Counter, int](), "0"
        before = texts(await self._client.call("HMGET", state, "generation", "open", "cursor"))
        while True:
            after, names = await self._client.call("HSCAN", state, at, "MATCH", "p:*", "COUNT", str(FIELDS_AT_ONCE))
            found |= {_counter(name[2:]): int(value) for name, value in _pairs(names).items()}
            if (at := text(after)) == "0":
                break
        _, is_open, cursor = before
        is_whole = is_open == "1" and texts(await self._client.call("HMGET", state, "generation", "open")) == before[:2]
        return PostedSums(int(cursor or 0), is_whole, found)

    @property
    def hours(self) -> RedisHours:
        """What limits had charged at the end of each hour."""
        return RedisHours(self._client)

    async def tenants(self) -> dict[str, int]:
        """Every tenant that has had budget events, with its partition of quaestor.budgets."""
        found: dict[str, int] = {}
        for number in range(BUDGETS.partitions):
            names = texts(await self._client.call("HKEYS", self._names.tenants(number)))
            found.update(dict.fromkeys(names, number))
        return found

    async def gates(self) -> list[GateView]:
        """The gate of every budgets partition that has one."""
        keys = map(self._names.gate, range(BUDGETS.partitions))
        hashes = [_pairs(await self._client.call("HGETALL", key)) for key in keys]
        return [_gate(number, fields) for number, fields in enumerate(hashes) if "generation" in fields]

    async def cursors(self) -> dict[Partition, int]:
        """Where the projection stands in each partition it has claimed."""
        found = {Partition(BUDGETS.name, gate.partition): gate.cursor for gate in await self.gates()}
        health = await self._client.call("HGET", self._names.health_cursor, "cursor")
        if health is not None:
            found[Partition(HEALTH.name, 0)] = int(health)
        return found

    async def provider_health(self) -> list[dict[str, str]]:
        """The last closed window of each provider, model and region, fields as in ProviderHealth."""
        names = sorted(texts(await self._client.call("SMEMBERS", self._names.health_index)))
        return [_pairs(await self._client.call("HGETALL", self._names.health(name))) for name in names]


def compare(
    sums: Mapping[Counter, Sums],
    open_holds: Mapping[str, OpenHold],
    state: TenantState,
    over_before_micros: int = 0,
) -> list[Difference]:
    """Where a tenant's state differs from the fold of its events below `state.cursor`, or contradicts itself.

    Sums of windows that ended before `over_before_micros` with nothing held may be swept: they are passed over.
    """
    differences = []
    for counter in sorted(sums.keys() | state.sums.keys()):
        expected, actual = sums.get(counter, Sums()), state.sums.get(counter, Sums())
        is_over = 0 < counter.window_end < over_before_micros and not expected.held_nano and not actual.held_nano
        if expected != actual and not is_over:
            differences.append(Difference(f"sum {counter}", str(expected), str(actual)))
    held = {hold_id: hold.held for hold_id, hold in open_holds.items()}
    differences += _differing("hold", held, state.holds)
    differences += _differing("unconfirmed sum", _added(state.unconfirmed), state.unconfirmed_sums)
    both = state.holds.keys() & state.unconfirmed.keys()
    differences += [Difference(f"hold {hold_id}", "applied or unconfirmed", "both") for hold_id in sorted(both)]
    return differences


def _differing(what: str, expected: Mapping[Any, Any], actual: Mapping[Any, Any]) -> list[Difference]:
    return [
        Difference(f"{what} {key}", str(expected.get(key)), str(actual.get(key)))
        for key in sorted(expected.keys() | actual.keys())
        if expected.get(key) != actual.get(key)
    ]


def _added(bodies: Mapping[str, Body]) -> dict[Counter, int]:
    added: dict[Counter, int] = {}
    for body in bodies.values():
        for counter, amount in body:
            added[counter] = added.get(counter, 0) + amount
    return {counter: amount for counter, amount in added.items() if amount}


def _pairs(values: Sequence[Any]) -> dict[str, str]:
    words = [text(value) for value in values]
    return dict(zip(words[::2], words[1::2], strict=True))


def _counter(words: str) -> Counter:
    limit_id, currency, start, end = words.split("|")
    return Counter(limit_id, currency, int(start), int(end))


def _body(words: str) -> Body:
    parts = words.split()
    return tuple((_counter(name), int(amount)) for name, amount in zip(parts[::2], parts[1::2], strict=True))


def _sums(state: Mapping[str, str]) -> dict[Counter, Sums]:
    found: dict[Counter, Sums] = {}
    for name, value in state.items():
        if name[:2] in {"p:", "h:"}:
            counter = _counter(name[2:])
            before = found.get(counter, Sums())
            found[counter] = (
                before._replace(posted_nano=int(value)) if name[0] == "p" else before._replace(held_nano=int(value))
            )
    return {counter: sums for counter, sums in found.items() if sums != Sums()}


def _gate(number: int, fields: Mapping[str, str]) -> GateView:
    return GateView(
        partition=number,
        generation=fields["generation"],
        is_open=fields.get("open") == "1",
        cursor=int(fields.get("cursor", 0)),
        end_offset=int(fields.get("end_offset", 0)),
        lag=int(fields.get("lag", 0)),
        applied_at_millis=int(fields.get("applied_at_millis", 0)),
        read=int(fields.get("read", 0)),
    )
