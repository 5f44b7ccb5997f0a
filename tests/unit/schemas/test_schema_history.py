"""Every version is kept and can be read, by the newest reader and by the oldest."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest

from schemas import generate, history
from schemas.events import EVENT_TYPES
from schemas.topics import TOPIC_BY_NAME, TOPICS
from streams.codec import HEADER, MAGIC, Codec, parse_schema, schema_text

SCHEMA_ID = 7
VERSIONS = [(topic, version) for topic in history.topics() for version in history.kept(topic)]


class OneSchema:
    """A registry that knows one schema."""

    def __init__(self, text: str) -> None:
        """Under whatever id."""
        self._text = text

    def schema_text(self, schema_id: int) -> str:
        """That one."""
        return self._text

    def id_of(self, topic: str) -> int:
        """Its id."""
        return SCHEMA_ID


def text_of(topic: str, version: int) -> str:
    """The text of a kept version."""
    return json.dumps(history.kept(topic)[version])


def shown(fields: Any) -> Any:
    """As the samples show a record."""
    return json.loads(json.dumps(fields, default=bytes.hex))


def known_then(value: Any, then: Any) -> Any:
    """As much of a value as had a name then."""
    if isinstance(then, dict):
        return {name: known_then(value[name], each) for name, each in then.items()}
    if isinstance(then, list):
        return [known_then(*pair) for pair in zip(value, then, strict=True)]
    return value


def test_nothing_is_missing_or_against_the_rules() -> None:
    """What `python -m schemas.history --check` says."""
    assert [] == history.problems()


def test_event_types_are_those_of_the_schemas() -> None:
    """What `python -m schemas.generate --check` says."""
    assert generate.main(["--check"]) == 0


def test_every_topic_has_a_schema_and_the_other_way_round() -> None:
    """The table, the folder and the generated types agree."""
    assert history.topics() == sorted(TOPIC_BY_NAME) == sorted(EVENT_TYPES)
    assert [topic.event_type for topic in TOPICS] == [EVENT_TYPES[topic.name] for topic in TOPICS]


@pytest.mark.parametrize(("topic", "version"), VERSIONS)
def test_an_old_record_is_read_by_todays_reader(topic: str, version: int) -> None:
    """Every field it had comes out as it went in, inner ones too, and as an event."""
    expected, body = history.sample(topic, version)
    codec = Codec(OneSchema(text_of(topic, version)))
    value = HEADER.pack(MAGIC, SCHEMA_ID) + body

    fields = codec.decode(topic, value)

    assert expected == known_then(shown(fields), expected)
    assert isinstance(codec.decode_event(topic, value), EVENT_TYPES[topic])


@pytest.mark.parametrize(("topic", "version"), VERSIONS)
def test_todays_record_is_read_by_an_old_reader(topic: str, version: int) -> None:
    """Who did not follow yet reads what is written today."""
    current = parse_schema(schema_text(topic))
    _, body = history.sample(topic, history.current(topic)["version"])

    fields = fastavro.schemaless_reader(BytesIO(body), current, parse_schema(text_of(topic, version)))

    assert set(fields) == {field["name"] for field in history.kept(topic)[version]["fields"]}


@pytest.mark.parametrize(
    ("topic", "version"), [(topic, history.current(topic)["version"]) for topic in history.topics()]
)
def test_a_sample_is_written_again_byte_for_byte(topic: str, version: int) -> None:
    """Today's: encoding did not change since the version was kept."""
    _, body = history.sample(topic, version)
    codec = Codec(OneSchema(text_of(topic, version)))
    value = HEADER.pack(MAGIC, SCHEMA_ID) + body

    assert value == codec.encode(codec.decode_event(topic, value))


def test_keeping_does_nothing_twice() -> None:
    """A kept version is never written again."""
    assert not any(history.keep(topic) for topic in history.topics())


def test_a_new_version_is_kept_with_its_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files appear, and nothing is wrong then."""
    monkeypatch.setattr(history, "VERSIONS", tmp_path / "versions")
    monkeypatch.setattr(history, "SAMPLES", tmp_path / "samples")

    assert all(history.keep(topic) for topic in history.topics())
    assert [] == history.problems()


def test_the_version_a_producer_writes_is_the_schemas() -> None:
    """The default of schema_version is the number in the schema."""
    for topic, event_type in EVENT_TYPES.items():
        defaults = {field.name: field.default for field in msgspec.structs.fields(event_type)}
        assert defaults["schema_version"] == history.current(topic)["version"]
