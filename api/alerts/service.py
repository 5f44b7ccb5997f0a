"""Guardrails: the loop that watches limits and hands alerts over. One of its processes works, the others stand by.

quaestor.alerts has one partition; who owns it in the group works. It reads that topic from its first record on, so it
knows all that was told and delivered, and its own alerts come back to it through the log before they are delivered.

How far budgets were judged is committed in the group. Who takes over reads on from there, so what nobody told is told,
and what somebody told is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from api.alerts.courier import Courier
from api.alerts.forecaster import Forecaster
from api.alerts.watcher import Watcher
from processors.control import ControlState
from processors.guardrails import AlertBook
from schemas.errors import CodecError, LogError, LogUnavailableError, StoreUnavailableError
from schemas.events import Alert, BudgetEvent, Event
from schemas.limits import ALERT_DELIVERY_SECONDS_MAX, CONSUME_BATCH_RECORDS
from schemas.topics import ALERTS, BUDGETS
from streams.codec import Codec
from streams.log import GroupReader, LogReader, LogRecord, Partition
from streams.monitor import Monitor
from streams.recorder import Recorder
from streams.records import event_of
from streams.waiting import back_off_seconds

CONSUME_SECONDS = 0.1
LOOK_SECONDS = 0.5
#: Without live state there is nothing to see; what others tell is delivered all the same.
LOOK_AGAIN_SECONDS = 2.0
FORECAST_SECONDS = 60.0
COMMIT_SECONDS = 5.0
ASK_SECONDS = 10.0
BUDGET_RECORDS_MAX = 5 * CONSUME_BATCH_RECORDS
PLACE = Partition(ALERTS.name, 0)
Answer = TypeVar("Answer")
log = structlog.get_logger(__name__)


class Guardrails:
    """Readers, recorder and courier stay their maker's to close."""

    def __init__(
        self,
        alerts: GroupReader,
        budgets: LogReader,
        recorder: Recorder,
        codec: Codec,
        control: Callable[[], ControlState | None],
        watcher: Watcher,
        forecaster: Forecaster,
        courier: Courier,
        monitor: Monitor,
        clock_micros: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """`control` answers None until the control plane is known."""
        self._alerts, self._budgets, self._recorder, self._codec = alerts, budgets, recorder, codec
        self._control, self._watcher, self._forecaster, self._courier = control, watcher, forecaster, courier
        self._monitor, self._clock_micros = monitor, clock_micros
        self._book = AlertBook()
        #: Next offset of the alerts to read, and where their end was when we took over; None while we stand by.
        self._position: int | None = None
        self._barrier = 0
        #: Whether alerts may stand in the log that we do not know of.
        self._is_unsure = False
        self._follows_budgets = False
        #: Next offsets of budgets to read, where their ends were when we began, and what was committed of them last.
        self._budgets_at: dict[Partition, int] = {}
        self._budgets_barrier: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        self._look_at, self._look_at_all, self._commit_at, self._forecast_at = 0.0, 0.0, 0.0, 0.0
        self._forecast: asyncio.Task[list[Alert]] | None = None
        self._failures = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; waits while the log is away. Raises IntegrityError when a topic is not whole."""
        with ThreadPoolExecutor(1, thread_name_prefix="guardrails") as self._pool:
            await self._blocking(lambda: self._alerts.subscribe([ALERTS.name], self._take_over, self._give_up))
            try:
                while not stop.is_set():
                    await self._turn_or_wait(stop)
            finally:
                await self._give_up_forecast()

    async def _turn_or_wait(self, stop: asyncio.Event) -> None:
        try:
            await self._turn()
            self._failures = 0
        except LogUnavailableError as error:
            await self._wait(error, stop)

    async def _turn(self) -> None:
        await self._read_alerts()
        control = self._control()
        if self._position is None or control is None:
            await self._stand_by()
            self._monitor.set(state="running" if control else "waiting", working=False)
            return
        if self._position < self._barrier:
            return
        self._watcher.note_limits(control.limits)
        await self._follow_budgets()
        self._courier.turn(self._book.due(control.channels.values(), self._clock_micros()))
        try:
            await self._look(control)
        except StoreUnavailableError as error:
            self._look_at = time.monotonic() + LOOK_AGAIN_SECONDS
            self._monitor.set(state="waiting", working=True)
            log.warning("limits_not_seen", error=str(error))
        else:
            self._monitor.set(state="running", working=True)

    async def _stand_by(self) -> None:
        self._follows_budgets = False
        await self._give_up_forecast()
        await self._courier.stop()

    async def _read_alerts(self) -> None:
        """What was told and delivered, ours too. All of it is known before anything is told after an uncertain end."""
        if self._is_unsure and self._position is not None:
            ends = await self._blocking(lambda: self._alerts.end_offsets([PLACE], ASK_SECONDS))
            self._barrier, self._is_unsure = ends[PLACE], False
        records = await self._blocking(lambda: self._alerts.consume(CONSUME_BATCH_RECORDS, CONSUME_SECONDS))
        if self._position is None or not records:
            return
        try:
            events = self._events(records)
        except LogError:
            await self._blocking(lambda: self._alerts.seek({PLACE: records[0].offset}))
            raise
        for event in events:
            if isinstance(event, Alert):
                self._book.apply(event)
        self._position = records[-1].offset + 1

    async def _look(self, control: ControlState) -> None:
        """Look twice a second at what moved, and tell what is to be told."""
        now = time.monotonic()
        if now < self._look_at:
            return
        if now >= self._look_at_all and self._is_catching_up():
            self._watcher.note_all()
            self._look_at_all = now + LOOK_AGAIN_SECONDS
        await self._tell(await self._watcher.look(self._book, self._clock_micros()))
        self._look_at = now + LOOK_SECONDS
        await self._commit()
        await self._look_ahead(control, now)

    async def _look_ahead(self, control: ControlState, now: float) -> None:
        """Once a minute, look where limits go: beside the loop, for each limit is asked for by itself."""
        task = self._forecast
        if task is None and now >= self._forecast_at:
            self._forecast_at = now + FORECAST_SECONDS
            asked = self._forecaster.look(list(control.limits.values()), self._book, self._clock_micros())
            self._forecast = asyncio.create_task(asked, name="forecast")
        elif task is not None and task.done():
            self._forecast = None
            try:
                alerts = task.result()
            except StoreUnavailableError:
                self._forecast_at = now + LOOK_AGAIN_SECONDS
                raise
            await self._tell([alert for alert in alerts if not self._book.knows(alert.event_id)])

    async def _give_up_forecast(self) -> None:
        task, self._forecast = self._forecast, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _tell(self, alerts: Sequence[Alert]) -> None:
        """Record alerts; whoever is not in charge any more tells nothing."""
        if not alerts:
            return
        place = {PLACE: self._position or 0}
        if not await self._blocking(lambda: self._alerts.confirm(place)):
            raise LogUnavailableError("the group does not count on us now")
        self._is_unsure = True
        await self._recorder.record(alerts)
        self._is_unsure = False
        for alert in alerts:
            self._book.apply(alert)
            self._monitor.metrics.counter("quaestor_alerts_total").labels(alert.kind.value).inc()
            log.info("alert", tenant_id=alert.tenant_id, title=alert.title)

    async def _follow_budgets(self) -> None:
        if not self._follows_budgets:
            await self._blocking(self._begin_budgets)
            self._watcher.forget()
            self._follows_budgets = True
        records = await self._blocking(lambda: self._budgets.consume(BUDGET_RECORDS_MAX, CONSUME_SECONDS))
        try:
            events = self._events(records)
        except LogError:
            self._follows_budgets = False
            raise
        for record, event in zip(records, events, strict=True):
            self._budgets_at[Partition(record.topic, record.partition)] = record.offset + 1
            if isinstance(event, BudgetEvent):
                self._watcher.note(event, record.offset, record.partition)
        if records:
            age = self._clock_micros() / 1_000_000 - records[-1].timestamp_millis / 1_000
            self._monitor.set(freshness_seconds=round(max(age, 0.0), 3))

    def _begin_budgets(self) -> None:
        """From where judging ended, but not from before what could still be delivered."""
        partitions = self._budgets.partitions([BUDGETS.name], ASK_SECONDS)
        ends = self._budgets.end_offsets(partitions, ASK_SECONDS)
        oldest_millis = self._clock_micros() // 1_000 - ALERT_DELIVERY_SECONDS_MAX * 1_000
        oldest = self._budgets.offsets_at(oldest_millis, partitions, ASK_SECONDS)
        committed = self._alerts.committed(partitions, ASK_SECONDS)
        begins = {at: min(max(committed.get(at, 0), oldest[at]), ends[at]) for at in partitions}
        self._budgets.assign(begins)
        self._budgets_at, self._budgets_barrier, self._committed = dict(begins), ends, {}
        log.info("budgets_read_on", records=sum(ends[at] - begins[at] for at in partitions))

    def _is_catching_up(self) -> bool:
        """Whether there is more to read of what was missed: what stands now is not to wait for it."""
        return any(self._budgets_at[at] < end for at, end in self._budgets_barrier.items())

    async def _commit(self) -> None:
        """Now and then, say up to where every budgets event was judged and what follows from it was told."""
        now, unseen = time.monotonic(), self._watcher.unseen()
        judged = {at: min(offset, unseen.get(at.number, offset)) for at, offset in self._budgets_at.items()}
        if now < self._commit_at or judged == self._committed or self._watcher.has_more:
            return
        self._commit_at, self._committed = now + COMMIT_SECONDS, judged
        await self._blocking(lambda: self._alerts.commit_hint(judged))

    def _events(self, records: Sequence[LogRecord]) -> list[Event | None]:
        """The events of records, None for what can't be read: the sinks quarantine it. Raises LogUnavailableError."""
        return [self._event(record) for record in records]

    def _event(self, record: LogRecord) -> Event | None:
        try:
            return event_of(self._codec, record)
        except CodecError as error:
            log.debug("record_passed_over", topic=record.topic, error=str(error))
            return None

    def _take_over(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        begins = self._alerts.begin_offsets(partitions, ASK_SECONDS)
        self._barrier = self._alerts.end_offsets(partitions, ASK_SECONDS)[PLACE]
        self._book, self._position = AlertBook(), begins[PLACE]
        self._forecaster.forget()
        log.info("guardrails_taken_over", alerts=self._barrier - begins[PLACE])
        return begins

    def _give_up(self, _partitions: Sequence[Partition]) -> None:
        self._position = None

    async def _blocking(self, work: Callable[[], Answer]) -> Answer:
        """In the one thread that owns the readers."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _wait(self, error: Exception, stop: asyncio.Event) -> None:
        self._failures += 1
        self._monitor.set(state="waiting")
        log.warning("guardrails_wait", error=str(error), failures=self._failures)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), back_off_seconds(self._failures))
