"""The gateway under wrk, each row beside the direct call to the simulated provider in the same run.

`python -m benchmarks gateway` starts the whole product on free ports in a temporary folder, and stops it afterwards.
With --without-sinks, streams and sinks but the Redis one (admission needs it) are stopped before measuring.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Closed, cpu_seconds, machine, resident_mebibytes, wrk

QUAESTOR = Path(sys.executable).parent / "quaestor"
BODY_BYTES = 300
WARM_UP_SECONDS = 5
SECONDS = 20
CATCH_UP_SECONDS = 120


@dataclass(frozen=True)
class Row:
    """One line of the results."""

    what: str
    gateway: Closed
    direct: Closed
    cpu_milliseconds_per_request: float


class Bench:
    """A running product to be measured."""

    def __init__(self, data: Path) -> None:
        """Start it."""
        self.environment = os.environ | {"QUAESTOR_DATA": str(data), "QUAESTOR_PORTS": "auto"}
        self.run("up")
        endpoints = json.loads((data / "endpoints.json").read_text(encoding="utf-8"))
        self.gateway_url = endpoints["settings"]["gateway_url"]
        self.simulator_url = endpoints["settings"]["simulator_url"]
        key = json.loads(self.run("key", "create", "--tenant", "bench", "--team", "a", "--project", "b", "--json"))[
            "key"
        ]
        self.run("budget", "set", "--tenant", "bench", "--amount", "1000000", "--currency", "USD", "--window", "total")
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._wait_for_answer()

    def run(self, *arguments: str) -> str:
        """Standard output of a command."""
        done = subprocess.run(
            [str(QUAESTOR), *arguments], check=True, stdout=subprocess.PIPE, text=True, env=self.environment
        )
        return done.stdout

    def status(self) -> dict[str, Any]:
        """What `status` says of each process."""
        command = [str(QUAESTOR), "status", "--json"]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=self.environment)
        return {process["name"]: process for process in json.loads(done.stdout)["processes"]}

    def _wait_for_answer(self) -> None:
        request = urllib.request.Request(f"{self.gateway_url}/v1/chat/completions", body(), self.headers)  # noqa: S310 - loopback
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
                    answer.read()
                    return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def pause(self, names: tuple[str, ...], number: signal.Signals) -> None:
        """SIGSTOP or SIGCONT processes by their ids."""
        for name, process in self.status().items():
            if name in names and process["pid"]:
                os.kill(process["pid"], number)

    def measure(self, what: str, connections: int, seconds: int, *, stream: bool = False) -> Row:
        """One row: the gateway, then the simulated provider directly."""
        gateway_pid = self.status()["gateway"]["pid"]
        url = f"{self.gateway_url}/v1/chat/completions"
        wrk(url, body(stream=stream), self.headers, connections=connections, seconds=WARM_UP_SECONDS)
        before = cpu_seconds(gateway_pid)
        through = wrk(url, body(stream=stream), self.headers, connections=connections, seconds=seconds)
        spent = cpu_seconds(gateway_pid) - before
        direct = wrk(
            f"{self.simulator_url}/chat/completions",
            body(stream=stream, model="sim-small"),
            self.headers,
            connections=connections,
            seconds=min(5, seconds),
        )
        return Row(what, through, direct, 1_000 * spent / max(1, through.requests))


def body(*, stream: bool = False, model: str = "fast") -> bytes:
    """A request body of 300 bytes; a stream of 24 chunks."""
    made: dict[str, Any] = {"model": model, "max_tokens": 192 if stream else 8, "messages": []}
    if stream:
        made["stream"] = True
    made["messages"] = [{"role": "user", "content": ""}]
    made["messages"][0]["content"] = ("word " * 60)[: BODY_BYTES - len(json.dumps(made))]
    return json.dumps(made).encode()


STOPPED = ("stream-ledger", "stream-budgets", "stream-health", "sink-postgres", "sink-clickhouse", "sink-audit")


def run(seconds: int) -> dict[str, Any]:
    """All rows, with sinks stopped and running; the results as they stand in docs/reference/performance.md."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder) / "data")
        try:
            bench.pause(STOPPED, signal.SIGSTOP)
            try:
                rows = [
                    bench.measure("32 connections, sinks stopped", 32, seconds),
                    bench.measure("1 connection, sinks stopped", 1, seconds),
                    bench.measure("24-chunk stream, 32 connections, sinks stopped", 32, seconds, stream=True),
                ]
            finally:
                bench.pause(STOPPED, signal.SIGCONT)
            rows.append(bench.measure("32 connections, all streams and sinks running", 32, seconds))
            memory = resident_mebibytes(bench.status()["gateway"]["pid"])
            return {"machine": machine(), "rows": rows, "gateway_mebibytes": memory}
        finally:
            bench.run("down")


def show(results: dict[str, Any]) -> None:
    """Print the results as a Markdown table."""
    print(f"Machine: {results['machine']}\n")
    print("| what | requests/s | CPU ms/request | p50 / p99 ms | added p50 / p99 ms | errors |")
    print("|---|---|---|---|---|---|")
    for row in results["rows"]:
        through, direct = row.gateway, row.direct
        p50, p99 = through.p50_milliseconds, through.p99_milliseconds
        added = f"{p50 - direct.p50_milliseconds:.2f} / {p99 - direct.p99_milliseconds:.2f}"
        cells = (row.what, f"{through.requests_per_second:.0f}", f"{row.cpu_milliseconds_per_request:.2f}")
        print(f"| {' | '.join(cells)} | {p50:.2f} / {p99:.2f} | {added} | {through.errors} |")
    print(f"\nGateway memory after the runs: {results['gateway_mebibytes']:.0f} MiB")
