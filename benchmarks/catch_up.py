"""What a sink that catches up costs the gateway: its p99 at a fixed rate with a backlog, and without before and after.

    python -m benchmarks.catch_up [--sink postgres] [--records 1000000] [--rate 50] [--seconds 20]

Runs the whole product. The sink (and the ledger stream, whose own work is not the question) stands still while the
backlog is recorded, then the sink goes on and the same load is sent again while it works, and once more afterwards.
The rate is one that the machine sustains with everything running, or a queue would be measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from benchmarks.measure import Measured, machine
from benchmarks.product import Product, body, running
from benchmarks.rate import fixed_rate
from benchmarks.sinks import fill

#: The longest that the settings allow: the group must not give a standing process's partitions away.
SESSION_SECONDS = 120
#: A broker that is still being compiled costs more than any sink.
WARM_UP_SECONDS = 60


def main() -> int:
    """Run and print; exit code 1 when the sink was done before the load."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catch_up")
    parser.add_argument("--sink", default="postgres", choices=["postgres", "clickhouse", "audit"])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=50.0, help="requests per second")
    parser.add_argument("--seconds", type=int, default=20, help="length of each load")
    given = parser.parse_args()
    os.environ["QUAESTOR_SESSION_SECONDS"] = str(SESSION_SECONDS)
    print(f"Machine: {machine()}\n")
    with running() as product:
        return measure(product, f"sink-{given.sink}", given.records, given.rate, given.seconds)


def measure(product: Product, sink: str, records: int, rate: float, seconds: int) -> int:
    """Both loads on a running product."""
    url = f"{product.gateway_url}/v1/chat/completions"

    def load(length: int) -> Measured:
        return fixed_rate(url, body(), product.headers, rate=rate, seconds=length)

    load(WARM_UP_SECONDS)
    product.drain()
    before = load(seconds)
    product.drain()
    with product.stopped(("stream-ledger",)):
        with product.stopped((sink,)):
            filled = fill(product.settings(), records, ledger=False)
            # What the others make of the backlog is not the question either.
            product.drain()
        started = time.monotonic()
        during = load(seconds)
        left = product.processes()[sink].get("lag_events") or 0
        events = sum(each.records for each in filled.totals.values()) - left
        spent = time.monotonic() - started
        product.drain()
        after = load(seconds)
    print("| gateway at a fixed rate | requests/s | p50 ms | p99 ms | errors |\n|---|---|---|---|---|")
    for what, each in (("nothing behind", before), (f"{sink} catches up", during), ("nothing behind again", after)):
        figures = (f"{each.requests_per_second:.0f}", f"{each.p50_milliseconds:.2f}", f"{each.p99_milliseconds:.2f}")
        print(f"| {what} | {' | '.join(figures)} | {each.errors} |")
    cost = 2 * during.p99_milliseconds / (before.p99_milliseconds + after.p99_milliseconds) - 1
    print(f"\n{sink}: {events / spent:,.0f} events/s meanwhile, {left:,} left; p99 {100 * cost:+.0f} %")
    return 0 if left else 1


if __name__ == "__main__":
    sys.exit(main())
