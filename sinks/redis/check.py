"""`quaestor verify budgets`: live budgets against the fold of the log, tenant by tenant at each one's own cursor.

It needs no pause of traffic: a tenant's state and cursor are read at one moment, and its events are folded to exactly
that cursor. Invariants over the fold itself (nothing negative, no hold open past its lease) are checked beside.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from processors.budgets import BudgetFold
from schemas.errors import CodecError, IntegrityError
from schemas.events import BudgetEvent
from schemas.limits import HOLD_TOMBSTONE_SECONDS
from schemas.topics import BUDGETS
from sinks.redis.reads import Difference, RedisReads, TenantState, compare
from streams.codec import Codec
from streams.log import LogReader, LogRecord, Partition

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
) -> BudgetCheck:
    """Fold quaestor.budgets and compare; blocks while it reads. Raises LogUnavailableError and IntegrityError.

    Windows that ended twice a tombstone's life before `now_micros` are the ledger's to check: their sums may be swept.
    Records that can't be decoded are passed over, and those at offsets that the sink `set_aside`.
    """
    folds = {tenant_id: BudgetFold() for tenant_id in states}
    result = BudgetCheck(tenants=len(states))
    for partition in reader.partitions([BUDGETS.name], METADATA_SECONDS):
        absent = frozenset((set_aside or {}).get(partition, ()))
        _fold_partition(partition, states, folds, reader, codec, result, absent)
    for tenant_id, state in sorted(states.items()):
        fold = folds[tenant_id]
        found = compare(fold.sums, fold.open_holds, state, now_micros - 2 * HOLD_TOMBSTONE_SECONDS * MICROS_PER_SECOND)
        result.differences += [item._replace(what=f"{tenant_id}: {item.what}") for item in found]
        negative = [counter for counter, sums in fold.sums.items() if min(sums) < 0]
        result.differences += [Difference(f"{tenant_id}: fold {counter}", ">= 0", "< 0") for counter in negative]
    return result


def _fold_partition(
    partition: Partition,
    states: dict[str, TenantState],
    folds: dict[str, BudgetFold],
    reader: LogReader,
    codec: Codec,
    result: BudgetCheck,
    absent: Collection[int],
) -> None:
    cursor = reader.begin_offsets([partition], METADATA_SECONDS)[partition]
    end = reader.end_offsets([partition], METADATA_SECONDS)[partition]
    reader.assign({partition: cursor})
    while cursor < end:
        records = reader.consume(READ_RECORDS, READ_SECONDS)
        for record in records:
            if record.offset in absent:
                continue
            _fold_record(record, states, folds, codec, result)
        if records:
            cursor = records[-1].offset + 1


def _fold_record(
    record: LogRecord, states: dict[str, TenantState], folds: dict[str, BudgetFold], codec: Codec, result: BudgetCheck
) -> None:
    try:
        fields = codec.decode(BUDGETS.name, record.value or b"")
    except CodecError:
        return
    state = states.get(fields["tenant_id"])
    if state is None or record.offset >= state.cursor:
        return
    try:
        folds[state.tenant_id].apply(msgspec.convert(fields, BudgetEvent, builtin_types=(bytes,)))
    except msgspec.ValidationError as error:
        raise IntegrityError(f"{BUDGETS.name}/{record.partition}@{record.offset}: {error}") from error
    result.events += 1
