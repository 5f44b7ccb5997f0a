"""The log on Kafka, through confluent-kafka: publisher, readers, administration; and the gateway's own publisher."""

from __future__ import annotations

from streams.kafka.admin import ensure_topics, topic_ids
from streams.kafka.group import KafkaGroupReader
from streams.kafka.loop_publisher import LoopPublisher
from streams.kafka.loop_recorder import LoopRecorder
from streams.kafka.publisher import KafkaPublisher
from streams.kafka.reader import KafkaReader

__all__ = [
    "KafkaGroupReader",
    "KafkaPublisher",
    "KafkaReader",
    "LoopPublisher",
    "LoopRecorder",
    "ensure_topics",
    "topic_ids",
]
