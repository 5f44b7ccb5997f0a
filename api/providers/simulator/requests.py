"""Requests as a simulated provider reads them, and its tokenizer: a token is a word between white space."""

from __future__ import annotations

from typing import Any

import msgspec

from api.providers.simulator.failures import Failure

COMPLETION_TOKENS_MAX = 200_000
CHOICES_MAX = 16
DIMENSIONS_MAX = 4_096
INPUTS_MAX = 2_048
WAIT_MILLISECONDS_MAX = 600_000


class Simulate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The field `simulate` of a request body: how this one call is to go."""

    #: Length of the answer, reasoning included.
    completion_tokens: int | None = None
    #: Part of the prompt reported as read from a cache.
    cached_tokens: int = 0
    #: Part of the prompt reported as written to a cache.
    cache_write_tokens: int = 0
    #: Part of the answer reported as reasoning; it has no text.
    reasoning_tokens: int | None = None
    #: Time to the first byte.
    latency_milliseconds: float | None = None
    #: Time between chunks of a stream.
    chunk_milliseconds: float | None = None
    #: Words in one chunk of a stream.
    chunk_tokens: int | None = None
    #: How the call fails.
    fail: Failure | None = None
    #: How often it fails so before it succeeds. None: always.
    fail_times: int | None = None


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation."""

    #: Text, parts with text, or null.
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream carries."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A chat completion asked for; other fields are taken and ignored."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    simulate: Simulate | None = None


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Embeddings asked for."""

    model: str
    input: str | list[str | int | list[int]]
    dimensions: int | None = None
    encoding_format: str | None = None
    simulate: Simulate | None = None


def prompt_tokens(messages: list[Message]) -> int:
    """The words of all messages."""
    total = 0
    for message in messages:
        content = message.content
        if isinstance(content, str):
            total += len(content.split())
        elif content:
            total += sum(len(str(part.get("text", "")).split()) for part in content)
    return total


def embedding_inputs(value: str | list[str | int | list[int]]) -> list[int]:
    """Tokens of each input: words of texts, lengths of token lists; a flat list of numbers is one input."""
    if isinstance(value, str):
        return [len(value.split())]
    if value and isinstance(value[0], int):
        return [len(value)]
    return [len(one.split()) if isinstance(one, str) else len(one) for one in value if not isinstance(one, int)]


def fault(request: ChatRequest | EmbeddingsRequest) -> str | None:
    """What is wrong with the numbers of a request, None when they are fine."""
    simulate = request.simulate or Simulate()
    waits = _out(
        "simulate.latency_milliseconds", simulate.latency_milliseconds, WAIT_MILLISECONDS_MAX, least=0
    ) or _out("simulate.chunk_milliseconds", simulate.chunk_milliseconds, WAIT_MILLISECONDS_MAX, least=0)
    if isinstance(request, EmbeddingsRequest):
        inputs = _out("the number of inputs", len(embedding_inputs(request.input)), INPUTS_MAX)
        return waits or inputs or _out("dimensions", request.dimensions, DIMENSIONS_MAX)
    return (
        waits
        or ("messages must not be empty" if not request.messages else None)
        or _out("max_tokens", request.max_tokens, COMPLETION_TOKENS_MAX)
        or _out("max_completion_tokens", request.max_completion_tokens, COMPLETION_TOKENS_MAX)
        or _out("n", request.n, CHOICES_MAX)
        or _out("simulate.completion_tokens", simulate.completion_tokens, COMPLETION_TOKENS_MAX, least=0)
        or _out("simulate.chunk_tokens", simulate.chunk_tokens, COMPLETION_TOKENS_MAX)
    )


def _out(name: str, value: float | None, most: int, least: int = 1) -> str | None:
    return None if value is None or least <= value <= most else f"{name} must be from {least} to {most}"
