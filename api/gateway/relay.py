"""Relay: one provider's stream to one caller. Content flows at once and untouched; the end waits until it is recorded.

Held back: chunks with a finish_reason, the usage chunk, and [DONE]. Nothing is sent to the caller before the first
chunk of content, so that until then another candidate can still take over.

A stream whose hold grows in steps forwards what its hold covers. When there is no further step the provider is hung up
on, and the answer ends as one that reached its length.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from api.gateway.errors import Header, Problem
from api.gateway.events import Ended
from api.gateway.outcomes import client_gone, failed_call, failed_stream, stopped
from api.gateway.steps import Steps, Stop
from api.gateway.wire import Receive, Send
from api.providers.dialect import Reading, finished_choices, read_chunk
from api.providers.errors import UpstreamError, UpstreamTruncatedError
from api.providers.sse import DONE, EventSplitter, data_of, event_of
from api.providers.upstream import Answer
from processors.pricing import Usage
from schemas.events import AttemptOutcome, UsageSource

STREAM_HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Proxies that collect answers would undo streaming.
    (b"x-accel-buffering", b"no"),
)
END = b"data: [DONE]\n\n"
#: finish_reason of a choice whose hold could not grow: OpenAI's word for an answer cut by a bound.
CUT = "length"


class StreamFaultError(Exception):
    """The provider put an error into its stream; carries a safe word for it."""


class StoppedError(Exception):
    """The hold covers no more; carries why."""

    def __init__(self, stop: Stop) -> None:
        """For this reason."""
        super().__init__(stop.reason)
        self.stop = stop


class Caller:
    """The caller of a stream: knows when it hangs up, and whether it was sent anything.

    Whoever has not taken what it is being sent by the request's deadline counts as one who hung up.
    """

    __slots__ = ("_is_late", "_on_gone", "_send", "_taking", "_timer", "_until", "_watch", "begun", "first_at", "gone")

    def __init__(self, send: Send, receive: Receive, until: float) -> None:
        """Watch for the end of the connection from now on; `until` is the deadline, by the loop's clock."""
        self._send, self._until = send, until
        self._is_late = False
        #: The wait for the caller to take what is being sent.
        self._taking: asyncio.Timeout | None = None
        # One timer for all that is sent: one for each piece would cost more than to send it.
        self._timer = asyncio.get_running_loop().call_at(until, self._too_late)
        self._on_gone: Callable[[], None] | None = None
        self.begun = self.gone = False
        #: time.monotonic_ns() of the first content forwarded; 0 before.
        self.first_at = 0
        self._watch = asyncio.ensure_future(self._wait(receive))

    async def _wait(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._is_gone()

    def _is_gone(self) -> None:
        self.gone = True
        if self._on_gone is not None:
            self._on_gone()

    def when_gone(self, action: Callable[[], None] | None) -> None:
        """What to do when it hangs up; one action at a time."""
        self._on_gone = action

    async def forward(self, headers: list[Header], data: bytes) -> None:
        """Send content, after the head of the answer when it is the first."""
        if not self.begun:
            self.begun, self.first_at = True, time.monotonic_ns()
            head = {"type": "http.response.start", "status": 200, "headers": [*STREAM_HEADERS, *headers]}
            self.begun = await self._give(head)
        await self._give({"type": "http.response.body", "body": data, "more_body": True})

    async def _give(self, message: dict[str, Any]) -> bool:
        """Send to whoever is still there; False when it was not taken by the deadline, and so not sent."""
        if self.gone:
            return True
        try:
            async with asyncio.timeout_at(self._until if self._is_late else None) as self._taking:
                await self._send(message)
        except TimeoutError:
            self._is_gone()
            return False
        finally:
            self._taking = None
        return True

    def _too_late(self) -> None:
        self._is_late = True
        if self._taking is not None:
            self._taking.reschedule(self._until)

    async def end(self, headers: list[Header], data: bytes) -> None:
        """Send the last bytes and end the answer; the connection bounds how long they may take."""
        self._on_gone = None
        if not self.begun:
            self.begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": [*STREAM_HEADERS, *headers]})
        await self._send({"type": "http.response.body", "body": data})

    def leave(self) -> None:
        """Stop watching."""
        self._on_gone = None
        self._timer.cancel()
        if not self._watch.done():
            self._watch.cancel()


class Relay:
    """The stream of one attempt."""

    def __init__(
        self,
        answer: Answer,
        caller: Caller,
        headers: list[Header],
        prompt_bytes: int,
        choices: int = 1,
        steps: Steps | None = None,
    ) -> None:
        """`headers` are ours, for when this attempt begins the answer; `steps` where the hold grows with the stream.

        `choices` is how many were asked for.
        """
        self._answer, self._caller, self._headers = answer, caller, headers
        self._prompt_bytes, self._choices, self._steps = prompt_bytes, choices, steps
        self._splitter = EventSplitter()
        self._held: list[bytes] = []
        self._usage_event: bytes | None = None
        self._usage: Usage | None = None
        self._written = 0
        self._response_id: str | None = None
        self._finish_reason: str | None = None
        #: Of several choices, the indexes of those that finished.
        self._finished: set[int] = set()
        self._done = False
        #: The last chunk of content, kept of a stream in steps.
        self._last: bytes | None = None
        self._stop: Stop | None = None

    async def run(self) -> Ended:
        """Forward until the stream ends; says how it ended. Nothing of the end has been sent yet."""
        self._caller.when_gone(self._hang_up)
        if self._caller.gone:
            self._hang_up()
        try:
            await self._forward_all()
        except StreamFaultError as fault:
            ended = failed_stream(str(fault), self._prompt_bytes, self._usage, self._written)
        except UpstreamError as fault:
            ended = self._broken(fault)
        except StoppedError as fault:
            ended = self._stopped(fault.stop)
        else:
            ended = self._whole()
        finally:
            self._caller.when_gone(None)
        ended.status_code, ended.response_id = self._answer.status, self._response_id
        ended.finish_reason = self._finish_reason
        ended.failover = ended.failover and not self._caller.begun
        return ended

    def tail(self, cost: str, currency: str, ended: Ended, *, wants_usage: bool) -> bytes:
        """The end of a whole stream: what was held back, usage when asked for, the cost as a comment, [DONE]."""
        parts = self._held
        if self._stop is not None:
            parts.append(self._stop_chunk(self._stop))
        if wants_usage:
            parts.append(self._usage_chunk(cost, currency, ended))
        parts.append(b": x-quaestor-cost " + cost.encode() + b"\n\n")
        parts.append(END)
        return b"".join(parts)

    def close(self) -> None:
        """Let go of the provider's connection; after its proper end it goes back to the pool."""
        self._answer.abort()

    def _hang_up(self) -> None:
        """Nobody listens: stop the provider, unless its answer is whole but for the usage."""
        if not self._is_finished:
            self._answer.abort()

    @property
    def _is_finished(self) -> bool:
        """Whether every choice that was asked for has said its last: nothing but usage and [DONE] may be missing."""
        return len(self._finished) >= self._choices if self._choices > 1 else bool(self._held)

    async def _forward_all(self) -> None:
        answer, splitter = self._answer, self._splitter
        while not self._done:
            data = await answer.some()
            if not data:
                rest = splitter.rest()
                if rest.strip():
                    await self._forward([rest + b"\n\n"])
                return
            await self._forward(splitter.feed(data))

    async def _forward(self, events: list[bytes]) -> None:
        if self._steps is not None:
            await self._forward_in_steps(self._steps, events)
            return
        out = [event for event in events if self._passes(event)]
        if out:
            await self._caller.forward(self._headers, b"".join(out))

    async def _forward_in_steps(self, steps: Steps, events: list[bytes]) -> None:
        """Forward what the hold covers, and wait for more of it; raises StoppedError. Nothing is read meanwhile."""
        passing = [(event, self._written) for event in events if self._passes(event)]
        is_whole = self._done or self._is_finished
        out: list[bytes] = []
        for event, written in passing:
            # A step is to cover all that was read: it has been written.
            if not is_whole and not steps.covers(written, self._written):
                await self._send(out)
                out = []
                stop = await steps.reach(self._written)
                if stop is not None:
                    raise StoppedError(stop)
            out.append(event)
            if not event.startswith(b":"):
                self._last = event
        await self._send(out)

    async def _send(self, events: list[bytes]) -> None:
        if events:
            await self._caller.forward(self._headers, b"".join(events))

    def _passes(self, event: bytes) -> bool:
        """Take note of an event; whether it goes to the caller now. Raises UpstreamGarbageError, StreamFaultError."""
        data = data_of(event)
        if data is None:
            return self._caller.begun
        if self._done:
            return False
        if data == DONE:
            self._done = True
            return False
        reading = read_chunk(data)
        if reading.error is not None:
            raise StreamFaultError(reading.error)
        if reading.finished and self._choices > 1:
            self._finished.update(finished_choices(data))
        return self._note(reading, event)

    def _note(self, reading: Reading, event: bytes) -> bool:
        self._written += reading.written
        if self._response_id is None:
            self._response_id = reading.response_id
        if reading.usage is not None:
            self._usage = reading.usage
        if reading.finished:
            self._finish_reason = self._finish_reason or reading.finish_reason
            self._held.append(event)
            return False
        if reading.bare and reading.reports_usage:
            self._usage_event = None if reading.usage is None else event
            return False
        return True

    def _whole(self) -> Ended:
        if self._caller.gone and not self._is_finished:
            return client_gone(self._prompt_bytes, self._usage, self._written)
        if not self._is_finished and not self._done:
            return failed_call(UpstreamTruncatedError(), self._prompt_bytes, self._usage, self._written)
        usage = self._usage
        source = UsageSource.PROVIDER
        if usage is None:
            usage, source = client_gone(self._prompt_bytes, None, self._written).usage, UsageSource.ESTIMATE
        return Ended(outcome=AttemptOutcome.SUCCEEDED, usage=usage, usage_source=source)

    def _broken(self, fault: UpstreamError) -> Ended:
        """A fault ended the stream: by then the answer may have been whole, or the caller gone."""
        if self._is_finished or self._caller.gone:
            return self._whole()
        return failed_call(fault, self._prompt_bytes, self._usage, self._written)

    def _stopped(self, stop: Stop) -> Ended:
        """No further step: the provider stops at once; what it wrote until now is the answer."""
        self._answer.abort()
        if self._caller.gone:
            return client_gone(self._prompt_bytes, self._usage, self._written)
        self._stop, self._finish_reason = stop, CUT
        return stopped(stop.reason, self._prompt_bytes, self._usage, self._written)

    def _stop_chunk(self, stop: Stop) -> bytes:
        """A chunk like those before it that ends every choice that has not ended."""
        chunk = self._like_the_last()
        indexes = [index for index in range(self._choices) if index not in self._finished]
        chunk["choices"] = [{"index": index, "delta": {}, "finish_reason": CUT} for index in indexes]
        chunk["quaestor"] = {"stopped": stop.reason, **(stop.details or {})}
        return event_of(msgspec.json.encode(chunk))

    def _like_the_last(self) -> dict[str, object]:
        data = data_of(self._last) if self._last is not None else None
        if data is None:
            return self._new_chunk()
        chunk: dict[str, object] = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        if "usage" in chunk:
            chunk["usage"] = None
        return chunk

    def _new_chunk(self) -> dict[str, object]:
        return {
            "id": self._response_id or "",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": "",
        }

    def _usage_chunk(self, cost: str, currency: str, ended: Ended) -> bytes:
        """The provider's usage chunk with the cost added, or one of ours when it sent none."""
        data = data_of(self._usage_event) if self._usage_event is not None else None
        chunk: dict[str, object]
        if data is not None:
            chunk = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        else:
            usage = ended.usage
            chunk = self._new_chunk() | {
                "choices": [],
                "usage": {
                    "prompt_tokens": usage.input_tokens,
                    "completion_tokens": usage.output_tokens,
                    "total_tokens": usage.input_tokens + usage.output_tokens,
                },
            }
        estimated = ended.usage_source is UsageSource.ESTIMATE
        chunk["quaestor"] = {"cost": cost, "currency": currency, "estimated": estimated}
        return event_of(msgspec.json.encode(chunk))


def error_event(problem: Problem) -> bytes:
    """An error as the last event of a stream that has begun: the official SDKs raise it. No [DONE] follows."""
    return event_of(problem.body())
