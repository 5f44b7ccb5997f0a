"""Bad callers and bad providers over real HTTP: what is answered, what the log says of it, and what it is charged."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from processors.control import Provider, revoke_key
from schemas.events import (
    AttemptOutcome,
    BudgetEvent,
    BudgetKind,
    CostEvent,
    Event,
    Meter,
    ProviderAttempt,
    RequestEvent,
)
from schemas.limits import BODY_BYTES_MAX, BODY_DROPPED_BYTES_MAX
from tests.support.gateway_stack import GatewayStack, gateway_stack, wait_for

SHAPE = {"message", "type", "param", "code"}
EFFECTIVE_SECONDS_MAX, PATIENCE_SECONDS = 10.0, 3.0
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Where did the money go?"}]
TOPICS = ("requests", "budgets", "attempts", "costs")
#: Of a stream, until its caller hangs up: the first of its hundred chunks have words in them.
LINES_READ = 10


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> Any:
        """The error object of a plain answer, or of a stream that broke."""
        text = self.body.rpartition(b"data: {")[2] if self.body.startswith(b"data:") else self.body[1:]
        return json.loads(b"{" + text.partition(b"\n\n")[0])["error"]

    @property
    def request_id(self) -> str | None:
        """Where a tenant was known."""
        return self.headers.get("x-quaestor-request-id")


class World(NamedTuple):
    """Everything that was asked, answered and recorded."""

    stack: GatewayStack
    #: By tenant.
    keys: dict[str, str]
    egress: Path

    def post(self, body: bytes, path: str = CHAT, **headers: str) -> Answer:
        """One call."""
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.gateway_port, timeout=30)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def chat(self, tenant: str, **fields: object) -> Answer:
        """A chat of a tenant."""
        return self.post(chat(**fields), authorization=f"Bearer {self.keys[tenant]}")

    def readiness(self) -> Any:
        """What /readyz says; its status agrees."""
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.gateway_port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            told = json.loads(response.read())
        assert told["ready"] == (response.status == 200)
        return told

    def calls_out(self) -> int:
        """How many calls reached the provider."""
        return self.egress.read_text().count("\n") if self.egress.exists() else 0


def chat(**fields: object) -> bytes:
    """The body of a chat."""
    return json.dumps({"model": "default", "messages": MESSAGES, "max_tokens": 8} | fields).encode()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A gateway that knows a good key and a revoked one, and a provider that it does not wait for very long."""
    folder = tmp_path_factory.mktemp("bad-days")
    egress = folder / "egress.jsonl"
    with gateway_stack(folder / "data", "--egress-log", str(egress)) as stack:
        stack.route(
            "bad", Provider(provider_id="bad", base_url=stack.settings.simulator_url, timeout_seconds=PATIENCE_SECONDS)
        )
        keys = {tenant: stack.key(tenant) for tenant in ("callers", "revoked", "providers", "leavers")}
        for tenant in ("providers", "leavers"):
            stack.limit(tenant, 10.0)
        with stack.control() as session:
            key_id = next(key.key_id for key in session.refresh().keys.values() if key.tenant_id == "revoked")
            session.change(lambda state, origin: revoke_key(state, key_id, origin))
        stack.start_gateway()
        found = World(stack, keys, egress)
        wait_for(lambda: found.chat("leavers").status == 200, EFFECTIVE_SECONDS_MAX, lambda: stack.log_of("gateway"))
        yield found


#: Whose key (None: none at all, an empty one: a wrong one), the body, the path; the status, the code, whether recorded.
Bad = tuple[str | None, bytes, str, int, str, bool]
BAD: dict[str, Bad] = {
    "malformed JSON": ("callers", b'{"model":', CHAT, 400, "invalid_json", True),
    "no object": ("callers", b"[]", CHAT, 400, "invalid_request", True),
    "wrong types": ("callers", chat(messages="hi"), CHAT, 400, "invalid_request", True),
    "bad UTF-8": ("callers", b'{"model":"\xff","messages":[]}', CHAT, 400, "invalid_utf8", True),
    "unknown model": ("callers", chat(model="nobody-serves-this"), CHAT, 404, "model_not_found", True),
    "body over the limit": ("callers", b" " * (BODY_BYTES_MAX + 1), CHAT, 413, "request_too_large", True),
    "no input": ("callers", b'{"model":"default"}', "/v1/embeddings", 400, "invalid_request", True),
    "revoked key": ("revoked", chat(), CHAT, 401, "invalid_api_key", True),
    "missing key": (None, chat(), CHAT, 401, "missing_api_key", False),
    "wrong key": ("", chat(), CHAT, 401, "invalid_api_key", False),
    "a path of later": ("callers", b"{}", "/v1/responses", 404, "unknown_url", False),
}


class Refusals(NamedTuple):
    """What bad calls met."""

    answers: dict[str, Answer]
    events: list[Event]
    calls_out: int


@pytest.fixture(scope="module")
def refusals(world: World) -> Refusals:
    """Each bad call, once."""
    before, answers = world.calls_out(), {}
    for name, (tenant, body, path, *_) in BAD.items():
        keyed = {} if tenant is None else {"authorization": f"Bearer {world.keys.get(tenant, 'qk_wrong')}"}
        answers[name] = world.post(body, path, **keyed)
    return Refusals(answers, world.stack.events("requests", "attempts"), world.calls_out() - before)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_is_refused_and_recorded(refusals: Refusals, name: str) -> None:
    """OpenAI's shape with its status; one REFUSED where a tenant is known, and nothing where none is."""
    *_, status, code, recorded = BAD[name]
    answer = refusals.answers[name]

    assert (status, code, SHAPE) == (answer.status, answer.error["code"], answer.error.keys())
    of_it = [e for e in refusals.events if answer.request_id and e.request_id == answer.request_id]
    assert ["REFUSED"] * recorded == [e.kind.value if isinstance(e, RequestEvent) else type(e).__name__ for e in of_it]
    assert [(status, code)] * recorded == [(e.status_code, e.error_code) for e in of_it if isinstance(e, RequestEvent)]


def test_no_bad_call_reaches_a_provider(refusals: Refusals) -> None:
    """The provider counts what comes."""
    assert 0 == refusals.calls_out


def test_a_body_without_end_is_cut_off(world: World) -> None:
    """Nobody is known to send it, so it is refused at once; it may be sent for a while, and no longer."""
    endless = 4 * BODY_DROPPED_BYTES_MAX
    with socket.create_connection(("127.0.0.1", world.stack.gateway_port), timeout=30) as connection:
        connection.sendall(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), endless))
        first = connection.recv(65_536)
        sent, piece = 0, bytes(1024 * 1024)
        with contextlib.suppress(ConnectionError):
            while sent < endless:
                connection.sendall(piece)
                sent += len(piece)

    assert first.startswith(b"HTTP/1.1 401 ")
    assert BODY_BYTES_MAX < sent < endless


OUTCOME = AttemptOutcome
#: How the provider fails, whether it was asked for a stream; status and code that the caller gets, outcome, charged.
Fault = tuple[str, bool, int, str | None, AttemptOutcome, bool]
FAULTS: list[Fault] = [
    ("400", False, 400, "bad_request", OUTCOME.PROVIDER_ERROR, False),
    ("401", False, 502, "provider_configuration", OUTCOME.PROVIDER_ERROR, False),
    ("429", False, 429, "rate_limit_exceeded", OUTCOME.RATE_LIMITED, False),
    ("500", False, 502, "provider_error", OUTCOME.PROVIDER_ERROR, False),
    ("503", False, 503, "provider_overloaded", OUTCOME.PROVIDER_ERROR, False),
    ("500", True, 502, "provider_error", OUTCOME.PROVIDER_ERROR, False),
    ("disconnect", False, 502, "provider_unreachable", OUTCOME.CONNECTION_ERROR, False),
    ("timeout", False, 504, "provider_timeout", OUTCOME.TIMEOUT, True),
    ("timeout", True, 504, "provider_timeout", OUTCOME.TIMEOUT, True),
    ("truncate", False, 502, "provider_truncated", OUTCOME.TRUNCATED, True),
    ("garbage", False, 502, "provider_invalid_response", OUTCOME.INVALID_RESPONSE, True),
    ("disconnect", True, 200, "provider_truncated", OUTCOME.TRUNCATED, True),
    ("truncate", True, 200, "provider_truncated", OUTCOME.TRUNCATED, True),
    ("garbage", True, 200, "provider_invalid_response", OUTCOME.INVALID_RESPONSE, True),
    ("no_usage", False, 200, None, OUTCOME.SUCCEEDED, True),
    ("no_usage", True, 200, None, OUTCOME.SUCCEEDED, True),
]


class Story(NamedTuple):
    """What the log says of a call."""

    ends: list[RequestEvent]
    attempts: list[ProviderAttempt]
    movements: list[BudgetEvent]
    costs: list[CostEvent]


def story_of(events: list[Event], request_id: str | None) -> Story:
    """Its events, by what they are."""
    mine = [event for event in events if event.request_id == request_id]
    return Story(
        [e for e in mine if isinstance(e, RequestEvent) and e.kind.value != "RECEIVED"],
        [e for e in mine if isinstance(e, ProviderAttempt)],
        [e for e in mine if isinstance(e, BudgetEvent)],
        [e for e in mine if isinstance(e, CostEvent)],
    )


def output_nano(story: Story) -> int:
    """What was charged for the answer; what was asked is counted in one case and estimated in another."""
    return sum(cost.amount_nano for cost in story.costs if cost.meter is Meter.OUTPUT_TOKENS)


class Failures(NamedTuple):
    """What calls to a bad provider met."""

    answers: list[Answer]
    events: list[Event]


@pytest.fixture(scope="module")
def failures(world: World) -> Failures:
    """Each failure of the provider, once, side by side."""

    def ask(fault: Fault) -> Answer:
        simulate = {"fail": fault[0], "completion_tokens": 40, "chunk_tokens": 4, "chunk_milliseconds": 20}
        return world.chat("providers", model="bad", stream=fault[1], max_tokens=40, simulate=simulate)

    with ThreadPoolExecutor(len(FAULTS)) as pool:
        answers = list(pool.map(ask, FAULTS))
    return Failures(answers, world.stack.events(*TOPICS))


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[f"{name} {stream}" for name, stream, *_ in FAULTS])
def test_a_failure_of_the_provider_is_told_recorded_and_charged_once(failures: Failures, number: int) -> None:
    """The caller's status, one attempt with its outcome, one end; charged what it used, or freed."""
    *_, status, code, outcome, charged = FAULTS[number]
    answer = failures.answers[number]
    story = story_of(failures.events, answer.request_id)

    assert (status, code) == (answer.status, None if code is None else answer.error["code"])
    assert [outcome] == [attempt.outcome for attempt in story.attempts]
    assert ["FAILED" if code else "COMPLETED"] == [end.kind.value for end in story.ends]
    resolution = BudgetKind.COMMITTED if charged else BudgetKind.RELEASED
    assert [BudgetKind.PLACED, resolution] == [movement.kind for movement in story.movements]
    total_nano = sum(cost.amount_nano for cost in story.costs)
    assert (charged, total_nano if charged else 0) == (
        total_nano > 0,
        story.movements[-1].amount_nano if charged else total_nano,
    )


def test_a_bad_provider_leaks_nothing(world: World, failures: Failures) -> None:
    """What is posted on the limit is what the costs say, and nothing is held."""
    charged = [e for e in failures.events if isinstance(e, CostEvent) and e.tenant_id == "providers"]

    assert [sum(cost.amount_nano for cost in charged)] == list(world.stack.settled("providers").values())


def test_a_caller_that_hangs_up_is_recorded_and_charged_for_what_came(world: World) -> None:
    """In the middle of a stream: FAILED with 499, charged above nothing and below the whole; nothing stays held."""
    words = {"completion_tokens": 400, "chunk_tokens": 4}
    whole = world.chat("leavers", stream=True, max_tokens=400, simulate=words)
    before = sum(world.stack.settled("leavers").values())
    connection = http.client.HTTPConnection("127.0.0.1", world.stack.gateway_port, timeout=30)
    body = chat(stream=True, max_tokens=400, simulate=words | {"chunk_milliseconds": 50})
    connection.request("POST", CHAT, body, {"authorization": f"Bearer {world.keys['leavers']}"})
    response = connection.getresponse()
    request_id = response.headers["x-quaestor-request-id"]
    for _ in range(LINES_READ):
        response.readline()
    connection.close()
    response.close()

    def ended() -> bool:
        return bool(story_of(world.stack.events("requests"), request_id).ends)

    wait_for(ended, EFFECTIVE_SECONDS_MAX, lambda: world.stack.log_of("gateway"))
    events = world.stack.events(*TOPICS)
    story = story_of(events, request_id)
    assert [(499, "client_disconnected")] == [(end.status_code, end.error_code) for end in story.ends]
    assert [AttemptOutcome.CLIENT_DISCONNECTED] == [attempt.outcome for attempt in story.attempts]
    charged = sum(cost.amount_nano for cost in story.costs)
    came, all_of_it = (output_nano(each) for each in (story, story_of(events, whole.request_id)))
    assert 0 < came < all_of_it
    assert before + charged == sum(world.stack.settled("leavers").values())


def test_a_gateway_without_redis_is_not_ready_and_says_why(world: World) -> None:
    """Tenants are known, so their budgets can't be checked; nothing else is named. The last test: Redis stays away."""
    before = world.readiness()
    world.stack.redis.kill()

    wait_for(lambda: not world.readiness()["ready"], EFFECTIVE_SECONDS_MAX, lambda: world.stack.log_of("gateway"))

    unusable = {name: part["why"] for name, part in world.readiness()["parts"].items() if not part["ok"]}
    assert (True, {"admission": "redis_unreachable"}) == (before["ready"], unusable)
