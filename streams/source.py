"""Source text that encoders and decoders compile, remembered: every codec of a process writes the same."""

from __future__ import annotations

from functools import lru_cache
from types import CodeType

#: All records of the house, nested ones too, some times over.
SOURCES_MAX = 256


@lru_cache(maxsize=SOURCES_MAX)
def code_of(source: str, name: str) -> CodeType:
    """The code of a source text, to be run in names of one's own; tracebacks show the name. Raises SyntaxError."""
    return compile(source, f"<{name}>", "exec")
