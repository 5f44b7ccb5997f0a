"""The reaper on the stream runtime over the log in memory: what a dead gateway leaves is closed, once."""

from __future__ import annotations

from processors.budgets import BudgetFold
from processors.reaper import Reaper
from schemas.events import BudgetEvent, BudgetKind, Event
from schemas.topics import ATTEMPTS, BUDGETS, COSTS, REQUESTS
from streams.codec import Codec, LocalSchemas
from streams.memory import MemoryLog
from streams.monitor import Monitor
from streams.records import event_of, outgoing
from streams.runtime import StreamRuntime
from tests.budget_world import LEASE_MICROS, NOW_MICROS, Events, hold_id, leg

CODEC = Codec(LocalSchemas())
MUCH_LATER_MICROS = NOW_MICROS + LEASE_MICROS + 3_600_000_000
TURNS_MAX = 200


def of_topic(log: MemoryLog, topic: str) -> list[Event]:
    """Every event of a topic."""
    return [event_of(CODEC, record) for at, records in log.records.items() if at.topic == topic for record in records]


def turn_until_closed(log: MemoryLog) -> None:
    """A reaper that starts now, until it has closed a request."""
    reader = log.group_reader("stream-budgets")
    runtime = StreamRuntime(
        Reaper(), reader, log.publisher(), CODEC, Monitor("stream-budgets"), lambda: MUCH_LATER_MICROS
    )
    runtime.start()
    for _ in range(TURNS_MAX):
        runtime._tick_at = 0.0
        runtime.turn()
        if of_topic(log, REQUESTS.name):
            break
    reader.close()


def test_a_dead_gateways_hold_is_expired_and_its_request_closed() -> None:
    """One EXPIRED, one abandoned attempt, one estimated cost, one failed request; nothing stays held."""
    log, make = MemoryLog(), Events()
    alive, dead = make.placed(hold_id(1), leg(100)), make.placed(hold_id(2), leg(100))
    log.publisher().publish([outgoing(CODEC, e) for e in (alive, make.committed(alive, 60), dead)], lambda _: None)
    turn_until_closed(log)
    fold, budgets = BudgetFold(), of_topic(log, BUDGETS.name)
    for event in budgets:
        assert isinstance(event, BudgetEvent)
        fold.apply(event)
    assert [getattr(event, "kind", None) for event in budgets[3:]] == [BudgetKind.EXPIRED]
    assert [len(of_topic(log, topic.name)) for topic in (ATTEMPTS, COSTS, REQUESTS)] == [1, 1, 1]
    assert [(sums.posted_nano, sums.held_nano) for sums in fold.sums.values()] == [(160, 0)]
