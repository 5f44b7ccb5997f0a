"""What sinks do with an event in memory: CPU of one thread from consumed records to what is sent, without any server.

    python -m benchmarks.paths [--requests N] [--rounds N]

The best of some rounds, microseconds per event. Reading from Kafka and sending to the store come on top.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from benchmarks.events import EventMaker
from benchmarks.measure import machine
from processors.budgets.live import LiveFold
from schemas.events import Event
from schemas.topics import BUDGETS, TOPIC_BY_NAME
from sinks.clickhouse.memory import MemoryPlanStore
from sinks.clickhouse.sink import POLICY, ClickHouseSink
from sinks.clickhouse.tables import TABLES
from sinks.redis.health import newest
from sinks.redis.movements import Foreseen
from sinks.redis.sink import REBUILDING
from sinks.redis.slices import Slices
from sinks.runner.assembler import Assembler
from sinks.runner.screen import Screen
from sinks.runner.seam import BatchPolicy, Span
from streams.codec import Codec, LocalSchemas
from streams.log import LogRecord, Partition
from streams.partitioner import partition_of
from streams.records import outgoing
from streams.runs import Run, runs_of

START_MICROS = 1_795_000_000_000_000
TOPIC_ID = "00000000000000000000000000000000"
RUN_RECORDS = 160
WINDOWS_PER_REQUEST = 5
CODEC = Codec(LocalSchemas())
Path = Callable[[Sequence[Run]], None]


def runs_from(events: Iterable[Event], run_records: int = RUN_RECORDS) -> list[Run]:
    """Events as consumed: runs of each partition in turn."""
    partitions: defaultdict[Partition, list[LogRecord]] = defaultdict(list)
    for event in events:
        made = outgoing(CODEC, event)
        at = Partition(made.topic, partition_of(made.key, TOPIC_BY_NAME[made.topic].partitions))
        of_it = partitions[at]
        millis = event.occurred_at // 1_000
        of_it.append(LogRecord(*at, len(of_it), millis, made.key, made.value, made.headers))
    longest = max(map(len, partitions.values()))
    cuts = range(0, longest, run_records)
    parts = (of_it[first : first + run_records] for first in cuts for of_it in partitions.values())
    return [run for part in parts for run in runs_of(part)]


def in_batches(projection: str, policy: BatchPolicy, use: Callable[[list[Span]], object]) -> Path:
    """The runner's half, and what the sink makes of each batch."""

    def path(runs: Sequence[Run]) -> None:
        assembler = Assembler(Screen(CODEC, projection), policy)
        for at in {Partition(run.topic, run.partition) for run in runs}:
            assembler.own(at, TOPIC_ID, 0)
        assembler.enqueue(runs)
        while assembler.waiting:
            assembler.place(0.0)
            assembler.screen(0)
            use(assembler.spans)
            assembler.cut(0)

    return path


def rebuilt(runs: Sequence[Run]) -> None:
    """Live budgets folded from the log."""
    slices, fold = Slices(CODEC, "redis@v1"), LiveFold()
    for run in runs:
        found = slices.read(Partition(run.topic, run.partition), [run], TOPIC_ID, frozenset())
        for tenant_id, events in found.movements.by_tenant.items():
            fold.apply(tenant_id, events, run.offsets[-1] + 1)


def paths(requests: int) -> dict[str, tuple[list[Run], Path]]:
    """What there is to measure, and on which records."""
    made = [event for of_request in EventMaker(START_MICROS).requests(requests) for event in of_request]
    facts = runs_from(event for event in made if outgoing(CODEC, event).topic in TABLES)
    budgets = [event for event in made if outgoing(CODEC, event).topic == BUDGETS.name]
    health = runs_from(EventMaker(START_MICROS).health(requests * WINDOWS_PER_REQUEST))
    clickhouse = ClickHouseSink(None, MemoryPlanStore(), None)  # type: ignore[arg-type]  # nothing is sent or read
    return {
        "clickhouse": (facts, in_batches("clickhouse@v1", POLICY, clickhouse.prepare)),
        "redis, aggregated": (
            health,
            in_batches("redis@v1", REBUILDING, lambda spans: [newest(each.records) for each in spans]),
        ),
        "redis, holds one by one": (runs_from(budgets), in_batches("redis@v1", REBUILDING, Foreseen().prepare)),
        "rebuild": (runs_from(budgets, 5_000), rebuilt),
    }


def micros_per_event(runs: list[Run], path: Path, rounds: int) -> float:
    """CPU of this thread, the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        started = time.thread_time()
        path(runs)
        best = min(best, time.thread_time() - started)
        gc.collect()
    return best / sum(map(len, runs)) * 1e6


def main() -> None:
    """Print one line per path."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paths")
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    # As in every process of ours that runs a sink.
    gc.disable()
    print(f"Machine: {machine()}\n\n| path | events | CPU us/event |\n|---|---|---|")
    for name, (runs, path) in paths(given.requests).items():
        spent = micros_per_event(runs, path, given.rounds)
        print(f"| {name} | {sum(map(len, runs)):,} | {spent:.2f} |", flush=True)


if __name__ == "__main__":
    main()
