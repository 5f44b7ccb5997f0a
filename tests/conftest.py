"""What every test gets: a clean environment, and no sockets where none belong."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from pytest_socket import disable_socket, enable_socket
from xdist.remote import Producer

from tests.support.databases import ClickHouseDatabases, clickhouse_databases
from tests.support.scratch import use_own_folder
from tests.support.side_by_side import WITH_SERVERS, ByWhatTestsShare, turn_of

TESTS = Path(__file__).parent


def pytest_configure() -> None:
    """Before anything asks where temporary files go, or how long an example may take: on a busy machine, longer."""
    use_own_folder()
    settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByWhatTestsShare:
    """With `-n`: tests that share servers stay together."""
    config.option.loadscopereorder = False
    return ByWhatTestsShare(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest parts begin."""
    items.sort(key=lambda item: turn_of(item.nodeid))


def pytest_collection_finish() -> None:
    """What was collected stays to the end: whoever looks for garbage need not look there, hundreds of times."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    """Refuse network sockets in pure tests; Unix sockets stay, the event loop needs them."""
    if request.path.relative_to(TESTS).parts[0] in WITH_SERVERS:
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


@pytest.fixture(scope="module")
def clickhouse() -> Iterator[ClickHouseDatabases]:
    """Empty databases on a server that all tests share."""
    made = clickhouse_databases()
    yield made
    made.settle()
