"""Keeps the last closed window of every provider, model and region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from schemas.errors import FencedError, GapError, IntegrityError
from sinks.redis.client import RedisClient
from sinks.redis.connection import texts
from sinks.redis.keys import FIRST, Names
from sinks.redis.scripts import script
from sinks.runner.columns import Selection, selections
from sinks.runner.seam import Decoded, Span

#: Fields of ProviderHealth that are kept, all but those every event has.
FIELDS: Final = (
    "provider_id",
    "model",
    "region",
    "state",
    "window_start",
    "window_end",
    "attempts",
    "errors",
    "timeouts",
    "latency_p50_micros",
    "latency_p95_micros",
    "first_chunk_p50_micros",
)
EVENTS_PER_CALL = 500


class HealthWriter:
    """The one partition of quaestor.health. Raises StoreUnavailableError, FencedError, GapError and IntegrityError."""

    def __init__(self, client: RedisClient, names: Names = FIRST) -> None:
        """Share the sink's connection."""
        self._client = client
        self._names = names
        self._epoch = 0
        self._cursor = 0

    async def claim(self, topic_id: str) -> int:
        """Fence earlier owners; answers the next offset."""
        answer = texts(await self._client.run("health_claim", (self._names.health_cursor,), topic_id))
        if answer[2] not in {"", topic_id}:
            raise IntegrityError(f"health in Redis is of topic {answer[2]}, the log has {topic_id}")
        self._epoch, self._cursor = int(answer[0]), int(answer[1] or 0)
        return self._cursor

    async def write(self, span: Span) -> None:
        """Apply a span; raises GapError when the server lost what it had, after forgetting where we stood."""
        if span.first_offset > self._cursor:
            raise GapError(str(span.partition), self._cursor, span.first_offset)
        packed = [(record.offset, *_values(record.fields)) for record in newest(span.after(self._cursor).records)]
        for first in range(0, len(packed) or 1, EVENTS_PER_CALL):
            part = packed[first : first + EVENTS_PER_CALL]
            following = span.next_offset if first + EVENTS_PER_CALL >= len(packed) else part[-1][0] + 1
            await self._apply(span, part, following)

    async def redrive(self, span: Span) -> None:
        """Apply windows that were set aside; one older than what is kept changes nothing, so a repetition does not."""
        packed = [(self._cursor, *_values(record.fields)) for record in span.records]
        for first in range(0, len(packed), EVENTS_PER_CALL):
            await self._apply(span, packed[first : first + EVENTS_PER_CALL], self._cursor)

    async def _apply(self, span: Span, part: list[tuple[int, str, int, list[str]]], following: int) -> None:
        names = self._names
        keys = (names.health_cursor, names.health_index, *(names.health(event[1]) for event in part))
        packed = msgspec.msgpack.encode(part)
        arguments = (str(self._epoch), str(self._cursor), str(following), span.topic_id, packed)
        answer = texts(await self._client.evaluate(script("health"), keys, arguments))
        if answer[0] == "F":
            raise FencedError(str(span.partition), self._epoch)
        if answer[0] == "G":
            expected, self._cursor = self._cursor, int(answer[1])
            raise GapError(str(span.partition), self._cursor, expected)
        self._cursor = int(answer[1])


def newest(records: Sequence[Decoded]) -> list[Decoded]:
    """The last window of each provider, model and region, in the order of the log: the others would be overwritten."""
    of_key: dict[bytes, tuple[int, Decoded]] = {}
    chosen, plain = selections(records)
    ends = [(int(record.fields["window_end"]), record) for record in plain]
    for each in chosen:
        ends += _newest_rows(each)
    for end, record in ends:
        name = record.record.key or b""
        before = of_key.get(name)
        if before is None or (end, record.offset) >= (before[0], before[1].offset):
            of_key[name] = (end, record)
    return sorted((record for _, record in of_key.values()), key=lambda record: record.offset)


def _newest_rows(selection: Selection) -> list[tuple[int, Decoded]]:
    """The same of records with columns, and when their windows end; nothing is made of the others."""
    ends = selection.columns.fields["window_end"].values
    keys = selection.keys()
    # By end, and by offset where ends are equal: what comes last for a key stays.
    order = np.argsort(ends, kind="stable").tolist()
    rows = dict(zip(map(keys.__getitem__, order), order, strict=True)).values()
    return [(int(ends[row]), selection.records[row]) for row in rows]


def _values(fields: Mapping[str, Any]) -> tuple[str, int, list[str]]:
    name = f"{fields['provider_id']}/{fields['model']}/{fields['region']}"
    pairs: list[str] = []
    for field in FIELDS:
        pairs += (field, "" if fields[field] is None else str(fields[field]))
    return name, fields["window_end"], pairs
