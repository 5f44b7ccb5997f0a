"""Courier: hands alerts to channels, each apart, with pauses that grow, and records how each ended.

At least once: what was sent and not recorded as sent (this process died in between) is sent again, under the same id.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from api.alerts.outlets import Later, Never, Outlet, Receipt, Sent
from api.providers.errors import SecretUnavailableError
from processors.control import Channel
from processors.guardrails import Delivery, delivery_event, pause_seconds
from schemas.errors import CodecError, LogError
from schemas.events import Alert
from schemas.limits import ALERT_ATTEMPTS_MAX, ALERT_CHANNEL_SENDS_AT_ONCE_MAX, ALERT_SENDS_AT_ONCE_MAX
from streams.metrics import Metrics

MICROS_PER_SECOND = 1_000_000
log = structlog.get_logger(__name__)

#: (alert id, channel id)
Key = tuple[str, str]
#: (tenant id, channel id)
Place = tuple[str, str]


@dataclass(slots=True)
class _Try:
    attempts: int = 0
    #: Microseconds since the epoch.
    not_before: int = 0
    #: Who is done with it of several that one target names, as the outlet said.
    ended: dict[str, int] = field(default_factory=dict)


class Courier:
    """Turned again and again with what is due; remembers what is under way and when to try again."""

    def __init__(
        self,
        outlets: Mapping[str, Outlet],
        resolve: Callable[[str | None], str | None],
        tell: Callable[[Alert], Awaitable[None]],
        clock_micros: Callable[[], int],
        draw: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        """`outlets` by kind of channel; `resolve` reads references; `tell` records an event, however long it takes.

        It raises LogError or CodecError for an event that will never be recorded.
        """
        self._outlets, self._resolve, self._tell = outlets, resolve, tell
        self._clock_micros, self._draw, self._metrics = clock_micros, draw, metrics
        self._tries: dict[Key, _Try] = {}
        self._running: dict[Key, asyncio.Task[None]] = {}
        #: How many sends are under way to each channel, and the channels that did not take the last one.
        self._sends = Counter[Place]()
        self._ill: set[Place] = set()

    def turn(self, due: Iterable[Delivery]) -> None:
        """Begin what is due and may begin; forget what is due no longer."""
        now = self._clock_micros()
        wanted: set[Key] = set()
        for delivery in due:
            key = (delivery.alert.event_id, delivery.channel.channel_id)
            wanted.add(key)
            tried = self._tries.setdefault(key, _Try())
            if key not in self._running and now >= tried.not_before and self._has_room(_place(delivery.channel)):
                self._sends[_place(delivery.channel)] += 1
                self._running[key] = asyncio.create_task(self._deliver(key, delivery, tried))
        for key in self._tries.keys() - wanted - self._running.keys():
            del self._tries[key]

    def _has_room(self, place: Place) -> bool:
        """Whether one more may be sent to a channel: one that hangs takes none of the room of others."""
        most = 1 if place in self._ill else ALERT_CHANNEL_SENDS_AT_ONCE_MAX
        return self._sends[place] < most and len(self._running) < ALERT_SENDS_AT_ONCE_MAX

    async def close(self) -> None:
        """Give up what is under way, unrecorded, and close the outlets."""
        await self.stop()
        for outlet in set(self._outlets.values()):
            await outlet.close()

    async def stop(self) -> None:
        """Give up what is under way: somebody else goes on."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._running.clear()
        self._sends.clear()
        self._ill.clear()
        self._tries.clear()

    async def _deliver(self, key: Key, delivery: Delivery, tried: _Try) -> None:
        alert, channel = delivery
        try:
            tried.attempts += 1
            receipt = await self._send(channel, alert, tried.ended)
            self._note(_place(channel), receipt)
            now = self._clock_micros()
            self._metrics.counter("quaestor_alert_sends_total").labels(channel.kind, _word(receipt)).inc()
            if isinstance(receipt, Later) and tried.attempts < ALERT_ATTEMPTS_MAX:
                pause = pause_seconds(tried.attempts, receipt.asked_seconds, self._draw())
                tried.ended |= receipt.ended
                tried.not_before = now + round(pause * MICROS_PER_SECOND)
                log.warning("alert_waits", channel=channel.channel_id, reason=receipt.reason, attempts=tried.attempts)
                return
            # Never begun again by us: what it waits for is the record of its end.
            tried.not_before = now + (1 << 62)
            await self._record(alert, channel, tried, receipt)
        finally:
            self._running.pop(key, None)
            self._sends[_place(channel)] -= 1

    async def _record(self, alert: Alert, channel: Channel, tried: _Try, receipt: Receipt) -> None:
        """Record how it ended; an end that can't be recorded is an end all the same, and said."""
        fault = None if isinstance(receipt, Sent) else receipt.reason
        end = delivery_event(alert, channel.channel_id, self._clock_micros(), attempts=tried.attempts, fault=fault)
        try:
            await self._tell(end)
        except (LogError, CodecError) as error:
            told = {"alert": alert.event_id, "channel": channel.channel_id, "state": end.delivery_state}
            log.exception("delivery_not_recorded", **told, error=str(error))

    def _note(self, place: Place, receipt: Receipt) -> None:
        if isinstance(receipt, Later):
            self._ill.add(place)
        else:
            self._ill.discard(place)

    async def _send(self, channel: Channel, alert: Alert, ended: Mapping[str, int]) -> Receipt:
        try:
            target, secret = self._resolve(channel.target_ref), self._resolve(channel.secret_ref)
        except SecretUnavailableError as error:
            return Later(str(error))
        if target is None:
            return Never("the channel has no target")
        try:
            return await self._outlets[channel.kind].send(
                channel, alert, target, secret, self._clock_micros() // MICROS_PER_SECOND, ended
            )
        except Exception as error:  # a channel must not take the others along
            log.exception("outlet_failed", channel=channel.channel_id)
            return Later(f"our own fault: {type(error).__name__}")


def _place(channel: Channel) -> Place:
    return channel.tenant_id, channel.channel_id


def _word(receipt: Receipt) -> str:
    return type(receipt).__name__.lower()
