"""LoopRecorder: events to a LoopPublisher and back to the loop that waits, for the gateway's hot path.

An event becomes the bytes of its record in one step. They are those that `outgoing` and `written` make in two
(a property test compares).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

from schemas.errors import LogError
from schemas.events import Event
from schemas.topics import TOPIC_BY_TYPE
from streams.codec import MISFITS, Codec, misfit
from streams.encoder import Encoder
from streams.kafka.batches import Written, short, written_header
from streams.log import Done
from streams.records import KINDED, NAMES_CACHED_MAX, TRACEPARENT, constant_headers, original_key, time_header

#: The headers behind the constant ones: `ce_id` and `ce_time`.
OTHER_HEADERS = 2
ID_HEADER = short(len(b"ce_id")) + b"ce_id"


class HandsOver(Protocol):
    """As much of LoopPublisher as is used here."""

    def hand_over(self, records: Sequence[Written], done: Done) -> None:
        """As LoopPublisher says."""


class LoopRecorder:
    """Records groups of events. Owned by one event loop; the publisher stays its maker's to close."""

    def __init__(self, publisher: HandsOver, codec: Codec) -> None:
        """The publisher says within its delivery timeout how every group ended."""
        self._publisher, self._writer = publisher, EventWriter(codec)

    async def record(self, events: Sequence[Event], traceparent: bytes | None = None) -> None:
        """Return when every event of the group is acknowledged with acks=all; raises as Recorder does."""
        write = self._writer.write
        records = [write(event, traceparent) for event in events]
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._publisher.hand_over(records, partial(_settle, future))
        await future


def _settle(future: asyncio.Future[None], fault: LogError | None) -> None:
    if future.done():
        return
    if fault is None:
        future.set_result(None)
    else:
        future.set_exception(fault)


class _Plan(NamedTuple):
    """What the records of a topic have in common."""

    topic: str
    key_of: Callable[[Any], bytes]
    #: What the value begins with, and what makes the rest.
    frame: bytes
    encode: Encoder
    has_kind: bool


class EventWriter:
    """Makes records of events."""

    def __init__(self, codec: Codec) -> None:
        """Nothing is asked of the codec's source before it is needed."""
        self._codec = codec
        self._plans: dict[type, _Plan] = {}

    def write(self, event: Any, traceparent: bytes | None = None) -> Written:
        """The record of an event; raises CodecError when the event does not fit its schema."""
        topic, key_of, frame, encode, has_kind = self._plans.get(type(event)) or self._plan(type(event))
        try:
            value = frame + encode(event)
        except MISFITS as error:
            raise misfit(topic, error) from error
        key, event_id = key_of(event), event.event_id.encode()
        begin = _begin(topic, event.kind._value_ if has_kind else "", event.actor, traceparent is not None)
        trace = b"" if traceparent is None else written_header(TRACEPARENT, traceparent)
        pieces = (short(len(key)), key, short(len(value)), value, begin, short(len(event_id)), event_id)
        return Written(topic, key, b"".join((*pieces, _time(event.occurred_at), trace)))

    def _plan(self, event_type: type) -> _Plan:
        topic = TOPIC_BY_TYPE[event_type]
        key_of = original_key if topic.key_of is None else partial(_key, topic.key_of)
        plan = _Plan(topic.name, key_of, *self._codec.encoder(topic.name), event_type in KINDED)
        self._plans[event_type] = plan
        return plan


def _key(key_of: Callable[[Any], str], event: Any) -> bytes:
    return key_of(event).encode()


@lru_cache(maxsize=NAMES_CACHED_MAX)
def _begin(topic: str, kind: str, actor: str, traced: bool) -> bytes:
    """How many headers there are, those of all such events, and the name of the next."""
    headers = constant_headers(topic, kind, actor)
    return b"".join(
        (short(len(headers) + OTHER_HEADERS + traced), *(written_header(*header) for header in headers), ID_HEADER)
    )


@lru_cache(maxsize=NAMES_CACHED_MAX)
def _time(micros: int) -> bytes:
    return written_header(*time_header(micros))
