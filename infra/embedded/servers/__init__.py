"""One module per server, one class per module: `start`, `ready`, `stop`."""

from __future__ import annotations

from infra.embedded.servers.base import Server, ServerContext
from infra.embedded.servers.clickhouse import ClickHouseServer
from infra.embedded.servers.kafka import KafkaServer
from infra.embedded.servers.postgres import PostgresServer
from infra.embedded.servers.registry import RegistryServer
from infra.embedded.servers.valkey import ValkeyServer

#: In the order of the architecture; they start side by side and stop last to first.
SERVERS: tuple[type[Server], ...] = (KafkaServer, RegistryServer, PostgresServer, ValkeyServer, ClickHouseServer)

__all__ = [
    "SERVERS",
    "ClickHouseServer",
    "KafkaServer",
    "PostgresServer",
    "RegistryServer",
    "Server",
    "ServerContext",
    "ValkeyServer",
]
