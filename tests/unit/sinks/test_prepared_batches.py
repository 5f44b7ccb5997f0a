"""What was made ready beside a write is used for exactly the spans it was made of."""

from __future__ import annotations

import pytest

from schemas.topics import COSTS, LEDGER
from sinks.postgres.rows import table_rows
from sinks.runner import columns
from sinks.runner.screen import Screen
from sinks.runner.seam import Span
from streams.runs import runs_of
from tests.support.stories import TOPIC_ID, Offsets, codec, request_story

ENCODER = codec()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    """A batch of costs."""
    monkeypatch.setattr(columns, "RECORDS_MIN", 1)
    offsets = Offsets()
    made = [record for number in range(8) for record in offsets.records(ENCODER, request_story(number))]
    costs = sorted((record for record in made if record.topic == COSTS.name), key=lambda record: record[:3])
    screened = Screen(ENCODER, "test@v1").screen_runs(runs_of(costs), TOPIC_ID, 1, together=True)
    return [
        Span(at, TOPIC_ID, each.records[0].offset, each.records[-1].offset + 1, each.records)
        for at, each in screened.items()
    ]


def test_the_same_spans_get_what_is_ready(spans: list[Span]) -> None:
    """Nothing is made twice."""
    (ready,) = table_rows(spans)
    ready.prepare()
    (taken,) = table_rows(list(spans), {COSTS.name: ready, LEDGER.name: ready})
    assert taken is ready
    assert list(taken.copies()) == list(table_rows(spans)[0].copies())


@pytest.mark.parametrize("change", ["cut", "fewer", "other records"])
def test_other_spans_get_their_own_rows(spans: list[Span], change: str) -> None:
    """A batch that was cut, that lost a partition, or of which a record was set aside, is made anew."""
    (ready,) = table_rows(spans)
    ready.prepare()
    if change == "cut":
        given = [*spans[:-1], spans[-1].before(spans[-1].next_offset - 1)]
    elif change == "fewer":
        given = spans[:-1]
    else:
        spans[-1].records = list(spans[-1].records)[1:]
        given = spans
    (made,) = table_rows(given, {COSTS.name: ready})
    assert made is not ready
    assert len(made.rows()) == sum(len(span.records) for span in given)
    (chosen,) = made.chosen
    assert len(chosen.columns) == len(made.rows())
