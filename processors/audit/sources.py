"""What an audit entry says about a record: public fields if it can be read, a bare commitment if it can't."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from processors.audit.commitment import Salts
from processors.audit.entry import KIND_UNDECODABLE, LOG_TENANT, Source
from schemas.ids import is_name, is_uuid
from schemas.topics import SYSTEM_TENANT

MICROS_PER_MILLI = 1_000
CURRENCY_CHARACTERS_MAX = 16
_FRAME_BYTES = 5
_INT64_END = 1 << 63
#: The field that tells records of a topic apart; a topic that is not here has only one kind.
KIND_FIELDS = {
    "quaestor.requests": "kind",
    "quaestor.attempts": "outcome",
    "quaestor.costs": "kind",
    "quaestor.budgets": "kind",
    "quaestor.ledger": "kind",
    "quaestor.control": "action",
    "quaestor.quarantine": "reason",
    "quaestor.alerts": "kind",
}


class Place(NamedTuple):
    """A record as it lies in Kafka, without its fields."""

    topic: str
    topic_id: str
    partition: int
    offset: int
    timestamp_millis: int
    value: bytes | None


def source_of(fields: Mapping[str, Any], place: Place, salts: Salts) -> Source:
    """The source of a decoded record; one whose public fields do not fit an entry is entered as undecodable."""
    tenant_id, event_id, occurred_at = fields.get("tenant_id"), fields.get("event_id"), fields.get("occurred_at")
    request_id, amount = fields.get("request_id"), fields.get("amount_nano")
    currency = fields.get("currency") or ""
    if not (
        isinstance(tenant_id, str)
        and isinstance(event_id, str)
        and isinstance(occurred_at, int)
        and is_name(tenant_id)
        and tenant_id != LOG_TENANT
        and is_uuid(event_id)
        and (request_id is None or is_name(request_id))
        and (amount is None or -_INT64_END <= amount < _INT64_END)
        and -_INT64_END <= occurred_at < _INT64_END
        and currency_fits(currency)
    ):
        return undecodable(place, salts)
    kind_field = KIND_FIELDS.get(place.topic)
    return Source(
        tenant_id,
        place.topic,
        place.topic_id,
        place.partition,
        place.offset,
        occurred_at,
        _schema_id(place.value),
        salts.commitment(place.value, tenant_id, place.topic_id, place.partition, place.offset),
        amount,
        currency if amount is not None else "",
        event_id,
        request_id or "",
        str(fields.get(kind_field) or "") if kind_field else "",
    )


def currency_fits(currency: str) -> bool:
    """Whether an entry may have this currency."""
    return len(currency) <= CURRENCY_CHARACTERS_MAX and currency.isascii()


def undecodable(place: Place, salts: Salts) -> Source:
    """The source of a record nobody can read: a commitment to its bytes under the system tenant, never skipped."""
    time_micros = place.timestamp_millis * MICROS_PER_MILLI
    return Source(
        SYSTEM_TENANT,
        place.topic,
        place.topic_id,
        place.partition,
        place.offset,
        time_micros if -_INT64_END <= time_micros < _INT64_END else 0,
        _schema_id(place.value),
        salts.commitment(place.value, SYSTEM_TENANT, place.topic_id, place.partition, place.offset),
        None,
        "",
        "",
        "",
        KIND_UNDECODABLE,
    )


def _schema_id(value: bytes | None) -> int:
    if value is None or len(value) < _FRAME_BYTES or value[0] != 0:
        return 0
    return int.from_bytes(value[1:_FRAME_BYTES], "big")
