"""`quaestor verify budgets`: live budgets against the fold of the log, tenant by tenant at each one's own cursor.

It needs no pause of traffic: a tenant's state and cursor are read at one moment, and its events are folded to exactly
that cursor. A slot that is gone or was left behind has a cursor too: how far the sink was tells of it. Invariants over
the fold itself (nothing negative, no hold open past its lease) are checked beside.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from processors.budgets import BudgetFold
from processors.budgets.sound import MOVING, problem_of_fields
from schemas.errors import CodecError, IntegrityError
from schemas.events import BudgetEvent
from schemas.limits import HOLD_TOMBSTONE_SECONDS
from schemas.topics import BUDGETS
from sinks.redis.reads import Difference, RedisReads, TenantState, compare
from streams.codec import Codec
from streams.log import LogReader, LogRecord, Partition

MICROS_PER_MILLI = 1_000
MICROS_PER_SECOND = 1_000_000
READ_RECORDS = 5_000
READ_SECONDS = 1.0
METADATA_SECONDS = 10.0


@dataclass
class BudgetCheck:
    """What the comparison found."""

    tenants: int = 0
    events: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


async def read_states(reads: RedisReads) -> dict[str, TenantState]:
    """Every tenant's state, each at its own moment; raises StoreUnavailableError."""
    return {tenant_id: await reads.tenant_state(tenant_id) for tenant_id in await reads.tenants()}


def check_budgets(
    states: dict[str, TenantState],
    reader: LogReader,
    codec: Codec,
    set_aside: Mapping[Partition, Collection[int]] | None = None,
    now_micros: int = 0,
    applied: Mapping[Partition, int] | None = None,
    overdue_before_micros: int = 0,
    tombstone_seconds: int = HOLD_TOMBSTONE_SECONDS,
) -> BudgetCheck:
    """Fold quaestor.budgets and compare; blocks while it reads. Raises LogUnavailableError and IntegrityError.

    Windows that ended twice a tombstone's life before `now_micros` are the ledger's to check: their sums may be swept.
    Records that can't be decoded are passed over, and those at offsets that the sink `set_aside`. `applied` is how far
    the sink was in each partition before the states were read: whoever lacks a movement below it is named. So is a hold
    whose lease ended before `overdue_before_micros`: nobody ends it, unless its end was set aside.
    """
    folding = _Folding(states, codec, tombstone_seconds)
    for partition in reader.partitions([BUDGETS.name], METADATA_SECONDS):
        absent = frozenset((set_aside or {}).get(partition, ()))
        folding.read(partition, reader, absent, (applied or {}).get(partition, 0))
    result = BudgetCheck(len(states), folding.events, [folding.behind[name] for name in sorted(folding.behind)])
    for tenant_id, state in sorted(states.items()):
        fold = folding.folds[tenant_id]
        found = compare(fold.sums, fold.open_holds, state, now_micros - 2 * tombstone_seconds * MICROS_PER_SECOND)
        result.differences += [item._replace(what=f"{tenant_id}: {item.what}") for item in found]
        negative = [counter for counter, sums in fold.sums.items() if min(sums) < 0]
        result.differences += [Difference(f"{tenant_id}: fold {counter}", ">= 0", "< 0") for counter in negative]
        late = {} if tenant_id in folding.waiting else fold.open_holds
        overdue = [hold_id for hold_id, hold in late.items() if hold.lease_until < overdue_before_micros]
        result.differences += [Difference(f"{tenant_id}: hold {hold_id}", "EXPIRED", "open") for hold_id in overdue]
    return result


class _Folding:
    """The log, folded to each tenant's own cursor."""

    def __init__(self, states: Mapping[str, TenantState], codec: Codec, tombstone_seconds: int) -> None:
        self._states, self._codec = states, codec
        self.folds = {tenant_id: BudgetFold(tombstone_seconds) for tenant_id in states}
        self.events = 0
        #: Tenants of whom something was set aside; the log's key is the tenant.
        self.waiting: set[str] = set()
        #: The first movement that a tenant lacks.
        self.behind: dict[str, Difference] = {}

    def read(self, partition: Partition, reader: LogReader, absent: Collection[int], applied: int) -> None:
        """Fold a partition from its beginning to its end."""
        cursor = reader.begin_offsets([partition], METADATA_SECONDS)[partition]
        end = reader.end_offsets([partition], METADATA_SECONDS)[partition]
        reader.assign({partition: cursor})
        while cursor < end:
            records = reader.consume(READ_RECORDS, READ_SECONDS)
            for record in records:
                if record.offset in absent:
                    self.waiting.add((record.key or b"").decode(errors="replace"))
                else:
                    self._take(partition, record, applied)
            if records:
                cursor = records[-1].offset + 1
                self._forget(min(record.timestamp_millis for record in records))

    def _forget(self, reached_millis: int) -> None:
        """Of a batch the oldest record's time is taken: the clock of one gateway makes nothing forgotten."""
        for fold in self.folds.values():
            fold.forget(reached_millis * MICROS_PER_MILLI)

    def _take(self, partition: Partition, record: LogRecord, applied: int) -> None:
        try:
            fields = self._codec.decode(BUDGETS.name, record.value or b"")
        except CodecError:
            return
        tenant_id = str(fields["tenant_id"])
        state = self._states.get(tenant_id)
        if state is None or record.offset >= state.cursor:
            if record.offset < applied and fields["kind"] in MOVING and problem_of_fields(fields) is None:
                found = "no slot" if state is None or state.generation is None else f"a slot up to {state.cursor}"
                missing = Difference(f"{tenant_id}: {partition}", f"applied past {record.offset}", found)
                self.behind.setdefault(tenant_id, missing)
            return
        try:
            self.folds[tenant_id].apply(msgspec.convert(fields, BudgetEvent, builtin_types=(bytes,)))
        except msgspec.ValidationError as error:
            raise IntegrityError(f"{BUDGETS.name}/{record.partition}@{record.offset}: {error}") from error
        self.events += 1
