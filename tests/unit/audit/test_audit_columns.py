"""Sources read from columns are those of the records one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from processors.audit.entry import KIND_UNDECODABLE, Source
from processors.audit.sources import Place, source_of
from schemas.topics import BUDGETS, COSTS
from sinks.audit.sequencer import sources_of_all
from sinks.runner import columns
from sinks.runner.screen import Screen
from sinks.runner.seam import Poison, Span
from streams.log import LogRecord
from streams.runs import runs_of
from tests.support.audit import SALTS
from tests.support.stories import TOPIC_ID, Offsets, codec, request_story

ENCODER = codec()


@pytest.fixture(autouse=True)
def always_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small numbers of records take the way of large ones."""
    monkeypatch.setattr(columns, "RECORDS_MIN", 1)


def records_of(topic: str, count: int = 12, **changes: str) -> list[LogRecord]:
    """A topic's records of some requests over several partitions, partition by partition."""
    offsets = Offsets()
    made = []
    for number in range(count):
        story = [replace(each, **changes) if number == 3 else each for each in request_story(number)]
        made += offsets.records(ENCODER, story)
    return sorted((record for record in made if record.topic == topic), key=lambda record: record[:3])


def spans_of(records: Sequence[LogRecord]) -> list[Span]:
    """What the runner would hand to a sink that takes everything, in columns."""
    screen = Screen(ENCODER, "audit@v1", takes_everything=True)
    screened = screen.screen_runs(runs_of(records), TOPIC_ID, 1, together=True)
    spans = []
    for at, (good, poison) in screened.items():
        offsets = sorted(each.offset for each in (*good, *poison))
        spans.append(Span(at, TOPIC_ID, offsets[0], offsets[-1] + 1, good, poison))
    return spans


def expected(record: LogRecord) -> Source:
    """One by one."""
    place = Place(record.topic, TOPIC_ID, record.partition, record.offset, record.timestamp_millis, record.value)
    return source_of(ENCODER.decode(record.topic, record.value or b""), place, SALTS)


@pytest.mark.parametrize("topic", sorted({record.topic for record in Offsets().records(ENCODER, request_story(1))}))
def test_every_topic_gives_the_same_sources(topic: str) -> None:
    """Field for field, in the order of each partition."""
    records = records_of(topic)
    assert sources_of_all(spans_of(records), SALTS) == [expected(record) for record in records]


@pytest.mark.parametrize("changes", [{"actor": "gateway/Zürich"}, {"tenant_id": "no name!"}, {"event_id": "none"}])
def test_unusual_records_are_judged_one_by_one(changes: dict[str, str]) -> None:
    """Texts beyond ASCII pass; a tenant or id that does not fit an entry makes it a bare commitment."""
    records = records_of(COSTS.name, **changes)
    found = sources_of_all(spans_of(records), SALTS)
    assert found == [expected(record) for record in records]
    assert any(source.kind == KIND_UNDECODABLE for source in found) == ("actor" not in changes)


def test_what_breaks_a_rule_is_entered_all_the_same() -> None:
    """The audit log asks of a record only that it can be read: its key may be another's."""
    records = [record._replace(key=b"another") for record in records_of(BUDGETS.name)]
    assert not any(span.poison for span in spans_of(records))


def test_poison_stands_at_its_offset() -> None:
    """A record that can't be read is a commitment between its neighbours."""
    records = records_of(COSTS.name)
    broken = records[1]._replace(value=(records[1].value or b"")[:-1])
    found = sources_of_all(spans_of([records[0], broken, *records[2:]]), SALTS)
    of_partition = [source for source in found if source.partition == broken.partition]
    assert [source.offset for source in of_partition] == sorted(source.offset for source in of_partition)
    (bare,) = (source for source in found if source.kind == KIND_UNDECODABLE)
    assert (bare.partition, bare.offset) == (broken.partition, broken.offset)
    assert any(isinstance(each, Poison) for span in spans_of([broken]) for each in span.poison)
