"""A sitting at the control plane of the settings: what every command that reads or changes it opens."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from api.control.session import ControlSession
from api.settings import Settings
from schemas.errors import LogUnavailableError
from streams.codec import Codec

CONNECT_SECONDS = 3.0


@contextlib.contextmanager
def control_session(
    settings: Settings, actor: str | None = None, client_id: str = "quaestor-cli"
) -> Iterator[ControlSession]:
    """A session on the Kafka of these settings, folded to the end; raises LogError when it can't be reached."""
    from streams.kafka import KafkaPublisher, KafkaReader  # noqa: PLC0415 - keeps the other commands fast
    from streams.registry import RegistrySchemas  # noqa: PLC0415 - likewise

    require_kafka(settings.kafka_bootstrap)
    publisher = KafkaPublisher(settings.kafka_bootstrap, linger_milliseconds=0, client_id=client_id)
    reader = KafkaReader(settings.kafka_bootstrap, client_id)
    try:
        codec = Codec(RegistrySchemas(settings.registry_url))
        session = ControlSession(publisher, reader, codec, actor or f"cli/{os.getuid()}")
        session.refresh()
        yield session
    finally:
        reader.close()
        publisher.close()


def require_kafka(bootstrap: str) -> None:
    """Raise LogUnavailableError at once when nobody listens, instead of a Kafka client that tries and logs for long."""
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        with contextlib.suppress(OSError, ValueError):
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
            return
    raise LogUnavailableError(
        f"no Kafka answers at {bootstrap}: `quaestor up` starts it, or set QUAESTOR_KAFKA_BOOTSTRAP"
    )
