"""Every query of the sink and its reads, named. Tables and databases come from our own code, values as parameters."""

# ruff: noqa: S608 - names are ours, never input
from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

from sinks.clickhouse.tables import Column, FactTable

if TYPE_CHECKING:
    from sinks.clickhouse.rollups import Rollup

OFFSET_MAX = 2**63 - 1


def count_range(database: str, table: str) -> str:
    """Rows of one topic's incarnation and partition within a range of offsets, but for some."""
    return f"""
SELECT count()
FROM {database}.{table}
WHERE _topic_id = {{topic_id:String}} AND _part = {{part:Int32}} AND _off >= {{first:Int64}} AND _off < {{after:Int64}}
    AND NOT has({{excluded:Array(Int64)}}, _off)
"""


def present(database: str, table: str) -> str:
    """Which of some offsets of one topic's incarnation and partition have a row."""
    return f"""
SELECT DISTINCT _off
FROM {database}.{table}
WHERE _topic_id = {{topic_id:String}} AND _part = {{part:Int32}} AND _off IN {{offsets:Array(Int64)}}
"""


def behind(database: str, table: str) -> str:
    """The last offset of each partition of one topic's incarnation that has rows from an offset of its own on."""
    return f"""
SELECT _part, max(_off)
FROM {database}.{table}
WHERE _topic_id = {{topic_id:String}} AND _off >= arrayMin({{firsts:Array(Int64)}})
    AND _off >= transform(_part, {{parts:Array(Int32)}}, {{firsts:Array(Int64)}}, toInt64({OFFSET_MAX}))
GROUP BY _part
"""


def totals(database: str, table: FactTable, ends: Mapping[int, int], since: int) -> str:
    """Distinct ids, their digest (sinks/totals.py) and their money.

    Over rows of a time on (microseconds since the epoch), below their partition's end offset.
    """
    parts, offsets = list(ends), list(ends.values())
    amount = "any(amount_nano)" if table.has_amount else "toInt64(0)"
    return f"""
SELECT
    count(),
    sum(toUInt128(bitShiftRight(reinterpretAsUInt64(reverse(substring(MD5(name), 1, 8))), 4))),
    sum(toInt128(amount))
FROM (
    SELECT concat(tenant_id, '/', toString(event_id)) AS name, {amount} AS amount
    FROM {database}.{table.name}
    WHERE _off < transform(_part, {parts}, {offsets}, toInt64(0)) AND {_from(since)}
    GROUP BY tenant_id, event_id
)
"""


def _from(since: int, column: str = "occurred_at") -> str:
    return f"{column} >= fromUnixTimestamp64Micro(toInt64({since}), 'UTC')"


def rolled_up(database: str, since: int) -> tuple[tuple[str, str, str], ...]:
    """Of each rollup: its name, its events and sums, and the same over its facts; of requests from a month on."""
    costs = "count(), sum(quantity), sum(toDecimal128(amount_nano, 9) / 1000000000)"
    ended = "kind IN ('COMPLETED', 'FAILED', 'REFUSED')"
    tokens = "input_tokens + output_tokens"
    requests = f"count(), sum({tokens}), sum(toDecimal128(amount_nano, 9) / 1000000000)"
    rolled = f"sum(requests), sum({tokens}), sum(amount)"
    return (
        (
            "cost_hourly",
            f"SELECT sum(events), sum(quantity), sum(amount) FROM {database}.rollup_cost_hourly",
            f"SELECT {costs} FROM {database}.costs",
        ),
        (
            "requests_hourly",
            f"SELECT {rolled} FROM {database}.rollup_requests_hourly WHERE {_from(since, 'hour')}",
            f"SELECT {requests} FROM {database}.requests WHERE {ended} AND {_from(since)}",
        ),
    )


#: The query of the view that fills a rollup.
VIEW = "SELECT as_select FROM system.tables WHERE database = {of:String} AND name = concat({name:String}, '_view')"
IN_BUCKETS = """tenant_id IN {tenants:Array(String)} AND (toString(tenant_id), toUnixTimestamp(hour)) IN (
    SELECT arrayJoin(arrayZip({tenants:Array(String)}, {hours:Array(UInt32)}))
)"""
SINCE_HOUR = "hour >= toStartOfHour(toDateTime({begin:UInt32}, 'UTC'))"


def buckets_of(database: str, rollup: Rollup) -> str:
    """The tenants and hours of the facts of one partition within a range of offsets."""
    return f"""
SELECT DISTINCT tenant_id, toUnixTimestamp(toStartOfHour(occurred_at, 'UTC'))
FROM {database}.{rollup.facts}
WHERE _topic_id = {{topic_id:String}} AND _part = {{part:Int32}} AND _off >= {{first:Int64}} AND _off < {{after:Int64}}
"""


def differing(database: str, rollup: Rollup, view: str, within: str) -> str:
    """Tenants and hours in which a sum of the rollup is not that of its view's query over the facts."""
    keys = ", ".join(rollup.keys)
    plus = ", ".join(f"toDecimal256({each}, 9) AS of_{each}" for each in rollup.sums)
    minus = ", ".join(f"-toDecimal256({each}, 9) AS of_{each}" for each in rollup.sums)
    differ = " OR ".join(f"sum(of_{each}) != 0" for each in rollup.sums)
    return f"""
SELECT DISTINCT tenant_id, toUnixTimestamp(hour)
FROM (
    SELECT {keys} FROM (
        SELECT {keys}, {plus} FROM ({view}) WHERE {within}
        UNION ALL
        SELECT {keys}, {minus} FROM {database}.{rollup.name} WHERE {within}
    )
    GROUP BY {keys}
    HAVING {differ}
)
ORDER BY 1, 2
"""


def clear_buckets(database: str, rollup: Rollup) -> str:
    """Delete hours of a rollup, on every replica; what is inserted from now on stays."""
    return f"DELETE FROM {database}.{rollup.name} WHERE {IN_BUCKETS} SETTINGS lightweight_deletes_sync = 2"


def fill_buckets(database: str, rollup: Rollup, view: str) -> str:
    """Make hours of a rollup from their facts. Their tokens say nothing: the rows are there or are compared again."""
    return f"""
INSERT INTO {database}.{rollup.name}
SELECT * FROM ({view}) WHERE {IN_BUCKETS}
SETTINGS insert_deduplicate = 0, max_execution_time = 30
"""


def stored_months(database: str, tables: Sequence[str]) -> str:
    """Table, partition as YYYYMM, rows and bytes of every month of some tables."""
    named = ", ".join(f"'{table}'" for table in tables)
    return f"""
SELECT table, partition, sum(rows), sum(bytes_on_disk)
FROM system.parts
WHERE database = '{database}' AND table IN ({named}) AND active
GROUP BY table, partition
ORDER BY table, partition
"""


def drop_month(database: str, table: str, month: date) -> str:
    """Drop one month of a table, on every replica."""
    return f"ALTER TABLE {database}.{table} DROP PARTITION {month:%Y%m}"


def content(database: str, table: FactTable, ranges: Mapping[int, tuple[int, int]], since: int) -> str:
    """Position, id and every column of the rows of a time on within (first, after) ranges of offsets per partition."""
    parts = list(ranges)
    firsts = [first for first, _ in ranges.values()]
    afters = [after for _, after in ranges.values()]
    columns = ", ".join(_readable(column, table) for column in table.columns)
    return f"""
SELECT _part, _off, {columns}
FROM {database}.{table.name}
WHERE _off >= {min(firsts)} AND _off < {max(afters)}
    AND _off >= transform(_part, {parts}, {firsts}, toInt64({max(afters)}))
    AND _off < transform(_part, {parts}, {afters}, toInt64(0))
    AND {_from(since)}
"""


def _readable(column: Column, table: FactTable) -> str:
    """A column as the log has its values: times as microseconds, UUIDs as text."""
    if "DateTime64" in column.type_name:
        turn = "toUnixTimestamp64Micro"
        is_array = column.type_name.startswith("Array")
        return f"arrayMap(each -> {turn}(each), `{column.name}`)" if is_array else f"{turn}(`{column.name}`)"
    return f"toString(`{column.name}`)" if column.name in table.uuid_fields else f"`{column.name}`"


def cost_by_team_and_model(database: str) -> str:
    """What each team spent on each model, dearest first."""
    return f"""
SELECT team_id, model, currency, sum(amount) AS spent,
    sumIf(quantity, kind = 'CHARGE' AND endsWith(meter, 'TOKENS'))
FROM {database}.rollup_cost_hourly
WHERE tenant_id = {{tenant_id:String}} AND hour >= toStartOfHour(fromUnixTimestamp64Micro({{since:Int64}}, 'UTC'))
GROUP BY team_id, model, currency
ORDER BY spent DESC, team_id, model, currency
LIMIT {{rows:UInt32}}
"""


def requests_by_hour(database: str) -> str:
    """How many requests ended in each hour, and how."""
    return f"""
SELECT toUnixTimestamp(hour), sum(requests), sum(completed), sum(failed), sum(refused),
    sum(input_tokens), sum(output_tokens)
FROM {database}.rollup_requests_hourly
WHERE tenant_id = {{tenant_id:String}} AND hour >= toStartOfHour(fromUnixTimestamp64Micro({{since:Int64}}, 'UTC'))
GROUP BY hour
ORDER BY hour
LIMIT {{rows:UInt32}}
"""


def top_models(database: str) -> str:
    """The models that cost most."""
    return f"""
SELECT provider_id, model, currency, sum(toDecimal128(amount_nano, 9) / 1000000000) AS spent, uniqExact(attempt_id)
FROM {database}.costs
WHERE tenant_id = {{tenant_id:String}} AND occurred_at >= fromUnixTimestamp64Micro({{since:Int64}}, 'UTC')
GROUP BY provider_id, model, currency
ORDER BY spent DESC, provider_id, model, currency
LIMIT {{rows:UInt32}}
"""


def latency(database: str) -> str:
    """Latency of completed, failed and refused requests per model; estimates by t-digest."""
    return f"""
SELECT provider_id, model, sum(requests), quantilesTDigestIfMerge(0.5, 0.95, 0.99)(latency),
    quantilesTDigestIfMerge(0.5, 0.95, 0.99)(first_chunk)
FROM {database}.rollup_requests_hourly
WHERE tenant_id = {{tenant_id:String}} AND hour >= toStartOfHour(fromUnixTimestamp64Micro({{since:Int64}}, 'UTC'))
GROUP BY provider_id, model
ORDER BY sum(requests) DESC, provider_id, model
LIMIT {{rows:UInt32}}
"""
