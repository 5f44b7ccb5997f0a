"""Processes are killed while load runs; afterwards every call has ended once, and every answer is in every store."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.embedded.daemon import is_running
from infra.embedded.state import State
from schemas.errors import LogError
from schemas.events import AttemptOutcome, BudgetEvent, BudgetKind, Event, ProviderAttempt, RequestEvent, RequestKind
from tests.e2e.product import Product

CALLS = 600
RATE = 60
#: Calls made when everything runs again: each must be answered.
CALLS_AFTER = 30
DEADLINE_SECONDS = 60
#: `verify` passes over what is younger than a story with its margins. With these the reaper ends within seconds what a
#: killed gateway left open, so that the test can wait for every end, and judge what `verify` does not yet.
LEASES = {
    "QUAESTOR_REQUEST_TIMEOUT_SECONDS": "6",
    "QUAESTOR_LEASE_SECONDS": "12",
    "QUAESTOR_SPOOL_GRACE_SECONDS": "1",
    "QUAESTOR_CLOCK_SKEW_SECONDS": "0",
}
ENDS = frozenset({RequestKind.COMPLETED, RequestKind.FAILED, RequestKind.REFUSED})
RESOLUTIONS = frozenset({BudgetKind.COMMITTED, BudgetKind.RELEASED, BudgetKind.EXPIRED})


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll a condition until it holds; fails with its name after the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {DEADLINE_SECONDS} s")
        time.sleep(0.1)


def answered(path: Path) -> list[str]:
    """The requests of an answers file so far."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["request_id"] for line in lines if line.endswith("\n")]


#: Killed under one load each; the sinks together, since none of them waits for another.
VICTIMS = {
    "gateway": ["gateway"],
    "sinks": ["sink-postgres", "sink-redis", "sink-clickhouse", "sink-audit"],
    "kafka": ["kafka"],
}


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product of its own, whose leases are short."""
    made = Product(tmp_path_factory.mktemp("faults") / "data", variables=LEASES)
    try:
        made.up()
        yield made
    finally:
        made.close()


def run_again(product: Product, before: dict[str, int]) -> bool:
    """Whether all of these run as other processes than before, and the gateway takes calls."""
    now = product.processes()
    again = all(now[name]["state"] == "running" and now[name]["pid"] != pid for name, pid in before.items())
    return again and now["gateway"]["state"] == "running"


def unfinished(product: Product) -> list[str]:
    """Requests without their end, and holds without theirs."""
    try:
        events = product.events("requests", "budgets")
    except LogError as error:
        return [str(error)]
    requests = [event for event in events if isinstance(event, RequestEvent)]
    movements = [event for event in events if isinstance(event, BudgetEvent)]
    begun = {event.request_id for event in requests} - {event.request_id for event in requests if event.kind in ENDS}
    placed = {event.hold_id for event in movements if event.kind is BudgetKind.PLACED}
    held = placed - {event.hold_id for event in movements if event.kind in RESOLUTIONS}
    return sorted(str(name) for name in begun | held)


def differences(events: Sequence[Event], answers: Sequence[str]) -> list[str]:
    """What is not as it should be, once everything has ended."""
    ends = {e.event_id: e.request_id for e in events if isinstance(e, RequestEvent) and e.kind is RequestKind.COMPLETED}
    completed = Counter(ends.values())
    succeeded = [e for e in events if isinstance(e, ProviderAttempt) and e.outcome is AttemptOutcome.SUCCEEDED]
    found = [f"{name} was answered, and is not COMPLETED" for name in answers if name not in completed]
    found += [f"{e.request_id} succeeded, and is not COMPLETED" for e in succeeded if e.request_id not in completed]
    return found + [f"{name} is COMPLETED {times} times" for name, times in completed.items() if times > 1]


def load(product: Product, key: str, calls: int, answers: Path) -> Any:
    """Load under way."""
    asked = ("--requests", str(calls), "--rate", str(RATE), "--key", key, "--answers", str(answers), "--json")
    return product.start("load", *asked)


@pytest.mark.parametrize("victims", VICTIMS.values(), ids=VICTIMS)
def test_a_killed_process_loses_and_doubles_nothing(product: Product, victims: list[str], tmp_path: Path) -> None:
    """Kill -9 in mid-load; the supervisor brings it back; everything ends; verify finds every answer in every store."""
    answers, after = tmp_path / "answers.jsonl", tmp_path / "after.jsonl"
    key = product.key("faults")
    loading = load(product, key, CALLS, answers)
    wait_until(lambda: len(answered(answers)) > CALLS // 6, "the first answers")
    running = product.processes()
    before = {victim: running[victim]["pid"] for victim in victims}

    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    output, _ = loading.communicate(timeout=170)
    wait_until(lambda: run_again(product, before), f"{', '.join(victims)} running again")
    said, _ = load(product, key, CALLS_AFTER, after).communicate(timeout=60)
    wait_until(lambda: not unfinished(product), "the end of everything that began")

    assert CALLS_AFTER == len(answered(after)), said
    assert [] == differences(product.events("requests", "attempts"), [*answered(answers), *answered(after)]), output
    for path in (answers, after):
        report = product.json("verify", "all", "--answers", str(path), check=False)
        assert [] == [check for check in report["checks"] if not check["ok"]], output
        assert len(answered(path)) == report["answers"]


def test_a_killed_supervisor_loses_and_doubles_nothing(product: Product, tmp_path: Path) -> None:
    """It takes every process with it in mid-load; `up` goes on where they stood."""
    answers, after = tmp_path / "answers.jsonl", tmp_path / "after.jsonl"
    key = product.key("faults")
    loading = load(product, key, CALLS, answers)
    wait_until(lambda: len(answered(answers)) > CALLS // 6, "the first answers")
    state = State.read(product.data)
    assert state is not None

    os.kill(state.supervisor_pid, signal.SIGKILL)
    wait_until(lambda: not is_running(product.data), "the end of everything")
    loading.terminate()
    output, _ = loading.communicate(timeout=60)
    product.up()
    said, _ = load(product, key, CALLS_AFTER, after).communicate(timeout=60)
    wait_until(lambda: not unfinished(product), "the end of everything that began")

    assert CALLS_AFTER == len(answered(after)), said
    report = product.json("verify", "all", "--answers", str(answers), check=False)
    assert [] == [check for check in report["checks"] if not check["ok"]], output
    assert len(answered(answers)) == report["answers"]
