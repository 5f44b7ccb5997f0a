"""What README, CONTRIBUTING and other programs rely on, and one careless line would end."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from pytest_socket import SocketBlockedError

from api.settings import Settings
from schemas.events import EVENT_TYPES
from streams.kafka.configuration import producer

ROOT = Path(__file__).parents[3]
TARGETS = ("demo", "test", "check", "up", "down", "bench")


def made(*arguments: str) -> str:
    """What make says."""
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_make_help_lists_its_targets() -> None:
    """A newcomer's first look."""
    listed = {line.split()[1] for line in made("help").splitlines() if line.strip()}

    assert [] == [target for target in TARGETS if target not in listed]


def test_make_demo_hands_its_arguments_on() -> None:
    """`make demo ARGS=--exit` is what scripts call."""
    assert ".venv/bin/quaestor demo --exit" in made("--dry-run", "demo", "ARGS=--exit")


def test_the_environment_is_made_with_uv_or_without() -> None:
    """From nothing, by whichever of the two is there."""
    recipe = made("--dry-run", "--always-make", ".venv/.ready")

    assert ("uv " in recipe, "-m venv" in recipe, "pip" in recipe) == (True, True, True)


def test_a_unit_test_opens_no_socket() -> None:
    """It would depend on something that it does not name."""
    with pytest.warns(UserWarning, match="socket"), pytest.raises(SocketBlockedError):
        socket.socket()


def test_it_listens_on_loopback_unless_told_otherwise() -> None:
    """Gateway and console."""
    settings = Settings()

    assert ("127.0.0.1", "127.0.0.1") == (settings.gateway_host, settings.console_host)


@pytest.mark.parametrize("topic", EVENT_TYPES)
def test_an_event_can_not_be_changed(topic: str) -> None:
    """What was said stays said."""
    assert EVENT_TYPES[topic].__struct_config__.frozen


def test_a_producer_is_idempotent_waits_for_all_and_has_no_transactions() -> None:
    """Ids make repeats harmless; librdkafka lacks KIP-890."""
    settings = producer("127.0.0.1:1", "quaestor", 0)

    assert (True, "all") == (settings["enable.idempotence"], settings["acks"])
    assert "transactional.id" not in settings
