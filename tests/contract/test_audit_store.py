"""What the audit log asks of its database, on the fake and on real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from processors.audit.entry import CHAIN_START, KIND_HEADS, LOG_TENANT, Head, Sealed, heads_source, seal
from schemas.errors import FencedError, GapError, IntegrityError
from schemas.ids import derived_id
from schemas.topics import CONTROL
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.sequencer import sources_of
from sinks.audit.store import AuditStore, CursorMove, EntryFilter, EntryPlace, LogState
from sinks.postgres.audit import PostgresAuditStore
from sinks.totals import totals_of
from streams.log import Partition
from tests.support.audit import PARTITIONS, SALTS, TOPIC, TOPIC_ID, spans_of
from tests.support.databases import postgres_databases

TOPIC_IDS = dict.fromkeys(PARTITIONS, TOPIC_ID)


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[AuditStore]:
    """Each store in turn, empty."""
    made: AuditStore = MemoryAuditStore()
    if request.param == "postgres":
        made = PostgresAuditStore(await postgres_databases().emptied("audit"), "main")
    await made.open()
    yield made
    await made.close()


async def append(store: AuditStore, epoch: int, first_offset: int, count: int, next_seq: int) -> list[Sealed]:
    """Entries for the next `count` records of each partition."""
    spans = spans_of(first_offset, count)
    sources = [source for span in spans for source in sources_of(span, SALTS)]
    heads = await store.heads(list({source.tenant_id for source in sources}))
    sealed = seal(sources, next_seq, heads)
    moves = [CursorMove(span.partition, TOPIC_ID, span.first_offset, span.next_offset) for span in spans]
    await store.append(epoch, sealed, heads, moves)
    return sealed


async def test_a_new_log_is_empty(store: AuditStore) -> None:
    """Nothing is sequenced, integrated or claimed, and no cursor is known."""
    assert await store.state() == LogState()
    assert await store.cursors() == {}
    assert await store.heads() == {}


async def test_a_claim_raises_the_epoch_and_makes_cursors(store: AuditStore) -> None:
    """Each claim is newer; partitions stand at 0."""
    first, second = await store.claim("one", TOPIC_IDS), await store.claim("two", TOPIC_IDS)

    assert (1, 2) == (first.epoch, second.epoch)
    assert dict.fromkeys(PARTITIONS, 0) == await store.cursors()


async def test_what_is_appended_is_there(store: AuditStore) -> None:
    """Entries, heads, cursors and position move together."""
    state = await store.claim("one", TOPIC_IDS)
    sealed = await append(store, state.epoch, 0, 10, 0)
    sealed += await append(store, state.epoch, 10, 5, 20)

    assert [(each.leaf, each.entry) for each in sealed] == await store.entries(0, 100)
    assert dict.fromkeys(PARTITIONS, 15) == await store.cursors()
    snapshot = await store.snapshot()
    assert (30, dict.fromkeys(PARTITIONS, 15)) == (snapshot.state.next_seq, snapshot.cursors)
    last = {each.source.tenant_id: Head(each.tseq, each.chain) for each in sealed}
    assert last == snapshot.heads == await store.heads()
    assert {"tenant_1": last["tenant_1"]} == await store.heads(["tenant_1", "nobody"])


async def test_rows_have_every_column(store: AuditStore) -> None:
    """Rows come in order, in pages, with what the entry says."""
    state = await store.claim("one", TOPIC_IDS)
    sealed = await append(store, state.epoch, 0, 9, 0)

    rows = [row async for page in store.rows(3, 11) for row in page]
    assert [each.seq for each in sealed[3:11]] == [row.seq for row in rows]
    for row, each in zip(rows, sealed[3:11], strict=True):
        source = each.source
        assert row == (
            each.seq, source.tenant_id, each.tseq, each.chain, each.leaf, each.entry, source.topic, source.partition,
            source.offset, source.event_id, source.request_id, source.amount_nano,
        )  # fmt: skip


async def test_an_older_epoch_is_fenced(store: AuditStore) -> None:
    """After another claim nothing of the earlier owner's is taken: no entries, no integration."""
    old = await store.claim("one", TOPIC_IDS)
    new = await store.claim("two", TOPIC_IDS)
    with pytest.raises(FencedError):
        await append(store, old.epoch, 0, 3, 0)
    with pytest.raises(FencedError):
        await store.integrated(old.epoch, 0, CHAIN_START)

    await append(store, new.epoch, 0, 3, 0)
    assert (await store.state()).next_seq == 6


async def test_a_wrong_position_or_cursor_changes_nothing(store: AuditStore) -> None:
    """Entries go exactly where the log ends, from exactly where the cursors stand."""
    state = await store.claim("one", TOPIC_IDS)
    await append(store, state.epoch, 0, 3, 0)
    for first_offset, next_seq in ((3, 5), (3, 7), (4, 6), (2, 6)):
        with pytest.raises(GapError):
            await append(store, state.epoch, first_offset, 3, next_seq)

    assert len(await store.entries(0, 100)) == (await store.state()).next_seq == 6
    assert dict.fromkeys(PARTITIONS, 3) == await store.cursors()


async def test_a_recreated_topic_is_refused(store: AuditStore) -> None:
    """A cursor of an earlier topic of the same name is never taken for the new one's."""
    await store.claim("one", TOPIC_IDS)
    with pytest.raises(IntegrityError, match=TOPIC_ID):
        await store.claim("one", {PARTITIONS[0]: "another"})


async def test_the_integrated_mark_moves(store: AuditStore) -> None:
    """Size and root of what is in tiles are kept."""
    state = await store.claim("one", TOPIC_IDS)
    await append(store, state.epoch, 0, 3, 0)
    await store.integrated(state.epoch, 4, b"\x11" * 32)

    assert LogState(state.epoch, 6, 4, b"\x11" * 32) == await store.state()


async def test_a_checkpoint_of_the_same_size_stays(store: AuditStore) -> None:
    """The first one kept is the one that was published."""
    await store.claim("one", TOPIC_IDS)
    await store.checkpointed(3, "first")
    await store.checkpointed(3, "second")

    assert {3: "first"} == await store.checkpoints()


async def test_totals_count_distinct_events_below_the_barrier(store: AuditStore) -> None:
    """Distinct ids, their digest and amounts; undecodable records only in the count of entries."""
    state = await store.claim("one", TOPIC_IDS)
    await append(store, state.epoch, 0, 8, 0)
    below = {PARTITIONS[0]: 8, PARTITIONS[1]: 5, Partition("quaestor.costs", 0): 3}

    decoded = [record for span in spans_of(0, 8) for record in span.records if record.offset < below[span.partition]]
    expected = totals_of(
        (record.fields["tenant_id"], record.fields["event_id"], record.fields["amount_nano"]) for record in decoded
    )
    found = await store.totals(below)
    assert {TOPIC: expected, "quaestor.costs": totals_of([])} == found
    assert {TOPIC: 13, "quaestor.costs": 0} == await store.counts(below)


AT = 1_700_000_000_000_000
#: Each filter with what fits it, of 60 records in each of two partitions.
FILTERS = {
    "everything": EntryFilter(),
    "tenant": EntryFilter(tenant_id="tenant_2"),
    "nobody": EntryFilter(tenant_id="nobody"),
    "topic": EntryFilter(topic=TOPIC),
    "other topic": EntryFilter(topic="quaestor.costs"),
    "kind": EntryFilter(kind="UNDECODABLE"),
    "kind of no entry": EntryFilter(kind="PLACE"),
    "request": EntryFilter(request_id="request_1"),
    "from": EntryFilter(from_micros=AT + 50),
    "to": EntryFilter(to_micros=AT + 3),
    "within": EntryFilter(from_micros=AT + 5, to_micros=AT + 7),
    "before all": EntryFilter(to_micros=AT - 10**12),
    "all of it": EntryFilter(tenant_id="tenant_1", topic=TOPIC, kind="PLACED", from_micros=AT + 4, to_micros=AT + 40),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_what_is_looked_for_is_found(store: AuditStore, name: str) -> None:
    """Every filter finds exactly the entries that it fits, newest first, in parts."""
    state = await store.claim("one", TOPIC_IDS)
    sealed = [each for first in (0, 30) for each in await append(store, state.epoch, first, 30, 2 * first)]
    wanted, found, before = FILTERS[name], [], 120

    while before:
        part = await store.find(wanted, before, 7)
        assert part.before < before
        found += part.entries
        before = part.before

    assert [(each.seq, each.entry) for each in reversed(sealed) if wanted.fits(each.source)] == found


async def test_the_logs_own_entries_are_found_by_name_only(store: AuditStore) -> None:
    """Heads entries would stand between all others: they come when they are meant."""
    state = await store.claim("one", TOPIC_IDS)
    heads = seal([heads_source(b"\x01" * 32, AT)], 0, {})
    await store.append(state.epoch, heads, {LOG_TENANT: Head(1, heads[0].chain)}, [])

    assert [] == (await store.find(EntryFilter(), 1, 10)).entries
    for wanted in (EntryFilter(tenant_id=LOG_TENANT), EntryFilter(kind=KIND_HEADS)):
        assert [(0, heads[0].entry)] == (await store.find(wanted, 1, 10)).entries


async def test_a_control_event_is_found_by_its_id(store: AuditStore) -> None:
    """Events of other topics are not, nor what the log does not have."""
    partition, event_id, other_id = Partition(CONTROL.name, 0), *(derived_id("test", one, "", "") for one in "ab")
    state = await store.claim("one", TOPIC_IDS | {partition: TOPIC_ID})
    other = await append(store, state.epoch, 0, 1, 0)
    source = other[0].source._replace(topic=CONTROL.name, partition=0, offset=0, event_id=event_id)
    (sealed,) = seal([source], 2, await store.heads())
    heads = {source.tenant_id: Head(sealed.tseq, sealed.chain)}
    await store.append(state.epoch, [sealed], heads, [CursorMove(partition, TOPIC_ID, 0, 1)])

    assert EntryPlace(2, CONTROL.name, 0, 0, event_id) == await store.of_control(event_id)
    assert (None, None) == (await store.of_control(other[0].source.event_id), await store.of_control(other_id))
