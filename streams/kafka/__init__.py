"""The log on Kafka, through confluent-kafka: publisher, readers, administration."""

from __future__ import annotations

from streams.kafka.admin import ensure_topics, topic_ids
from streams.kafka.group import KafkaGroupReader
from streams.kafka.publisher import KafkaPublisher
from streams.kafka.reader import KafkaReader

__all__ = ["KafkaGroupReader", "KafkaPublisher", "KafkaReader", "ensure_topics", "topic_ids"]
