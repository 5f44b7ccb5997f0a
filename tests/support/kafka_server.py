"""One real Kafka for a whole test run: started when first asked for, stopped with the tests."""

from __future__ import annotations

import atexit
import os
import tempfile
from functools import cache
from pathlib import Path
from uuid import uuid4

from infra.embedded.ports import free_ports
from infra.embedded.process import Spawner
from infra.embedded.servers.base import ServerContext
from infra.embedded.servers.kafka import KafkaServer
from schemas.topics import Topic
from streams.kafka import ensure_topics

#: A broker that runs already, for those who try things out; its data is not kept clean.
RUNNING = os.environ.get("TEST_KAFKA_BOOTSTRAP")


@cache
def kafka_bootstrap() -> str:
    """Where it listens."""
    return RUNNING or start_kafka().settings()["kafka_bootstrap"]


def start_kafka() -> KafkaServer:
    """A broker of a test's own, stopped with the tests at the latest."""
    folder = tempfile.TemporaryDirectory(prefix="quaestor-kafka-", ignore_cleanup_errors=True)
    spawner = Spawner()
    server = KafkaServer(ServerContext(Path(folder.name), spawner), free_ports(1)[0])
    server.start()

    def end() -> None:
        server.stop()
        spawner.close()
        folder.cleanup()

    atexit.register(end)
    return server


def fresh_topic(partitions: int) -> str:
    """A topic of a test's own on the shared broker; returns its name."""
    name = f"test.{uuid4().hex}"
    ensure_topics(kafka_bootstrap(), [Topic(name, object, partitions, None)])  # type: ignore[arg-type] # carries no events
    return name
