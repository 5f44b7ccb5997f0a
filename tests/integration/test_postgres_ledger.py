"""The ledger in real Postgres: balances, invariants, and what breaks them."""

# ruff: noqa: S608 - what tampers is our own
from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest

from schemas import events
from schemas.errors import RejectedError
from schemas.topics import LEDGER
from sinks.postgres.ledger_figures import InvariantResult
from streams.log import Partition
from tests.support.days import refused
from tests.support.ledger_desk import Desk, opened_desk
from tests.support.stories import control_event, request_story

pytestmark = pytest.mark.stack
#: Pending transfers once more, with another time.
TWICE = """
INSERT INTO quaestor_v1.transfer
SELECT (jsonb_populate_record(transfer, '{"occurred_at": "2026-11-30T00:00:00Z"}')).*
FROM quaestor_v1.transfer WHERE kind = 'PENDING'
"""

#: A call by the attempt that found no room.
CALLED = """
INSERT INTO quaestor_v1.attempt
SELECT (jsonb_populate_record(attempt, jsonb_build_object(
    'event_id', gen_random_uuid(), 'attempt_id', refusal.hold_id, 'request_id', refusal.request_id))).*
FROM quaestor_v1.attempt, quaestor_v1.budget_event AS refusal WHERE refusal.kind = 'REFUSED'
"""
OTHER_SOURCE = """
UPDATE quaestor_v1.transfer SET source_event_id = placed.event_id
FROM quaestor_v1.budget_event AS placed WHERE placed.kind = 'PLACED' AND transfer.kind = 'VOID'
"""
#: A bill of another amount, whose sums agree.
BILL = """
UPDATE quaestor_v1.cost SET amount_nano = {0}, provider_amount_nano = {0};
UPDATE quaestor_v1.budget_event SET amount_nano = {0} WHERE kind = 'COMMITTED'
"""
#: What the ledger spent, twice.
DOUBLED = "UPDATE quaestor_v1.transfer SET amount_nano = amount_nano * 2 WHERE kind = 'POST'"
#: A cost once more, as {} says.
COST = """
INSERT INTO quaestor_v1.cost
SELECT (jsonb_populate_record(cost, jsonb_build_object('event_id', gen_random_uuid(), {}))).* FROM quaestor_v1.cost
"""


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A fresh database that knows the price book."""
    async with opened_desk("ledger") as made:
        yield made


async def test_stories_balance(desk: Desk) -> None:
    """Answered requests leave every invariant holding, and the accounts say what was spent."""
    for number in range(5):
        await desk.write(request_story(number))
    assert await desk.broken() == []
    balances = {row.account: row for row in (await desk.reads.trial_balance("acme")).accounts}
    available, held, spent = (balances[f"budget/limit_1/{name}"] for name in ("available", "held", "spent"))
    assert (available.debits_pending_nano, available.debits_posted_nano) == (0, 5 * 1_500)
    assert (held.credits_pending_nano, held.credits_posted_nano, held.debits_posted_nano) == (0, 7_500, 7_500)
    assert spent.credits_posted_nano == 7_500
    assert balances["payable/p1/usage"].credits_posted_nano == 7_500


async def test_an_open_hold_is_pending(desk: Desk) -> None:
    """Before it is resolved a hold stands in pending on both of its accounts."""
    story = request_story(1)
    await desk.write(story[:4])
    rows = {row.account: row for row in (await desk.reads.trial_balance("acme", "budget/limit_1/")).accounts}
    assert rows["budget/limit_1/available"].debits_pending_nano == 3_000
    assert rows["budget/limit_1/held"].credits_pending_nano == 3_000
    assert await desk.broken() == []


async def test_a_pending_of_an_earlier_batch_is_resolved_on_its_accounts(desk: Desk) -> None:
    """The resolver finds the accounts of a pending transfer that another batch brought."""
    story = request_story(1)
    await desk.write(story[:4])
    await desk.write(story[4:])
    assert all(
        row.debits_pending_nano == row.credits_pending_nano == 0 for row in (await desk.reads.trial_balance()).accounts
    )
    assert await desk.broken() == []


async def test_a_resolution_may_come_before_its_pending(desk: Desk) -> None:
    """After a time-out of the log the second of two records may stand before the first; the balances are the same."""
    story = request_story(1)
    await desk.write(story[4:])
    await desk.write(story[:4])
    assert all(
        row.debits_pending_nano == row.credits_pending_nano == 0 for row in (await desk.reads.trial_balance()).accounts
    )
    assert await desk.broken() == []


async def test_duplicates_do_not_move_balances(desk: Desk) -> None:
    """Transfers produced twice, alone and among new ones, move their accounts once."""
    await desk.write(request_story(1))
    await desk.write([*request_story(1), *request_story(2)])
    assert await desk.broken() == []
    assert (await desk.reads.trial_balance("acme", "budget/limit_1/spent")).accounts[0].credits_posted_nano == 3_000


@pytest.mark.parametrize(
    ("sql", "broken"),
    [
        ("UPDATE quaestor_v1.account_balance SET debits_posted_nano = 1 WHERE account LIKE '%spent'",
         {"debits_equal_credits", "balances_are_the_fold"}),
        ("UPDATE quaestor_v1.cost SET amount_nano = amount_nano + 1",
         {"committed_equals_costs", "ledger_equals_costs"}),
        ("DELETE FROM quaestor_v1.cost", {"committed_equals_costs", "entries_have_a_source"}),
        (DOUBLED,
         {"balances_are_the_fold", "pending_resolved_within_bounds", "ledger_equals_holds"}),
        ("DELETE FROM quaestor_v1.transfer WHERE kind = 'PENDING'",
         {"balances_are_the_fold", "resolutions_have_a_pending"}),
        ("UPDATE quaestor_v1.transfer SET amount_nano = -amount_nano WHERE kind = 'DIRECT'",
         {"balances_are_the_fold", "amounts_are_not_negative", "ledger_equals_costs"}),
        ("UPDATE quaestor_v1.transfer SET credit_account = debit_account WHERE kind = 'DIRECT'",
         {"balances_are_the_fold", "amounts_are_not_negative", "ledger_equals_costs"}),
        ("UPDATE quaestor_v1.transfer SET kind = 'VOID' WHERE kind = 'POST'",
         {"balances_are_the_fold", "pending_resolved_within_bounds", "resolutions_have_a_pending"}),
        ("UPDATE quaestor_v1.transfer SET amount_nano = amount_nano + 1 WHERE kind = 'VOID'",
         {"balances_are_the_fold", "pending_resolved_within_bounds"}),
        ("UPDATE quaestor_v1.transfer SET currency = 'EUR' WHERE kind = 'VOID'",
         {"balances_are_the_fold", "resolutions_have_a_pending"}),
        ("UPDATE quaestor_v1.transfer SET debit_account = 'budget/limit_1/spent' WHERE kind = 'VOID'",
         {"resolutions_have_a_pending", "ledger_equals_holds"}),
        ("DELETE FROM quaestor_v1.budget_event WHERE kind = 'COMMITTED'",
         {"charges_are_settled", "entries_have_a_source"}),
        ("UPDATE quaestor_v1.budget_event SET amount_nano = amount_nano + 1 WHERE kind = 'COMMITTED'",
         {"committed_equals_costs"}),
        (TWICE,
         {"one_row_per_id", "balances_are_the_fold"}),
        (OTHER_SOURCE, {"pending_resolved_within_bounds"}),
        (CALLED, {"what_was_refused_was_not_called"}),
        (f"{CALLED}; DELETE FROM quaestor_v1.request_event WHERE kind = 'REFUSED'",
         {"what_was_refused_was_not_called"}),
        (f"{CALLED}; DELETE FROM quaestor_v1.budget_event WHERE kind = 'COMMITTED'",
         {"what_was_refused_was_not_called", "charges_are_settled", "entries_have_a_source"}),
        (f"{BILL.format(3000)}; UPDATE quaestor_v1.cost SET quantity = 20",
         {"costs_are_what_was_used", "ledger_equals_costs"}),
        (f"{BILL.format(0)}; DELETE FROM quaestor_v1.cost",
         {"costs_are_what_was_used", "entries_have_a_source"}),
        ("UPDATE quaestor_v1.cost SET meter = 'OUTPUT_TOKENS'", {"costs_have_a_price", "costs_are_what_was_used"}),
        ("UPDATE quaestor_v1.cost SET quantity = 20, unit_price_pico = 75000",
         {"costs_have_a_price", "costs_are_what_was_used"}),
        (f"{BILL.format(750)}; UPDATE quaestor_v1.cost SET unit_price_pico = 75000",
         {"costs_have_a_price", "ledger_equals_costs"}),
        ("UPDATE quaestor_v1.cost SET price_version = '2'", {"costs_have_a_price"}),
        ("UPDATE quaestor_v1.cost SET price_id = 'price_2'", {"costs_have_a_price"}),
        ("UPDATE quaestor_v1.cost SET model = 'm2'", {"costs_have_a_price"}),
        (COST.format("'amount_nano', 0, 'provider_amount_nano', 0, 'quantity', 0"),
         {"attempts_are_charged_once"}),
        (COST.format("'kind', 'CORRECTION', 'amount_nano', 0, 'provider_amount_nano', 0, 'quantity', 0"),
         {"corrections_have_a_charge"}),
        (COST.format("'kind', 'CORRECTION', 'amount_nano', -1501, 'provider_amount_nano', -1500, 'quantity', -10,"
         "'corrects_event_id', event_id"),
         {"corrections_have_a_charge", "committed_equals_costs", "ledger_equals_costs"}),
    ],
)  # fmt: skip
async def test_a_tampered_ledger_is_named(desk: Desk, sql: str, broken: set[str]) -> None:
    """Whoever changes rows behind the product's back breaks the invariant that says so."""
    await desk.write([*request_story(1), *refused(2)])
    await desk.tamper(sql)
    assert set(await desk.broken()) == broken


async def charges(desk: Desk, *, under_traffic: bool) -> InvariantResult:
    """What is found of charges that the ledger books otherwise."""
    results = await desk.reads.verify_ledger(under_traffic=under_traffic)
    (found,) = (each for each in results if each.name == "ledger_equals_holds")
    return found


@pytest.mark.parametrize("under_traffic", [True, False], ids=["verify budgets", "verify ledger"])
@pytest.mark.parametrize(
    "sql", [DOUBLED, "DELETE FROM quaestor_v1.transfer WHERE kind = 'POST'"], ids=["twice", "nothing"]
)
async def test_a_charge_that_is_booked_otherwise_is_named_by_its_hold(
    desk: Desk, sql: str, *, under_traffic: bool
) -> None:
    """A POST of another amount, or none, differs from what the hold was charged; the holds beside it are sound."""
    story = request_story(1)
    await desk.write([*story, *request_story(2)])
    sound = await charges(desk, under_traffic=under_traffic)
    placed = next(event for event in story if isinstance(event, events.BudgetEvent))
    await desk.tamper(f"{sql} AND attempt_id = '{placed.hold_id}'")
    found = await charges(desk, under_traffic=under_traffic)

    assert sound.ok
    assert (1, [placed.hold_id]) == (found.differences, list(found.found))


@pytest.mark.parametrize("under_traffic", [True, False], ids=["verify budgets", "verify ledger"])
async def test_the_difference_says_what_was_charged_and_what_is_booked(desk: Desk, *, under_traffic: bool) -> None:
    """In nano-units, with the limit."""
    await desk.write(request_story(1))
    await desk.tamper(DOUBLED)

    found = await charges(desk, under_traffic=under_traffic)
    assert "charged 1500 USD on limit_1, booked 3000" == found.first_difference


async def test_a_ledger_that_is_behind_its_holds_is_named_once_it_rests(desk: Desk) -> None:
    """Transfers that have not come yet are no difference under traffic; asked of everything, each is missing."""
    await desk.write([event for event in request_story(1) if not isinstance(event, events.LedgerEntry)])

    results = await desk.reads.verify_ledger(under_traffic=True)
    assert [("ledger_equals_holds", True)] == [(each.name, each.ok) for each in results]
    assert {"resolutions_are_booked", "ledger_equals_costs"} == set(await desk.broken())


@pytest.mark.parametrize("sql", ["UPDATE quaestor_v1.cost SET amount_nano = 0", "DELETE FROM quaestor_v1.transfer",
                                 "TRUNCATE quaestor_v1.transfer_2026_11"])  # fmt: skip
async def test_even_the_owner_does_not_change_events_by_accident(desk: Desk, sql: str) -> None:
    """Triggers refuse every change of an event, whoever asks, also under session_replication_role."""
    await desk.write(request_story(1))
    connection = await asyncpg.connect(desk.dsn)
    await connection.execute("SET session_replication_role = replica")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(sql)
    await connection.close()


@pytest.mark.parametrize(
    "sql",
    ["UPDATE quaestor_v1.transfer SET memo = ''", "DELETE FROM quaestor_v1.request_event",
     "TRUNCATE quaestor_v1.cost", "CREATE TABLE quaestor_v1.mine ()", "SELECT * FROM quaestor.subject",
     "UPDATE quaestor.quarantine_outbox SET body = ''", "DROP TABLE quaestor_v1.cost"],
)  # fmt: skip
async def test_the_app_role_is_not_permitted(desk: Desk, sql: str) -> None:
    """The role the sinks use can add events and move states, and nothing else."""
    connection = await asyncpg.connect(desk.dsn, server_settings={"role": "quaestor_app"})
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(sql)
    await connection.close()


async def test_entities_are_their_last_word(desk: Desk) -> None:
    """Control events leave the latest state of an entity, and its removal."""
    created = '{"scope": "tenant", "scope_id": "acme", "amount_nano": 5, "currency": "USD", "window": "month"}'
    await desk.write([control_event(1, events.ControlAction.CREATED, created)])
    await desk.write(
        [
            control_event(2, events.ControlAction.UPDATED, created.replace("5", "6")),
            control_event(3, events.ControlAction.UPDATED, created.replace("5", "7")),
        ]
    )
    connection = await asyncpg.connect(desk.dsn)
    assert await connection.fetchval("SELECT amount_nano FROM quaestor_v1.budget_limit") == 7
    await desk.write([control_event(4, events.ControlAction.REMOVED, None)])
    assert await connection.fetchval("SELECT count(*) FROM quaestor_v1.budget_limit") == 0
    await connection.close()


BAD = request_story(2)[0]


@pytest.mark.parametrize(
    ("event", "offset"),
    [
        (msgspec.structs.replace(BAD, actor="nul\0"), 0),
        (msgspec.structs.replace(BAD, occurred_at=-5), 0),
        (msgspec.structs.replace(BAD, event_id="no uuid"), 0),
        (control_event(1, events.ControlAction.CREATED, "no json"), 1),  # behind the price book
    ],
    ids=["nul", "time", "id", "json"],
)
async def test_what_postgres_never_takes_is_named(desk: Desk, event: events.Event, offset: int) -> None:
    """A NUL in a text, a time outside of our years, an id or an entity that is none: refused by offset."""
    with pytest.raises(RejectedError) as refused:
        await desk.write([event])
    assert [each.offset for each in refused.value.rejections] == [offset]


async def test_a_refused_record_is_found_among_many(desk: Desk) -> None:
    """In a large batch exactly the faulty records are named, and nothing of the batch is applied."""
    stories = [event for number in range(40) for event in request_story(number)]
    faulty = {100, 101, 333}
    for position in faulty:
        stories[position] = msgspec.structs.replace(stories[position], actor="nul\0")
    with pytest.raises(RejectedError) as refused:
        await desk.write(stories)
    assert len(refused.value.rejections) == len(faulty)
    totals = await desk.reads.totals({Partition(LEDGER.name, number): 10_000 for number in range(6)})
    assert totals[LEDGER.name].records == 0


async def test_a_story_is_told_in_order(desk: Desk) -> None:
    """A request's events come back across topics, received first and completed last, ledger transfers among them."""
    story = request_story(3)
    await desk.write(story)
    told = await desk.reads.story(story[0].request_id or "")
    assert len(told) == len(story)
    assert told[0].fields["kind"] == "RECEIVED"
    assert told[-1].fields["kind"] == "COMPLETED"
    assert {event.topic for event in told} >= {"quaestor.ledger", "quaestor.costs", "quaestor.decisions"}


async def test_the_latest_state_of_a_request(desk: Desk) -> None:
    """The view has one row per request: its end where there is one."""
    await desk.write(request_story(1))
    await desk.write(request_story(2)[:1])
    connection = await asyncpg.connect(desk.dsn)
    states = [row[0] for row in await connection.fetch("SELECT state FROM quaestor_v1.request ORDER BY received_at")]
    await connection.close()
    assert states == ["COMPLETED", "RECEIVED"]
    assert [row["state"] for row in await desk.reads.recent_requests()] == ["COMPLETED"]
