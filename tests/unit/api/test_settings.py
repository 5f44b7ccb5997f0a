"""Settings: where they come from, what is refused, and that each is documented."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.settings import load_settings
from api.settings_reference import TARGET, page
from schemas.errors import ConfigurationError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that no quaestor.toml is near."""
    monkeypatch.chdir(tmp_path)


def test_every_setting_is_on_the_reference_page() -> None:
    """docs/reference/settings.md is what the model says (python -m api.settings_reference writes it)."""
    assert page() == TARGET.read_text(encoding="utf-8")


def test_a_variable_wins_over_the_running_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """endpoints.json says where the stack is, unless a variable says otherwise."""
    stack = {"settings": {"kafka_bootstrap": "127.0.0.1:1", "redis_url": "redis://127.0.0.1:2/0"}}
    (tmp_path / "endpoints.json").write_text(json.dumps(stack), encoding="utf-8")
    monkeypatch.setenv("QUAESTOR_REDIS_URL", "redis://127.0.0.1:3/0")

    settings = load_settings(tmp_path)

    assert ("127.0.0.1:1", "redis://127.0.0.1:3/0") == (settings.kafka_bootstrap, settings.redis_url)


def test_a_wrong_value_names_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which variable to mend."""
    monkeypatch.setenv("QUAESTOR_GATEWAY_WORKERS", "many")

    with pytest.raises(ConfigurationError, match="QUAESTOR_GATEWAY_WORKERS"):
        load_settings()


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    """A misspelt line in quaestor.toml is not passed over."""
    (tmp_path / "quaestor.toml").write_text("gateway_prot = 1\n", encoding="utf-8")

    with pytest.raises(ConfigurationError, match="gateway_prot"):
        load_settings()


def test_a_request_must_end_before_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease shorter than the longest call is refused."""
    monkeypatch.setenv("QUAESTOR_LEASE_SECONDS", "60")

    with pytest.raises(ConfigurationError, match="lease_seconds"):
        load_settings()


def test_a_damaged_endpoints_file_says_what_to_do(tmp_path: Path) -> None:
    """A half-written file names itself and the command that mends it."""
    (tmp_path / "endpoints.json").write_text("{", encoding="utf-8")

    with pytest.raises(ConfigurationError, match="quaestor up"):
        load_settings(tmp_path)
