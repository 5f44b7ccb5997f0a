"""Freshness of the stores at a steady rate of requests, without a gateway: all four sinks on servers of their own.

    python -m benchmarks.fresh [--rate 200] [--seconds 30]

Records what the gateway and the ledger stream would for so many answered requests a second (14 events each), and says
how old events were when their rows could be read (benchmarks/freshness.py), and how many it did record: a machine that
can't make them as fast has measured another load.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks.events import EventMaker
from benchmarks.filling import Filler
from benchmarks.freshness import FreshnessWatch
from benchmarks.measure import cpu_seconds, machine, monitor_url, told_by
from benchmarks.sinks import QUAESTOR, Bench
from infra.embedded.ports import PortPlan
from infra.embedded.stack import Stack

SINKS = ("postgres", "clickhouse", "redis", "audit")
#: The broker compiles what it serves meanwhile, and the sinks start.
WARM_UP_SECONDS = 30
GROUPS_PER_SECOND = 20
Steps = Mapping[str, tuple[float, float]]
#: A batch's steps, and the whole write.
NAME = "quaestor_batch_(?:step_)?seconds"
FRESH_SECONDS_MAX = 1.5
#: Of the rate that was asked for; the last acknowledgements are waited for, too.
REACHED = 0.97


def main() -> int:
    """Run and print; exit code 1 when a row never came, or the load was not the one asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fresh")
    parser.add_argument("--rate", type=int, default=200, help="requests per second")
    parser.add_argument("--seconds", type=int, default=30)
    given = parser.parse_args()
    print(f"Machine: {machine()}\n")
    with ExitStack() as held:
        folder = held.enter_context(tempfile.TemporaryDirectory(prefix="quaestor-fresh-", ignore_cleanup_errors=True))
        Path(folder).chmod(0o711)
        data = Path(folder) / "data"
        data.mkdir(mode=0o711)
        stack = held.enter_context(Stack(data, PortPlan.auto()))
        bench = Bench(stack, data, lambda _: None)
        bench.prepare(0)
        sinks = pids = {f"sink-{sink}": start_sink(bench, sink, held) for sink in SINKS}
        pids = pids | {name: entry.pid for name, entry in stack.endpoints().processes.items() if entry.pid}
        record(bench, given.rate, WARM_UP_SECONDS, seed=1)
        with FreshnessWatch(bench.settings) as watch:
            before = {name: cpu_seconds(pid) for name, pid in pids.items()}
            told = {name: steps_told(pid) for name, pid in sinks.items()}
            achieved = record(bench, given.rate, given.seconds, seed=2)
            cores = {name: (cpu_seconds(pid) - before[name]) / given.seconds for name, pid in pids.items()}
            steps = {name: since(told[name], steps_told(pid)) for name, pid in sinks.items()}
        print("| store | events | fresh p50 | p99 | max | missing | |\n|---|---|---|---|---|---|---|")
        for each in watch.results:
            ages = (f"{at:.2f} s" for at in (each.p50_seconds, each.p99_seconds, each.max_seconds))
            met = "met" if each.p99_seconds <= FRESH_SECONDS_MAX else "missed"
            print(f"| {each.store} | {each.events:,} | {' | '.join(ages)} | {each.missing} | {met} |")
        print("\n| sink | batches | a batch's mean seconds |\n|---|---|---|")
        for name, taken in steps.items():
            means = ", ".join(f"{step} {seconds / count:.3f}" for step, (seconds, count) in taken.items() if count)
            print(f"| {name} | {max((count for _, count in taken.values()), default=0):.0f} | {means} |")
        print(f"\nCores used: {', '.join(f'{name} {used:.2f}' for name, used in cores.items())}")
        is_reached = achieved >= REACHED * given.rate
        print(
            f"\nRecorded {achieved:.1f} requests a second of {given.rate}: {'reached' if is_reached else 'NOT REACHED'}"
        )
        return 0 if is_reached and all(each.events and not each.missing for each in watch.results) else 1


def start_sink(bench: Bench, sink: str, held: ExitStack) -> int:
    """Run a sink until the end of the block; answers its process id."""
    log = held.enter_context((bench.data / f"sink-{sink}.bench.log").open("wb"))
    command = [str(QUAESTOR), "sink", sink]
    process = held.enter_context(subprocess.Popen(command, env=bench.environment, stdout=log, stderr=log))
    held.callback(process.terminate)
    return process.pid


def steps_told(pid: int) -> Steps:
    """What a sink's metrics say of its batches: seconds and batches, by step."""
    text = told_by(f"{monitor_url(pid)}/metrics")
    sums, counts = (
        {step or "write": float(value) for step, value in re.findall(rf"{pattern} (\S+)", text)}
        for pattern in (rf'{NAME}_{kind}{{[^}}]*?(?:step="(\w+)")?}}' for kind in ("sum", "count"))
    )
    return {step: (sums[step], counts[step]) for step in sums}


def since(told: Steps, now: Steps) -> Steps:
    """Seconds and batches that came meanwhile."""
    before = {step: told.get(step, (0.0, 0.0)) for step in now}
    return {step: (now[step][0] - before[step][0], now[step][1] - before[step][1]) for step in now}


def record(bench: Bench, rate: int, seconds: int, seed: int) -> float:
    """Record so many requests a second, in even steps; how many a second are in the log then."""
    filler = Filler(bench.settings)
    requests = EventMaker(time.time_ns() // 1_000, seed=seed).requests(rate * seconds)
    started = time.monotonic()
    for sent, made in enumerate(requests, 1):
        filler.publish(made)
        if sent % max(1, rate // GROUPS_PER_SECOND) == 0:
            time.sleep(max(0.0, started + sent / rate - time.monotonic()))
    filler.close()
    return rate * seconds / (time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
