"""`quaestor gateway | stream | sink | console | simulator`: one process each, told everything by the settings."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.cli.terminal import DataOption
from api.settings import Settings, load_settings
from schemas.money import parse_nano
from streams.codec import Codec
from streams.diagnostics import configure_diagnostics
from streams.log import Membership
from streams.monitor import Monitor
from streams.registry import RegistrySchemas

if TYPE_CHECKING:  # each process loads only its own part
    from sinks.audit.witnesses import Witnessing

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
Work = Callable[[asyncio.Event], Awaitable[None]]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("gateway")(gateway)
    app.command("stream")(stream)
    app.command("sink")(sink)
    app.command("console")(console)
    app.command("simulator")(simulator)


def gateway(
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Worker processes.")] = None,
    data: DataOption = None,
) -> None:
    """Serve the OpenAI-compatible gateway until it is stopped."""
    from api.gateway.options import GatewayOptions  # noqa: PLC0415 - each process loads only its own part
    from api.gateway.server import run  # noqa: PLC0415

    settings = load_settings(data)
    monitor = begin(settings, "gateway")
    options = GatewayOptions(
        host=settings.gateway_host,
        port=settings.gateway_port,
        workers=workers or settings.gateway_workers,
        data_directory=settings.data,
        kafka_bootstrap=settings.kafka_bootstrap,
        registry_url=settings.registry_url,
        redis_url=settings.redis_url,
        postgres_dsn=settings.postgres_dsn,
        body_bytes_max=settings.body_bytes_max,
        request_timeout_seconds=settings.request_timeout_seconds,
        lease_seconds=settings.lease_seconds,
        hold_tombstone_seconds=settings.hold_tombstone_seconds,
        output_tokens_default=settings.output_tokens_default,
        fail_open_nano=parse_nano(settings.fail_open_usd_per_hour),
        stream_step_tokens=settings.stream_step_tokens,
        tags_allowed=settings.tags_allowed,
        vault_keys=settings.vault_keys,
        log_level=settings.log_level,
    )
    run(options, monitor)


def stream(
    name: Annotated[
        Literal["ledger", "budgets", "health", "guardrails"],
        typer.Argument(help="ledger, budgets, health or guardrails."),
    ],
    data: DataOption = None,
) -> None:
    """Run one stream processor until it is stopped."""
    settings = load_settings(data)
    monitor = begin(settings, f"stream-{name}")
    until_stopped(_STREAMS[name](settings, monitor))


def _ledger(settings: Settings, monitor: Monitor) -> Work:
    from processors.ledger import LedgerPoster  # noqa: PLC0415
    from streams.runtime import run_stream  # noqa: PLC0415

    poster = LedgerPoster(settings.hold_tombstone_seconds, settings.lease_seconds)
    return lambda stop: run_stream(
        poster,
        bootstrap=settings.kafka_bootstrap,
        codec=_codec(settings),
        monitor=monitor,
        stop=stop,
        membership=_membership(settings),
    )


def _reaper(settings: Settings, monitor: Monitor) -> Work:
    from streams.budgets import run_reaper  # noqa: PLC0415

    return lambda stop: run_reaper(
        bootstrap=settings.kafka_bootstrap,
        codec=_codec(settings),
        monitor=monitor,
        stop=stop,
        expired_hold_charge=settings.expired_hold_charge,
        lease_seconds=settings.lease_seconds,
        clock_skew_seconds=settings.clock_skew_seconds,
        spool_grace_seconds=settings.spool_grace_seconds,
        tombstone_seconds=settings.hold_tombstone_seconds,
        membership=_membership(settings),
    )


def _health(settings: Settings, monitor: Monitor) -> Work:
    from streams.agents.run import run_health  # noqa: PLC0415 - faust is loaded only where it runs

    bootstrap, membership = settings.kafka_bootstrap, _membership(settings)
    return lambda stop: run_health(bootstrap, _codec(settings), monitor, stop, settings.data, membership)


def _guardrails(settings: Settings, monitor: Monitor) -> Work:
    from api.alerts.process import run  # noqa: PLC0415

    return lambda stop: run(
        settings.kafka_bootstrap,
        settings.registry_url,
        settings.redis_url,
        settings.postgres_dsn,
        monitor,
        stop,
        _membership(settings),
    )


_STREAMS: dict[str, Callable[[Settings, Monitor], Work]] = {
    "ledger": _ledger,
    "budgets": _reaper,
    "health": _health,
    "guardrails": _guardrails,
}


def sink(
    store: Annotated[
        Literal["postgres", "redis", "clickhouse", "audit"],
        typer.Argument(help="postgres, redis, clickhouse or audit."),
    ],
    data: DataOption = None,
) -> None:
    """Project the log into one store until stopped."""
    settings = load_settings(data)
    monitor = begin(settings, f"sink-{store}")
    until_stopped(_SINKS[store](settings, monitor))


def _codec(settings: Settings) -> Codec:
    return Codec(RegistrySchemas(settings.registry_url))


def _membership(settings: Settings) -> Membership:
    return Membership(settings.session_seconds, settings.instance)


def _postgres(settings: Settings, monitor: Monitor) -> Work:
    from sinks.postgres.process import run  # noqa: PLC0415

    return lambda stop: run(
        settings.postgres_dsn,
        settings.kafka_bootstrap,
        settings.registry_url,
        monitor,
        stop,
        _membership(settings),
        settings.yield_behind_seconds,
    )


def _redis(settings: Settings, monitor: Monitor) -> Work:
    from sinks.postgres.quarantine import PostgresQuarantine  # noqa: PLC0415
    from sinks.postgres.snapshots import PostgresSnapshots  # noqa: PLC0415
    from sinks.redis.run import run  # noqa: PLC0415

    return lambda stop: run(
        bootstrap=settings.kafka_bootstrap,
        redis_url=settings.redis_url,
        registry_url=settings.registry_url,
        processes_max=os.cpu_count() or 1,
        monitor=monitor,
        stop=stop,
        random=SystemRandom(),
        quarantine=PostgresQuarantine(settings.postgres_dsn),
        snapshots=PostgresSnapshots(settings.postgres_dsn),
        snapshot_seconds=settings.snapshot_seconds,
        waitaof_replicas=settings.redis_waitaof_replicas,
        tombstone_seconds=settings.hold_tombstone_seconds,
        membership=_membership(settings),
    )


def _clickhouse(settings: Settings, monitor: Monitor) -> Work:
    from sinks.clickhouse.process import run  # noqa: PLC0415

    return lambda stop: run(
        settings.clickhouse_url,
        settings.postgres_dsn,
        settings.kafka_bootstrap,
        settings.registry_url,
        monitor,
        stop,
        _membership(settings),
        settings.yield_behind_seconds,
    )


def _audit(settings: Settings, monitor: Monitor) -> Work:
    from api.anchors.uri import make_plans  # noqa: PLC0415
    from sinks.audit.process import run  # noqa: PLC0415

    witnessing = _witnessing(settings)
    return lambda stop: run(
        settings.data,
        settings.postgres_dsn,
        settings.kafka_bootstrap,
        settings.registry_url,
        monitor,
        stop,
        settings.audit_log,
        settings.audit_origin,
        _membership(settings),
        witnessing,
        lambda layout: make_plans(settings.audit_anchors, layout),
        settings.yield_behind_seconds,
    )


def _witnessing(settings: Settings) -> Witnessing | None:
    if settings.audit_witness_policy is None:
        return None
    from api.audit.witness_client import HttpWitnesses  # noqa: PLC0415
    from sinks.audit.witnesses import Witnessing, WitnessTimes  # noqa: PLC0415

    times = WitnessTimes(settings.audit_witness_seconds, unwitnessed_seconds=settings.audit_unwitnessed_seconds)
    return Witnessing(settings.audit_witness_policy, HttpWitnesses(), times)


_SINKS: dict[str, Callable[[Settings, Monitor], Work]] = {
    "postgres": _postgres,
    "redis": _redis,
    "clickhouse": _clickhouse,
    "audit": _audit,
}


def console(data: DataOption = None) -> None:
    """Serve the console: the audit log's files, the API, until it is stopped."""
    from api.cli.console_parts import run  # noqa: PLC0415

    settings = load_settings(data)
    monitor = begin(settings, "console")
    until_stopped(run(settings, monitor))


def simulator(
    seed: Annotated[int, typer.Option(help="Decides every draw.")] = 1,
    latency: Annotated[float, typer.Option(min=0, help="Time to the first byte, milliseconds.")] = 0.0,
    lognormal: Annotated[bool, typer.Option("--lognormal", help="Draw latency around that median.")] = False,
    chunk_delay: Annotated[float, typer.Option(min=0, help="Time between chunks of a stream, milliseconds.")] = 0.0,
    chunk_tokens: Annotated[int, typer.Option(min=1, help="Words in one chunk of a stream.")] = 8,
    completion_tokens: Annotated[int, typer.Option(min=1, help="Median length where a call asks for none.")] = 120,
    error_rate: Annotated[float, typer.Option(min=0, max=1, help="Part of requests that fail.")] = 0.0,
    script: Annotated[Path | None, typer.Option(help="Scripted failures (docs/reference/simulator.md).")] = None,
    egress_log: Annotated[Path | None, typer.Option(help="Note each request here, one JSON line each.")] = None,
    key: Annotated[
        str | None, typer.Option(envvar="QUAESTOR_SIMULATOR_KEY", help="Bearer token to insist on; any when unset.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; that of the settings when unset.")] = None,
    data: DataOption = None,
) -> None:
    """Serve the simulated provider: OpenAI's HTTP API, deterministic by seed, failures on demand."""
    from api.providers.simulator.failures import read_script  # noqa: PLC0415
    from api.providers.simulator.server import run  # noqa: PLC0415
    from api.providers.simulator.settings import SimulatorSettings  # noqa: PLC0415

    settings = load_settings(data)
    monitor = begin(settings, "simulator")
    behaviour = SimulatorSettings(
        seed=seed,
        latency_milliseconds=latency,
        latency_distribution="lognormal" if lognormal else "constant",
        chunk_milliseconds=chunk_delay,
        chunk_tokens=chunk_tokens,
        completion_tokens_median=completion_tokens,
        api_key=key,
        error_rate=error_rate,
        script=read_script(script) if script else {},
        egress_log=egress_log,
    )

    def ready(_port: int) -> None:
        monitor.set(state="running")

    chosen = port or settings.simulator_port
    until_stopped(lambda stop: run(behaviour, "127.0.0.1", chosen, stop, ready))


def begin(settings: Settings, name: str) -> Monitor:
    """Set up logging of this process and start its monitor."""
    configure_diagnostics(LEVELS[settings.log_level])
    logging.basicConfig(level=logging.WARNING)
    monitor = Monitor(name, settings.monitor_port)
    monitor.start()
    return monitor


def until_stopped(work: Work) -> None:
    """Run work on uvloop until SIGTERM or SIGINT asks it to end."""
    import uvloop  # noqa: PLC0415 - only processes that serve need it

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await work(stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
