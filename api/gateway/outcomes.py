"""What a provider's behaviour means: outcome for the record, answer for the caller, charge, and whether to go on.

| what happened | outcome | charged | next candidate |
|---|---|---|---|
| whole answer | SUCCEEDED | usage; the estimate when it is missing | |
| no connection, or it ended before any answer | CONNECTION_ERROR | nothing | yes |
| no answer in time | TIMEOUT | estimate of the input: the model may have read it | yes |
| 429 | RATE_LIMITED | nothing | yes |
| 401, 403, 404 (our configuration), 408, 409, 3xx, 5xx | PROVIDER_ERROR | nothing | yes |
| any other 4xx (the caller's request) | PROVIDER_ERROR | nothing | no, passed through |
| an answer that can't be read, or is over a limit | INVALID_RESPONSE | estimate of the input | yes |
| an answer that broke off | TRUNCATED | usage if told, else estimate of what came | yes, until bytes were forwarded |
| a stream whose hold could not grow | SUCCEEDED, finish_reason length | usage if told, else estimate of what came | |
| the caller hung up on a stream | CLIENT_DISCONNECTED | usage if told, else estimate of what came | no |
"""

from __future__ import annotations

from api.gateway.errors import INVALID, RETRY_SECONDS, SERVER, Header, Problem
from api.gateway.events import Ended
from api.providers.dialect import read_answer, read_error
from api.providers.errors import (
    SecretUnavailableError,
    UpstreamError,
    UpstreamGarbageError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from api.providers.upstream import RETRY_AFTER, Answer
from processors.estimation import tokens_estimated
from processors.pricing import Usage, checked_usage
from schemas.events import AttemptOutcome, Operation, UsageSource

ERROR_BODY_BYTES_MAX = 64 * 1024
#: Statuses that say that our configuration of the provider is wrong, not the caller's request.
OUR_FAULT = frozenset({401, 403, 404})
#: Statuses below 500 that another candidate may not give.
PASSING = frozenset({408, 409, 425})
RATE_LIMITED = 429
SERVER_ERRORS = 500
CLIENT_CLOSED_REQUEST = 499

CLIENT_GONE = Problem(CLIENT_CLOSED_REQUEST, "client_disconnected", "The caller hung up.")


def estimate(prompt_bytes: int, written: int = 0) -> Usage:
    """Usage when nobody reported one."""
    usage = Usage(input_tokens=tokens_estimated(prompt_bytes), output_tokens=tokens_estimated(written))
    return checked_usage(usage)[0]


def failed_call(fault: UpstreamError, prompt_bytes: int, usage: Usage | None = None, written: int = 0) -> Ended:
    """How an attempt ended that a fault ended; `usage` and `written` are what was known of a stream by then."""
    if isinstance(fault, UpstreamUnreachableError | SecretUnavailableError):
        problem = _bad_gateway("provider_unreachable", "The provider could not be reached.")
        return Ended(outcome=AttemptOutcome.CONNECTION_ERROR, detail=str(fault), failover=True, problem=problem)
    if isinstance(fault, UpstreamTimeoutError):
        outcome = AttemptOutcome.TIMEOUT
        problem = Problem(504, "provider_timeout", "The provider did not answer in time.", SERVER)
    elif isinstance(fault, UpstreamGarbageError):
        outcome = AttemptOutcome.INVALID_RESPONSE
        problem = _bad_gateway("provider_invalid_response", "The provider's answer could not be read.")
    else:
        outcome = AttemptOutcome.TRUNCATED
        problem = _bad_gateway("provider_truncated", "The provider's answer broke off.")
    return Ended(
        outcome=outcome,
        detail=str(fault),
        usage=usage or estimate(prompt_bytes, written),
        usage_source=UsageSource.PROVIDER if usage else UsageSource.ESTIMATE,
        failover=True,
        problem=problem,
    )


def _bad_gateway(code: str, message: str) -> Problem:
    return Problem(502, code, message, SERVER)


def failed_stream(word: str, prompt_bytes: int, usage: Usage | None, written: int) -> Ended:
    """How an attempt ended whose stream carried an error instead of its next chunk."""
    return Ended(
        outcome=AttemptOutcome.PROVIDER_ERROR,
        detail=f"error in the stream: {word}",
        usage=usage or (estimate(prompt_bytes, written) if written else Usage()),
        usage_source=UsageSource.PROVIDER if usage else UsageSource.ESTIMATE if written else UsageSource.NONE,
        failover=True,
        problem=_bad_gateway("provider_error", "The provider failed in the middle of its answer."),
    )


def stopped(reason: str, prompt_bytes: int, usage: Usage | None, written: int) -> Ended:
    """How an attempt ended that we cut because its hold could not grow: the caller has an answer, if a short one."""
    return Ended(
        outcome=AttemptOutcome.SUCCEEDED,
        detail=f"stopped: {reason}",
        usage=usage or estimate(prompt_bytes, written),
        usage_source=UsageSource.PROVIDER if usage else UsageSource.ESTIMATE,
    )


def client_gone(prompt_bytes: int, usage: Usage | None, written: int) -> Ended:
    """How an attempt ended that was cut short because nobody listened any more."""
    return Ended(
        outcome=AttemptOutcome.CLIENT_DISCONNECTED,
        detail="the caller hung up",
        usage=usage or estimate(prompt_bytes, written),
        usage_source=UsageSource.PROVIDER if usage else UsageSource.ESTIMATE,
        problem=CLIENT_GONE,
    )


async def whole_answer(reply: Answer, operation: Operation, prompt_bytes: int) -> tuple[Ended, bytes]:
    """How an attempt ended that was answered with success and is no stream, and the answer's body."""
    try:
        body = await reply.body()
        reading = read_answer(operation, body)
    except UpstreamError as fault:
        ended = failed_call(fault, prompt_bytes)
        ended.status_code = reply.status
        return ended, b""
    ended = Ended(
        outcome=AttemptOutcome.SUCCEEDED,
        status_code=reply.status,
        usage=reading.usage or estimate(prompt_bytes, reading.written),
        usage_source=UsageSource.PROVIDER if reading.usage else UsageSource.ESTIMATE,
        finish_reason=reading.finish_reason,
        response_id=reading.response_id,
    )
    return ended, body


async def refused_call(answer: Answer) -> Ended:
    """How an attempt ended that the provider answered with an error."""
    status = answer.status
    try:
        body = await answer.body(ERROR_BODY_BYTES_MAX)
    except UpstreamError:
        body = b""
    word, passable = read_error(body)
    detail = f"HTTP {status}" if word is None else f"HTTP {status} {word}"
    outcome = AttemptOutcome.RATE_LIMITED if status == RATE_LIMITED else AttemptOutcome.PROVIDER_ERROR
    failover = status >= SERVER_ERRORS or status in OUR_FAULT | PASSING | {RATE_LIMITED} or status < 400  # noqa: PLR2004
    problem = _problem_of(status, _retry_after(answer)) if failover else _passed(status, body if passable else None)
    return Ended(outcome=outcome, status_code=status, detail=detail, failover=failover, problem=problem)


def _passed(status: int, body: bytes | None) -> Problem:
    return Problem(status, "provider_refused", "The provider refused the request.", INVALID, passed_body=body)


def _retry_after(answer: Answer) -> tuple[Header, ...]:
    value = answer.headers.get(RETRY_AFTER, "")
    return ((b"retry-after", value.encode()),) if value.isdecimal() and value.isascii() else ()


def _problem_of(status: int, retry_after: tuple[Header, ...]) -> Problem:
    if status == RATE_LIMITED:
        message = "Every provider that could serve this refuses more requests now."
        return Problem(429, "rate_limit_exceeded", message, "rate_limit_error", headers=retry_after)
    if status in {503, 529}:
        headers = retry_after or ((b"retry-after", str(RETRY_SECONDS).encode()),)
        return Problem(503, "provider_overloaded", "The provider is overloaded.", SERVER, headers=headers)
    if status in {408, 504}:
        return Problem(504, "provider_timeout", "The provider did not answer in time.", SERVER)
    if status in OUR_FAULT:
        message = f"The provider refused the gateway's own call with {status}; an operator must look at it."
        return _bad_gateway("provider_configuration", message)
    return _bad_gateway("provider_error", "The provider failed.")
