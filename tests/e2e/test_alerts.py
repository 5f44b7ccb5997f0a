"""Alerts of the whole product: from a call to a webhook, across a death of the process that watches."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from api.alerts.http import signed_headers
from processors.guardrails.hours import MICROS_PER_HOUR, Standing, hour_of
from sinks.postgres.hours import PostgresHours
from tests.e2e.product import Product
from tests.support.gateway_stack import wait_for

SECONDS_MAX = 60.0
SECRET = "between the two of us"
Came = queue.Queue[tuple[dict[str, str], bytes]]


@pytest.fixture
def receiver() -> Iterator[tuple[str, Came]]:
    """A webhook on loopback: its URL, and what came."""
    came: Came = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()
            came.put(({name.lower(): value for name, value in self.headers.items()}, body))

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", came
    server.shutdown()
    server.server_close()


def test_an_alert_reaches_its_webhook_once_whatever_dies(product: Product, receiver: tuple[str, Came]) -> None:
    """Signed, listed as sent, and not told again by the process that takes over; the next threshold is."""
    url, came = receiver
    target, secret = product.data / "hook-url", product.data / "hook-key"
    target.write_text(url, encoding="utf-8")
    secret.write_text(SECRET, encoding="utf-8")
    key = product.key("warned")
    channel = ("--tenant", "warned", "--kind", "webhook", "--target", f"file:{target}", "--secret", f"file:{secret}")
    product.run("alert", "add", "hook", *channel)
    limit = ("--tenant", "warned", "--unit", "requests", "--amount", "10", "--window", "total")
    product.run("budget", "set", *limit, "--threshold", "20", "--threshold", "40")
    call = ("load", "--requests", "2", "--key", key, "--json")

    product.run(*call)
    headers, body = came.get(timeout=SECONDS_MAX)
    pid = product.processes()["stream-guardrails"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: product.processes()["stream-guardrails"]["pid"] not in {None, pid}, SECONDS_MAX)
    product.run(*call)
    _, second = came.get(timeout=SECONDS_MAX)

    assert ["20%", "40%"] == [json.loads(each)["data"]["threshold"] for each in (body, second)]
    sent_at = int(headers["webhook-timestamp"])
    assert (
        signed_headers(headers["webhook-id"], sent_at, body, SECRET)["webhook-signature"]
        == headers["webhook-signature"]
    )
    wait_for(lambda: 2 == len([one for one in told(product) if one["deliveries"]]), SECONDS_MAX)
    assert {("hook", "sent")} == {(end["channel"], end["state"]) for one in told(product) for end in one["deliveries"]}
    assert came.empty()


def told(product: Product) -> list[Any]:
    """The tenant's alerts."""
    found: list[Any] = product.json("alert", "list", "--tenant", "warned")["alerts"]
    return found


def test_a_channel_can_be_tried(product: Product, receiver: tuple[str, Came]) -> None:
    """Once, at once, and nothing of it is recorded; a wrong address is said without being shown."""
    url, came = receiver
    target = product.data / "tried-url"
    target.write_text(url, encoding="utf-8")
    product.run("alert", "add", "tried", "--kind", "slack", "--target", f"file:{target}")

    product.run("alert", "test", "tried")
    assert "a test of channel tried" in came.get(timeout=SECONDS_MAX)[1].decode()

    target.write_text("http://203.0.113.1/secret-path", encoding="utf-8")
    assert "" == product.run("alert", "test", "tried", check=False)
    product.run("alert", "remove", "tried")
    assert "tried" not in product.run("alert", "channels", "--json")


async def keep_hours(product: Product, tenant_id: str, limit_id: str, count: int) -> None:
    """The last hours of a limit, as an earlier process left them in Postgres: a window began with each."""
    store = PostgresHours(product.setting("postgres_dsn"))
    ended = hour_of(time.time_ns() // 1_000) - 1
    given = {hour: Standing(hour * MICROS_PER_HOUR, 1_000_000_000) for hour in range(ended - count + 1, ended + 1)}
    await store.put(tenant_id, limit_id, given)
    await store.close()


def test_hours_that_redis_lacks_come_from_postgres(product: Product) -> None:
    """Who takes over the watch gives them back, and `budget status` projects from them."""
    product.key("foreseen")
    of_tenant = ("--tenant", "foreseen")
    limit_id = product.json("budget", "set", *of_tenant, "--amount", "1000", "--window", "month")["id"]

    def projected() -> Any:
        (shown,) = product.json("budget", "status", *of_tenant)["limits"]
        return shown["projected"]

    assert projected() is None
    asyncio.run(keep_hours(product, "foreseen", limit_id, count=6))
    os.kill(product.processes()["stream-guardrails"]["pid"], signal.SIGKILL)
    wait_for(lambda: projected() is not None, SECONDS_MAX)
    assert 6 <= projected()["hours"]
