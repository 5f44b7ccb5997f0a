"""Reading HTTP requests: settings, parameters, forms, encodings, credentials."""

from __future__ import annotations

import base64
import gzip
import zlib

import lz4.frame  # type: ignore[import-untyped]  # ships no types
import pytest

from infra.embedded.clickhouse_front import guard
from infra.embedded.clickhouse_front.bodies import decompress, read_form
from infra.embedded.clickhouse_front.faults import FrontError
from infra.embedded.clickhouse_front.requests import read_request
from infra.embedded.clickhouse_front.users import User, authenticate

USERS = {"default": User("default", "", readonly=False), "reader": User("reader", "look", readonly=True)}


def test_settings_parameters_and_the_rest_part() -> None:
    """What is a setting goes to the engine; what is not does not."""
    query = b"query=SELECT+1&max_threads=2&param_x=a%27b&wait_end_of_query=1&query_id=q&database=d&log_comment=mine"
    request = read_request(query, {}, b"", is_post=True, readonly_user=False)

    assert request is not None
    assert ({"max_threads": "2"}, {"x": "a'b"}) == (request.settings, request.parameters)
    assert ("q", "d", False) == (request.query_id, request.database, request.readonly)


@pytest.mark.parametrize(("is_post", "readonly_user"), [(False, False), (True, True)])
def test_get_and_readers_are_read_only(is_post: bool, readonly_user: bool) -> None:
    """Either is enough."""
    request = read_request(b"query=SELECT+1", {}, b"", is_post=is_post, readonly_user=readonly_user)

    assert request is not None
    assert request.readonly


def test_nothing_asked_is_none() -> None:
    """An empty request is a probe."""
    assert read_request(b"", {}, b" \n", is_post=True, readonly_user=False) is None


@pytest.mark.parametrize("query", [b"a%20b=1", b"a%27=1", b"session_timeout=0", b"session_timeout=x", b"compress=1"])
def test_names_and_bounds_are_checked(query: bytes) -> None:
    """No SQL enters by the name of a setting."""
    with pytest.raises(FrontError):
        read_request(query + b"&query=SELECT+1", {}, b"", is_post=True, readonly_user=False)


def test_forms_bring_fields_and_tables() -> None:
    """A multipart form holds parameters and external tables, bytes unharmed."""
    body = (
        b'--B\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT 1\r\n'
        b'--B\r\nContent-Disposition: form-data; name="param_y"\r\n\r\nv\r\n'
        b'--B\r\nContent-Disposition: form-data; name="t"; filename="t.csv"\r\n\r\n\x00\r\n--\r\n--B--\r\n'
    )
    kind = {"content-type": "multipart/form-data; boundary=B"}
    request = read_request(b"t_structure=a+String&t_format=CSV", kind, body, is_post=True, readonly_user=False)

    assert request is not None
    assert {"y": "v"} == request.parameters
    assert [("t", "a String", "CSV", b"\x00\r\n--")] == [
        (table.name, table.structure, table.format_name, table.data) for table in request.tables
    ]


@pytest.mark.parametrize("body", [b"", b"--B\r\n\r\n", b"--B\r\nX: y\r\n\r\nz\r\n--B--"])
def test_damaged_forms_are_refused(body: bytes) -> None:
    """Cut off or nameless."""
    with pytest.raises(FrontError):
        read_form("multipart/form-data; boundary=B", body)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress), ("deflate", zlib.compress), ("lz4", lz4.frame.compress), ("", bytes),
        ("lz4", lambda data: lz4.frame.compress(data[:10]) + lz4.frame.compress(data[10:])),
    ],
)  # fmt: skip
def test_encodings_are_undone_within_a_bound(encoding: str, pack: object) -> None:
    """What fits comes out, what does not is refused before it is made."""
    data = bytes(100_000)
    packed = pack(data)  # type: ignore[operator]  # a table of functions

    assert data == decompress(packed, encoding, 100_000)
    with pytest.raises(FrontError, match="Code: 307"):
        decompress(packed, encoding, 99_999)


@pytest.mark.parametrize("encoding", ["gzip", "lz4", "zstd", "br"])
def test_damaged_bodies_are_refused(encoding: str) -> None:
    """Bytes that are no such encoding, or one nobody serves."""
    with pytest.raises(FrontError):
        decompress(b"these are not the bytes", encoding, 1_000)


def basic(name: str, password: str) -> str:
    """A Basic header."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("headers", "query", "name"),
    [
        ({}, b"", "default"),
        ({"authorization": basic("reader", "look")}, b"", "reader"),
        ({"x-clickhouse-user": "reader", "x-clickhouse-key": "look"}, b"", "reader"),
        ({}, b"user=reader&password=look", "reader"),
    ],
)
def test_credentials_come_three_ways(headers: dict[str, str], query: bytes, name: str) -> None:
    """Basic, ClickHouse's headers, the URL; none is the default user."""
    assert name == authenticate(USERS, headers, query).name


@pytest.mark.parametrize("header", [basic("reader", ""), basic("eve", "look"), "Basic %%%"])
def test_wrong_credentials_are_516(header: str) -> None:
    """As a server answers."""
    with pytest.raises(FrontError, match="Code: 516"):
        authenticate(USERS, {"authorization": header}, b"")


def test_a_user_does_not_print_its_password() -> None:
    """Logs and tracebacks stay clean."""
    assert "look" not in repr(USERS["reader"])


@pytest.mark.parametrize(
    ("data", "may"),
    [(b"(now(), 1 + 1)", True), (b"(file('x'))", False), (b"('a profile')", False), (b"('\\x66')", False)],
)
def test_rows_that_could_reach_files_are_literals_only(data: bytes, may: bool) -> None:
    """Expressions in VALUES are given up where one could be file()."""
    assert may == guard.values_may_be_evaluated(data)


def test_plain_statements_are_not_parsed_twice() -> None:
    """The engine's parse is asked for only where a word could mean harm."""

    def explain(sql: str) -> str:
        raise AssertionError(sql)

    guard.check("SELECT sum(amount) FROM costs", {}, explain)
    with pytest.raises(FrontError):
        guard.check("SELECT file('x')", {}, lambda _: "Function file (children 1)")
