"""Which windows of health a span leaves standing."""

from __future__ import annotations

from itertools import starmap

import pytest

from schemas.events import HealthState, ProviderHealth
from schemas.ids import derived_id
from schemas.topics import HEALTH
from sinks.redis.health import newest
from sinks.runner import columns
from sinks.runner.columns import Rows
from sinks.runner.screen import Screen
from sinks.runner.seam import Decoded
from streams.log import LogRecord, Partition
from streams.records import outgoing
from streams.runs import runs_of
from tests.support.stories import START_MICROS, TOPIC_ID, codec

ENCODER = codec()
SCREEN = Screen(ENCODER, "test@v1")
#: Models and ends of windows in the order of the log: late ones, and ends that are equal.
WINDOWS = [("a", 30), ("b", 10), ("a", 20), ("c", 10), ("b", 10), ("a", 30), ("c", 5), ("b", 9)]
STANDING = [(4, "b", 10), (5, "a", 30), (3, "c", 10)]


def record_of(offset: int, model: str, window_end: int) -> LogRecord:
    """A window as the log has it."""
    event = ProviderHealth(
        event_id=derived_id("test", str(offset), "", ""), occurred_at=START_MICROS, tenant_id="_system", actor="test",
        provider_id="simulated", model=model, region="", window_start=0, window_end=window_end, attempts=1, errors=0,
        timeouts=0, latency_p50_micros=1, latency_p95_micros=1, first_chunk_p50_micros=1, state=HealthState.HEALTHY,
    )  # fmt: skip
    made = outgoing(ENCODER, event)
    return LogRecord(made.topic, 0, offset, 0, made.key, made.value, made.headers)


def told(records: list[Decoded]) -> list[tuple[int, str, int]]:
    """Offset, model and end of each."""
    return [(each.offset, each.fields["model"], each.fields["window_end"]) for each in records]


@pytest.mark.parametrize("records_min", [1, 100], ids=["columns", "one by one"])
def test_the_last_window_of_each_model_stands(monkeypatch: pytest.MonkeyPatch, records_min: int) -> None:
    """Of windows that end together the later one in the log, whichever way they were read."""
    monkeypatch.setattr(columns, "RECORDS_MIN", records_min)
    given = [record_of(offset, *window) for offset, window in enumerate(WINDOWS)]
    records = SCREEN.screen_runs(runs_of(given), TOPIC_ID, 1, together=True)[Partition(HEALTH.name, 0)].records
    assert isinstance(records, Rows) == (records_min == 1)
    assert told(newest(records)) == sorted(STANDING)


def test_windows_that_were_cut_off_do_not_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a chunk has its own last windows."""
    monkeypatch.setattr(columns, "RECORDS_MIN", 1)
    given = list(starmap(record_of, ((offset, *window) for offset, window in enumerate(WINDOWS))))
    records = SCREEN.screen_runs(runs_of(given), TOPIC_ID, 1, together=True)[Partition(HEALTH.name, 0)].records
    assert isinstance(records, Rows)
    assert told(newest(records.between(1, 4))) == [(1, "b", 10), (2, "a", 20), (3, "c", 10)]
