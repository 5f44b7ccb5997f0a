"""`quaestor migrate`: topics, schemas and every store brought forward, side by side; a no-op when all is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from api.cli.control_seed import seed_defaults
from api.cli.terminal import DataOption, JsonOption, print_json, table, terminal
from api.settings import Settings, load_settings
from api.verify.rollups import mend_rollups
from schemas.errors import LogUnavailableError, QuaestorError, StoreUnavailableError
from sinks.clickhouse import migrations as clickhouse
from sinks.postgres import migrations as postgres
from streams.kafka import ensure_topics
from streams.registry import register_all

RETRY_SECONDS = 0.25
METADATA_SECONDS_MIN = 1.0
DETAIL_CHARACTERS_MAX = 200


class Only(StrEnum):
    """What can be brought forward by itself."""

    LOG = "log"
    STORES = "stores"


SeedOption = Annotated[bool, typer.Option("--seed", help="Also set up the simulated provider, prices and aliases.")]
OnlyOption = Annotated[Only | None, typer.Option("--only", help="The log (topics and schemas) or the stores alone.")]
RollupsOption = Annotated[
    bool,
    typer.Option("--rebuild-rollups", help="Also make anew every hour of ClickHouse's rollups that is not its facts."),
]
WaitOption = Annotated[float, typer.Option("--wait", help="How long to wait for a part that is away, seconds.")]


@dataclass(frozen=True)
class Step:
    """What became of one part."""

    part: str
    ok: bool
    #: What was brought forward, or why not.
    detail: str
    seconds: float


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("migrate")(migrate)


def migrate(
    data: DataOption = None,
    wait_seconds: WaitOption = 30.0,
    seed: SeedOption = False,
    only: OnlyOption = None,
    rebuild_rollups: RollupsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring Kafka's topics, the registered schemas, Postgres and ClickHouse forward; safe to run at any time."""
    settings = load_settings(data)
    steps = asyncio.run(migrate_parts(settings, wait_seconds, seed=seed, only=only))
    if rebuild_rollups and all(step.ok for step in steps):
        steps.append(asyncio.run(_step("rollups", lambda: _rollups(settings), wait_seconds)))
    ok = all(step.ok for step in steps)
    if as_json:
        print_json({"ok": ok, "parts": [vars(step) for step in steps]})
    else:
        rows = [(s.part, "ok" if s.ok else "failed", s.detail, f"{s.seconds:.2f} s") for s in steps]
        terminal().print(table("Migrations", ("part", "", "what", "time"), rows, numbers=(3,)))
    if not ok:
        raise typer.Exit(1)


async def migrate_parts(
    settings: Settings, wait_seconds: float, *, seed: bool = False, only: Only | None = None
) -> list[Step]:
    """The log first and then what begins in it, the stores beside; never raises for a part that fails."""
    parts = [] if only == Only.STORES else [_migrate_log(settings, wait_seconds, seed=seed)]
    parts += [] if only == Only.LOG else [_migrate_stores(settings, wait_seconds)]
    return [step for steps in await asyncio.gather(*parts) for step in steps]


async def _migrate_stores(settings: Settings, wait_seconds: float) -> list[Step]:
    steps = await asyncio.gather(
        _step("postgres", lambda: _postgres(settings.postgres_dsn), wait_seconds),
        _step("clickhouse", lambda: _clickhouse(settings.clickhouse_url), wait_seconds),
    )
    return list(steps)


async def _migrate_log(settings: Settings, wait_seconds: float, *, seed: bool) -> list[Step]:
    steps = await asyncio.gather(
        _step("kafka topics", lambda: asyncio.to_thread(_topics, settings.kafka_bootstrap, wait_seconds), wait_seconds),
        _step("schemas", lambda: asyncio.to_thread(_schemas, settings.registry_url), wait_seconds),
    )
    if not seed or not all(step.ok for step in steps):
        return list(steps)
    return [*steps, await _step("first entities", lambda: asyncio.to_thread(_seed, settings), wait_seconds)]


async def _step(part: str, bring_forward: Callable[[], Awaitable[str]], wait_seconds: float) -> Step:
    started = time.monotonic()
    while True:
        try:
            detail, ok = await bring_forward(), True
        except (StoreUnavailableError, LogUnavailableError) as error:
            if time.monotonic() - started < wait_seconds:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            detail, ok = f"still away after {wait_seconds:g} s: {str(error)[:DETAIL_CHARACTERS_MAX]}", False
        except QuaestorError as error:
            detail, ok = str(error), False
        return Step(part, ok, detail, time.monotonic() - started)


def _topics(bootstrap: str, wait_seconds: float) -> str:
    return _listed("created", ensure_topics(bootstrap, timeout_seconds=max(wait_seconds, METADATA_SECONDS_MIN)))


def _seed(settings: Settings) -> str:
    return "; ".join(seed_defaults(settings)) or "nothing to do"


def _schemas(url: str) -> str:
    return f"{len(register_all(url))} registered"


async def _postgres(dsn: str) -> str:
    return _listed("applied", await postgres.migrate(dsn))


async def _clickhouse(url: str) -> str:
    return _listed("applied", list(await clickhouse.migrate(url)))


async def _rollups(settings: Settings) -> str:
    mended = await mend_rollups(settings)
    return ", ".join(f"{name}: {hours} hours of tenants" for name, hours in mended.items() if hours) or "nothing to do"


def _listed(verb: str, names: list[str]) -> str:
    return f"{verb} {', '.join(names)}" if names else "nothing to do"
