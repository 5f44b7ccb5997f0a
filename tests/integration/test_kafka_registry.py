"""Schemas in a real registry: registered once, looked up, refused when incompatible."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner, Result

from api.cli.main import application
from schemas import history
from schemas.errors import ConfigurationError, LogUnavailableError
from schemas.topics import TOPICS
from streams import registry as registry_module
from streams.codec import Codec, schema_text
from streams.registry import RegistrySchemas, compatible, register_all
from tests.support.events import alert
from tests.support.registry_server import registry

pytestmark = pytest.mark.stack

COSTS = "quaestor.costs"
WAIT_SECONDS = 10


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A registry of this module's own, with our schemas."""
    with registry() as address:
        yield address


def test_registering_again_changes_no_id(url: str) -> None:
    """Every topic has one, and keeps it."""
    ids = register_all(url)

    assert ids == register_all(url)
    assert set(ids) == {topic.name for topic in TOPICS}
    assert len(set(ids.values())) == len(TOPICS)


def test_an_event_goes_through_the_registrys_ids(url: str) -> None:
    """Encoded by one process, decoded by another."""
    value = Codec(RegistrySchemas(url)).encode(alert("e"))

    assert Codec(RegistrySchemas(url)).decode_event("quaestor.alerts", value) == alert("e")


def said(url: str, *arguments: str) -> Result:
    """What `quaestor schemas` answers about this registry."""
    asked = ["schemas", *arguments, "--json"]
    return CliRunner().invoke(application(["schemas"]), asked, env={"QUAESTOR_REGISTRY_URL": url})


def test_the_commands_register_list_and_check(url: str) -> None:
    """The same ids each time, ten records with them, and nothing that the registry would refuse."""
    ids = json.loads(said(url, "register").stdout)["ids"]

    assert ids == json.loads(said(url, "register").stdout)["ids"]
    rows = json.loads(said(url, "list").stdout)["schemas"]
    assert ids == {row["topic"]: row["registry_id"] for row in rows}
    assert 10 == len(rows)
    assert {"ok": True, "problems": []} == json.loads(said(url, "check").stdout)


def test_schemas_are_listed_without_a_registry() -> None:
    """Without ids."""
    rows = json.loads(said("http://127.0.0.1:1/apis/ccompat/v7", "list").stdout)["schemas"]

    assert [None] * 10 == [row["registry_id"] for row in rows]


def test_a_registry_that_is_away_is_unavailable_and_not_unknown() -> None:
    """Waiting helps; nothing may be quarantined meanwhile."""
    away = RegistrySchemas("http://127.0.0.1:1/apis/ccompat/v7")

    with pytest.raises(LogUnavailableError):
        away.id_of(COSTS)
    with pytest.raises(LogUnavailableError):
        away.schema_text(1)


@pytest.fixture
def restarting() -> Iterator[str]:
    """A registry that goes away while it is asked, refuses the next connection and then is back."""
    with ThreadPoolExecutor(1) as pool:
        server = socket.create_server(("127.0.0.1", 0))
        port = server.getsockname()[1]
        served = pool.submit(_serve_restarting, server, port)
        yield f"http://127.0.0.1:{port}"
        served.result(timeout=2 * WAIT_SECONDS)


def _serve_restarting(server: socket.socket, port: int) -> None:
    answer = json.dumps({"schema": '"int"'}).encode()
    with server:
        server.accept()[0].close()
    with socket.create_server(("127.0.0.1", port)) as again:
        again.settimeout(WAIT_SECONDS)
        with again.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))


def test_a_registry_that_restarts_is_asked_again(restarting: str) -> None:
    """A command that met it going away does not fail of it."""
    assert RegistrySchemas(restarting).schema_text(1) == '"int"'


@pytest.mark.parametrize("url", ["", "kafka:9092", "ftp://x/y"])
def test_what_is_no_address_is_a_matter_of_configuration(url: str) -> None:
    """Said before anything is asked."""
    with pytest.raises(ConfigurationError):
        RegistrySchemas(url)


def test_a_schema_that_is_there_is_compatible(url: str) -> None:
    """Every one of ours."""
    assert all(compatible(url, topic.name) for topic in TOPICS)


def test_an_incompatible_schema_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FULL_TRANSITIVE stands in the registry: a new field without a default is neither compatible nor registered."""
    schema = history.current(COSTS)
    schema["fields"].append({"name": "n", "type": "string", "doc": "New."})
    monkeypatch.setattr(
        registry_module, "schema_text", lambda topic: json.dumps(schema) if topic == COSTS else schema_text(topic)
    )

    assert not compatible(url, COSTS)
    with pytest.raises(ConfigurationError, match=COSTS):
        register_all(url)


def test_a_compatible_schema_takes_a_new_id_and_the_old_one_stays(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old records are read with the new one's defaults left to the reader."""
    before = RegistrySchemas(url).id_of(COSTS)
    schema = history.current(COSTS)
    schema["fields"].append({"name": "n", "type": ["null", "string"], "default": None, "doc": "New."})
    monkeypatch.setattr(
        registry_module, "schema_text", lambda topic: json.dumps(schema) if topic == COSTS else schema_text(topic)
    )

    after = register_all(url)[COSTS]

    assert after != before
    assert json.loads(RegistrySchemas(url).schema_text(before)) == history.current(COSTS)
