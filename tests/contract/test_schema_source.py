"""Where schemas and their ids come from: without a registry, and from a real one."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from schemas.errors import SchemaUnknownError
from schemas.topics import TOPICS
from streams.codec import LocalSchemas, SchemaSource, schema_text
from streams.registry import RegistrySchemas, register_all
from tests.support.registry_server import registry

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A registry that has our schemas."""
    with registry() as address:
        register_all(address)
        yield address


@pytest.fixture(params=["local", "registry"])
def source(request: pytest.FixtureRequest) -> SchemaSource:
    """Each of the two."""
    return LocalSchemas() if request.param == "local" else RegistrySchemas(request.getfixturevalue("url"))


@pytest.mark.parametrize("topic", [topic.name for topic in TOPICS])
def test_text_and_id_are_found(source: SchemaSource, topic: str) -> None:
    """What the codec asks: the id of ours, and the text of that id."""
    assert json.loads(source.schema_text(source.id_of(topic))) == json.loads(schema_text(topic))


def test_every_topic_has_an_id_of_its_own(source: SchemaSource) -> None:
    """And keeps it."""
    ids = {topic.name: source.id_of(topic.name) for topic in TOPICS}

    assert len(TOPICS) == len(set(ids.values()))
    assert ids == {topic.name: source.id_of(topic.name) for topic in TOPICS}


def test_an_unknown_id_is_unknown_and_not_unavailable(source: SchemaSource) -> None:
    """It is no use to wait for it."""
    with pytest.raises(SchemaUnknownError):
        source.schema_text(99_999)


def test_a_topic_that_is_not_ours_has_none(source: SchemaSource) -> None:
    """Whoever asks for it has a bug."""
    with pytest.raises(KeyError):
        source.id_of("nobodys")
