"""Telling a statement from its format and its data."""

from __future__ import annotations

import pytest

from infra.embedded.clickhouse_front.faults import EngineError, FrontError
from infra.embedded.clickhouse_front.sql import read_statement

BIG = 1024 * 1024


@pytest.mark.parametrize(
    ("text", "sql", "fmt"),
    [
        ("SELECT 1", "SELECT 1", None),
        ("SELECT 1 FORMAT JSON", "SELECT 1 ", "JSON"),
        ("SELECT 1\n FORMAT Native", "SELECT 1\n ", "Native"),
        ("select 1 format CSV;", "select 1 ;", "CSV"),
        ("SELECT 1 FORMAT TSV SETTINGS max_threads = 1", "SELECT 1  SETTINGS max_threads = 1", "TSV"),
        ("SELECT 'x FORMAT JSON'", "SELECT 'x FORMAT JSON'", None),
        ("SELECT 1 -- FORMAT JSON", "SELECT 1 -- FORMAT JSON", None),
        ("SELECT format FROM t", "SELECT format FROM t", None),
        ("SELECT `FORMAT` FROM t", "SELECT `FORMAT` FROM t", None),
        ("SELECT * FROM (SELECT 1 FORMAT x)", "SELECT * FROM (SELECT 1 FORMAT x)", None),
        ("/* FORMAT */ SELECT $a$ FORMAT JSON $a$", "/* FORMAT */ SELECT $a$ FORMAT JSON $a$", None),
    ],
)
def test_the_format_clause_is_taken_out(text: str, sql: str, fmt: str | None) -> None:
    """Only a real FORMAT clause at the end counts."""
    statement = read_statement(text.encode(), None, BIG)

    assert (sql, fmt, None) == (statement.sql.decode(), statement.format_name, statement.data)


@pytest.mark.parametrize(
    ("text", "body", "sql", "fmt", "data"),
    [
        (b"INSERT INTO t FORMAT Native\n\x01;\n\n'", None, b"INSERT INTO t ", "Native", b"\x01;\n\n'"),
        (b"INSERT INTO t (a, b) FORMAT CSV\r\n1,2", None, b"INSERT INTO t (a, b) ", "CSV", b"1,2"),
        (
            b"INSERT INTO t (format, values) VALUES (1, 2)",
            None,
            b"INSERT INTO t (format, values) ",
            "Values",
            b" (1, 2)",
        ),
        (
            b"insert into t settings a='FORMAT x' format TSV 1",
            None,
            b"insert into t settings a='FORMAT x' ",
            "TSV",
            b"1",
        ),
        (b"INSERT INTO t FORMAT CSV", b"1;\n\n2", b"INSERT INTO t ", "CSV", b"1;\n\n2"),
        (b"INSERT INTO t VALUES", b"(1)", b"INSERT INTO t ", "Values", b"(1)"),
        (b"-- FORMAT\nINSERT INTO t FORMAT TSV\n", b"", b"-- FORMAT\nINSERT INTO t ", "TSV", b""),
    ],
)
def test_the_data_of_an_insert_is_cut_off_once(
    text: bytes, body: bytes | None, sql: bytes, fmt: str, data: bytes
) -> None:
    """Whatever bytes the data holds, none of them is read as SQL."""
    statement = read_statement(text, body, BIG)

    assert (sql, fmt, "INSERT", data) == (statement.sql, statement.format_name, statement.keyword, statement.data)


def test_an_insert_from_a_query_carries_no_data() -> None:
    """INSERT … SELECT runs as one statement, and refuses data beside it."""
    statement = read_statement(b"INSERT INTO t SELECT 1", None, BIG)

    assert ("INSERT SELECT", None) == (statement.keyword, statement.data)
    with pytest.raises(FrontError, match="Code: 48"):
        read_statement(b"INSERT INTO t SELECT * FROM input('a Int8') FORMAT CSV", b"1", BIG)


def test_an_insert_without_data_is_refused() -> None:
    """Nothing to insert is a syntax error."""
    with pytest.raises(FrontError, match="Code: 62"):
        read_statement(b"INSERT INTO t (a)", None, BIG)


def test_a_statement_is_bounded() -> None:
    """SQL text has a limit; the data of an INSERT has its own."""
    with pytest.raises(FrontError, match="Code: 62"):
        read_statement(b"SELECT " + b"1," * 100, None, 100)
    assert 500 == len(read_statement(b"INSERT INTO t FORMAT CSV\n" + b"x" * 500, None, 100).data or b"")


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (
            "Streaming insert finish failed: Code: 27. DB::Exception: x. (CANNOT_PARSE)",
            27,
            "Code: 27. DB::Exception: x.",
        ),
        ("no code at all", 1000, "Code: 1000. DB::Exception: no code at all (POCO_EXCEPTION)"),
    ],
)
def test_engine_errors_begin_with_their_code(text: str, code: int, message: str) -> None:
    """What chDB puts in front is cut."""
    error = EngineError(text)

    assert code == error.code
    assert str(error).startswith(message)
