"""The Lua scripts, read once per process, called by their SHA-1, sent whole when a server lacks one."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "lua"
#: Scripts that another file stands before, so that what they have in common is written once.
BEGINNINGS = {"place": "room", "extend": "room"}


class Script(NamedTuple):
    """A script and the SHA-1 that names it on the server."""

    name: str
    text: bytes
    sha: str


@lru_cache(maxsize=16)
def script(name: str) -> Script:
    """The script of sinks/redis/lua/<name>.lua, with its beginning."""
    parts = [BEGINNINGS[name], name] if name in BEGINNINGS else [name]
    text = b"".join((FOLDER / f"{part}.lua").read_bytes() for part in parts)
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())
