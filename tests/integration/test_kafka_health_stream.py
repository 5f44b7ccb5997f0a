"""The Faust agent on a real Kafka: attempts in, the health of closed windows out, and its place after a crash."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from processors.health import windows
from schemas.events import AttemptOutcome, HealthState, ProviderHealth
from schemas.ids import uuid7
from schemas.topics import ATTEMPTS, HEALTH
from streams.agents.run import run_health
from streams.codec import Codec, LocalSchemas
from streams.kafka import KafkaGroupReader, KafkaPublisher, KafkaReader
from streams.log import Membership, OutgoingRecord
from streams.monitor import Monitor
from streams.records import event_of, outgoing
from tests.support.events import attempt
from tests.support.health_program import MEMBERSHIP
from tests.support.kafka_server import fresh_product_topics

pytestmark = pytest.mark.stack

SECONDS = 60.0
CALLS, FAILED = 40, 8
#: Instead of ten seconds, for which nobody waits in a test.
WINDOW_MICROS = 3_000_000
CODEC = Codec(LocalSchemas())


@pytest.fixture(scope="module")
def bootstrap() -> str:
    """A broker with nothing on our topics."""
    return fresh_product_topics()


async def until_running(task: asyncio.Task[None], monitor: Monitor) -> None:
    """Wait until it has its partitions."""
    deadline = time.monotonic() + SECONDS
    while monitor.status()["state"] != "running":
        assert not task.done()
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def window_with_room() -> int:
    """The start of the current window once most of it lies ahead."""
    passed = time.time_ns() // 1_000 % WINDOW_MICROS
    if passed > WINDOW_MICROS // 2:
        await asyncio.sleep((WINDOW_MICROS - passed) / 1_000_000)
    now = time.time_ns() // 1_000
    return now - now % WINDOW_MICROS


def publish_calls(bootstrap: str, start: int) -> None:
    """Attempts of one window with nonsense between them."""
    publisher = KafkaPublisher(bootstrap)
    for number in range(CALLS):
        event = attempt(
            uuid7(start, number.to_bytes(10, "big")),
            occurred_at=start + number,
            request_id=f"r{number}",
            duration_micros=1_000 * (number + 1),
            outcome=AttemptOutcome.TIMEOUT if number < FAILED else AttemptOutcome.SUCCEEDED,
        )
        junk = OutgoingRecord(ATTEMPTS.name, b"k", b"junk", ())
        publisher.publish([outgoing(CODEC, event), junk], lambda _: None)
    assert publisher.flush(SECONDS) == 0
    publisher.close()


async def first_health(bootstrap: str) -> ProviderHealth:
    """The first event on the health topic."""
    reader = KafkaReader(bootstrap)
    reader.assign(dict.fromkeys(reader.partitions([HEALTH.name], SECONDS), 0))
    try:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            for record in await asyncio.to_thread(reader.consume, 10, 0.5):
                event = event_of(CODEC, record)
                assert isinstance(event, ProviderHealth)
                return event
    finally:
        reader.close()
    raise AssertionError("no window was closed")


async def test_a_closed_window_is_published(bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts, errors, latency and state of the attempts, decoded with our codec; nonsense is passed over."""
    monkeypatch.setattr(windows, "WINDOW_MICROS", WINDOW_MICROS)
    monitor, stop = Monitor("stream-health"), asyncio.Event()
    running = asyncio.create_task(run_health(bootstrap, CODEC, monitor, stop, tmp_path, Membership()))
    await until_running(running, monitor)
    start = await window_with_room()
    await asyncio.to_thread(publish_calls, bootstrap, start)

    health = await first_health(bootstrap)
    stop.set()
    await asyncio.wait_for(running, SECONDS)

    assert (health.window_start, health.attempts, health.errors, health.timeouts) == (start, CALLS, FAILED, FAILED)
    assert health.state is HealthState.DEGRADED
    assert 19_000 <= health.latency_p50_micros <= 20_000
    assert monitor.status()["missed"] >= CALLS


async def test_what_was_taken_is_committed(bootstrap: str, tmp_path: Path) -> None:
    """Every partition's position is the end of it, however many records a message had."""
    reader = KafkaGroupReader(bootstrap, "stream-health")
    monitor, stop = Monitor("stream-health"), asyncio.Event()
    running = asyncio.create_task(run_health(bootstrap, CODEC, monitor, stop, tmp_path, Membership()))
    await until_running(running, monitor)
    partitions = reader.partitions([ATTEMPTS.name], SECONDS)
    for times in (1, 2, 3):
        await asyncio.to_thread(publish_calls, bootstrap, time.time_ns() // 1_000 + times)
        ends = {at: end for at, end in reader.end_offsets(partitions, SECONDS).items() if end}
        deadline = time.monotonic() + SECONDS
        while await asyncio.to_thread(reader.committed, list(ends), SECONDS) != ends:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)

    stop.set()
    await asyncio.wait_for(running, SECONDS)
    reader.close()


async def test_a_restarted_agent_does_not_wait_for_its_old_session(bootstrap: str, tmp_path: Path) -> None:
    """The one before it was killed: it neither left the group nor ran into its session's end."""
    command = [sys.executable, "-m", "tests.support.health_program", bootstrap, str(tmp_path / "killed")]
    killed = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert killed.stdout is not None
    said = await killed.stdout.readline()
    killed.kill()
    await killed.wait()
    assert said == b"running\n"
    monitor, stop = Monitor("stream-health"), asyncio.Event()
    running = asyncio.create_task(run_health(bootstrap, CODEC, monitor, stop, tmp_path, MEMBERSHIP))

    await until_running(running, monitor)

    stop.set()
    await asyncio.wait_for(running, SECONDS)
