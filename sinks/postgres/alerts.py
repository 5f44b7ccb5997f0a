"""What was told, and what became of it, as Postgres has it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sinks.postgres.connect import READER_ROLE, connect, passing_errors, use_log_types

ALERTS = """
SELECT
    a.event_id::text, a.tenant_id, a.kind, a.severity, a.title, a.detail, a.subject, a.occurred_at
FROM quaestor_v1.alert AS a
WHERE a.kind <> 'DELIVERY' AND ($1::text IS NULL OR a.tenant_id = $1)
    AND a.occurred_at >= $2
ORDER BY a.occurred_at DESC, a.event_id
LIMIT $3
"""
DELIVERIES = """
SELECT
    d.causation_id::text AS alert_id, d.channel_id, d.delivery_state AS state, d.detail, d.occurred_at
FROM quaestor_v1.alert AS d
WHERE d.kind = 'DELIVERY' AND d.causation_id = ANY($1::uuid[])
    AND d.occurred_at >= $2
ORDER BY d.occurred_at, d.channel_id
"""


@dataclass(frozen=True)
class DeliveryEnd:
    """How handing an alert to one channel ended."""

    channel_id: str
    #: SENT or FAILED.
    state: str
    detail: str
    #: Microseconds since the epoch.
    occurred_at: int


@dataclass(frozen=True)
class ToldAlert:
    """An alert, and its ends at channels."""

    event_id: str
    tenant_id: str
    kind: str
    severity: str
    title: str
    detail: str
    subject: str
    #: Microseconds since the epoch.
    occurred_at: int
    deliveries: tuple[DeliveryEnd, ...] = ()


async def told_alerts(dsn: str, tenant_id: str | None, since_micros: int, most: int) -> list[ToldAlert]:
    """The newest alerts since then, at most so many, of one tenant or of all; raises StoreUnavailableError."""
    connection = await connect(dsn, READER_ROLE)
    try:
        with passing_errors():
            await use_log_types(connection)
            rows = await connection.fetch(ALERTS, tenant_id, since_micros, most)
            ends = await connection.fetch(DELIVERIES, [row["event_id"] for row in rows], since_micros)
    finally:
        await connection.close()
    of_alert: defaultdict[str, list[DeliveryEnd]] = defaultdict(list)
    for end in ends:
        of_alert[end["alert_id"]].append(
            DeliveryEnd(end["channel_id"], end["state"], end["detail"], end["occurred_at"])
        )
    return [ToldAlert(**dict(row), deliveries=tuple(of_alert[row["event_id"]])) for row in rows]
