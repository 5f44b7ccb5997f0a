"""The official openai SDK against a real gateway on real servers and the simulated provider."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from processors.control import Provider, revoke_key
from schemas.events import BudgetEvent, BudgetKind, RequestEvent, RequestKind
from tests.support.gateway_stack import GatewayStack, gateway_stack, wait_for

MESSAGES: Any = [{"role": "user", "content": "Where did the money go?"}]
EFFECTIVE_SECONDS_MAX = 2.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayStack]:
    """Everything, with a gateway of one worker."""
    with gateway_stack(tmp_path_factory.mktemp("gateway")) as running:
        running.start_gateway()
        yield running


def client(stack: GatewayStack, tenant: str, **fields: str) -> OpenAI:
    """The SDK with a key that the gateway knows."""
    text = stack.key(tenant, **fields)
    one = stack.sdk(text)

    wait_for(lambda: _is_known(one), EFFECTIVE_SECONDS_MAX, lambda: stack.log_of("gateway"))
    return one


def _is_known(one: OpenAI) -> bool:
    """Whether the gateway takes its key."""
    try:
        one.models.list()
    except openai.AuthenticationError:
        return False
    return True


def ask(one: OpenAI, model: str = "default", **fields: Any) -> Any:
    """A small chat."""
    return one.chat.completions.create(model=model, messages=MESSAGES, max_tokens=8, **fields)


def test_a_chat_is_answered(stack: GatewayStack) -> None:
    """With usage, and our headers."""
    one = client(stack, "plain")
    raw = one.chat.completions.with_raw_response.create(model="default", messages=MESSAGES, max_tokens=8)
    answer = raw.parse()

    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert float(raw.headers["x-quaestor-cost"]) > 0
    assert raw.headers["x-quaestor-request-id"] == answer._request_id


def test_a_chat_is_in_the_log(stack: GatewayStack) -> None:
    """COMPLETED and COMMITTED agree on the amount."""
    ask(client(stack, "logged"))

    requests = [event for event in stack.events("requests") if event.tenant_id == "logged"]
    budgets = [event for event in stack.events("budgets") if event.tenant_id == "logged"]
    completed = next(e for e in requests if isinstance(e, RequestEvent) and e.kind is RequestKind.COMPLETED)
    committed = next(e for e in budgets if isinstance(e, BudgetEvent) and e.kind is BudgetKind.COMMITTED)
    assert completed.amount_nano == committed.amount_nano > 0


def test_a_stream_is_read_to_its_end(stack: GatewayStack) -> None:
    """Content first, then the finish; no usage chunk, since none was asked for."""
    chunks = list(ask(client(stack, "streams"), stream=True))

    assert "length" == [chunk.choices[0].finish_reason for chunk in chunks][-1]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_reports_usage_when_asked(stack: GatewayStack) -> None:
    """In the last chunk, with the cost beside it."""
    chunks = list(ask(client(stack, "usage"), stream=True, stream_options={"include_usage": True}))

    assert 8 == chunks[-1].usage.completion_tokens
    assert float(chunks[-1].quaestor["cost"]) > 0


async def test_the_async_client_works(stack: GatewayStack) -> None:
    """Plain and streamed."""
    text = client(stack, "async").api_key
    async with AsyncOpenAI(api_key=text, base_url=f"{stack.url}/v1", max_retries=0) as one:
        answer = await one.chat.completions.create(model="default", messages=MESSAGES, max_tokens=4)
        stream = await one.chat.completions.create(model="default", messages=MESSAGES, max_tokens=4, stream=True)
        ends = [chunk.choices[0].finish_reason async for chunk in stream]

    assert ("length", "length") == (answer.choices[0].finish_reason, ends[-1])


def test_embeddings_are_answered(stack: GatewayStack) -> None:
    """One vector per text."""
    answer = client(stack, "vectors").embeddings.create(model="sim-embedding", input=["one", "two"])

    assert 2 == len(answer.data)
    assert answer.usage.prompt_tokens > 0


def test_models_are_listed(stack: GatewayStack) -> None:
    """Aliases among them."""
    assert "default" in {model.id for model in client(stack, "lists").models.list()}


def test_errors_are_the_sdks_own(stack: GatewayStack) -> None:
    """Each status becomes the exception that its users catch."""
    one = client(stack, "errors")
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(one, model="nobody-serves-this")
    with pytest.raises(openai.BadRequestError) as wrong:
        ask(one, temperature="hot", n=0)
    with pytest.raises(openai.AuthenticationError):
        ask(stack.sdk("qk_wrong"))
    with pytest.raises(openai.NotFoundError) as later:
        one.responses.create(model="default", input="hi")

    assert ("model_not_found", "n", "unknown_url") == (unknown.value.code, wrong.value.param, later.value.code)


def test_a_full_budget_is_a_rate_limit_error(stack: GatewayStack) -> None:
    """With the limit and what is left of it, and the event."""
    one = client(stack, "poor")
    stack.limit("poor", 0.000001)

    def refused() -> bool:
        try:
            ask(one)
        except openai.RateLimitError as error:
            return error.code == "budget_exceeded"
        except openai.InternalServerError:
            pass
        return False

    wait_for(refused, EFFECTIVE_SECONDS_MAX + 3)
    kinds = {e.kind for e in stack.events("budgets") if isinstance(e, BudgetEvent) and e.tenant_id == "poor"}
    assert BudgetKind.REFUSED in kinds


def test_a_call_that_fits_by_its_tokens_is_answered(stack: GatewayStack) -> None:
    """A limit that its bytes would exceed admits it by OpenAI's own count; ten times as much text it refuses."""
    simulator = Provider(provider_id="counted", base_url=stack.settings.simulator_url)
    stack.route("counted", simulator, model="gpt-4o")
    one, text = client(stack, "counted"), "Where did the money go? " * 400
    stack.limit("counted", 0.001)

    def answered(content: str) -> bool:
        try:
            messages: Any = [{"role": "user", "content": content}]
            one.chat.completions.create(model="counted", messages=messages, max_tokens=8)
        except (openai.RateLimitError, openai.InternalServerError, openai.NotFoundError):
            return False
        return True

    wait_for(lambda: not answered(text * 10), EFFECTIVE_SECONDS_MAX + 3)
    wait_for(lambda: answered(text), EFFECTIVE_SECONDS_MAX + 3, lambda: stack.log_of("gateway"))
    movements = [e for e in stack.events("budgets") if isinstance(e, BudgetEvent) and e.tenant_id == "counted"]
    held = [leg.held_nano for e in movements if e.kind is BudgetKind.PLACED for leg in e.legs]
    # About 2,400 tokens at 150 nano-dollars; by bytes it would be 9,700.
    assert 300_000 < held[-1] < 500_000


def test_concurrent_calls_never_overspend(stack: GatewayStack) -> None:
    """Many calls at once against room for a few: what is charged stays within the limit."""
    one = client(stack, "crowd")
    stack.limit("crowd", 0.002)
    wait_for(lambda: _admitted(one), EFFECTIVE_SECONDS_MAX + 3)
    with ThreadPoolExecutor(24) as pool:
        answered = list(pool.map(lambda _: _admitted(one), range(120)))

    charged = sum(
        event.amount_nano
        for event in stack.events("budgets")
        if isinstance(event, BudgetEvent) and event.tenant_id == "crowd" and event.kind is BudgetKind.COMMITTED
    )
    assert 0 < sum(answered) < 120
    assert charged <= 2_000_000


def _admitted(one: OpenAI) -> bool:
    try:
        one.chat.completions.create(model="default", messages=MESSAGES, max_tokens=64)
    except (openai.RateLimitError, openai.InternalServerError):
        return False
    return True


def test_a_revoked_key_stops_within_two_seconds(stack: GatewayStack) -> None:
    """In every gateway, without a restart."""
    one = client(stack, "revoked")
    with stack.control() as session:
        key_id = next(key.key_id for key in session.refresh().keys.values() if key.tenant_id == "revoked")
        session.change(lambda state, origin: revoke_key(state, key_id, origin))

    def stopped() -> bool:
        try:
            ask(one)
        except openai.AuthenticationError:
            return True
        return False

    wait_for(stopped, EFFECTIVE_SECONDS_MAX)


def test_an_unreachable_provider_is_502(stack: GatewayStack) -> None:
    """As the SDK's InternalServerError, with our code."""
    stack.route("nowhere", Provider(provider_id="nowhere", base_url="http://127.0.0.1:1/v1"))
    with pytest.raises(openai.InternalServerError) as error:
        ask(client(stack, "nowhere"), model="nowhere")

    assert (502, "provider_unreachable") == (error.value.status_code, error.value.code)


def raw(stack: GatewayStack, data: bytes) -> bytes:
    """What the gateway answers to bytes of our own, until it hangs up."""
    with socket.create_connection(("127.0.0.1", stack.gateway_port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: " + b"x" * 40_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"".join(b"h%d: x\r\n" % at for at in range(120)) + b"\r\n", b"431"),
        (b"\x00\x01\x02 no http at all\r\n\r\n", b"400"),
    ],
    ids=["large header", "many headers", "no HTTP"],
)
def test_heads_over_the_limit_are_refused(stack: GatewayStack, data: bytes, status: bytes) -> None:
    """While they are read, in OpenAI's shape."""
    answer = raw(stack, data)

    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b'"error"' in answer


def test_a_body_over_the_limit_is_refused_by_its_length(stack: GatewayStack) -> None:
    """Before it is sent."""
    text = client(stack, "large").api_key
    connection = http.client.HTTPConnection("127.0.0.1", stack.gateway_port, timeout=10)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("authorization", f"Bearer {text}")
    connection.putheader("content-length", str(50 * 1024 * 1024))
    connection.endheaders()

    assert 413 == connection.getresponse().status
    connection.close()


@pytest.fixture
def sibling(tmp_path: Path, stack: GatewayStack) -> Iterator[GatewayStack]:
    """Another gateway on the same servers, not started."""
    names = ("kafka_bootstrap", "registry_url", "postgres_dsn", "redis_url")
    other = GatewayStack(tmp_path, {name: str(getattr(stack.settings, name)) for name in names})
    yield other
    other.close()


def test_a_stop_lets_running_requests_end(sibling: GatewayStack, stack: GatewayStack) -> None:
    """SIGTERM in the middle of a stream: the stream ends whole, the process ends with 0."""
    process = sibling.start_gateway()
    text = client(stack, "drains").api_key
    one = sibling.sdk(text)
    stream = iter(ask(one, stream=True))
    next(stream)
    process.send_signal(signal.SIGTERM)
    ends = [chunk.choices[0].finish_reason for chunk in stream]

    assert "length" == ends[-1]
    assert 0 == process.wait(20)


def test_a_taken_port_is_said_in_one_line(sibling: GatewayStack) -> None:
    """With the setting that changes it."""
    with socket.create_server(("127.0.0.1", sibling.gateway_port)):
        code = sibling.start("gateway").wait(30)

    assert 1 == code
    assert "QUAESTOR_GATEWAY_PORT" in sibling.log_of("gateway").splitlines()[-1]


def test_a_key_is_in_force_in_every_gateway_until_it_is_revoked(sibling: GatewayStack, stack: GatewayStack) -> None:
    """Made and revoked once: each process follows the log by itself, also the one that nobody has asked yet."""
    sibling.start_gateway()
    text = stack.key("everywhere")
    ones = [stack.sdk(text), sibling.sdk(text)]

    wait_for(lambda: all(map(_is_known, ones)), EFFECTIVE_SECONDS_MAX, lambda: sibling.log_of("gateway"))
    with stack.control() as session:
        key_id = next(key.key_id for key in session.refresh().keys.values() if key.tenant_id == "everywhere")
        session.change(lambda state, origin: revoke_key(state, key_id, origin))

    wait_for(lambda: not any(map(_is_known, ones)), EFFECTIVE_SECONDS_MAX, lambda: sibling.log_of("gateway"))


def test_workers_share_the_port_and_are_replaced(sibling: GatewayStack, stack: GatewayStack) -> None:
    """Two workers: one is killed, another takes its place, requests go on."""
    process = sibling.start_gateway(workers=2)
    wait_for(lambda: len(_workers(sibling)) == 2, 20, lambda: sibling.log_of("gateway"))
    victim = min(_workers(sibling))
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(_workers(sibling) - {victim}) == 2, 20, lambda: sibling.log_of("gateway"))
    text = client(stack, "workers").api_key
    one = sibling.sdk(text, max_retries=3)

    wait_for(lambda: _admitted(one), 20, lambda: sibling.log_of("gateway"))
    assert "gateway_worker_died" in sibling.log_of("gateway")
    assert 0 == sibling.stop(process)


def _workers(stack: GatewayStack) -> set[int]:
    """Processes that said how they are."""
    return {int(path.stem) for path in (stack.data / "run" / "gateway").glob("*.status")}
