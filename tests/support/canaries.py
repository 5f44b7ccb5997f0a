"""Looks for byte strings everywhere a running product keeps anything: topics, tables, Redis, files."""

from __future__ import annotations

import io
import mmap
import os
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import asyncpg
import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

READ_SECONDS = 10.0
POSTGRES_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1
"""
CLICKHOUSE_TABLES = """
SELECT concat(database, '.`', name, '`') FROM system.tables
WHERE NOT is_temporary AND engine LIKE '%MergeTree' FORMAT TSVRaw
"""


class Record(NamedTuple):
    """A record as a consumer gets it."""

    topic: str
    value: bytes
    #: Key, value and headers.
    everything: bytes


def kafka_records(bootstrap: str) -> Iterator[Record]:
    """Every record of every topic, internal ones included."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "canaries", "enable.auto.commit": False}
    consumer = Consumer({**settings, "enable.partition.eof": True})
    try:
        topics = consumer.list_topics(timeout=READ_SECONDS).topics.values()
        unread = {(topic.topic, number) for topic in topics for number in topic.partitions}
        consumer.assign([TopicPartition(*partition, OFFSET_BEGINNING) for partition in unread])
        while unread:
            one = consumer.poll(READ_SECONDS)
            assert one is not None, f"nothing more came of {unread}"
            if one.error() is not None:
                assert one.error().code() == KafkaError._PARTITION_EOF, one.error()
                unread.discard((one.topic(), one.partition()))
                continue
            key, value = one.key() or b"", one.value() or b""
            headers = [name.encode() + b"=" + (content or b"") for name, content in one.headers() or []]
            yield Record(one.topic(), value, b"\n".join((key, value, *headers)))
    finally:
        consumer.close()


async def postgres_tables(dsn: str) -> dict[str, bytes]:
    """Every table's rows as the server's binary copy has them: text and bytes stand there as they are."""
    connection = await asyncpg.connect(dsn)
    try:
        found = {}
        for (name,) in await connection.fetch(POSTGRES_TABLES):
            output = io.BytesIO()
            await connection.copy_from_query(f"SELECT * FROM {name}", output=output, format="binary")  # noqa: S608
            found[name] = output.getvalue()
        return found
    finally:
        await connection.close()


def clickhouse_tables(url: str) -> dict[str, bytes]:
    """Every table's rows, those of the server's own logs included, in its binary format."""
    names = _clickhouse(url, CLICKHOUSE_TABLES).decode().split("\n")
    return {name: _clickhouse(url, f"SELECT * FROM {name} FORMAT RowBinary") for name in names if name}  # noqa: S608


def _clickhouse(url: str, query: str) -> bytes:
    with urllib.request.urlopen(f"{url}/?{urllib.parse.urlencode({'query': query})}", timeout=60) as answer:  # noqa: S310 - our own server
        return bytes(answer.read())


def redis_values(url: str) -> dict[bytes, bytes]:
    """Every key with all it holds, in every database of the server."""
    with redis.Redis.from_url(url) as client:
        read = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"list": lambda key: client.lrange(key, 0, -1),
            b"stream": client.xrange,
        }
        return {key: key + repr(read[client.type(key)](key)).encode() for key in client.scan_iter(count=1_000)}


def files_with(folder: Path, wanted: Sequence[bytes]) -> set[str]:
    """The files below a folder that hold any of these."""
    found = set()
    for directory, _, names in os.walk(folder):
        for path in (Path(directory) / name for name in names):
            if path.is_file() and not path.is_symlink() and path.stat().st_size and _holds(path, wanted):
                found.add(str(path.relative_to(folder)))
    return found


def _holds(path: Path, wanted: Sequence[bytes]) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(one) >= 0 for one in wanted)


async def places_with(
    data: Path, kafka: str, postgres: str, clickhouse: str, redis_url: str, wanted: Sequence[bytes]
) -> set[str]:
    """Every topic, table, key and file that holds any of these."""

    def held(content: bytes) -> bool:
        return any(one in content for one in wanted)

    places = {f"topic {one.topic}" for one in kafka_records(kafka) if held(one.everything)}
    places |= {f"table {name}" for name, content in (await postgres_tables(postgres)).items() if held(content)}
    places |= {f"facts {name}" for name, content in clickhouse_tables(clickhouse).items() if held(content)}
    places |= {f"redis {key!r}" for key, content in redis_values(redis_url).items() if held(content)}
    return places | {f"file {name}" for name in files_with(data, wanted)}
