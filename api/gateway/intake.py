"""What a caller asks for, read from headers and body: types checked, nothing the provider may know taken away.

The body is read twice at msgspec's speed: once into the few fields that concern us, once as a table of raw values, so
that unknown fields and every number reach the provider as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated

import msgspec

from api.gateway.errors import Problem, invalid
from schemas.events import Operation
from schemas.ids import is_name
from schemas.limits import TAG_KEY_CHARACTERS_MAX, TAG_VALUE_CHARACTERS_MAX, TAGS_MAX, USER_ID_CHARACTERS_MAX

Positive = Annotated[int, msgspec.Meta(ge=1)]
ModelName = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
UserId = Annotated[str, msgspec.Meta(max_length=USER_ID_CHARACTERS_MAX)]

RUN_ID = b"x-quaestor-run-id"
TAGS = b"x-quaestor-tags"
TRACEPARENT = b"traceparent"
APPROVAL = b"x-quaestor-approval"
#: More choices than this are refused: every one multiplies the hold.
CHOICES_MAX = 128
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
#: Fields that ask for output of which a stream's text does not show all: reasoning, sound, predictions that failed.
UNSEEN_OUTPUT = frozenset({"audio", "modalities", "prediction", "reasoning", "reasoning_effort", "thinking"})
_INCLUDE_USAGE = msgspec.Raw(b'{"include_usage":true}')


class StreamOptions(msgspec.Struct):
    """What the caller wants of a stream."""

    include_usage: bool | None = None


class Message(msgspec.Struct):
    """One message, as far as it must be one."""

    role: str


class ChatBody(msgspec.Struct):
    """The fields of a chat request that concern us."""

    model: ModelName
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=CHOICES_MAX)] | None = None
    user: UserId | None = None
    metadata: dict[str, str] | None = None


class EmbeddingsBody(msgspec.Struct):
    """The fields of an embeddings request that concern us."""

    model: ModelName
    input: msgspec.Raw
    user: UserId | None = None
    metadata: dict[str, str] | None = None


class Ask(msgspec.Struct, frozen=True):
    """One request, understood."""

    operation: Operation
    #: Model or alias as the caller named it.
    model: str
    #: Every field of the body as it was written.
    fields: dict[str, msgspec.Raw]
    #: Whether a stream is wanted, and whether the caller wants the usage chunk of it.
    stream: bool = False
    wants_usage: bool = False
    #: Output tokens asked for at most, per choice; None when the caller set no bound.
    output_tokens: int | None = None
    choices: int = 1
    #: Whether it is a stream that only the model's own bound ends, and asks for nothing but text.
    open_ended: bool = False
    #: Size of what is to be read by the model, bytes of JSON: for estimates only.
    prompt_bytes: int = 0
    #: The end user as the caller names them: never to be logged or recorded.
    user: str | None = None
    #: Metadata of the body and tags of the header.
    tags: dict[str, str] = {}

    @property
    def prompt(self) -> bytes:
        """What is to be read by the model, as JSON: messages, or the input of embeddings."""
        return bytes(self.fields["input" if self.operation is Operation.EMBEDDINGS else "messages"])

    def body_for(self, model: str) -> bytes:
        """The body for a provider: its own name of the model, and usage asked for on streams."""
        fields = self.fields
        fields["model"] = msgspec.Raw(msgspec.json.encode(model))
        if self.stream:
            fields["stream_options"] = self._stream_options()
        return msgspec.json.encode(fields)

    def _stream_options(self) -> msgspec.Raw:
        given = self.fields.get("stream_options")
        if given is None or self.wants_usage or bytes(given).strip() == b"null":
            return given if self.wants_usage and given is not None else _INCLUDE_USAGE
        options = msgspec.json.decode(given, type=dict[str, msgspec.Raw])
        options["include_usage"] = msgspec.Raw(b"true")
        return msgspec.Raw(msgspec.json.encode(options))


class Labels(msgspec.Struct, frozen=True):
    """What the caller's headers add."""

    run_id: str | None = None
    tags: dict[str, str] = {}
    traceparent: bytes | None = None
    #: SHA-256 of the approval code, hex: the code itself goes no further.
    approval_hash: str | None = None


_chat = msgspec.json.Decoder(ChatBody)
_embeddings = msgspec.json.Decoder(EmbeddingsBody)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
NO_LABELS = Labels()


def read_labels(headers: Mapping[bytes, bytes]) -> Labels | Problem:
    """Run id, tags and trace of a request; a Problem names the header that is wrong."""
    run, tags, trace, code = (headers.get(name) for name in (RUN_ID, TAGS, TRACEPARENT, APPROVAL))
    if run is None and tags is None and trace is None and code is None:
        return NO_LABELS
    run_id = None if run is None else run.decode("latin-1")
    if run_id is not None and not is_name(run_id):
        return invalid("x-quaestor-run-id must be 1 to 128 letters, digits, '_', '.', ':' or '-'.", "x-quaestor-run-id")
    parsed = _parse_tags(tags) if tags is not None else {}
    if isinstance(parsed, Problem):
        return parsed
    trace = trace if trace is not None and _TRACEPARENT.fullmatch(trace) else None
    return Labels(run_id, parsed, trace, None if code is None else sha256(code.strip()).hexdigest())


def _parse_tags(text: bytes) -> dict[str, str] | Problem:
    """k=v,k2=v2; what is too long or too much is refused rather than cut."""
    tags = {}
    for pair in text.decode("utf-8", "replace").split(","):
        key, equals, value = pair.strip().partition("=")
        if not key and not equals:
            continue
        if not equals or not key:
            return invalid("x-quaestor-tags must read k=v,k2=v2.", "x-quaestor-tags")
        tags[key.strip()] = value.strip()
    return _bounded(tags, "x-quaestor-tags") or tags


def _bounded(tags: Mapping[str, str], where: str) -> Problem | None:
    if len(tags) > TAGS_MAX:
        return invalid(f"{where} holds more than {TAGS_MAX} entries.", where)
    if any(len(key) > TAG_KEY_CHARACTERS_MAX for key in tags):
        return invalid(f"A key in {where} is over {TAG_KEY_CHARACTERS_MAX} characters.", where)
    if any(len(value) > 2 * TAG_VALUE_CHARACTERS_MAX for value in tags.values()):
        return invalid(f"A value in {where} is over {2 * TAG_VALUE_CHARACTERS_MAX} characters.", where)
    return None


def read_ask(operation: Operation, body: bytes, labels: Labels = NO_LABELS) -> Ask | Problem:
    """The request in a body, or what is wrong with it."""
    try:
        if not body.isascii():
            body.decode("utf-8")
        fields = _fields.decode(body)
        if operation is Operation.EMBEDDINGS:
            return _embeddings_ask(_embeddings.decode(body), fields, labels)
        return _chat_ask(_chat.decode(body), fields, labels)
    except UnicodeDecodeError:
        return invalid("The request body is not valid UTF-8.", code="invalid_utf8")
    except msgspec.ValidationError as error:
        return _wrong_type(str(error))
    except (msgspec.DecodeError, RecursionError):
        return invalid("The request body is not valid JSON.", code="invalid_json")


def _wrong_type(message: str) -> Problem:
    """The decoder says what was expected and where (`... - at `$.messages[0]``), never what was given."""
    said, _, place = message.partition(" - at `$")
    where = place.strip("`.").partition(".")[0].partition("[")[0] or None
    if said.startswith("Object missing required field"):
        where = said.split("`")[1]
    return invalid(f"Invalid value: {said}" + (f" ({where})." if where else "."), where)


def _tags_of(metadata: dict[str, str] | None, labels: Labels) -> dict[str, str] | Problem:
    """Metadata of the body beside the header's tags, which win."""
    if not metadata:
        return labels.tags
    return _bounded(metadata, "metadata") or {**metadata, **labels.tags}


def _chat_ask(chat: ChatBody, fields: dict[str, msgspec.Raw], labels: Labels) -> Ask | Problem:
    tags = _tags_of(chat.metadata, labels)
    if isinstance(tags, Problem):
        return tags
    # Both reach the provider, and nobody here knows which of them it goes by.
    asked = max((one for one in (chat.max_completion_tokens, chat.max_tokens) if one is not None), default=None)
    return Ask(
        Operation.CHAT_COMPLETIONS,
        chat.model,
        fields,
        stream=bool(chat.stream),
        wants_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        output_tokens=asked,
        choices=chat.n or 1,
        open_ended=asked is None and chat.stream is True and UNSEEN_OUTPUT.isdisjoint(fields),
        prompt_bytes=len(bytes(fields["messages"])),
        user=chat.user or None,
        tags=tags,
    )


def _embeddings_ask(embeddings: EmbeddingsBody, fields: dict[str, msgspec.Raw], labels: Labels) -> Ask | Problem:
    given = bytes(embeddings.input)
    if given[:1] not in {b'"', b"["} or given in {b'""', b"[]"}:
        return invalid("'input' must be a text, or a list of texts or tokens.", "input")
    tags = _tags_of(embeddings.metadata, labels)
    if isinstance(tags, Problem):
        return tags
    return Ask(
        Operation.EMBEDDINGS,
        embeddings.model,
        fields,
        prompt_bytes=len(given),
        user=embeddings.user or None,
        tags=tags,
    )
