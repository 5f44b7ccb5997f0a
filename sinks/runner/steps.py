"""How long the steps of one write took: where a sink's time goes is told step by step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Steps(dict[str, float]):
    """Seconds by the step's name; a step that is taken again adds up."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """The block is a step, however it ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            self[name] = self.get(name, 0.0) + time.monotonic() - began
