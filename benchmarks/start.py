"""`quaestor up` from cached artifacts: how long, whose CPU, how much memory.

    python -m benchmarks.start [--rounds 5]

Each round starts the whole product in a new folder, stops it, and starts it again in the same one: the first makes
databases, topics and schemas, the second finds them. CPU is what each process and the children of it that ended took
until all was ready.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

import psutil

from benchmarks.measure import loop_seconds, machine, resident_mebibytes
from benchmarks.product import QUAESTOR

#: Over before our own processes begin.
MIGRATIONS = frozenset({"migrate-log", "migrate-stores"})
#: What is no part of the stack: the command, gone when all is ready, and what starts everything.
COMMAND, SUPERVISOR, FORK_SERVER = "up", "supervisor", "fork server"
CELLS = (("ready", "{:.1f} s"), ("cpu", "{:.2f} s"), ("memory", "{:.0f}"))


@dataclass(frozen=True)
class Start:
    """One `up`: wall clock, CPU seconds and memory by process, seconds after which each part was ready."""

    seconds: float
    cpu_seconds: Mapping[str, float]
    mebibytes: Mapping[str, float]
    ready_seconds: Mapping[str, float]


def main() -> int:
    """Run the rounds and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"Machine: {machine()}\n")
    new: list[Start] = []
    used: list[Start] = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="quaestor-start-", ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o711)  # Postgres runs as nobody in a root shell
            new.append(start(Path(folder) / "data"))
            used.append(start(Path(folder) / "data"))
        told = f"new folder {new[-1].seconds:.1f} s, used {used[-1].seconds:.1f} s, loop {loop_seconds():.3f} s"
        sys.stderr.write(f"round {number + 1}: {told}\n")
    show({"new folder": new, "used folder": used})
    return 0


def start(data: Path) -> Start:
    """Start the product, look at it, stop it."""
    environment = os.environ | {"QUAESTOR_DATA": str(data), "QUAESTOR_PORTS": "auto"}
    before, began, at = _command_cpu(), time.monotonic(), time.time()
    try:
        _quaestor("up", environment)
        seconds = time.monotonic() - began
        pids = processes(data)
        cpu = {COMMAND: _command_cpu() - before, **{name: family_cpu_seconds(pid) for name, pid in pids.items()}}
        memory = {name: mebibytes(name, pid) for name, pid in pids.items()}
        return Start(seconds, cpu, memory, ready_seconds(data, at))
    finally:
        _quaestor("down", environment)


def processes(data: Path) -> Mapping[str, int]:
    """Process ids by name, those of the supervisor and its fork server too."""
    state = json.loads((data / "state.json").read_text(encoding="utf-8"))
    found = {SUPERVISOR: state["supervisor_pid"], **{part["name"]: part["pid"] for part in state["parts"]}}
    (other,) = {each.pid for each in psutil.Process(found[SUPERVISOR]).children()} - set(found.values())
    return found | {FORK_SERVER: other}


def family_cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its children that ended."""
    return sum(psutil.Process(pid).cpu_times()[:4])


def mebibytes(name: str, pid: int) -> float:
    """Memory of a part with all its processes; what several parts share is divided by their number."""
    if name in {SUPERVISOR, FORK_SERVER}:  # whose children are parts of their own
        return float(psutil.Process(pid).memory_full_info().pss) / 2**20
    return resident_mebibytes(pid)


def ready_seconds(data: Path, since: float) -> Mapping[str, float]:
    """When each part of the latest start was ready, from the supervisor's log; migrations when they were done."""
    found: dict[str, float] = {}
    for line in (data / "logs" / "supervisor.log").read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        at = datetime.fromisoformat(told["timestamp"]).timestamp() - since
        over = "stopped" if told.get("name") in MIGRATIONS else "running"
        if at > 0 and told.get("state") == over:
            found.setdefault(told["name"], at)
    return found


def show(starts: Mapping[str, Sequence[Start]]) -> None:
    """Print what was measured: medians, and the extremes where they say something."""
    print("| `up` in a | median | min | max | CPU | memory |\n|---|---|---|---|---|---|")
    for kind, made in starts.items():
        seconds = [each.seconds for each in made]
        told = " | ".join(f"{each:.1f} s" for each in (median(seconds), min(seconds), max(seconds)))
        cpu = median(sum(each.cpu_seconds.values()) for each in made)
        memory = median(sum(each.mebibytes.values()) for each in made)
        print(f"| {kind} | {told} | {cpu:.1f} s | {memory / 1024:.2f} GiB |")
    for kind, made in starts.items():
        print(f"\n| in a {kind} | ready after | CPU | MiB |\n|---|---|---|---|")
        rows = [{"ready": each.ready_seconds, "cpu": each.cpu_seconds, "memory": each.mebibytes} for each in made]
        for name in sorted({name for row in rows for of in row.values() for name in of}):
            cells = (_median(rows, column, name, form) for column, form in CELLS)
            print(f"| {name} | {' | '.join(cells)} |")


def _median(rows: Sequence[Mapping[str, Mapping[str, float]]], column: str, name: str, form: str) -> str:
    known = [row[column][name] for row in rows if name in row[column]]
    return form.format(median(known)) if known else ""


def _quaestor(command: str, environment: Mapping[str, str]) -> None:
    subprocess.run([str(QUAESTOR), command], check=True, capture_output=True, env=environment)


def _command_cpu() -> float:
    """CPU of the commands that this process ran to their ends."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
