"""Our own processes of the local stack, in one table; each is one `quaestor` command."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.ports import PortPlan, is_free
from infra.embedded.process import Launch
from infra.embedded.servers.clickhouse import python_path
from infra.embedded.servers.probes import http_answers, http_json

MIGRATE_SECONDS_MAX = 120
READY_SECONDS_MAX = 45.0
#: What a process says of itself while it does its work, if perhaps slowly.
GOOD_STATES = frozenset({"running", "waiting"})


@dataclass(frozen=True, slots=True)
class Application:
    """One command of the stack. `drain_seconds` is what an orderly stop may take; `stop_order` 0 stops first."""

    name: str
    arguments: tuple[str, ...]
    drain_seconds: float = 10.0
    stop_order: int = 1


#: The gateway stops first: the calls it finishes need the simulated provider, Kafka and Redis.
APPLICATIONS: tuple[Application, ...] = (
    Application("simulator", ("simulator",)),
    Application("gateway", ("gateway",), drain_seconds=20.0, stop_order=0),
    Application("stream-ledger", ("stream", "ledger")),
    Application("stream-budgets", ("stream", "budgets")),
    Application("stream-health", ("stream", "health")),
    Application("stream-guardrails", ("stream", "guardrails")),
    Application("sink-postgres", ("sink", "postgres")),
    Application("sink-redis", ("sink", "redis")),
    Application("sink-clickhouse", ("sink", "clickhouse")),
    Application("sink-audit", ("sink", "audit")),
    Application("console", ("console",)),
)
#: What they import, all together: loaded once and forked (infra/embedded/fork_server.py).
SHARED_MODULES = (
    "api.cli.serve",
    "api.cli.migrate",
    "api.alerts.process",
    "api.anchors.uri",
    "api.cli.console_parts",
    "api.gateway.server",
    "api.providers.simulator.server",
    "sinks.audit.process",
    "sinks.clickhouse.process",
    "sinks.postgres.process",
    "sinks.postgres.snapshots",
    "sinks.redis.run",
    "streams.agents.run",
    "streams.budgets",
    "streams.runtime",
    "uvloop",
)
#: Those that others reach on a port of the plan.
LISTENING = ("gateway", "console", "simulator")


def command(*arguments: str) -> tuple[str, ...]:
    """The `quaestor` command line of this same installation; -P keeps the current folder off the import path."""
    return (sys.executable, "-P", "-m", "api.cli.main", *arguments)


def exists(module: str) -> bool:
    """Whether a module of the command line is there."""
    return importlib.util.find_spec(f"api.cli.{module}") is not None


def application_settings(ports: PortPlan) -> Mapping[str, str]:
    """The settings by which clients find the applications."""
    return {
        "gateway_url": f"http://127.0.0.1:{ports.gateway}",
        "console_url": f"http://127.0.0.1:{ports.console}",
        "simulator_url": f"http://127.0.0.1:{ports.simulator}/v1",
    }


def shared_environment() -> Mapping[str, str]:
    """What Python itself is told in each of them, and in what they are forked from."""
    return {
        "PYTHONPATH": python_path(),
        "PYTHONUNBUFFERED": "1",
        # A dozen processes that compile every module anew take twice as long to start.
        "PYTHONDONTWRITEBYTECODE": "",
        # Numpy's linear algebra, which nobody uses, would begin its threads at import.
        "OPENBLAS_NUM_THREADS": "1",
    }


def environment(data: Path, ports: PortPlan, monitor_port: int) -> Mapping[str, str]:
    """What every application is told beyond the environment of `quaestor up`."""
    return {
        **shared_environment(),
        "QUAESTOR_DATA": str(data),
        # One process of each kind: a killed one takes its partitions back at once.
        "QUAESTOR_INSTANCE": "local",
        "QUAESTOR_MONITOR_PORT": str(monitor_port),
        "QUAESTOR_GATEWAY_PORT": str(ports.gateway),
        "QUAESTOR_CONSOLE_PORT": str(ports.console),
        "QUAESTOR_SIMULATOR_PORT": str(ports.simulator),
    }


def launch(application: Application, data: Path, variables: Mapping[str, str]) -> Launch:
    """How to start an application."""
    log = data / "logs" / f"{application.name}.log"
    return Launch(application.name, command(*application.arguments), log, environment=variables)


def readiness(application: Application, ports: PortPlan, monitor_port: int) -> Callable[[], bool]:
    """The question that the application answers when it does its work."""

    def works() -> bool:
        return http_json(monitor_port, "/status").get("state") in GOOD_STATES

    if application.name == "gateway":
        return lambda: http_answers(ports.gateway, "/readyz") and works()
    if application.name == "console":
        return lambda: http_answers(ports.console, "/healthz") and works()
    if application.name == "simulator":
        return lambda: not is_free(ports.simulator) and works()
    return works
