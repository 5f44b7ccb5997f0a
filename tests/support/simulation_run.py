"""Runs a simulation: so many examples from a number, shortened where they fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.support.simulation import Simulation
from tests.support.simulation_process import Process


def machine_of(
    bench: type[Any], process: type[Process] = Process, parts: Mapping[str, Any] | None = None
) -> type[Simulation]:
    """The machine of a bench, or of one with broken parts in place of its own."""
    made = type(bench.__name__, (bench,), dict(parts or {}))
    name = f"{bench.__name__.removesuffix('Bench')}Simulation"
    members = {"bench_type": made, "partitions": bench.partitions, "process_type": process}
    return type(name, (Simulation,), members)


def simulate(
    machine: type[RuleBasedStateMachine], examples: int, number: int, steps: int = 40, *, shortens: bool = True
) -> None:
    """Run a machine; raises with the shortest steps that break a promise. The same number gives the same run."""
    structlog.configure(processors=[_drop])
    try:
        run_state_machine_as_test(
            seed(number)(machine),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate, Phase.shrink) if shortens else (Phase.generate,),
                report_multiple_bugs=False,
                print_blob=True,
            ),
        )
    finally:
        structlog.reset_defaults()


def _drop(_logger: Any, _name: str, _fields: Any) -> Any:
    """Thousands of simulated faults are not for anybody's log."""
    raise structlog.DropEvent
