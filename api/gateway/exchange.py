"""Exchange: one request from its decision to its answer, over as many attempts as it takes.

    place the hold -> record [RECEIVED, DECISION, PLACED] -> confirm the hold -> call the provider
    -> record [ATTEMPT, COST..., COMMITTED, COMPLETED] -> answer

The events of a failed attempt go with the next attempt's PLACED, or with FAILED; earlier where that finds no room
(docs/decisions/0175). Whatever ends this task early (a bug, a shutdown), an open hold is settled on the way out.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from api.gateway.admission import Admission, frees
from api.gateway.attempt import Attempt, RequestLimits
from api.gateway.errors import (
    INTERNAL,
    JSON_TYPE,
    LOG_AWAY,
    NOT_RECORDED,
    Header,
    Problem,
    admission_closed,
    hold_conflict,
    retry_later,
)
from api.gateway.events import Context, Ended, Totals, finished, refused
from api.gateway.intake import Ask, Labels
from api.gateway.outcomes import client_gone, failed_call, refused_call, whole_answer
from api.gateway.parts import Parts
from api.gateway.relay import Caller, Relay, error_event
from api.gateway.steps import Steps
from api.gateway.wire import Receive, Send, answer, refuse
from api.providers.errors import UpstreamError
from api.providers.upstream import Answer, Call
from processors.control import ControlState
from processors.routing import Choice, Routed
from schemas.errors import ConfigurationError, LogError, LogUnavailableError, QuaestorError
from schemas.events import AttemptOutcome, Event, Operation, RequestEvent, RoutingDecision
from schemas.limits import ATTEMPTS_MAX
from schemas.money import format_nano
from sinks.redis.holds import Closed, Confirmation, Conflict, Placed, Refused

log = structlog.get_logger(__name__)

PATHS = {Operation.CHAT_COMPLETIONS: "/chat/completions", Operation.EMBEDDINGS: "/embeddings"}
#: With less time left than this no further candidate is tried.
ATTEMPT_SECONDS_MIN = 0.5
TOO_MANY = 429


class Exchange:
    """One request that was routed. `run` answers the caller, always."""

    def __init__(
        self,
        parts: Parts,
        context: Context,
        ask: Ask,
        routed: Routed,
        control: ControlState,
        received: RequestEvent,
        decision: RoutingDecision,
        labels: Labels,
    ) -> None:
        """RECEIVED and DECISION are recorded with the first hold; `control` is what was decided on."""
        self._parts, self._context, self._ask, self._routed = parts, context, ask, routed
        limits = RequestLimits(control, context, received, labels.approval_hash)
        self._admission = Admission(parts, context, ask, limits)
        self._traceparent = labels.traceparent
        self._totals = Totals()
        #: Events that wait for the next group.
        self._waiting: list[Event] = [received, decision]
        #: The last group, while it is being recorded.
        self._ending: list[Event] = []
        self._cause = decision.event_id
        self._attempt: Attempt | None = None
        self._caller: Caller | None = None
        self._deadline = time.monotonic() + parts.options.request_timeout_seconds
        #: Status answered, for the metrics.
        self.status = 0

    async def run(self, send: Send, receive: Receive) -> None:
        """Try the candidates in order and answer."""
        try:
            await self._try_all(send, receive)
        except BaseException as fault:  # noqa: BLE001 - the hold must not stay open, nor the caller without answer
            await self._break_off(send, fault)
        finally:
            if self._caller is not None:
                self._caller.leave()

    async def _try_all(self, send: Send, receive: Receive) -> None:
        last: Ended | None = None
        #: Why the first candidate after the last call found no room.
        no_room: Problem | None = None
        number = 1
        for choice in self._routed.order[:ATTEMPTS_MAX]:
            if last is not None and self._deadline - time.monotonic() < ATTEMPT_SECONDS_MIN:
                break
            problem = await self._open(number, choice)
            if problem is not None and problem.status == TOO_MANY:
                # Another candidate may be cheaper, or stand under other limits.
                no_room = no_room or problem
                continue
            if problem is not None:
                await self._fail(send, problem, last)
                return
            number, no_room = number + 1, None
            attempt = self._current()
            last = await self._call(attempt, send, receive)
            if last is None:
                return
            await self._admission.estimate(attempt.choice, last)
            self._settle(attempt, last)
            if not last.failover:
                break
        problem = no_room or (last and last.problem) or INTERNAL
        await self._fail(send, problem, last)

    def _current(self) -> Attempt:
        if self._attempt is None:
            raise RuntimeError("no attempt is open")
        return self._attempt

    # Before the call.

    async def _open(self, number: int, choice: Choice) -> Problem | None:
        """Place, record, confirm; None when the provider may be called."""
        if self._admission.user_is_hidden:
            return admission_closed("user_unavailable")
        parts, now = self._parts, self._parts.now()
        try:
            found = await self._admission.place(number, choice, now)
            if frees(self._waiting, found) and await self._record(self._waiting):
                self._waiting = []
                found = await self._admission.place_freed(number, choice, self._deadline)
        except ConfigurationError as error:
            log.error("limit_unusable", tenant_id=self._context.tenant_id, error=str(error))  # noqa: TRY400 - no trace
            return retry_later("limit_unusable", "A budget limit can't be checked; the gateway's log says why.")
        if isinstance(found, Problem):
            return found
        attempt, placement = found
        if not isinstance(placement, Placed):
            return self._not_placed(attempt, placement, now)
        now = parts.now()
        placed = attempt.place(now, self._cause, parts.options.lease_seconds, placement.generation)
        group, self._waiting = [*self._waiting, placed], []
        try:
            await parts.journal.begin(group, self._traceparent)
        except LogUnavailableError:
            # Some of it may have got there. All of it goes to the spool with its end, so that the log tells one story.
            released = attempt.release(parts.now(), self._context.actor, "log_unavailable")
            self._waiting = [*group, released]
            return LOG_AWAY
        except BaseException:  # cancelled, or refused: the hold may be in the log already
            self._attempt, self._waiting = attempt, group
            raise
        self._attempt, self._cause = attempt, placed.event_id
        return await self._confirm(attempt, placement.generation)

    def _not_placed(self, attempt: Attempt, placement: Closed | Conflict | Refused, now: int) -> Problem:
        if isinstance(placement, Refused):
            self._waiting.append(attempt.refused(now, self._cause, placement))
            return self._admission.no_room.tell(attempt, placement, now)
        if isinstance(placement, Closed):
            return admission_closed(placement.reason.value)
        log.error("hold_conflict", request_id=self._context.request_id, field=placement.field)
        return hold_conflict(placement)

    async def _confirm(self, attempt: Attempt, generation: str) -> Problem | None:
        if not generation:  # under no limit, or let through: there is nothing to pin
            return None
        confirmation = await self._parts.holds.confirm(self._context.tenant_id, attempt.hold.hold_id, generation)
        if confirmation is Confirmation.CONFIRMED:
            return None
        reason = f"hold_{confirmation.value.lower()}"
        self._waiting.append(attempt.release(self._parts.now(), self._context.actor, reason))
        self._attempt = None
        return admission_closed(reason)

    # The call.

    async def _call(self, attempt: Attempt, send: Send, receive: Receive) -> Ended | None:
        """Call the provider; None when the caller has its answer, else how the attempt failed."""
        parts, provider = self._parts, attempt.choice.provider
        attempt.started_at, began_at = parts.now(), time.monotonic_ns()
        seconds = min(provider.timeout_seconds, self._deadline - time.monotonic())
        try:
            secret = parts.secrets.resolve(provider.secret_ref)
            url = provider.base_url + PATHS[self._ask.operation]
            attempt.called = True
            reply = await parts.upstream.send(Call(url, secret, attempt.body, self._ask.stream, seconds))
        except UpstreamError as fault:
            ended = failed_call(fault, self._ask.prompt_bytes)
            return self._ended(attempt, ended, began_at)
        if not 200 <= reply.status < 300:  # noqa: PLR2004 - success, as HTTP says
            return self._ended(attempt, await refused_call(reply), began_at)
        if self._ask.stream:
            return await self._call_stream(attempt, reply, began_at, send, receive)
        return await self._call_plain(attempt, reply, began_at, send)

    def _ended(self, attempt: Attempt, ended: Ended, began_at: int) -> Ended:
        """Stamp and count an attempt that is over."""
        ended.duration_micros = (time.monotonic_ns() - began_at) // 1_000
        provider_id = attempt.choice.provider.provider_id
        self._parts.meters.attempt(provider_id, ended.outcome.value, ended.duration_micros / 1e6)
        if not ended.succeeded:
            log.warning(
                "attempt_failed",
                request_id=self._context.request_id,
                provider_id=provider_id,
                outcome=ended.outcome.value,
                detail=ended.detail,
            )
        return ended

    async def _call_plain(self, attempt: Attempt, reply: Answer, began_at: int, send: Send) -> Ended | None:
        ended, body = await whole_answer(reply, self._ask.operation, self._ask.prompt_bytes)
        self._ended(attempt, ended, began_at)
        if not ended.succeeded:
            return ended
        if not await self._complete(attempt, ended):
            await self._refuse(send, NOT_RECORDED)
            return None
        headers = [JSON_TYPE, (b"x-quaestor-cost", format_nano(self._totals.amount_nano).encode())]
        self.status = reply.status
        await answer(send, reply.status, headers + self._headers(attempt), body)
        return None

    async def _call_stream(
        self, attempt: Attempt, reply: Answer, began_at: int, send: Send, receive: Receive
    ) -> Ended | None:
        caller, headers = self._caller, self._headers(attempt)
        if caller is None:
            left_seconds = self._deadline - time.monotonic()
            caller = self._caller = Caller(send, receive, asyncio.get_running_loop().time() + left_seconds)
        steps = Steps(self._parts, attempt, self._traceparent) if attempt.output.grows else None
        relay = Relay(reply, caller, headers, self._ask.prompt_bytes, self._ask.choices, steps)
        try:
            ended = await self._relayed(relay, steps)
            if caller.first_at:
                ended.first_chunk_micros = max(0, (caller.first_at - began_at) // 1_000)
            self._ended(attempt, ended, began_at)
            if not ended.succeeded:
                return ended
            if not await self._complete(attempt, ended):
                await self._refuse(send, NOT_RECORDED)
                return None
            cost = format_nano(self._totals.amount_nano)
            self.status = 200
            currency = attempt.hold.currency
            await caller.end(headers, relay.tail(cost, currency, ended, wants_usage=self._ask.wants_usage))
        finally:
            relay.close()
        return None

    async def _relayed(self, relay: Relay, steps: Steps | None) -> Ended:
        """The stream to its end; what its steps left to record goes first in the group that ends the attempt."""
        try:
            return await relay.run()
        finally:
            if steps is not None:
                self._waiting += await steps.end()

    def _headers(self, attempt: Attempt | None) -> list[Header]:
        """Our headers on an answer."""
        request_id = self._context.request_id.encode()
        headers: list[Header] = [(b"x-quaestor-request-id", request_id), (b"x-request-id", request_id)]
        if attempt is not None:
            headers.append((b"x-quaestor-model", attempt.choice.model.encode("ascii", "replace")))
            headers.append((b"x-quaestor-attempts", str(attempt.number).encode()))
        return headers

    # The end.

    def _settle(self, attempt: Attempt, ended: Ended) -> None:
        """Put a finished attempt's events with the next group."""
        events, amount_nano = attempt.settle(self._context, self._parts.now(), ended)
        self._totals.add(ended, amount_nano)
        self._waiting += events
        self._cause = events[0].event_id
        self._attempt = None

    async def _complete(self, attempt: Attempt, ended: Ended) -> bool:
        """Record that the request is answered, before it is; whether it could be."""
        await self._admission.estimate(attempt.choice, ended)
        now = self._parts.now()
        events, amount_nano = attempt.settle(self._context, now, ended)
        self._totals.add(ended, amount_nano)
        completed = finished(
            self._context,
            self._parts.new_id(now),
            now,
            events[0].event_id,
            ended,
            self._totals,
            served_by=attempt.choice,
            first_chunk_micros=self._since_arrival(attempt, ended.first_chunk_micros),
            client_disconnected=self._caller is not None and self._caller.gone,
            currency=attempt.hold.currency,
        )
        self._waiting = [*self._waiting, *events, completed]
        self._attempt = None
        return await self._conclude()

    def _since_arrival(self, attempt: Attempt, micros: int | None) -> int | None:
        return None if micros is None else attempt.started_at - self._context.started_at + micros

    async def _conclude(self) -> bool:
        """Record what waits, in Kafka or the spool; False when neither takes it: the reaper will close it then."""
        self._ending, self._waiting = self._waiting, []
        recorded = await self._record(self._ending)
        self._ending = []
        return recorded

    async def _record(self, group: list[Event]) -> bool:
        try:
            await self._parts.journal.conclude(group, self._traceparent)
        except (LogError, QuaestorError) as error:
            log.error("not_recorded", request_id=self._context.request_id, error=str(error))  # noqa: TRY400 - no trace
            return False
        return True

    async def _fail(self, send: Send, problem: Problem, last: Ended | None) -> None:
        """Record that the request ends without an answer, then say so. Without any call it was REFUSED."""
        now = self._parts.now()
        event_id = self._parts.new_id(now)
        if last is None and not self._called_before():
            self._waiting.append(refused(self._context, event_id, now, problem, causation_id=self._cause))
        else:
            gone = self._caller is not None and self._caller.gone
            currency = self._routed.order[0].price.currency
            self._waiting.append(
                finished(
                    self._context,
                    event_id,
                    now,
                    self._cause,
                    last,
                    self._totals,
                    problem=problem,
                    client_disconnected=gone,
                    currency=currency,
                )
            )
        await self._conclude()
        await self._refuse(send, problem)

    def _called_before(self) -> bool:
        return self._totals.attempts > 0 or (self._attempt is not None and self._attempt.called)

    async def _refuse(self, send: Send, problem: Problem) -> None:
        """Tell the caller, in whichever way is still open."""
        self.status = problem.status
        caller = self._caller
        if caller is not None and caller.begun:
            await caller.end([], error_event(problem))
        else:
            await refuse(send, problem, tuple(self._headers(None)))

    async def _break_off(self, send: Send, fault: BaseException) -> None:
        """A bug, or the end of this process: settle the open hold at once, then answer or give up."""
        stopping = isinstance(fault, asyncio.CancelledError)
        if not stopping:
            log.error("exchange_failed", request_id=self._context.request_id, exc_info=fault)
        self._spool_now()
        if stopping:
            raise fault
        await self._refuse(send, INTERNAL)

    def _last_words(self) -> list[Event]:
        """The events that close whatever is open; none when nothing is in the log yet."""
        attempt, now, context, new_id = self._attempt, self._parts.now(), self._context, self._parts.new_id
        if attempt is None and not self._totals.attempts:
            return []
        if attempt is not None and attempt.called:
            ended = client_gone(self._ask.prompt_bytes, None, 0)
            ended.outcome, ended.detail = AttemptOutcome.ABANDONED, "the gateway gave up"
            self._settle(attempt, ended)
        elif attempt is not None:
            self._waiting.append(attempt.release(now, context.actor, "gateway_gave_up"))
        if self._totals.attempts:
            end = finished(context, new_id(now), now, self._cause, None, self._totals, problem=INTERNAL)
        else:
            end = refused(context, new_id(now), now, INTERNAL, causation_id=self._cause)
        return [*self._waiting, end]

    def _spool_now(self) -> None:
        """Keep the last group, or the events that close what is open. What this can't keep, the reaper will close."""
        try:
            if group := self._ending or self._last_words():
                self._parts.journal.conclude_now(group)
        except QuaestorError as error:
            log.error("not_recorded", request_id=self._context.request_id, error=str(error))  # noqa: TRY400 - no trace
        except Exception:  # a second bug: the caller is still to be answered
            log.exception("not_recorded", request_id=self._context.request_id)
