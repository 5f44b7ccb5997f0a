"""An owner whose connection goes silent in the middle of COPY, locks in hand, does not keep the next one out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest

from schemas.errors import StoreUnavailableError
from sinks.audit.layout import AuditLayout
from sinks.audit.process import make_sink
from sinks.postgres import connect
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.hours import STATEMENT_SECONDS, PostgresHours
from sinks.postgres.migrations import migrate
from sinks.postgres.sink import PostgresSink
from sinks.runner import Batch, Decoded, Sink, Span
from streams.log import Partition
from tests.support.audit import ORIGIN
from tests.support.postgres_server import PostgresServer
from tests.support.proxy import NetworkFault, Proxy
from tests.support.stories import TOPIC_ID, Offsets, codec, request_story

pytestmark = pytest.mark.stack
ENCODER = codec()
STORIES = 300
LOCK_SECONDS = 1.0
DEADLINE_SECONDS = 60.0


def batch() -> Batch:
    """Enough records that their COPY does not fit one message."""
    offsets = Offsets()
    spans: dict[Partition, Span] = {}
    for number in range(STORIES):
        for record in offsets.records(ENCODER, request_story(number)):
            at = Partition(record.topic, record.partition)
            span = spans.setdefault(at, Span(at, TOPIC_ID, record.offset, record.offset))
            span.records.append(Decoded(record.offset, ENCODER.decode(record.topic, record.value or b""), record))
            span.next_offset = record.offset + 1
    return Batch(list(spans.values()), 1)


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of the test's own: sessions are ended on it."""
    made = PostgresServer()
    made.start()
    yield made
    made.remove()


@pytest.fixture
async def proxy(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """Before a migrated database; locks are waited for a second instead of fifteen."""
    monkeypatch.setattr(connect, "LOCK_SECONDS", LOCK_SECONDS)
    await migrate(server.dsn("stalled"))
    made = Proxy(int(urlsplit(server.dsn("stalled")).port or 0))
    made.start()
    yield made
    made.stop()


def behind(proxy: Proxy, dsn: str) -> str:
    """The DSN through the proxy."""
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{proxy.port}"))


async def until_done(call: Callable[[], Awaitable[object]]) -> None:
    """Repeat a call while the store is away, as the runner does."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            await call()
        except StoreUnavailableError:
            assert time.monotonic() < deadline
        else:
            return


@pytest.mark.parametrize("store", ["postgres", "audit"])
async def test_a_silent_owner_does_not_keep_the_next_one_out(
    server: PostgresServer, proxy: Proxy, store: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Neither its row locks nor its transaction outlive the next owner's patience; the next one applies the batch."""
    dsn = server.dsn("stalled")
    folder = tmp_path_factory.mktemp("audit")

    def sink(dsn: str, name: str) -> Sink:
        if store == "postgres":
            return PostgresSink(dsn, name)
        return make_sink(AuditLayout(folder, "test", ORIGIN), PostgresAuditStore(dsn, "test"), name)

    waiting = batch()
    partitions = [span.partition for span in waiting.spans]
    ids = {partition.topic: TOPIC_ID for partition in partitions}
    silent, successor = sink(behind(proxy, dsn), "silent"), sink(dsn, "successor")
    await silent.open()
    await silent.claim(partitions, ids)
    proxy.arm(NetworkFault.HANG, b"COPY ")
    stalled = asyncio.create_task(silent.write(waiting))
    await asyncio.to_thread(proxy.met.wait, DEADLINE_SECONDS)

    await until_done(successor.open)
    await until_done(lambda: successor.claim(partitions, ids))
    await until_done(lambda: successor.write(waiting))

    # Else the silent one would wait for its own time-outs, which say nothing here.
    proxy.drop()
    with pytest.raises(StoreUnavailableError):
        await stalled
    await successor.close()
    await silent.close()


async def test_who_asks_for_hours_may_leave_though_no_answer_comes(server: PostgresServer, proxy: Proxy) -> None:
    """A watch that is told to stop does, and may ask again."""
    store = PostgresHours(behind(proxy, server.dsn("stalled")))
    proxy.arm(NetworkFault.HANG, b"limit_hour")
    asked = asyncio.create_task(store.standings("acme", "lim_a"))
    assert await asyncio.to_thread(proxy.met.wait, DEADLINE_SECONDS)
    asked.cancel()
    left, _ = await asyncio.wait([asked], timeout=STATEMENT_SECONDS / 2)
    assert {asked} == left
    assert {} == await store.standings("acme", "lim_a")
    await store.close()
