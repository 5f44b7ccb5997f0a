"""Processes are killed while load runs; afterwards every answer is accounted for in every store."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.product import Product

CALLS = 600
RATE = 60
DEADLINE_SECONDS = 60


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll a condition until it holds; fails with its name after the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {DEADLINE_SECONDS} s")
        time.sleep(0.1)


def answered(path: Path) -> int:
    """Lines of an answers file so far."""
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


#: Killed under one load each; the sinks together, since none of them waits for another.
VICTIMS = {
    "gateway": ["gateway"],
    "sinks": ["sink-postgres", "sink-redis", "sink-clickhouse", "sink-audit"],
    "kafka": ["kafka"],
}


def run_again(product: Product, before: dict[str, int]) -> bool:
    """Whether all of these run as other processes than before."""
    now = product.processes()
    return all(now[name]["state"] == "running" and now[name]["pid"] != pid for name, pid in before.items())


@pytest.mark.parametrize("victims", VICTIMS.values(), ids=VICTIMS)
def test_a_killed_process_loses_and_doubles_nothing(product: Product, victims: list[str], tmp_path: Path) -> None:
    """Kill -9 in mid-load; the supervisor brings it back; verify finds every answer in every store."""
    answers = tmp_path / "answers.jsonl"
    key = product.key("faults")
    load = product.start(
        "load", "--requests", str(CALLS), "--rate", str(RATE), "--key", key, "--answers", str(answers), "--json"
    )
    wait_until(lambda: answered(answers) > CALLS // 6, "the first answers")
    running = product.processes()
    before = {victim: running[victim]["pid"] for victim in victims}

    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    output, _ = load.communicate(timeout=170)
    wait_until(lambda: run_again(product, before), f"{', '.join(victims)} running again")
    report = product.json("verify", "all", "--answers", str(answers), check=False)
    assert [] == [check for check in report["checks"] if not check["ok"]], output
    assert answered(answers) == report["answers"]
    assert answered(answers) == json.loads(output[output.index("{") :])["answered"]
