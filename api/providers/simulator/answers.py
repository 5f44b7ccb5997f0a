"""Answers of a simulated provider as bytes: the same request and seed give the same bytes, ids and times included.

Everything is drawn from one digest of seed and body. Words have one length, so that a text of n words is one slice.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Iterator
from functools import lru_cache
from statistics import NormalDist

import msgspec

from api.providers.simulator.requests import ChatRequest, EmbeddingsRequest, Simulate, embedding_inputs, prompt_tokens
from api.providers.simulator.settings import SimulatorSettings

_WORDS = (
    "able acid aged also area army away baby back ball band bank base bath bear beat been beer bell belt "
    "best bill bird blow blue boat body bomb bond bone book boom born boss both bowl bulk burn bush busy "
    "call calm came camp card care case cash cast cell chat chip city club coal coat code cold come cook "
    "cool cope copy core cost crew crop dark data"
)
WORD_BYTES = 5
BLOCK_WORDS = 4_096
CREATED_BASE_SECONDS = 1_767_225_600
DIMENSIONS = 1_536
VECTORS = 16
VECTORS_CACHED_MAX = 256
MODEL_REASONING = "sim-reasoning"

_NORMAL = NormalDist()
_UNIFORM_SCALE = 2**32


def _block() -> str:
    """Words in an order that a fixed rule gives."""
    vocabulary, state, words = _WORDS.split(), 1, []
    for _ in range(BLOCK_WORDS):
        state = (state * 1_103_515_245 + 12_345) % 2**31
        words.append(vocabulary[(state >> 16) % len(vocabulary)])
    return " ".join(words) + " "


_BLOCK = _block()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a chat request gets, before it is written as bytes."""

    #: Hex digits that the id is made of.
    identity: str
    created: int
    #: The model's name as JSON text.
    model: str
    prompt_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    finish_reason: str
    choices: int
    #: Where in the block the text begins, words.
    start: int
    latency_milliseconds: float
    with_usage: bool = True


def digest_of(seed: int, body: bytes) -> bytes:
    """Thirty-two bytes from which everything about the answer to this body is drawn."""
    return hashlib.blake2b(body, digest_size=32, key=seed.to_bytes(8, "big", signed=True)).digest()


def answer_of(request: ChatRequest, digest: bytes, settings: SimulatorSettings, *, with_usage: bool = True) -> Answer:
    """The answer to a chat request."""
    simulate = request.simulate or Simulate()
    prompt = prompt_tokens(request.messages)
    cap = request.max_completion_tokens or request.max_tokens
    length = simulate.completion_tokens
    finish = "stop"
    if length is None:
        length = cap or _drawn_length(digest, settings)
        finish = "length" if cap else "stop"
    elif cap is not None and length > cap:
        length, finish = cap, "length"
    reasoning = simulate.reasoning_tokens
    if reasoning is None:
        reasoning = length * (digest[20] % 4) // 4 if request.model == MODEL_REASONING else 0
    cached = min(simulate.cached_tokens, prompt)
    return Answer(
        identity=digest[:12].hex(),
        created=CREATED_BASE_SECONDS + int.from_bytes(digest[12:15], "big"),
        model=msgspec.json.encode(request.model).decode(),
        prompt_tokens=prompt,
        cached_tokens=cached,
        cache_write_tokens=min(simulate.cache_write_tokens, prompt - cached),
        completion_tokens=length,
        reasoning_tokens=min(reasoning, length),
        finish_reason=finish,
        choices=request.n or 1,
        start=int.from_bytes(digest[16:20], "big") % BLOCK_WORDS,
        latency_milliseconds=latency_of(simulate, digest, settings),
        with_usage=with_usage,
    )


def latency_of(simulate: Simulate, digest: bytes, settings: SimulatorSettings) -> float:
    """Time to the first byte, milliseconds: the request's own, the constant, or drawn."""
    if simulate.latency_milliseconds is not None:
        return simulate.latency_milliseconds
    if settings.latency_distribution == "constant" or settings.latency_milliseconds <= 0:
        return settings.latency_milliseconds
    return _lognormal(settings.latency_milliseconds, settings.latency_sigma, digest[24:28])


def _drawn_length(digest: bytes, settings: SimulatorSettings) -> int:
    drawn = _lognormal(settings.completion_tokens_median, settings.completion_tokens_sigma, digest[28:32])
    return max(1, min(settings.completion_tokens_max, round(drawn)))


def _lognormal(median: float, sigma: float, random_bytes: bytes) -> float:
    uniform = (int.from_bytes(random_bytes, "big") + 0.5) / _UNIFORM_SCALE
    return median * math.exp(sigma * _NORMAL.inv_cdf(uniform))


def words(start: int, count: int) -> str:
    """So many words from a place in the block on, with one space between them."""
    begin = start * WORD_BYTES
    end = begin + count * WORD_BYTES
    text = _BLOCK if end <= len(_BLOCK) else _BLOCK * (end // len(_BLOCK) + 1)
    return text[begin : max(begin, end - 1)]


def usage_json(answer: Answer) -> str:
    """The usage object; the lengths of all choices add up."""
    completion = answer.completion_tokens * answer.choices
    written = f',"cache_write_tokens":{answer.cache_write_tokens}' if answer.cache_write_tokens else ""
    return (
        f'{{"prompt_tokens":{answer.prompt_tokens},"completion_tokens":{completion},'
        f'"total_tokens":{answer.prompt_tokens + completion},'
        f'"prompt_tokens_details":{{"cached_tokens":{answer.cached_tokens},"audio_tokens":0{written}}},'
        f'"completion_tokens_details":{{"reasoning_tokens":{answer.reasoning_tokens * answer.choices},"audio_tokens":0,'
        f'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}'
    )


def plain_body(answer: Answer) -> bytes:
    """A chat.completion object."""
    visible = answer.completion_tokens - answer.reasoning_tokens
    choices = ",".join(
        f'{{"index":{index},"message":{{"role":"assistant","content":"{words(answer.start + index, visible)}",'
        f'"refusal":null}},"logprobs":null,"finish_reason":"{answer.finish_reason}"}}'
        for index in range(answer.choices)
    )
    usage = f',"usage":{usage_json(answer)}' if answer.with_usage else ""
    return (
        f'{{"id":"chatcmpl-{answer.identity}","object":"chat.completion","created":{answer.created},'
        f'"model":{answer.model},"choices":[{choices}]{usage},"service_tier":"default","system_fingerprint":"fp_sim"}}'
    ).encode()


def stream_chunks(answer: Answer, chunk_tokens: int, *, include_usage: bool) -> Iterator[bytes]:
    """The events of a stream, [DONE] included: a role, the words, the finish reason, and the usage when asked for."""
    head = (
        f'data: {{"id":"chatcmpl-{answer.identity}","object":"chat.completion.chunk","created":{answer.created},'
        f'"model":{answer.model},"service_tier":"default","system_fingerprint":"fp_sim","choices":['
    )
    tail = '],"usage":null}\n\n' if include_usage else "]}\n\n"
    visible = answer.completion_tokens - answer.reasoning_tokens
    for index in range(answer.choices):
        before = f'{head}{{"index":{index},"delta":{{'
        after = f'}},"logprobs":null,"finish_reason":null}}{tail}'
        yield f'{before}"role":"assistant","content":"","refusal":null{after}'.encode()
        for offset in range(0, visible, chunk_tokens):
            text = words((answer.start + index + offset) % BLOCK_WORDS, min(chunk_tokens, visible - offset))
            space = " " if offset else ""
            yield f'{before}"content":"{space}{text}"{after}'.encode()
        yield f'{before}}},"logprobs":null,"finish_reason":"{answer.finish_reason}"}}{tail}'.encode()
    if include_usage and answer.with_usage:
        yield f'{head}],"usage":{usage_json(answer)}}}\n\n'.encode()
    yield b"data: [DONE]\n\n"


def embeddings_body(request: EmbeddingsRequest, digest: bytes, *, with_usage: bool) -> bytes:
    """A list of embeddings: unit vectors from a small fixed set, chosen by the digest."""
    tokens = embedding_inputs(request.input)
    dimensions = request.dimensions or DIMENSIONS
    as_base64 = request.encoding_format == "base64"
    vectors = [_vector((digest[0] + index) % VECTORS, dimensions, as_base64) for index in range(len(tokens))]
    data = ",".join(f'{{"object":"embedding","index":{i},"embedding":{vector}}}' for i, vector in enumerate(vectors))
    usage = f',"usage":{{"prompt_tokens":{sum(tokens)},"total_tokens":{sum(tokens)}}}' if with_usage else ""
    model = msgspec.json.encode(request.model).decode()
    return f'{{"object":"list","data":[{data}],"model":{model}{usage}}}'.encode()


@lru_cache(maxsize=VECTORS_CACHED_MAX)
def _vector(index: int, dimensions: int, as_base64: bool) -> str:
    """The JSON of a unit vector."""
    raw = [math.sin((index + 1) * (position + 1)) for position in range(dimensions)]
    length = math.sqrt(sum(value * value for value in raw)) or 1.0
    packed = struct.pack(f"<{dimensions}f", *(value / length for value in raw))
    if as_base64:
        return f'"{base64.b64encode(packed).decode()}"'
    return msgspec.json.encode(list(struct.unpack(f"<{dimensions}f", packed))).decode()


def error_body(message: str, kind: str, code: str | None, param: str | None = None) -> bytes:
    """OpenAI's error object."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})
