"""The deterministic simulation of every sink's protocol (tests/property/test_sink_simulation.py), in its long form."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from infra.embedded.servers.clickhouse import python_path
from tests.faults.report import Row

ROOT = Path(__file__).parents[2]
SINKS = {"memory": "MemoryBench", "clickhouse": "ClickHouseBench", "redis": "RedisBench", "audit": "AuditBench"}
#: What a failure says first: the promise that was broken.
BROKEN = re.compile(r"^E\s+\S*Error: (.+)$", re.MULTILINE)
Tick = Callable[[], None]


def simulated(folder: Path, random: Random, rounds: int, tick: Tick) -> list[Row]:
    """So many runs of each sink, each of up to forty steps; a core for each of two sinks at a time."""
    seed = random.randrange(2**32)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(SINKS))) as threads:
        return list(threads.map(lambda sink: _simulate(folder, sink, seed, rounds, tick), SINKS))


def _simulate(folder: Path, sink: str, seed: int, rounds: int, tick: Tick) -> Row:
    row = Row(f"simulated crashes, zombies, lost calls: sink {sink}")
    output = folder / f"simulation-{sink}.txt"
    started = time.monotonic()
    what = ("tests/property/test_sink_simulation.py", "-k", SINKS[sink])
    options = ("-q", "-p", "no:cacheprovider", "-o", "timeout=0")
    numbers = {"SIMULATION_SEED": str(seed), "SIMULATION_EXAMPLES": str(rounds), "PYTHONPATH": python_path()}
    with output.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *what, *options],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | numbers,
            check=False,
            cwd=ROOT,
        )
    row.seconds = time.monotonic() - started
    if done.returncode:
        found = BROKEN.search(output.read_text(encoding="utf-8"))
        row.first_difference = f"{found.group(1) if found else 'it failed'}: steps and replay in {output}"
    else:
        row.rounds = rounds
    tick()
    return row
