"""chDB: one engine per process, a fresh handle per request, one root handle that keeps the engine alive.

USE, SET, parameters and temporary tables live on a handle, so nothing leaks from one request to the next. Everything
here blocks and runs on worker threads; calls release the GIL. Never fork after `Engine` was made.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.embedded.clickhouse_front import guard, limits
from infra.embedded.clickhouse_front.faults import (
    NOT_IMPLEMENTED,
    READONLY,
    SYNTAX_ERROR,
    TOO_MANY_BYTES,
    EngineError,
    FrontError,
)
from infra.embedded.clickhouse_front.requests import ExternalTable, FrontRequest

#: Formats whose chunks may be put one after the other; all others are made whole.
STREAMED = frozenset((
    "Native", "RowBinary", "JSONEachRow", "JSONCompactEachRow", "JSONStringsEachRow", "TabSeparated", "TSV",
    "TabSeparatedRaw", "TSVRaw", "CSV", "LineAsString", "Values",
))  # fmt: skip
#: chDB turns these on; a server does not.
SERVER_LIKE = "SET implicit_select=0, allow_introspection_functions=0"
CONTENT_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
}
#: Keywords chDB can stream; other queries answer a page at most.
STREAMABLE = frozenset(("SELECT", "WITH"))
#: Where names without a database live. chDB's own `default` lays the folder of the process over its tables, asks for
#: rights on files with every unknown name and is empty after each start.
DATABASE = "local"
QUERIES = frozenset(("SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "CHECK"))


@dataclass
class Answer:
    """The result of a statement as it is being read; `close` frees its handle."""

    format_name: str | None
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    chunks: list[bytes] = field(default_factory=list)
    finished: bool = True
    stream: Any = None
    close: Callable[[], None] = lambda: None

    def fetch(self, bytes_max: int) -> bool:
        """Read on until this many bytes are at hand, or answer False: the result has ended. Raises EngineError."""
        size = 0
        while size < bytes_max:
            try:
                chunk = self.stream.fetch()
            except Exception as error:  # chdb raises RuntimeError subclasses of its own
                self.finished = True
                raise EngineError(str(error)) from error
            if chunk is None:
                self.finished = True
                return False
            data = chunk.bytes()
            size += len(data)
            self.read_rows += chunk.storage_rows_read() or chunk.rows_read()
            self.read_bytes += chunk.storage_bytes_read() or chunk.bytes_read()
            self.chunks.append(data)
        return True


class Engine:
    """The one engine of this process."""

    def __init__(self, path: Path, config: Path) -> None:
        """Open the data directory; raises EngineError when it can't be opened."""
        import chdb  # noqa: PLC0415 - 555 MB of library: loaded only by the process that owns an engine

        self._chdb = chdb
        self._path = str(path)
        try:
            self._root = chdb.connect(f"{path}?config-file={config}")
        except Exception as error:  # chdb raises RuntimeError and its own types
            raise EngineError(f"{path} could not be opened: {error}") from error
        _query(self._root, f"CREATE DATABASE IF NOT EXISTS {DATABASE} ENGINE = Atomic", "Null", {})
        self.version = self.text("SELECT version()").strip()

    def cancel_all(self) -> None:
        """Stop everything that runs."""
        self.text("KILL QUERY WHERE query NOT ILIKE 'KILL QUERY%' SYNC FORMAT Null")

    def close(self) -> None:
        """Shut the engine down once nothing uses it; its data is complete on disk."""
        self._root.close()

    def text(self, sql: str) -> str:
        """Run a statement of our own on a handle of its own and return tab-separated text; raises EngineError."""
        with self.handle() as handle:
            return statement(handle, sql)

    def cancel(self, query_id: str) -> None:
        """Stop a statement that runs for a request; nothing happens when it has ended."""
        self.text(f"KILL QUERY WHERE Settings['log_comment']={quote(query_id)} ASYNC FORMAT Null")

    def open(self) -> Any:
        """A new handle that behaves as a server's session does; close it."""
        try:
            handle = self._chdb.connect(self._path)
        except Exception as error:  # chdb raises RuntimeError and its own types
            raise EngineError(str(error)) from error
        _query(handle, SERVER_LIKE, "Null", {})
        _query(handle, f"USE {DATABASE}", "Null", {})
        return handle

    @contextmanager
    def handle(self) -> Iterator[Any]:
        """A handle for one statement."""
        handle = self.open()
        try:
            yield handle
        finally:
            handle.close()

    def start(self, request: FrontRequest) -> Answer:
        """Run a request on a handle of its own up to its first bytes; raises FrontError. Close the answer."""
        handle = self.open()
        try:
            answer = run(handle, request)
        except BaseException:
            handle.close()
            raise
        if answer.finished:
            handle.close()
        else:
            answer.close = closer(answer, handle.close)
        return answer


def closer(answer: Answer, close: Callable[[], None]) -> Callable[[], None]:
    """What frees an answer: its stream, then its handle or session."""

    def closed() -> None:
        try:
            if answer.stream is not None and not answer.finished:
                answer.stream.cancel()
        except Exception:  # noqa: BLE001, S110 - the stream had failed already; its handle goes next
            pass
        finally:
            close()

    return closed


def run(handle: Any, request: FrontRequest, *, in_session: bool = False) -> Answer:
    """Run a request on a handle; raises FrontError. The handle keeps what the statement sets."""
    statement = request.statement
    sql = _utf8(statement.sql)
    _check(handle, sql, request, in_session=in_session)
    if request.database and request.database != "default":
        _query(handle, f"USE {identifier(request.database)}", "Null", {})
    for table in request.tables:
        _load(handle, table)
    settings = {"log_comment": request.query_id, **request.settings}
    values_only = statement.format_name == "Values" and not guard.values_may_be_evaluated(statement.data or b"")
    if values_only:
        settings["input_format_values_interpret_expressions"] = "0"
    if request.readonly and not in_session:
        settings["readonly"] = "2"
    _query(handle, "SET " + ", ".join(f"{name}={quote(value)}" for name, value in settings.items()), "Null", {})
    if statement.keyword == "INSERT":
        return _insert(handle, sql, request, statement.format_name or _input_format(request))
    return _select(handle, sql, request)


def _check(handle: Any, sql: str, request: FrontRequest, *, in_session: bool) -> None:
    """Refuse what no grant refuses; raises FrontError."""
    text = sql
    data = request.statement.data
    if request.statement.format_name == "Values" and data and len(data) <= limits.SQL_BYTES_MAX:
        # The engine would pass over what follows a semicolon; a server refuses it.
        text = f"{sql} VALUES {data.decode(errors='replace')}"
    kind = handle._conn.classify_query(text)  # noqa: SLF001 - chDB offers its classifier nowhere else
    if kind["statement_count"] > 1:
        raise FrontError(SYNTAX_ERROR, "Multi-statements are not allowed")
    # readonly=2 could not be taken back from a session's handle, so its class decides there.
    changes = kind["query_class"].name != "READ_ONLY" and request.statement.keyword not in {"SET", "USE"}
    if in_session and request.readonly and changes:
        raise FrontError(READONLY, "Cannot execute query in readonly mode.")

    def explain(text: str) -> str:
        if request.statement.keyword == "INSERT":
            text += " VALUES"
        tree: str = _query(handle, "EXPLAIN AST " + text, "TabSeparatedRaw", request.parameters).bytes().decode()
        return tree

    guard.check(sql, request.settings, explain)


def _select(handle: Any, sql: str, request: FrontRequest) -> Answer:
    format_name = request.statement.format_name or request.default_format
    is_query = request.statement.keyword in QUERIES
    if request.statement.keyword in STREAMABLE and format_name in STREAMED:
        answer = Answer(format_name, finished=False, stream=_send_query(handle, sql, format_name, request.parameters))
        answer.fetch(limits.FIRST_BYTES)
    else:
        answer = _whole(handle, sql, format_name, request, is_query=is_query)
    if is_query and answer.finished and not answer.chunks and format_name == "Native":
        answer.chunks.append(_empty_block(handle, sql, request.parameters))
    return answer


def _whole(handle: Any, sql: str, format_name: str, request: FrontRequest, *, is_query: bool) -> Answer:
    result = _query(handle, sql, format_name, request.parameters)
    if result.size() > limits.MATERIALISED_BYTES_MAX:
        raise FrontError(TOO_MANY_BYTES, f"the result is too large for {format_name}: ask for a streamed format")
    data = result.bytes()
    answer = Answer(format_name if is_query or data else None, chunks=[data] if data else [])
    answer.read_rows, answer.read_bytes = result.storage_rows_read(), result.storage_bytes_read()
    answer.written_rows, answer.written_bytes = result.rows_written(), result.bytes_written()
    return answer


def _insert(handle: Any, sql: str, request: FrontRequest, format_name: str) -> Answer:
    """Stream the data in; it never enters the SQL text, where chDB would cut it at a blank line and run the rest."""
    for name, value in request.parameters.items():
        _query(handle, f"SET param_{identifier(name, bare=True)}={quote(value)}", "Null", {})
    try:
        inserter = handle.send_insert(sql, format_name)
        try:
            inserter.append(request.statement.data or b"")
            result = inserter.finish()
        finally:
            inserter.close()
    except Exception as error:  # chdb raises RuntimeError and its own types
        raise EngineError(str(error)) from error
    return Answer(None, written_rows=result.rows_written, written_bytes=result.bytes_written)


def _input_format(request: FrontRequest) -> str:
    return "Values" if request.default_format == "TabSeparated" else request.default_format


def _load(handle: Any, table: ExternalTable) -> None:
    create = f"CREATE TEMPORARY TABLE {identifier(table.name)} ({table.structure}) ENGINE = Memory"
    if handle._conn.classify_query(create)["statement_count"] != 1:  # noqa: SLF001 - as above
        raise FrontError(SYNTAX_ERROR, f"the structure of external table {table.name} is no list of columns")
    guard.check(create, {}, lambda text: _query(handle, "EXPLAIN AST " + text, "TabSeparatedRaw", {}).bytes().decode())
    _query(handle, create, "Null", {})
    if table.format_name == "Values":
        raise FrontError(NOT_IMPLEMENTED, "external data comes in a format without expressions")
    try:
        inserter = handle.send_insert(f"INSERT INTO {identifier(table.name)}", table.format_name)
        try:
            inserter.append(table.data)
            inserter.finish()
        finally:
            inserter.close()
    except Exception as error:  # chdb raises RuntimeError and its own types
        raise EngineError(str(error)) from error


def _empty_block(handle: Any, sql: str, parameters: Mapping[str, str]) -> bytes:
    """A Native block with columns and no rows: chDB sends nothing at all for an empty result, a server sends this."""
    header: bytes = _query(handle, sql, "RowBinaryWithNamesAndTypes", parameters).bytes()
    count, position = _varint(header, 0)
    texts = []
    for _ in range(2 * count):
        size, position = _varint(header, position)
        texts.append(header[position : position + size])
        position += size
    block = bytearray(_varint_bytes(count) + _varint_bytes(0))
    for name, kind in zip(texts[:count], texts[count:], strict=True):
        block += _varint_bytes(len(name)) + name + _varint_bytes(len(kind)) + kind
    return bytes(block) if count else b""


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - LEB128's continuation bit
            break
        shift += 7
    return value, position


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:  # noqa: PLR2004 - as above
        out += struct.pack("B", value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + struct.pack("B", value))


def _query(handle: Any, sql: str, format_name: str, parameters: Mapping[str, str]) -> Any:
    try:
        return handle.query(sql, format_name, params=dict(parameters))
    except Exception as error:  # chdb raises RuntimeError and its own types
        raise EngineError(str(error)) from error


def _send_query(handle: Any, sql: str, format_name: str, parameters: Mapping[str, str]) -> Any:
    try:
        return handle.send_query(sql, format_name, params=dict(parameters))
    except Exception as error:  # chdb raises RuntimeError and its own types
        raise EngineError(str(error)) from error


def statement(handle: Any, sql: str) -> str:
    """Run a statement of our own on a handle and return raw tab-separated text; raises EngineError."""
    text: str = _query(handle, sql, "TabSeparatedRaw", {}).bytes().decode()
    return text


def _utf8(sql: bytes) -> str:
    try:
        return sql.decode()
    except UnicodeDecodeError as error:
        raise FrontError(SYNTAX_ERROR, f"the statement is not UTF-8: {error.reason}") from error


def quote(value: str) -> str:
    """A string literal of ClickHouse SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name: str, *, bare: bool = False) -> str:
    """A quoted identifier; with `bare`, one that must need no quotes. Raises FrontError."""
    if bare:
        if not name.isidentifier():
            raise FrontError(SYNTAX_ERROR, f"{name!r} is no name")
        return name
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
