"""The factory of Faust applications: what every agent has, and what none may change.

One process per application, concurrency 1, at least once, state in memory: Faust commits past messages that are still
under way when an agent runs several at once, and its exactly-once mode loses and repeats (docs/decisions/0034).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import faust
from faust.transport.drivers import aiokafka

CONCURRENCY = 1
COMMIT_SECONDS = 2.0
#: A fetch waits for this much, or for its time. Faust leaves the client's default of one byte, with which every record
#: travels alone: fetching then costs several times what is done with it (docs/decisions/0112).
FETCH_BYTES_MIN = 256 * 1024
FETCH_WAIT_MILLISECONDS = 500


class _FetchingThread(aiokafka.AIOKafkaConsumerThread):
    """Faust's consumer, but for how long a fetch waits: there is no setting for it."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_min_bytes = FETCH_BYTES_MIN  # noqa: SLF001 - read when the consumer starts
        consumer._fetch_max_wait_ms = FETCH_WAIT_MILLISECONDS  # noqa: SLF001 - likewise
        return consumer


class _Consumer(aiokafka.Consumer):
    def _new_consumer_thread(self) -> Any:
        return _FetchingThread(self, loop=self.loop, beacon=self.beacon)


class _Transport(aiokafka.Transport):
    Consumer = _Consumer


def faust_application(name: str, bootstrap: str, data: Path) -> Any:
    """An application `stream-<name>` in the running loop: creates no topics, serves no page, keeps nothing on disk."""
    folder = data / "faust"
    folder.mkdir(parents=True, exist_ok=True)
    application = faust.App(
        f"stream-{name}",
        broker=[f"aiokafka://{server}" for server in bootstrap.split(",")],
        loop=asyncio.get_running_loop(),
        store="memory://",
        datadir=folder,
        processing_guarantee="at_least_once",
        broker_commit_interval=COMMIT_SECONDS,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        key_serializer="raw",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        stream_wait_empty=False,
    )
    application.finalize()
    application.transport = _Transport(application.conf.broker_consumer, application)
    return application


def raw_topic(application: Any, name: str) -> Any:
    """An existing topic whose keys and values are bytes: framing is our codec's business."""
    return application.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


async def lag_events(application: Any) -> int:
    """Records that its partitions hold and it has not fetched; what is unknown yet counts as none."""
    consumer, behind = application.consumer, 0
    for partition in consumer.assignment():
        position = await consumer.position(partition)
        behind += max((consumer.highwater(partition) or 0) - (position or 0), 0)
    return behind
