"""Kafka stopped and gateways killed under a running request, on real servers: nothing answered is lost."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from api.gateway.spool import waiting_bytes
from infra.embedded.servers.kafka import KafkaServer
from infra.embedded.servers.probes import http_json
from schemas.events import BudgetEvent, BudgetKind, RequestEvent
from tests.support.gateway_stack import GatewayStack, gateway_stack, wait_for
from tests.support.kafka_server import start_kafka

#: The provider answers after this long, so that a test can do harm in between.
LATENCY_MILLISECONDS = 4_000
SECONDS_MAX = 60.0
#: Less than the head of a frame: nobody was answered for it.
TORN_BYTES = 7


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaServer]:
    """A broker that these tests may stop."""
    server = start_kafka()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def stack(kafka: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayStack]:
    """Everything, with a slow provider and no gateway yet."""
    bootstrap = kafka.settings()["kafka_bootstrap"]
    options = ("--latency", str(LATENCY_MILLISECONDS))
    with gateway_stack(tmp_path_factory.mktemp("faults"), *options, kafka=bootstrap) as running:
        yield running


def post(stack: GatewayStack, key: str) -> tuple[int, dict[str, str], Any]:
    """One plain chat: status, headers, body. Status 0 when nobody answered."""
    body = json.dumps({"model": "fast", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{stack.url}/v1/chat/completions", body, {"authorization": f"Bearer {key}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - loopback
            return response.status, dict(response.headers), json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), json.load(error)
    except OSError:
        return 0, {}, None


def in_flight(stack: GatewayStack, pool: ThreadPoolExecutor, key: str) -> Future[tuple[int, dict[str, str], Any]]:
    """A request whose hold is in the log, so that the provider is being called; refused ones are asked again."""
    before = placed(stack)
    running = pool.submit(post, stack, key)

    def called() -> bool:
        nonlocal running
        if running.done():
            running = pool.submit(post, stack, key)
        return placed(stack) > before

    wait_for(called, SECONDS_MAX, lambda: stack.log_of("gateway"))
    return running


def placed(stack: GatewayStack) -> int:
    """Holds in the log."""
    return sum(isinstance(e, BudgetEvent) and e.kind is BudgetKind.PLACED for e in stack.events("budgets"))


def kinds_of(stack: GatewayStack, request_id: str) -> list[str]:
    """The requests events of a request."""
    events = [e for e in stack.events("requests") if isinstance(e, RequestEvent) and e.request_id == request_id]
    return sorted(event.kind.value for event in events)


def test_kafka_gone_under_a_running_request(stack: GatewayStack, kafka: KafkaServer) -> None:
    """Answered from the spool, new ones are 503; once Kafka is back, its end is in the log, and its hold is settled.

    Meanwhile the status counts what waits, and what a gateway that is gone left.
    """
    monitor_port = stack.monitor_ports[0]
    gateway = stack.start_gateway(QUAESTOR_MONITOR_PORT=str(monitor_port))
    stack.limit("outage", 1.0)
    key = stack.key("outage")
    with ThreadPoolExecutor(1) as pool:
        running = in_flight(stack, pool, key)
        kafka.stop()
        status, headers, _ = running.result(SECONDS_MAX)
    refused = post(stack, key)
    (stack.data / "spool" / "gateway-gone-000001.spool").write_bytes(bytes(TORN_BYTES))
    spooled = waiting_bytes(stack.data / "spool")
    wait_for(lambda: http_json(monitor_port, "/status").get("spool_bytes") == spooled, SECONDS_MAX)
    kafka.start()
    wait_for(lambda: post(stack, key)[0] == 200, SECONDS_MAX, lambda: stack.log_of("gateway"))
    stack.stop(gateway)

    assert (200, 503) == (status, refused[0])
    assert refused[1]["retry-after"]
    assert spooled > TORN_BYTES
    assert ["COMPLETED", "RECEIVED"] == kinds_of(stack, headers["x-quaestor-request-id"])
    movements = [e for e in stack.events("budgets") if isinstance(e, BudgetEvent) and e.tenant_id == "outage"]
    committed = {e.hold_id: e.amount_nano for e in movements if e.kind is BudgetKind.COMMITTED}
    assert [sum(committed.values())] == list(stack.settled("outage").values())
    assert headers["x-quaestor-request-id"] in {e.request_id for e in movements if e.hold_id in committed}


def test_a_killed_gateway_leaves_its_spool_to_the_next(stack: GatewayStack, kafka: KafkaServer) -> None:
    """Answered from the spool, then killed before Kafka came back: the next process writes the end."""
    gateway = stack.start_gateway()
    key = stack.key("killed")
    with ThreadPoolExecutor(1) as pool:
        running = in_flight(stack, pool, key)
        kafka.stop()
        status, headers, _ = running.result(SECONDS_MAX)
    stack.stop(gateway, signal.SIGKILL)
    kafka.start()
    successor = stack.start_gateway()

    assert 200 == status
    assert ["COMPLETED", "RECEIVED"] == kinds_of(stack, headers["x-quaestor-request-id"])
    assert [] == list((stack.data / "spool").glob("*.spool"))
    stack.stop(successor)


def test_a_gateway_killed_in_the_call_leaves_an_open_hold(stack: GatewayStack, tmp_path: Path) -> None:
    """Nobody was answered, and PLACED is in the log for the reaper to close when its lease ends."""
    gateway = stack.start_gateway()
    key = stack.key("crashed")
    with ThreadPoolExecutor(1) as pool:
        running = in_flight(stack, pool, key)
        stack.stop(gateway, signal.SIGKILL)
        status, _, _ = running.result(SECONDS_MAX)
    movements = [e for e in stack.events("budgets") if isinstance(e, BudgetEvent) and e.tenant_id == "crashed"]
    open_holds = {e.hold_id for e in movements if e.kind is BudgetKind.PLACED} - {
        e.hold_id for e in movements if e.kind is not BudgetKind.PLACED
    }

    assert (0, 1) == (status, len(open_holds))
