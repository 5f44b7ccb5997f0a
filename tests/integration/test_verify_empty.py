"""`quaestor verify` on stores in which nothing was ever written: it agrees, and says that this proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from api.audit.local import layout_of
from api.cli import verify as command
from api.settings import Settings
from sinks.audit.key_ring import KeyRing
from tests.support.databases import postgres_databases
from tests.support.kafka_server import fresh_product_topics
from tests.support.registry_server import registry_url
from tests.valkey import Valkey

pytestmark = pytest.mark.stack


@pytest.fixture
def empty(tmp_path: Path, valkey: Valkey) -> Mapping[str, str]:
    """Settings of stores without a row, and of an audit log that has its key and nothing else."""
    settings = {
        "data": str(tmp_path),
        "kafka_bootstrap": fresh_product_topics(),
        "registry_url": registry_url(),
        "postgres_dsn": asyncio.run(postgres_databases().emptied("empty")),
        "redis_url": valkey.url,
    }
    KeyRing(layout_of(Settings(**settings))).open()  # type: ignore[arg-type]  # all are texts
    return {f"QUAESTOR_{name.upper()}": value for name, value in settings.items()}


def test_each_scope_says_that_the_log_is_empty(empty: Mapping[str, str]) -> None:
    """By itself, with everything in order; parity says so on a whole product (tests/e2e/test_demo.py)."""
    app = typer.Typer()
    command.register(app)
    results = {scope: CliRunner().invoke(app, [scope], env=empty) for scope in ("ledger", "budgets", "audit")}

    assert dict.fromkeys(results, 0) == {scope: result.exit_code for scope, result in results.items()}
    assert [] == [scope for scope, result in results.items() if "the log is empty" not in result.stderr]
