"""One Postgres sink process for fault tests: `python -m tests.support.postgres_sink_program DSN BOOTSTRAP`.

It is the product's own sink and runner on Kafka; only the schemas come from the files instead of a registry.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from random import Random

from sinks.postgres.process import owner
from sinks.postgres.sink import PostgresSink
from sinks.postgres.tables import PROJECTION
from sinks.runner.progress import MonitorProgress
from sinks.runner.runner import run_sink
from streams.codec import Codec, LocalSchemas
from streams.kafka import KafkaGroupReader
from streams.log import Membership
from streams.monitor import Monitor

#: After this long the group takes a dead process's partitions away: long enough for a busy machine, short for a test.
SESSION_SECONDS = 3.0


async def main(dsn: str, bootstrap: str) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    reader = KafkaGroupReader(bootstrap, PROJECTION, "sink", Membership(SESSION_SECONDS))
    progress = MonitorProgress(Monitor("sink"), PROJECTION)
    await run_sink(PostgresSink(dsn, owner()), reader, Codec(LocalSchemas()), progress, stop, Random(1))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
