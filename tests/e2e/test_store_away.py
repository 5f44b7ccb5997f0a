"""A store that is away: `quaestor status` says which sink waits, its retries are counted, and it goes on by itself."""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from infra.embedded.state import State
from tests.e2e.product import Product
from tests.e2e.test_faults import wait_until

RETRIES = re.compile(r"^quaestor_store_retries_total\{.*\} (\S+)$", re.MULTILINE)
#: Each server, a sink that can't work without it, and its name in what is said of it.
WAITING = {
    "postgres": ("sink-postgres", "Postgres"),
    "redis": ("sink-redis", "Redis"),
    "clickhouse": ("sink-clickhouse", "ClickHouse"),
    "kafka": ("sink-audit", "Kafka"),
}


def retries(product: Product, sink: str) -> float:
    """What a process's metrics count now."""
    port = product.processes()[sink]["monitor_port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return sum(map(float, RETRIES.findall(answer.read().decode())))


def works(product: Product, *names: str) -> bool:
    """Whether these processes run, and the sinks among them have applied everything."""
    now = product.processes()
    return all(now[name]["state"] == "running" and not now[name]["lag_events"] for name in names)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that is stopped for the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def supervisor(product: Product) -> int:
    """Who starts again what ended; frozen, nobody does."""
    state = State.read(product.data)
    assert state is not None
    return state.supervisor_pid


def call(product: Product, key: str) -> None:
    """Calls, answered or not: what is recorded of them has to be written."""
    product.run("load", "--requests", "20", "--rate", "40", "--key", key, check=False)


@pytest.fixture(scope="module")
def key(product: Product) -> str:
    """Made while everything runs."""
    return product.key("away")


@pytest.mark.parametrize(("server", "sink", "name"), [(each, *WAITING[each]) for each in WAITING], ids=WAITING)
def test_status_names_the_store_that_is_away(product: Product, key: str, server: str, sink: str, name: str) -> None:
    """Killed, and not started again: its sink waits, counts what it tries, and ends its work once it is back."""
    call(product, key)
    wait_until(lambda: works(product, sink), f"{sink} at the end of the log")
    before = retries(product, sink)
    with frozen(supervisor(product)):
        os.kill(product.processes()[server]["pid"], signal.SIGKILL)
        if server in {"postgres", "clickhouse"}:
            call(product, key)
        wait_until(lambda: product.processes()[sink]["state"] == "waiting", f"{sink} waiting")
        wait_until(lambda: retries(product, sink) > before + 1, "retries")
        assert re.search(f"waiting {sink}: .*{name}", product.run("status", check=False))
        assert server not in [name for name, each in product.processes().items() if each["state"] == "running"]
    wait_until(lambda: works(product, server, sink), f"{sink} at the end of the log again")


def test_status_names_the_registry_that_is_away(product: Product, key: str) -> None:
    """Sinks remember schemas: one that is started meanwhile has to ask, waits, and applies everything afterwards."""
    sink = "sink-clickhouse"
    wait_until(lambda: works(product, "registry", sink), f"{sink} at the end of the log")
    before = product.processes()
    with frozen(before["registry"]["pid"]):
        os.kill(before[sink]["pid"], signal.SIGKILL)
        wait_until(lambda: product.processes()[sink]["pid"] not in {None, before[sink]["pid"]}, f"{sink} started again")
        call(product, key)
        wait_until(lambda: product.processes()[sink]["state"] == "waiting", f"{sink} waiting")
        wait_until(lambda: retries(product, sink) > 1, "retries")
    wait_until(lambda: works(product, "registry", sink), f"{sink} at the end of the log")
