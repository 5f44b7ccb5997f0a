"""What OpenAI-compatible answers say: usage, ends, ids, errors. Reads as little as needed, at msgspec's speed.

Providers differ in what they leave out or add; whatever is of an unexpected type is taken as missing, and only an
answer without its main part (choices, or data) is garbage.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from api.providers.errors import UpstreamGarbageError
from processors.pricing import Usage, UsageFinding, checked_usage
from schemas.events import Operation
from schemas.limits import CALL_TOKENS_MAX

_SAFE_WORD = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_NULL = b"null"
ID_CHARACTERS_MAX = 256
#: What stands for a finish_reason that is no safe word: events keep no sentences of a provider's.
OTHER = "other"
#: What msgspec raises on bytes that are no JSON: of a text that is not UTF-8 it says so with Python's own error.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_creation_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _UsageBody(msgspec.Struct):
    """Usage as OpenAI writes it, and the names that others use for the same."""

    prompt_tokens: int
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Text(msgspec.Struct):
    """A message or a delta: the parts that a model wrote."""

    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()
    function_call: msgspec.Raw = msgspec.Raw()

    def size(self) -> int:
        """Bytes written, calls of tools by their JSON."""
        size = _bytes(self.content) if self.content else 0
        if self.reasoning_content:
            size += _bytes(self.reasoning_content)
        if self.refusal:
            size += _bytes(self.refusal)
        if self.function_call:
            size += len(bytes(self.function_call))
        return size + (len(bytes(self.tool_calls)) if self.tool_calls else 0)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class _Choice(msgspec.Struct):
    delta: _Text | None = None
    message: _Text | None = None
    finish_reason: str | None = None


class _End(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None


class _Ends(msgspec.Struct):
    choices: list[_End]


class _ChatAnswer(msgspec.Struct):
    """A completion, or a chunk of one."""

    choices: list[_Choice] | None = None
    id: Any = None
    usage: _UsageBody | None = None
    error: Any = None


class _EmbeddingsAnswer(msgspec.Struct):
    data: list[msgspec.Raw]
    usage: msgspec.Raw = msgspec.Raw()


class Reading(msgspec.Struct):
    """What a whole answer, or one chunk of a stream, says."""

    #: Provider's id of the answer; None when it is missing or not printable.
    response_id: str | None = None
    #: Usage as reported; None when it is missing, can't be read or can't be.
    usage: Usage | None = None
    #: Whether it reports usage at all, be it such as counts as missing.
    reports_usage: bool = False
    #: finish_reason of the first choice that has one, as a safe word.
    finish_reason: str | None = None
    #: Choices that finished in it.
    finished: int = 0
    #: Whether it has no choices: a chunk that only reports.
    bare: bool = False
    #: Bytes of text the model wrote in it, never fewer than its visible tokens.
    written: int = 0
    #: A safe word for the provider's error; None when there is none.
    error: str | None = None


_NO_DETAILS = _InputDetails()
#: Stands for usage that can't be read: it counts as missing, too.
_UNREADABLE_USAGE = _UsageBody(prompt_tokens=CALL_TOKENS_MAX + 1)
_usage = msgspec.json.Decoder(_UsageBody)
_chat = msgspec.json.Decoder(_ChatAnswer)
_embeddings = msgspec.json.Decoder(_EmbeddingsAnswer)


def read_usage(raw: bytes) -> Usage | None:
    """Usage as reported, its parts made to fit their totals; None when there is none, or none that can be."""
    if not raw or raw == _NULL:
        return None
    try:
        return _usage_of(_usage.decode(raw))
    except _UNREADABLE:
        return None


def _usage_of(body: _UsageBody) -> Usage | None:
    details = body.prompt_tokens_details or _NO_DETAILS
    output = body.completion_tokens_details
    usage = Usage(
        input_tokens=body.prompt_tokens,
        cached_input_tokens=_first(details.cached_tokens, body.cache_read_input_tokens, body.prompt_cache_hit_tokens),
        cache_write_tokens=_first(
            details.cache_write_tokens, details.cache_creation_tokens, body.cache_creation_input_tokens
        ),
        output_tokens=body.completion_tokens or 0,
        reasoning_tokens=(output.reasoning_tokens or 0) if output else 0,
    )
    checked, findings = checked_usage(usage)
    return None if UsageFinding.BEYOND_LIMIT in findings else checked


def _first(*counts: int | None) -> int:
    return next((count for count in counts if count is not None), 0)


def read_answer(operation: Operation, body: bytes) -> Reading:
    """What a whole answer says; raises UpstreamGarbageError when it is none."""
    try:
        if operation is Operation.EMBEDDINGS:
            embeddings = _embeddings.decode(body)
            return Reading(usage=read_usage(bytes(embeddings.usage)))
        chat = _decode_chat(body)
    except _UNREADABLE as error:
        raise UpstreamGarbageError("the answer is not the JSON it should be") from error
    if chat.choices is None:
        raise UpstreamGarbageError("the answer has no choices")
    return _reading(chat, [choice.message for choice in chat.choices])


def read_chunk(data: bytes) -> Reading:
    """What one chunk of a stream says; raises UpstreamGarbageError when it is none."""
    try:
        chunk = _decode_chat(data)
    except _UNREADABLE as error:
        raise UpstreamGarbageError("a chunk of the stream is not the JSON it should be") from error
    return _reading(chunk, [choice.delta for choice in chunk.choices or ()])


def finished_choices(data: bytes) -> list[int]:
    """The indexes of the choices that end in a chunk; none where it can't be read."""
    try:
        choices = msgspec.json.decode(data, type=_Ends).choices
    except _UNREADABLE:
        return []
    return [choice.index for choice in choices if choice.finish_reason]


def _decode_chat(data: bytes) -> _ChatAnswer:
    """Strict and fast; where a field has an unexpected type, again without what has one. Raises _UNREADABLE."""
    try:
        return _chat.decode(data)
    except msgspec.ValidationError:
        fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    choices = None
    if bytes(fields.get("choices", b""))[:1] == b"[":
        choices = [_lenient_choice(choice) for choice in msgspec.json.decode(fields["choices"])]
    raw = fields.get("usage", _NULL)
    try:
        usage = None if bytes(raw) == _NULL else _usage.decode(raw)
    except _UNREADABLE:
        usage = _UNREADABLE_USAGE
    return _ChatAnswer(choices, None, usage, msgspec.json.decode(fields.get("error", _NULL)))


def _lenient_choice(choice: Any) -> _Choice:
    if not isinstance(choice, dict):
        return _Choice()
    reason = choice.get("finish_reason")
    texts = [_Text(content=str(text)) if (text := choice.get(name)) else None for name in ("delta", "message")]
    return _Choice(texts[0], texts[1], reason if isinstance(reason, str) else None)


def _reading(answer: _ChatAnswer, texts: Sequence[_Text | None]) -> Reading:
    reading = Reading(bare=not answer.choices)
    for choice in answer.choices or ():
        if choice.finish_reason:
            reading.finish_reason = reading.finish_reason or _ending(choice.finish_reason)
            reading.finished += 1
    for text in texts:
        if text is not None:
            reading.written += text.size()
    if isinstance(answer.id, str) and answer.id.isprintable():
        reading.response_id = answer.id[:ID_CHARACTERS_MAX]
    if answer.usage is not None:
        reading.usage, reading.reports_usage = _usage_of(answer.usage), True
    if answer.error is not None:
        reading.error = _error_word(answer.error)
    return reading


def _ending(finish_reason: str) -> str:
    return finish_reason if _SAFE_WORD.fullmatch(finish_reason) else OTHER


def _error_word(error: Any) -> str:
    """The provider's own word for an error, where it is one that can hold nothing of the caller's."""
    if isinstance(error, dict):
        for name in ("code", "type"):
            word = error.get(name)
            if isinstance(word, str) and _SAFE_WORD.fullmatch(word):
                return word
    return "error"


def read_error(body: bytes) -> tuple[str | None, bool]:
    """The safe word of an error body, and whether the body has OpenAI's shape, so that it may be passed through."""
    try:
        answer = msgspec.json.decode(body)
    except _UNREADABLE:
        return None, False
    error = answer.get("error") if isinstance(answer, dict) else None
    return (None, False) if error is None else (_error_word(error), isinstance(error, dict))
