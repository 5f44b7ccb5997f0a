"""A running product to be measured: the whole of `quaestor up`, on free ports in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from api.settings import Settings
from benchmarks.filling import settings_of
from benchmarks.measure import cpu_seconds, resident_mebibytes

QUAESTOR = Path(sys.executable).parent / "quaestor"
ANSWER_SECONDS_MAX = 60
DRAIN_SECONDS_MAX = 600
#: A server rests when it took no more than so much of a core for so long.
RESTING_CORES, REST_SECONDS = 0.15, 5.0
BODY_BYTES = 300
#: All but the gateway, what it needs for admission, and the servers.
BEHIND_THE_LOG = (
    *("stream-ledger", "stream-budgets", "stream-health", "stream-guardrails"),
    *("sink-postgres", "sink-clickhouse", "sink-audit"),
)


class Product:
    """What a benchmark asks of the running product."""

    def __init__(self, data: Path) -> None:
        """Start it, with a key and a budget that no benchmark uses up."""
        self.data = data
        self.environment = os.environ | {"QUAESTOR_DATA": str(data), "QUAESTOR_PORTS": "auto"}
        self.up_seconds = self._time_up()
        made = self.run("key", "create", "--tenant", "bench", "--team", "a", "--project", "b", "--json")
        self.headers = {"Authorization": f"Bearer {json.loads(made)['key']}", "Content-Type": "application/json"}
        self.run("budget", "set", "--tenant", "bench", "--amount", "1000000", "--currency", "USD", "--window", "total")
        self._wait_for_answer()

    def run(self, *arguments: str) -> str:
        """Standard output of a command."""
        command = [str(QUAESTOR), *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=self.environment).stdout

    def settings(self) -> Settings:
        """Settings by which clients find the servers."""
        found = json.loads((self.data / "endpoints.json").read_text(encoding="utf-8"))["settings"]
        return settings_of(self.data, found)

    @property
    def gateway_url(self) -> str:
        """Where the gateway listens."""
        return self.settings().gateway_url

    @property
    def simulator_url(self) -> str:
        """Where the simulated provider listens."""
        return self.settings().simulator_url

    def restart_seconds(self) -> float:
        """Seconds that `up` takes on a data directory that has been used."""
        self.run("down")
        seconds = self._time_up()
        self._wait_for_answer()
        return seconds

    def _time_up(self) -> float:
        started = time.monotonic()
        self.run("up")
        return time.monotonic() - started

    def processes(self) -> dict[str, dict[str, Any]]:
        """What `status` says of each process."""
        command = [str(QUAESTOR), "status", "--json"]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=self.environment)
        return {process["name"]: process for process in json.loads(done.stdout)["processes"]}

    def pid(self, name: str) -> int:
        """Process id of one of the processes."""
        return int(self.processes()[name]["pid"])

    def mebibytes(self) -> dict[str, float]:
        """Resident memory of each process and what it started."""
        return {
            name: resident_mebibytes(process["pid"]) for name, process in self.processes().items() if process["pid"]
        }

    @contextmanager
    def stopped(self, names: Sequence[str] = BEHIND_THE_LOG) -> Iterator[None]:
        """Processes that do nothing for as long as the block lasts."""
        pids = [process["pid"] for name, process in self.processes().items() if name in names]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def drain(self) -> float:
        """Wait until nothing lags; seconds that took."""
        started = time.monotonic()
        while any(process.get("lag_events") for process in self.processes().values()):
            if time.monotonic() - started > DRAIN_SECONDS_MAX:
                raise TimeoutError(f"still lagging after {DRAIN_SECONDS_MAX} s")
            time.sleep(1)
        return time.monotonic() - started

    def rest(self) -> None:
        """Wait until ClickHouse has merged what came: it goes on with that behind what it has acknowledged."""
        pid, until = self.pid("clickhouse"), time.monotonic() + DRAIN_SECONDS_MAX
        while time.monotonic() < until:
            before = cpu_seconds(pid)
            time.sleep(REST_SECONDS)
            if cpu_seconds(pid) - before < RESTING_CORES * REST_SECONDS:
                return
        raise TimeoutError(f"ClickHouse still works after {DRAIN_SECONDS_MAX} s")

    def _wait_for_answer(self) -> None:
        wait_for_answer(f"{self.gateway_url}/v1/chat/completions", body(), self.headers, ANSWER_SECONDS_MAX)


def wait_for_answer(
    url: str, sent: bytes, headers: Mapping[str, str], seconds_max: float, given_up: Callable[[], bool] = lambda: False
) -> None:
    """POST until it is answered; raises OSError when it never is, at once when `given_up`."""
    request = urllib.request.Request(url, sent, dict(headers))  # noqa: S310 - loopback
    deadline = time.monotonic() + seconds_max
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
                answer.read()
                return
        except OSError:
            if given_up() or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextmanager
def running() -> Iterator[Product]:
    """The product, for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        product = Product(Path(folder) / "data")
        try:
            yield product
        finally:
            product.run("down")


def body(*, model: str = "fast", stream: bool = False, latency_milliseconds: int = 0) -> bytes:
    """A request body of 300 bytes; a stream is one of 24 chunks with words."""
    made: dict[str, Any] = {"model": model, "max_tokens": 192 if stream else 8}
    if stream:
        made["stream"] = True
    if latency_milliseconds:
        made["simulate"] = {"latency_milliseconds": latency_milliseconds}
    made["messages"] = [{"role": "user", "content": ""}]
    made["messages"][0]["content"] = ("word " * 60)[: BODY_BYTES - len(json.dumps(made))]
    return json.dumps(made).encode()
