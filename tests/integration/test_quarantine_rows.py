"""Rows of the quarantine in Postgres that this release did not write, or that are damaged: each by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest

from schemas.events import QuarantinedRecord, QuarantineKind, QuarantineReason
from sinks.postgres.dead_letters import PostgresDeadLetters
from sinks.postgres.quarantine import PostgresQuarantine
from sinks.runner.screen import Screen
from sinks.runner.seam import Failed, Unreadable
from streams.log import LogRecord, Partition
from tests.support.databases import postgres_databases
from tests.support.stories import TOPIC_ID, codec

pytestmark = pytest.mark.stack
SINK, TOPIC, PEOPLE = "a@v1", "quaestor.requests", "cli/7"
AT = Partition(TOPIC, 2)
END = 1_000


class Rows:
    """The quarantine, from the sinks' side, from people's, and as a table."""

    def __init__(self, dsn: str) -> None:
        """Connects nothing yet."""
        self.dsn = dsn
        self.store, self.letters = PostgresQuarantine(dsn), PostgresDeadLetters(dsn)

    async def change(self, sql: str, *arguments: Any) -> None:
        """Change rows as nobody of ours does."""
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(sql, *arguments)
        finally:
            await connection.close()

    async def keep(self, *events: QuarantinedRecord) -> list[str]:
        """Keep them; answers their ids."""
        await self.store.put(events)
        return [event.event_id for event in events]

    async def damage(self, event_id: str) -> None:
        """Cut off what is kept of a record."""
        await self.change("UPDATE quaestor.quarantine_outbox SET body = '{'::bytea WHERE event_id = $1", event_id)


@pytest.fixture
async def rows() -> AsyncIterator[Rows]:
    """Empty."""
    made = Rows(await postgres_databases().emptied("kept"))
    yield made
    await made.store.close()
    await made.letters.close()


def poison(offset: int, key: bytes = b"acme/one") -> QuarantinedRecord:
    """A record that can't be read."""
    record = LogRecord(TOPIC, AT.number, offset, 1_000, key, b"x", ())
    return Screen(codec(), SINK).poison(record, TOPIC_ID, QuarantineReason.UNDECODABLE, "bad", 1).event


async def test_a_header_kept_as_null_is_an_empty_one(rows: Rows) -> None:
    """As releases before kept a header without a value."""
    event = poison(5)
    fields = msgspec.to_builtins(event) | {"headers": {"none": None, "one": "MQ=="}}
    await rows.keep(event)
    await rows.change("UPDATE quaestor.quarantine_outbox SET body = $1", msgspec.json.encode(fields))

    assert await rows.store.unpublished(10) == [msgspec.structs.replace(event, headers={"none": b"", "one": b"1"})]


async def test_a_damaged_row_is_named_and_the_others_are_read(rows: Rows) -> None:
    """Its id and why; passed over, it is out of the way."""
    bad, good = await rows.keep(poison(5), poison(6, b"acme/two"))
    await rows.damage(bad)

    found = await rows.store.unpublished(10)

    assert [each.event_id for each in found if isinstance(each, Unreadable)] == [bad]
    assert [each.event_id for each in found if isinstance(each, QuarantinedRecord)] == [good]
    assert [each.event_id for each in await rows.store.unpublished(1, [bad])] == [good]


async def test_an_event_of_a_topic_that_is_not_known_is_named(rows: Rows) -> None:
    """A newer release kept it."""
    event_id = poison(5).event_id
    insert = "INSERT INTO quaestor.quarantine_event (event_id, topic, body) VALUES ($1, 'quaestor.new', '{}')"
    await rows.change(insert, event_id)

    assert await rows.store.unpublished(10) == [
        Unreadable(event_id, "this release does not know the topic quaestor.new")
    ]


async def test_a_damaged_row_is_redriven_without_its_bytes(rows: Rows) -> None:
    """It fails as a record without a value does, is told as failed, and is asked for no more."""
    bad, _ = await rows.keep(poison(5), poison(6, b"acme/two"))
    await rows.damage(bad)
    await rows.letters.request([bad], PEOPLE)

    (taken,) = await rows.store.take(SINK, AT, END, 100)
    await rows.store.settle(SINK, AT, [], [Failed(bad, QuarantineReason.UNDECODABLE, "no value", "f")])

    assert taken == msgspec.structs.replace(poison(5), value_bytes=None, schema_id=None)
    events = [each for each in await rows.store.unpublished(10) if isinstance(each, QuarantinedRecord)]
    assert [each.causation_id for each in events if each.kind is QuarantineKind.FAILED] == [bad]
    assert (await rows.store.calls(SINK)).redrives == ()


async def test_a_damaged_row_can_be_looked_at_and_given_up(rows: Rows) -> None:
    """With an event that says who did it, as for any other."""
    (bad,) = await rows.keep(poison(5))
    await rows.damage(bad)

    shown = await rows.letters.show(bad)
    count = await rows.letters.discard([bad], PEOPLE, "damaged")

    assert shown is not None
    assert (shown[1].key_bytes, shown[1].value_bytes, count) == (b"acme/one", None, 1)
    events = [each for each in await rows.store.unpublished(10) if isinstance(each, QuarantinedRecord)]
    assert [(each.kind, each.actor) for each in events] == [(QuarantineKind.DISCARDED, PEOPLE)]
