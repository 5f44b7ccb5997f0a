"""The audit log as commands read it, put together from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from api.audit.local import layout_of
from api.settings import Settings
from api.why.tell import SeenOf
from processors.audit.commitment import Salts
from processors.audit.key_chain import KeyChain
from processors.audit.marks import Seen
from schemas.errors import ConfigurationError, QuaestorError, UndecodableError
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import KeyRing
from sinks.audit.keys import load_salts
from sinks.audit.layout import AuditLayout
from sinks.audit.marks import Marker
from sinks.audit.store import AuditStore
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.connect import READER_ROLE
from streams.codec import Codec
from streams.log import LogRecord
from streams.pick import At, pick

#: Kafka silent for so long, a request's records are not waited for.
KAFKA_IDLE_SECONDS_MAX = 2.0


class Trail(NamedTuple):
    """A log that is read: its rows and its files."""

    layout: AuditLayout
    store: AuditStore
    files: LogFiles

    def marker(self) -> Marker:
        """What marks records, with the keys there are now: at the first start the sequencer makes them meanwhile."""
        return Marker(self.store, self.files, _keys(self.layout), _salts(self.layout))


@asynccontextmanager
async def open_trail(settings: Settings) -> AsyncIterator[Trail]:
    """The log, under the reader role; raises StoreUnavailableError."""
    layout = layout_of(settings)
    store = PostgresAuditStore(settings.postgres_dsn, layout.log, READER_ROLE)
    await store.open()
    try:
        yield Trail(layout, store, LogFiles(layout.directory))
    finally:
        await store.close()


def _keys(layout: AuditLayout) -> KeyChain | None:
    """The log's public keys, None where they are not."""
    with suppress(ConfigurationError):
        return KeyRing(layout).load().chain
    return None


def _salts(layout: AuditLayout) -> Salts | None:
    """The log's salts, None where their secret is not."""
    with suppress(ConfigurationError):
        return load_salts(layout.salt_file)
    return None


def seen_in_kafka(settings: Settings) -> SeenOf:
    """What reads records by their places, each time with a client of its own."""

    def read(wanted: Collection[At]) -> Mapping[At, Seen]:
        from streams.kafka import KafkaReader  # noqa: PLC0415 - the console is small until somebody asks
        from streams.registry import RegistrySchemas  # noqa: PLC0415

        if not wanted:
            return {}
        codec = Codec(RegistrySchemas(settings.registry_url))
        reader = KafkaReader(settings.kafka_bootstrap, "quaestor-why")
        try:
            seen = {at: _seen(codec, record) for at, record in pick(reader, wanted, KAFKA_IDLE_SECONDS_MAX).items()}
        except QuaestorError:  # Kafka or the registry is away: the marks say that nothing was seen
            return {}
        finally:
            reader.close()
        return seen

    return read


def _seen(codec: Codec, record: LogRecord) -> Seen:
    try:
        fields = codec.decode(record.topic, record.value or b"")
    except UndecodableError:
        fields = None
    return Seen(record.timestamp_millis, record.value, fields)
