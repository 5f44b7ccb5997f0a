"""Which texts of a request are counted, what bounds the rest, and in which encoding models count."""

from __future__ import annotations

import json
from typing import Any

import pytest

from processors.encodings import CL100K, O200K, encoding_of
from processors.estimation import Counted, input_tokens_bound, texts_of, tokens_estimated
from schemas.events import Operation
from schemas.limits import COUNTED_BYTES_MAX

CHAT, EMBEDDINGS = Operation.CHAT_COMPLETIONS, Operation.EMBEDDINGS
IMAGE = {"type": "image_url", "image_url": {"url": "data:xyz"}}


def said(content: Any, **fields: Any) -> bytes:
    """Messages with one of the user's."""
    return json.dumps([{"role": "user", "content": content, **fields}]).encode()


CASES: list[tuple[str, Operation, bytes, list[str]]] = [
    ("a text", CHAT, said("hello"), ["hello"]),
    ("escaped", CHAT, said("é\n"), ["é\n"]),
    ("parts", CHAT, said([{"type": "text", "text": "one"}, IMAGE, {"type": "text", "text": "two"}]), ["one", "two"]),
    ("a part of another kind", CHAT, said([{"type": "refusal", "text": "no"}]), []),
    ("nothing", CHAT, said(None, tool_calls=[{"id": "a"}]), []),
    ("a number", CHAT, said(7), []),
    ("a text part that is none", CHAT, said([{"type": "text", "text": 7}]), []),
    ("half a surrogate pair", CHAT, b'[{"content":"good"},{"content":"\\ud800"}]', []),
    ("one input", EMBEDDINGS, b'"hello"', ["hello"]),
    ("inputs", EMBEDDINGS, b'["one", "two"]', ["one", "two"]),
    ("tokens", EMBEDDINGS, b"[1, 2, 3]", []),
]


@pytest.mark.parametrize(("_name", "operation", "prompt", "texts"), CASES, ids=[name for name, *_ in CASES])
def test_texts_are_found_where_a_model_reads_them(
    _name: str, operation: Operation, prompt: bytes, texts: list[str]
) -> None:
    """And nowhere else; what they take of the body is never less than their own bytes."""
    found = texts_of(operation, prompt)

    assert texts == found.texts
    assert sum(len(text.encode()) for text in texts) <= found.json_bytes <= len(prompt)


def test_texts_end_at_a_limit() -> None:
    """What is beyond it goes on counting by its bytes."""
    found = texts_of(CHAT, b"[" + b",".join(said("x" * 100_000)[1:-1] for _ in range(5)) + b"]")

    assert [100_000, 100_000] == [len(text) for text in found.texts]
    assert found.json_bytes <= COUNTED_BYTES_MAX


def test_counted_texts_take_the_place_of_their_bytes() -> None:
    """In the bound, never above the context; and in the estimate."""
    assert 100 - 80 + 20 == input_tokens_bound(b"x" * 100, None, Counted(20, 80))
    assert 30 == input_tokens_bound(b"x" * 100, 30, Counted(20, 80))
    assert 20 + 3 == tokens_estimated(90, Counted(20, 80))


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o-mini", O200K),
        ("openai/gpt-4o", O200K),
        ("gpt-4.1-nano-2025-04-14", O200K),
        ("ft:gpt-4.1-mini-2025-04-14:acme::id", O200K),
        ("gpt-5.1", O200K),
        ("o3-mini", O200K),
        ("gpt-4-0613", CL100K),
        ("gpt-3.5-turbo-16k", CL100K),
        ("text-embedding-3-large", CL100K),
        ("gpt-4o-search-preview", None),
        ("gpt-4o-audio-preview", None),
        ("gpt-oss-20b", None),
        ("o5", None),
        ("acme/gpt-4o", None),
        ("sim-small", None),
        ("", None),
    ],
)
def test_models_have_the_encoding_of_their_family(model: str, encoding: str | None) -> None:
    """Unknown ones have none, nor those that read more than the request's text."""
    assert encoding == encoding_of(model)
