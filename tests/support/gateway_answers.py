"""What providers say in tests of the gateway: whole answers, streams, errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from api.providers.errors import UpstreamError, UpstreamTruncatedError
from api.providers.memory import MemoryAnswer

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


def chat_body(usage: dict[str, Any] | None = USAGE, content: str = "hi there", **fields: Any) -> bytes:
    """A completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return json.dumps(body | ({"usage": usage} if usage is not None else {}) | fields).encode()


def chat_answer(**fields: Any) -> MemoryAnswer:
    """A completion as an answer."""
    return MemoryAnswer(200, [chat_body(**fields)], JSON)


def embeddings_answer(usage: dict[str, Any] | None = None) -> MemoryAnswer:
    """Embeddings."""
    body = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "m"}
    given = usage or {"prompt_tokens": 7, "total_tokens": 7}
    return MemoryAnswer(200, [json.dumps(body | {"usage": given}).encode()], JSON)


def error_answer(status: int, code: str = "oops", message: str = "secret words", **headers: str) -> MemoryAnswer:
    """An error in OpenAI's shape."""
    body = {"error": {"message": message, "type": "some_error", "param": None, "code": code}}
    return MemoryAnswer(status, [json.dumps(body).encode()], JSON | headers)


def chunk(content: str | None = None, finish: str | None = None, **fields: Any) -> bytes:
    """One event of a stream."""
    delta = {"content": content} if content is not None else {}
    choice = {"index": fields.pop("index", 0), "delta": delta, "finish_reason": finish}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(body | fields).encode() + b"\n\n"


def usage_chunk(usage: dict[str, Any] | None = None) -> bytes:
    """The chunk that only reports usage."""
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
    return b"data: " + json.dumps(body | {"usage": usage or USAGE}).encode() + b"\n\n"


def stream_answer(*pieces: bytes | UpstreamError) -> MemoryAnswer:
    """A stream."""
    return MemoryAnswer(200, pieces, EVENTS)


def whole_stream() -> MemoryAnswer:
    """Three words, the end, the usage."""
    return stream_answer(chunk("one "), chunk("two "), chunk("three"), chunk(finish="stop"), usage_chunk(), DONE)


class SlowAnswer(MemoryAnswer):
    """A stream that waits for a sign before each piece, and ends when it is aborted."""

    def __init__(self, *pieces: bytes) -> None:
        """Nothing comes before the first sign."""
        super().__init__(200, pieces)
        self.go = asyncio.Semaphore(0)

    async def some(self) -> bytes:
        """As the seam says."""
        await self.go.acquire()
        if self.aborted:
            raise UpstreamTruncatedError
        return await super().some()

    def abort(self) -> None:
        """As the seam says."""
        super().abort()
        self.go.release()
