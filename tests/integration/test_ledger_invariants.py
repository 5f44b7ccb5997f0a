"""What `quaestor verify ledger` asks, on real Postgres: sound ledgers keep it green, whatever is under way in them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import msgspec
import pytest

from processors.budgets import committed_event, overage_event
from processors.pricing import Price, PriceBook, Rates, Tier, Usage, make_book, price_usage, total_nano
from schemas import events
from schemas.events import Event
from schemas.ids import derived_id
from sinks.audit.layout import AUDITED_TOPICS, AuditLayout
from sinks.audit.process import make_sink
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.ledger_figures import InvariantResult
from sinks.runner.seam import Batch, Decoded, Span
from streams.log import Partition
from tests.support.audit import ORIGIN
from tests.support.databases import postgres_databases
from tests.support.days import Story, answered, booked, doubled, expired, extended, gave_way, late, let_go, refused
from tests.support.ledger_desk import ENCODER, Desk, opened_desk
from tests.support.stories import START_MICROS, TOPIC_ID, Offsets, event_id, price_book, request_story

pytestmark = pytest.mark.stack
LEASE_MICROS = 420_000_000
HOUR_MICROS = 3_600_000_000


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A fresh database that knows the price book."""
    async with opened_desk("invariants") as made:
        yield made


async def test_whole_days_break_nothing(desk: Desk) -> None:
    """Answered, refused, given way, extended, let go, expired, and committed late."""
    source = [*answered(1).values(), *refused(2), *gave_way(3), *extended(4), *let_go(5), *expired(6), *late(7)]
    await desk.write(booked(source))

    assert await desk.broken(START_MICROS + LEASE_MICROS) == []


async def test_a_bill_for_twice_what_was_used_is_named(desk: Desk) -> None:
    """Though costs, commit, ledger and answer agree with each other in every sum."""
    story = answered(1)
    doubled(story)
    await desk.write(booked(story.values()))

    assert await desk.broken() == ["costs_are_what_was_used"]


def drawn_price(random: Random, model: str) -> Price:
    """A price with parts priced apart or not, and with a tier for long input or without."""

    def rates() -> Rates:
        first, *parts = (random.randrange(1, 10_000_000) for _ in range(5))
        cached, write, reasoning = (random.choice((None, part)) for part in parts[:3])
        return Rates(input=first, cached_input=cached, cache_write=write, output=parts[3], reasoning=reasoning)

    tiers = [Tier(above_input_tokens=bound, rates=rates()) for bound in (50, 100)][: random.randrange(3)]
    return Price(price_id=f"p1/{model}", provider_id="p1", model=model, rates=rates(), tiers=tuple(tiers))


def drawn_usage(random: Random) -> Usage:
    """Tokens as providers report them, impossible parts included."""
    counts = [random.choice((0, 1, 50, 51, random.randrange(200))) for _ in range(5)]
    if random.random() < 0.1:
        counts[random.randrange(5)] *= -1
    return Usage(**dict(zip(Usage.__struct_fields__, counts, strict=True)))


def priced(number: int, price: Price, version: str, usage: Usage) -> list[Event]:
    """A request that used so much, charged as the gateway charges it, by count or by estimate."""
    story = answered(number)
    source = events.UsageSource.ESTIMATE if number % 2 else events.UsageSource.PROVIDER
    lines = price_usage(usage, price)
    tried = msgspec.structs.replace(story["attempt"], usage_source=source, **msgspec.structs.asdict(usage))
    costs = [
        msgspec.structs.replace(
            story["cost"], event_id=derived_id("test", story["cost"].event_id, line.meter, ""), meter=line.meter,
            quantity=line.quantity, unit_price_pico=line.unit_price_pico, provider_amount_nano=line.amount_nano,
            amount_nano=line.amount_nano, price_id=price.price_id, price_version=version,
        )
        for line in lines
    ]  # fmt: skip
    committed = msgspec.structs.replace(story["committed"], amount_nano=total_nano(lines))
    parts: list[Any] = [tried, *costs, committed]
    fields = {"provider_id": price.provider_id, "model": price.model}
    return [story["received"], story["decision"], story["placed"], *(_of(each, fields) for each in parts)]


def _of(event: Event, fields: dict[str, str]) -> Event:
    return msgspec.structs.replace(event, **fields)


@pytest.mark.parametrize("seed", range(3))
async def test_every_usage_that_is_priced_is_what_was_used(desk: Desk, seed: int) -> None:
    """Cached, written and reasoning tokens, tiers, estimates and impossible reports: queries and prices agree."""
    random = Random(seed)
    book = make_book("p1", [drawn_price(random, f"m{number}") for number in range(20)])
    body = msgspec.json.encode(book).decode()
    await desk.write([msgspec.structs.replace(price_book(), event_id=event_id(1, "book"), after=body)])
    stories = [
        priced(number, random.choice(book.prices), book.version, drawn_usage(random)) for number in range(200)
    ]  # fmt: skip
    await desk.write(booked(event for story in stories for event in story))

    assert await desk.broken() == []


async def test_the_price_of_short_input_is_no_price_of_long(desk: Desk) -> None:
    """A tier is part of a price: its rate holds for calls of its length alone."""
    price = Price(
        price_id="p1/m", provider_id="p1", model="m", rates=Rates(input=1_000, output=0),
        tiers=(Tier(above_input_tokens=100, rates=Rates(input=2_000, output=0)),),
    )  # fmt: skip
    book = make_book("p1", [price])
    body = msgspec.json.encode(book).decode()
    await desk.write([msgspec.structs.replace(price_book(), event_id=event_id(1, "book"), after=body)])
    short = msgspec.structs.replace(price, tiers=())
    await desk.write(booked(priced(1, short, book.version, Usage(input_tokens=100))))
    whole = await desk.broken()
    await desk.write(booked(priced(2, short, book.version, Usage(input_tokens=101))))

    assert (whole, await desk.broken()) == ([], ["costs_have_a_price"])


def in_every_unit() -> list[Event]:
    """A call paid in dollars and billed in euros, above its hold, under limits in euros, tokens and requests."""
    story = answered(1)
    held = {"limit_euros": (3_600, "EUR"), "limit_tokens": (8, "TOK"), "limit_requests": (1, "REQ")}
    legs = tuple(
        events.HoldLeg(
            limit_id=limit_id, amount_nano=amount, held_nano=amount, currency=currency, window_start=0, window_end=0,
            exchange_rate_nano=900_000_000 if currency == "EUR" else None,
        )
        for limit_id, (amount, currency) in held.items()
    )  # fmt: skip
    placed = msgspec.structs.replace(story["placed"], legs=legs, amount_nano=4_000, exchange_rate_id="rate")
    assert isinstance(placed, events.BudgetEvent)
    at, actor = placed.occurred_at, placed.actor
    cost = msgspec.structs.replace(
        story["cost"], quantity=10, unit_price_pico=810_000, provider_amount_nano=8_100, provider_currency="EUR",
        amount_nano=9_000, exchange_rate_id="rate",
    )  # fmt: skip
    committed = committed_event(
        placed, event_id=story["committed"].event_id, occurred_at=at, actor=actor, amount_nano=9_000, tokens=10
    )
    over = overage_event(committed, held_nano=4_000, event_id=event_id(1, "overage"), occurred_at=at, actor=actor)
    assert over is not None
    completed = msgspec.structs.replace(story["completed"], amount_nano=9_000)
    return [story["received"], story["decision"], placed, story["attempt"], cost, committed, over, completed]


async def test_every_unit_and_an_overage_balance(desk: Desk) -> None:
    """Each currency balances by itself, what is above the hold is spent and shown, and no invariant is broken."""
    rates = Rates(input=810_000, output=0)
    price = Price(price_id="price_1", provider_id="p1", model="m1", currency="EUR", rates=rates)
    body = msgspec.json.encode(PriceBook(provider_id="p1", version="1", prices=(price,))).decode()
    await desk.write([msgspec.structs.replace(price_book(), event_id=event_id(1, "book"), after=body)])
    await desk.write(booked(in_every_unit()))
    found = await desk.reads.trial_balance("acme")

    sums = {row.currency: (row.debits_posted_nano, row.credits_posted_nano) for row in found.totals}
    moved = {row.account: row.credits_posted_nano - row.debits_posted_nano for row in found.accounts}

    assert await desk.broken() == []
    assert {currency for currency, (debited, credited) in sums.items() if debited == credited > 0} == {
        "EUR", "REQ", "TOK", "USD",
    }  # fmt: skip
    assert [each for each in found.totals if each.debits_pending_nano or each.credits_pending_nano] == []
    assert [moved[f"budget/limit_{unit}/spent"] for unit in ("euros", "tokens", "requests")] == [8_100, 10, 1]
    assert [moved[f"budget/limit_{unit}/overage"] for unit in ("euros", "tokens")] == [-4_500, -2]
    assert (moved["payable/p1"], moved["expense/-/-"]) == (8_100, -9_000)


async def test_costs_outlive_their_attempts(desk: Desk) -> None:
    """Retention gives up attempts and requests, and keeps the books: they stay sound without."""
    await desk.write(booked(answered(1).values()))
    await desk.tamper("DELETE FROM quaestor_v1.attempt; DELETE FROM quaestor_v1.request_event")

    assert await desk.broken() == []


async def test_a_stream_that_got_no_more_was_called(desk: Desk) -> None:
    """REFUSED of a hold that stands says that it could not grow, not that nobody was called."""
    story = answered(1)
    refusal = msgspec.structs.replace(refused(1)[2], event_id=event_id(1, "no more"))
    await desk.write(booked([*list(story.values())[:3], refusal, *list(story.values())[3:]]))

    assert await desk.broken() == []


async def test_what_the_reaper_closed_may_have_been_refused(desk: Desk) -> None:
    """A gateway that was away said REFUSED late: the attempt that the reaper closed was no call."""
    await desk.write(booked([*expired(1), refused(1)[3]]))

    assert await desk.broken() == []


def leased(story: Story, lease_until: int) -> list[Event]:
    """A request whose hold stands until then, and no more of it."""
    placed = msgspec.structs.replace(story["placed"], lease_until=lease_until)
    return [story["received"], story["decision"], placed]


async def test_a_hold_is_open_until_its_lease_is_over(desk: Desk) -> None:
    """And what the reaper needs; whoever asks says when that is."""
    await desk.write(booked(leased(answered(1), START_MICROS + LEASE_MICROS)))

    asked = [await desk.broken(START_MICROS + LEASE_MICROS + later) for later in (0, 1)]

    assert asked == [[], ["holds_are_resolved"]]


async def test_a_lease_that_was_made_longer_counts(desk: Desk) -> None:
    """The hold is open until its last lease is over."""
    received, decision, placed, raised = extended(1)[:4]
    longer = msgspec.structs.replace(raised, lease_until=START_MICROS + LEASE_MICROS)
    await desk.write(booked([received, decision, placed, longer]))

    asked = [await desk.broken(START_MICROS + LEASE_MICROS + later) for later in (0, 1)]

    assert asked == [[], ["holds_are_resolved"]]


async def looked(desk: Desk) -> list[InvariantResult]:
    """What one look finds."""
    return await desk.reads.verify_ledger()


@pytest.mark.parametrize("cut", range(1, 12))
async def test_what_is_under_way_does_not_differ_twice(desk: Desk, cut: int) -> None:
    """Whatever part of a request is there in each of two looks, nothing that is sound differs in both."""
    first, second = booked(answered(1).values()), booked(late(2))
    await desk.write(first[:cut])
    earlier = await looked(desk)
    await desk.write([*first[cut:], *second[:cut]])
    later = await looked(desk)

    lasting = [now.lasting(before) for now, before in zip(later, earlier, strict=True)]

    assert [each.name for each in lasting if not each.ok] == []


async def test_a_part_alone_differs_for_a_moment(desk: Desk) -> None:
    """One look alone is no judgement: a cost without its commit is named until that is there."""
    story = booked(answered(1).values())
    await desk.write(story[:-5])

    assert await desk.broken() != []


async def test_what_is_wrong_differs_in_every_look(desk: Desk) -> None:
    """Also while other requests come and go."""
    story = answered(1)
    doubled(story)
    await desk.write(booked(story.values()))
    earlier = await looked(desk)
    await desk.write(booked(answered(2).values()))

    lasting = [now.lasting(before) for now, before in zip(await looked(desk), earlier, strict=True)]

    assert {each.name: each.differences for each in lasting if not each.ok} == {"costs_are_what_was_used": 1}


async def enter(dsn: str, folder: Path, story: Sequence[Event]) -> None:
    """Enter the records of a story into the audit log of this database, as the audit sink does."""
    sink = make_sink(AuditLayout(folder, "main", ORIGIN), PostgresAuditStore(dsn, "main"), "test")
    await sink.open()
    spans: dict[Partition, Span] = {}
    for record in Offsets().records(ENCODER, story):
        at = Partition(record.topic, record.partition)
        if record.topic in AUDITED_TOPICS:
            span = spans.setdefault(at, Span(at, TOPIC_ID, record.offset, record.offset))
            span.records.append(Decoded(record.offset, ENCODER.decode(record.topic, record.value or b""), record))
            span.next_offset = record.offset + 1
    await sink.claim(list(spans), {at.topic: TOPIC_ID for at in spans})
    await sink.write(Batch(list(spans.values()), 1))
    await sink.close()


@pytest.mark.parametrize(
    ("sql", "broken"),
    [
        ("SELECT", []),
        ("DELETE FROM quaestor.audit_entry WHERE topic = 'quaestor.ledger' AND seq % 2 = 0", ["transfers_are_audited"]),
        ("UPDATE quaestor.audit_entry SET amount_nano = 1 WHERE topic = 'quaestor.ledger'", ["transfers_are_audited"]),
    ],
)
async def test_every_transfer_has_its_entry(tmp_path: Path, sql: str, broken: list[str]) -> None:
    """As far as the log goes: what is to be entered yet is not asked for, what is missing or another is named."""
    desk = Desk(await postgres_databases().copied("audited"))
    story = [price_book(), *request_story(1), *request_story(2)]
    await desk.write(story)
    await enter(desk.dsn, tmp_path, story)
    await desk.write(request_story(3))
    connection = await asyncpg.connect(desk.dsn)
    await connection.execute("ALTER TABLE quaestor.audit_entry DISABLE TRIGGER append_only")
    await connection.execute(sql)
    await connection.close()

    assert await desk.broken() == broken
    await desk.sink.close()
    await desk.reads.close()


@pytest.mark.parametrize(("lease_ends", "broken"), [(-1, []), (1, ["holds_expire_after_their_lease"])])
async def test_a_hold_that_expired_while_it_stood_is_named(tmp_path: Path, lease_ends: int, broken: list[str]) -> None:
    """What a checkpoint of the audit log shows was there before: a lease that ends an hour later was not over."""
    desk = Desk(await postgres_databases().copied("early"))
    now = time.time_ns() // 1_000
    source = list(expired(1))
    source[2] = msgspec.structs.replace(source[2], lease_until=now + lease_ends * HOUR_MICROS)
    story = [price_book(), *booked(source)]
    await desk.write(story)
    await enter(desk.dsn, tmp_path, story)

    assert await desk.broken() == broken
    await desk.sink.close()
    await desk.reads.close()
