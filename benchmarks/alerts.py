"""Alerts: from a call that crosses a threshold to the webhook that was received, under load.

    python -m benchmarks.alerts [--alerts 300] [--rate 50] [--alert-rate 5]

Runs the whole product. A limit on each agent run is crossed by its first call, so each such call makes one alert. Times
run from before the call is sent to the webhook's arrival, so they are longer than from the event.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import sys
import time
from collections import Counter
from pathlib import Path

import aiohttp
from aiohttp import web

from benchmarks.measure import machine, percentile
from benchmarks.product import Product, body, running

WARM_UP_SECONDS = 60
#: Alerts that have not come by then are missing.
WAIT_SECONDS = 30.0
TENANT = "bench"
OK = 200


class Receiver:
    """A webhook that notes when each alert came, by the counter it is about."""

    def __init__(self) -> None:
        """Nothing came yet."""
        self.came: dict[str, float] = {}
        self.repeated = 0
        self.changed = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        """Note one alert."""
        limit = json.loads(await request.read())["data"]["limit"]
        self.repeated += limit in self.came
        self.came.setdefault(limit, time.monotonic())
        self.changed.set()
        return web.Response(status=204)


def main() -> int:
    """Run and print; exit code 1 when an alert is missing or came twice."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alerts")
    parser.add_argument("--alerts", type=int, default=300)
    parser.add_argument("--rate", type=float, default=50.0, help="requests per second beside")
    parser.add_argument("--alert-rate", type=float, default=5.0, help="crossings per second")
    given = parser.parse_args()
    print(f"Machine: {machine()}\n")
    with running() as product:
        return asyncio.run(measure(product, given.alerts, given.rate, given.alert_rate))


async def measure(product: Product, alerts: int, rate: float, alert_rate: float) -> int:
    """Cross thresholds on a running product."""
    receiver = Receiver()
    runner = web.AppRunner(_application(receiver))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    limit_id = await asyncio.to_thread(_prepare, product, runner.addresses[0][1])
    sent: dict[str, float] = {}
    async with aiohttp.ClientSession(headers=product.headers) as session:
        url = f"{product.gateway_url}/v1/chat/completions"
        beside = asyncio.create_task(_load(session, url, rate, WARM_UP_SECONDS + alerts / alert_rate))
        await asyncio.sleep(WARM_UP_SECONDS)
        async with asyncio.TaskGroup() as group:
            for number in range(alerts):
                run = f"run-{number}"
                counter = f"{limit_id}.{hashlib.sha256(run.encode()).hexdigest()[:16]}"
                sent[counter] = time.monotonic()
                group.create_task(_call(session, url, {"x-quaestor-run-id": run}))
                await asyncio.sleep(1 / alert_rate)
        answered = await beside
    await _wait(receiver, sent)
    await runner.cleanup()
    return _show(receiver, sent, answered, rate)


def _application(receiver: Receiver) -> web.Application:
    application = web.Application()
    application.router.add_post("/", receiver.take)
    return application


def _prepare(product: Product, port: int) -> str:
    """A channel to the receiver, and a limit that every run's first call crosses; its id."""
    target = Path(product.data) / "webhook-url"
    target.write_text(f"http://127.0.0.1:{port}/", encoding="utf-8")
    product.run("alert", "add", "bench", "--tenant", TENANT, "--kind", "webhook", "--target", f"file:{target}")
    limit = ("--run", "*", "--amount", "0.000000001", "--window", "total", "--soft", "--threshold", "100", "--json")
    limit_id: str = json.loads(product.run("budget", "set", "--tenant", TENANT, *limit))["id"]
    return limit_id


async def _load(session: aiohttp.ClientSession, url: str, rate: float, seconds: float) -> Counter[int]:
    """So many calls a second beside; how often each status was answered."""
    answered, started = Counter[int](), time.monotonic()

    async def one() -> None:
        answered[await _call(session, url, {})] += 1

    async with asyncio.TaskGroup() as group:
        for index in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + index / rate - time.monotonic()))
            group.create_task(one())
    return answered


async def _call(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> int:
    async with session.post(url, data=body(), headers=headers) as response:
        await response.read()
        return response.status


async def _wait(receiver: Receiver, sent: dict[str, float]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WAIT_SECONDS):
            while sent.keys() - receiver.came.keys():
                receiver.changed.clear()
                await receiver.changed.wait()


def _show(receiver: Receiver, sent: dict[str, float], answered: Counter[int], rate: float) -> int:
    seconds = sorted(receiver.came[counter] - at for counter, at in sent.items() if counter in receiver.came)
    p50, p99, longest = (percentile(seconds, share) for share in (0.5, 0.99, 1.0))
    missing = len(sent) - len(seconds)
    sys.stderr.write(f"statuses beside: {dict(answered)}\n")
    print("| call to received webhook | alerts | missing | repeated | p50 s | p99 s | longest s |")
    print("|---|---|---|---|---|---|---|")
    figures = (len(sent), missing, receiver.repeated, f"{p50:.2f}", f"{p99:.2f}", f"{longest:.2f}")
    beside = f"{rate:.0f} requests/s beside ({answered[OK]} of {answered.total()} answered)"
    print(f"| at {beside} | {' | '.join(map(str, figures))} |")
    return 1 if missing or receiver.repeated else 0


if __name__ == "__main__":
    sys.exit(main())
