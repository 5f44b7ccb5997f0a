"""The follower of the control topic, the readiness of a worker, and metrics of several workers added up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from api.gateway.readiness import merge
from processors.estimation import (
    MEDIA_TOKENS_BOUND,
    input_tokens_bound,
    output_tokens_bound,
    tokens_estimated,
)
from schemas.events import ControlAction, ControlEvent, EntityKind
from schemas.topics import CONTROL
from streams.control import ControlFollower
from streams.log import OutgoingRecord
from streams.memory import MemoryLog
from streams.records import outgoing
from tests.support.gateway_world import KEY, TENANT, codec, virtual_key

SECONDS_MAX = 5.0


def key_event(event_id: str, *, revoked_at: int | None = None) -> ControlEvent:
    """A key made, or ended."""
    return ControlEvent(
        event_id=event_id,
        occurred_at=1,
        tenant_id=TENANT,
        actor="test",
        entity_kind=EntityKind.KEY,
        entity_id="key_a",
        action=ControlAction.UPDATED,
        after=msgspec.json.encode(virtual_key(KEY, "key_a", revoked_at=revoked_at)).decode(),
    )


def publish(log: MemoryLog, *events: ControlEvent) -> None:
    """Write to the control topic."""
    log.publisher().publish([outgoing(codec(), event) for event in events], lambda _: None)


def soon(condition: Callable[[], bool]) -> bool:
    """Whether it comes to be so."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


@pytest.fixture
def log() -> MemoryLog:
    """An empty log."""
    return MemoryLog()


@pytest.fixture
def follower(log: MemoryLog) -> Iterator[ControlFollower]:
    """A follower of it, not started."""
    one = ControlFollower(log.reader, codec())
    yield one
    one.stop()


def test_what_was_there_is_read_first(log: MemoryLog, follower: ControlFollower) -> None:
    """Caught up means that the whole topic is folded."""
    publish(log, key_event("e1"))
    follower.start()

    assert soon(lambda: follower.caught_up)
    assert "key_a" in follower.state.keys


def test_an_empty_topic_is_caught_up(follower: ControlFollower) -> None:
    """A new installation has no keys."""
    follower.start()

    assert soon(lambda: follower.caught_up)


def test_a_record_under_the_key_of_another_is_passed_over(log: MemoryLog, follower: ControlFollower) -> None:
    """As the control plane and every store do: what nobody can list is not in force either."""
    misplaced = outgoing(codec(), key_event("e1"))._replace(key=b"somebody/else")
    log.publisher().publish([misplaced], lambda _: None)
    follower.start()

    assert soon(lambda: follower.caught_up)
    assert not follower.state.keys


def test_a_revocation_follows(log: MemoryLog, follower: ControlFollower) -> None:
    """As soon as it is in the log."""
    publish(log, key_event("e1"))
    follower.start()
    assert soon(lambda: follower.caught_up)
    publish(log, key_event("e2", revoked_at=5))

    assert soon(lambda: follower.state.keys["key_a"].revoked)


def test_a_log_that_goes_away_is_noticed_and_found_again(log: MemoryLog, follower: ControlFollower) -> None:
    """Without any request, and without losing what was read."""
    publish(log, key_event("e1"))
    follower.start()
    assert soon(lambda: follower.caught_up)
    log.away = True
    gone = soon(lambda: not follower.reachable)
    log.away = False

    assert gone
    assert soon(lambda: follower.reachable)
    assert "key_a" in follower.state.keys


def test_an_unreadable_record_does_not_stop_the_rest(log: MemoryLog, follower: ControlFollower) -> None:
    """A revocation behind it must still act."""
    log.publisher().publish([OutgoingRecord(CONTROL.name, b"x", b"garbage", ())], lambda _: None)
    publish(log, key_event("e1"))
    follower.start()

    assert soon(lambda: "key_a" in follower.state.keys)


def test_metrics_of_workers_are_added_up() -> None:
    """Sample by sample, each family together, comments once."""
    one = b'# HELP a A.\n# TYPE a counter\na{x="1"} 2.0\n# HELP b B.\n# TYPE b gauge\nb 1.0\n'
    two = b'# HELP a A.\n# TYPE a counter\na{x="1"} 3.0\na{x="2"} 1.0\n'

    merged = b'# HELP a A.\n# TYPE a counter\na{x="1"} 5.0\na{x="2"} 1.0\n# HELP b B.\n# TYPE b gauge\nb 1.0\n'
    assert merged == merge([one, two])


@pytest.mark.parametrize(
    ("body", "context", "expected"),
    [
        (b"x" * 100, None, 100),
        (b"x" * 100, 60, 60),
        (b'{"type":"image_url"}', None, 20 + MEDIA_TOKENS_BOUND),
    ],
)
def test_input_is_bounded_by_its_bytes(body: bytes, context: int | None, expected: int) -> None:
    """A token is at least a byte; media cost what no byte shows; no model reads beyond its context."""
    assert expected == input_tokens_bound(body, context)


@pytest.mark.parametrize(
    ("asked", "choices", "model_max", "expected"),
    [(10, 1, None, 10), (10, 3, None, 30), (None, 2, 50, 100), (None, 1, None, 7), (500, 1, 50, 50)],
)
def test_output_is_bounded_by_what_was_asked(
    asked: int | None, choices: int, model_max: int | None, expected: int
) -> None:
    """Else by the model, else by the default."""
    assert expected == output_tokens_bound(asked, choices, model_max, 7)


@pytest.mark.parametrize(("size", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_the_estimate_rounds_up(size: int, tokens: int) -> None:
    """Four bytes a token."""
    assert tokens == tokens_estimated(size)
