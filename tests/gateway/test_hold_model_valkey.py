"""The scripts on a real Valkey take every transition that the search of the model of holds met.

The gateways' store, the sink's slots and its restorer are real too; what breaks no promise in the model
(tests/property/test_hold_model.py) then breaks none in them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from functools import cache

import pytest

from tests.support.hold_edges import Graph
from tests.support.hold_edges_valkey import differing
from tests.support.hold_model import GROWING, NARROW, PLAIN
from tests.support.hold_mutants import RARE_SCRIPTS, SCRIPTS, changed
from tests.support.hold_search import Search
from tests.valkey import Valkey, running

SCENARIOS = {"plain": PLAIN, "growing": GROWING, "narrow": NARROW}
MUTANTS = SCRIPTS | RARE_SCRIPTS


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """One server; every walk empties it."""
    with running() as server:
        yield server


@cache
def graph(name: str) -> Graph:
    """The transitions of a scenario."""
    found = Search(SCENARIOS[name]).run()
    assert found.problem == ""
    return Graph(found)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_scripts_take_every_transition_of_the_model(valkey: Valkey, name: str) -> None:
    """In every state that a store can tell apart, every question: the same answer, and the same is kept."""
    assert asyncio.run(differing(valkey.url, graph(name))) == []
    sys.stdout.write(graph(name).worded(name) + "\n")


@pytest.mark.parametrize("name", MUTANTS)
def test_a_script_that_breaks_a_rule_is_caught(valkey: Valkey, name: str) -> None:
    """Otherwise the comparison would see nothing of the Lua."""
    assert asyncio.run(differing(valkey.url, graph("growing"), changed(*MUTANTS[name])))
