"""The gateway under load, each row beside the direct call to the simulated provider in the same run.

`python -m benchmarks gateway` starts the whole product on free ports in a temporary folder, and stops it afterwards.
Where a row says "log only", the streams and the sinks but the Redis one (admission needs it) are stopped meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.freshness import Freshness, FreshnessWatch
from benchmarks.measure import Measured, cpu_seconds, machine, wrk
from benchmarks.product import Product, body, running
from benchmarks.rate import fixed_rate

#: Before each row, and before the first with the sinks stopped and the first with everything running.
WARM_UP_SECONDS, SERVICE_SECONDS = 5, 40
DIRECT_SECONDS = 10
PROVIDER_MILLISECONDS = 50
Load = Callable[[str, bytes, int], Measured]


@dataclass(frozen=True)
class Row:
    """One line of the results."""

    what: str
    gateway: Measured
    direct: Measured
    cpu_milliseconds: float


@dataclass
class Results:
    """Everything one run measured."""

    machine: str
    up_seconds: float
    up_again_seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    freshness: dict[str, list[Freshness]] = field(default_factory=dict)
    mebibytes: dict[str, float] = field(default_factory=dict)
    #: How long the sinks took for what was left when the long run ended.
    drain_seconds: float = 0.0


class Bench:
    """The rows, on a running product."""

    def __init__(self, product: Product, seconds: int, long_seconds: int, say: Callable[[str], None]) -> None:
        """`seconds` of each row; `say` is told what is being done."""
        self.product, self.seconds, self.long_seconds, self.say = product, seconds, long_seconds, say
        self.results = Results(machine(), product.up_seconds)

    def run(self) -> Results:
        """All of them."""
        with self.product.stopped():
            self._warm()
            self.row("32 connections, log only", self.closed(32))
            self.row("1 connection, log only", self.closed(1))
            self.row("24-chunk stream, 32 connections, log only", self.closed(32), stream=True)
            self.row("100/s, provider of 50 ms, log only", self.rate(100), latency_milliseconds=PROVIDER_MILLISECONDS)
        self._drain()
        self._warm()
        self.row("1 connection, everything running", self.closed(1))
        self.watched("100/s, provider of 50 ms, everything running", self.rate(100), PROVIDER_MILLISECONDS)
        self._drain()
        self.long()
        self.results.mebibytes = self.product.mebibytes()
        self.results.up_again_seconds = self.product.restart_seconds()
        return self.results

    def _warm(self) -> None:
        """As warm as in service: the broker's compiler works beside what it serves for most of a minute."""
        self.say("warming up")
        self.closed(32)(f"{self.product.gateway_url}/v1/chat/completions", body(), SERVICE_SECONDS)

    def _drain(self) -> None:
        self.say("waiting until nothing lags, and ClickHouse rests")
        self.say(f"  {self.product.drain():.0f} s")
        self.product.rest()

    def closed(self, connections: int) -> Load:
        """As fast as answers come."""
        return lambda url, sent, seconds: wrk(url, sent, self.product.headers, connections=connections, seconds=seconds)

    def rate(self, rate: int) -> Load:
        """When they are due."""
        return lambda url, sent, seconds: fixed_rate(url, sent, self.product.headers, rate=rate, seconds=seconds)

    def row(self, what: str, load: Load, *, stream: bool = False, latency_milliseconds: int = 0) -> Measured:
        """One row: the gateway, then the simulated provider directly."""
        self.say(what)
        return self._row(what, load, self.seconds, stream=stream, latency_milliseconds=latency_milliseconds)

    def _row(self, what: str, load: Load, seconds: int, *, stream: bool, latency_milliseconds: int) -> Measured:
        pid, url = self.product.pid("gateway"), f"{self.product.gateway_url}/v1/chat/completions"
        sent = body(stream=stream, latency_milliseconds=latency_milliseconds)
        load(url, sent, WARM_UP_SECONDS)
        before = cpu_seconds(pid)
        through = load(url, sent, seconds)
        spent = cpu_seconds(pid) - before
        sent = body(stream=stream, latency_milliseconds=latency_milliseconds, model="sim-small")
        direct = load(f"{self.product.simulator_url}/chat/completions", sent, min(DIRECT_SECONDS, seconds))
        self.results.rows.append(Row(what, through, direct, 1_000 * spent / max(1, through.requests)))
        self.say(f"  {self.results.rows[-1]}")
        return through

    def watched(self, what: str, load: Load, latency_milliseconds: int = 0, seconds: int = 0, **how: Any) -> None:
        """A row with everything running, and how fresh the stores were meanwhile, watched so."""
        self.say(what)
        with FreshnessWatch(self.product.settings(), **how) as watch:
            self._row(what, load, seconds or self.seconds, stream=False, latency_milliseconds=latency_milliseconds)
        self.results.freshness[what] = watch.results
        self.say(f"  {watch.results}")

    def long(self) -> None:
        """As many as 32 connections get, for minutes: whether what works behind the log keeps up."""
        what = f"32 connections for {self.long_seconds} s, everything running"
        self.watched(what, self.closed(32), seconds=self.long_seconds, look_seconds=0.25)
        self.results.drain_seconds = self.product.drain()


def run(seconds: int, long_seconds: int, say: Callable[[str], None]) -> Results:
    """All rows, on a product of this run's own."""
    with running() as product:
        return Bench(product, seconds, long_seconds, say).run()


def show(results: Results) -> None:
    """Print the results as Markdown tables."""
    print(f"Machine: {results.machine}\n")
    _table(("what", "requests/s", "CPU ms/request", "p50 / p99 ms", "added p50 / p99 ms", "errors"), _rows(results))
    print()
    _table(("while", "store", "events", "fresh p50", "p99", "max", "missing"), _freshness(results))
    total = sum(results.mebibytes.values())
    print(f"\nGateway memory after the runs: {results.mebibytes['gateway']:.0f} MiB; the whole stack: {total:.0f} MiB")
    print(f"`up` with artifacts cached: {results.up_seconds:.1f} s; on a used folder: {results.up_again_seconds:.1f} s")
    print(f"What was left when the long run ended was applied within {results.drain_seconds:.0f} s")


def _rows(results: Results) -> list[tuple[Any, ...]]:
    return [
        (
            row.what,
            f"{row.gateway.requests_per_second:.0f}",
            f"{row.cpu_milliseconds:.2f}",
            f"{row.gateway.p50_milliseconds:.2f} / {row.gateway.p99_milliseconds:.2f}",
            _added(row),
            row.gateway.errors,
        )
        for row in results.rows
    ]


def _added(row: Row) -> str:
    p50 = row.gateway.p50_milliseconds - row.direct.p50_milliseconds
    p99 = row.gateway.p99_milliseconds - row.direct.p99_milliseconds
    return f"{p50:.2f} / {p99:.2f}"


def _freshness(results: Results) -> list[tuple[Any, ...]]:
    return [
        (
            what,
            each.store,
            each.events,
            *(f"{at:.2f} s" for at in (each.p50_seconds, each.p99_seconds, each.max_seconds)),
            each.missing,
        )
        for what, stores in results.freshness.items()
        for each in stores
    ]


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
