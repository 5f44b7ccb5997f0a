"""The hold protocol as a state machine, on the store in memory, judged by an auditor of its own.

A failure prints the shortest steps that break a promise, and the line that replays it. The same number gives the same
run: HOLD_SEED=7 HOLD_EXAMPLES=100 python -m pytest tests/property/test_hold_machine.py.
"""

from __future__ import annotations

import os

from tests.support.hold_grounds import MemoryGround
from tests.support.hold_machine import audited, machine_on

SEED = int(os.environ.get("HOLD_SEED", "20261121"))
EXAMPLES = int(os.environ.get("HOLD_EXAMPLES", "150"))


def test_every_answer_is_allowed_and_nothing_is_left_or_charged_twice() -> None:
    """Whatever gateways, the sink, the server, the reaper and the calendar do in whatever order."""
    audited(machine_on(MemoryGround), EXAMPLES, SEED, "tests/property/test_hold_machine.py")
