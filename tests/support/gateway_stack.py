"""A real gateway on real servers: Kafka, registry, Postgres, Valkey, the budgets sink, and the simulated provider."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from openai import OpenAI

from api.cli.control_keys import create_key
from api.cli.control_seed import seed_defaults
from api.cli.control_session import control_session
from api.control.session import ControlSession
from api.settings import Settings
from infra.embedded.ports import free_ports
from processors.budgets import Counter
from processors.control import (
    ControlState,
    Limit,
    Origin,
    Provider,
    Refusal,
    Route,
    RouteCandidate,
    add_provider,
    publish_prices,
    set_limit,
    set_route,
)
from processors.pricing import Price, Rates, make_book
from schemas.events import ControlEvent, Event
from schemas.money import NANO_PER_UNIT
from schemas.topics import TOPIC_BY_NAME
from sinks.postgres import migrations
from sinks.redis.reads import RedisReads, TenantState
from streams.codec import Codec
from streams.kafka import KafkaReader, ensure_topics
from streams.records import event_of
from streams.registry import RegistrySchemas, register_all
from tests.budget_world import limit_on
from tests.support.databases import postgres_databases
from tests.support.kafka_server import fresh_product_topics
from tests.support.registry_server import registry_url
from tests.valkey import Valkey
from tests.valkey import running as running_valkey

ROOT = Path(__file__).parents[2]
READY_SECONDS_MAX = 40.0
EFFECTIVE_SECONDS_MAX = 10.0
COMMAND_SECONDS_MAX = 300.0
SIMULATED_RATES = Rates(input=150_000, output=600_000)


class GatewayStack:
    """The parts, and what a test does with them."""

    #: Its own, where `gateway_stack` made it: a test may kill it.
    redis: Valkey

    def __init__(self, data: Path, servers: Mapping[str, str]) -> None:
        """`servers` are the settings by which the servers are found."""
        self.data = data
        self.gateway_port, self.simulator_port, *self.monitor_ports = free_ports(5)
        self.settings = Settings(
            data=data,
            gateway_port=self.gateway_port,
            simulator_port=self.simulator_port,
            simulator_url=f"http://127.0.0.1:{self.simulator_port}/v1",
            **servers,  # type: ignore[arg-type]  # all are texts
        )
        self.url = f"http://127.0.0.1:{self.gateway_port}"
        self._running: list[subprocess.Popen[bytes]] = []
        self._clients: list[OpenAI] = []

    def prepare(self) -> None:
        """Topics, schemas, tables, the simulator's prices."""
        ensure_topics(self.settings.kafka_bootstrap)
        register_all(self.settings.registry_url)
        asyncio.run(migrations.migrate(self.settings.postgres_dsn))
        seed_defaults(self.settings)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        """One process of the product; its log stands beside the data."""
        environment = self._environment() | variables
        with (self.data / f"{'-'.join(arguments[:2])}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "api.cli.main", *arguments], env=environment, stdout=log, stderr=log, cwd=ROOT
            )
        self._running.append(process)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of the product, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "api.cli.main", *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=COMMAND_SECONDS_MAX,
        )

    def _environment(self) -> dict[str, str]:
        names = ("kafka_bootstrap", "registry_url", "postgres_dsn", "redis_url", "gateway_port", "simulator_port")
        given = {f"QUAESTOR_{name.upper()}": str(getattr(self.settings, name)) for name in names}
        return {**os.environ, **given, "QUAESTOR_DATA": str(self.data), "PYTHONPATH": str(ROOT)}

    def sdk(self, key: str, **options: Any) -> OpenAI:
        """The official SDK with a key; closed with the stack, so that no socket is left to the collector."""
        given = {"max_retries": 0, "timeout": 30} | options
        one = OpenAI(api_key=key, base_url=f"{self.url}/v1", **given)
        self._clients.append(one)
        return one

    def start_gateway(self, workers: int = 1, **variables: str) -> subprocess.Popen[bytes]:
        """A gateway that is ready."""
        process = self.start("gateway", "--workers", str(workers), **variables)
        self.wait_until_ready(process)
        return process

    def wait_until_ready(self, process: subprocess.Popen[bytes] | None = None) -> None:
        """Until /readyz says so."""

        async def ask() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                async with aiohttp.ClientSession() as session, session.get(f"{self.url}/readyz") as response:
                    return response.status == 200
            return False

        def ready() -> bool:
            if process is not None and process.poll() is not None:
                raise AssertionError(f"the gateway ended with {process.returncode}: {self.log_of('gateway')}")
            return asyncio.run(ask())

        wait_for(ready, READY_SECONDS_MAX, lambda: self.log_of("gateway"))

    def log_of(self, name: str) -> str:
        """The end of a process's log."""
        return "".join(path.read_text(errors="replace")[-4000:] for path in self.data.glob(f"{name}*.log"))

    def stop(self, process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> int:
        """End a process; its exit code."""
        process.send_signal(how)
        code = process.wait(30)
        self._running.remove(process)
        return code

    def close(self) -> None:
        """End everything."""
        for one in self._clients:
            one.close()
        for process in reversed(list(self._running)):
            if process.poll() is None:
                self.stop(process)

    def key(self, tenant: str, **fields: str) -> str:
        """A new key; gateways know it soon."""
        return create_key(self.settings, **{"tenant_id": tenant, "team_id": "search", "project_id": "web"} | fields)

    @contextlib.contextmanager
    def control(self) -> Iterator[ControlSession]:
        """A sitting at the control plane."""
        with control_session(self.settings, "test") as session:
            yield session

    def limit(self, tenant: str, units: float) -> None:
        """A hard limit on a tenant, in dollars."""
        amount_nano = round(units * NANO_PER_UNIT)
        self.put_limits(limit_on("tenant", tenant, amount_nano, tenant_id=tenant, window="total"))

    def put_limits(self, *limits: Limit) -> None:
        """Set limits."""
        with self.control() as session:
            session.settle_all([partial(_set_limit, limit) for limit in limits])

    def route(self, alias: str, provider: Provider, model: str = "sim-small", rates: Rates = SIMULATED_RATES) -> None:
        """An alias to a provider of the test's own, priced like the simulator's unless told otherwise."""
        provider_id = provider.provider_id
        price = Price(price_id=f"{provider_id}/{model}", provider_id=provider_id, model=model, rates=rates)
        one = Route(alias=alias, tenant_id="_system", candidates=(RouteCandidate(provider_id, model),))
        with self.control() as session:
            session.change(lambda state, origin: add_provider(state, provider, origin))
            session.change(lambda state, origin: publish_prices(state, make_book(provider_id, [price]), origin))
            session.change(lambda state, origin: set_route(state, one, origin))

    def live_state(self, tenant: str) -> TenantState:
        """A tenant's live budgets."""

        async def read() -> TenantState:
            reads = RedisReads(self.settings.redis_url)
            await reads.open()
            try:
                return await reads.tenant_state(tenant)
            finally:
                await reads.close()

        return asyncio.run(read())

    def settled(self, tenant: str) -> dict[Counter, int]:
        """What is posted on each counter, once nothing is held any more."""
        wait_for(lambda: not _held(self.live_state(tenant)), EFFECTIVE_SECONDS_MAX)
        return {counter: sums.posted_nano for counter, sums in self.live_state(tenant).sums.items()}

    def events(self, *topics: str) -> list[Event]:
        """Every event of these topics now."""
        return events_of(self.settings.kafka_bootstrap, self.settings.registry_url, *topics)


def events_of(kafka_bootstrap: str, registry_url: str, *topics: str) -> list[Event]:
    """Every event of these topics now."""
    codec = Codec(RegistrySchemas(registry_url))
    with contextlib.closing(KafkaReader(kafka_bootstrap, "test")) as reader:
        return _read(reader, codec, [f"quaestor.{topic}" for topic in topics])


def _held(state: TenantState) -> bool:
    return bool(state.holds or state.unconfirmed or any(sums.held_nano for sums in state.sums.values()))


def _set_limit(limit: Limit, state: ControlState, origin: Origin) -> ControlEvent | Refusal:
    return set_limit(state, limit, origin)


def _read(reader: KafkaReader, codec: Codec, topics: Sequence[str]) -> list[Event]:
    assert all(topic in TOPIC_BY_NAME for topic in topics)
    partitions = reader.partitions(topics, 10)
    ends = reader.end_offsets(partitions, 10)
    reader.assign(dict.fromkeys(partitions, 0))
    found: list[Event] = []
    while len(found) < sum(ends.values()):
        found += [event_of(codec, record) for record in reader.consume(1_000, 1.0)]
    return found


def wait_for(condition: Callable[[], bool], seconds: float, explain: Callable[[], str] = str) -> None:
    """Until something is so; fails with an explanation."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {seconds} s: {explain()}")
        time.sleep(0.05)


@contextlib.contextmanager
def gateway_stack(data: Path, *simulator: str, kafka: str | None = None) -> Iterator[GatewayStack]:
    """Everything but the gateway, running, on servers that all tests share; only Redis is the stack's own.

    `kafka` is a broker of the test's own, `simulator` are its options.
    """
    with running_valkey() as valkey:
        servers = {
            "kafka_bootstrap": kafka or fresh_product_topics(),
            "registry_url": registry_url(),
            "postgres_dsn": asyncio.run(postgres_databases().copied("gateway")),
            "redis_url": valkey.url,
        }
        with stack_on(servers, data, *simulator) as stack:
            stack.redis = valkey
            yield stack


@contextlib.contextmanager
def stack_on(servers: Mapping[str, str], data: Path, *simulator: str) -> Iterator[GatewayStack]:
    """Everything but the gateway, running on these servers; `simulator` are its options."""
    data.mkdir(parents=True, exist_ok=True)
    stack = GatewayStack(data, servers)
    try:
        stack.prepare()
        stack.start("simulator", *simulator)
        stack.start("sink", "redis")
        yield stack
    finally:
        stack.close()
