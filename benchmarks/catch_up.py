"""What a sink that catches up costs the gateway: its p99 at a fixed rate with a backlog, and without before and after.

    python -m benchmarks.catch_up [--sink postgres] [--records 1000000] [--rate 50] [--seconds 60]

Runs the whole product. The sink (and the ledger stream, whose own work is not the question) stands still while the
backlog is recorded, then the sink goes on and the same load is sent until it has caught up, and once more afterwards.
The rate is one that the machine sustains with everything running, or a queue would be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from benchmarks.filling import EVENTS_WITHOUT_LEDGER, fill
from benchmarks.measure import Measured, machine, monitor_url, told_by
from benchmarks.product import Product, body, running
from benchmarks.rate import fixed_rate

#: The longest that the settings allow: the group must not give a standing process's partitions away.
SESSION_SECONDS = 120
#: A broker that is still being compiled costs more than any sink.
WARM_UP_SECONDS = 60
#: What lies between the log and a store that keeps up, in seconds of the load.
LIVE_SECONDS = 2
#: How long a sink takes at most to say how much came while it stood still.
WAKING_SECONDS = 10.0
CATCH_UP_SECONDS_MAX = 1_800


def main() -> int:
    """Run and print; exit code 1 when the sink did not catch up."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catch_up")
    parser.add_argument("--sink", default="postgres", choices=["postgres", "clickhouse", "audit"])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=50.0, help="requests per second")
    parser.add_argument("--seconds", type=int, default=120, help="length of the loads before and after")
    given = parser.parse_args()
    os.environ["QUAESTOR_SESSION_SECONDS"] = str(SESSION_SECONDS)
    print(f"Machine: {machine()}\n")
    with running() as product:
        return measure(product, f"sink-{given.sink}", given.records, given.rate, given.seconds)


def measure(product: Product, sink: str, records: int, rate: float, seconds: int) -> int:
    """The three loads on a running product."""
    url = f"{product.gateway_url}/v1/chat/completions"
    told = f"{monitor_url(product.pid(sink))}/status"

    def asked() -> bool:
        # As often as while it catches up: who asks is the load's own process, whose threads wait for each other.
        told_by(told)
        return False

    def load(length: int) -> Measured:
        return fixed_rate(url, body(), product.headers, rate=rate, seconds=length, over=asked)

    load(WARM_UP_SECONDS)
    product.drain()
    with product.stopped(("stream-ledger",)):
        before = load(seconds)
        product.drain()
        with product.stopped((sink,)):
            filled = fill(product.settings(), records, ledger=False)
            # What the others make of the backlog is not the question either, nor what ClickHouse merges of it.
            product.drain()
            product.rest()
        lag = Lag(told, LIVE_SECONDS * rate * EVENTS_WITHOUT_LEDGER)
        during = fixed_rate(
            url, body(), product.headers, rate=rate, seconds=1, over=lag.is_caught_up, seconds_max=CATCH_UP_SECONDS_MAX
        )
        spent = lag.seconds()
        product.drain()
        after = load(seconds)
    events = sum(each.records for each in filled.totals.values()) - lag.left
    print("| gateway at a fixed rate | requests/s | p50 ms | p99 ms | errors |\n|---|---|---|---|---|")
    for what, each in (("nothing behind", before), (f"{sink} catches up", during), ("nothing behind again", after)):
        figures = (f"{each.requests_per_second:.0f}", f"{each.p50_milliseconds:.2f}", f"{each.p99_milliseconds:.2f}")
        print(f"| {what} | {' | '.join(figures)} | {each.errors} |")
    cost = 2 * during.p99_milliseconds / (before.p99_milliseconds + after.p99_milliseconds) - 1
    print(f"\n{sink}: {events:,} events in {spent:.0f} s, {events / spent:,.0f} a second; p99 {100 * cost:+.0f} %")
    if not lag.is_over:
        print(f"{sink} did not catch up within {CATCH_UP_SECONDS_MAX} s: {lag.left:,} left")
    return 0 if lag.is_over else 1


class Lag:
    """How far a sink is behind, by its own word, until that is no more than live traffic makes."""

    def __init__(self, told: str, live_events: float) -> None:
        """`told` is the URL of the sink's status. Time counts from now."""
        # Not by `quaestor status`: a process a second is half a core.
        self._told, self._live_events = told, live_events
        self._started = self._at = time.monotonic()
        #: Events behind when it was asked last.
        self.left = 0
        self.is_over = False

    def is_caught_up(self) -> bool:
        """Ask; for a thread of its own."""
        lag = json.loads(told_by(self._told))["lag_events"]
        self._at = time.monotonic()
        # One that has just been woken up says what it knew when it was stopped: nothing is behind.
        told_since_woken = self.left > self._live_events or self._at - self._started > WAKING_SECONDS
        if lag is not None:
            self.is_over = told_since_woken and lag <= self._live_events
            self.left = lag
        return self.is_over

    def seconds(self) -> float:
        """Until it was asked last."""
        return self._at - self._started


if __name__ == "__main__":
    sys.exit(main())
