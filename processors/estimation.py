"""Token counts: the bound a hold needs, and the estimate used when a provider reports no usage.

The bound by bytes: a token of text stands for at least one byte of it, and the JSON text of a request is never shorter
than the text it carries (an escape is longer than what it means; a message's frame of a few tokens is longer in JSON).
So the bytes of the body bound the tokens of its text. Media given by reference cost tokens that no byte shows: a
picture or inline sound counts as MEDIA_TOKENS_BOUND, above what the list of current models takes for the largest
picture. A file, a video or sound by reference may be as long as it likes, so it counts as all that the model reads: its
context, or CONTEXT_TOKENS_BOUND where nobody knows that. Media are found by the spelling of their types, escapes
included, wherever they stand but in definitions of tools and formats, which carry none.

The same holds for what a model writes, where all of it shows as text: the bytes of a stream's text bound its tokens,
but for a few marks around each choice (STREAM_MARK_TOKENS). What a model thinks out of sight has no bytes to count.

The bound by tokens, where a model's encoding is known: the same, but texts that the model reads as they are count what
a tokenizer says. Frames, tools and whatever else stands in the body go on counting by their bytes, which are more than
the three or four tokens that a message's frame takes.

The estimate: four bytes make a token, rounded up; texts that were counted count as that. It is marked as one wherever
it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from schemas.events import Operation
from schemas.limits import COUNTED_BYTES_MAX, STREAM_MARK_TOKENS

BYTES_PER_TOKEN_ESTIMATED = 4
MEDIA_TOKENS_BOUND = 48_000
#: Twice the largest context of the bundled price book.
CONTEXT_TOKENS_BOUND = 2_097_152
#: Types of content parts that carry a picture or inline sound.
MEDIA_PARTS = ("image_url", "input_image", "input_audio")
#: Types and names of what carries media of any length.
ENDLESS_MEDIA_PARTS = (
    *("file", "file_id", "input_file", "document_url"),
    *("video", "video_url", "input_video", "audio_url"),
)
#: One of these stands in every body that names one of the above: a quick look spares most requests the search. The last
#: begins an escape of ASCII.
MEDIA_MARKS = (b'_url"', b'"input_', b'file"', b'"file_id"', b'"video"', b"\\u00")
#: Fields of a body that hold no media, and names that callers choose.
DEFINITIONS = frozenset({"functions", "response_format", "tools"})


class Texts(NamedTuple):
    """Texts of a request that the model reads as they are."""

    texts: list[str]
    #: What they take of the body, bytes of JSON without their quotes: never less than their tokens.
    json_bytes: int


class Counted(NamedTuple):
    """What a tokenizer said of some texts of a request."""

    tokens: int
    #: As in Texts.
    json_bytes: int


class _Part(msgspec.Struct):
    type: str = ""
    text: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct):
    content: msgspec.Raw = msgspec.Raw()


_messages = msgspec.json.Decoder(list[_Message])
_parts = msgspec.json.Decoder(list[_Part])
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _spelled(words: tuple[str, ...]) -> re.Pattern[bytes]:
    """Any of the words as a JSON string, however it is written."""
    return re.compile(f'"(?:{"|".join("".join(map(_letter, word)) for word in words)})"'.encode())


def _letter(letter: str) -> str:
    return rf"(?:{letter}|(?i:\\u{ord(letter):04x}))"


_MEDIA, _ENDLESS_MEDIA = _spelled(MEDIA_PARTS), _spelled(ENDLESS_MEDIA_PARTS)


def texts_of(operation: Operation, prompt: bytes) -> Texts:
    """The texts in `messages` or `input`, given as JSON, up to COUNTED_BYTES_MAX; other shapes are left out."""
    texts, json_bytes = [], 0
    try:
        for raw in _prompt_texts(operation, prompt):
            if json_bytes + len(raw) > COUNTED_BYTES_MAX:
                break
            texts.append(_text.decode(raw))
            json_bytes += len(raw) - 2
    except msgspec.MsgspecError:
        return Texts(texts, json_bytes)
    return Texts(texts, json_bytes)


def _prompt_texts(operation: Operation, prompt: bytes) -> Iterator[bytes]:
    """JSON of each text; raises MsgspecError where the shape is another."""
    if operation is Operation.EMBEDDINGS:
        given = [prompt] if prompt[:1] == b'"' else [bytes(raw) for raw in _raws.decode(prompt)]
        yield from (raw for raw in given if raw[:1] == b'"')
        return
    for message in _messages.decode(prompt):
        content = bytes(message.content)
        if content[:1] == b'"':
            yield content
        elif content[:1] == b"[":
            yield from (bytes(part.text) for part in _parts.decode(content) if part.type == "text" and part.text)


NOTHING_COUNTED = Counted(0, 0)


def input_tokens_bound(body: bytes, context_tokens: int | None = None, counted: Counted = NOTHING_COUNTED) -> int:
    """At least as many input tokens as any provider counts for this request body; never above the model's context."""
    bound = len(body) - counted.json_bytes + counted.tokens
    if any(mark in body for mark in MEDIA_MARKS):
        bound += _media_tokens_bound(_without_definitions(body))
    return bound if context_tokens is None else min(bound, context_tokens)


def _media_tokens_bound(body: bytes) -> int:
    if _ENDLESS_MEDIA.search(body):
        return CONTEXT_TOKENS_BOUND
    return MEDIA_TOKENS_BOUND * sum(1 for _ in _MEDIA.finditer(body))


def _without_definitions(body: bytes) -> bytes:
    try:
        fields = _fields.decode(body)
    except msgspec.MsgspecError:
        return body
    return b",".join(bytes(value) for name, value in fields.items() if name not in DEFINITIONS)


def output_tokens_bound(asked: int | None, choices: int, model_max: int | None, default: int) -> int:
    """At least as many output tokens as the answer may have, all choices together.

    What the caller asked for bounds it; else the most the model gives, else the default. A caller may ask for more than
    the model gives, so the smaller of both counts.
    """
    if asked is None:
        return (model_max or default) * choices
    return (asked if model_max is None else min(asked, model_max)) * choices


class OutputHold(NamedTuple):
    """Output tokens that an attempt is held for, all choices together."""

    #: So many now.
    tokens: int
    #: The most that may come; None when nobody knows.
    tokens_max: int | None
    #: What the hold grows by.
    step_tokens: int = 0
    choices: int = 1

    @property
    def grows(self) -> bool:
        """Whether more may come than is held for."""
        return self.step_tokens > 0 and (self.tokens_max is None or self.tokens < self.tokens_max)

    @property
    def text_bytes(self) -> int | None:
        """So many bytes of text it covers; None when it covers whatever may come."""
        return self.tokens - STREAM_MARK_TOKENS * self.choices if self.grows else None

    def covering(self, text_bytes: int) -> OutputHold:
        """The hold grown by as many steps as cover this much text, at least by one."""
        lacking = text_bytes + STREAM_MARK_TOKENS * self.choices - self.tokens
        tokens = self.tokens + self.step_tokens * max(1, -(-lacking // self.step_tokens))
        return self._replace(tokens=tokens if self.tokens_max is None else min(tokens, self.tokens_max))


def output_in_steps(step: int, choices: int, model_max: int | None) -> OutputHold:
    """The first step of an answer that shows every token and has no bound but the model's, `step` tokens per choice."""
    tokens_max = None if model_max is None else model_max * choices
    first = step * choices
    return OutputHold(first if tokens_max is None else min(first, tokens_max), tokens_max, first, choices)


def tokens_estimated(text_bytes: int, counted: Counted = NOTHING_COUNTED) -> int:
    """About as many tokens as a text of this many bytes has, rounded up; `counted` is what is known of parts of it."""
    return counted.tokens - (counted.json_bytes - text_bytes) // BYTES_PER_TOKEN_ESTIMATED
