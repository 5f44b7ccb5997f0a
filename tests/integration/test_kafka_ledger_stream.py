"""The ledger stream end to end on a real Kafka: killed between produce and commit, it leaves the same distinct ids."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from processors.ledger import LedgerPoster
from schemas.events import BudgetEvent, CostEvent, Event, LedgerEntry
from schemas.topics import BUDGETS, COSTS, LEDGER, PARTITIONS, QUARANTINE
from streams.codec import Codec, LocalSchemas
from streams.kafka import KafkaPublisher, KafkaReader
from streams.log import LogError, LogRecord, OutgoingRecord
from streams.monitor import Monitor
from streams.records import event_of, outgoing
from streams.runtime import run_stream
from tests.support.kafka_server import fresh_product_topics
from tests.support.stories import request_story

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
REQUESTS, TENANTS = 300, 7
SECONDS = 60.0
CODEC = Codec(LocalSchemas())


@pytest.fixture(scope="module")
def bootstrap() -> str:
    """Where the stream's topics, which are the product's, are empty."""
    return fresh_product_topics()


def publish(bootstrap: str, records: list[OutgoingRecord]) -> None:
    """Write and wait."""
    publisher, ended, faults = KafkaPublisher(bootstrap), threading.Event(), list[LogError | None]()

    def done(fault: LogError | None) -> None:
        faults.append(fault)
        ended.set()

    publisher.publish(records, done)
    assert ended.wait(SECONDS)
    assert [None] == faults
    publisher.close()


def stories() -> list[Event]:
    """Budgets and costs of many requests of several tenants."""
    events = [event for number in range(REQUESTS) for event in request_story(number, f"tenant{number % TENANTS}")]
    return [event for event in events if isinstance(event, BudgetEvent | CostEvent)]


def expected(events: list[Event]) -> dict[str, LedgerEntry]:
    """What a poster without crashes makes of them; tenants do not touch each other."""
    poster, state, entries = LedgerPoster(), LedgerPoster().initial(0), dict[str, LedgerEntry]()
    for event in events:
        entries |= {entry.event_id: entry for entry in poster.decide(state, event) if isinstance(entry, LedgerEntry)}
        state = poster.evolve(state, event)
    return entries


def read_all(bootstrap: str, topic: str) -> list[LogRecord]:
    """Everything on a topic."""
    reader = KafkaReader(bootstrap)
    try:
        partitions = reader.partitions([topic], SECONDS)
        left = sum(reader.end_offsets(partitions, SECONDS).values())
        reader.assign(dict.fromkeys(partitions, 0))
        records: list[LogRecord] = []
        deadline = time.monotonic() + SECONDS
        while len(records) < left and time.monotonic() < deadline:
            records += reader.consume(1_000, 0.5)
        return records
    finally:
        reader.close()


def run_to_its_end(program: list[str]) -> tuple[int | None, str]:
    """Exit code, or None when it did not end in time, and what it said."""
    try:
        done = subprocess.run(
            program, cwd=ROOT, timeout=SECONDS, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except subprocess.TimeoutExpired as error:
        return None, str(error.stdout)
    return done.returncode, done.stdout


async def run_until_caught_up(bootstrap: str) -> None:
    """The stream as the product runs it, until nothing is left to read, then stopped in order."""
    monitor, stop = Monitor("stream-ledger"), asyncio.Event()
    running = asyncio.create_task(
        run_stream(LedgerPoster(), bootstrap=bootstrap, codec=Codec(LocalSchemas()), monitor=monitor, stop=stop)
    )
    deadline = time.monotonic() + SECONDS
    owned = 2 * PARTITIONS
    while monitor.status().get("partitions") != owned or monitor.status()["lag_events"] != 0:
        assert not running.done()
        assert time.monotonic() < deadline, monitor.status()
        await asyncio.sleep(0.05)
    stop.set()
    await running


async def test_killed_between_produce_and_commit_the_distinct_ids_do_not_change(bootstrap: str) -> None:
    """Three deaths, each after its batch was acknowledged and before its position was committed."""
    events = stories()
    publish(bootstrap, [outgoing(CODEC, event) for event in events])
    for commits in (0, 2, 5):
        program = [sys.executable, "-m", "tests.support.ledger_program", bootstrap, str(commits)]
        code, said = await asyncio.to_thread(run_to_its_end, program)
        assert code == -signal.SIGKILL, said

    await run_until_caught_up(bootstrap)

    entries = [event_of(CODEC, record) for record in read_all(bootstrap, LEDGER.name)]
    distinct = {entry.event_id: entry for entry in entries}
    assert len(entries) > len(distinct)
    assert expected(events) == distinct


async def test_the_same_id_always_has_the_same_bytes(bootstrap: str) -> None:
    """A repetition is a duplicate, never another transfer under an old id."""
    values: dict[bytes, bytes | None] = {}
    for record in read_all(bootstrap, LEDGER.name):
        event_id = dict(record.headers)["ce_id"]
        assert record.value == values.setdefault(event_id, record.value)
    assert values


async def test_a_stopped_stream_has_committed_everything(bootstrap: str) -> None:
    """Started again, it decides nothing twice."""
    before = len(read_all(bootstrap, LEDGER.name))

    await run_until_caught_up(bootstrap)

    assert before == len(read_all(bootstrap, LEDGER.name))


async def test_poison_is_quarantined_and_the_stream_goes_on(bootstrap: str) -> None:
    """Nonsense on both topics is set aside once, also when the stream runs again."""
    poison = [OutgoingRecord(topic, b"tenant0", b"nonsense", ()) for topic in (BUDGETS.name, COSTS.name)]
    publish(bootstrap, poison)

    for _ in range(2):
        await run_until_caught_up(bootstrap)

    kept = [event_of(CODEC, record) for record in read_all(bootstrap, QUARANTINE.name)]
    assert {BUDGETS.name, COSTS.name} == {event.source_topic for event in kept}
    assert len(kept) == 2


async def test_two_members_share_the_work(bootstrap: str) -> None:
    """Both own partitions, and together they post what one would."""
    stop, monitors = asyncio.Event(), [Monitor(f"stream-ledger-{number}") for number in range(2)]
    members = [
        asyncio.create_task(
            run_stream(LedgerPoster(), bootstrap=bootstrap, codec=Codec(LocalSchemas()), monitor=monitor, stop=stop)
        )
        for monitor in monitors
    ]
    deadline = time.monotonic() + SECONDS
    while not all(monitor.status().get("partitions") for monitor in monitors) or (
        sum(monitor.status()["partitions"] for monitor in monitors) != 2 * PARTITIONS
    ):
        assert time.monotonic() < deadline, [monitor.status() for monitor in monitors]
        await asyncio.sleep(0.05)
    fresh = [event for event in request_story(REQUESTS + 1, "tenant1") if isinstance(event, BudgetEvent | CostEvent)]
    publish(bootstrap, [outgoing(CODEC, event) for event in fresh])
    wanted = set(expected(fresh))
    while not wanted <= {dict(record.headers)["ce_id"].decode() for record in read_all(bootstrap, LEDGER.name)}:
        assert time.monotonic() < deadline
    stop.set()
    await asyncio.gather(*members)
