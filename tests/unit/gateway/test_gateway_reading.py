"""What providers say, read: usage under every name, errors without caller content, events of a stream, secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from api.providers.dialect import read_answer, read_chunk, read_error, read_usage
from api.providers.errors import SecretUnavailableError, UpstreamGarbageError
from api.providers.secrets import Secrets
from api.providers.sse import EventSplitter, data_of
from processors.pricing import Usage
from schemas.events import Operation
from schemas.limits import SSE_LINE_BYTES_MAX
from tests.support.gateway_answers import chat_body, chunk

NOT_UTF_8 = b'{"id":"\xff","choices":[]}'
USAGES: list[tuple[dict[str, Any], Usage | None]] = [
    ({"prompt_tokens": 5, "completion_tokens": 2}, Usage(input_tokens=5, output_tokens=2)),
    ({"prompt_tokens": 5}, Usage(input_tokens=5)),
    ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}}, Usage(input_tokens=5, cached_input_tokens=3)),
    ({"prompt_tokens": 5, "cache_read_input_tokens": 3}, Usage(input_tokens=5, cached_input_tokens=3)),
    ({"prompt_tokens": 5, "prompt_cache_hit_tokens": 3}, Usage(input_tokens=5, cached_input_tokens=3)),
    ({"prompt_tokens": 5, "cache_creation_input_tokens": 3}, Usage(input_tokens=5, cache_write_tokens=3)),
    (
        {"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}},
        Usage(input_tokens=5, output_tokens=9, reasoning_tokens=4),
    ),
    ({"prompt_tokens": -5}, Usage()),
    ({"prompt_tokens": "five"}, None),
    ({"prompt_tokens": 10_000_000, "completion_tokens": 10_000_000}, Usage(input_tokens=10**7, output_tokens=10**7)),
    ({"prompt_tokens": 10_000_001}, None),
    ({"prompt_tokens": 5, "completion_tokens": 2**64}, None),
    ({"prompt_tokens": 5, "cache_read_input_tokens": 2**64}, Usage(input_tokens=5, cached_input_tokens=5)),
    ({}, None),
]


@pytest.mark.parametrize(("given", "expected"), USAGES)
def test_usage_is_read_under_every_name(given: dict[str, Any], expected: Usage | None) -> None:
    """What can't be read, and what can't be, counts as missing, so that it is estimated."""
    assert expected == read_usage(json.dumps(given).encode())


@pytest.mark.parametrize("raw", [b"", b"null"])
def test_no_usage_is_none(raw: bytes) -> None:
    """Absent and null are the same."""
    assert read_usage(raw) is None


def test_fields_of_unexpected_types_count_as_missing() -> None:
    """A provider's odd usage does not spoil its answer."""
    reading = read_answer(Operation.CHAT_COMPLETIONS, chat_body(usage={"prompt_tokens": "many"}))

    assert (None, "stop") == (reading.usage, reading.finish_reason)


@pytest.mark.parametrize("given", ["bob@example.com said so", "x" * 65, "a\x00b"], ids=["words", "long", "control"])
def test_an_end_is_kept_as_a_safe_word_only(given: str) -> None:
    """Whatever else a provider puts there, the choice has ended."""
    end = data_of(chunk(finish=given)) or b""
    readings = [read_chunk(end), read_chunk(end[:-1] + b',"usage":5}')]

    assert [("other", 1)] * 2 == [(reading.finish_reason, reading.finished) for reading in readings]


@pytest.mark.parametrize(
    ("given", "kept"),
    [("chatcmpl-1", "chatcmpl-1"), ("é" * 300, "é" * 256), ("a\x00b", None), ("a\nb", None), (5, None)],
)
def test_an_id_is_short_and_printable(given: object, kept: str | None) -> None:
    """No store takes every character."""
    assert kept == read_answer(Operation.CHAT_COMPLETIONS, chat_body(id=given)).response_id


def test_content_as_a_list_is_no_garbage() -> None:
    """Some providers answer in parts."""
    choice = {"message": {"content": [{"type": "text", "text": "hi"}]}, "finish_reason": "stop"}
    reading = read_answer(Operation.CHAT_COMPLETIONS, json.dumps({"choices": [choice]}).encode())

    assert reading.written > 0


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b"<html>", b'{"choices":5}', b"[" * 100_000, NOT_UTF_8])
def test_what_is_no_answer_is_garbage(body: bytes) -> None:
    """Only an answer without its main part."""
    with pytest.raises(UpstreamGarbageError):
        read_answer(Operation.CHAT_COMPLETIONS, body)


@pytest.mark.parametrize("data", [b"<html>", b"[" * 100_000, NOT_UTF_8], ids=["no JSON", "deep", "no UTF-8"])
def test_what_is_no_chunk_is_garbage(data: bytes) -> None:
    """A text that is not UTF-8 too: its chunks before are charged, as with any other garbage."""
    with pytest.raises(UpstreamGarbageError):
        read_chunk(data)


def test_a_chunk_says_what_was_written() -> None:
    """Content of all choices."""
    assert (5, 0) == ((reading := read_chunk(data_of(chunk("hello")) or b"")).written, reading.finished)


@pytest.mark.parametrize("text", ["häßlich", "日本語", "🙂"], ids=["accents", "kanji", "emoji"])
def test_what_was_written_is_counted_in_bytes(text: str) -> None:
    """A token may be a part of a character: bytes are never fewer than tokens, characters may be."""
    assert read_chunk(data_of(chunk(text)) or b"").written == len(text.encode())


def test_the_old_call_of_a_function_counts_as_written() -> None:
    """It is output as well."""
    call = b'{"choices":[{"index":0,"delta":{"function_call":{"name":"f","arguments":"{}"}}}]}'
    assert read_chunk(call).written > 10


def test_tool_calls_count_as_written() -> None:
    """By their JSON."""
    call = b'{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{}"}}]}}]}'

    assert read_chunk(call).written > 10


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error":{"code":"bad_param","message":"words"}}', ("bad_param", True)),
        (b'{"error":{"code":null,"type":"some_type"}}', ("some_type", True)),
        (b'{"error":{"code":"has spaces and words"}}', ("error", True)),
        (b'{"error":"a text"}', ("error", False)),
        (b'{"detail":"x"}', (None, False)),
        (b"[]", (None, False)),
        (b"<html>", (None, False)),
        (NOT_UTF_8, (None, False)),
    ],
)
def test_an_error_gives_a_safe_word_only(body: bytes, expected: tuple[str | None, bool]) -> None:
    """A code that could hold a sentence is not one."""
    assert expected == read_error(body)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("size", [1, 3, 1_000])
def test_events_are_split_whatever_the_packets(end: bytes, size: int) -> None:
    """Three line ends, any cut."""
    whole = b"data: a" + end + b": comment" + end + b"data: b" + end
    splitter = EventSplitter()
    events = [event for at in range(0, len(whole), size) for event in splitter.feed(whole[at : at + size])]

    assert [b"a", None, b"b"] == [data_of(event) for event in events]


def test_an_event_of_several_lines_is_joined() -> None:
    """As the standard says; other fields are passed over."""
    assert b"a\nb" == data_of(b"event: x\ndata: a\ndata:b\nid: 1\n\n")


def test_an_endless_event_is_garbage() -> None:
    """Memory is bounded."""
    splitter = EventSplitter()

    with pytest.raises(UpstreamGarbageError):
        splitter.feed(b"x" * (SSE_LINE_BYTES_MAX + 1))


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name."""
    monkeypatch.setenv("SOME_KEY", " sk-abc\n")

    assert "sk-abc" == Secrets().resolve("env:SOME_KEY")


def test_a_changed_file_is_seen_after_a_while(tmp_path: Path) -> None:
    """Read again when the time kept is over, not before."""
    now, file = [0.0], tmp_path / "key"
    secrets = Secrets(30.0, lambda: now[0])
    file.write_text("first")
    before = secrets.resolve(f"file:{file}")
    file.write_text("second")
    kept = secrets.resolve(f"file:{file}")
    now[0] = 31.0

    assert ("first", "first", "second") == (before, kept, secrets.resolve(f"file:{file}"))


@pytest.mark.parametrize("reference", ["env:NOT_SET_ANYWHERE", "file:/no/such", "plain-secret-text"])
def test_a_secret_that_is_not_there_is_named_by_reference(reference: str) -> None:
    """Never by value."""
    with pytest.raises(SecretUnavailableError):
        Secrets().resolve(reference)


def test_a_secret_of_two_lines_is_refused(tmp_path: Path) -> None:
    """It would break the header it goes into; the message does not show it."""
    file = tmp_path / "key"
    file.write_text("sk-one\nsk-two")

    with pytest.raises(SecretUnavailableError) as caught:
        Secrets().resolve(f"file:{file}")
    assert "sk-" not in str(caught.value)


def test_no_secret_gives_none() -> None:
    """A provider that needs none."""
    secrets = Secrets()

    assert (None, "Secrets(0 kept)") == (secrets.resolve(None), repr(secrets))
