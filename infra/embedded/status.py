"""What runs now in a data directory: the supervisor's state, each process asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.embedded.applications import GOOD_STATES
from infra.embedded.daemon import is_running
from infra.embedded.endpoints import Endpoints
from infra.embedded.ports import is_free
from infra.embedded.process import started_at
from infra.embedded.servers.probes import http_answers, http_json, kafka_answers, valkey_answers
from infra.embedded.servers.registry import COMPATIBLE_API
from infra.embedded.state import PartState, State

#: The question that shows that a server works.
PROBES: Mapping[str, Callable[[int], bool]] = {
    "kafka": kafka_answers,
    "registry": lambda port: http_answers(port, f"{COMPATIBLE_API}/subjects"),
    "postgres": lambda port: not is_free(port),
    "redis": valkey_answers,
    "clickhouse": lambda port: http_answers(port, "/ping"),
}


@dataclass(frozen=True, slots=True)
class Status:
    """All processes; `phase` is "down" when nothing runs."""

    phase: str
    processes: tuple[Mapping[str, Any], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_running(self) -> bool:
        """Whether everything that should run does."""
        return self.phase == "running" and all(process["state"] in GOOD_STATES for process in self.processes)


def collect(data: Path) -> Status:
    """Ask everything at once; takes a second or two at most."""
    state = State.read(data)
    if state is None or not is_running(data):
        return Status("down")
    endpoints = Endpoints.read(data)
    ports = endpoints.ports if endpoints else {}
    with ThreadPoolExecutor(max(1, len(state.parts))) as pool:
        processes = tuple(pool.map(lambda part: _process(part, ports.get(part.name)), state.parts))
    return Status(state.phase, processes, state.versions)


def _process(part: PartState, port: int | None) -> Mapping[str, Any]:
    """One process: what its own /status says counts; lag and freshness are null where they mean nothing."""
    known = {"name": part.name, "kind": part.kind, "pid": part.pid, "restarts": part.restarts, "port": port}
    blank = {"lag_events": None, "freshness_seconds": None}
    if part.pid is None or started_at(part.pid) != part.started_at:
        return known | blank | {"state": "down"}
    if part.kind == "server":
        answers = port is not None and PROBES[part.name](port)
        return known | blank | {"state": "running" if answers else "silent"}
    told = http_json(part.monitor_port or 0, "/status")
    return blank | {"state": "silent"} | told | known | {"monitor_port": part.monitor_port}
