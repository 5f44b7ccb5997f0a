"""Streams without a bound that get no further step: ended cleanly, recorded, charged for what came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from api.gateway import steps
from schemas.events import (
    AttemptOutcome,
    BudgetEvent,
    BudgetKind,
    Event,
    ProviderAttempt,
    RequestEvent,
    RequestKind,
    UsageSource,
)
from sinks.redis.holds import Closed, ClosedReason, Extension, PlaceHold
from sinks.redis.memory import MemoryHoldStore
from tests.support.gateway_answers import DONE, SlowAnswer, chunk, stream_answer
from tests.support.gateway_world import TENANT, Response, World, until
from tests.support.stepped_streams import (
    ALL,
    END,
    LONG,
    OUTPUT_NANO,
    PLENTY_NANO,
    STEP,
    amounts,
    ask,
    assert_settled,
    budget_events,
    counts,
    last_chunk,
    room_for,
    state,
    stream,
    world_of,
)

# No further step.


def stopped(tmp_path: Path, *pieces: bytes, output_tokens: int = 250, **fields: Any) -> tuple[World, Response]:
    """A stream under a limit with room for so much output."""
    room = room_for(tmp_path, output_tokens)
    found: tuple[World, Response] = asyncio.run(
        stream(tmp_path, *(pieces or (*LONG, *END)), state_of=state(room), **fields)
    )
    return found


def test_a_refused_stream_ends_as_one_that_reached_its_length(tmp_path: Path) -> None:
    """What was covered, a chunk like the others that says why, the cost, and [DONE]."""
    _, response = stopped(tmp_path)

    assert response.body.startswith(b"".join(LONG[:4]) + b'data: {"id"')
    assert not response.body.startswith(b"".join(LONG[:5]))
    last = last_chunk(response)
    assert (last["id"], last["object"]) == ("chatcmpl-1", "chat.completion.chunk")
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert response.body.endswith(DONE)
    assert b": x-quaestor-cost " in response.body


def test_a_comment_is_no_chunk_to_end_like(tmp_path: Path) -> None:
    """The last chunk is like the last that had data."""
    _, response = stopped(tmp_path, LONG[0], b": still thinking\n\n", chunk("x" * 500), *END)

    assert last_chunk(response)["model"] == "m"


def test_a_refused_stream_says_which_limit_and_what_is_left(tmp_path: Path) -> None:
    """As a refused request does."""
    _, response = stopped(tmp_path)

    said = last_chunk(response)["quaestor"]
    assert (said["stopped"], said["limit_id"], said["currency"]) == ("budget_exceeded", "lim_a", "USD")
    assert (said["asked"], said["remaining"]) == ("0.0008", "0.0004")


def test_a_refused_stream_hangs_up_on_the_provider(tmp_path: Path) -> None:
    """At once, before anything is recorded, so that it stops."""
    answer, seen = stream_answer(*LONG, *END), list[bool]()
    room = room_for(tmp_path, 250)

    async def run() -> None:
        async with World(tmp_path, lambda _: answer, state(room), stream_step_tokens=STEP) as world:
            conclude = world.journal.conclude

            async def look(events: Sequence[Event], traceparent: bytes | None) -> None:
                seen.append(answer.aborted)
                await conclude(events, traceparent)

            world.journal.conclude = look  # type: ignore[method-assign]  # looks on
            await world.call(body=ask())

    asyncio.run(run())
    assert seen == [True]


def test_a_refused_stream_is_completed_and_charged_an_estimate(tmp_path: Path) -> None:
    """Of what came: the attempt succeeded, if shortly, and says that it was stopped."""
    world, _ = stopped(tmp_path)

    attempt, completed = world.one(ProviderAttempt), world.one(RequestEvent, kind=RequestKind.COMPLETED)
    assert (attempt.outcome, attempt.finish_reason) == (AttemptOutcome.SUCCEEDED, "length")
    assert attempt.error_detail == completed.error_detail == "stopped: budget_exceeded"
    assert (attempt.usage_source, attempt.output_tokens) == (UsageSource.ESTIMATE, 50)
    committed = budget_events(world, BudgetKind.COMMITTED)[0]
    assert committed.estimated
    assert_settled(world, committed.amount_nano)


def test_a_refused_extension_is_in_the_log_once(tmp_path: Path) -> None:
    """REFUSED names the limit, what was asked in all, what is held, and what is left; it moves nothing."""
    world, _ = stopped(tmp_path)

    (refused,) = budget_events(world, BudgetKind.REFUSED)
    held = amounts(world, BudgetKind.EXTENDED)[-1]
    assert (refused.refused_by_limit_id, refused.remaining_nano) == ("lim_a", 50 * OUTPUT_NANO)
    assert (refused.legs[0].held_nano, refused.legs[0].amount_nano) == (held, held + STEP * OUTPUT_NANO)
    assert refused.causation_id == budget_events(world, BudgetKind.EXTENDED)[-1].event_id


def test_a_refused_stream_reports_usage_when_asked(tmp_path: Path) -> None:
    """The estimate, and that it is one."""
    _, response = stopped(tmp_path, stream_options={"include_usage": True})

    usage = json.loads(response.body.split(b"\n\n")[-4].removeprefix(b"data: "))
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 50)
    assert usage["quaestor"]["estimated"]


def test_choices_that_ended_are_not_ended_again(tmp_path: Path) -> None:
    """The others are, in one chunk."""
    pieces = (chunk("a"), chunk(finish="stop", index=1), *LONG, *LONG, *LONG)
    _, response = stopped(tmp_path, *pieces, output_tokens=450, n=3)

    assert chunk(finish="stop", index=1) in response.body
    assert [choice["index"] for choice in last_chunk(response)["choices"]] == [0, 2]


def test_a_stream_refused_before_its_first_text_is_answered(tmp_path: Path) -> None:
    """All of it came at once, and nothing of it is covered."""
    _, response = stopped(tmp_path, chunk("x" * 500), *END)

    assert response.status == 200
    assert last_chunk(response)["choices"][0]["finish_reason"] == "length"


def test_room_that_comes_in_time_is_found(tmp_path: Path) -> None:
    """A refusal in the background is asked again when the hold is used up."""
    room = room_for(tmp_path, STEP)

    async def run() -> Response:
        answer, seen = SlowAnswer(*LONG, *END), asyncio.Semaphore(0)
        async with World(tmp_path, lambda _: answer, state(room), stream_step_tokens=STEP) as world:
            running = asyncio.create_task(world.call(body=ask(), on_piece=lambda _: seen.release()))
            answer.go.release()
            await asyncio.wait_for(seen.acquire(), 5)
            await asyncio.wait_for(until(lambda: counts(world).get("refused") == 1), 5)
            roomy(world)
            for _ in LONG + END:
                answer.go.release()
            return await asyncio.wait_for(running, 5)

    def roomy(world: World) -> None:
        extend = world.holds.extend

        async def generous(ask: PlaceHold) -> Extension:
            return await extend(ask._replace(limits_nano=(PLENTY_NANO,)))

        world.holds.extend = generous  # type: ignore[method-assign]  # the other calls that held the room have ended

    assert asyncio.run(run()).body.startswith(ALL)


# Nobody can say whether there is room.


async def test_a_stream_goes_on_when_the_store_comes_back(tmp_path: Path) -> None:
    """It waits meanwhile."""
    async with world_of(tmp_path, *LONG, *END) as world:
        away = AwayHolds.of(world, times=3)
        response = await asyncio.wait_for(world.call(body=ask()), 5)

    assert away.asked >= 3
    assert response.body.startswith(ALL)


class AwayHolds(MemoryHoldStore):
    """Extensions find the store away, so many times."""

    asked: int
    times: int

    @classmethod
    def of(cls, world: World, times: int) -> AwayHolds:
        """The world's store."""
        holds = world.holds
        holds.__class__ = cls
        assert isinstance(holds, cls)
        holds.asked, holds.times = 0, times
        return holds

    async def extend(self, ask: PlaceHold) -> Extension:
        """As the seam says."""
        self.asked += 1
        return Closed(ClosedReason.UNREACHABLE) if self.asked <= self.times else await super().extend(ask)


async def test_a_stream_ends_when_the_store_stays_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cleanly, with the reason that a new request would be given."""
    monkeypatch.setattr(steps, "STREAM_EXTEND_SECONDS_MAX", 0)
    async with world_of(tmp_path, *LONG, *END) as world:
        AwayHolds.of(world, times=1_000)
        response = await world.call(body=ask())

    assert last_chunk(response)["quaestor"] == {"stopped": "redis_unreachable"}
    assert budget_events(world, BudgetKind.REFUSED) == []
    assert response.body.endswith(DONE)


async def test_an_extension_of_another_generation_is_not_counted_on(tmp_path: Path) -> None:
    """The server was lost between the grant and its confirmation: the stream ends, and frees what the log gave it."""
    async with world_of(tmp_path, *LONG, *END) as world:
        extend = world.holds.extend

        async def lose(ask: PlaceHold) -> Extension:
            answer = await extend(ask)
            world.holds.open_tenant(TENANT, "memory:2")
            return answer

        world.holds.extend = lose  # type: ignore[method-assign]  # a loss at the worst moment
        response = await world.call(body=ask())

    assert last_chunk(response)["quaestor"] == {"stopped": "hold_generation"}
    assert len(budget_events(world, BudgetKind.EXTENDED)) == 1
    assert_settled(world, amounts(world, BudgetKind.COMMITTED)[0])


async def test_an_extension_after_the_lease_is_not_counted_on(tmp_path: Path) -> None:
    """The process slept: the reaper may have charged the hold without it."""
    async with world_of(tmp_path, *LONG, *END) as world:
        now, extend = world.parts.now, world.holds.extend

        async def sleep(ask: PlaceHold) -> Extension:
            world.parts.now = lambda: now() + 10**9
            return await extend(ask)

        world.holds.extend = sleep  # type: ignore[method-assign]  # as long as a machine can be suspended
        response = await world.call(body=ask())

    assert last_chunk(response)["quaestor"] == {"stopped": "hold_lease_over"}


async def test_a_stream_ends_when_the_log_goes_away(tmp_path: Path) -> None:
    """An extension that may or may not be in the log goes with the end of the request, into the spool."""
    async with world_of(tmp_path, *LONG, *END) as world:
        extend = world.holds.extend

        async def cut(ask: PlaceHold) -> Extension:
            answer = await extend(ask)
            world.take_log_away()
            return answer

        world.holds.extend = cut  # type: ignore[method-assign]  # at the worst moment
        response = await world.call(body=ask())
        assert world.journal.spooled_bytes
        world.bring_log_back()

    assert last_chunk(response)["quaestor"] == {"stopped": "log_unavailable"}
    kinds = [event.kind.value for event in world.events("budgets") if isinstance(event, BudgetEvent)]
    assert kinds == ["PLACED", "EXTENDED", "COMMITTED"]
    assert_settled(world, amounts(world, BudgetKind.COMMITTED)[0])


def test_extensions_are_counted(tmp_path: Path) -> None:
    """Granted, refused, and streams that were stopped."""
    world, _ = stopped(tmp_path)

    assert counts(world) == {"granted": 1, "refused": 2, "stopped": 1}
