"""Makes calls against a gateway when they are due, bounded in concurrency, and writes down each answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from api.load.answers import AnswersFile
from api.load.calls import Call, prompt

#: What the official SDKs do on 408, 409, 429 and 5xx: try again twice, after Retry-After or half a second.
RETRIES_MAX = 5
#: Whoever is told to come back later than this gives up at once.
RETRY_AFTER_SECONDS_MAX = 10.0
RETRIED_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504})
CALL_TIMEOUT_SECONDS = 330.0


@dataclass
class Summary:
    """What came of a run."""

    #: Answers with status 200, whole.
    answered: int = 0
    #: Calls given up, by status or fault.
    failed: Counter[str] = field(default_factory=Counter)
    #: Tries again after a refusal that may pass.
    retried: int = 0
    #: Call sent to last byte, seconds, of answered calls.
    latencies_seconds: list[float] = field(default_factory=list)
    #: Call sent to first content chunk, seconds, of answered streams.
    first_chunks_seconds: list[float] = field(default_factory=list)
    input_tokens: int = 0
    output_tokens: int = 0
    #: Wall time of the run.
    duration_seconds: float = 0.0

    def percentile(self, share: float) -> float:
        """Latency below which `share` of the answers came, seconds; 0 without answers."""
        ordered = sorted(self.latencies_seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass(frozen=True)
class Target:
    """Where calls go and with which keys."""

    base_url: str
    keys: Sequence[str]
    concurrency: int


class Generator:
    """One run."""

    def __init__(self, target: Target, answers: AnswersFile | None, progress: Callable[[Summary], None]) -> None:
        """`answers` takes every answer; `progress` is called after every call."""
        self._target = target
        self._answers = answers
        self._progress = progress
        self.summary = Summary()

    async def run(self, calls: Sequence[Call]) -> Summary:
        """Make all calls; returns when the last has ended. Faults of single calls are counted, never raised.

        Answers that can't be written end the run: an ExceptionGroup of ConfigurationError.
        """
        started = time.monotonic()
        gate = asyncio.Semaphore(self._target.concurrency)
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_SECONDS)
        connector = aiohttp.TCPConnector(limit=self._target.concurrency)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as group,
        ):
            for call in calls:
                delay = started + call.due_seconds - time.monotonic()
                if delay > 0:
                    await asyncio.sleep(delay)
                await gate.acquire()
                group.create_task(self._one(session, call, gate))
        self.summary.duration_seconds = time.monotonic() - started
        return self.summary

    async def _one(self, session: aiohttp.ClientSession, call: Call, gate: asyncio.Semaphore) -> None:
        try:
            for attempt in range(RETRIES_MAX + 1):
                retry_after = await self._try(session, call, last=attempt == RETRIES_MAX)
                if retry_after is None:
                    return
                self.summary.retried += 1
                await asyncio.sleep(retry_after)
        finally:
            gate.release()
            self._progress(self.summary)

    async def _try(self, session: aiohttp.ClientSession, call: Call, *, last: bool) -> float | None:
        """One HTTP call; returns seconds to wait before the next try, or None when the call has ended."""
        path = "/v1/embeddings" if call.embedding else "/v1/chat/completions"
        sent = time.monotonic()
        try:
            async with session.post(
                self._target.base_url + path, data=body_of(call), headers=self._headers(call)
            ) as response:
                if response.status != 200:  # noqa: PLR2004 - OK
                    await response.read()
                    return self._refused(str(response.status), response, last=last)
                answer = await (self._read_stream(response, sent) if call.stream else self._read_plain(response))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return self._refused(type(error).__name__, None, last=last)
        self._answered(call, answer, time.monotonic() - sent)
        return None

    def _refused(self, reason: str, response: aiohttp.ClientResponse | None, *, last: bool) -> float | None:
        wait = _retry_after_seconds(response)
        hopeless = response is not None and response.status not in RETRIED_STATUSES
        if last or hopeless or wait > RETRY_AFTER_SECONDS_MAX:
            self.summary.failed[reason] += 1
            return None
        return max(0.1, wait)

    def _headers(self, call: Call) -> dict[str, str]:
        key = self._target.keys[call.key_index % len(self._target.keys)]
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        if call.tags:
            headers["x-quaestor-tags"] = call.tags
        return headers

    async def _read_plain(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        body = json.loads(await response.read())
        return {
            "request_id": response.headers["x-quaestor-request-id"],
            "cost": response.headers.get("x-quaestor-cost"),
            "usage": body.get("usage") or {},
        }

    async def _read_stream(self, response: aiohttp.ClientResponse, sent: float) -> dict[str, Any]:
        """Read a stream to [DONE]; raises ValueError when it ends before: such an answer does not count."""
        answer: dict[str, Any] = {"request_id": response.headers["x-quaestor-request-id"], "cost": None, "usage": {}}
        first: float | None = None
        async for line in response.content:
            if line.startswith(b": x-quaestor-cost"):
                answer["cost"] = line.decode().removeprefix(": x-quaestor-cost").strip(" :=\r\n")
            elif line.startswith(b"data: [DONE]"):
                self.summary.first_chunks_seconds += [] if first is None else [first]
                return answer
            elif line.startswith(b"data: "):
                if first is None:
                    first = time.monotonic() - sent
                if b'"usage":{' in line or b'"usage": {' in line:
                    answer["usage"] = json.loads(line[6:]).get("usage") or {}
        raise ValueError("the stream ended before [DONE]")

    def _answered(self, call: Call, answer: dict[str, Any], seconds: float) -> None:
        usage = answer["usage"]
        self.summary.answered += 1
        self.summary.latencies_seconds.append(seconds)
        self.summary.input_tokens += usage.get("prompt_tokens", 0)
        self.summary.output_tokens += usage.get("completion_tokens", 0)
        if self._answers is not None:
            line = {"index": call.index, "request_id": answer["request_id"], "cost": answer["cost"], "usage": usage}
            self._answers.write(line)


def _retry_after_seconds(response: aiohttp.ClientResponse | None) -> float:
    try:
        return float(response.headers.get("Retry-After", "0.5")) if response is not None else 0.5
    except ValueError:
        return 0.5


def body_of(call: Call) -> bytes:
    """The JSON body of a call."""
    if call.embedding:
        body: dict[str, Any] = {"model": call.model, "input": prompt(call.input_tokens, call.index)}
    else:
        body = {
            "model": call.model,
            "messages": [{"role": "user", "content": prompt(call.input_tokens, call.index)}],
            "max_tokens": call.output_tokens,
        }
    if call.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if call.user:
        body["user"] = call.user
    return json.dumps(body).encode()
