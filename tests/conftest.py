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


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests at once (pytest-xdist) share what a module, or the end-to-end folder, has started."""
    for item in items:
        parts = item.path.relative_to(TESTS).parts
        item.add_marker(pytest.mark.xdist_group("e2e" if parts[0] == "e2e" else "/".join(parts)))


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
