"""One HTTP request as the engine needs it: statement, settings, parameters, session, external tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl
from uuid import uuid4

from infra.embedded.clickhouse_front import limits
from infra.embedded.clickhouse_front.bodies import FilePart, read_form
from infra.embedded.clickhouse_front.faults import BAD_ARGUMENTS, NOT_IMPLEMENTED, FrontError
from infra.embedded.clickhouse_front.sql import Statement, read_statement

#: Parameters of the HTTP interface that are no settings of the engine; those a front need not act on are let go.
CONSUMED = frozenset((
    "query", "database", "user", "password", "session_id", "session_timeout", "session_check", "query_id",
    "default_format", "quota_key", "role", "stacktrace", "buffer_size", "wait_end_of_query", "client_protocol_version",
    "enable_http_compression", "http_zlib_compression_level", "send_progress_in_http_headers",
    "http_headers_progress_interval_ms", "cancel_http_readonly_queries_on_client_close", "add_http_cors_header",
    "compress", "decompress", "log_comment",
))  # fmt: skip
EXTERNAL_SUFFIX = re.compile(r"(.+)_(format|structure|types)")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: A server finds its queries by their id; chDB makes ids of its own, so ours stands in the log comment.
KILL_BY_ID = re.compile(rb"^\s*KILL\s+QUERY\s+WHERE\s+query_id\s*=", re.IGNORECASE)


@dataclass(frozen=True)
class ExternalTable:
    """Data a request brings along, readable as a temporary table for this one statement."""

    name: str
    structure: str
    format_name: str
    data: bytes


@dataclass(frozen=True)
class FrontRequest:
    """One statement to run."""

    statement: Statement
    query_id: str
    database: str | None
    default_format: str
    settings: Mapping[str, str]
    parameters: Mapping[str, str]
    #: Whether the statement may change nothing (a GET, or the read-only user).
    readonly: bool
    session_id: str | None = None
    session_seconds: int = limits.SESSION_SECONDS_DEFAULT
    session_must_exist: bool = False
    tables: Sequence[ExternalTable] = field(default_factory=tuple)


def read_request(
    query_string: bytes, headers: Mapping[str, str], body: bytes, *, is_post: bool, readonly_user: bool
) -> FrontRequest | None:
    """Read one request; None when it holds no statement at all (a server answers `Ok.` then). Raises FrontError."""
    values = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))
    for name in ("compress", "decompress"):
        if values.get(name) not in {None, "0", "", "false"}:
            raise FrontError(NOT_IMPLEMENTED, f"{name}=1 (framing of its own) is not served; use Content-Encoding")
    files: list[FilePart] = []
    content_type = headers.get("content-type", "")
    if content_type.startswith("multipart/form-data"):
        fields, files = read_form(content_type, body)
        values |= fields
        body = b""
    url_query = values.get("query", "").encode()
    if not url_query.strip() and not body.strip():
        return None
    text, data = (url_query, body or None) if url_query.strip() else (body, None)
    return FrontRequest(
        statement=read_statement(_rewrite_kill(text), data, limits.SQL_BYTES_MAX),
        query_id=values.get("query_id") or str(uuid4()),
        database=values.get("database") or headers.get("x-clickhouse-database"),
        default_format=values.get("default_format") or headers.get("x-clickhouse-format") or "TabSeparated",
        settings=_settings(values, files),
        parameters={name[6:]: value for name, value in values.items() if name.startswith("param_")},
        readonly=readonly_user or not is_post,
        session_id=values.get("session_id") or None,
        session_seconds=_seconds(values.get("session_timeout")),
        session_must_exist=values.get("session_check") == "1",
        tables=tuple(_external(part, values) for part in files),
    )


def _settings(values: Mapping[str, str], files: Sequence[FilePart]) -> dict[str, str]:
    names = {part.name for part in files}
    settings = {}
    for name, value in values.items():
        if name in CONSUMED or name.startswith("param_"):
            continue
        suffix = EXTERNAL_SUFFIX.fullmatch(name)
        if suffix and suffix.group(1) in names:
            continue
        if not NAME.fullmatch(name):
            raise FrontError(BAD_ARGUMENTS, f"{name!r} is no name of a setting")
        settings[name] = value
    return settings


def _seconds(text: str | None) -> int:
    if text is None:
        return limits.SESSION_SECONDS_DEFAULT
    if not text.isdigit() or not 0 < int(text) <= limits.SESSION_SECONDS_MAX:
        raise FrontError(BAD_ARGUMENTS, f"session_timeout is 1 to {limits.SESSION_SECONDS_MAX} seconds")
    return int(text)


def _external(part: FilePart, values: Mapping[str, str]) -> ExternalTable:
    if not NAME.fullmatch(part.name):
        raise FrontError(BAD_ARGUMENTS, f"{part.name!r} is no name of an external table")
    structure = values.get(f"{part.name}_structure")
    if structure is None:
        types = values.get(f"{part.name}_types")
        if types is None:
            raise FrontError(BAD_ARGUMENTS, f"external table {part.name} has neither structure nor types")
        structure = ", ".join(f"_{number} {name}" for number, name in enumerate(types.split(","), 1))
    return ExternalTable(part.name, structure, values.get(f"{part.name}_format", "TabSeparated"), part.data)


def _rewrite_kill(text: bytes) -> bytes:
    return KILL_BY_ID.sub(b"KILL QUERY WHERE Settings['log_comment'] =", text)
