"""RedisSink: the only writer of applied budgets, and the owner of generations; also keeps each provider's last health.

Of quaestor.budgets, each tenant's events go into its slot by one script per batch; the partition's gate follows. A slot
or gate that is not where it was left, another server run, or an empty server begin a new generation: closed, brought up
to a barrier of end offsets taken after closing, then opened again. Where slots still stand, the log is applied from the
oldest of them on; where they are lost, they are restored from a snapshot, or folded from the log and written whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import structlog

from processors.budgets.live import LiveFold
from schemas import limits
from schemas.errors import (
    ConfigurationError,
    FencedError,
    GapError,
    IntegrityError,
    RejectedError,
    StoreUnavailableError,
)
from schemas.topics import BUDGETS, HEALTH, SYSTEM_TENANT
from sinks.redis.apart import Aparts
from sinks.redis.client import RedisClient
from sinks.redis.gate import Gates, GateState
from sinks.redis.groups import in_groups
from sinks.redis.health import HealthWriter
from sinks.redis.keys import PROJECTION, Names
from sinks.redis.movements import Foreseen, of_budgets
from sinks.redis.owned import Applied, Owned, Rebuild, loss, start_of
from sinks.redis.recall import Recall, Recalled
from sinks.redis.restore import AppliedState, Restorer, state_of
from sinks.redis.slots import Ownership, Slot, Slots
from sinks.runner.seam import NO_STEPS, Batch, BatchPolicy, Span
from streams.log import Partition
from streams.partitioner import partition_of

log = structlog.get_logger()

POLICY = BatchPolicy(age_milliseconds=10, poll_milliseconds=10, heartbeat_milliseconds=200, takes_columns=True)
#: While slots are folded anew nobody waits for a single event: batches are as large as they come.
REBUILDING = replace(POLICY, age_milliseconds=limits.BATCH_AGE_MILLISECONDS)


class RedisSink:
    """The seam of sinks/runner on Redis."""

    def __init__(
        self,
        url: str,
        *,
        tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS,
        entries_max: int = limits.REBUILD_ENTRIES_MAX,
        projection: str = PROJECTION,
    ) -> None:
        """Connect nothing yet. `entries_max`: what a rebuild keeps in memory; `projection` is in every key."""
        self.projection = projection
        names = Names(projection)
        self.topics: tuple[str, ...] = (BUDGETS.name, HEALTH.name)
        self.policy = POLICY
        self.steps = NO_STEPS
        self._client = RedisClient(url, name="quaestor-sink", call_timeout_seconds=10.0)
        self._slots = Slots(self._client, tombstone_seconds, names)
        self._gates = Gates(self._client, names)
        self._restorer = Restorer(self._client, tombstone_seconds, names)
        self._tombstone_seconds = tombstone_seconds
        self._entries_max = entries_max
        #: Where snapshots are found; None: every rebuild reads the whole log.
        self.recall: Recall | None = None
        #: Who has long logs folded; None: they are folded as they are read.
        self.aparts: Aparts | None = None
        #: Told how far each partition is that is closed, and which are open.
        self.on_rebuild: Callable[[Sequence[Rebuild], Sequence[int]], None] = lambda _closed, _open: None
        self._health = HealthWriter(self._client, names)
        self._health_claimed = False
        self._owned: dict[int, Owned] = {}
        #: Tenants that quaestor.control named, by budgets partition: they get slots before their first hold.
        self._named: dict[int, set[str]] = {}
        self._foreseen = Foreseen()

    async def open(self) -> None:
        """Connect; raises StoreUnavailableError, and ConfigurationError when the server may evict what it is given."""
        await self._client.open()
        if not self._client.connected:
            raise StoreUnavailableError("Redis is away")
        if self._client.eviction not in {"", "noeviction"}:
            raise ConfigurationError(
                f"Redis evicts ({self._client.eviction}): a hold could vanish; set maxmemory-policy to noeviction"
            )

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.close()

    def name_tenants(self, tenants: Iterable[str]) -> None:
        """Give these tenants slots where they have none; the next write or heartbeat does it."""
        for tenant_id in tenants:
            if tenant_id != SYSTEM_TENANT:
                number = partition_of(tenant_id.encode(), BUDGETS.partitions)
                self._named.setdefault(number, set()).add(tenant_id)

    async def claim(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """Take ownership; begins a generation for every partition whose state was lost."""
        cursors: dict[Partition, int] = {}
        claimed: dict[Partition, Owned] = {}
        for partition in partitions:
            topic_id = topic_ids[partition.topic]
            if partition.topic == HEALTH.name:
                cursors[partition] = await self._health.claim(topic_id)
                self._health_claimed = True
            else:
                claimed[partition] = await self._claim(partition.number, topic_id)
        await self._go_apart(list(claimed.values()), topic_ids.get(BUDGETS.name, ""))
        return cursors | {partition: owned.cursor for partition, owned in claimed.items()}

    async def write(self, batch: Batch) -> None:
        """Apply each span; every slot carries its own cursor, so a repeated batch changes nothing."""
        self._reject_unsound(batch.spans)
        for span in batch.spans:
            if span.partition.topic == HEALTH.name:
                await self._health.write(span)
            else:
                await self._write(span)

    def prepare(self, spans: Sequence[Span]) -> None:
        """As the seam says: what the slots must apply."""
        self._foreseen.prepare(of_budgets(spans))

    def _reject_unsound(self, spans: Sequence[Span]) -> None:
        if rejections := self._foreseen.begin(of_budgets(spans)):
            raise RejectedError(tuple(rejections))

    async def redrive(self, span: Span) -> None:
        """Apply records that were set aside; the slot remembers which offsets it has had in this way."""
        if span.partition.topic == HEALTH.name:
            await self._health.redrive(span)
            return
        self._reject_unsound([span])
        owned = self._owned.get(span.partition.number)
        if owned is None:
            raise FencedError(str(span.partition), 0)
        self._check_run(owned)
        if owned.fold is not None:
            raise StoreUnavailableError(f"{span.partition} is being rebuilt")
        moved = await self._apply_events(owned, span, owned.cursor, is_late=True)
        await self._settle(owned, moved)

    async def heartbeat(self, end_offsets: Mapping[Partition, int]) -> None:
        """Say how far we are and open what has caught up; raises GapError when the server lost its state."""
        for partition, end_offset in end_offsets.items():
            owned = self._owned.get(partition.number) if partition.topic == BUDGETS.name else None
            if owned is not None:
                await self._beat(owned, end_offset)

    async def release(self, partitions: Sequence[Partition]) -> None:
        """Forget these partitions."""
        for partition in partitions:
            owned = self._owned.pop(partition.number, None) if partition.topic == BUDGETS.name else None
            if owned is not None:
                owned.leave()
        self._tell()

    def applied(self) -> list[Applied]:
        """The open partitions of this process, as far as they are applied."""
        return [
            Applied(number, owned.owner.topic_id, owned.cursor, owned.owner.epoch)
            for number, owned in sorted(self._owned.items())
            if owned.owner.is_open
        ]

    async def _beat(self, owned: Owned, end_offset: int) -> None:
        self._check_run(owned)
        owned.end_offset = end_offset
        if not owned.owner.is_open and owned.barrier is None:
            owned.barrier = end_offset
        if owned.mark is None and owned.heard_millis:
            owned.mark = (owned.heard_millis, end_offset)
        await self._settle(owned, {})
        if owned.owner.is_open:
            # Nobody's hold would come to a slot that is gone, so no event would tell of it.
            await self._each_slot(owned, owned.next_tenants(), open_word="1")

    def _check_run(self, owned: Owned) -> None:
        if not self._client.connected:
            raise StoreUnavailableError("Redis is away")
        if not owned.owner.generation.startswith(self._client.run_id):
            raise GapError(f"gate {owned.number}: the server was started again or another took over", 0, owned.cursor)

    async def _settle(self, owned: Owned, moved: Mapping[str, int]) -> None:
        """Bring the gate to where the slots are; open slots and gate when the barrier is reached."""
        owned.join()
        owned.untold.update(moved)
        owned.reached_mark()
        opening = owned.barrier is not None and owned.read >= owned.barrier and owned.apart is None
        if opening or self._is_full(owned):
            await self._write_out(owned)
        if owned.fold is None:
            await self._open_named(owned)
        if opening:
            owned.owner = owned.owner._replace(is_open=True)
            await self._each_slot(owned, sorted(owned.tenants), open_word="1")
        await self._write_gate(owned, owned.untold, open_word="1" if opening else "")
        owned.untold.clear()
        if opening:
            owned.barrier = None
            log.info("budgets_opened", partition=owned.number, generation=owned.owner.generation)
        if opening or not owned.owner.is_open:
            self._tell()

    def _is_full(self, owned: Owned) -> bool:
        """Whether what is folded in memory has become too much."""
        sizes = (each.fold.size for each in self._owned.values() if each.fold is not None)
        return owned.fold is not None and owned.apart is None and sum(sizes) > self._entries_max

    async def _write_gate(self, owned: Owned, moved: Mapping[str, int], *, open_word: str = "") -> None:
        owned.heard_millis = await self._gates.write(
            owned.number,
            owned.owner.epoch,
            owned.owner.generation,
            owned.stands,
            max(owned.end_offset, owned.cursor),
            open_word=open_word,
            applied_at_millis=owned.applied_at_millis,
            moved=moved,
            rebuilding=owned.fold is not None,
            read=owned.read,
        )

    async def _open_named(self, owned: Owned) -> None:
        missing = self._named.get(owned.number, set()) - owned.tenants.keys()
        if missing:
            word = "1" if owned.owner.is_open else "0"
            await self._each_slot(owned, sorted(missing), open_word=word, new_cursor=owned.cursor)

    async def _each_slot(
        self, owned: Owned, tenants: Sequence[str], *, open_word: str, new_cursor: int | None = None
    ) -> None:
        """Bring these slots to the partition's generation, open or closed, and remember their cursors."""
        generation = owned.owner.generation

        async def one(tenant_id: str) -> Slot:
            return await self._slots.claim(
                tenant_id, owned.owner, generation=generation, open_word=open_word, new_cursor=new_cursor
            )

        slots = await in_groups(tenants, one)
        for tenant_id, slot in zip(tenants, slots, strict=True):
            if slot.cursor is None:
                raise GapError(f"slot {tenant_id} is gone", 0, owned.cursor)
            owned.tenants[tenant_id] = slot.cursor

    async def _write(self, span: Span) -> None:
        number = span.partition.number
        owned = self._owned.get(number)
        if owned is None:
            raise FencedError(str(span.partition), 0)
        if span.first_offset > owned.cursor:
            raise GapError(str(span.partition), owned.cursor, span.first_offset)
        try:
            self._check_run(owned)
            await self._apply(owned, span.after(owned.cursor))
        except GapError as error:
            # The runner seeks to where we stand then; claiming finds out what was lost.
            log.warning("budgets_state_lost", partition=number, detail=str(error))
            owned = await self._claim(number, span.topic_id, {record.fields["tenant_id"] for record in span.records})
            await self._go_apart([owned], span.topic_id)
            raise GapError(str(span.partition), owned.cursor, span.first_offset) from error

    async def _apply(self, owned: Owned, span: Span) -> None:
        following = span.next_offset
        moved = await self._apply_events(owned, span, following)
        owned.cursor = max(owned.cursor, following)
        if span.records:
            # Records stand in the order they were acknowledged; never later than the server's own clock.
            newest_millis = min(span.records[-1].record.timestamp_millis, owned.heard_millis)
            owned.applied_at_millis = max(owned.applied_at_millis, newest_millis)
            if owned.fold is not None:
                owned.fold.forget(span.records[-1].record.timestamp_millis)
        await self._settle(owned, moved)

    async def _apply_events(self, owned: Owned, span: Span, following: int, *, is_late: bool = False) -> dict[str, int]:
        """Bring the span's movements into their slots; answers where those stand then."""
        by_tenant = self._foreseen.of(span).by_tenant
        if owned.apart is not None:
            await owned.apart.put(by_tenant, following)
            return {}
        if owned.fold is not None:
            for tenant_id, events in by_tenant.items():
                owned.fold.apply(tenant_id, events, following)
            return {}

        async def one(tenant_id: str) -> int:
            believed = owned.tenants.get(tenant_id, 0)
            events = by_tenant[tenant_id]
            return await self._slots.apply(tenant_id, events, owned.owner, believed, following, is_late=is_late)

        tenants = sorted(by_tenant)
        moved = dict(zip(tenants, await in_groups(tenants, one), strict=True))
        owned.tenants.update(moved)
        return moved

    async def _claim(self, number: int, topic_id: str, met: Collection[str] = ()) -> Owned:
        """Fence earlier owners and see whether the state is as it was left; begin a generation when not.

        `met` are tenants whose slots may be there though the gate has not heard of them: it is written after they are.
        """
        gate = await self._gates.claim(number)
        if gate.topic_id not in {"", topic_id}:
            raise IntegrityError(f"budgets in Redis are of topic {gate.topic_id}, the log has {topic_id}")
        before = self._owned.get(number)
        known = {*gate.tenants, *(before.tenants if before else ()), *self._named.get(number, ()), *met}
        owner = Ownership(gate.epoch, gate.generation, topic_id, is_open=gate.is_open)
        if before is not None and before.goes_on(gate, self._client.run_id):
            before.owner, before.barrier = before.owner._replace(epoch=gate.epoch), None
            return before
        if before is not None:
            before.leave()
        tenants = sorted(known)

        async def one(tenant_id: str) -> Slot:
            return await self._slots.claim(tenant_id, owner)

        slots = dict(zip(tenants, await in_groups(tenants, one), strict=True))
        if lost := loss(self._client.run_id, gate, before, slots):
            return await self._begin(number, gate, owner, slots, lost)
        there = {tenant_id: slot.cursor for tenant_id, slot in slots.items() if slot.cursor is not None}
        owned = self._owned[number] = Owned(number, owner, gate.cursor or 0, there, first_offset=gate.cursor or 0)
        self._tell()
        return owned

    async def _go_apart(self, owned: Sequence[Owned], topic_id: str) -> None:
        """Have others fold what is new to these, where it is long: they are closed until it is done."""
        fresh = {each.number: each for each in owned if each.may_go_apart}
        if self.aparts is not None and fresh:
            firsts = {number: each.cursor for number, each in fresh.items()}
            for apart in await self.aparts.begin(firsts, topic_id, self._tombstone_seconds):
                fresh[apart.errand.partition].go_apart(apart)
            self._tell()

    async def _begin(
        self, number: int, gate: GateState, owner: Ownership, slots: Mapping[str, Slot], why: str
    ) -> Owned:
        """A new generation, closed: restored from a snapshot, folded from the log, or applied from where slots are."""
        start = start_of(gate, slots)
        recalled = Recalled(None, "snapshots are not kept")
        if self.recall is not None:
            recalled = await self.recall.newest(number, owner.topic_id, start)
        is_anew = recalled.state is not None or start == 0
        generation = await self._gates.begin(number, owner.epoch, start, owner.topic_id, rebuilding=is_anew)
        owner = owner._replace(generation=generation, is_open=False)
        owned = Owned(number, owner, start, first_offset=start, detail=f"{why}; {recalled.detail}")
        log.warning("budgets_generation", partition=number, generation=generation, reason=owned.detail, start=start)
        # Ours only once every slot is closed: the barrier is taken by the first heartbeat after this.
        there = [name for name, slot in slots.items() if slot.cursor is not None]
        await self._each_slot(owned, sorted(there if is_anew else slots), open_word="0", new_cursor=start)
        if recalled.state is not None:
            await self._restore(owned, recalled.state)
        elif is_anew:
            owned.fold = LiveFold(self._tombstone_seconds)
        self._owned[number] = owned
        self._tell()
        return owned

    async def _restore(self, owned: Owned, state: AppliedState) -> None:
        """Make the slots of a snapshot's tenants; the gate says so once all are there."""
        owned.source = "snapshot"
        self._tell(owned)
        try:
            await self._restorer.write(owned.owner, state)
        except IntegrityError as error:
            if self.recall is not None:
                self.recall.distrust(owned.number, state.cursor)
            raise StoreUnavailableError(f"snapshot of partition {owned.number}: {error}") from error
        await self._each_slot(owned, sorted(state.tenants), open_word="0")
        owned.cursor = owned.first_offset = state.cursor
        await self._write_gate(owned, dict(owned.tenants))

    async def _write_out(self, owned: Owned) -> None:
        """Put what was folded in memory into the slots; from here on they are applied to as ever."""
        fold = owned.fold
        if fold is not None:
            await self._restorer.write(owned.owner, state_of(fold, owned.cursor))
            await self._each_slot(owned, sorted(fold.tenants), open_word="0")
            owned.untold.update(owned.tenants)
            owned.fold = None
            log.info("budgets_folded", partition=owned.number, tenants=len(fold.tenants), cursor=owned.cursor)

    def _tell(self, restoring: Owned | None = None) -> None:
        """Say what is closed, and how batches are cut meanwhile."""
        self.policy = REBUILDING if any(each.fold is not None for each in self._owned.values()) else POLICY
        closed = {number: each for number, each in self._owned.items() if not each.owner.is_open}
        if restoring is not None:
            closed[restoring.number] = restoring
        self.on_rebuild([closed[number].rebuild for number in sorted(closed)], sorted(self._owned.keys() - closed))
