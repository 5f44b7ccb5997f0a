"""What this machine makes of work that is not ours, beside the gateway in the same run.

    python -m benchmarks.yardsticks [--litellm ENVIRONMENT/bin/litellm] [--seconds 10]

LiteLLM's proxy (one worker, no database, accounting off) is called in the same way as the gateway, so that its
published figures and ours can be brought to one measure. And two groups of records, as a request makes them, are
recorded one after the other by librdkafka alone: less than that no gateway can take that waits for both.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.measure import cpu_seconds, machine, percentile, wrk
from benchmarks.product import BEHIND_THE_LOG, Product, body, running, wait_for_answer
from infra.embedded.ports import free_ports
from schemas.topics import PARTITIONS
from streams.kafka import configuration

WARM_UP_SECONDS = 40
START_SECONDS_MAX = 120
MODEL = "sim-small"
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer none"}
#: A request's two groups: before the call, and after it.
GROUPS = (("requests", "decisions", "budgets"), ("attempts", "costs", "budgets", "requests"))
GROUPS_RECORDED = 300
RECORD_BYTES = 250
LITELLM = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{url}", api_key: none}}
litellm_settings: {{num_retries: 0, telemetry: false}}
"""


@dataclass(frozen=True)
class Server:
    """What is called."""

    name: str
    url: str
    headers: dict[str, str]
    model: str
    #: Whose CPU is counted, with its children's; 0 for nobody's.
    pid: int


@contextmanager
def litellm(program: str, simulator_url: str) -> Iterator[Server]:
    """LiteLLM's proxy in front of the simulated provider."""
    (port,) = free_ports(1)
    quiet = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    # It listens on loopback for the length of this run.
    quiet["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "litellm.yaml"
        settings.write_text(LITELLM.format(model=MODEL, url=simulator_url), encoding="utf-8")
        command = [program, "--config", str(settings), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        proxy = subprocess.Popen(command, env=os.environ | quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            wait_for_answer(url, body(model=MODEL), HEADERS, START_SECONDS_MAX, lambda: proxy.poll() is not None)
            yield Server("LiteLLM", url, HEADERS, MODEL, proxy.pid)
        finally:
            proxy.terminate()
            proxy.wait(START_SECONDS_MAX)


def compare(product: Product, program: str | None, seconds: int) -> None:
    """Every server at 32 connections and at one, in turns."""
    gateway_url, simulator_url = f"{product.gateway_url}/v1/chat/completions", product.simulator_url
    servers = [
        Server("direct", f"{simulator_url}/chat/completions", HEADERS, MODEL, 0),
        Server("gateway, log only", gateway_url, product.headers, "fast", product.pid("gateway")),
    ]
    if program is None:
        _rows(servers, seconds)
        return
    with litellm(program, simulator_url) as proxy:
        _rows([*servers, proxy], seconds)


def _rows(servers: list[Server], seconds: int) -> None:
    head = ("server", "connections", "requests/s", "CPU ms/request", "p50 ms", "p99 ms", "errors")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for connections in (32, 1):
        for server in servers:
            sent = body(model=server.model)
            wrk(server.url, sent, server.headers, connections=connections, seconds=WARM_UP_SECONDS)
            before = cpu_seconds(server.pid) if server.pid else 0.0
            found = wrk(server.url, sent, server.headers, connections=connections, seconds=seconds)
            spent = cpu_seconds(server.pid) - before if server.pid else 0.0
            figures = (found.requests_per_second, 1_000 * spent / max(1, found.requests))
            times = f"{found.p50_milliseconds:.2f} | {found.p99_milliseconds:.2f}"
            print(
                f"| {server.name} | {connections} | {figures[0]:.0f} | {figures[1]:.2f} | {times} | {found.errors} |",
                flush=True,
            )


def recorded_alone(bootstrap: str) -> list[float]:
    """Milliseconds that a request's two groups take one after the other, by librdkafka alone, sent at once."""
    names = {name: f"benchmark.{name}" for name in itertools.chain(*GROUPS)}
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names.values()]).values():
        made.result()
    producer = Producer(configuration.producer(bootstrap, "quaestor-benchmark", 0))
    spent = []
    for number in range(GROUPS_RECORDED):
        began_at = time.perf_counter()
        for group in GROUPS:
            _record(producer, [names[name] for name in group], f"bench/{number}")
        spent.append(1_000 * (time.perf_counter() - began_at))
    return sorted(spent[GROUPS_RECORDED // 3 :])


def _record(producer: Producer, topics: list[str], key: str) -> None:
    acknowledged = threading.Semaphore(0)
    for topic in topics:
        producer.produce(topic, bytes(RECORD_BYTES), key, on_delivery=lambda *_: acknowledged.release())
    for _ in topics:
        while not acknowledged.acquire(blocking=False):
            producer.poll(1)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.yardsticks")
    parser.add_argument("--litellm", help="the program of an environment that has litellm[proxy]")
    parser.add_argument("--seconds", type=int, default=10, help="length of each row")
    given = parser.parse_args()
    print(f"Machine: {machine()}\n")
    with running() as product, product.stopped(BEHIND_THE_LOG):
        compare(product, given.litellm, given.seconds)
        alone = recorded_alone(product.settings().kafka_bootstrap)
        p50, p99 = (percentile(alone, share) for share in (0.5, 0.99))
        print(f"\nA request's two groups of records by librdkafka alone: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
