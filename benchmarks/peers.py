"""arroyo's per-message loop over the same topics: what is built on it can't be faster than this.

Runs under the Python of an environment of its own (`pip install sentry-arroyo fastavro`), as this very file; two
strategies: one that does nothing with a message, and one that decodes it as arroyo's own users do, with fastavro.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from api.settings import Settings

SECONDS_MAX = 600
FRAME_BYTES = 5
STRATEGIES = ("nothing", "decode")
SCHEMAS = Path(__file__).resolve().parent.parent / "schemas" / "avro"


class Measured(Protocol):
    """The line that it is compared with."""

    @property
    def what(self) -> str:
        """Its name."""

    @property
    def rate(self) -> float:
        """Events per second."""


@dataclass(frozen=True)
class PeerRow:
    """One strategy over the topics of one line."""

    beside: Measured
    what: str
    events: int
    seconds: float

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds


def run(
    python: str,
    settings: Settings,
    topics: Sequence[str],
    records: int,
    beside: Measured,
    say: Callable[[str], None],
) -> list[PeerRow]:
    """Both strategies, each in a process of its own; `records` are in the topics."""
    rows = []
    for strategy in STRATEGIES:
        say(f"arroyo, {strategy}, on the topics of: {beside.what}")
        command = [python, __file__, settings.kafka_bootstrap, strategy, str(records), beside.what, ",".join(topics)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, timeout=SECONDS_MAX, env=environment
        )
        rows.append(PeerRow(beside, **json.loads(done.stdout.splitlines()[-1])))
    return rows


def show(rows: Sequence[PeerRow]) -> None:
    """Print them, and each line in units of arroyo's loop over the same topics."""
    if rows:
        print("\n| topics of | arroyo's loop | events | events/s | in units of it |\n|---|---|---|---|---|")
    for row in rows:
        units = row.beside.rate / row.rate
        print(f"| {row.beside.what} | {row.what} | {row.events:,} | {row.rate:,.0f} | {units:.2f} |")


def loop(bootstrap: str, strategy: str, records: int, group: str, topics: Sequence[str]) -> None:
    """Under the other Python: read everything message by message and print what it took."""
    from arroyo.backends.kafka import KafkaConsumer, build_kafka_consumer_configuration  # noqa: PLC0415
    from arroyo.commit import ONCE_PER_SECOND  # noqa: PLC0415
    from arroyo.processing import StreamProcessor  # noqa: PLC0415
    from arroyo.processing.strategies import CommitOffsets, ProcessingStrategyFactory, RunTask  # noqa: PLC0415
    from arroyo.types import Topic  # noqa: PLC0415

    work = _decoder(topics) if strategy == "decode" else (lambda message: message)
    counted = {"events": 0, "first": 0.0, "last": 0.0}
    processors: list[Any] = []

    def task(message: Any) -> Any:
        counted["events"] += 1
        if counted["events"] == 1:
            counted["first"] = time.monotonic()
        elif counted["events"] >= records:
            counted["last"] = time.monotonic()
            processors[0].signal_shutdown()
        return work(message)

    class Factory(ProcessingStrategyFactory):  # type: ignore[misc] # arroyo is not installed where this is checked
        def create_with_partitions(self, commit: Any, partitions: Any) -> Any:  # noqa: ARG002 - arroyo's signature
            return RunTask(task, CommitOffsets(commit))

    configuration = build_kafka_consumer_configuration(
        {"bootstrap.servers": bootstrap}, group_id=f"arroyo-{strategy}-{group}", auto_offset_reset="earliest"
    )
    consumer = _ManyTopics(KafkaConsumer(configuration), topics)
    processors.append(StreamProcessor(consumer, Topic(topics[0]), Factory(), ONCE_PER_SECOND))
    processors[0].run()
    what = "no work per message" if strategy == "nothing" else "fastavro per message"
    seconds = counted["last"] - counted["first"]
    sys.stdout.write(json.dumps({"what": what, "events": counted["events"], "seconds": seconds}) + "\n")


class _ManyTopics:
    """arroyo's processor subscribes to one topic; its consumer can take all of them."""

    def __init__(self, consumer: Any, topics: Sequence[str]) -> None:
        self._consumer, self._topics = consumer, topics

    def subscribe(self, topics: Any, **callbacks: Any) -> None:
        make = type(topics[0])
        self._consumer.subscribe([make(name) for name in self._topics], **callbacks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


def _decoder(topics: Sequence[str]) -> Callable[[Any], Any]:
    import fastavro  # noqa: PLC0415 - the other environment's

    by_topic = {name: fastavro.parse_schema(json.loads((SCHEMAS / f"{name}.avsc").read_text())) for name in topics}

    def decode(message: Any) -> Any:
        value = message.value
        buffer = BytesIO(value.payload.value)
        buffer.seek(FRAME_BYTES)
        return fastavro.schemaless_reader(buffer, by_topic[value.partition.topic.name], None)

    return decode


if __name__ == "__main__":
    loop(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5].split(","))
