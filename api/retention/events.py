"""The class `events`: months of requests, decisions, attempts and health in Postgres and ClickHouse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from api.retention.plans import Drop, Plan
from processors.control import ControlState, Cut, LegalHold, Retention
from processors.control.months import MICROS_PER_SECOND, cut_of_months, month_start, oldest_pin
from sinks.audit.retention import OnProgress
from sinks.retention import MonthStore, StoredMonth


class EventsRetention:
    """A RetainedClass."""

    name = "events"

    def __init__(self, stores: Sequence[MonthStore]) -> None:
        """The stores belong to this class from now on."""
        self._stores = stores

    async def plan(self, state: ControlState, now_micros: int) -> Plan:
        """As the seam says."""
        retention = state.retention.get(self.name, Retention(name="events"))
        begin = end = retention.kept_from
        if retention.keep_days is not None:
            end = max(cut_of_months(retention.keep_days, now_micros, state.holds.values()), begin)
        months = await self._months_before(_reach(end, state.holds))
        if not any(_begins(month) >= begin for month in months):
            end = begin
        held = _held_back(state.holds, retention.keep_days, now_micros)
        return Plan(
            self.name,
            retention.keep_days,
            begin,
            end,
            _month_text(end),
            tuple(Drop(each.store, f"{each.table} {each.month:%Y-%m}", each.rows, each.bytes) for each in months),
            _why(held, retention.keep_days),
            "" if held is None else held.hold_id,
            unfinished=any(_begins(month) < begin for month in months),
        )

    async def check(self) -> None:
        """Nothing: what goes is a projection, and the log has it."""

    async def carry_out(self, state: ControlState, cut: Cut, control_end: int, on_progress: OnProgress) -> str:  # noqa: ARG002 - the seam's
        """As the seam says; late events that made a month again go with it."""
        end = _reach(cut.end, state.holds)
        months = await self._months_before(end)
        by_name = {store.name: store for store in self._stores}
        for done, month in enumerate(months, 1):
            await by_name[month.store].drop(month)
            on_progress(done, len(months))
        held = "; legal holds keep the rest" if end < cut.end else ""
        return f"{len(months)} {'month' if len(months) == 1 else 'months'} of tables before {_month_text(end)}{held}"

    async def _months_before(self, end: int) -> list[StoredMonth]:
        before = datetime.fromtimestamp(end // MICROS_PER_SECOND, UTC).date()
        return [month for store in self._stores for month in await store.months(before)]

    async def close(self) -> None:
        """Let go of the stores."""
        for store in self._stores:
            await store.close()


def _reach(end: int, holds: Mapping[str, LegalHold]) -> int:
    """How far months may go today: a hold that was placed after a cut keeps what is still there."""
    pin = oldest_pin(holds.values())
    return end if pin is None else min(end, month_start(max(pin.begins_micros, 0)))


def _begins(month: StoredMonth) -> int:
    day = month.month
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * MICROS_PER_SECOND


def _month_text(micros: int) -> str:
    return f"{datetime.fromtimestamp(micros // MICROS_PER_SECOND, UTC):%Y-%m}" if micros else "the beginning"


def _held_back(holds: Mapping[str, LegalHold], keep_days: int | None, now_micros: int) -> LegalHold | None:
    """The hold without which more would go."""
    if keep_days is None:
        return None
    free = cut_of_months(keep_days, now_micros, ())
    return oldest_pin(holds.values()) if cut_of_months(keep_days, now_micros, holds.values()) < free else None


def _why(held: LegalHold | None, keep_days: int | None) -> str:
    if keep_days is None:
        return "there is no policy: it stays for ever"
    if held is not None:
        return f"hold {held.hold_id} ({held.reason}) goes back to {_month_text(max(held.begins_micros, 0))}"
    return f"later months have events younger than {keep_days} days"
