"""Streams: content at once and untouched, the end only when it is recorded, and every way in which they break."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from api.gateway.events import Ended
from api.providers.errors import UpstreamTimeoutError, UpstreamTruncatedError
from api.providers.memory import MemoryAnswer
from schemas.events import AttemptOutcome, ProviderAttempt, RequestEvent, RequestKind, UsageSource
from tests.support.gateway_answers import DONE, JSON, USAGE, SlowAnswer, chunk, stream_answer, usage_chunk, whole_stream
from tests.support.gateway_world import Response, World, chat

COST = b": x-quaestor-cost 0.00036\n\n"
BROKEN = ["attempts TRUNCATED", "budgets COMMITTED", "budgets PLACED", "costs CHARGE", "costs CHARGE", "decisions"]


async def stream(tmp_path: Path, *pieces: bytes | Exception, **fields: object) -> tuple[World, Response]:
    """Run one stream made of these pieces."""
    async with World(tmp_path, lambda _: stream_answer(*pieces)) as world:  # type: ignore[arg-type]  # faults too
        return world, await world.call(body=chat(stream=True, **fields))


async def test_content_is_forwarded_untouched_and_usage_taken_out(tmp_path: Path) -> None:
    """A caller that did not ask for usage gets every chunk as it came, the cost, and the end."""
    _, response = await stream(tmp_path, chunk("a"), chunk("b"), chunk(finish="stop"), usage_chunk(), DONE)

    assert chunk("a") + chunk("b") + chunk(finish="stop") + COST + DONE == response.body


async def test_the_provider_is_asked_for_usage(tmp_path: Path) -> None:
    """Other options of the caller's stay."""
    world, _ = await stream(tmp_path, chunk("a", "stop"), DONE, stream_options={"other": 1})

    asked = json.loads(world.upstream.calls[0].body)["stream_options"]
    assert {"other": 1, "include_usage": True} == asked


async def test_a_caller_that_asks_for_usage_gets_it_with_the_cost(tmp_path: Path) -> None:
    """The provider's usage chunk, and a member of ours in it."""
    _, response = await stream(
        tmp_path, chunk("a", "stop"), usage_chunk(), DONE, stream_options={"include_usage": True}
    )

    last = json.loads(response.body.split(b"\n\n")[1].removeprefix(b"data: "))
    assert (USAGE, []) == (last["usage"], last["choices"])
    assert {"cost": "0.00036", "currency": "USD", "estimated": False} == last["quaestor"]


async def test_a_caller_that_asks_for_usage_gets_an_estimate_when_there_is_none(tmp_path: Path) -> None:
    """It says that it is one."""
    _, response = await stream(tmp_path, chunk("abcdefgh", "stop"), DONE, stream_options={"include_usage": True})

    last = json.loads(response.body.split(b"\n\n")[1].removeprefix(b"data: "))
    assert (2, True) == (last["usage"]["completion_tokens"], last["quaestor"]["estimated"])


async def test_the_end_waits_until_it_is_recorded(tmp_path: Path) -> None:
    """Before the piece with finish_reason goes out, COMPLETED is in the log; before content, it is not."""
    seen: list[tuple[bool, bool]] = []

    def look(piece: bytes) -> None:
        seen.append((b'"stop"' in piece, "requests COMPLETED" in world.kinds()))

    async with World(tmp_path, lambda _: whole_stream()) as world:
        await world.call(body=chat(stream=True), on_piece=look)

    assert [(False, False), (False, False), (False, False), (True, True)] == seen


async def test_usage_in_the_last_content_chunk_is_found(tmp_path: Path) -> None:
    """Some providers report it with finish_reason."""
    world, _ = await stream(tmp_path, chunk("a"), chunk("b", "stop", usage=USAGE), DONE)

    attempt = world.one(ProviderAttempt)
    assert (100, 20, UsageSource.PROVIDER) == (attempt.input_tokens, attempt.output_tokens, attempt.usage_source)


async def test_missing_usage_is_estimated_from_what_was_written(tmp_path: Path) -> None:
    """Nine characters are three tokens."""
    world, response = await stream(tmp_path, chunk("abcd"), chunk("efghi"), chunk(finish="stop"), DONE)

    attempt = world.one(ProviderAttempt)
    assert (3, UsageSource.ESTIMATE) == (attempt.output_tokens, attempt.usage_source)
    assert response.body.endswith(DONE)


async def test_a_stream_without_done_is_whole_when_it_finished(tmp_path: Path) -> None:
    """The caller gets its [DONE] all the same."""
    world, response = await stream(tmp_path, chunk("a"), chunk(finish="stop"), usage_chunk().rstrip())

    assert response.body.endswith(DONE)
    assert AttemptOutcome.SUCCEEDED == world.one(ProviderAttempt).outcome


async def test_events_cut_anywhere_are_put_together(tmp_path: Path) -> None:
    """One byte at a time."""
    whole = chunk("a") + chunk(finish="stop") + usage_chunk() + DONE
    _, response = await stream(tmp_path, *[whole[at : at + 1] for at in range(len(whole))])

    assert chunk("a") + chunk(finish="stop") + COST + DONE == response.body


async def test_carriage_returns_pass_untouched(tmp_path: Path) -> None:
    """A provider that ends lines with CRLF is understood, and its chunks stay as they are."""
    pieces = [piece.replace(b"\n", b"\r\n") for piece in (chunk("a"), chunk(finish="stop"), usage_chunk(), DONE)]
    _, response = await stream(tmp_path, *pieces)

    assert pieces[0] + pieces[1] + COST + DONE == response.body


async def test_every_choice_finishes_before_the_end(tmp_path: Path) -> None:
    """With two choices, both ends wait; content of the one that still speaks flows."""
    _, response = await stream(
        tmp_path,
        chunk("a", index=0),
        chunk(finish="stop", index=0),
        chunk("b", index=1),
        chunk(finish="stop", index=1),
        usage_chunk(),
        DONE,
        n=2,
    )

    ends = chunk(finish="stop", index=0) + chunk(finish="stop", index=1)
    assert chunk("a", index=0) + chunk("b", index=1) + ends + COST + DONE == response.body


async def test_comments_are_forwarded_once_the_answer_has_begun(tmp_path: Path) -> None:
    """Keep-alives of the provider keep the caller's connection alive too."""
    comment = b": still thinking\n\n"
    _, response = await stream(tmp_path, comment, chunk("a"), comment, chunk(finish="stop"), usage_chunk(), DONE)

    assert chunk("a") + comment + chunk(finish="stop") + COST + DONE == response.body


@pytest.mark.parametrize(
    ("pieces", "outcome"),
    [
        ((), AttemptOutcome.TRUNCATED),
        ((UpstreamTruncatedError(),), AttemptOutcome.TRUNCATED),
        ((UpstreamTimeoutError(),), AttemptOutcome.TIMEOUT),
        ((b"data: not json\n\n",), AttemptOutcome.INVALID_RESPONSE),
        ((b'data: {"id":"\xff"}\n\n',), AttemptOutcome.INVALID_RESPONSE),
        ((b'data: {"error":{"code":"server_error","message":"x"}}\n\n',), AttemptOutcome.PROVIDER_ERROR),
    ],
    ids=["ends", "breaks", "stalls", "garbage", "no UTF-8", "error"],
)
async def test_a_stream_that_breaks_ends_with_an_error_event(
    tmp_path: Path, pieces: tuple[bytes | Exception, ...], outcome: AttemptOutcome
) -> None:
    """Content that went out is charged by estimate; the caller gets an error and no [DONE]."""
    world, response = await stream(tmp_path, chunk("abcd"), *pieces)

    attempt = world.one(ProviderAttempt)
    assert (outcome, 1, UsageSource.ESTIMATE) == (attempt.outcome, attempt.output_tokens, attempt.usage_source)
    assert "requests FAILED" in world.kinds()
    last = response.body.removeprefix(chunk("abcd"))
    assert {"message", "type", "param", "code"} == json.loads(last.removeprefix(b"data: "))["error"].keys()


async def test_a_break_after_the_finish_is_no_failure(tmp_path: Path) -> None:
    """The answer was whole; only the usage is missing, and is estimated."""
    world, response = await stream(tmp_path, chunk("abcd"), chunk(finish="stop"), UpstreamTruncatedError())

    assert UsageSource.ESTIMATE == world.one(ProviderAttempt).usage_source
    assert response.body.endswith(DONE)


@pytest.mark.parametrize("pieces", [(), (UpstreamTruncatedError(),), (UpstreamTimeoutError(),)])
async def test_a_break_before_every_choice_finished_is_a_failure(
    tmp_path: Path, pieces: tuple[bytes | Exception, ...]
) -> None:
    """One of two choices is whole: what was produced of both is charged, and the caller gets an error, no [DONE]."""
    said = chunk("abcd", index=0), chunk(finish="stop", index=0), chunk("efgh", index=1)
    world, response = await stream(tmp_path, *said, *pieces, n=2)

    attempt = world.one(ProviderAttempt)
    assert attempt.outcome in {AttemptOutcome.TRUNCATED, AttemptOutcome.TIMEOUT}
    assert (2, UsageSource.ESTIMATE) == (attempt.output_tokens, attempt.usage_source)
    assert "requests FAILED" in world.kinds()
    last = response.body.removeprefix(said[0] + said[2])
    assert "error" in json.loads(last.removeprefix(b"data: "))


async def test_a_break_after_every_choice_finished_is_no_failure(tmp_path: Path) -> None:
    """Also when they end in one chunk; a choice that says twice that it ended is still one."""
    both = b'data: {"choices":[{"index":0,"finish_reason":"stop"},{"index":1,"finish_reason":"stop"}]}\n\n'
    for ends, kind in (((both,), "COMPLETED"), ((chunk(finish="stop"), chunk(finish="stop")), "FAILED")):
        (tmp_path / kind).mkdir()
        world, _ = await stream(tmp_path / kind, chunk("a"), *ends, UpstreamTruncatedError(), n=2)
        assert f"requests {kind}" in world.kinds()


async def test_a_provider_that_gives_fewer_choices_and_says_done_is_believed(tmp_path: Path) -> None:
    """Not every model knows `n`."""
    world, response = await stream(tmp_path, chunk("a"), chunk(finish="stop"), usage_chunk(), DONE, n=2)

    assert AttemptOutcome.SUCCEEDED == world.one(ProviderAttempt).outcome
    assert response.body.endswith(DONE)


async def test_usage_told_before_the_break_is_charged(tmp_path: Path) -> None:
    """Providers that report along the way need no estimate."""
    usage = {"prompt_tokens": 50, "completion_tokens": 3}
    world, _ = await stream(tmp_path, chunk("abcd", usage=usage), UpstreamTruncatedError())

    attempt = world.one(ProviderAttempt)
    assert (50, 3, UsageSource.PROVIDER) == (attempt.input_tokens, attempt.output_tokens, attempt.usage_source)


async def test_before_the_first_content_another_candidate_takes_over(tmp_path: Path) -> None:
    """The caller sees one clean stream; the first attempt stands in the log."""
    answers = [stream_answer(UpstreamTruncatedError()), whole_stream()]
    async with World(tmp_path, lambda _: answers.pop(0)) as world:
        response = await world.call(body=chat(stream=True))
        outcomes = [event.outcome for event in world.events("attempts") if isinstance(event, ProviderAttempt)]

    assert [AttemptOutcome.SUCCEEDED, AttemptOutcome.TRUNCATED] == sorted(outcomes)
    assert (200, "2", "two-big") == (
        response.status,
        response.headers["x-quaestor-attempts"],
        response.headers["x-quaestor-model"],
    )
    assert response.body.endswith(DONE)


async def test_an_answer_that_is_no_stream_is_refused(tmp_path: Path) -> None:
    """A provider that answers plain JSON to a stream request broke off, as far as a stream can tell."""
    async with World(tmp_path, lambda _: MemoryAnswer(200, [b'{"choices":[]}'], JSON)) as world:
        response = await world.call(body=chat(stream=True))

    assert 502 == response.status


async def hang_up_after(tmp_path: Path, answer: SlowAnswer, pieces: int, **fields: object) -> tuple[World, Response]:
    """Let so many pieces through, then hang up, then wait for the request to end."""
    gone, seen = asyncio.Event(), asyncio.Semaphore(0)
    async with World(tmp_path, lambda _: answer) as world:
        running = asyncio.create_task(
            world.call(body=chat(stream=True, **fields), hang_up=gone, on_piece=lambda _: seen.release())
        )
        for _ in range(pieces):
            answer.go.release()
            await asyncio.wait_for(seen.acquire(), 5)
        gone.set()
        return world, await asyncio.wait_for(running, 5)


async def test_a_caller_that_hangs_up_is_charged_for_what_was_produced(tmp_path: Path) -> None:
    """The provider is stopped; two chunks of four characters are two tokens."""
    answer = SlowAnswer(chunk("abcd"), chunk("efgh"), chunk("never"), chunk(finish="stop"), DONE)
    world, _ = await hang_up_after(tmp_path, answer, 2)

    attempt = world.one(ProviderAttempt)
    assert answer.aborted
    assert (AttemptOutcome.CLIENT_DISCONNECTED, 2, UsageSource.ESTIMATE) == (
        attempt.outcome,
        attempt.output_tokens,
        attempt.usage_source,
    )


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [(each, each in {AttemptOutcome.SUCCEEDED, AttemptOutcome.CLIENT_DISCONNECTED}) for each in AttemptOutcome],
)
def test_only_the_provider_makes_a_call_no_request(outcome: AttemptOutcome, counts: bool) -> None:
    """Who hangs up on every answer makes as many requests as who does not."""
    assert counts is Ended(outcome=outcome).answered


async def test_a_caller_that_hangs_up_between_the_ends_of_two_choices_stops_the_provider(tmp_path: Path) -> None:
    """The choice that still speaks costs money, and nobody listens."""
    first = chunk("abcd", index=0) + chunk(finish="stop", index=0)
    answer = SlowAnswer(first, chunk("efgh", index=1), chunk("never", index=1), chunk(finish="stop", index=1), DONE)
    world, _ = await hang_up_after(tmp_path, answer, 2, n=2)

    attempt = world.one(ProviderAttempt)
    assert answer.aborted
    assert (AttemptOutcome.CLIENT_DISCONNECTED, 2) == (attempt.outcome, attempt.output_tokens)


async def test_a_caller_that_hangs_up_is_recorded(tmp_path: Path) -> None:
    """FAILED, status 499, client_disconnected."""
    world, _ = await hang_up_after(tmp_path, SlowAnswer(chunk("abcd"), chunk("never")), 1)

    failed = world.one(RequestEvent, kind=RequestKind.FAILED)
    assert (499, "client_disconnected", True) == (failed.status_code, failed.error_code, failed.client_disconnected)


async def test_the_first_content_is_timed(tmp_path: Path) -> None:
    """Both the attempt and the request say when content first went out."""
    world, _ = await stream(tmp_path, chunk("a"), chunk(finish="stop"), usage_chunk(), DONE)

    completed = world.one(RequestEvent, kind=RequestKind.COMPLETED)
    assert world.one(ProviderAttempt).first_chunk_micros is not None
    assert 0 <= (completed.first_chunk_micros or -1) <= (completed.duration_micros or 0)
