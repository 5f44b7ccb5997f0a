"""What every test gets: a clean environment, and no sockets where none belong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_socket import disable_socket, enable_socket

TESTS = Path(__file__).parent
#: Folders whose tests are pure: opening a network socket there is a mistake.
SOCKETLESS = ("unit", "property")


@pytest.fixture(autouse=True)
def no_sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    """Refuse network sockets in pure tests; Unix sockets stay, the event loop needs them."""
    folder = request.path.relative_to(TESTS).parts[0]
    if folder not in SOCKETLESS:
        yield
        return
    disable_socket(allow_unix_socket=True)
    try:
        yield
    finally:
        enable_socket()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own settings out of the tests."""
    for name in [name for name in os.environ if name.startswith("QUAESTOR_")]:
        monkeypatch.delenv(name)
