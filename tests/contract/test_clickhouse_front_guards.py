"""What the embedded front promises beyond a server: nobody reaches this machine through it, and it is one's alone."""

from __future__ import annotations

import base64
import json
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import clickhouse_connect
import pytest

from tests.support.clickhouse_server import ClickHouseServer

#: Ten merge; a busy machine may begin late.
INSERTS_MAX = 300
SECRET = "the-secret-of-this-file"
REACHING = (
    "SELECT file('{path}')",
    "SELECT `file`('{path}')",
    "SELECT \"fi\\x6ce\"('{path}')",
    "SELECT file/**/('{path}')",
    "SELECT * APPLY file FROM (SELECT '{path}' AS a)",
    "SELECT * APPLY(file) FROM (SELECT '{path}' AS a)",
    "SELECT arrayMap(file, ['{path}'])",
    "SELECT arrayMap(x -> file(x), ['{path}'])",
    "SELECT * FROM file('{path}', 'LineAsString')",
    "SELECT * FROM url('http://127.0.0.1:9/', 'CSV', 'a String')",
    "SELECT * FROM remote('127.0.0.1', 'system.one')",
    "SELECT * FROM Python('SECRET')",
    "SELECT * FROM executable('id', 'TSV', 'a String')",
    "SELECT 1 INTO OUTFILE '{path}.out'",
    "SELECT 1 INTO/**/OUTFILE '{path}.out'",
    "CREATE VIEW v AS SELECT file('{path}') AS a",
    "CREATE FUNCTION reading AS x -> file(x)",
    "CREATE TABLE f (a String DEFAULT file('{path}')) ENGINE = Memory",
    "CREATE TABLE f (a String) ENGINE = File(CSV, '{path}')",
    "CREATE DATABASE f ENGINE = Filesystem('/')",
    "CREATE DATABASE f ENGINE = SQLite('{path}')",
    "CREATE DICTIONARY f (a UInt8) PRIMARY KEY a SOURCE(EXECUTABLE(command 'id' format 'CSV')) LAYOUT(FLAT())",
    "INSERT INTO t FROM INFILE '{path}' FORMAT CSV",
    "INSERT INTO t SELECT file('{path}')",
    "INSERT INTO t VALUES (file('{path}'))",
    "INSERT INTO FUNCTION file('{path}.out', 'CSV', 'a String') VALUES ('x')",
    "BACKUP TABLE t TO File('{path}.backup')",
    "SELECT a FROM (SELECT 1 AS a) SETTINGS additional_result_filter = 'file(\\'{path}\\') != \\'\\''",
    "SYSTEM SHUTDOWN",
    "SYSTEM KILL",
    "CREATE USER eve",
    "DROP DATABASE default",
    "DETACH DATABASE default",
    "SELECT demangle('x')",
    "SELECT 1; SELECT 2",
    "INSERT INTO t VALUES ('x'); DROP TABLE t",
)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of password files and a file nobody may read through SQL."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "writer").write_text("open\n")
    (folder / "reader").write_text("look\n")
    (folder / "private").write_text(SECRET)
    return folder


@pytest.fixture(scope="module")
def server(secrets: Path) -> Iterator[ClickHouseServer]:
    """A front with passwords."""
    made = ClickHouseServer(
        "--password-file", str(secrets / "writer"), "--reader-password-file", str(secrets / "reader")
    )
    made.start()
    assert 200 == ask(made, "CREATE TABLE t (a String) ENGINE = MergeTree ORDER BY a")[0]
    yield made
    made.remove()


def ask(
    server: ClickHouseServer,
    sql: str,
    *,
    user: str = "default",
    password: str = "open",  # noqa: S107 - made up
    method: str = "POST",
    url: str = "",
    **headers: str,
) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of one request."""
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"{server.url}/?{url}" + (f"&query={quote(sql)}" if method == "GET" else ""),
        data=sql.encode() if method == "POST" else None,
        headers={"Authorization": f"Basic {basic}", **headers},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own address
            return response.status, response.read().decode(), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


@pytest.mark.parametrize("statement", REACHING)
def test_no_statement_reaches_out(server: ClickHouseServer, secrets: Path, statement: str) -> None:
    """Files, addresses, programs and the engine itself are out of reach; the front lives on and nothing was written."""
    sql = statement.replace("{path}", str(secrets / "private"))
    status, text, _ = ask(server, sql)

    assert status >= 400
    assert SECRET not in text
    assert (200, "1\n", "0\n") == (*ask(server, "SELECT 1")[:2], ask(server, "SELECT count() FROM t")[1])
    assert {"writer", "reader", "private"} == {path.name for path in secrets.iterdir()}


def test_an_expression_in_a_url_setting_is_refused(server: ClickHouseServer, secrets: Path) -> None:
    """Settings that hold expressions can't read files either."""
    setting = quote(f"file('{secrets / 'private'}') != ''")

    assert 403 == ask(server, "SELECT 1 AS a", url=f"additional_result_filter={setting}")[0]


@pytest.mark.parametrize("sql", ["SELECT 'my file'", "SELECT 'C:\\\\dir' AS `file name`", "SELECT 1 AS profile"])
def test_harmless_words_pass(server: ClickHouseServer, sql: str) -> None:
    """Text that only looks like reaching out is served."""
    assert 200 == ask(server, sql)[0]


@pytest.mark.parametrize(
    ("user", "password"), [("default", ""), ("default", "wrong"), ("reader", "open"), ("nobody", "open")]
)
def test_a_wrong_password_is_refused_as_a_server_does(server: ClickHouseServer, user: str, password: str) -> None:
    """HTTP 403 and ClickHouse's code 516."""
    status, text, headers = ask(server, "SELECT 1", user=user, password=password)

    assert (403, "516") == (status, headers["x-clickhouse-exception-code"])
    assert "AUTHENTICATION_FAILED" in text


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES ('x')", "CREATE TABLE other (a Int8) ENGINE = Memory", "DROP TABLE t", "TRUNCATE TABLE t",
        "ALTER TABLE t DELETE WHERE 1", "SET readonly = 0", "INSERT INTO t SELECT 'x'",
    ],
)  # fmt: skip
@pytest.mark.parametrize("url", ["", "session_id=reading"])
def test_the_reader_changes_nothing(server: ClickHouseServer, sql: str, url: str) -> None:
    """The read-only user is refused every change, in and out of sessions."""
    status, text, _ = ask(server, sql, user="reader", password="look", url=url)
    if sql.startswith("SET") and url:
        # A session's own setting: it stays the reader's session all the same.
        status, text, _ = ask(server, "DROP TABLE t", user="reader", password="look", url=url)

    assert (403, True) == (status, "READONLY" in text)
    assert "0\n" == ask(server, "SELECT count() FROM t")[1]


def test_get_changes_nothing(server: ClickHouseServer) -> None:
    """A GET may read only, as on a server."""
    assert 200 == ask(server, "SELECT 1", method="GET")[0]
    assert 403 == ask(server, "DROP TABLE t", method="GET")[0]


def test_a_web_page_is_refused(server: ClickHouseServer) -> None:
    """A request that a browser made for some page gets nothing."""
    assert 403 == ask(server, "SELECT 1", Origin="https://example.org")[0]


def test_a_body_that_inflates_too_far_is_refused(server: ClickHouseServer) -> None:
    """Decompression is bounded; damage is a plain error."""
    assert 400 <= ask(server, "not gzip at all", **{"Content-Encoding": "gzip"})[0] < 500
    assert 501 == ask(server, "x", **{"Content-Encoding": "br"})[0]


def test_health_needs_no_password(server: ClickHouseServer) -> None:
    """Probes of load balancers and supervisors answer."""
    for path in ("/ping", "/replicas_status"):
        with urllib.request.urlopen(server.url + path, timeout=5) as response:  # noqa: S310 - our own address
            assert b"Ok.\n" == response.read()


def test_the_summary_counts(server: ClickHouseServer) -> None:
    """X-ClickHouse-Summary says what was read."""
    headers = ask(server, "SELECT sum(number) FROM numbers(1000)")[2]

    assert "1000" == json.loads(headers["x-clickhouse-summary"])["read_rows"]


def test_a_query_is_killed_by_its_id(server: ClickHouseServer) -> None:
    """KILL QUERY WHERE query_id = … finds the id its client gave."""
    answers: list[int] = []
    slow = "SELECT count() FROM numbers(100000000000) WHERE NOT ignore(sipHash64(number))"
    running = threading.Thread(target=lambda: answers.append(ask(server, slow, url="query_id=slow-one")[0]))
    running.start()
    while running.is_alive():
        ask(server, "KILL QUERY WHERE query_id = 'slow-one' ASYNC")
        running.join(0.05)

    assert [500] == answers


def test_a_second_front_on_the_directory_says_who_has_it(server: ClickHouseServer) -> None:
    """One line, the process that owns it, exit code 1."""
    second = server.launch()
    output, _ = second.communicate(timeout=30)

    assert 1 == second.returncode
    assert f"another ClickHouse has this directory: process {server.pid}" in output.decode()


def test_a_stop_is_clean_and_loses_nothing(tmp_path: Path) -> None:
    """SIGTERM ends with code 0, also while a query runs; what was written is there after the next start."""
    server = ClickHouseServer()
    server.start()
    client = clickhouse_connect.get_client(host="127.0.0.1", port=server.port)
    client.command("CREATE TABLE kept (n Int64) ENGINE = MergeTree ORDER BY n")
    client.insert("kept", [[1], [2]], column_names=["n"])
    client.close()
    slow = threading.Thread(
        target=lambda: contextless(
            server, "SELECT count() FROM numbers(100000000000) WHERE NOT ignore(sipHash64(number))"
        )
    )
    slow.start()
    while "0\n" == ask(server, "SELECT count() FROM system.processes WHERE query LIKE '%100000000000%sip%'")[1]:
        pass

    assert 0 == server.stop(signal.SIGTERM)
    slow.join()
    server.start()
    assert "2\n" == ask(server, "SELECT count() FROM kept", password="")[1]
    server.remove()


def contextless(server: ClickHouseServer, sql: str) -> None:
    """Ask and let the connection break."""
    try:
        ask(server, sql, password="")
    except OSError:
        return


def test_it_ends_with_its_parent(server: ClickHouseServer) -> None:
    """A front whose parent is another process ends at once."""
    orphan = ClickHouseServer("--parent", "1")
    process = orphan.launch()
    process.communicate(timeout=30)
    orphan.remove()

    assert process.returncode in {0, -signal.SIGTERM}


def test_small_parts_are_merged_without_the_large_one_beside_them(server: ClickHouseServer) -> None:
    """Else a table of some megabytes is written anew with every second insert."""
    ask(server, "CREATE TABLE growing (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
    ask(server, "INSERT INTO growing SELECT number, randomPrintableASCII(100) FROM numbers(40000)")
    merged = (
        "SELECT countIf(level > 0), countIf(name = 'all_1_1_0') FROM system.parts WHERE table = 'growing' AND active"
    )
    for _ in range(INSERTS_MAX):
        ask(server, "INSERT INTO growing VALUES (1, 'small')")
        found = ask(server, merged)
        if not found[1].startswith("0"):
            break

    assert found[:2] == (200, "1\t1\n")
