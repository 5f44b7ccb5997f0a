"""librdkafka configurations and the meaning of its errors; every bound comes from schemas.limits."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException

from schemas.errors import LogError, LogUnavailableError, RecordRefusedError
from schemas.limits import (
    CONSUME_BATCH_RECORDS,
    DELIVERY_TIMEOUT_SECONDS,
    PRODUCER_QUEUE_BYTES_MAX,
    PRODUCER_QUEUE_RECORDS_MAX,
    RECORD_BYTES_MAX,
)
from streams.kafka.client_log import ClientLog
from streams.log import Membership

RECORD_OVERHEAD_BYTES = 4_096
READER_QUEUE_KIBIBYTES = 16 * 1024
READER_QUEUE_RECORDS = 20 * CONSUME_BATCH_RECORDS
#: Longest time between two calls of consume before the group takes a member's partitions away.
POLL_INTERVAL_MILLISECONDS_MAX = 120_000
FETCH_WAIT_MILLISECONDS = 100
#: A fetch waits for this much, or for its time: each answer costs the broker and the consumer the same, however small.
FETCH_BYTES_MIN = 128 * 1024
#: One answer holds so much at most; the client's default of 50 MB is held beside the queue, and above its bound.
FETCH_BYTES_MAX = 8 * 1024 * 1024
#: A partition whose queue was full is asked for again after so long. The client's default of a second starves a reader
#: that empties the queue in half of that: it then reads at a queue a second, whatever it could take.
FETCH_AGAIN_MILLISECONDS = 10
ASSIGN_ONLY_GROUP = "quaestor-assign-only"
#: Errors that no repetition cures.
REFUSALS = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)


def common(bootstrap: str, client_id: str) -> dict[str, Any]:
    """What every client has."""
    return {
        "bootstrap.servers": bootstrap,
        "client.id": client_id,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "socket.nagle.disable": True,
        "logger": ClientLog(),
    }


def producer(bootstrap: str, client_id: str, linger_milliseconds: float) -> dict[str, Any]:
    """A producer that loses nothing it acknowledged and keeps the order per key."""
    return common(bootstrap, client_id) | {
        "acks": "all",
        "enable.idempotence": True,
        # Faust and the JVM clients hash so; librdkafka's own default would send equal keys elsewhere.
        "partitioner": "murmur2_random",
        "linger.ms": linger_milliseconds,
        "compression.type": "lz4",
        "message.timeout.ms": DELIVERY_TIMEOUT_SECONDS * 1_000,
        "request.timeout.ms": DELIVERY_TIMEOUT_SECONDS * 1_000 // 2,
        "retry.backoff.ms": 50,
        "retry.backoff.max.ms": 500,
        "message.max.bytes": RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES,
        "queue.buffering.max.messages": PRODUCER_QUEUE_RECORDS_MAX,
        "queue.buffering.max.kbytes": PRODUCER_QUEUE_BYTES_MAX // 1_024,
    }


def reader(bootstrap: str, client_id: str) -> dict[str, Any]:
    """A consumer that only does what it is told: commits nothing, resets nothing, creates nothing."""
    return common(bootstrap, client_id) | {
        "group.id": ASSIGN_ONLY_GROUP,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # An offset that is gone is an error here, never a silent jump.
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "enable.partition.eof": False,
        # A broker answers a connection in order: whatever is asked waits behind the fetch that waits for records.
        "fetch.wait.max.ms": FETCH_WAIT_MILLISECONDS,
        "fetch.min.bytes": FETCH_BYTES_MIN,
        "fetch.max.bytes": FETCH_BYTES_MAX,
        "fetch.queue.backoff.ms": FETCH_AGAIN_MILLISECONDS,
        "queued.min.messages": READER_QUEUE_RECORDS,
        "queued.max.messages.kbytes": READER_QUEUE_KIBIBYTES,
    }


def group_reader(bootstrap: str, client_id: str, group: str, membership: Membership) -> dict[str, Any]:
    """A consumer that shares its topics with its group, and keeps what it has while others come and go."""
    shared = {
        "group.id": group,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": int(membership.session_seconds * 1_000),
        "heartbeat.interval.ms": int(membership.heartbeat_seconds * 1_000),
        "max.poll.interval.ms": POLL_INTERVAL_MILLISECONDS_MAX,
    }
    if membership.instance:
        shared["group.instance.id"] = membership.instance
    return reader(bootstrap, client_id) | shared


def fault_of(error: KafkaError) -> LogError:
    """Our fault for librdkafka's: refused for good, or unavailable for now."""
    if error.code() in REFUSALS:
        return RecordRefusedError(error.str())
    return LogUnavailableError(f"Kafka: {error.str()}")


def fault_of_exception(exception: KafkaException) -> LogError:
    """Our fault for an exception of confluent-kafka."""
    error = exception.args[0] if exception.args else None
    return fault_of(error) if isinstance(error, KafkaError) else LogUnavailableError(f"Kafka: {exception}")
