"""One real Kafka for a whole test run: started when first asked for, stopped with the tests."""

from __future__ import annotations

import atexit
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from confluent_kafka.admin import AdminClient

from infra.embedded.ports import free_ports
from infra.embedded.process import Spawner
from infra.embedded.servers.base import ServerContext
from infra.embedded.servers.kafka import KafkaServer
from schemas.topics import TOPICS, Topic
from streams.kafka import ensure_topics
from tests.support.shared_servers import address_of

#: A broker that runs already, for those who try things out; its data is not kept clean.
RUNNING = os.environ.get("TEST_KAFKA_BOOTSTRAP")
SECONDS = 30.0


def kafka_bootstrap() -> str:
    """Where it listens."""
    return RUNNING or address_of("kafka")


def start_kafka() -> KafkaServer:
    """A broker that a test may stop and start again: embedded on every machine. Stopped with the tests."""
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


def fresh_product_topics(topics: Sequence[Topic] = TOPICS) -> str:
    """Topics of the product, empty, on the shared broker for one module at a time; returns where it listens.

    Whatever groups had committed on those before goes with them.
    """
    bootstrap = kafka_bootstrap()
    admin = AdminClient({"bootstrap.servers": bootstrap})
    names = {topic.name for topic in TOPICS}
    if old := names & set(admin.list_topics(timeout=SECONDS).topics):
        for deleted in admin.delete_topics(list(old), operation_timeout=SECONDS).values():
            deleted.result(SECONDS)
    deadline = time.monotonic() + SECONDS
    while names & set(admin.list_topics(timeout=SECONDS).topics):
        if time.monotonic() > deadline:
            raise TimeoutError("topics are still there after they were deleted")
        time.sleep(0.05)
    ensure_topics(bootstrap, topics)
    return bootstrap


def fresh_topic(partitions: int) -> str:
    """A topic of a test's own on the shared broker; returns its name."""
    name = f"test.{uuid4().hex}"
    ensure_topics(kafka_bootstrap(), [Topic(name, object, partitions, None)])  # type: ignore[arg-type] # carries no events
    return name
