"""The class `audit`: entries of the audit log, as public bundles and as rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from api.retention.plans import Drop, Plan, RetentionStoppedError
from processors.audit.cutting import CutPlan, Stop
from processors.audit.tiles import TILE_WIDTH
from processors.control import ControlState, Cut, LegalHold, Retention
from processors.control.months import MICROS_PER_DAY
from schemas.limits import RETENTION_BLOCK_ENTRIES, RETENTION_ENTRY_SECONDS
from schemas.topics import CONTROL
from sinks.audit.files import LogFiles
from sinks.audit.retention import EntryRows, OnProgress, bundle_bytes, carry_out, plan_cut
from sinks.audit.store import LogState
from sinks.audit.verify import AuditReport
from streams.log import Partition

POLL_SECONDS = 0.1
CONTROL_PARTITION = Partition(CONTROL.name, 0)
#: No entry is younger.
NEVER_MICROS = 1 << 63


class SequencedLog(Protocol):
    """What is asked of the log's rows."""

    async def cursors(self) -> Mapping[Partition, int]:
        """Next offset per partition."""

    async def state(self) -> LogState:
        """Where the log stands."""


class DroppableRows(EntryRows, Protocol):
    """The rows, as retention may drop them."""

    async def close(self) -> None:
        """Let go."""


class AuditRetention:
    """A RetainedClass."""

    name = "audit"

    def __init__(
        self,
        files: LogFiles,
        log: SequencedLog,
        rows: DroppableRows,
        published_size: Callable[[], int],
        verify: Callable[[], Awaitable[AuditReport]],
        block_entries: int = RETENTION_BLOCK_ENTRIES,
    ) -> None:
        """`published_size` says how many entries are under the published checkpoint; `verify` looks at all of them."""
        self._files = files
        self._log = log
        self._rows = rows
        self._published_size = published_size
        self._verify = verify
        self._block_entries = block_entries

    async def plan(self, state: ControlState, now_micros: int) -> Plan:
        """As the seam says."""
        return await asyncio.to_thread(self._plan, state, now_micros)

    def _plan(self, state: ControlState, now_micros: int) -> Plan:
        retention = state.retention.get(self.name, Retention(name="audit"))
        before = self._files.kept().minimum_index
        if retention.keep_days is None:
            found = CutPlan(before, before, Stop.YOUNG)
        else:
            since = now_micros - retention.keep_days * MICROS_PER_DAY
            found = self._cut(self._published_size(), since, state.holds)
        begin, end = max(before, retention.kept_from), max(found.end, retention.kept_from)
        return Plan(
            self.name,
            retention.keep_days,
            begin,
            end,
            f"entry {end}",
            self._drops(before, end),
            _why(found, retention.keep_days, state.holds),
            found.hold_id,
            unfinished=self._is_unfinished(retention.cut, before),
        )

    def _cut(self, size: int, before_micros: int, holds: Mapping[str, LegalHold]) -> CutPlan:
        return plan_cut(self._files, size, before_micros, holds.values(), self._block_entries)

    def _drops(self, begin: int, end: int) -> tuple[Drop, ...]:
        if end <= begin:
            return ()
        what = f"entries {begin} to {end - 1}, {(end - begin) // TILE_WIDTH} bundles"
        return (Drop("audit log", what, end - begin, bundle_bytes(self._files, begin, end)),)

    def _is_unfinished(self, cut: Cut | None, minimum_index: int) -> bool:
        if cut is None:
            return False
        return minimum_index < cut.end or bundle_bytes(self._files, cut.begin, cut.end) > 0

    async def check(self) -> None:
        """The log is verified before anything of it goes: afterwards nobody could tell."""
        report = await self._verify()
        if not report.ok:
            raise RetentionStoppedError(
                f"the audit log is not sound, so nothing of it goes: {report.first_difference}; run "
                "`quaestor audit verify`"
            )

    async def carry_out(self, state: ControlState, cut: Cut, control_end: int, on_progress: OnProgress) -> str:
        """As the seam says; waits for the cut's entry to be published first."""
        kept = await asyncio.to_thread(self._files.kept)
        if kept.minimum_index < cut.end:
            possible = await asyncio.to_thread(self._cut, cut.size, NEVER_MICROS, state.holds)
            if possible.end < cut.end:
                raise RetentionStoppedError(
                    f"hold {possible.hold_id} was placed after the cut to entry {cut.end} was recorded, and covers "
                    f"entry {possible.entry}: nothing was dropped; release it, or leave the cut as it is"
                )
            await self._published(control_end)
        gone = await carry_out(self._files, self._rows, cut.begin, cut.end, cut.keep_days, on_progress)
        partitions = f" and {gone.table_partitions} table partitions" if gone.table_partitions else ""
        return f"entries below {cut.end}: {gone.bundles} bundles{partitions}; their hashes stay"

    async def _published(self, control_end: int) -> None:
        """Wait until the control topic up to here is under a published checkpoint."""
        deadline = time.monotonic() + RETENTION_ENTRY_SECONDS
        while not await self._is_published(control_end):
            if time.monotonic() > deadline:
                raise RetentionStoppedError(
                    f"the cut is recorded in Kafka, but not published in the audit log after {RETENTION_ENTRY_SECONDS} "
                    "s: is `quaestor sink audit` running? Nothing was dropped; apply again"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _is_published(self, control_end: int) -> bool:
        """Positions are given in the order of the log: what was sequenced before the state was read is below it."""
        if (await self._log.cursors()).get(CONTROL_PARTITION, 0) < control_end:
            return False
        sequenced = (await self._log.state()).next_seq
        return await asyncio.to_thread(self._published_size) >= sequenced

    async def close(self) -> None:
        """Let go of the rows."""
        await self._rows.close()


def _why(found: CutPlan, keep_days: int | None, holds: Mapping[str, LegalHold]) -> str:
    if keep_days is None:
        return "there is no policy: it stays for ever"
    if found.stop is Stop.HELD:
        return f"hold {found.hold_id} ({holds[found.hold_id].reason}) covers entry {found.entry}"
    if found.stop is Stop.YOUNG:
        return f"entry {found.entry} is younger than {keep_days} days"
    return "the newest block stays"
