"""Whole days of events, as the product writes them: what requests cause, and the ledger that follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from processors.budgets import committed_event, expired_event, extended_event, released_event
from processors.ledger import LedgerPoster
from processors.reaper.closing import closing_events, correction
from schemas import events
from schemas.events import Event
from tests.support.stories import AMOUNT_NANO, TOKENS, event_id, request_story

HELD_NANO = 4_000
REAPER = "reaper/0"
#: What each event of a request is called here, in its order.
NAMES = ("received", "decision", "placed", "attempt", "cost", "committed", "completed")
Story = dict[str, Event]


def answered(number: int, tenant_id: str = "acme", limit_id: str = "limit_1", later_micros: int = 0) -> Story:
    """One answered request by name of its events, without ledger; its end `later_micros` after its beginning."""
    source = [event for event in request_story(number, tenant_id) if not isinstance(event, events.LedgerEntry)]
    story = dict(zip(NAMES, source, strict=True))
    _change(story, "decision", chosen_provider_id="p1", chosen_model="m1")
    leg = events.HoldLeg(
        limit_id=limit_id, amount_nano=HELD_NANO, held_nano=HELD_NANO, currency="USD", window_start=0, window_end=0
    )
    _change(story, "placed", legs=(leg,), amount_nano=HELD_NANO)
    _change(story, "committed", legs=(msgspec.structs.replace(leg, amount_nano=AMOUNT_NANO),))
    for name in NAMES[3:]:
        _change(story, name, occurred_at=story[name].occurred_at + later_micros)
    return story


def _change(story: Story, name: str, **fields: Any) -> None:
    story[name] = msgspec.structs.replace(story[name], **fields)


def doubled(story: Story) -> None:
    """Charge twice what was used, everywhere alike: every sum agrees with every other."""
    charged = 2 * AMOUNT_NANO
    _change(story, "cost", quantity=2 * TOKENS, amount_nano=charged, provider_amount_nano=charged)
    _change(story, "completed", amount_nano=charged)
    leg = msgspec.structs.replace(_budget(story, "committed").legs[0], amount_nano=charged)
    _change(story, "committed", amount_nano=charged, legs=(leg,))


def in_two_lines(story: Story) -> None:
    """Charge half of what was used twice, which is all of it."""
    half = {"quantity": TOKENS // 2, "amount_nano": AMOUNT_NANO // 2, "provider_amount_nano": AMOUNT_NANO // 2}
    _change(story, "cost", **half)
    story["cost again"] = msgspec.structs.replace(story["cost"], event_id=f"{story['cost'].event_id[:-1]}f")


def refused(number: int) -> list[Event]:
    """A request that found no room: decided, never tried."""
    story = answered(number)
    placed, completed = story["placed"], story["completed"]
    budget = msgspec.structs.replace(
        placed,
        kind=events.BudgetKind.REFUSED,
        reason="budget_exceeded",
        refused_by_limit_id="limit_1",
        lease_until=None,
    )  # type: ignore[type-var] # a BudgetEvent
    end = msgspec.structs.replace(
        completed, kind=events.RequestKind.REFUSED, error_code="budget_exceeded", amount_nano=0, attempt_count=0
    )  # type: ignore[type-var] # a RequestEvent
    return [story["received"], story["decision"], budget, end]


def gave_way(number: int) -> list[Event]:
    """A request whose first candidate found no room, answered by the next."""
    story = answered(number)
    _change(story, "decision", chosen_provider_id="p0", chosen_model="m0")
    fields = {"provider_id": "p0", "model": "m0", "hold_id": event_id(number, "refused")}
    budget = msgspec.structs.replace(
        story["placed"],
        event_id=event_id(number, "refusal"),
        kind=events.BudgetKind.REFUSED,
        reason="cheaper_models_only",
        refused_by_limit_id="limit_1",
        lease_until=None,
        **fields,
    )
    return [story["received"], story["decision"], budget, *(story[name] for name in NAMES[2:])]


def extended(number: int) -> list[Event]:
    """A long stream: its hold is raised once while it runs, and then charged more than it had at first."""
    story = answered(number)
    placed, amount_nano = _budget(story), 2 * HELD_NANO
    raised = extended_event(
        placed, event_id=event_id(number, "extended"), occurred_at=placed.occurred_at, actor="gateway/test",
        amount_nano=amount_nano, lease_until=placed.lease_until or 0,
    )  # fmt: skip
    return [story["received"], story["decision"], placed, raised, *list(story.values())[3:]]


def let_go(number: int) -> list[Event]:
    """A stream that failed after its hold was raised, and used nothing."""
    received, decision, placed, raised, tried, _, _, completed = extended(number)
    assert isinstance(raised, events.BudgetEvent)
    failed = {"input_tokens": 0, "output_tokens": 0, "usage_source": events.UsageSource.NONE}
    attempt = msgspec.structs.replace(tried, outcome=events.AttemptOutcome.PROVIDER_ERROR, **failed)
    end = msgspec.structs.replace(completed, kind=events.RequestKind.FAILED, amount_nano=0, **failed)
    released = released_event(
        raised, event_id=event_id(number, "released"), occurred_at=tried.occurred_at, actor="gateway/test",
        reason="provider_error",
    )  # fmt: skip
    return [received, decision, placed, raised, attempt, released, end]


def expired(number: int) -> list[Event]:
    """A request whose gateway was lost: its hold expired, was charged, and closed it."""
    story = answered(number)
    event = expired_event(_budget(story), actor=REAPER)
    return [story["received"], story["decision"], story["placed"], event, *closing_events(event, REAPER)]


def late(number: int, later_micros: int = 0) -> list[Event]:
    """The same, and the gateway was alive: its own events come after all, and the estimate is taken back."""
    story = answered(number, later_micros=later_micros)
    committed = committed_event(
        _budget(story), event_id=story["committed"].event_id, occurred_at=story["committed"].occurred_at,
        actor="gateway/test", amount_nano=AMOUNT_NANO, late=True,
    )  # fmt: skip
    taken_back = correction(expired_event(_budget(story), actor=REAPER), committed, REAPER)
    assert taken_back is not None
    return [*expired(number), story["attempt"], story["cost"], committed, story["completed"], taken_back]


def _budget(story: Story, name: str = "placed") -> events.BudgetEvent:
    found = story[name]
    assert isinstance(found, events.BudgetEvent)
    return found


def booked(source: Iterable[Event]) -> list[Event]:
    """These events, and the ledger that the poster makes of them."""
    poster = LedgerPoster()
    state = poster.initial(0)
    found: list[Event] = []
    for event in source:
        found += [event, *poster.decide(state, event)]
        state = poster.evolve(state, event)
    return found


def ids(found: Sequence[Event], *kinds: events.TransferKind) -> list[str]:
    """Ids of transfers of these kinds."""
    return [each.event_id for each in found if isinstance(each, events.LedgerEntry) and each.kind in kinds]
