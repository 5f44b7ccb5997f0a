"""AlertBook: the fold of quaestor.alerts. What was told, and which channel has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from processors.control.entities import Channel
from processors.guardrails.delivering import is_final
from schemas.events import Alert, AlertKind, Severity
from schemas.limits import ALERT_DELIVERY_SECONDS_MAX, ALERTS_REMEMBERED_MAX

MICROS_PER_SECOND = 1_000_000
_ORDER = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)


class Delivery(NamedTuple):
    """An alert that a channel is to get."""

    alert: Alert
    channel: Channel


class AlertBook:
    """Folded in the topic's order; remembers `remembered_max` alerts of limits on each of a kind, and as many others.

    They are kept apart: however many runs reach a threshold, what was told of the tenant's own limits stays known. Of
    runs it may have forgotten what was told, and says so (`has_forgotten_some_of_many`).
    """

    def __init__(self, remembered_max: int = ALERTS_REMEMBERED_MAX) -> None:
        """Nothing was told yet."""
        self._remembered_max = remembered_max
        self._told: dict[str, None] = {}
        self._told_of_many: dict[str, None] = {}
        self.has_forgotten_some_of_many = False
        self._waiting: dict[str, Alert] = {}
        #: Channels that are done with an alert.
        self._ended: dict[str, set[str]] = {}

    def apply(self, alert: Alert) -> None:
        """Fold one alert in; the same again changes nothing."""
        if alert.kind is AlertKind.DELIVERY:
            if is_final(alert) and alert.causation_id in self._waiting and alert.channel_id is not None:
                self._ended.setdefault(alert.causation_id, set()).add(alert.channel_id)
        elif not self.knows(alert.event_id):
            self._waiting[alert.event_id] = alert
            self._remember(alert)

    def _remember(self, alert: Alert) -> None:
        of_many = is_of_many(alert.limit_id or "")
        told = self._told_of_many if of_many else self._told
        told[alert.event_id] = None
        if len(told) > self._remembered_max:
            oldest = next(iter(told))
            del told[oldest]
            self._put_away(oldest)
            self.has_forgotten_some_of_many |= of_many

    def knows(self, event_id: str) -> bool:
        """Whether this alert was told before, and not so long ago that it is forgotten."""
        return event_id in self._told or event_id in self._told_of_many

    def due(self, channels: Iterable[Channel], now_micros: int) -> list[Delivery]:
        """What channels are still to get, the oldest first.

        An alert that is too old by now, or that no channel is to get, is put away: a channel that is added later gets
        none that is older than itself.
        """
        by_tenant: dict[str, list[Channel]] = {}
        for channel in channels:
            by_tenant.setdefault(channel.tenant_id, []).append(channel)
        oldest = now_micros - ALERT_DELIVERY_SECONDS_MAX * MICROS_PER_SECOND
        found: list[Delivery] = []
        for event_id, alert in list(self._waiting.items()):
            ended = self._ended.get(event_id, ())
            takers = by_tenant.get(alert.tenant_id, ()) if alert.occurred_at >= oldest else ()
            wanting = [one for one in takers if one.channel_id not in ended and _is_for(one, alert)]
            found += [Delivery(alert, channel) for channel in wanting]
            if not wanting:
                self._put_away(event_id)
        return found

    def _put_away(self, event_id: str) -> None:
        self._waiting.pop(event_id, None)
        self._ended.pop(event_id, None)


def is_of_many(counter_name: str) -> bool:
    """Whether a counter of this name is one of many: of a limit on each of a kind."""
    return "." in counter_name


def _is_for(channel: Channel, alert: Alert) -> bool:
    """Whether a channel wants an alert: severe enough, and not older than the channel."""
    if alert.occurred_at < channel.created_at or alert.severity not in _ORDER:
        return False
    return _ORDER.index(alert.severity) >= _ORDER.index(Severity(channel.severity.upper()))
