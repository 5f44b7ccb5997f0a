"""What clients may expect of ClickHouse, on the embedded front, and on a real server when CLICKHOUSE_URL names one.

The suite speaks through clickhouse-connect, unmodified, sync and async. What only the front promises (its guards) is
in test_clickhouse_front_guards.py.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError
from clickhouse_connect.driver.external import ExternalData

from tests.support.clickhouse_server import ClickHouseServer, external_url

HOSTILE = ("a'b", 'a"b', "a\\b", "tab\tnew\nline", "\\N", "{x}", "; DROP TABLE t", "żółć 🦀", "")
KINDS = """
    k UInt32, s String, lc LowCardinality(String), lcn LowCardinality(Nullable(String)), u UUID, t DateTime64(6, 'UTC'),
    d Decimal(38, 9), i Int64, big Int256, a Array(String), aa Array(Array(Int32)), m Map(String, String),
    n Nullable(Int64), tu Tuple(Int8, String), e Enum8('x' = 1, 'y' = 2), ip IPv4, f FixedString(4), b Bool
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server for this module."""
    given = external_url()
    if given is not None:
        yield given
        return
    server = ClickHouseServer()
    server.start()
    yield server.url
    server.remove()


def connect(url: str, **options: Any) -> Client:
    """A client of its own session-less connection."""
    parts = urlsplit(url)
    credentials = {"username": parts.username or "default", "password": parts.password or ""}
    return clickhouse_connect.get_client(
        host=parts.hostname, port=parts.port, autogenerate_session_id=False, **{**credentials, **options}
    )


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """A client whose database is its own."""
    name = f"t_{uuid4().hex[:12]}"
    made = connect(url)
    made.command(f"CREATE DATABASE {name}")
    made.database = name
    yield made
    made.command(f"DROP DATABASE {name}")
    made.close()


def row(number: int) -> list[Any]:
    """One row of every kind."""
    at = dt.datetime(2026, 11, 1, 1, 2, 3, 456789, dt.UTC).replace(tzinfo=None)
    return [
        number, "z\0\n\n; select 1", "low", None, UUID(int=number), at, Decimal("-1.123456789"), -(2**63), 2**200,
        ["a", "b'"], [[1], [], [2, 3]], {"k": "v"}, None, (1, "x"), "y", "127.0.0.1", b"abcd", True,
    ]  # fmt: skip


@pytest.mark.parametrize("compress", [False, True, "lz4", "zstd", "gzip"])
def test_rows_of_every_kind_come_back_as_they_went(client: Client, url: str, compress: bool | str) -> None:
    """Native inserts and selects keep every value, whatever the body's encoding."""
    other = connect(url, compress=compress, database=client.database, tz_mode="naive_utc")
    other.command(f"CREATE TABLE kinds ({KINDS}) ENGINE = MergeTree ORDER BY k")
    rows = [row(number) for number in range(100)]
    other.insert("kinds", rows, column_names="*")
    found = other.query("SELECT * FROM kinds ORDER BY k").result_rows
    other.close()

    assert [tuple(str(value) for value in each) for each in rows] == [tuple(map(str, each)) for each in found]


@pytest.mark.parametrize("value", HOSTILE)
def test_parameters_arrive_unchanged(client: Client, value: str) -> None:
    """A server-side parameter is data, whatever it holds."""
    assert [(value,)] == client.query("SELECT {value:String}", parameters={"value": value}).result_rows


def test_parameters_of_other_types(client: Client) -> None:
    """Numbers, arrays, decimals, nulls and identifiers bind."""
    sql = "SELECT {n:Int64}, {a:Array(String)}, {d:Decimal(18, 4)}, {z:Nullable(String)}, number FROM {t:Identifier}"
    client.command("CREATE TABLE numbered (number Int8) ENGINE = Memory")
    client.command("INSERT INTO numbered VALUES (7)")
    given = {"n": -5, "a": ["x'y", "z"], "d": Decimal("1.5"), "z": None, "t": "numbered"}

    assert [(-5, ["x'y", "z"], Decimal("1.5"), None, 7)] == client.query(sql, parameters=given).result_rows


def test_a_long_parameter_goes_by_form(client: Client) -> None:
    """Parameters too long for a URL travel in a multipart form."""
    text = "long'\\" * 8_000

    assert [(text,)] == client.query("SELECT {value:String}", parameters={"value": text}).result_rows


def test_an_empty_result_has_columns(client: Client) -> None:
    """No rows still say which columns there are."""
    result = client.query("SELECT number, toString(number) AS text FROM numbers(0)")

    assert ("number", "text") == result.column_names
    assert [] == result.result_rows


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT FROM WHERE", 62), ("SELECT nothing", 47), ("SELECT * FROM missing", 60), ("SELECT nofunction(1)", 46),
        ("SELECT * FROM nodb.t", 81), ("SELECT throwIf(1)", 395),
        ("SELECT sum(sleepEachRow(1)) FROM numbers(3) SETTINGS max_execution_time = 1, max_block_size = 1", 159),
    ],
)  # fmt: skip
def test_errors_have_their_code(client: Client, sql: str, code: int) -> None:
    """A refused statement raises with the server's own code."""
    with pytest.raises(DatabaseError) as refused:
        client.query(sql)

    assert code == refused.value.code


def test_an_unknown_setting_is_refused(client: Client, url: str) -> None:
    """Settings in the URL are checked by the engine."""
    with pytest.raises(DatabaseError) as refused:
        client.raw_query("SELECT 1", settings={"max_memory_usage": "many"})

    assert refused.value.code in {27, 41, 72}


def test_memory_per_query_is_bounded(client: Client) -> None:
    """A query's own bound holds."""
    with pytest.raises(DatabaseError) as refused:
        client.query("SELECT groupArray(number) FROM numbers(10000000)", settings={"max_memory_usage": 1_000_000})

    assert 241 == refused.value.code


def test_a_long_result_streams(client: Client) -> None:
    """Millions of rows arrive in blocks."""
    with client.query_column_block_stream("SELECT number FROM numbers(2000000)") as stream:
        rows = sum(len(block[0]) for block in stream)

    assert 2_000_000 == rows


def test_an_error_in_the_middle_of_a_stream_is_an_error(client: Client) -> None:
    """A stream that breaks never looks like a short result."""
    sql = "SELECT throwIf(number = 1900000) FROM numbers(2000000)"
    with pytest.raises(StreamFailureError) as broken, client.query_column_block_stream(sql) as stream:
        for _ in stream:
            pass

    assert 395 == broken.value.code


@pytest.mark.parametrize(
    ("fmt", "expected"),
    [
        ("JSONEachRow", b'{"a":1,"b":"x"}\n'), ("CSV", b'1,"x"\n'), ("CSVWithNames", b'"a","b"\n1,"x"\n'),
        ("TabSeparated", b"1\tx\n"), ("Values", b"(1,'x')"),
    ],
)  # fmt: skip
def test_text_formats(client: Client, fmt: str, expected: bytes) -> None:
    """Formats are the engine's own, byte for byte."""
    assert expected == client.raw_query("SELECT 1 AS a, 'x' AS b", fmt=fmt)


def test_json_is_whole(client: Client) -> None:
    """JSON over many blocks is one document."""
    text = client.raw_query("SELECT number FROM numbers(200000)", fmt="JSONCompact")

    assert text.startswith(b"{")
    assert text.rstrip().endswith(b"}")
    assert 1 == text.count(b'"meta"')


def test_arrow_and_data_frames(client: Client) -> None:
    """The columnar ways in and out work too."""
    client.command("CREATE TABLE frame (n Int64, s String) ENGINE = MergeTree ORDER BY n")
    client.insert_arrow(
        "frame", client.query_arrow("SELECT number::Int64 AS n, toString(number) AS s FROM numbers(10)")
    )
    client.insert_df("frame", client.query_df("SELECT n + 10 AS n, s FROM frame"))

    assert [(20, 190)] == client.query("SELECT count(), sum(n) FROM frame").result_rows


def test_inline_data_is_data(client: Client) -> None:
    """Blank lines and semicolons in INSERT … VALUES and raw inserts stay data."""
    client.command("CREATE TABLE inline (n Int64, s String) ENGINE = MergeTree ORDER BY n")
    client.command("INSERT INTO inline (n, s) VALUES (1, 'a;\n\n DROP TABLE inline'), (1 + 1, concat('b', 'c'))")
    client.raw_insert("inline", ["n", "s"], b'3,"d;\n\nselect 1"\n', fmt="CSV")
    client.command("INSERT INTO inline SELECT 4, 'e'")

    assert [(1, "a;\n\n DROP TABLE inline"), (2, "bc"), (3, "d;\n\nselect 1"), (4, "e")] == client.query(
        "SELECT * FROM inline ORDER BY n"
    ).result_rows


def test_bad_data_inserts_nothing(client: Client) -> None:
    """A row that can't be read refuses its insert."""
    client.command("CREATE TABLE strict (n Int64) ENGINE = MergeTree ORDER BY n")
    with pytest.raises(DatabaseError):
        client.raw_insert("strict", ["n"], b"1\nx\n", fmt="CSV")

    assert [(0,)] == client.query("SELECT count() FROM strict").result_rows


def test_sessions_keep_temporary_tables_and_settings(client: Client, url: str) -> None:
    """A session lasts across requests; a request's own settings do not outlast it."""
    session = connect(url, session_id=f"s-{uuid4()}")
    session.command("CREATE TEMPORARY TABLE kept (n Int8)")
    session.insert("kept", [[1]], column_names=["n"], settings={"insert_deduplication_token": "once"})
    session.command("SET max_threads = 1")
    leftover = (
        "SELECT value FROM system.settings WHERE name IN ('insert_deduplication_token', 'max_threads') ORDER BY name"
    )

    assert [(1,)] == session.query("SELECT n FROM kept").result_rows
    assert [("",), ("1",)] == session.query(leftover).result_rows
    session.close()
    with pytest.raises(DatabaseError):
        client.query("SELECT n FROM kept")


def test_external_data_is_a_table_of_its_request(client: Client) -> None:
    """Rows sent along can be joined."""
    data = ExternalData(file_name="seen.csv", data=b"1,a\n2,b\n", fmt="CSV", structure="n Int8, s String")

    assert [("b",)] == client.query("SELECT s FROM seen WHERE n = 2", external_data=data).result_rows


async def test_queries_run_side_by_side(url: str) -> None:
    """The async client's statements do not wait for each other."""
    parts = urlsplit(url)
    client = await clickhouse_connect.get_async_client(
        host=parts.hostname, port=parts.port, username=parts.username or "default", password=parts.password or ""
    )
    try:
        count = "SELECT count() FROM system.processes WHERE query LIKE '%sleep(1.5%' AND query NOT LIKE '%count%'"
        sleeping = [asyncio.create_task(client.query("SELECT sleep(1.5)")) for _ in range(4)]
        most = 0
        while not all(task.done() for task in sleeping):
            most = max(most, (await client.query(count)).result_rows[0][0])
        await asyncio.gather(*sleeping)
    finally:
        await client.close()

    assert 4 == most


DEDUPLICATED = """
CREATE TABLE raw (n Int64) ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 100;
CREATE TABLE summed (k UInt8, n Int64) ENGINE = SummingMergeTree ORDER BY k
    SETTINGS non_replicated_deduplication_window = 100;
CREATE MATERIALIZED VIEW summing TO summed AS SELECT 0 AS k, sum(raw.n) AS n FROM raw GROUP BY k
"""


def test_a_token_counts_once_in_table_and_view(client: Client) -> None:
    """The same token again changes neither facts nor rollups; another token does."""
    for statement in DEDUPLICATED.split(";"):
        client.command(statement)
    sums = []
    for token in ("one", "one", "two"):
        settings = {"insert_deduplication_token": token, "deduplicate_blocks_in_dependent_materialized_views": 1}
        client.insert("raw", [[1], [2]], column_names=["n"], settings=settings)
        sums.append(client.query("SELECT (SELECT sum(n) FROM raw), (SELECT sum(n) FROM summed)").result_rows[0])

    assert [(3, 3), (3, 3), (6, 6)] == sums
