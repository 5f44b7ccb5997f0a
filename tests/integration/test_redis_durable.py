"""A Redis sink that was told to wait for disks: what a batch, and a redrive, say when disks hang or a server dies.

A kill alone tells nothing: what a server wrote outlives it in the machine's memory, whether a disk has it or not.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from api.cli import serve
from api.settings import Settings
from infra.embedded.ports import LOOPBACK, free_ports
from infra.embedded.servers.valkey import OPTIONS
from processors.budgets import BudgetFold
from schemas.errors import ConfigurationError, StoreUnavailableError
from sinks.redis import run
from sinks.redis.durable import DurableRedisSink
from sinks.redis.reads import RedisReads, compare
from sinks.redis.sink import RedisSink
from sinks.runner import Batch
from streams.monitor import Monitor
from tests.budget_world import NOW_MICROS, TENANT
from tests.integration.test_redis_redrive import AT, TOPIC_IDS, decoded, events, span_of, write_without
from tests.support.live_budgets import until
from tests.valkey import Valkey, running

#: As the product's own Valkey appends.
APPENDING = tuple(word for name, value in OPTIONS if name.startswith("append") for word in (f"--{name}", value))
#: Long enough for a server that syncs each second, on a busy machine; and for one that never will, in vain.
PATIENT_SECONDS, HASTY_SECONDS = 30.0, 0.3


@pytest.fixture
def appending() -> Iterator[Valkey]:
    """A server with an appended file, synced each second."""
    with running(APPENDING) as server:
        yield server


@contextmanager
def replicated() -> Iterator[tuple[Valkey, Valkey]]:
    """A server and its replica."""
    [port] = free_ports(1)
    listening = ("--port", str(port), "--bind", LOOPBACK, "--repl-diskless-sync-delay", "0")
    with running((*APPENDING, *listening)) as primary:
        following = ("--replicaof", f"{LOOPBACK} {port}")
        with running((*APPENDING, *following)) as replica:
            yield primary, replica


async def owner(server: Valkey, *, replicas: int = 0, wait_seconds: float = PATIENT_SECONDS) -> DurableRedisSink:
    """A process that owns the partition, which is open."""
    sink = DurableRedisSink(server.url, replicas=replicas, wait_seconds=wait_seconds)
    await sink.open()
    await sink.claim([AT], TOPIC_IDS)
    await sink.heartbeat({AT: 0})
    return sink


def batch() -> Batch:
    """All events."""
    return Batch([span_of(decoded(events()))], NOW_MICROS)


async def differences(server: Valkey) -> list[str]:
    """Where what the server says now differs from the fold of all events."""
    fold, reads = BudgetFold(), RedisReads(server.url)
    for event in events():
        fold.apply(event)
    await reads.open()
    try:
        return [str(each) for each in compare(fold.sums, fold.open_holds, await reads.tenant_state(TENANT))]
    finally:
        await reads.close()


async def test_a_batch_that_no_disk_has_is_not_written(appending: Valkey) -> None:
    """Where the server never syncs, the store counts as away; once it does, the repeat ends and changed nothing."""
    sink = await owner(appending, wait_seconds=HASTY_SECONDS)
    appending.command("CONFIG", "SET", "appendfsync", "no")
    with pytest.raises(StoreUnavailableError, match="on disk not yet"):
        await sink.write(batch())
    appending.command("CONFIG", "SET", "appendfsync", "always")
    await sink.write(batch())
    assert await differences(appending) == []
    await sink.close()


async def test_a_redrive_that_no_disk_has_is_not_done(appending: Valkey) -> None:
    """The quarantine is not told, so that the same records are redriven again."""
    sink, records = await owner(appending, wait_seconds=HASTY_SECONDS), decoded(events())
    appending.command("CONFIG", "SET", "appendfsync", "always")
    await write_without(sink, records, {0, 2})
    appending.command("CONFIG", "SET", "appendfsync", "no")
    late = span_of([records[0], records[2]])
    with pytest.raises(StoreUnavailableError, match="on disk not yet"):
        await sink.redrive(late)
    appending.command("CONFIG", "SET", "appendfsync", "always")
    await sink.redrive(late)
    assert await differences(appending) == []
    await sink.close()


async def test_what_was_written_is_there_after_a_failover() -> None:
    """A replica that hangs is waited for; after the write has returned, it may take over with nothing lost."""
    with replicated() as (primary, replica):

        async def follows() -> bool:
            return b"master_link_status:up" in replica.command("INFO", "replication")

        await until(follows, "the replica to follow")
        sink = await owner(primary, replicas=1, wait_seconds=HASTY_SECONDS)
        os.kill(replica.process_id, signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailableError, match="0 of 1 replicas"):
                await sink.write(batch())
        finally:
            os.kill(replica.process_id, signal.SIGCONT)
        await sink.close()
        sink = await owner(primary, replicas=1)
        await sink.write(batch())
        primary.kill()
        replica.command("REPLICAOF", "NO", "ONE")
        assert await differences(replica) == []
        await sink.close()


async def test_a_server_without_an_appended_file_is_refused(valkey: Valkey) -> None:
    """It could never say that anything is on disk; the message names the setting and what Redis lacks."""
    sink = DurableRedisSink(valkey.url, replicas=0)
    with pytest.raises(ConfigurationError, match=r"redis_waitaof_replicas: .*appendonly yes"):
        await sink.open()
    await sink.close()


async def test_another_connection_does_not_answer_for_the_batch(appending: Valkey) -> None:
    """Nothing was written over the new one, so it would say yes at once: the batch is repeated instead."""
    sink = await owner(appending)
    number = sink._client.connection_number
    appending.command("CLIENT", "KILL", "TYPE", "normal")

    async def again() -> bool:
        return sink._client.connected and sink._client.connection_number > number

    await until(again, "another connection")
    with pytest.raises(StoreUnavailableError, match="connection to Redis ended"):
        await sink._disks.wait(number)
    await sink.close()


async def test_the_setting_reaches_the_sink(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """`quaestor sink redis`, told to wait for disks, opens a sink that refuses a server without any to wait for."""

    async def opened(sink: RedisSink, **others: Any) -> None:
        others["reader"].close()
        try:
            await sink.open()
        finally:
            await sink.close()

    monkeypatch.setattr(run, "run_on", opened)
    settings = Settings(redis_url=valkey.url, redis_waitaof_replicas=0)
    with pytest.raises(ConfigurationError, match="redis_waitaof_replicas"):
        await serve._redis(settings, Monitor("sink-redis"))(asyncio.Event())
