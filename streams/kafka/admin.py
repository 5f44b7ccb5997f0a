"""Topics: created as the topic table says, checked, and told apart by their ids."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined] # its documentation imports them from here
    RESOURCE_TOPIC,
    AdminClient,
    ConfigResource,
    NewTopic,
)

from schemas.errors import ConfigurationError, LogUnavailableError
from schemas.limits import RECORD_BYTES_MAX
from schemas.topics import TOPICS, Topic
from streams.kafka import configuration

REPLICATION = 3
TIMEOUT_SECONDS = 30.0
#: Between two looks at what the brokers know.
KNOWN_SECONDS = 0.02
RETENTION = "retention.ms"
CLEANUP = "cleanup.policy"


def ensure_topics(
    bootstrap: str, topics: Sequence[Topic] = TOPICS, timeout_seconds: float = TIMEOUT_SECONDS
) -> list[str]:
    """Create the topics that are missing and check those that are there; returns those created, ready for use. Blocks.

    Raises ConfigurationError when an existing topic has another partition count, or would forget or rewrite records,
    and LogUnavailableError when Kafka can't be asked.
    """
    client = AdminClient(configuration.common(bootstrap, "quaestor-admin"))
    try:
        found = client.list_topics(timeout=timeout_seconds)
        there = {topic.name for topic in topics if topic.name in found.topics}
        missing = [topic for topic in topics if topic.name not in there]
        replication = min(REPLICATION, len(found.brokers))
        _create(client, [_new(topic, replication) for topic in missing], timeout_seconds)
        _check_partitions(found, [topic for topic in topics if topic.name in there])
        _check_configuration(client, sorted(there), timeout_seconds)
    except KafkaException as error:
        raise configuration.fault_of_exception(error) from error
    return [topic.name for topic in missing]


def _new(topic: Topic, replication: int) -> Any:
    return NewTopic(
        topic.name,
        num_partitions=topic.partitions,
        replication_factor=replication,
        config={
            # For ever: Kafka's seven days would silently end rebuildability.
            RETENTION: "-1",
            "retention.bytes": "-1",
            CLEANUP: "delete",
            "min.insync.replicas": str(max(1, replication - 1)),
            "max.message.bytes": str(RECORD_BYTES_MAX + configuration.RECORD_OVERHEAD_BYTES),
            "message.timestamp.type": "CreateTime",
        },
    )


def _create(client: Any, topics: Iterable[Any], timeout_seconds: float) -> None:
    wanted = list(topics)
    if not wanted:
        return
    for future in client.create_topics(wanted, operation_timeout=timeout_seconds).values():
        try:
            future.result(timeout_seconds)
        except KafkaException as error:
            # Another process of ours may create them at the same moment.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    wait_known(client, {topic.topic for topic in wanted}, timeout_seconds)


def wait_known(client: Any, names: AbstractSet[str], timeout_seconds: float) -> None:
    """Return when the brokers tell of topics that were created: the controller is ahead of them, by a moment mostly.

    Raises LogUnavailableError when they don't in time. Blocks.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = client.list_topics(timeout=timeout_seconds).topics
        missing = [name for name in sorted(names) if name not in found or found[name].error is not None]
        if not missing:
            return
        if time.monotonic() > deadline:
            raise LogUnavailableError(f"Kafka does not tell yet of what it created: {', '.join(missing)}")
        time.sleep(KNOWN_SECONDS)


def _check_partitions(found: Any, topics: Iterable[Topic]) -> None:
    for topic in topics:
        partitions = len(found.topics[topic.name].partitions)
        if partitions != topic.partitions:
            raise ConfigurationError(f"topic {topic.name} has {partitions} partitions, not {topic.partitions}")


def _check_configuration(client: Any, names: Sequence[str], timeout_seconds: float) -> None:
    asked = [ConfigResource(RESOURCE_TOPIC, name) for name in names]
    if not asked:
        return
    for resource, future in client.describe_configs(asked, request_timeout=timeout_seconds).items():
        entries = future.result(timeout_seconds)
        for setting, wanted in ((RETENTION, "-1"), (CLEANUP, "delete")):
            if entries[setting].value != wanted:
                value = entries[setting].value
                raise ConfigurationError(f"topic {resource.name} has {setting}={value}; set it to {wanted}")


def topic_ids(bootstrap: str, topics: Sequence[str], timeout_seconds: float) -> dict[str, str]:
    """Each topic's UUID, as canonical text; raises LogUnavailableError. Blocks."""
    client = AdminClient(configuration.common(bootstrap, "quaestor-admin"))
    asked = client.describe_topics(TopicCollection(list(topics)), request_timeout=timeout_seconds)
    try:
        return {topic: _uuid(future.result(timeout_seconds).topic_id) for topic, future in asked.items()}
    except KafkaException as error:
        raise configuration.fault_of_exception(error) from error
    except TimeoutError as error:
        raise LogUnavailableError from error


def _uuid(topic_id: Any) -> str:
    high, low = topic_id.get_most_significant_bits(), topic_id.get_least_significant_bits()
    return str(UUID(int=(high % 2**64) << 64 | low % 2**64))
