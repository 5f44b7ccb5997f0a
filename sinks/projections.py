"""Names of projections, and what a projection owns: everything has the version in its name, so that two never meet.

A projection is `<sink>@v<number>`, which is what its cursors, plans, tokens and quarantine rows are kept under. Its
place in each store follows from the number alone; the first version keeps its released names (decision 0160).
"""

from __future__ import annotations

import re

from schemas.errors import ConfigurationError

NAME = re.compile(r"([a-z]+)@v([1-9][0-9]{0,3})")


def version_of(projection: str, sink: str) -> int:
    """The number of a version of this sink's projection; raises ConfigurationError when it is not one."""
    found = NAME.fullmatch(projection)
    if found is None or found[1] != sink:
        raise ConfigurationError(f"{projection!r} is no projection of {sink}: write {sink}@v2")
    return int(found[2])


def clickhouse_database(projection: str) -> str:
    """The database of a version of the ClickHouse projection: facts, rollups and their migrations."""
    version = version_of(projection, "clickhouse")
    return "quaestor" if version == 1 else f"quaestor_v{version}"


def redis_group(projection: str) -> str:
    """The consumer group of a version of the Redis projection; two versions share no partitions."""
    return "sink-redis" if version_of(projection, "redis") == 1 else projection
