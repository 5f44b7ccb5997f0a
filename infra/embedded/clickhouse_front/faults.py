"""Errors in ClickHouse's own shape: `Code: 60. DB::Exception: … (UNKNOWN_TABLE)`, and the HTTP status of each code."""

from __future__ import annotations

import re

CODE = re.compile(r"Code: (\d+)\.")
#: Codes a server answers with something other than 500.
STATUS_BY_CODE = {
    **dict.fromkeys((27, 36, 38, 41, 43, 53, 62, 69, 70, 72, 117, 130, 386, 456, 457), 400),
    **dict.fromkeys((16, 46, 47, 50, 52, 56, 60, 63, 80, 81, 107, 115, 372), 404),
    **dict.fromkeys((192, 193, 194, 516), 403),
    **dict.fromkeys((164, 497), 403),
    **dict.fromkeys((158, 191, 307, 396), 413),
    48: 501,
    159: 408,
    202: 503,
    373: 423,
}

NOT_IMPLEMENTED = (48, "NOT_IMPLEMENTED")
SYNTAX_ERROR = (62, "SYNTAX_ERROR")
BAD_ARGUMENTS = (36, "BAD_ARGUMENTS")
LIMIT_EXCEEDED = (290, "LIMIT_EXCEEDED")
READONLY = (164, "READONLY")
SESSION_NOT_FOUND = (372, "SESSION_NOT_FOUND")
SESSION_IS_LOCKED = (373, "SESSION_IS_LOCKED")
TOO_MANY_SIMULTANEOUS_QUERIES = (202, "TOO_MANY_SIMULTANEOUS_QUERIES")
ACCESS_DENIED = (497, "ACCESS_DENIED")
AUTHENTICATION_FAILED = (516, "AUTHENTICATION_FAILED")
TOO_MANY_BYTES = (307, "TOO_MANY_BYTES")


class FrontError(Exception):
    """A request failed; carries ClickHouse's code and the text a server would answer."""

    def __init__(self, kind: tuple[int, str], detail: str) -> None:
        """Shape a refusal of the front itself as the engine would."""
        self.code, name = kind
        super().__init__(f"Code: {self.code}. DB::Exception: {detail} ({name})")

    @property
    def status(self) -> int:
        """The HTTP status of the code."""
        return STATUS_BY_CODE.get(self.code, 500)


class EngineError(FrontError):
    """The engine refused or failed a statement."""

    def __init__(self, text: str) -> None:
        """Cut what chDB puts before the engine's own message (streaming inserts and reads have prefixes)."""
        start = text.find("Code: ")
        found = CODE.search(text)
        super().__init__((int(found.group(1)) if found else 1000, "POCO_EXCEPTION"), text)
        self.args = (text[start:] if start >= 0 else f"Code: {self.code}. DB::Exception: {text} (POCO_EXCEPTION)",)
