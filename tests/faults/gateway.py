"""The whole product under traffic through its gateway: whatever is killed, every answer is in every store."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from random import Random

from tests.e2e.product import UP_TIMEOUT_SECONDS, Product
from tests.faults.kills import Tick
from tests.faults.report import Row
from tests.faults.world import DEADLINE_SECONDS

VICTIMS = (
    *("gateway", "stream-ledger", "stream-budgets", "stream-health"),
    *("sink-redis", "sink-postgres", "sink-clickhouse", "sink-audit"),
    *("kafka", "redis", "postgres", "clickhouse", "registry"),
)
CALLS_PER_SECOND = 25
#: How long a round takes: the victim dies at a random point, comes back and catches up.
ROUND_SECONDS = 8.0


def gateway(folder: Path, random: Random, rounds: int, tick: Tick) -> list[Row]:
    """Kill -9 of one process after the other behind running calls; then the client's own answers are looked for."""
    product = Product(folder / "data")
    product.data.mkdir(parents=True)
    row = Row("kill -9 behind calls through the gateway")
    started = time.monotonic()
    try:
        product.run("up", timeout=UP_TIMEOUT_SECONDS)
        _rounds(product, folder / "answers.jsonl", random, rounds, tick, row)
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        row.first_difference = row.first_difference or f"{type(error).__name__}: {error}"
    finally:
        product.close()
        row.seconds = time.monotonic() - started
    return [row]


def _rounds(product: Product, answers: Path, random: Random, rounds: int, tick: Tick, row: Row) -> None:
    calls = int(rounds * ROUND_SECONDS * CALLS_PER_SECOND)
    how = ("--requests", str(calls), "--rate", str(CALLS_PER_SECOND), "--key", product.key("faults"))
    load = product.start("load", *how, "--answers", str(answers), "--json")
    try:
        _kill_in_turn(product, random, rounds, tick, row)
        load.communicate(timeout=calls / CALLS_PER_SECOND + DEADLINE_SECONDS)
    finally:
        load.kill()
    report = product.json("verify", "all", "--answers", str(answers), check=False)
    for check in report["checks"]:
        if not check["ok"]:
            row.lost += 1
            row.first_difference = row.first_difference or f"{check['name']}: {check['first_difference']}"
    if report["answers"] != answers.read_text(encoding="utf-8").count("\n"):
        row.first_difference = row.first_difference or "not every answer was looked for"


def _kill_in_turn(product: Product, random: Random, rounds: int, tick: Tick, row: Row) -> None:
    victims = [VICTIMS[number % len(VICTIMS)] for number in range(rounds)]
    random.shuffle(victims)
    for victim in victims:
        began = time.monotonic()
        time.sleep(random.uniform(0, 1.0))
        pid = product.processes()[victim]["pid"]
        os.kill(pid, signal.SIGKILL)
        if not _back(product, victim, pid):
            row.first_difference = f"{victim} did not come back within {DEADLINE_SECONDS:.0f} s"
            break
        row.rounds += 1
        tick()
        time.sleep(max(0.0, ROUND_SECONDS - (time.monotonic() - began)))


def _back(product: Product, victim: str, killed_pid: int) -> bool:
    """Whether another process runs in its place in time."""
    until = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < until:
        process = product.processes()[victim]
        if process["state"] == "running" and process["pid"] != killed_pid:
            return True
        time.sleep(0.5)
    return False
