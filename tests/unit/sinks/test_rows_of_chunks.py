"""Rows of a chunk: the same records as one by one, cut and left out by offset."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from schemas.topics import COSTS
from sinks.runner import columns
from sinks.runner.columns import Rows, joined, selections
from sinks.runner.screen import Screen
from sinks.runner.seam import Decoded, Poison, Span, between
from streams.log import LogRecord, Partition
from streams.runs import Run, runs_of
from streams.texts import texts_of
from tests.support.stories import TOPIC_ID, Offsets, codec, request_story

ENCODER = codec()
SCREEN = Screen(ENCODER, "test@v1")


@pytest.fixture(autouse=True)
def always_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small numbers of records take the way of large ones."""
    monkeypatch.setattr(columns, "RECORDS_MIN", 1)


def costs(count: int = 12) -> list[LogRecord]:
    """Costs of some requests over several partitions, partition by partition."""
    offsets = Offsets()
    made = [record for number in range(count) for record in offsets.records(ENCODER, request_story(number))]
    return sorted((record for record in made if record.topic == COSTS.name), key=lambda record: record[:3])


def rows_of(records: list[LogRecord]) -> dict[Partition, Rows]:
    """Screened together, by partition."""
    found = {}
    for at, (rows, poison) in SCREEN.screen_runs(runs_of(records), TOPIC_ID, 1, together=True).items():
        assert isinstance(rows, Rows)
        assert not poison
        found[at] = rows
    return found


def test_rows_are_the_records_one_by_one() -> None:
    """Every partition has its records in order, with their own offsets, fields and bodies."""
    given = costs()
    found = rows_of(given)
    alone = [SCREEN.screen(record, TOPIC_ID, 1) for record in given]
    assert [(each.offset, dict(each.fields), each.record) for rows in found.values() for each in rows] == [
        (each.offset, each.fields, each.record) for each in alone if isinstance(each, Decoded)
    ]
    assert len(found) > 1


def test_a_span_of_rows_is_cut_at_an_offset() -> None:
    """What lies before and after a cut are rows again, with the columns of exactly those records."""
    rows = max(rows_of(costs()).values(), key=len)
    first, middle, last = rows[0].offset, rows[len(rows) // 2].offset, rows[-1].offset
    span = Span(Partition(COSTS.name, 0), TOPIC_ID, first, last + 1, rows)
    before, after = span.before(middle).records, span.after(middle).records
    assert [each.offset for each in before] == [each.offset for each in rows if each.offset < middle]
    assert [each.offset for each in after] == [each.offset for each in rows if each.offset >= middle]
    (chosen,), plain = selections(after)
    assert not plain
    assert texts_of(chosen.columns, "event_id") == [each.fields["event_id"] for each in after]
    assert chosen.offsets.tolist() == [each.offset for each in after]


def test_excluded_offsets_are_left_out() -> None:
    """The other rows stay as they are."""
    rows = max(rows_of(costs()).values(), key=len)
    left = rows.without([rows[0].offset, rows[2].offset])
    assert [each.offset for each in left] == [each.offset for place, each in enumerate(rows) if place not in {0, 2}]


def test_rows_of_one_chunk_are_joined_without_being_made() -> None:
    """Partitions of a batch share a chunk: together they are its columns as they stand."""
    parts = list(rows_of(costs()).values())
    together = joined(parts)
    assert isinstance(together, Rows)
    (chosen,), _ = selections(together)
    assert chosen.columns is parts[0].chunk.columns
    assert [each.offset for each in together] == [each.offset for rows in parts for each in rows]


def test_poison_is_not_among_the_rows() -> None:
    """A broken record goes aside and its neighbours keep their columns."""
    given = costs()
    broken = given[1]._replace(value=b"noise")
    at = Partition(broken.topic, broken.partition)
    found = SCREEN.screen_runs(runs_of([given[0], broken, *given[2:]]), TOPIC_ID, 1, together=True)
    rows, poison = found[at]
    assert isinstance(rows, Rows)
    assert [type(each) for each in poison] == [Poison]
    assert broken.offset not in [each.offset for each in rows]


def test_a_record_without_columns_makes_its_partition_a_list() -> None:
    """A number that columns do not hold is applied beside the others, in the order of offsets."""
    given = costs()
    event = ENCODER.decode_event(COSTS.name, given[1].value or b"")
    large = given[1]._replace(value=ENCODER.encode(replace(event, quantity=1 << 60)))
    found = SCREEN.screen_runs(runs_of([given[0], large, *given[2:]]), TOPIC_ID, 1, together=True)
    records, poison = found[Partition(large.topic, large.partition)]
    assert not poison
    assert isinstance(records, list)
    assert [each.offset for each in records] == sorted(each.offset for each in records)
    (found_large,) = [each for each in records if each.offset == large.offset]
    assert found_large.fields["quantity"] == 1 << 60
    chosen, plain = selections(records)
    assert plain == [found_large]
    assert sum(len(each.records) for each in chosen) == len(records) - 1


def test_between_takes_lists_too() -> None:
    """What is not rows is cut alike."""
    given = [each for record in costs() if isinstance(each := SCREEN.screen(record, TOPIC_ID, 1), Decoded)][:4]
    assert between(given, given[1].offset, given[1].offset + 1)[0] is given[1]


def test_a_run_gives_its_records_when_asked() -> None:
    """Offsets, keys and values stand side by side; a part of a run is a run."""
    given = costs()
    first: Run = runs_of(given)[0]
    assert list(first) == given[: len(first)]
    part = first[1:]
    assert isinstance(part, Run)
    assert list(part) == given[1 : len(first)]
    assert part.value_bytes == sum(len(record.value or b"") for record in part)
