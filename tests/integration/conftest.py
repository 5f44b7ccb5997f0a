"""What several integration tests start for themselves."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.valkey import Valkey


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server of the test's own."""
    with tempfile.TemporaryDirectory() as directory:
        server = Valkey(Path(directory))
        server.start()
        try:
            yield server
        finally:
            server.kill()
