"""The nightly report on real Postgres: a day that is whole matches; what is left out is named by one rule."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import asyncpg
import msgspec
import pytest

from processors.budgets import released_event
from processors.report.budgets import COUNTERS_PER_LIMIT_MAX
from processors.report.build import build
from processors.report.day import Day, Span, day_of
from processors.report.figures import Report, Standing, TenantReport
from schemas import events
from schemas.events import Event, LedgerEntry, TransferKind
from schemas.topics import BUDGETS, COSTS
from sinks.postgres import report_queries
from sinks.postgres.report_reads import CLAIMS, read_day
from streams.log import Partition
from tests.budget_world import limit_on
from tests.integration.test_postgres_ledger import Desk
from tests.support.control import limit_event
from tests.support.databases import postgres_databases
from tests.support.days import (
    HELD_NANO,
    Story,
    answered,
    booked,
    doubled,
    expired,
    extended,
    gave_way,
    ids,
    in_two_lines,
    late,
    let_go,
    refused,
)
from tests.support.stories import AMOUNT_NANO, START_MICROS, event_id, price_book

pytestmark = pytest.mark.stack
MINUTE_MICROS = 60_000_000
DAY_MICROS = 24 * 60 * MINUTE_MICROS
MARGIN_MICROS = 14 * MINUTE_MICROS
#: Two days after the stories.
NOW_MICROS = START_MICROS + 2 * DAY_MICROS
DAY = day_of("2026-11-01", "UTC", NOW_MICROS)


class ReportDesk(Desk):
    """A database, and reports of it."""

    async def report(self, day: Day = DAY, tenant: str | None = None, taken_at: int = NOW_MICROS) -> Report:
        """The report of a day."""
        span = Span(day, MARGIN_MICROS, taken_at)
        read = await read_day(self.dsn, span, tenant, lambda *_: None)
        return build(span, tenant, Standing({}, ()), CLAIMS, read.figures)

    async def named(self, **asked: object) -> dict[str, list[str]]:
        """Ids that do not match, by rule."""
        report = await self.report(**asked)  # type: ignore[arg-type] # as report takes them
        return {
            found.rule: [each.id for each in found.shown] for tenant in report.tenants for found in tenant.mismatches
        }


@pytest.fixture
async def desk() -> AsyncIterator[ReportDesk]:
    """A fresh database that knows the price book."""
    made = ReportDesk(await postgres_databases().emptied("report"))
    await made.write([price_book()])
    yield made
    await made.sink.close()
    await made.reads.close()


def tenant_of(report: Report, tenant_id: str = "acme") -> TenantReport:
    """One tenant's part."""
    return next(each for each in report.tenants if each.tenant_id == tenant_id)


async def test_a_whole_day_matches(desk: ReportDesk) -> None:
    """Answered, refused, expired and late requests of two tenants: nothing is named, and every sum is right."""
    source = [event for number in range(3) for event in answered(number).values()]
    source += [*refused(10), *expired(20), *late(30)]
    await desk.write(booked(source))
    await desk.write(booked(answered(40, "globex").values()))

    report = await desk.report()
    acme = tenant_of(report)

    assert {} == await desk.named()
    assert (True, True) == (report.ok, report.final)
    assert {"RECEIVED": 6, "COMPLETED": 4, "FAILED": 2, "REFUSED": 1} == {
        kind: sum(each.requests for each in acme.requests if each.kind == kind)
        for kind in ("RECEIVED", "COMPLETED", "FAILED", "REFUSED")
    }
    assert 4 * AMOUNT_NANO + HELD_NANO == sum(each.amount_nano for each in acme.charges)
    assert 4 * AMOUNT_NANO + HELD_NANO == sum(each.amount_nano for each in acme.hours) == acme.owners[0].amount_nano
    assert [(1, HELD_NANO, AMOUNT_NANO)] == [
        (each.holds, each.estimated_nano, each.charged_nano) for each in acme.late_commits
    ]
    assert [("limit_1", 1)] == [(each.limit_id, each.movements) for each in acme.holds if each.kind == "REFUSED"]
    assert [AMOUNT_NANO] == [each.amount_nano for each in tenant_of(report, "globex").charges]
    assert all(each.expected_nano == each.actual_nano for each in acme.control_totals)


async def test_a_candidate_that_found_no_room_is_no_mismatch(desk: ReportDesk) -> None:
    """The next one was tried: the budget says why the one that was chosen was not."""
    await desk.write(booked(gave_way(5)))

    assert {} == await desk.named()


async def test_room_that_another_candidate_lacked_is_no_excuse(desk: ReportDesk) -> None:
    """A refusal counts for the candidate it was said of."""
    story = answered(5)
    changed("decision", chosen_provider_id="p0")(story)
    no_room = msgspec.structs.replace(refused(5)[2], event_id=event_id(5, "no room"), provider_id="p2")
    await desk.write(booked([no_room, *story.values()]))

    assert {"decisions_are_tried": [story["decision"].event_id]} == await desk.named()


async def test_a_hold_that_was_extended_is_no_mismatch(desk: ReportDesk) -> None:
    """Its first pending transfer is voided, its second resolved; the ledger spends what was charged."""
    await desk.write(booked(extended(5)))

    assert {} == await desk.named()


async def test_a_raised_hold_that_is_let_go_is_booked(desk: ReportDesk) -> None:
    """What EXTENDED voided is no end of it: without the transfers of its RELEASED it is named."""
    await desk.write(booked(let_go(4)))
    whole = await desk.named()
    story = let_go(5)
    released = story[5].event_id
    made = booked(story)
    await desk.write(
        [each for each in made if not (isinstance(each, LedgerEntry) and each.source_event_id == released)]
    )

    assert ({}, {"resolutions_are_booked": [attempt_of(story)]}) == (whole, await desk.named())


async def test_a_commit_after_a_release_charges_nothing(desk: ReportDesk) -> None:
    """The first resolution wins, here as in the ledger: its costs are named, and the request that was told of them."""
    story = answered(5)
    placed = story["placed"]
    assert isinstance(placed, events.BudgetEvent)
    released = released_event(
        placed, event_id=event_id(5, "released"), occurred_at=placed.occurred_at, actor="t", reason=""
    )
    await desk.write(booked([*list(story.values())[:3], released, *list(story.values())[3:]]))

    assert {
        "committed_equals_costs": [placed.hold_id],
        "completed_equals_attempts": [placed.request_id],
    } == await desk.named()


def attempt_of(story: Sequence[Event]) -> str:
    """The attempt of a story."""
    return next(each.attempt_id for each in story if isinstance(each, events.ProviderAttempt))


class Fault(NamedTuple):
    """What is left out or changed, and what the report must say."""

    rule: str
    #: Which id the rule names: of the request, the attempt, or the event of this name.
    names: str
    without: tuple[str, ...] = ()
    change: Callable[[Story], None] = lambda _story: None
    #: Whether a transfer is kept.
    keep: Callable[[LedgerEntry], bool] = lambda _entry: True


def changed(name: str, **fields: object) -> Callable[[Story], None]:
    """Change one event of a story."""

    def change(story: Story) -> None:
        story[name] = msgspec.structs.replace(story[name], **fields)

    return change


def not_kinds(*kinds: TransferKind) -> Callable[[LedgerEntry], bool]:
    """All transfers but these."""
    return lambda entry: entry.kind not in kinds


def from_budgets(entry: LedgerEntry) -> bool:
    """Transfers that follow from costs are left out."""
    return entry.source_topic != COSTS.name


FAULTS = {
    "no decision": Fault("attempts_have_a_decision", "attempt_id", ("decision",)),
    "no attempt": Fault("decisions_are_tried", "decision", ("attempt",)),
    "no end": Fault("requests_end", "request_id", ("completed",)),
    "gateway and reaper lost": Fault("holds_are_resolved", "attempt_id", ("attempt", "cost", "committed", "completed")),
    "no commit": Fault("charges_are_settled", "attempt_id", ("committed",)),
    "no cost": Fault("committed_equals_costs", "attempt_id", ("cost",)),
    "another cost": Fault("committed_equals_costs", "attempt_id", change=changed(
        "cost", quantity=20, amount_nano=3_000, provider_amount_nano=3_000)),
    "no placement": Fault("resolutions_are_booked", "attempt_id", ("placed",)),
    "no transfers of the commit": Fault("resolutions_are_booked", "attempt_id",
                                        keep=not_kinds(TransferKind.POST, TransferKind.VOID)),
    "no post": Fault("ledger_equals_holds", "attempt_id", keep=not_kinds(TransferKind.POST)),
    "no void": Fault("ledger_equals_holds", "attempt_id", keep=not_kinds(TransferKind.VOID)),
    "no transfer of the cost": Fault("ledger_equals_costs", "cost", keep=from_budgets),
    "another total": Fault("completed_equals_attempts", "request_id", change=changed("completed", amount_nano=1_501)),
    "other tokens": Fault("completed_equals_attempts", "request_id", change=changed("completed", input_tokens=11)),
    "more attempts": Fault("completed_equals_attempts", "request_id", change=changed("completed", attempt_count=2)),
    "a price that nobody published": Fault("costs_have_a_price", "cost", change=changed("cost", price_version="2")),
    "another price than its book's": Fault("costs_have_a_price", "cost", change=changed("cost", unit_price_pico=1)),
    "charged for twice what was used": Fault("costs_are_what_was_used", "attempt_id", change=doubled),
    "charged twice for one meter": Fault("attempts_are_charged_once", "attempt_id", change=in_two_lines),
    "called though it was refused": Fault("what_was_refused_was_not_called", "attempt_id", change=changed(
        "completed", kind=events.RequestKind.REFUSED)),
}  # fmt: skip


def left(fault: Fault, story: Story) -> list[Event]:
    """What is there of a story with this fault."""
    fault.change(story)
    source = [event for name, event in story.items() if name not in fault.without]
    return [each for each in booked(source) if not isinstance(each, LedgerEntry) or fault.keep(each)]


def expected_id(fault: Fault, story: Story) -> str:
    """The id that the report must name."""
    if fault.names == "request_id":
        return str(story["received"].request_id)
    if fault.names == "attempt_id":
        return str(getattr(story["attempt"], "attempt_id"))  # noqa: B009 - of whichever event it is
    return story[fault.names].event_id


@pytest.mark.parametrize("name", FAULTS)
async def test_what_is_missing_is_named_by_one_rule(desk: ReportDesk, name: str) -> None:
    """Among requests that are whole exactly the faulty one is named, by exactly the rule that it breaks."""
    fault, story = FAULTS[name], answered(5)
    for number in (1, 2):
        await desk.write(booked(answered(number).values()))
    await desk.write(left(fault, story))

    assert {fault.rule: [expected_id(fault, story)]} == await desk.named()
    assert not (await desk.report()).ok


async def test_a_resolution_without_its_pending_transfer(desk: ReportDesk) -> None:
    """POST and VOID point at nothing: the ledger's own rule names both, as `verify ledger` does."""
    story = answered(5)
    found = booked(story.values())
    await desk.write([event for event in found if event.event_id not in ids(found, TransferKind.PENDING)])

    assert {"resolutions_have_a_pending": sorted(ids(found, TransferKind.POST, TransferKind.VOID))} == {
        rule: sorted(named) for rule, named in (await desk.named()).items()
    }


async def test_transfers_of_an_event_that_is_gone(desk: ReportDesk) -> None:
    """A transfer whose source is not there is named, with the hold that has it."""
    found = booked(answered(5).values())
    await desk.write([event for event in found if event.event_id != answered(5)["cost"].event_id])

    named = await desk.named()

    assert {"committed_equals_costs", "entries_have_a_source"} == set(named)
    assert ids(found, TransferKind.DIRECT) == named["entries_have_a_source"]


@pytest.mark.parametrize(
    ("state", "is_named"), [("QUARANTINED", True), ("PARKED", True), ("DISCARDED", True), ("REDRIVEN", False)]
)
async def test_records_set_aside_are_named(desk: ReportDesk, state: str, is_named: bool) -> None:
    """On the day of the record; what was applied after all is no longer."""
    found_id = "00000000-0000-7000-8000-000000000001"
    await _set_aside(desk, found_id, state, START_MICROS // 1_000)
    await _set_aside(desk, found_id.replace("1", "2"), state, (START_MICROS + DAY_MICROS) // 1_000)

    assert ({"records_are_applied": [found_id]} if is_named else {}) == await desk.named()
    assert is_named is bool(sum(each.records for tenant in (await desk.report()).tenants for each in tenant.set_aside))


async def _set_aside(desk: ReportDesk, event_id: str, state: str, record_millis: int) -> None:
    connection = await asyncpg.connect(desk.dsn)
    await connection.execute(
        "INSERT INTO quaestor.quarantine_outbox (event_id, sink, source_topic, source_topic_id, source_partition, "
        "source_offset, reason, fingerprint, body, state, tenant_id, record_millis) "
        "VALUES ($1, 'postgres@v1', 'quaestor.costs', 't', 0, 7, 'SEMANTIC', 'f', '', $2, 'acme', $3)",
        event_id, state, record_millis,
    )  # fmt: skip
    await connection.close()


@pytest.mark.parametrize("later_micros", [-1, 0, 1, MARGIN_MICROS - 1])
async def test_a_request_across_midnight_is_whole_on_both_days(desk: ReportDesk, later_micros: int) -> None:
    """It belongs to the day of each of its events, and is missing on neither."""
    at_midnight = [_moved(event, -1_000) for event in answered(1, later_micros=later_micros + 1).values()]
    await desk.write(booked(at_midnight))
    before, after = (day_of(text, "UTC", NOW_MICROS) for text in ("2026-10-31", "2026-11-01"))

    assert ({}, {}) == (await desk.named(day=before), await desk.named(day=after))
    received = [
        sum(each.requests for tenant in report.tenants for each in tenant.requests if each.kind == "RECEIVED")
        for report in (await desk.report(before), await desk.report(after))
    ]
    assert 1 == sum(received)


def _moved(event: Event, micros: int) -> Event:
    return msgspec.structs.replace(event, occurred_at=event.occurred_at + micros)


def _paused(hours: float) -> list[Event]:
    """A call of 23:30 whose gateway stood still for so long, and had its answer then."""
    story = late(1, later_micros=int(hours * 60) * MINUTE_MICROS)
    return [_moved(event, -30 * MINUTE_MICROS) for event in story]


@pytest.mark.parametrize("hours", [0.6, 1, 5, 24], ids=["35 minutes", "an hour", "five hours", "a day"])
async def test_a_commit_that_comes_late_is_whole_on_both_days(desk: ReportDesk, hours: float) -> None:
    """Its hold expired on the day before, which margins don't reach: nothing is missing, and it is listed once."""
    await desk.write(booked(_paused(hours)))
    before, after = [await desk.report(day_of(text, "UTC", NOW_MICROS)) for text in ("2026-10-31", "2026-11-01")]

    assert ([], []) == tuple(
        [found for tenant in each.tenants for found in tenant.mismatches] for each in (before, after)
    )
    assert ([], [(1, HELD_NANO, AMOUNT_NANO)]) == tuple(
        [(one.holds, one.estimated_nano, one.charged_nano) for one in tenant_of(each).late_commits]
        for each in (before, after)
    )


async def test_a_commit_that_was_made_in_time_and_came_late_is_listed(desk: ReportDesk) -> None:
    """It waited in a spool while its hold expired, and is not marked `late`: the log's order tells."""
    story = [
        msgspec.structs.replace(event, late=False)
        if isinstance(event, events.BudgetEvent) and event.kind is events.BudgetKind.COMMITTED
        else event
        for event in late(1)
    ]
    await desk.write(booked([*story, *answered(2).values(), *expired(3)]))
    report = await desk.report()

    assert {} == await desk.named()
    assert [(1, HELD_NANO, AMOUNT_NANO)] == [
        (each.holds, each.estimated_nano, each.charged_nano) for each in tenant_of(report).late_commits
    ]


async def test_an_estimate_that_a_late_commit_left_is_named(desk: ReportDesk) -> None:
    """On the day of the commit alone."""
    *story, taken_back = _paused(1)
    await desk.write(booked(story))

    assert isinstance(taken_back, events.CostEvent)
    assert ({}, {"committed_equals_costs": [taken_back.attempt_id]}) == (
        await desk.named(day=day_of("2026-10-31", "UTC", NOW_MICROS)), await desk.named()
    )  # fmt: skip


async def test_a_missing_event_is_named_on_its_own_day(desk: ReportDesk) -> None:
    """Not on the day before or after."""
    story = answered(1)
    await desk.write(booked([event for name, event in story.items() if name != "completed"]))

    days = [day_of(text, "UTC", NOW_MICROS) for text in ("2026-10-31", "2026-11-01", "2026-11-02")]

    assert [set(), {"requests_end"}, set()] == [set(await desk.named(day=day)) for day in days]


async def test_what_is_under_way_is_not_judged(desk: ReportDesk) -> None:
    """A request without an end is one only after every lease is over; until then the report is not final."""
    await desk.write(
        booked([event for name, event in answered(1).items() if name in {"received", "decision", "placed"}])
    )

    early, ripe = START_MICROS + 10 * MINUTE_MICROS, START_MICROS + MARGIN_MICROS + 1_000_000

    assert [{}, {"holds_are_resolved"}] == [
        await desk.named(taken_at=early), set(await desk.named(taken_at=ripe))
    ]  # fmt: skip
    assert not (await desk.report(taken_at=early)).final


async def test_one_tenant_alone(desk: ReportDesk) -> None:
    """Nothing of others is read, matching or not."""
    await desk.write(booked(answered(1).values()))
    await desk.write([answered(2, "globex")["received"]])

    report = await desk.report(tenant="acme")

    assert (["acme"], True) == ([each.tenant_id for each in report.tenants], report.ok)
    assert ["globex"] == [each.tenant_id for each in (await desk.report(tenant="globex")).tenants]


@pytest.mark.parametrize("window", ["total", "month", "day", "hour"])
async def test_budgets_are_used_as_the_ledger_says(desk: ReportDesk, window: str) -> None:
    """What was booked by the end of the day; what comes later counts later."""
    limit = limit_on("tenant", "acme", 3 * AMOUNT_NANO, window=window)
    start = 0 if window == "total" else START_MICROS
    await desk.write([limit_event(limit, occurred_at=START_MICROS - 1)])
    for number, shift in ((1, 0), (2, 0), (3, 2 * DAY_MICROS)):
        await desk.write(booked(_on(limit.limit_id, answered(number), start, shift)))

    (use,) = tenant_of(await desk.report()).budgets

    assert (2 * AMOUNT_NANO, 3 * AMOUNT_NANO, 66) == (use.spent_nano, use.allowed_nano, use.percent)


def _on(limit_id: str, story: Story, window_start: int, shift: int) -> list[Event]:
    """A story whose hold stands on this limit, some time later; its window is the same for all but short ones."""
    changed_story = []
    for event in story.values():
        moved = _moved(event, shift)
        if isinstance(moved, events.BudgetEvent):
            leg = msgspec.structs.replace(moved.legs[0], limit_id=limit_id, window_start=window_start)
            moved = msgspec.structs.replace(moved, legs=(leg,))
        changed_story.append(moved)
    return changed_story


@pytest.mark.parametrize(
    ("window", "earlier_micros", "counters"), [("total", DAY_MICROS, 25), ("month", 0, 55)], ids=["total", "month"]
)
async def test_a_limit_on_each_run_is_read_by_its_fullest_counters(
    desk: ReportDesk, monkeypatch: pytest.MonkeyPatch, window: str, earlier_micros: int, counters: int
) -> None:
    """However many there ever were: of totals those that moved on the day, of windows all; the others are counted."""
    monkeypatch.setattr(report_queries, "GROUPS_MAX", 24)
    limit = limit_on("run", "*", 8 * AMOUNT_NANO, window=window)
    start = 0 if window == "total" else START_MICROS
    await desk.write([limit_event(limit, occurred_at=START_MICROS - 2 * DAY_MICROS)])
    for number in range(55):
        run = f"{limit.limit_id}.{number:02}"
        await desk.write(booked(_on(run, answered(number), start, -earlier_micros if number < 30 else 0)))
    await desk.write(booked(_on(f"{limit.limit_id}.54", answered(99), start, 0)))

    uses = tenant_of(await desk.report()).budgets

    assert (f"{limit.limit_id}.54", 2 * AMOUNT_NANO, 25) == (uses[0].counter, uses[0].spent_nano, uses[0].percent)
    assert {AMOUNT_NANO} == {use.spent_nano for use in uses[1:]}
    assert (COUNTERS_PER_LIMIT_MAX, {counters}) == (len(uses), {use.counters for use in uses})


async def test_a_total_of_one_run_counts_what_it_spent_before(desk: ReportDesk) -> None:
    """What moved on the day stands with all that it ever was, and nothing of what came later."""
    limit = limit_on("run", "*", 8 * AMOUNT_NANO, window="total")
    await desk.write([limit_event(limit, occurred_at=START_MICROS - 2 * DAY_MICROS)])
    for number, shift in ((1, -DAY_MICROS), (2, 0), (3, DAY_MICROS)):
        await desk.write(booked(_on(f"{limit.limit_id}.a", answered(number), 0, shift)))

    (use,) = tenant_of(await desk.report()).budgets

    assert (2 * AMOUNT_NANO, 1) == (use.spent_nano, use.counters)


async def test_the_report_says_where_it_stands(desk: ReportDesk) -> None:
    """The cursors are those of the very snapshot that was read."""
    story: Sequence[Event] = booked(answered(1).values())
    await desk.write(story)

    read = await read_day(desk.dsn, Span(DAY, MARGIN_MICROS, NOW_MICROS), None, lambda *_: None)

    budgets = sum(isinstance(event, events.BudgetEvent) for event in story)
    assert budgets == sum(end for at, end in read.cursors.items() if at.topic == BUDGETS.name)
    assert Partition("quaestor.control", 0) in read.cursors
