"""What the index of ids takes of columns is what it takes of single events."""

from __future__ import annotations

from hashlib import blake2b

import pytest

from schemas.topics import COSTS
from sinks.clickhouse.known import KnownRows, key_of
from sinks.clickhouse.plans import Known
from sinks.postgres.tables import content_hash
from sinks.runner import columns
from sinks.runner.columns import selections
from sinks.runner.screen import Screen
from streams.log import LogRecord
from streams.runs import runs_of
from tests.support.stories import TOPIC_ID, Offsets, codec, request_story

ENCODER = codec()


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[LogRecord]:
    """Costs of some requests, all of which get columns."""
    monkeypatch.setattr(columns, "RECORDS_MIN", 1)
    offsets = Offsets()
    made = [record for number in range(5) for record in offsets.records(ENCODER, request_story(number), 1)]
    return [record for record in made if record.topic == COSTS.name]


def known_of(records: list[LogRecord]) -> KnownRows:
    """Their events side by side."""
    screened = Screen(ENCODER, "test@v1").screen_runs(runs_of(records), TOPIC_ID, 1, together=True)
    (rows,) = [each.records for each in screened.values()]
    (chosen,), _ = selections(rows)
    return KnownRows(chosen)


def test_each_event_is_known_as_alone(records: list[LogRecord]) -> None:
    """Tenant, id, time, offset and content."""
    alone = []
    for record in records:
        fields = ENCODER.decode(record.topic, record.value or b"")
        hashed = content_hash(record.value)
        alone.append(Known(fields["tenant_id"], fields["event_id"], fields["occurred_at"], record.offset, hashed))
    assert list(known_of(records)) == alone


def test_a_key_is_time_and_hash_of_tenant_and_id() -> None:
    """Written down: another key would not meet what is in the index already."""
    event = Known("acme", "0189abcd-ef01-7234-8567-89abcdef0123", 1_700_000_000_123_456, 7, b"")
    hashed = blake2b(b"acme\x000189abcd-ef01-7234-8567-89abcdef0123", digest_size=10).digest()
    assert key_of(event) == (1_700_000_000_123).to_bytes(6, "big") + hashed


def test_keys_are_those_of_each_event(records: list[LogRecord]) -> None:
    """A repeated event meets its key however it is read the second time."""
    known = known_of(records)
    assert known.keys == b"".join(map(key_of, known))
