"""Headers of a record from Kafka, whoever wrote them."""

from __future__ import annotations

from typing import Any

import pytest

from streams.kafka.reader import _Headers


class Message:
    """A message of the client, which gives its headers out once: asked again for a name that is no text, it crashes."""

    def __init__(self, headers: Any) -> None:
        """With these; a fault is raised."""
        self._headers, self.asked = headers, 0

    def headers(self) -> Any:
        """As the client does."""
        self.asked += 1
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([("a", b"1"), ("a", b"2")], (("a", b"1"), ("a", b"2"))),
        ([("a", None)], (("a", b""),)),
        (None, ()),
        (SystemError("a name that is no text"), ()),
    ],
)
def test_headers_are_text_and_bytes_whoever_wrote_them(given: Any, expected: tuple[tuple[str, bytes], ...]) -> None:
    """However often they are looked at, the client is asked once."""
    message = Message(given)
    headers = _Headers(message)

    assert (tuple(headers), len(headers), dict(headers)) == (expected, len(expected), dict(expected))
    assert message.asked == 1
