"""What pictures, sound, files and videos in a request are held for: no byte of it says what they take."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from processors.estimation import (
    CONTEXT_TOKENS_BOUND,
    ENDLESS_MEDIA_PARTS,
    MEDIA_PARTS,
    MEDIA_TOKENS_BOUND,
    input_tokens_bound,
)
from processors.pricing.bundle import read_bundle

CONTEXT = 300_000
BUNDLE = files("processors.pricing").joinpath("data/prices.json").read_text()


def escaped(text: str, letter: str) -> str:
    """JSON of a text in which one letter is an escape."""
    return json.dumps(text).replace(letter, f"\\u{ord(letter):04X}", 1)


def said(part: str) -> bytes:
    """A chat with this part, given as JSON."""
    return b'{"messages":[{"role":"user","content":[%b]}]}' % part.encode()


def held_for(body: bytes, context: int | None = None) -> int:
    """Tokens beyond those of its bytes."""
    return input_tokens_bound(body, context) - len(body)


@pytest.mark.parametrize("kind", MEDIA_PARTS)
def test_every_picture_is_held_for(kind: str) -> None:
    """Above what the largest takes."""
    assert MEDIA_TOKENS_BOUND == held_for(said(json.dumps({"type": kind})))


@pytest.mark.parametrize("kind", ENDLESS_MEDIA_PARTS)
def test_what_may_be_of_any_length_is_held_for_the_models_context(kind: str) -> None:
    """Or for more than any context where nobody knows it."""
    body = said(json.dumps({"type": kind}))

    assert CONTEXT == input_tokens_bound(body, CONTEXT)
    assert CONTEXT_TOKENS_BOUND == held_for(body)


@pytest.mark.parametrize("kind", [*MEDIA_PARTS, *ENDLESS_MEDIA_PARTS])
def test_an_escape_hides_no_media(kind: str) -> None:
    """Any letter of any type may be written as one."""
    plain = held_for(said(json.dumps({"type": kind})))

    for letter in set(kind):
        assert plain == held_for(said(f'{{"type":{escaped(kind, letter)}}}')), letter
    all_letters = "".join(f"\\u{ord(each):04x}" for each in kind)
    assert plain == held_for(said(f'{{"type":"{all_letters}"}}'))


def test_a_file_by_its_id_is_held_for_the_models_context() -> None:
    """However little the request says of it."""
    part = {"type": "file", "file": {"file_id": "file-abc"}}

    assert CONTEXT == input_tokens_bound(said(json.dumps(part)), CONTEXT)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"parameters": {"properties": {"file": {"type": "string"}}}}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"required": ["image_url"]}}}},
    ],
    ids=["a tool", "a format"],
)
def test_a_name_in_a_definition_is_no_media(fields: dict[str, Any]) -> None:
    """Callers name their parameters as they like."""
    assert 0 == held_for(json.dumps({"messages": [{"role": "user", "content": "\u00e9"}], **fields}).encode())


@pytest.mark.parametrize("text", ["a file", 'the "file" part', "\u00e9 image_url", "\\u0066ile"])
def test_a_text_about_media_is_no_media(text: str) -> None:
    """It counts by its bytes."""
    assert 0 == held_for(said(json.dumps({"type": "text", "text": text})))


def test_no_context_that_is_known_is_above_the_bound() -> None:
    """So a file of a model that nobody knows is held for as much as the largest one reads."""
    known = [price.context_tokens or 0 for book in read_bundle(BUNDLE) for price in book.prices]
    assert 2 * max(known) <= CONTEXT_TOKENS_BOUND
