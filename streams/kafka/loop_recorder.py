"""LoopRecorder: events to a LoopPublisher and back to the loop that waits, for the gateway's hot path.

An event becomes the bytes of its record in one step. They are those that `outgoing` and `written` make in two
(a property test compares).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from schemas.errors import CodecError, LogError
from schemas.events import Event
from schemas.topics import TOPIC_BY_TYPE
from streams.codec import MISFITS, Codec, misfit
from streams.encoder import Encoder
from streams.kafka.batches import Written, short, written_header
from streams.log import Done
from streams.records import KINDED, TRACEPARENT, constant_headers, time_header

#: The headers behind the constant ones: `ce_id` and `ce_time`.
OTHER_HEADERS = 2
#: Keys, times and begins that are remembered, each.
REMEMBERED_MAX = 4_096
ID_HEADER = short(len(b"ce_id")) + b"ce_id"
K = TypeVar("K")
V = TypeVar("V")


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
    key_of: Callable[[Any], str]
    #: What the value begins with, and what makes the rest.
    frame: bytes
    encode: Encoder
    has_kind: bool
    #: By kind, actor and whether there is a trace: headers before the event's id.
    begins: dict[tuple[str, str, bool], bytes]


class EventWriter:
    """Makes records of events; what comes again is remembered: keys, times, and headers before the id."""

    def __init__(self, codec: Codec) -> None:
        """Nothing is asked of the codec's source before it is needed."""
        self._codec = codec
        self._plans: dict[type, _Plan] = {}
        self._keys: dict[str, tuple[bytes, bytes]] = {}
        self._times: dict[int, bytes] = {}

    def write(self, event: Any, traceparent: bytes | None = None) -> Written:
        """The record of an event; raises CodecError when the event does not fit its schema."""
        topic, key_of, frame, encode, has_kind, begins = self._plans.get(type(event)) or self._plan(type(event))
        try:
            value = frame + encode(event)
        except MISFITS as error:
            raise misfit(topic, error) from error
        text = key_of(event)
        key, written_key = self._keys.get(text) or self._key(text)
        kind = (event.kind._value_ if has_kind else "", event.actor, traceparent is not None)
        begin = begins.get(kind) or self._begin(begins, topic, kind)
        event_id, at = event.event_id.encode(), event.occurred_at
        time, trace = self._times.get(at) or self._time(at), b""
        if traceparent is not None:
            trace = written_header(TRACEPARENT, traceparent)
        pieces = (written_key, short(len(value)), value, begin, short(len(event_id)), event_id, time, trace)
        return topic, key, b"".join(pieces)

    def _plan(self, event_type: type) -> _Plan:
        topic = TOPIC_BY_TYPE[event_type]
        if topic.key_of is None:
            raise CodecError(f"the key of {topic.name} can't be told from an event")
        plan = _Plan(topic.name, topic.key_of, *self._codec.encoder(topic.name), event_type in KINDED, {})
        self._plans[event_type] = plan
        return plan

    def _key(self, text: str) -> tuple[bytes, bytes]:
        key = text.encode()
        return _remember(self._keys, text, (key, short(len(key)) + key))

    def _time(self, micros: int) -> bytes:
        return _remember(self._times, micros, written_header(*time_header(micros)))

    def _begin(self, begins: dict[tuple[str, str, bool], bytes], topic: str, kind: tuple[str, str, bool]) -> bytes:
        """How many headers there are, those of all such events, and the name of the next."""
        name, actor, is_traced = kind
        headers = constant_headers(topic, name, actor)
        count = short(len(headers) + OTHER_HEADERS + is_traced)
        pieces = (count, *(written_header(*header) for header in headers), ID_HEADER)
        return _remember(begins, kind, b"".join(pieces))


def _remember(known: dict[K, V], key: K, value: V) -> V:
    """Keep it, and forget everything when there is too much to remember."""
    if len(known) >= REMEMBERED_MAX:
        known.clear()
    known[key] = value
    return value
