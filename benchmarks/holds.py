"""Placing holds on a real Valkey: latency at a fixed rate, CPU, and how many a second fit on one hot key.

    python -m benchmarks.holds [--limits 6] [--rate 500] [--seconds 10]

Starts a server in a temporary folder, opens a tenant as the sink would, and asks as a gateway does: which limits a call
stands under, its legs, place, on a gateway's event loop (uvloop). What pacing alone costs, nothing begun at that rate,
is told and not counted as a hold's. No event follows, so the overlay keeps every hold until its time is over and is
swept, as it is when Kafka is slow. Loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import psutil
import uvloop

from benchmarks.measure import cpu_seconds, machine, percentile
from infra.embedded.ports import free_ports
from infra.embedded.process import Spawner
from infra.embedded.progress import ignore
from infra.embedded.servers.base import ServerContext
from infra.embedded.servers.valkey import ValkeyServer
from processors.budgets import HoldSize, Payer, Target, legs_for, standings
from processors.control import ControlState, Limit, Origin, Threshold, evolve, limit_id_of, set_limit
from schemas.events import ControlEvent
from schemas.ids import RANDOM_BYTES_PER_UUID7, uuid7
from schemas.money import NANO_PER_UNIT
from schemas.topics import BUDGETS
from sinks.redis.client import RedisClient
from sinks.redis.connection import texts
from sinks.redis.holds import Placed, PlaceHold
from sinks.redis.keys import gate_key, tenants_key
from sinks.redis.slots import Ownership, Slots
from sinks.redis.store import RedisHoldStore
from streams.partitioner import partition_of

TENANT = "acme"
PAYER = Payer(
    tenant_id=TENANT, team_id="search", project_id="web", key_id="key_1", run_id="run-1", tags={"env": "prod"}
)
TARGET = Target("openai", "gpt-4o", "fast")
SIZE = HoldSize(amount_nano=1_000, currency="USD", tokens=70)
#: Where the limits stand, in the order in which they are taken; a second window of each follows.
PLACES = (
    ("tenant", TENANT),
    ("team", "search"),
    ("project", "web"),
    ("run", "*"),
    ("tag", "env=*"),
    ("model", "gpt-4o"),
)
WINDOWS = ("month", "day", "hour", "total")
THRESHOLDS = (
    Threshold(percent=80),
    Threshold(percent=90, action="cheaper", models=("gpt-4o-mini",)),
    Threshold(percent=95, action="approval"),
)
IN_FLIGHT = 64
WARM_UP_SECONDS = 2.0
GOALS = "goals: p99 <= 2 ms at 500/s, <= 0.3 ms CPU each, >= 5,000 holds/s on one hot key; policy <= 1 ms"


def limited(count: int) -> ControlState:
    """Control with so many limits that all apply to the one caller."""
    state = ControlState()
    for number in range(count):
        scope, scope_id = PLACES[number % len(PLACES)]
        window = WINDOWS[number // len(PLACES) % len(WINDOWS)]
        limit = Limit(
            limit_id=limit_id_of(TENANT, scope, scope_id, window),
            tenant_id=TENANT,
            scope=scope,  # type: ignore[arg-type]  # of PLACES
            scope_id=scope_id,
            amount_nano=1_000_000 * NANO_PER_UNIT,
            currency="USD",
            window=window,  # type: ignore[arg-type]  # of WINDOWS
            thresholds=THRESHOLDS,
        )
        event = set_limit(state, limit, Origin(event_id=_new_id(), now_micros=_now(), actor="benchmark"))
        if not isinstance(event, ControlEvent):
            raise SystemExit(event.message)
        state = evolve(state, event)
    return state


async def opened(url: str) -> None:
    """Open the tenant's slot and its gate, as the sink does."""
    client = RedisClient(url)
    await client.open()
    partition = partition_of(TENANT.encode(), BUDGETS.partitions)
    gate = (gate_key(partition), tenants_key(partition))
    epoch = texts(await client.run("gate_claim", gate))[0]
    generation = texts(await client.run("gate_generation", gate, epoch, client.run_id, "0", "topic", ""))[1]
    await client.run("gate_write", gate, epoch, generation, "0", "1", str(_now() // 1_000 + 3_600_000), "0", "", "0")
    owner = Ownership(int(epoch), generation, "topic", is_open=True)
    await Slots(client).claim(TENANT, owner, generation=generation, open_word="1", new_cursor=0)
    await client.close()


async def place(store: RedisHoldStore, state: ControlState) -> None:
    """One hold, from the limits to the answer; raises SystemExit when it is not placed."""
    now = _now()
    found = legs_for(standings(state, PAYER, TARGET, now), PAYER, TARGET, SIZE, now, state.rates)
    answer = await store.place(PlaceHold(TENANT, _new_id(), found.legs, found.allowed_nano))
    if not isinstance(answer, Placed):
        raise SystemExit(f"not placed: {answer}")


async def nothing() -> None:
    """What pacing is measured with."""


def evaluated(state: ControlState, times: int = 20_000) -> list[float]:
    """Microseconds of one evaluation of the policy, from the limits in force to what each allows; sorted."""
    spent = []
    for _ in range(times):
        began, now = time.perf_counter(), _now()
        legs_for(standings(state, PAYER, TARGET, now), PAYER, TARGET, SIZE, now, state.rates)
        spent.append(1e6 * (time.perf_counter() - began))
    return sorted(spent)


async def paced(call: Callable[[], Awaitable[None]], rate: int, seconds: float) -> list[float]:
    """Milliseconds of each call from when it was due, one every 1/rate seconds, whatever the others do; sorted.

    A thread keeps the time: the loop's own timers go by whole milliseconds, half of what a hold takes.
    """
    spent: list[float] = []
    loop, ended, count = asyncio.get_running_loop(), asyncio.Event(), int(rate * seconds)

    async def timed(due: float) -> None:
        await call()
        spent.append(1_000 * (time.perf_counter() - due))

    def keep_time(begin: Callable[[float], object]) -> None:
        began = time.perf_counter()
        for due in (began + number / rate for number in range(count)):
            time.sleep(max(0.0, due - time.perf_counter()))
            loop.call_soon_threadsafe(begin, due)
        loop.call_soon_threadsafe(ended.set)

    async with asyncio.TaskGroup() as group:
        keeping = loop.run_in_executor(None, keep_time, lambda due: group.create_task(timed(due)))
        await ended.wait()
        await keeping
    return sorted(spent)


async def crowded(store: RedisHoldStore, state: ControlState, seconds: float) -> int:
    """Holds placed when so many are always under way."""
    until, placed = time.perf_counter() + seconds, 0

    async def one_after_the_other() -> None:
        nonlocal placed
        while time.perf_counter() < until:
            await place(store, state)
            placed += 1

    await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))
    return placed


async def measure(url: str, server_pid: int, limits: int, rate: int, seconds: float) -> None:
    """Both loads, and the table."""
    await opened(url)
    state = limited(limits)
    store = RedisHoldStore(url, lag_seconds_max=3_600)
    await store.open()
    try:
        call = partial(place, store, state)
        await paced(call, rate, WARM_UP_SECONDS)
        idle = time.process_time()
        await paced(nothing, rate, seconds)
        idle = time.process_time() - idle
        print(f"| 0 | {rate}/s, pacing alone | | | | {1_000 * idle / (rate * seconds):.3f} | |", flush=True)
        own, server = time.process_time() + idle, cpu_seconds(server_pid)
        spent = await paced(call, rate, seconds)
        _print(limits, f"{rate}/s, one by one", len(spent) / seconds, spent, len(spent), own, server, server_pid)
        own, server, began = time.process_time(), cpu_seconds(server_pid), time.perf_counter()
        placed = await crowded(store, state, seconds)
        per_second = placed / (time.perf_counter() - began)
        _print(limits, f"{IN_FLIGHT} at once, one key", per_second, (), placed, own, server, server_pid)
    finally:
        await store.close()


def _print(
    limits: int, what: str, per_second: float, spent: Sequence[float], count: int, own: float, server: float, pid: int
) -> None:
    own, server = 1_000 * (time.process_time() - own) / count, 1_000 * (cpu_seconds(pid) - server) / count
    times = f"{percentile(spent, 0.5):.2f} | {percentile(spent, 0.99):.2f}" if spent else "|"
    print(f"| {limits} | {what} | {per_second:,.0f} | {times} | {own:.3f} | {server:.3f} |", flush=True)


def _now() -> int:
    return time.time_ns() // 1_000


def _new_id() -> str:
    return uuid7(_now(), os.urandom(RANDOM_BYTES_PER_UUID7))


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.holds")
    parser.add_argument("--limits", type=int, default=6)
    parser.add_argument("--rate", type=int, default=500, help="holds per second")
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    print(f"Machine: {machine()}\n{GOALS}\n")
    head = ("limits", "load", "holds/s", "p50 ms", "p99 ms", "own CPU ms each", "server's CPU ms each")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    with tempfile.TemporaryDirectory() as folder, Spawner() as spawner:
        (port,) = free_ports(1)
        server = ValkeyServer(ServerContext(Path(folder), spawner), port)
        server.prepare(ignore)
        server.start()
        try:
            pid = _listening(port)
            uvloop.run(measure(server.settings()["redis_url"], pid, given.limits, given.rate, given.seconds))
            policy = evaluated(limited(given.limits))
            figures = (f"{percentile(policy, share):.0f} us at p{share:.0%}".rstrip("%") for share in (0.5, 0.99))
            print(f"\npolicy evaluation: {', '.join(figures)}")
        finally:
            server.stop()
    return 0


def _listening(port: int) -> int:
    """The process that listens on a port."""
    mine = psutil.Process().children(recursive=True)
    for process in mine:
        if any(one.laddr.port == port and one.status == psutil.CONN_LISTEN for one in process.net_connections()):
            return process.pid
    raise SystemExit(f"nothing of ours listens on {port}")


if __name__ == "__main__":
    sys.exit(main())
