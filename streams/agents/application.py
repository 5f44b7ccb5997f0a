"""The factory of Faust applications: what every agent has, and what none may change.

One process per application, concurrency 1, at least once, state in memory: Faust commits past messages that are still
under way when an agent runs several at once, and its exactly-once mode loses and repeats (docs/decisions/0034).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from faust import App

from streams.agents.consumer import Transport
from streams.log import Membership

CONCURRENCY = 1
COMMIT_SECONDS = 2.0
#: Faust's own; it refuses a session that is longer.
REQUEST_SECONDS_MIN = 90.0


def faust_application(name: str, bootstrap: str, data: Path, membership: Membership) -> Any:
    """An application `stream-<name>` in the running loop: creates no topics, serves no page, keeps nothing on disk."""
    folder = data / "faust"
    folder.mkdir(parents=True, exist_ok=True)
    application = App(
        f"stream-{name}",
        broker=[f"aiokafka://{server}" for server in bootstrap.split(",")],
        loop=asyncio.get_running_loop(),
        store="memory://",
        datadir=folder,
        processing_guarantee="at_least_once",
        broker_commit_interval=COMMIT_SECONDS,
        broker_request_timeout=max(REQUEST_SECONDS_MIN, membership.session_seconds),
        broker_session_timeout=membership.session_seconds,
        broker_heartbeat_interval=membership.heartbeat_seconds,
        consumer_group_instance_id=membership.instance or None,
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
    application.transport = Transport(application.conf.broker_consumer, application)
    return application


def raw_topic(application: Any, name: str) -> Any:
    """An existing topic of bytes: framing is our codec's business. What is read of it are runs: lists of values."""
    return application.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


async def lag_events(application: Any) -> int:
    """Records that its partitions hold and it has not fetched; what is unknown yet counts as none."""
    consumer, behind = application.consumer, 0
    for partition in consumer.assignment():
        position = await consumer.position(partition)
        behind += max((consumer.highwater(partition) or 0) - (position or 0), 0)
    return behind
