"""Pieces of bytes: uuids in canonical text, many at once."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.ids import is_uuid
from streams.pieces import UUID_CHARACTERS, UnusualError, uuids

TEXT = b"0189abcd-ef01-7234-8567-89abcdef0123"


def read(*texts: bytes) -> list[str]:
    """The uuids in texts that stand one behind the other, as hexadecimal digits."""
    source = np.frombuffer(b"".join([b"+", *texts, bytes(64)]), np.uint8)
    sizes = np.array([len(text) for text in texts], np.int64)
    found = uuids(source, np.cumsum(sizes) - sizes + 1, sizes)
    return [bytes(each).hex() for each in found]


def test_uuids_are_the_bytes_they_write() -> None:
    """Every digit is where it belongs."""
    other = TEXT[::-1].replace(b"-", b"")
    spelled = b"-".join((other[:8], other[8:12], other[12:16], other[16:20], other[20:]))
    assert read(TEXT, spelled) == [TEXT.decode().replace("-", ""), other.decode()]


@pytest.mark.parametrize("place", range(UUID_CHARACTERS))
def test_what_is_no_uuid_is_left_to_the_slow_way(place: int) -> None:
    """Each byte in each place is taken exactly where the text stays a uuid."""
    for byte in range(256):
        text = TEXT[:place] + bytes([byte]) + TEXT[place + 1 :]
        if is_uuid(text.decode("latin-1")):
            assert read(TEXT, text)[1] == text.decode().replace("-", "")
        else:
            with pytest.raises(UnusualError):
                read(TEXT, text)


@pytest.mark.parametrize("text", [b"", TEXT[:-1], TEXT + b"0", TEXT.replace(b"-", b"")])
def test_another_length_is_no_uuid(text: bytes) -> None:
    """So is a text without dashes."""
    with pytest.raises(UnusualError):
        read(text)
