"""The product's command line with a fault in every sink's own code: `python -m tests.faults.faulty sink postgres`.

The fault lies where a sink makes a store's rows or calls of records, and is met by records of one tenant only. What it
raises is none of the product's own errors, so nothing tells which record it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sinks.redis.movements as redis_movements
from api.cli.main import main
from schemas.topics import QUARANTINE
from sinks.clickhouse.sink import ClickHouseSink
from sinks.postgres.sink import PostgresSink
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
    commit, made, movements = PostgresSink._commit, ClickHouseSink._made, redis_movements.movements

    async def postgres(self: PostgresSink, spans: Any, tables: Any, put: Any) -> None:
        async def failing(connection: Any, given: Any) -> None:
            fail_on(record for span in given.spans for record in span.records)
            await put(connection, given)

        await commit(self, spans, tables, failing)

    def clickhouse(self: ClickHouseSink, topic: str, pieces: Any) -> Any:
        fail_on(record for _, _, records in pieces for record in records)
        return made(self, topic, pieces)

    def redis(partition: int, topic: str, records: Sequence[Decoded]) -> Any:
        fail_on(records)
        return movements(partition, topic, records)

    vars(redis_movements)["movements"] = redis
    PostgresSink._commit = postgres  # type: ignore[method-assign]
    ClickHouseSink._made = clickhouse  # type: ignore[method-assign]


if __name__ == "__main__":
    install()
    main()
