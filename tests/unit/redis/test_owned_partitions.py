"""What a sink concludes from a gate and slots that it claims."""

from __future__ import annotations

import pytest

from processors.budgets.live import LiveFold
from sinks.redis.gate import GateState
from sinks.redis.owned import Owned, loss, start_of
from sinks.redis.slots import RESTORING, Ownership, Slot

RUN = "run1"
GENERATION = "run1:5"
GATE = GateState(2, GENERATION, True, 100, "topic", False, {"acme": 90, "beta": 40})
SLOTS = {"acme": Slot(90, GENERATION), "beta": Slot(40, GENERATION)}


def test_a_server_as_it_was_left_has_lost_nothing() -> None:
    """Slots may be behind the gate, where they had no events."""
    assert loss(RUN, GATE, None, SLOTS) == ""


@pytest.mark.parametrize(
    ("gate", "slots", "start"),
    [
        (GATE._replace(generation="", cursor=None, tenants={}), {}, 0),
        (GATE._replace(generation="run0:5"), SLOTS, 100),
        (GATE._replace(is_rebuilding=True), SLOTS, 0),
        (GATE, SLOTS | {"beta": Slot(30, GENERATION)}, 30),
        (GATE, SLOTS | {"beta": Slot(None, "")}, 0),
        (GATE, SLOTS | {"core": Slot(None, RESTORING)}, 0),
        (GATE, SLOTS | {"core": Slot(7, "run1:4")}, 100),
    ],
    ids=["no gate", "another run", "half rebuilt", "a slot behind", "no slot", "half restored", "another generation"],
)
def test_a_loss_is_noticed_and_read_from_where_all_of_it_is_covered(
    gate: GateState, slots: dict[str, Slot], start: int
) -> None:
    """From the gate, from the slot that is behind it, or from zero where slots can't be believed."""
    assert loss(RUN, gate, None, slots) != ""
    assert start_of(gate, slots) == start


def folding(generation: str = GENERATION) -> Owned:
    """A partition whose fold in memory is at 70."""
    return Owned(3, Ownership(1, generation, "topic", is_open=False), 70, fold=LiveFold())


def test_a_fold_in_memory_counts_for_nothing() -> None:
    """The gate says where reading began; once it is written, how far it is."""
    owned = folding()
    before, owned.fold = owned.stands, None

    assert (before, owned.stands) == (0, 70)


@pytest.mark.parametrize(
    ("generation", "run_id", "goes_on"),
    [(GENERATION, RUN, True), ("run1:4", RUN, False), (GENERATION, "run2", False), (GENERATION, "", False)],
    ids=["the same", "another generation", "another run", "no connection"],
)
def test_a_fold_goes_on_under_its_own_generation_only(generation: str, run_id: str, goes_on: bool) -> None:
    """Whoever began another one has taken over, and a server of another run is not the one it is for."""
    assert folding(generation).goes_on(GATE, run_id) is goes_on
