"""What the Postgres sink refuses by its own rules, before a transaction begins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from schemas.errors import RejectedError, Rejection
from schemas.topics import CONTROL
from sinks.postgres.months import has_month
from sinks.postgres.rows import TableRows


def refuse(tables: Sequence[TableRows]) -> None:
    """Raise RejectedError for what breaks our own rules: times without a month, entities that are no JSON."""
    refused = [rejection for each in tables for rejection in _refusals(each)]
    if refused:
        raise RejectedError(tuple(refused))


def _refusals(given: TableRows) -> Iterator[Rejection]:
    topic = given.table.topic
    for record in given.without_month():
        detail = "occurred_at is outside of the years 2020 to 2099"
        yield Rejection(topic, record.record.partition, record.offset, detail, semantic=True)
    if topic == CONTROL.name:
        for record in given.plain:
            if has_month(record.fields["occurred_at"]) and not _has_json(record.fields):
                yield Rejection(topic, record.record.partition, record.offset, "the entity is not JSON", semantic=True)


def _has_json(fields: Mapping[str, Any]) -> bool:
    try:
        for name in ("before", "after"):
            json.loads(fields[name] or "null")
    except ValueError:
        return False
    return True
