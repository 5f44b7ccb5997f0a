"""A fixed rate: requests are sent when due, whatever became of those before, and timed from when they were due."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from itertools import count

import aiohttp
import uvloop

from benchmarks.measure import Measured, percentile

CONNECTIONS_MAX = 200
TIMEOUT_SECONDS = 60
LOOK_SECONDS = 1.0
OK = 200


def fixed_rate(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    rate: float,
    seconds: int,
    over: Callable[[], bool] = lambda: True,
    seconds_max: int = 0,
) -> Measured:
    """POST the body `rate` times a second, for so many seconds and on until it is `over`, at most `seconds_max`.

    `over` is asked in a thread, once a second.
    """
    return uvloop.run(_run(url, body, headers, rate, _Length(seconds, max(seconds, seconds_max), over)))


class _Length:
    """How long a load lasts."""

    def __init__(self, seconds: int, seconds_max: int, over: Callable[[], bool]) -> None:
        self._seconds, self._seconds_max, self._over = seconds, seconds_max, over
        self._is_over = False

    def goes_on(self, seconds: float) -> bool:
        """Whether a request is due so long after the first."""
        return seconds < self._seconds or (not self._is_over and seconds < self._seconds_max)

    async def watch(self) -> None:
        """Ask until it is over."""
        while not self._is_over:
            self._is_over = await asyncio.to_thread(self._over)
            await asyncio.sleep(LOOK_SECONDS)


async def _run(url: str, body: bytes, headers: Mapping[str, str], rate: float, length: _Length) -> Measured:
    latencies: list[float] = []
    sent = 0
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:

        async def one(due: float) -> None:
            # What is not answered is counted as an error, by its absence.
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with session.post(url, data=body) as response:
                    await response.read()
                    if response.status == OK:
                        latencies.append(time.monotonic() - due)

        watching = asyncio.create_task(length.watch())
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for index in count():
                if not length.goes_on(index / rate):
                    break
                due = started + index / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(one(due))
                sent += 1
        spent = time.monotonic() - started
        watching.cancel()
    ordered = sorted(latencies)
    p50, p99 = (1_000 * percentile(ordered, share) for share in (0.5, 0.99))
    return Measured(len(latencies), len(latencies) / spent, p50, p99, sent - len(latencies))
