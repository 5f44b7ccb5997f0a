"""Checkpoints as lines of a file that only grows: each line carries a hash over all before it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from schemas.errors import IntegrityError

_DOMAIN = b"quaestor/audit/anchor-line/v1\0"
START = bytes(32)
_MICROS_END = 1 << 64


class AnchorLine(NamedTuple):
    """One line."""

    #: When it was written, microseconds since the epoch.
    at_micros: int
    note: str
    #: Hash over this line and, by the one before it, over all earlier ones.
    chain: bytes


def line_after(chain: bytes, at_micros: int, note: str) -> AnchorLine:
    """The line that follows one with this hash."""
    data = at_micros.to_bytes(8, "big") + note.encode("utf-8")
    return AnchorLine(at_micros, note, sha256(_DOMAIN + chain + data).digest())


def encode_line(line: AnchorLine) -> str:
    """A line of JSON with its newline."""
    fields = {"at_micros": line.at_micros, "chain": line.chain.hex(), "note": line.note}
    return json.dumps(fields, separators=(",", ":"), sort_keys=True) + "\n"


def decode_lines(lines: Iterable[str]) -> list[AnchorLine]:
    """The lines of a file; one that broke off when its writer died is passed over, for the hashes go on across it.

    Raises IntegrityError naming the first line that is not what was written.
    """
    found: list[AnchorLine] = []
    chain = START
    for number, text in enumerate(lines, 1):
        read = _decode(text)
        if read is None and not text.endswith("}"):
            continue
        if read is None:
            raise IntegrityError(f"line {number} is whole and can't be read: it was changed")
        line = line_after(chain, read.at_micros, read.note)
        if line != read:
            raise IntegrityError(f"line {number} does not follow the one before it: it, or an earlier one, was changed")
        found.append(line)
        chain = line.chain
    return found


def _decode(text: str) -> AnchorLine | None:
    try:
        fields = json.loads(text)
        line = AnchorLine(fields["at_micros"], fields["note"], bytes.fromhex(fields["chain"]))
        line.note.encode("utf-8")
        is_sound = type(line.at_micros) is int and 0 <= line.at_micros < _MICROS_END
        return line if is_sound and encode_line(line) == text.removesuffix("\n") + "\n" else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
