"""Many callers at once through several gateway processes: exactly what fits is admitted, and settled exactly."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import aiohttp
import pytest

from processors.budgets import Payer, Target, standings
from processors.control import Limit, Provider
from processors.pricing import Rates
from schemas.events import BudgetEvent, BudgetKind
from schemas.money import PICO_PER_NANO
from sinks.redis.reads import RedisReads, TenantState
from tests.budget_world import limit_on
from tests.support.gateway_stack import EFFECTIVE_SECONDS_MAX, GatewayStack, gateway_stack, wait_for
from tests.valkey import Valkey

PROCESSES = 3
#: The answer has as many tokens as were asked for and input is free: what is held is what is charged.
TOKENS, NANO_PER_TOKEN = 8, 1_000
COST_NANO = TOKENS * NANO_PER_TOKEN
CALLS, ROOM = 1_000, 100
#: Calls under way at once while Redis loses what it has, and how many fit in all.
CALLERS, ROOM_OF_LOSSES = 20, 400
#: How long who watches live budgets may take to see them first, seconds.
WATCH_SECONDS_MAX = 30.0
SEED = 20261121
#: When calls come that meet the end of a minute, before it: half a thousand that fill it, a thousand around its end.
MINUTE_SECONDS, BEFORE_SECONDS, AROUND_SECONDS = 60.0, 8.0, 0.3


class Answer(NamedTuple):
    """What a caller got."""

    status: int
    error: Mapping[str, Any]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayStack]:
    """Everything, with several gateway processes, and a model whose cost is known before the call."""
    with gateway_stack(tmp_path_factory.mktemp("budgets")) as running:
        provider = Provider(provider_id="exact", base_url=running.settings.simulator_url)
        running.route("exact", provider, rates=Rates(input=0, output=NANO_PER_TOKEN * PICO_PER_NANO))
        running.start_gateway(PROCESSES)
        yield running


def limit(tenant: str, scope: str, scope_id: str, amount: int, currency: str = "USD") -> Limit:
    """A limit for ever."""
    return limit_on(scope, scope_id, amount, tenant_id=tenant, currency=currency, window="total")


async def call(session: aiohttp.ClientSession, stack: GatewayStack, key: str, headers: Mapping[str, str]) -> Answer:
    """One call; one that is told to come back (503) comes back."""
    body = {"model": "exact", "messages": [{"role": "user", "content": "hi"}], "max_tokens": TOKENS}
    given = {"authorization": f"Bearer {key}", **headers}
    while True:
        async with session.post(f"{stack.url}/v1/chat/completions", json=body, headers=given) as response:
            answer = await response.json()
            if response.status != 503:
                return Answer(response.status, answer.get("error", {}))
        await asyncio.sleep(float(response.headers["retry-after"]))


def all_at_once(stack: GatewayStack, calls: list[tuple[str, dict[str, str]]]) -> list[Answer]:
    """Every call at the same time, each on a connection of its own."""

    async def run() -> list[Answer]:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            return await asyncio.gather(*(call(session, stack, key, headers) for key, headers in calls))

    return asyncio.run(run())


def posted_on(stack: GatewayStack, tenant: str) -> dict[str, int]:
    """What is posted on each limit, once nothing is held any more."""
    return {counter.limit_id: nano for counter, nano in stack.settled(tenant).items()}


@contextmanager
def watched(stack: GatewayStack, tenant: str) -> Iterator[list[TenantState]]:
    """A tenant's live budgets as they stood, read one after the other from before the block until after it."""
    seen, looks, over = list[TenantState](), threading.Event(), threading.Event()

    async def look() -> None:
        reads = RedisReads(stack.settings.redis_url)
        await reads.open()
        try:
            while not over.is_set():
                seen.append(await reads.tenant_state(tenant))
                looks.set()
        finally:
            await reads.close()

    watcher = threading.Thread(target=asyncio.run, args=(look(),), name="watcher")
    watcher.start()
    try:
        assert looks.wait(WATCH_SECONDS_MAX)
        yield seen
    finally:
        over.set()
        watcher.join()


def _counters(seen: Iterable[TenantState]) -> Iterator[int]:
    for state in seen:
        yield from (nano for sums in state.sums.values() for nano in sums)
        yield from state.unconfirmed_sums.values()


def _taken(state: TenantState) -> int:
    """What is charged and held of the only limit."""
    return sum(sum(sums) for sums in state.sums.values()) + sum(state.unconfirmed_sums.values())


def test_a_thousand_calls_at_once_against_room_for_a_hundred(stack: GatewayStack) -> None:
    """Exactly a hundred are admitted, by whichever process; what they cost is the limit, to the nano-unit.

    Meanwhile, too, no counter is negative and no more is taken than there is.
    """
    whole = limit("crowd", "tenant", "crowd", ROOM * COST_NANO)
    stack.put_limits(whole)
    key = stack.key("crowd")
    _known(stack, key)

    with watched(stack, "crowd") as seen:
        answers = all_at_once(stack, [(key, {})] * CALLS)

    assert min(_counters(seen), default=0) >= 0
    assert 0 < max(map(_taken, seen)) <= ROOM * COST_NANO
    assert any(state.holds or state.unconfirmed for state in seen)
    assert Counter(answer.status for answer in answers) == {200: ROOM, 429: CALLS - ROOM}
    assert {answer.error["limit_id"] for answer in answers if answer.error} == {whole.limit_id}
    assert posted_on(stack, "crowd") == {whole.limit_id: ROOM * COST_NANO}


def test_a_thousand_calls_under_six_levels_of_which_another_is_the_tightest_each_time(stack: GatewayStack) -> None:
    """Nothing is overspent on any level, and whoever was refused was refused by a level that is full."""
    rng = random.Random(SEED)
    teams = {team: stack.key("levels", team_id=team, project_id=f"{team}-web") for team in ("search", "ads", "mail")}
    limits = [
        limit("levels", "tenant", "levels", 400, "REQ"),
        *(limit("levels", "team", team, amount, "REQ") for team, amount in (("search", 250), ("ads", 90))),
        limit("levels", "project", "*", 180, "REQ"),
        limit("levels", "key", "*", 170 * COST_NANO),
        limit("levels", "model", "exact", 390 * TOKENS, "TOK"),
        limit("levels", "run", "*", 23, "REQ"),
    ]
    stack.put_limits(*limits)
    for key in teams.values():
        _known(stack, key)
    calls = [
        (
            teams[rng.choice(list(teams))],
            {"x-quaestor-run-id": f"run-{rng.randrange(40)}"} if rng.random() < 0.8 else {},
        )
        for _ in range(CALLS)
    ]

    with watched(stack, "levels") as seen:
        answers = all_at_once(stack, calls)

    assert min(_counters(seen), default=0) >= 0
    assert {answer.status for answer in answers} == {200, 429}, f"seed {SEED}"
    allowed = {one.limit_id: one.amount_nano for one in limits}
    posted = posted_on(stack, "levels")
    admitted = [call for call, answer in zip(calls, answers, strict=True) if answer.status == 200]
    in_tokens = {one.limit_id for one in limits if one.currency == "TOK"}
    assert {name: amount for name, amount in posted.items() if amount and name not in in_tokens} == _posted_by(
        stack, admitted
    )
    assert posted[limits[0].limit_id] == len(admitted)
    assert min(posted.values()) >= 0
    for name, amount in posted.items():
        assert amount <= allowed[name.partition(".")[0]], name
    refused_by = {answer.error["limit_id"] for answer in answers if answer.error}
    full = {name for name, amount in posted.items() if amount == allowed[name.partition(".")[0]]}
    # A call holds tokens for every byte it sent until the answer is there: such a limit refuses before it is full.
    assert refused_by - in_tokens <= full


def _posted_by(stack: GatewayStack, admitted: list[tuple[str, dict[str, str]]]) -> dict[str, int]:
    """What calls that were answered add up to on each counter, but for tokens, which only the provider counts."""
    with stack.control() as session:
        state = session.state
    target = Target("exact", "sim-small", "exact")
    expected: Counter[str] = Counter()
    for text, headers in admitted:
        key = state.keys_by_hash[hashlib.sha256(text.encode()).hexdigest()]
        run = headers.get("x-quaestor-run-id")
        payer = Payer(key.tenant_id, key.team_id, key.project_id, key.key_id, run)
        for standing in standings(state, payer, target, time.time_ns() // 1_000):
            expected[standing.limit_id] += {"REQ": 1, "USD": COST_NANO, "TOK": 0}[standing.limit.currency]
    return {name: amount for name, amount in expected.items() if amount}


def test_a_thousand_calls_across_the_end_of_a_minute(stack: GatewayStack) -> None:
    """Each minute admits exactly the hundred that fit in it, by whichever process, however near its end they come."""
    stack.put_limits(limit_on("tenant", "minutes", ROOM * COST_NANO, tenant_id="minutes", window="minute"))
    key = stack.key("minutes")
    _known(stack, key)
    answers = []
    with watched(stack, "minutes") as seen:
        for calls, before_the_end in ((CALLS // 2, BEFORE_SECONDS), (CALLS, AROUND_SECONDS)):
            wait_for(lambda early=before_the_end: -time.time() % MINUTE_SECONDS <= early, MINUTE_SECONDS)  # type: ignore[misc]  # bound now
            answers += all_at_once(stack, [(key, {})] * calls)

    assert min(_counters(seen), default=0) >= 0
    posted = {counter.window_start: nano for counter, nano in stack.settled("minutes").items()}
    movements = [e for e in stack.events("budgets") if isinstance(e, BudgetEvent) and e.tenant_id == "minutes"]
    asked = Counter(e.legs[0].window_start for e in movements if e.kind in {BudgetKind.PLACED, BudgetKind.REFUSED})
    assert sum(answer.status == 200 for answer in answers) * COST_NANO == sum(posted.values())
    assert posted == {start: min(calls, ROOM) * COST_NANO for start, calls in asked.items()}
    assert list(posted.values()).count(ROOM * COST_NANO) > 1, asked


def lose_everything(valkey: Valkey) -> None:
    """FLUSHALL: the same server, empty."""
    valkey.command("FLUSHALL")


def lose_the_tail(valkey: Valkey) -> None:
    """SIGKILL and a start with the data of a while ago, as a replica that lacks the tail."""
    valkey.kill()
    valkey.start()


@pytest.mark.parametrize("lose", [lose_everything, lose_the_tail])
def test_a_loss_of_redis_under_http_load_closes_and_opens(stack: GatewayStack, lose: Callable[[Valkey], None]) -> None:
    """Callers are told to wait or that it is full, nothing else, and what they spent is neither lost nor doubled."""
    tenant = lose.__name__
    stack.put_limits(limit(tenant, "tenant", tenant, ROOM_OF_LOSSES * COST_NANO))
    key = stack.key(tenant)
    _known(stack, key)

    told, lost_at = asyncio.run(_lost_midway(stack, key, lose))

    statuses = Counter(status for status, _ in told)
    after = [status for status, _ in told[lost_at:]]
    assert 503 in after
    assert 200 in after[after.index(503) :]
    assert set(statuses) == {200, 429, 503}
    assert all(float(wait or 0) > 0 for status, wait in told if status == 503)
    assert statuses[200] * COST_NANO == sum(posted_on(stack, tenant).values())
    assert statuses[200] <= ROOM_OF_LOSSES


async def _lost_midway(
    stack: GatewayStack, key: str, lose: Callable[[Valkey], None]
) -> tuple[list[tuple[int, str | None]], int]:
    """Statuses, each with its Retry-After, of callers that go on until the limit is full; how many came before."""
    told: list[tuple[int, str | None]] = []
    over, busy, ahead = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def caller(session: aiohttp.ClientSession) -> None:
        body = {"model": "exact", "messages": [{"role": "user", "content": "hi"}], "max_tokens": TOKENS}
        given = {"authorization": f"Bearer {key}"}
        while not over.is_set():
            async with session.post(f"{stack.url}/v1/chat/completions", json=body, headers=given) as response:
                await response.read()
                told.append((response.status, response.headers.get("retry-after")))
                if response.status == 429:
                    over.set()
                if response.status == 200:
                    (ahead if busy.is_set() else busy).set()
                if response.status == 503:
                    await asyncio.sleep(float(response.headers["retry-after"]))

    async def lost() -> int:
        await busy.wait()
        await asyncio.to_thread(stack.redis.command, "SAVE")
        ahead.clear()
        await ahead.wait()
        before = len(told)
        await asyncio.to_thread(lose, stack.redis)
        return before

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.timeout(90):
        lost_at, *_ = await asyncio.gather(lost(), *(caller(session) for _ in range(CALLERS)))
    return told, cast("int", lost_at)


def _known(stack: GatewayStack, key: str) -> None:
    """Every process knows the key and, made before it, the limits: asked until each has answered some in a row."""

    async def ask() -> bool:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            for _ in range(4 * PROCESSES):
                given = {"authorization": f"Bearer {key}"}
                async with session.get(f"{stack.url}/v1/models", headers=given) as response:
                    if response.status != 200:
                        return False
        return True

    wait_for(lambda: asyncio.run(ask()), EFFECTIVE_SECONDS_MAX)
