"""Every sink's protocol under simulation: crashes, zombies, lost answers, rebalances, poison, repeats; no server.

A failure prints the shortest steps that break a promise, and the line that replays it. The same number gives the same
run: SIMULATION_SEED=7 SIMULATION_EXAMPLES=20 python -m pytest tests/property/test_sink_simulation.py -k ClickHouse.
A long run is the same with a thousand examples and a number of its own; ten minutes on one core.
"""

from __future__ import annotations

import os

import pytest

from tests.support.simulation_run import machine_of, simulate
from tests.support.simulation_stores import AuditBench, ClickHouseBench, MemoryBench, RedisBench

SEED = int(os.environ.get("SIMULATION_SEED", "20261121"))
EXAMPLES = int(os.environ.get("SIMULATION_EXAMPLES", "60"))


@pytest.mark.parametrize("bench", [MemoryBench, ClickHouseBench, RedisBench, AuditBench])
def test_no_gap_no_duplicate_and_everything_in_the_end(bench: type[MemoryBench]) -> None:
    """Whatever happens in whatever order, each event is applied once, and all of them once it is calm."""
    try:
        simulate(machine_of(bench), EXAMPLES, SEED)
    except Exception as error:
        again = f"SIMULATION_SEED={SEED} SIMULATION_EXAMPLES={EXAMPLES} python -m pytest -k {bench.__name__}"
        error.add_note(f"replay: {again} tests/property/test_sink_simulation.py")
        raise
