"""Just enough SQL reading: where a statement's FORMAT clause stands, and where the data of an INSERT begins.

Nothing here decides what is allowed; `guard` asks the engine's own parser for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from infra.embedded.clickhouse_front.faults import NOT_IMPLEMENTED, SYNTAX_ERROR, FrontError

#: One token; comments and whitespace are matched so that they can be passed over.
TOKEN = re.compile(
    rb"""
      (?P<skip>\s+|--[^\n]*|\#[! ][^\n]*|/\*.*?\*/)
    | (?P<quoted>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`)
    | (?P<heredoc>(?P<tag>\$\w*\$).*?(?P=tag))
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
SELECTING = frozenset((b"SELECT", b"WITH"))


@dataclass(frozen=True)
class Statement:
    """One statement without its FORMAT clause."""

    sql: bytes
    #: Output format of a query or input format of an INSERT; None where the statement names none.
    format_name: str | None
    #: First keyword in capitals, or an empty text.
    keyword: str
    #: Data of an INSERT that followed the statement; None when the statement carries none and takes none.
    data: bytes | None


@dataclass(frozen=True)
class _Word:
    text: bytes
    start: int
    end: int
    depth: int
    #: Whether it is a bare word (not quoted, not punctuation).
    bare: bool


def _tokens(text: bytes, limit: int) -> Iterator[_Word]:
    """Tokens up to a limit of bytes, with their depth in brackets; lazy, since the data of an INSERT is no SQL."""
    depth = 0
    position = 0
    while position < min(len(text), limit):
        match = TOKEN.match(text, position)
        if match is None:
            break
        position = match.end()
        kind = match.lastgroup
        if kind == "skip":
            continue
        token = match.group()
        depth -= token in {b")", b"]", b"}"}
        yield _Word(token.upper() if kind == "word" else token, match.start(), match.end(), depth, kind == "word")
        depth += token in {b"(", b"[", b"{"}


def read_statement(text: bytes, body: bytes | None, sql_bytes_max: int) -> Statement:
    """Read a statement from its text; `body` holds the data of an INSERT whose statement came apart from it.

    Raises FrontError when an INSERT can't be told from its data.
    """
    keyword = _first_word(text)
    if keyword == b"INSERT":
        return _read_insert(text, body, sql_bytes_max)
    if len(text) > sql_bytes_max:
        raise FrontError(SYNTAX_ERROR, f"the statement is longer than {sql_bytes_max} bytes")
    return _read_query(text + (body or b""), keyword.decode())


def _first_word(text: bytes) -> bytes:
    """The first keyword, in capitals; brackets before it are passed over."""
    token = next((token for token in _tokens(text, len(text)) if token.text != b"("), None)
    return token.text if token is not None and token.bare else b""


def _read_query(text: bytes, keyword: str) -> Statement:
    tokens = list(_tokens(text, len(text)))
    for index in range(len(tokens) - 2, 0, -1):
        token = tokens[index]
        if token.text == b"FORMAT" and token.bare and token.depth == 0 and tokens[index + 1].bare:
            after = tokens[index + 2] if index + 2 < len(tokens) else None
            if after is None or after.text in {b";", b"SETTINGS"}:
                name = text[tokens[index + 1].start : tokens[index + 1].end].decode()
                return Statement(text[: token.start] + text[tokens[index + 1].end :], name, keyword, None)
    return Statement(text, None, keyword, None)


def _read_insert(text: bytes, body: bytes | None, sql_bytes_max: int) -> Statement:
    tokens = _tokens(text, sql_bytes_max)
    for token in tokens:
        if not token.bare or token.depth:
            continue
        if token.text in SELECTING:
            return _insert_select(text, body)
        if token.text == b"VALUES":
            return Statement(text[: token.start], "Values", "INSERT", text[token.end :] + (body or b""))
        if token.text == b"FORMAT" and (name := next(tokens, None)) is not None and name.bare:
            data = _data_after(text, name.end)
            return Statement(text[: token.start], text[name.start : name.end].decode(), "INSERT", data + (body or b""))
    if body is None:
        raise FrontError(SYNTAX_ERROR, "an INSERT needs VALUES, FORMAT or SELECT")
    # A server takes the format from default_format here; Values is its default.
    return Statement(text, None, "INSERT", body)


def _data_after(text: bytes, position: int) -> bytes:
    """What follows a format's name: blanks and one line end belong to the statement."""
    match = re.compile(rb"[ \t\f]*(?:\r?\n)?").match(text, position)
    return text[match.end() if match else position :]


def _insert_select(text: bytes, body: bytes | None) -> Statement:
    if body:
        raise FrontError(NOT_IMPLEMENTED, "INSERT … SELECT with data (the input function) is not served here")
    return Statement(text, None, "INSERT SELECT", None)
