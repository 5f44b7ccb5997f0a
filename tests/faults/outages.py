"""Servers that are killed, alone and in pairs, and networks that lose answers, delay and cut."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from tests.faults.kills import Tick
from tests.faults.report import Row, measured
from tests.faults.verdict import judge
from tests.faults.world import STORES, World
from tests.support.proxy import NetworkFault, Proxy

SERVERS = ("postgres", "redis", "clickhouse", "registry", "kafka")
PAIRS = tuple(itertools.combinations(SERVERS, 2))
#: What a proxy does here; a connection that hangs costs half a minute each time, and has a test of its own
#: (tests/integration/test_postgres_stalled.py).
FAULTS = (NetworkFault.LOSE_ANSWER, NetworkFault.DELAY, NetworkFault.CUT)
#: How long a killed server stays away, seconds.
AWAY_SECONDS = 2.0
DELAY_SECONDS = 1.0


async def kill_servers(world: World, rounds: int, tick: Tick) -> list[Row]:
    """Kill -9 of one server after the other."""
    return await _kill_each(world, [(name,) for name in SERVERS], rounds, tick)


async def kill_pairs(world: World, rounds: int, tick: Tick) -> list[Row]:
    """Kill -9 of each pair of servers."""
    return await _kill_each(world, PAIRS, rounds, tick)


async def _kill_each(world: World, victims: Sequence[Sequence[str]], rounds: int, tick: Tick) -> list[Row]:
    for store in STORES:
        world.keep(store)
    return [await _kill_together(world, names, rounds, tick) for names in victims]


async def _kill_together(world: World, names: Sequence[str], rounds: int, tick: Tick) -> Row:
    row = Row(f"kill -9: {' and '.join(names)}")
    for _ in range(rounds):
        await measured(row, 1, _crash(world, names))
        tick()
        if not row.ok:
            break
    for verdict in (await judge(world)).values():
        row.take(verdict)
    return row


async def _crash(world: World, names: Sequence[str]) -> None:
    """Away for a moment, then back. Where the registry goes, a sink that must ask it is started meanwhile."""
    await asyncio.sleep(world.random.uniform(0, 0.5))
    world.crash_servers(names)
    if "registry" in names:
        store = world.random.choice(STORES)
        world.keep(store)
    await asyncio.sleep(world.random.uniform(0, AWAY_SECONDS))
    await world.restart_servers(names)
    await asyncio.gather(*(world.grows(store) for store in STORES))


class Hop(NamedTuple):
    """One sink's way to one server, and what its commits look like there."""

    store: str
    setting: str
    #: In the request whose answer is lost or late.
    commit: bytes
    #: In the request before the one that is cut.
    before_data: bytes


HOPS = (
    Hop("postgres", "postgres_dsn", b"COMMIT", b"COPY "),
    Hop("audit", "postgres_dsn", b"COMMIT", b"COPY "),
    Hop("clickhouse", "postgres_dsn", b"COMMIT", b"BEGIN"),
    Hop("clickhouse", "clickhouse_url", b"insert_deduplication_token", b"insert_deduplication_token"),
    Hop("redis", "redis_url", b"EVALSHA", b"EVALSHA"),
)


@dataclass
class _Way:
    """A hop with its proxy."""

    hop: Hop
    proxy: Proxy

    @property
    def words(self) -> str:
        return f"{self.hop.store} sink to {self.hop.setting.split('_')[0]}"


async def network(world: World, rounds: int, tick: Tick) -> list[Row]:
    """Every way from a sink to a store goes through a proxy that loses answers after commits, delays, and cuts."""
    ways = [_Way(hop, Proxy(_port(world, hop.setting))) for hop in HOPS]
    for way in ways:
        way.proxy.start()
    try:
        for store in STORES:
            world.keep(store, _settings(world, ways, store))
        rows: list[Row] = []
        for fault in FAULTS:
            rows += await _everywhere(world, ways, fault, rounds, tick)
        return rows
    finally:
        for way in ways:
            way.proxy.stop()


async def _everywhere(world: World, ways: Sequence[_Way], fault: NetworkFault, rounds: int, tick: Tick) -> list[Row]:
    rows = [Row(f"{fault}: {way.words}") for way in ways]
    async with asyncio.TaskGroup() as group:
        for way, row in zip(ways, rows, strict=True):
            group.create_task(measured(row, rounds, _meet(world, way, fault, rounds, tick)))
    verdicts = await judge(world)
    for way, row in zip(ways, rows, strict=True):
        row.take(verdicts[way.hop.store])
    return rows


async def _meet(world: World, way: _Way, fault: NetworkFault, rounds: int, tick: Tick) -> None:
    for _ in range(rounds):
        await asyncio.sleep(world.random.uniform(0, 0.3))
        trigger = way.hop.before_data if fault is NetworkFault.CUT else way.hop.commit
        way.proxy.arm(fault, trigger, world.random.uniform(0, DELAY_SECONDS))

        async def met() -> bool:
            return not way.proxy.armed

        await world.until(met, f"{fault} between {way.words}")
        await world.grows(way.hop.store)
        tick()


def _port(world: World, setting: str) -> int:
    return int(urlsplit(str(getattr(world.settings, setting))).port or 0)


def _settings(world: World, ways: Sequence[_Way], store: str) -> Mapping[str, str]:
    """The addresses of a sink's own proxies instead of the servers'."""
    changed = {}
    for way in ways:
        if way.hop.store == store:
            parts = urlsplit(str(getattr(world.settings, way.hop.setting)))
            netloc = parts.netloc.rpartition(":")[0] + f":{way.proxy.port}"
            changed[way.hop.setting] = urlunsplit(parts._replace(netloc=netloc))
    return changed


def network_rounds(rounds: int) -> int:
    """How many rounds `network` runs in all."""
    return rounds * len(HOPS) * len(FAULTS)
