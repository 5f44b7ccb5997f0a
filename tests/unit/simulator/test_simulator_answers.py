"""Answers of the simulated provider, without a server."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import msgspec
import pytest

from api.providers.simulator import Failure, SimulatorSettings, answers
from api.providers.simulator.requests import ChatRequest, EmbeddingsRequest, embedding_inputs, fault, prompt_tokens

SETTINGS = SimulatorSettings()


def chat(**fields: Any) -> ChatRequest:
    """A chat request."""
    body = {"model": "sim-small", "messages": [{"role": "user", "content": "one two three"}]} | fields
    return msgspec.convert(body, ChatRequest)


def plain(seed: int = 1, with_usage: bool = True, **fields: Any) -> dict[str, Any]:
    """The body of a plain answer."""
    return json.loads(_bytes(seed, with_usage, **fields))


def _bytes(seed: int = 1, with_usage: bool = True, **fields: Any) -> bytes:
    request = chat(**fields)
    digest = answers.digest_of(seed, msgspec.json.encode(request))
    settings = SimulatorSettings(seed=seed)
    return answers.plain_body(answers.answer_of(request, digest, settings, with_usage=with_usage))


def events(chunk_tokens: int = 2, **fields: Any) -> list[Any]:
    """The events of a stream, the last one as text."""
    request = chat(**fields)
    digest = answers.digest_of(1, msgspec.json.encode(request))
    chunks = list(
        answers.stream_chunks(
            answers.answer_of(request, digest, SETTINGS), chunk_tokens, include_usage=bool(fields.get("stream_options"))
        )
    )
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in chunks)
    return [json.loads(chunk[6:]) for chunk in chunks[:-1]] + [chunks[-1]]


def test_the_same_request_and_seed_give_the_same_bytes() -> None:
    """Nothing of the clock or of chance is in an answer, id and created included."""
    assert _bytes() == _bytes()


def test_another_seed_gives_another_answer() -> None:
    """The seed decides ids and texts."""
    assert plain(1)["id"] != plain(2)["id"]


def test_tokens_are_words() -> None:
    """Prompt tokens count the words of all messages, parts of messages included."""
    messages = [
        {"role": "system", "content": "be  brief\n"},
        {"role": "user", "content": [{"type": "text", "text": "a b c"}, {"type": "image_url"}]},
        {"role": "assistant", "content": None},
    ]

    assert 5 == prompt_tokens(chat(messages=messages).messages)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_length_asked_for_is_the_length(name: str) -> None:
    """With a bound, the answer has exactly so many tokens and ends by length."""
    body = plain(**{name: 7})

    assert (7, 7, "length") == (
        len(body["choices"][0]["message"]["content"].split()),
        body["usage"]["completion_tokens"],
        body["choices"][0]["finish_reason"],
    )


def test_a_length_is_drawn_when_none_is_asked_for() -> None:
    """Drawn lengths differ, stay within the bound, and the answer ends by itself."""
    drawn = [plain(seed) for seed in range(200)]
    lengths = [body["usage"]["completion_tokens"] for body in drawn]

    assert (True, True, {"stop"}) == (
        len(set(lengths)) > 50,
        0 < min(lengths) <= max(lengths) <= SETTINGS.completion_tokens_max,
        {body["choices"][0]["finish_reason"] for body in drawn},
    )


def test_usage_has_the_parts_that_were_asked_for() -> None:
    """Cached, written and reasoning tokens are reported within their totals; reasoning has no text."""
    simulate = {"completion_tokens": 9, "cached_tokens": 2, "cache_write_tokens": 5, "reasoning_tokens": 4}
    body = plain(simulate=simulate)
    usage = body["usage"]

    assert (3, 2, 1, 9, 4, 12, 5) == (
        usage["prompt_tokens"],
        usage["prompt_tokens_details"]["cached_tokens"],
        usage["prompt_tokens_details"]["cache_write_tokens"],
        usage["completion_tokens"],
        usage["completion_tokens_details"]["reasoning_tokens"],
        usage["total_tokens"],
        len(body["choices"][0]["message"]["content"].split()),
    )


def test_a_simulated_length_stays_within_the_callers_bound() -> None:
    """A provider never gives more than max_tokens."""
    assert 5 == plain(max_tokens=5, simulate={"completion_tokens": 50})["usage"]["completion_tokens"]


def test_several_choices_add_up() -> None:
    """Usage counts the tokens of all choices."""
    body = plain(n=3, max_tokens=4)

    assert ([0, 1, 2], 12) == ([choice["index"] for choice in body["choices"]], body["usage"]["completion_tokens"])


def test_usage_can_be_left_out() -> None:
    """A provider that does not say what was used is simulated too."""
    assert "usage" not in plain(with_usage=False)


def test_a_stream_carries_the_same_words_as_the_plain_answer() -> None:
    """The contents of all chunks are the text, whatever the size of chunks."""
    text = "".join(
        chunk["choices"][0]["delta"].get("content", "") for chunk in events(max_tokens=9)[:-1] if chunk["choices"]
    )

    assert plain(max_tokens=9)["choices"][0]["message"]["content"] == text


def test_a_stream_ends_with_reason_and_done() -> None:
    """The last chunk with a choice names the reason; [DONE] follows."""
    found = events(max_tokens=4)

    assert ("length", b"data: [DONE]\n\n") == (found[-2]["choices"][0]["finish_reason"], found[-1])


def test_a_stream_carries_usage_only_when_asked() -> None:
    """The usage chunk has no choices and comes before [DONE]; other chunks carry null."""
    found = events(max_tokens=4, stream_options={"include_usage": True})

    assert ([], 4, {None}, False) == (
        found[-2]["choices"],
        found[-2]["usage"]["completion_tokens"],
        {chunk["usage"] for chunk in found[:-2]},
        any("usage" in chunk for chunk in events(max_tokens=4)[:-1]),
    )


def test_a_model_name_is_written_as_json() -> None:
    """A name with quotes comes back as it was."""
    assert 'a"b\\' == plain(model='a"b\\')["model"]


def test_very_long_answers_have_all_their_words() -> None:
    """Texts longer than the stored block go on."""
    assert 20_000 == len(plain(max_tokens=20_000)["choices"][0]["message"]["content"].split())


def test_embeddings_are_unit_vectors() -> None:
    """A vector has the dimensions asked for and length one, as floats and in base64."""
    vectors = []
    for encoding in ("float", "base64"):
        request = EmbeddingsRequest(model="sim-embedding", input="a b", dimensions=8, encoding_format=encoding)
        value = json.loads(answers.embeddings_body(request, b"\0" * 32, with_usage=True))["data"][0]["embedding"]
        vectors.append(struct.unpack("<8f", base64.b64decode(value)) if encoding == "base64" else tuple(value))

    assert (vectors[0], 1.0) == (vectors[1], pytest.approx(sum(value * value for value in vectors[0])))


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a b c", [3]), (["a", "b c"], [1, 2]), ([1, 2, 3], [3]), ([[1, 2], [3]], [2, 1])],
)
def test_every_form_of_embedding_input_is_counted(value: Any, expected: list[int]) -> None:
    """Texts count words, token lists their length."""
    assert expected == embedding_inputs(value)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"max_tokens": 0},
        {"n": 17},
        {"simulate": {"chunk_tokens": 0}},
        {"max_tokens": 10**9},
        {"simulate": {"latency_milliseconds": 1e9}},
    ],
)
def test_numbers_out_of_range_are_named(fields: dict[str, Any]) -> None:
    """A request that would cost without bound is refused."""
    assert fault(chat(**fields)) is not None


@pytest.mark.parametrize("failure", Failure)
def test_only_status_failures_have_a_status(failure: Failure) -> None:
    """A failure that is a number answers with that status."""
    assert failure.value.isdigit() == (failure.status is not None)


def test_lognormal_latency_has_its_median() -> None:
    """Half of the draws lie below the median."""
    settings = SimulatorSettings(latency_milliseconds=50, latency_distribution="lognormal")
    drawn = [
        answers.latency_of(answers.Simulate(), answers.digest_of(1, str(number).encode()), settings)
        for number in range(2_000)
    ]

    assert 0.45 < sum(value < 50 for value in drawn) / len(drawn) < 0.55
