"""The counted bound of any chat is between what OpenAI's cookbook counts for it and the bound by bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.providers.tiktoken import TiktokenCounter
from processors.encodings import ENCODINGS
from processors.estimation import Counted, input_tokens_bound, texts_of
from schemas.events import Operation

COUNTER = TiktokenCounter()
#: The cookbook's: for each message, for a name, and before the answer.
MESSAGE_TOKENS, NAME_TOKENS, ANSWER_TOKENS = 3, 1, 3

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=60) | st.sampled_from(
    ("<|im_start|>", "the quick brown fox jumps over the lazy dog", " " * 50, "ab" * 40)
)
PARTS = st.builds(lambda text: {"type": "text", "text": text}, TEXTS)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(("user", "system", "assistant", "tool")), "content": TEXTS | st.lists(PARTS, max_size=4)},
    optional={"name": st.text("abc", min_size=1, max_size=9)},
)
BODIES = st.builds(lambda messages: {"model": "m", "messages": messages}, st.lists(MESSAGES, min_size=1, max_size=6))


def cookbook(encoding: str, body: dict[str, Any]) -> int:
    """Tokens of a chat as OpenAI's cookbook counts them."""
    tokens = ANSWER_TOKENS
    for message in body["messages"]:
        content = message["content"]
        said = [content] if isinstance(content, str) else [part["text"] for part in content]
        found = COUNTER.count(encoding, [message["role"], message.get("name", ""), *said])
        assert found is not None
        tokens += MESSAGE_TOKENS + found + (NAME_TOKENS if "name" in message else 0)
    return tokens


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("ascii_only", [True, False])
@settings(max_examples=150, deadline=None)
@given(body=BODIES)
def test_a_counted_bound_is_a_bound(encoding: str, ascii_only: bool, body: dict[str, Any]) -> None:
    """However the client writes its JSON."""
    written = json.dumps(body, ensure_ascii=ascii_only, separators=(",", ":")).encode()
    prompt = json.dumps(body["messages"], ensure_ascii=ascii_only, separators=(",", ":")).encode()
    found = texts_of(Operation.CHAT_COMPLETIONS, prompt)
    tokens = COUNTER.count(encoding, found.texts)
    assert tokens is not None
    bound = input_tokens_bound(written, None, Counted(tokens, found.json_bytes))

    assert cookbook(encoding, body) <= bound <= input_tokens_bound(written)
