"""docker-compose.yml: the parts of the Compose specification that it uses, and what we promise of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from infra.embedded.artifacts import load_lock
from infra.embedded.ports import PortPlan
from infra.embedded.stack import SERVER_NAMES

ROOT = Path(__file__).parents[3]
FILE = ROOT / "docker-compose.yml"
DOCKER_COMPOSE = shutil.which("docker-compose")
TEXT = {"type": "string"}
DURATION = {"type": "string", "pattern": r"^(\d+(h|m|s|ms|us))+$"}
STRINGS = {"type": "array", "items": TEXT}

#: The parts of the Compose specification's schema that the file uses, with nothing else allowed.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "properties": {
        "services": {
            "type": "object",
            "patternProperties": {"^[a-zA-Z0-9._-]+$": {"$ref": "#/$defs/service"}},
            "additionalProperties": False,
        },
        "volumes": {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
    },
    "$defs": {
        "service": {
            "type": "object",
            "additionalProperties": False,
            "required": ["image", "healthcheck"],
            "properties": {
                "image": TEXT,
                "command": STRINGS,
                "environment": {"type": "object", "additionalProperties": TEXT},
                "ports": STRINGS,
                "volumes": STRINGS,
                "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
                "ulimits": {"type": "object", "additionalProperties": {"type": "integer"}},
                "depends_on": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["condition"],
                        "properties": {"condition": {"enum": ["service_started", "service_healthy"]}},
                    },
                },
                "healthcheck": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["test", "interval", "timeout", "retries"],
                    "properties": {
                        "test": {"type": "array", "items": TEXT, "minItems": 2},
                        "interval": DURATION,
                        "timeout": DURATION,
                        "start_period": DURATION,
                        "retries": {"type": "integer", "minimum": 1},
                    },
                },
            },
        }
    },
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file as YAML reads it."""
    read: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return read


def test_it_follows_the_compose_schema(compose: dict[str, Any]) -> None:
    """Every key is one of the specification, with a value of its type."""
    jsonschema.validate(compose, SCHEMA)


def test_it_holds_the_same_servers_as_the_embedded_stack(compose: dict[str, Any]) -> None:
    """What `quaestor up` embeds is what the file runs."""
    assert set(SERVER_NAMES) == set(compose["services"])


def test_every_image_is_pinned(compose: dict[str, Any]) -> None:
    """An image carries a version of two numbers at least."""
    images = [service["image"] for service in compose["services"].values()]

    assert [] == [image for image in images if not re.search(r":\d+\.\d+(\.\d+)?$", image)]


def test_kafka_and_registry_have_the_embedded_versions(compose: dict[str, Any]) -> None:
    """The embedded artifacts and the images are of one version."""
    lock = load_lock()

    for name in ("kafka", "registry"):
        assert lock[name].version == compose["services"][name]["image"].partition(":")[2]


def test_every_port_is_bound_to_loopback_at_the_embedded_port(compose: dict[str, Any]) -> None:
    """A port of the file is the setting's, with the default of the embedded stack, and not open to the network."""
    for name, service in compose["services"].items():
        (port,) = service["ports"]

        expected = f"127.0.0.1:${{QUAESTOR_{name.upper()}_PORT:-{PortPlan().of(name)}}}:"
        assert port.startswith(expected), port


def test_every_volume_is_declared(compose: dict[str, Any]) -> None:
    """A service keeps its data in a named volume of the file."""
    used = {
        volume.partition(":")[0] for service in compose["services"].values() for volume in service.get("volumes", ())
    }

    assert set(compose["volumes"]) == used


@pytest.mark.skipif(DOCKER_COMPOSE is None, reason="docker-compose is not installed")
def test_docker_compose_reads_it() -> None:
    """The real program accepts the file."""
    done = subprocess.run(
        [str(DOCKER_COMPOSE), "--file", str(FILE), "config"], capture_output=True, text=True, check=False, timeout=60
    )

    assert 0 == done.returncode, done.stderr
