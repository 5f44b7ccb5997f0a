"""What several integration tests start for themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.valkey import Valkey, running


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server of the test's own."""
    with running() as server:
        yield server
