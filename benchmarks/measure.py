"""Measuring from outside: CPU and memory of process trees, and wrk's closed loop. Loopback only, bounded in time."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

LOOPS, LOOP_STEPS = 3, 2_000_000
WRK_TIMEOUT_EXTRA_SECONDS = 60
MONITOR_SECONDS_MAX = 5
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class Measured:
    """Result of one load."""

    requests: int
    requests_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    errors: int


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of sorted values lie; 0 without values."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def monitor_url(pid: int) -> str:
    """Where a process of ours says what it does; reads every connection of the machine, so it is asked for once."""
    listening = (each for each in psutil.Process(pid).net_connections("tcp") if each.status == psutil.CONN_LISTEN)
    return f"http://127.0.0.1:{next(listening).laddr.port}"


def told_by(url: str) -> str:
    """What a process says of itself at its monitor's URL; costs it and us a millisecond."""
    with urllib.request.urlopen(url, timeout=MONITOR_SECONDS_MAX) as answer:  # noqa: S310 - a monitor_url's
        return str(answer.read().decode())


def tree(pid: int) -> list[psutil.Process]:
    """A process and everything it started."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process tree so far, with those of its processes that ended."""
    return sum(sum(process.cpu_times()[:4]) for process in tree(pid))


def resident_mebibytes(pid: int) -> float:
    """Resident memory of a process tree (proportional where the kernel tells)."""
    total = 0
    for process in tree(pid):
        memory = process.memory_full_info()
        total += getattr(memory, "pss", 0) or memory.rss
    return total / 2**20


def wrk(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    connections: int,
    seconds: int,
) -> Measured:
    """POST the body over so many connections, as fast as answers come; raises when wrk is missing or fails."""
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    script = "\n".join(['wrk.method = "POST"', f"wrk.body = {json.dumps(body.decode())}", *lines])
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--latency",
            "--timeout",
            "30s",
            "-s",
            file.name,
            url,
        ]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=seconds + WRK_TIMEOUT_EXTRA_SECONDS
        )
    return parse_wrk(done.stdout)


def parse_wrk(text: str) -> Measured:
    """The figures of wrk's report."""

    def latency(share: str) -> float:
        found = re.search(rf"{share}%\s+([\d.]+)(us|ms|s|m)\b", text)
        return float(found[1]) * UNITS[found[2]] if found else 0.0

    requests = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return Measured(
        requests=int(requests[1]) if requests else 0,
        requests_per_second=float(rate[1]) if rate else 0.0,
        p50_milliseconds=latency("50"),
        p99_milliseconds=latency("99"),
        errors=(int(refused[1]) if refused else 0) + (sum(map(int, sockets.groups())) if sockets else 0),
    )


def machine() -> str:
    """One line on where this was measured."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory = psutil.virtual_memory().total / 2**30
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
    python = f"Python {platform.python_version()} (loop {loop_seconds():.3f} s)"
    return f"{psutil.cpu_count()} x {model}, {memory:.0f} GiB, {python}, {now} UTC"


def loop_seconds() -> float:
    """CPU seconds of one fixed loop, the best of three: a machine whose neighbours are busy takes twice as long."""
    return min(_loop() for _ in range(LOOPS))


def _loop() -> float:
    began, total = time.process_time(), 0
    for number in range(LOOP_STEPS):
        total += number * number
    return time.process_time() - began
