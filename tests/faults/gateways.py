"""kill -9 of gateways at random points of their calls: no hold leaks, nothing is overspent, no answer is unrecorded."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import aiohttp

from infra.embedded.ports import free_ports
from infra.embedded.testing import start_servers
from processors.control import Provider
from processors.pricing import Rates
from schemas.errors import QuaestorError
from tests.budget_world import limit_on
from tests.faults.aftermath import GRACE_SECONDS, LEASE_SECONDS, MINUTE_NANO, TOTAL_NANO, Aftermath
from tests.faults.callers import Callers, FaultyProvider
from tests.faults.kills import Tick
from tests.faults.report import Row
from tests.faults.world import DEADLINE_SECONDS, POLL_SECONDS, StuckError
from tests.support.gateway_stack import GatewayStack, stack_on

SERVERS = ("kafka", "registry", "postgres", "redis")
GATEWAYS = 3
#: Rounds after which the calls pause until every lease is over, and at the end.
ROUNDS_BETWEEN_VERDICTS = 50
#: How long a gateway that serves calls lives on, at most.
BUSY_SECONDS = 0.5
VARIABLES = {
    "QUAESTOR_LEASE_SECONDS": str(LEASE_SECONDS),
    "QUAESTOR_REQUEST_TIMEOUT_SECONDS": "3",
    "QUAESTOR_SPOOL_GRACE_SECONDS": str(GRACE_SECONDS),
    "QUAESTOR_CLOCK_SKEW_SECONDS": "0",
}
RATES = Rates(input=150_000, output=600_000)


def gateways(folder: Path, random: Random, rounds: int, tick: Tick) -> list[Row]:
    """Kill -9 of one of three gateways after the other while calls run under hard limits."""
    row = Row("kill -9 of gateways at random points of calls")
    started = time.monotonic()
    try:
        with start_servers(folder / "servers", SERVERS) as servers, stack_on(servers, folder / "data") as stack:
            asyncio.run(_hurt(stack, random, rounds, tick, row))
    except (AssertionError, OSError, StuckError, QuaestorError, TimeoutError, subprocess.SubprocessError) as error:
        row.first_difference = row.first_difference or f"{type(error).__name__}: {error}"
    row.seconds = time.monotonic() - started
    return [row]


async def _hurt(stack: GatewayStack, random: Random, rounds: int, tick: Tick, row: Row) -> None:
    stack.start("stream", "budgets", **VARIABLES)
    # What was killed must be right in the books too: `quaestor verify budgets ledger` is asked in the end.
    stack.start("stream", "ledger")
    stack.start("sink", "postgres")
    async with FaultyProvider(random) as provider:
        keys = await asyncio.to_thread(_prepare, stack, provider.url)
        async with Callers("faulty", keys, random) as callers, Aftermath(stack, callers, provider) as aftermath:
            fleet = _Fleet(stack, callers, random)
            await fleet.start()
            for number in range(1, rounds + 1):
                await aftermath.look(number, await fleet.kill_one())
                row.rounds += 1
                tick()
                if number % ROUNDS_BETWEEN_VERDICTS == 0 or number == rounds:
                    row.take(await aftermath.holds())
                if not row.ok:
                    break
            await fleet.stop()
            row.take(await aftermath.story())
            row.counts = aftermath.counts()


def _prepare(stack: GatewayStack, provider_url: str) -> list[str]:
    """Limits, the provider and its prices, and a key for each tenant."""
    for tenant, amount_nano in MINUTE_NANO.items():
        on = ("tenant", tenant)
        stack.put_limits(
            limit_on(*on, amount_nano, tenant_id=tenant, window="minute"),
            limit_on(*on, TOTAL_NANO, tenant_id=tenant, window="total"),
        )
    stack.route("faulty", Provider(provider_id="faulty", base_url=provider_url), rates=RATES)
    return [stack.key(tenant) for tenant in MINUTE_NANO]


class _Fleet:
    """Gateways that share one log, one Redis and one spool folder, each with a port of its own."""

    def __init__(self, stack: GatewayStack, callers: Callers, random: Random) -> None:
        self._stack, self._callers, self._random = stack, callers, random
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._starting: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """All of them, side by side; callers know those that are ready."""
        for port in free_ports(GATEWAYS):
            self._begin(f"http://127.0.0.1:{port}")
        await asyncio.gather(*self._starting.values())

    async def stop(self) -> None:
        """End them as SIGTERM does."""
        await asyncio.gather(*self._starting.values())
        self._callers.open.clear()
        await asyncio.gather(*(asyncio.to_thread(self._stack.stop, each) for each in self._processes.values()))

    async def kill_one(self) -> set[str]:
        """The one that is open longest, while it serves calls; their marks. Another takes its place at once."""
        await _until(lambda: bool(self._callers.open), "a gateway is ready")
        url = self._callers.open[0]
        await asyncio.sleep(self._random.uniform(0, BUSY_SECONDS))
        under_way = self._callers.under_way.setdefault(url, set())
        await _until(lambda: bool(under_way), f"calls at {url}")
        marks = set(under_way)
        self._callers.open.remove(url)
        await asyncio.to_thread(self._stack.stop, self._processes[url], signal.SIGKILL)
        self._begin(url)
        return marks

    def _begin(self, url: str) -> None:
        port = {"QUAESTOR_GATEWAY_PORT": url.rpartition(":")[2]}
        self._processes[url] = self._stack.start("gateway", "--workers", "1", **VARIABLES, **port)
        self._starting[url] = asyncio.create_task(self._open(url))

    async def _open(self, url: str) -> None:
        async with aiohttp.ClientSession() as session:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while time.monotonic() < deadline:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{url}/readyz") as response:
                        if response.status == 200:
                            self._callers.open.append(url)
                            return
                await asyncio.sleep(POLL_SECONDS)


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise StuckError(f"not within {DEADLINE_SECONDS:.0f} s: {what}")
        await asyncio.sleep(POLL_SECONDS / 10)
