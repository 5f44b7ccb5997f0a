"""A simulated provider: its own process that speaks the OpenAI HTTP API, deterministic by seed, failing when told to.

docs/reference/simulator.md says what it does; `run` serves it.
"""

from __future__ import annotations

from api.providers.simulator.application import Simulator
from api.providers.simulator.failures import Failure, read_script
from api.providers.simulator.server import run
from api.providers.simulator.settings import SimulatorSettings

__all__ = ["Failure", "Simulator", "SimulatorSettings", "read_script", "run"]
