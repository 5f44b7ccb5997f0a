"""Admission: room for one request's attempts, asked for by bytes first and, where that is refused, by counted tokens.

Bytes bound the tokens of any request at no cost, four times too high for English. Where that much room is there, nobody
notices; where it is not, a tokenizer may say that less is enough. Counting is left out where no count could help.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from api.gateway.attempt import Attempt, NoRoom, RequestLimits, output_bounds
from api.gateway.errors import Problem
from api.gateway.events import Context, Ended
from api.gateway.grace import FAIL_OPEN
from api.gateway.intake import Ask
from api.gateway.parts import Parts
from processors.encodings import encoding_of
from processors.estimation import Counted, tokens_estimated
from processors.routing import Choice
from schemas.events import BudgetEvent, BudgetKind, Event, UsageSource
from schemas.limits import CALL_TOKENS_MAX
from sinks.redis.holds import Closed, ClosedReason, Placed, Placement, Refused

#: Waits before a place that own ends may have made room for is asked for again; the sink applies most within 250 ms.
FREED_WAITS_SECONDS = (0.05, 0.1, 0.15, 0.2)
ENDS = frozenset({BudgetKind.COMMITTED, BudgetKind.RELEASED})


class Admission:
    """What a request needs to have its attempts admitted, and what was counted of it."""

    def __init__(self, parts: Parts, context: Context, ask: Ask, limits: RequestLimits) -> None:
        """Nothing is counted yet."""
        self._parts, self._context, self._ask, self._limits = parts, context, ask, limits
        self._bounds = output_bounds(ask, parts.options)
        self._counted: dict[str, Counted | None] = {}
        self.no_room = NoRoom()

    @property
    def user_is_hidden(self) -> bool:
        """Whether a limit may stand on the end user, and nobody can say now who that is."""
        return self._limits.user_is_hidden

    async def place(self, number: int, choice: Choice, now: int) -> tuple[Attempt, Placement] | Problem:
        """An attempt at a candidate, and whether its hold stands; raises ConfigurationError as Attempt does.

        A Problem where an attempt that asked no more has found no room before.
        """
        body, encoding = self._ask.body_for(choice.model), encoding_of(choice.model)
        # Who was counted for one candidate is counted for the next: they meet the same limits.
        counted = await self._count(encoding) if encoding is not None and self._counted else None
        attempt = self._attempt(number, choice, body, now, counted)
        if (known := self.no_room.told(attempt)) is not None:
            return known
        placement = await self._parts.holds.place(attempt.ask)
        if isinstance(placement, Refused) and encoding is not None and counted is None:
            attempt = await self._counted_attempt(attempt, placement, encoding, now) or attempt
            if _fits(attempt, placement):
                placement = await self._parts.holds.place(attempt.ask)
        self._parts.meters.hold(type(placement).__name__.lower())
        if isinstance(placement, Closed) and self._lets_through(attempt, placement, now):
            return attempt, Placed("")
        return attempt, placement

    async def place_freed(self, number: int, choice: Choice, deadline: float) -> tuple[Attempt, Placement] | Problem:
        """`place`, asked for until the sink has applied what frees room, for half a second at most.

        Each time with a hold id of its own: a refused one stays refused. `deadline` is of time.monotonic().
        """
        for seconds in FREED_WAITS_SECONDS:
            await asyncio.sleep(max(0.0, min(seconds, deadline - time.monotonic())))
            found = await self.place(number, choice, self._parts.now())
            if isinstance(found, Problem) or not isinstance(found[1], Refused):
                break
        return found

    def _lets_through(self, attempt: Attempt, closed: Closed, now: int) -> bool:
        """Whether the attempt goes ahead though its budgets can't be checked."""
        if closed.reason is ClosedReason.TOO_OLD:
            return False
        if not self._parts.grace.admits(self._context.key_id, attempt.hold.amount_nano, now):
            return False
        attempt.reason = FAIL_OPEN
        self._parts.meters.hold(FAIL_OPEN)
        return True

    def _attempt(self, number: int, choice: Choice, body: bytes, now: int, counted: Counted | None = None) -> Attempt:
        parts = self._parts
        return Attempt(self._context, number, choice, body, self._bounds, self._limits, now, parts.new_id, counted)

    async def _counted_attempt(self, attempt: Attempt, refused: Refused, encoding: str, now: int) -> Attempt | None:
        """The same attempt with a hold by tokens; None when no count could make it fit, or none can be had."""
        choice, number, body = attempt.choice, attempt.number, attempt.body
        # As if its texts had no token at all: where even that does not fit, a limit that is spent costs no counting.
        if not _fits(self._attempt(number, choice, body, now, Counted(0, self._ask.prompt_bytes)), refused):
            return None
        counted = await self._count(encoding)
        return None if counted is None else self._attempt(number, choice, body, now, counted)

    async def estimate(self, choice: Choice, ended: Ended) -> None:
        """Replace an estimated input by a counted one, where the model's encoding is known."""
        encoding = encoding_of(choice.model) if ended.usage_source is UsageSource.ESTIMATE else None
        if encoding is None or not ended.usage.input_tokens:
            return
        counted = await self._count(encoding)
        if counted is not None:
            tokens = tokens_estimated(self._ask.prompt_bytes, counted)
            ended.usage = msgspec.structs.replace(ended.usage, input_tokens=min(tokens, CALL_TOKENS_MAX))

    async def _count(self, encoding: str) -> Counted | None:
        if encoding not in self._counted:
            self._counted[encoding] = await self._parts.counting.count(encoding, self._ask)
        return self._counted[encoding]


def frees(waiting: Sequence[Event], found: tuple[Attempt, Placement] | Problem) -> bool:
    """Whether an end that waits to be recorded frees some of the limit that refused."""
    if isinstance(found, Problem) or not isinstance(found[1], Refused):
        return False
    limit_id = found[1].limit_id
    ends = [event for event in waiting if isinstance(event, BudgetEvent) and event.kind in ENDS]
    return any(leg.limit_id == limit_id for event in ends for leg in event.legs)


def _fits(attempt: Attempt, refused: Refused) -> bool:
    """Whether the limit that refused has room for this."""
    return attempt.leg(refused.limit_id).amount_nano <= refused.remaining_nano
