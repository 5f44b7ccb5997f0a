"""A fixed rate: requests are sent when due, whatever became of those before, and timed from when they were due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import aiohttp
import uvloop

from benchmarks.measure import Measured, percentile

CONNECTIONS_MAX = 200
TIMEOUT_SECONDS = 60
OK = 200


def fixed_rate(url: str, body: bytes, headers: Mapping[str, str], *, rate: float, seconds: int) -> Measured:
    """POST the body `rate` times a second."""
    return uvloop.run(_run(url, body, headers, rate, int(rate * seconds)))


async def _run(url: str, body: bytes, headers: Mapping[str, str], rate: float, count: int) -> Measured:
    latencies: list[float] = []
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:

        async def one(due: float) -> None:
            async with session.post(url, data=body) as response:
                await response.read()
                if response.status == OK:
                    latencies.append(time.monotonic() - due)

        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for index in range(count):
                due = started + index / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(one(due))
        spent = time.monotonic() - started
    ordered = sorted(latencies)
    p50, p99 = (1_000 * percentile(ordered, share) for share in (0.5, 0.99))
    return Measured(len(latencies), len(latencies) / spent, p50, p99, count - len(latencies))
