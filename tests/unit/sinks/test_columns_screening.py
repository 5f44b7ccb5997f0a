"""Screening side by side: the same verdicts as one by one, and columns that stay with their records."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from schemas.topics import TOPICS
from sinks.runner import Decoded, Poison, columns
from sinks.runner.columns import KEYED_BY_MODEL, KEYED_BY_REQUEST, KEYED_BY_TENANT, ChunkFields, selections
from sinks.runner.screen import Screen
from streams.log import LogRecord
from streams.texts import texts_of
from tests.support.stories import TOPIC_ID, Offsets, codec, request_story

ENCODER = codec()
SCREEN = Screen(ENCODER, "test@v1")
COSTS = "quaestor.costs"


@pytest.fixture(autouse=True)
def always_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small numbers of records take the way of large ones."""
    monkeypatch.setattr(columns, "RECORDS_MIN", 1)


def records(count: int = 6) -> list[LogRecord]:
    """The records of some requests, in the order of a log."""
    offsets = Offsets()
    return [record for number in range(count) for record in offsets.records(ENCODER, request_story(number))]


def renamed(record: LogRecord, tenant: bytes) -> LogRecord:
    """The record of another tenant, in its key too."""
    key, value = ((each or b"").replace(b"acme", tenant, 1) for each in (record.key, record.value))
    return record._replace(key=key, value=value)


def together_of(given: list[LogRecord]) -> list[Decoded | Poison]:
    """Their verdicts, topic by topic, in their own order."""
    found: dict[int, Decoded | Poison] = {}
    for topic in {record.topic for record in given}:
        places = [place for place, record in enumerate(given) if record.topic == topic]
        screened = SCREEN.screen_topic([given[place] for place in places], TOPIC_ID, 1, together=True)
        found.update(zip(places, screened, strict=True))
    return [found[place] for place in range(len(given))]


def test_verdicts_are_those_of_one_by_one() -> None:
    """Fields, offsets and order are the same for every topic."""
    given = records()
    together = together_of(given)
    for record, screened in zip(given, together, strict=True):
        alone = SCREEN.screen(record, TOPIC_ID, 1)
        assert isinstance(screened, Decoded)
        assert isinstance(alone, Decoded)
        assert (screened.offset, screened.record) == (alone.offset, alone.record)
        assert dict(screened.fields) == alone.fields
    assert any(isinstance(screened.fields, ChunkFields) for screened in together if isinstance(screened, Decoded))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record._replace(key=b"another/key"),
        lambda record: record._replace(key=record.key[:-1] + b"!"),
        lambda record: record._replace(key=None),
        lambda record: record._replace(value=None),
        lambda record: record._replace(value=b"noise"),
        lambda record: record._replace(value=record.value[:-1]),
        lambda record: record._replace(value=record.value + b"x"),
        lambda record: record._replace(value=b"\0\0\0\xff\xff" + record.value[5:]),
        lambda record: renamed(record, b"acm\xff"),
        lambda record: renamed(record, b"ac\nm"),
        lambda record: renamed(record, b"-cme"),
    ],
    ids=[
        *("other key", "key of the same length", "no key", "no value", "no frame", "cut", "longer", "unknown schema"),
        *("tenant that is no text", "tenant of two lines", "tenant that begins with a dash"),
    ],
)
@pytest.mark.parametrize("place", [0, 3], ids=["first", "in the middle"])
def test_a_broken_record_is_poison_alone(spoil: Callable[[LogRecord], LogRecord], place: int) -> None:
    """Its poison is the same as one by one, and its neighbours pass."""
    given = [record for record in records() if record.topic == COSTS]
    given[place] = spoil(given[place])
    together = together_of(given)
    assert [isinstance(each, Poison) for each in together] == [at == place for at in range(len(given))]
    assert together[place] == SCREEN.screen(given[place], TOPIC_ID, 1)


def test_selections_follow_what_was_taken_out() -> None:
    """Columns are those of exactly the records that are left, in their order."""
    decoded = [each for each in together_of(records()) if isinstance(each, Decoded)]
    left = [each for each in decoded if each.record.topic == COSTS][::-2]
    (chosen,), plain = selections(left)
    assert plain == []
    assert texts_of(chosen.columns, "event_id") == [each.fields["event_id"] for each in left]


def test_texts_beyond_ascii_have_columns_too() -> None:
    """A text in another script is looked at once and then goes with the others."""
    record = next(each for each in records() if each.topic == "quaestor.requests")
    event = ENCODER.decode_event(record.topic, record.value or b"")
    spoken = record._replace(value=ENCODER.encode(type(event)(**{**_fields(event), "tags": {"thème": "été"}})))
    (screened, _) = together_of([spoken, record])
    assert isinstance(screened, Decoded)
    assert isinstance(screened.fields, ChunkFields)
    assert screened.fields["tags"] == {"thème": "été"}


@pytest.mark.parametrize("actors", [("acme", "x"), ("acme", "b\nc", "d"), ("é", "", "acme\n"), ()])
def test_texts_are_those_of_the_records(actors: tuple[str, ...]) -> None:
    """Also where they hold what others are told apart by."""
    events = [ENCODER.decode_event(COSTS, each.value or b"") for each in records() if each.topic == COSTS]
    made = [ENCODER.encode(replace(event, actor=actor)) for event, actor in zip(events, actors, strict=False)]
    found = ENCODER.columns(COSTS, made or [ENCODER.encode(events[0])])
    assert found is not None
    assert texts_of(found, "actor", rows=np.arange(len(actors))) == list(actors)


def _fields(event: object) -> dict[str, object]:
    return {name: getattr(event, name) for name in event.__struct_fields__}  # type: ignore[attr-defined] # an event


def test_topics_are_keyed_as_their_table_says() -> None:
    """The key that is compared side by side is the one of schemas.topics."""

    class Asked:
        """Notes which fields a key is made of."""

        def __init__(self) -> None:
            """Nothing yet."""
            self.names: list[str] = []

        def __getattr__(self, name: str) -> str:
            """Note it."""
            self.names.append(name)
            return ""

    fields = {
        **{key: ["tenant_id", "run_id", "request_id"] for key in KEYED_BY_REQUEST},
        **{key: ["tenant_id"] for key in KEYED_BY_TENANT},
        **{key: ["provider_id", "model", "region"] for key in KEYED_BY_MODEL},
    }
    for topic in TOPICS:
        if topic.name in fields and topic.key_of is not None:
            asked = Asked()
            topic.key_of(asked)
            assert asked.names == fields[topic.name], topic.name
