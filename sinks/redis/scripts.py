"""The Lua scripts, read once per process, called by their SHA-1, sent whole when a server lacks one."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "lua"


class Script(NamedTuple):
    """A script and the SHA-1 that names it on the server."""

    name: str
    text: bytes
    sha: str


@lru_cache(maxsize=16)
def script(name: str) -> Script:
    """The script of sinks/redis/lua/<name>.lua."""
    text = (FOLDER / f"{name}.lua").read_bytes()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())
