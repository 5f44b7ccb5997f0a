"""The product's command line with a fault in every sink's own code: `python -m tests.faults.faulty sink postgres`.

The fault lies where a sink makes a store's rows or calls of records, and is met by records of one tenant only. What it
raises is none of the product's own errors, so nothing tells which record it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sinks.redis.sink as redis_sink
from api.cli.main import main
from schemas.topics import QUARANTINE
from sinks.clickhouse.sink import ClickHouseSink
from sinks.postgres.sink import PostgresSink
from sinks.redis.movements import movements
from sinks.runner.seam import Decoded

#: Whose records our code fails on.
TENANT = "tenant_made_to_fail"


class MadeToFailError(Exception):
    """The fault."""


def fail_on(records: Iterable[Decoded]) -> None:
    """Raise MadeToFailError when one of these is the tenant's; what quarantine says of them is sound."""
    mark = TENANT.encode()
    values = (each.record.value or b"" for each in records if each.record.topic != QUARANTINE.name)
    if any(mark in value for value in values):
        raise MadeToFailError


def install() -> None:
    """Put the fault into the sinks: in the middle of a transaction, of a plan's rows, before a slot's script."""
    insert, made = PostgresSink._insert, ClickHouseSink._made

    async def postgres(self: PostgresSink, connection: Any, given: Any) -> None:
        fail_on(record for span in given.spans for record in span.records)
        await insert(self, connection, given)

    def clickhouse(self: ClickHouseSink, topic: str, pieces: Any) -> Any:
        fail_on(record for _, _, records in pieces for record in records)
        return made(self, topic, pieces)

    def redis(partition: int, topic: str, records: Sequence[Decoded]) -> Any:
        fail_on(records)
        return movements(partition, topic, records)

    vars(redis_sink)["movements"] = redis
    PostgresSink._insert = postgres  # type: ignore[method-assign]
    ClickHouseSink._made = clickhouse  # type: ignore[method-assign]


if __name__ == "__main__":
    install()
    main()
