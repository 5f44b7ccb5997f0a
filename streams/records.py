"""Records of events: key, framed value and the CloudEvents attributes in headers (Kafka binding, binary mode).

Tools that know neither Avro nor us can route by `ce_type` (`<topic>` or `<topic>.<kind>`), `ce_source` (the actor) and
`ce_id`; a W3C `traceparent` passes through.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from schemas.errors import UndecodableError
from schemas.events import Event, QuarantinedRecord
from schemas.ids import is_uuid
from schemas.topics import TOPIC_BY_NAME, TOPIC_BY_TYPE, TOPICS
from streams.codec import Codec
from streams.log import Headers, LogRecord, OutgoingRecord

MICROS_PER_SECOND = 1_000_000
SPECIFICATION = ("ce_specversion", b"1.0")
CONTENT_TYPE = ("content-type", b"application/avro")
TRACEPARENT = "traceparent"
#: Which write a change of the control plane belongs to, and of how many events that is (docs/decisions/0135).
WRITE = "quaestor_write"
NAMES_CACHED_MAX = 1_024
#: Events that have a kind, which is part of the name of their type.
KINDED = frozenset(topic.event_type for topic in TOPICS if "kind" in topic.event_type.__struct_fields__)


class MisplacedError(UndecodableError):
    """The record's key is not the key of its fields."""


def outgoing(codec: Codec, event: Event, traceparent: bytes | None = None) -> OutgoingRecord:
    """The record of an event; raises CodecError when the event does not fit its schema."""
    topic = TOPIC_BY_TYPE[type(event)]
    key = topic.key_of(event).encode() if topic.key_of else original_key(event)
    headers = (
        *constant_headers(topic.name, _kind(event) if type(event) in KINDED else "", event.actor),
        ("ce_id", event.event_id.encode()),
        time_header(event.occurred_at),
    )
    if traceparent is not None:
        headers = (*headers, (TRACEPARENT, traceparent))
    return OutgoingRecord(topic.name, key, codec.encode(event), headers)


def _kind(event: Any) -> str:
    return event.kind._value_  # type: ignore[no-any-return]  # its enum's text, without the property's detour


def original_key(event: Any) -> bytes:
    """The key of a quarantined record: that of the record it keeps."""
    quarantined: QuarantinedRecord = event
    return quarantined.key_bytes or b""


def traceparent_of(headers: Headers) -> bytes | None:
    """The traceparent of a record, or None."""
    return next((value for name, value in headers if name == TRACEPARENT), None)


def marked(record: OutgoingRecord, write_id: str, events: int) -> OutgoingRecord:
    """The record as one of the events of a write; `write_id` is the same whenever the write is tried again."""
    return record._replace(headers=(*record.headers, (WRITE, f"{write_id} {events}".encode())))


def write_of(headers: Headers) -> tuple[str, int] | None:
    """The write that a record belongs to and how many events it has; None where there is none that can be read."""
    value = next((value for name, value in headers if name == WRITE), b"")
    write_id, _, events = value.decode("ascii", "replace").partition(" ")
    return (write_id, int(events)) if is_uuid(write_id) and events.isdecimal() else None


def event_of(codec: Codec, record: LogRecord) -> Event:
    """The event of a record; raises as decode_event does, and MisplacedError when its key is not that of its fields."""
    if record.value is None:
        raise UndecodableError("the record has no value")
    event = codec.decode_event(record.topic, record.value)
    topic = TOPIC_BY_NAME[record.topic]
    if topic.key_of is not None and topic.key_of(event).encode() != record.key:
        raise MisplacedError
    return event


@lru_cache(maxsize=NAMES_CACHED_MAX)
def constant_headers(topic: str, kind: str, actor: str) -> Headers:
    """The headers that all events of a topic, kind and actor have; before `ce_id`."""
    name = f"{topic}.{kind}" if kind else topic
    return (SPECIFICATION, CONTENT_TYPE, ("ce_type", name.encode()), ("ce_source", b"/" + actor.encode()))


@lru_cache(maxsize=NAMES_CACHED_MAX)
def time_header(micros: int) -> tuple[str, bytes]:
    """When an event happened; behind `ce_id`. Remembered: the events of a group happened at one or two times."""
    seconds, rest = divmod(micros, MICROS_PER_SECOND)
    return ("ce_time", b"%b.%06dZ" % (_second(seconds), rest))


@lru_cache(maxsize=NAMES_CACHED_MAX)
def _second(seconds: int) -> bytes:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}".encode()
