"""CPU of every process per answered request, with everything running: where a request's cost lies behind the gateway.

    python -m benchmarks.behind [--rates 100,250] [--seconds 40] [--connections 32] [--freshness]

Runs the whole product. Each row is one load: nothing at all (CPU per second then), fixed rates, and as many connections
as fast as answers come. Servers count with all that they started; batches are those that the sinks wrote meanwhile.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

from benchmarks.fresh import Steps, since, steps_told
from benchmarks.freshness import Freshness, FreshnessWatch
from benchmarks.measure import Measured, cpu_seconds, machine, wrk
from benchmarks.product import Product, body, running
from benchmarks.rate import fixed_rate

#: The broker compiles what it serves meanwhile; much of that is over after 45 s of load.
WARM_UP_SECONDS = 45
WARM_UP_CONNECTIONS = 8
SINKS = ("sink-postgres", "sink-clickhouse", "sink-audit", "sink-redis")


@dataclass
class Load:
    """What one load cost."""

    what: str
    measured: Measured | None
    seconds: float
    #: CPU milliseconds of each process.
    spent: Mapping[str, float]
    steps: Mapping[str, Steps]
    freshness: list[Freshness] = field(default_factory=list)


class Bench:
    """The loads, on a running product."""

    def __init__(self, product: Product, *, freshness: bool) -> None:
        """With `freshness` the stores are watched meanwhile, by this process, which takes CPU too."""
        self.product, self.freshness = product, freshness
        self.pids = {name: int(each["pid"]) for name, each in product.processes().items() if each.get("pid")}
        self.url = f"{product.gateway_url}/v1/chat/completions"

    def nothing(self, seconds: int) -> Load:
        """No request at all."""
        return self._during("nothing", lambda: time.sleep(seconds))

    def rate(self, rate: float, seconds: int) -> Load:
        """When they are due."""
        headers = self.product.headers
        return self._during(f"{rate:g}/s", lambda: fixed_rate(self.url, body(), headers, rate=rate, seconds=seconds))

    def closed(self, connections: int, seconds: int) -> Load:
        """As fast as answers come."""
        headers = self.product.headers
        load = lambda: wrk(self.url, body(), headers, connections=connections, seconds=seconds)  # noqa: E731
        return self._during(f"{connections} connections", load)

    def _during(self, what: str, load: Callable[[], Measured | None]) -> Load:
        watch = FreshnessWatch(self.product.settings()) if self.freshness else None
        with watch or nullcontext():
            before, told, started = self._cpu(), self._told(), time.monotonic()
            measured = load()
            seconds, after = time.monotonic() - started, self._cpu()
            steps = {name: since(told[name], now) for name, now in self._told().items()}
        self.product.drain()
        spent = {name: 1_000 * (after[name] - before[name]) for name in after}
        return Load(what, measured, seconds, spent, steps, watch.results if watch else [])

    def _cpu(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self.pids.items()}

    def _told(self) -> dict[str, Steps]:
        return {name: steps_told(pid) for name, pid in self.pids.items() if name in SINKS}


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.behind")
    parser.add_argument("--rates", default="100,250", help="requests per second, one load each")
    parser.add_argument("--seconds", type=int, default=40, help="length of each load")
    parser.add_argument("--connections", type=int, default=32, help="of the last load; 0: none")
    parser.add_argument("--freshness", action="store_true", help="say how old events were when they could be read")
    given = parser.parse_args()
    print(f"Machine: {machine()}\n")
    with running() as product:
        bench = Bench(product, freshness=given.freshness)
        bench.closed(WARM_UP_CONNECTIONS, WARM_UP_SECONDS)
        loads = [bench.nothing(given.seconds // 2)]
        loads += [bench.rate(float(rate), given.seconds) for rate in given.rates.split(",") if rate]
        if given.connections:
            loads.append(bench.closed(given.connections, given.seconds))
    show(loads)
    print(f"\nMachine: {machine()}")
    return 0


def show(loads: list[Load]) -> None:
    """Print all of them as Markdown tables."""
    print(f"| CPU ms per request (nothing: per second) | {' | '.join(load.what for load in loads)} |")
    print(f"|---|{'---|' * len(loads)}")
    for name in sorted(loads[0].spent, key=lambda name: -loads[-1].spent[name]):
        print(f"| {name} | {' | '.join(f'{load.spent[name] / _units(load):.2f}' for load in loads)} |")
    print(f"| all | {' | '.join(f'{sum(load.spent.values()) / _units(load):.2f}' for load in loads)} |")
    print(
        "\n| load | requests/s | p50 / p99 ms | errors | batches a second: waiting, writing s |\n|---|---|---|---|---|"
    )
    for load in loads:
        if load.measured is not None:
            latencies = f"{load.measured.p50_milliseconds:.0f} / {load.measured.p99_milliseconds:.0f}"
            figures = f"{load.measured.requests_per_second:.1f} | {latencies} | {load.measured.errors}"
            print(f"| {load.what} | {figures} | {', '.join(_batches(load))} |")
    for load in loads:
        for each in load.freshness:
            ages = f"fresh p50 {each.p50_seconds:.2f} s, p99 {each.p99_seconds:.2f} s, max {each.max_seconds:.2f} s"
            print(f"{load.what}, {each.store}: {each.events:,} events, {ages}, {each.missing} missing")


def _units(load: Load) -> float:
    return load.measured.requests or 1 if load.measured is not None else load.seconds


def _batches(load: Load) -> list[str]:
    found = []
    for name, steps in load.steps.items():
        wait, write = steps.get("wait", (0.0, 0.0)), steps.get("write", (0.0, 0.0))
        means = (taken / count if count else 0.0 for taken, count in (wait, write))
        found.append(f"{name} {write[1] / load.seconds:.2f}: {', '.join(f'{mean:.2f}' for mean in means)}")
    return found


if __name__ == "__main__":
    sys.exit(main())
