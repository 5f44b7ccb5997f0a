"""The topic table: what each topic carries, how it is keyed, how many partitions it has.

Partition counts are fixed at creation; request-scoped topics share one count and one key, so that everything about one
request or run is in the same partition number of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas import events

SYSTEM_TENANT = "_system"
PARTITIONS = 6


@dataclass(frozen=True)
class Topic:
    """One topic."""

    #: Kafka name; the schema subject is `<name>-value`.
    name: str
    #: Frozen event type of its records.
    event_type: type[events.Event]
    #: Partitions at creation.
    partitions: int
    #: The key a record must have, from the record's own fields; None where it can't be told from them.
    key_of: Callable[[Any], str] | None

    @property
    def subject(self) -> str:
        """The schema registry's subject of its values."""
        return f"{self.name}-value"


def _request_key(event: Any) -> str:
    return f"{event.tenant_id}/{event.run_id or event.request_id}"


def _tenant_key(event: Any) -> str:
    return str(event.tenant_id)


REQUESTS = Topic("quaestor.requests", events.RequestEvent, PARTITIONS, _request_key)
DECISIONS = Topic("quaestor.decisions", events.RoutingDecision, PARTITIONS, _request_key)
ATTEMPTS = Topic("quaestor.attempts", events.ProviderAttempt, PARTITIONS, _request_key)
COSTS = Topic("quaestor.costs", events.CostEvent, PARTITIONS, _request_key)
BUDGETS = Topic("quaestor.budgets", events.BudgetEvent, PARTITIONS, _tenant_key)
LEDGER = Topic("quaestor.ledger", events.LedgerEntry, PARTITIONS, _tenant_key)
CONTROL = Topic("quaestor.control", events.ControlEvent, 1, lambda event: f"{event.tenant_id}/{event.entity_id}")
HEALTH = Topic(
    "quaestor.health", events.ProviderHealth, 1, lambda event: f"{event.provider_id}/{event.model}/{event.region}"
)
ALERTS = Topic("quaestor.alerts", events.Alert, 1, _tenant_key)
QUARANTINE = Topic("quaestor.quarantine", events.QuarantinedRecord, 1, None)

TOPICS: tuple[Topic, ...] = (REQUESTS, DECISIONS, ATTEMPTS, COSTS, BUDGETS, LEDGER, CONTROL, HEALTH, ALERTS, QUARANTINE)
TOPIC_BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}
TOPIC_BY_TYPE: dict[type, Topic] = {topic.event_type: topic for topic in TOPICS}


def topic_of(event: events.Event) -> Topic:
    """The topic an event belongs to."""
    return TOPIC_BY_TYPE[type(event)]


def key_of(event: events.Event) -> str:
    """The key of an event's record; raises KeyError for a quarantined record, whose key is the original one."""
    topic = TOPIC_BY_TYPE[type(event)]
    if topic.key_of is None:
        raise KeyError(topic.name)
    return topic.key_of(event)
