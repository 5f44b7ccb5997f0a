"""Budgets by HTTP in the running product: the gateway refuses beyond what is set there, and repeats are harmless."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.product import Product
from tests.support.gateway_stack import wait_for

SECONDS_MAX = 60.0
TENANT = "steered"
LATER = "2999-01-01T00:00:00Z"


@dataclass
class Answer:
    """Status and body."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def ask(url: str, token: str, body: Any = None, method: str = "GET", **headers: str) -> Answer:
    """What an address answers, errors too."""
    given = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, given, method=method)  # noqa: S310 - ours
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - ours
            return Answer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())


@dataclass
class Steered:
    """A tenant whose calls are few, and who says how many they may be."""

    product: Product
    key: str

    def change(self, path: str, body: Any, key: str) -> Answer:
        """A change by the console."""
        url = f"{self.product.setting('console_url')}/api{path}"
        return ask(url, self.product.token, body, "POST" if body else "DELETE", idempotency_key=key)

    def read(self, path: str) -> Any:
        """What the console tells."""
        return ask(f"{self.product.setting('console_url')}/api{path}", self.product.token).json()

    def call(self) -> Answer:
        """One call through the gateway."""
        body = {"model": "default", "max_tokens": 8, "messages": [{"role": "user", "content": "Is there any left?"}]}
        return ask(f"{self.product.setting('gateway_url')}/v1/chat/completions", self.key, body, "POST")

    def until(self, status: int) -> Answer:
        """The first call that ends so."""
        last: list[Answer] = []

        def ended() -> bool:
            last[:] = [self.call()]
            return last[0].status == status

        wait_for(ended, SECONDS_MAX, lambda: str(last))
        return last[0]


@pytest.fixture
def steered(product: Product) -> Steered:
    """A new tenant with a key."""
    return Steered(product, product.key(TENANT))


def test_the_gateway_follows_what_the_console_sets(product: Product, steered: Steered) -> None:
    """Nothing is admitted beyond the limit, more when it is raised, more for a while; what is left is told."""
    wanted = {"tenant": TENANT, "currency": "requests", "window": "total"}
    closed = steered.change("/budgets", wanted | {"amount": "0"}, "closed")
    limit = closed.json()["limit"]["id"]

    refused = steered.until(429).json()["error"]
    assert (limit, "rate_limit_exceeded") == (refused["limit_id"], refused["code"])

    assert 200 == steered.change("/budgets", wanted | {"amount": "3"}, "raised").status
    steered.until(200)
    assert [200, 200, 429] == [steered.call().status for _ in range(3)]

    more = {"amount": "1", "valid_until": LATER, "approval_code": "FIN-1"}
    assert "4" == steered.change(f"/budgets/{limit}/increases", more, "more").json()["limit"]["allowed"]
    steered.until(200)
    assert 429 == steered.call().status

    wait_for(lambda: "4" == standing(steered, limit)["charged"], SECONDS_MAX, lambda: str(standing(steered, limit)))
    assert ("4", "0", "0") == tuple(standing(steered, limit)[name] for name in ("allowed", "held", "left"))
    told = product.json("budget", "list", "--tenant", TENANT)["limits"]
    assert told == steered.read(f"/budgets?tenant={TENANT}")["limits"]

    assert 200 == steered.change(f"/budgets/{limit}", None, "gone").status
    steered.until(200)
    assert [] == steered.read(f"/budgets?tenant={TENANT}")["limits"]


def test_a_change_is_known_to_the_console_that_takes_over(product: Product, steered: Steered) -> None:
    """Killed after it answered, it gives the same answer again, and the log has one event of it."""
    wanted = {"tenant": TENANT, "amount": "12.50", "currency": "EUR", "window": "week", "reason": "kill"}
    first = steered.change("/budgets", wanted, "killed")
    pid = product.processes()["console"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: product.processes()["console"]["state"] == "running", SECONDS_MAX)
    assert product.processes()["console"]["pid"] != pid

    again = steered.change("/budgets", wanted, "killed")
    other = steered.change("/budgets", wanted | {"amount": "13"}, "killed")

    assert (200, first.body) == (first.status, again.body)
    assert (409, "amount") == (other.status, other.json()["field"])
    event_id = first.json()["event_id"]
    wait_for(lambda: [event_id] == recorded(product, event_id), SECONDS_MAX, lambda: str(recorded(product, event_id)))


def standing(steered: Steered, limit: str) -> Any:
    """What is used of the limit."""
    return steered.read(f"/budgets/{limit}")["standings"][0]


def recorded(product: Product, event_id: str) -> list[str]:
    """The audit log's entries of this event, by who made it."""
    found = product.json("audit", "search", "--tenant", TENANT, "--type", "control/created", "--from", "1h")["entries"]
    return [entry["event_id"] for entry in found if entry["event_id"] == event_id and "console/" in entry["actor"]]
