"""TokenCounter: the seam to a tokenizer. `TiktokenCounter` and `MemoryTokenCounter` pass one contract suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

BYTES_PER_TOKEN = 8


class TokenCounter(Protocol):
    """Counts tokens as a model's provider does."""

    def count(self, encoding: str, texts: Sequence[str]) -> int | None:
        """Tokens of all texts, each encoded by itself: never more than their UTF-8 bytes, 0 for empty ones.

        Names of special tokens in a text count as the text they are. None when the encoding can't be had. Blocks, for
        about a fifth of a millisecond per kilobyte, and once for a second to load an encoding; call it off the loop.
        """


class MemoryTokenCounter:
    """A TokenCounter without an encoding: every eight bytes of a text are a token."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        #: Encodings asked for, in order.
        self.asked: list[str] = []

    def count(self, encoding: str, texts: Sequence[str]) -> int | None:
        """As the seam says; knows every encoding but the empty one."""
        self.asked.append(encoding)
        return sum(-(-len(text.encode()) // BYTES_PER_TOKEN) for text in texts) if encoding else None
