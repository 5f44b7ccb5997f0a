"""Schemas in a Confluent-compatible registry: ids and texts for the codec, registration, compatibility.

Four calls of its REST API over the standard library: confluent-kafka's own client costs every process 0.6 s and 30 MB
at start (docs/decisions/0005), and none of what it adds (serializers, rules, encryption) is used here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Set as AbstractSet
from http.client import HTTPConnection, HTTPException, HTTPSConnection, IncompleteRead
from typing import Any
from urllib.parse import quote, urlsplit

from schemas.errors import ConfigurationError, LogUnavailableError, SchemaUnknownError
from schemas.topics import TOPIC_BY_NAME, TOPICS
from streams.codec import schema_text

REQUEST_SECONDS_MAX = 5.0
#: A registry that has just started on a busy machine takes its time for the first schema it is given.
REGISTER_SECONDS_MAX = 30.0
#: A registry that cuts an answer short was there a moment ago and comes back: all it is asked may be asked again.
RETURN_SECONDS_MAX = 10.0
RETURN_PAUSE_SECONDS = 0.1
ANSWER_BYTES_MAX = 4 * 1024 * 1024
COMPATIBILITY = "FULL_TRANSITIVE"
#: http.client.RemoteDisconnected among them.
CUT = (ConnectionResetError, BrokenPipeError, IncompleteRead)
MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
OK = 200
NOT_FOUND = 404
CONFLICT = 409


class RegistryClient:
    """The calls themselves; every one raises LogUnavailableError when the registry is away or answers nonsense."""

    def __init__(self, url: str, seconds_max: float = REQUEST_SECONDS_MAX) -> None:
        """Connect nothing yet; raises ConfigurationError when the address is none."""
        self._seconds_max = seconds_max
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError(f"registry_url {url!r} is not an http address")
        self._parts = parts

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and decoded JSON of one call. Blocks, at most `seconds_max` per step.

        Made again until RETURN_SECONDS_MAX have passed once its connection was cut; a registry that takes none from
        the start is away at once.
        """
        deadline: float | None = None
        while True:
            try:
                return self._call_once(method, path, body)
            except LogUnavailableError as error:
                if deadline is None and isinstance(error.__cause__, CUT):
                    deadline = time.monotonic() + RETURN_SECONDS_MAX
                if deadline is None or time.monotonic() > deadline:
                    raise
            time.sleep(RETURN_PAUSE_SECONDS)

    def _call_once(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._seconds_max)
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, data, {"Content-Type": MEDIA_TYPE})
            answer = connection.getresponse()
            status, text = answer.status, answer.read(ANSWER_BYTES_MAX)
            decoded = json.loads(text) if text else None
        except (OSError, HTTPException, ValueError) as error:
            raise LogUnavailableError(f"schema registry: {method} {path}: {type(error).__name__}") from error
        finally:
            connection.close()
        if status >= 500:  # noqa: PLR2004 - the server's own fault
            raise LogUnavailableError(f"schema registry: {method} {path}: status {status}")
        return status, decoded


class RegistrySchemas:
    """A SchemaSource on the registry. The codec caches what it learns; an id never changes its schema."""

    def __init__(self, url: str) -> None:
        """Nothing is asked before it is needed."""
        self._client = RegistryClient(url)

    def schema_text(self, schema_id: int) -> str:
        """The schema of an id; raises SchemaUnknownError, or LogUnavailableError when it can't be asked."""
        status, answer = self._client.call("GET", f"/schemas/ids/{schema_id}")
        if status == NOT_FOUND:
            raise SchemaUnknownError(schema_id)
        return str(_expected(status, answer, "schema"))

    def id_of(self, topic: str) -> int:
        """The id under which our schema is registered; raises SchemaUnknownError or LogUnavailableError."""
        subject = quote(TOPIC_BY_NAME[topic].subject, safe="")
        status, answer = self._client.call("POST", f"/subjects/{subject}", {"schema": schema_text(topic)})
        if status == NOT_FOUND:
            raise SchemaUnknownError(0, f"the schema of {topic} is not registered: run `quaestor migrate`")
        return int(_expected(status, answer, "id"))


def register_all(url: str) -> dict[str, int]:
    """Register every schema under FULL_TRANSITIVE, idempotent; returns the id per topic. Blocks.

    Raises ConfigurationError naming the subject that the registry refuses as incompatible, and LogUnavailableError.
    """
    client = RegistryClient(url, REGISTER_SECONDS_MAX)
    status, answer = client.call("GET", "/subjects")
    if status != OK or not isinstance(answer, list):
        raise LogUnavailableError(f"schema registry: its list of subjects came with status {status}")
    known = frozenset(answer)
    return {topic.name: _register(client, topic.name, known) for topic in TOPICS}


def _register(client: RegistryClient, topic: str, known: AbstractSet[str]) -> int:
    subject = quote(TOPIC_BY_NAME[topic].subject, safe="")
    body = {"schema": schema_text(topic)}
    if TOPIC_BY_NAME[topic].subject in known:
        status, answer = client.call("POST", f"/subjects/{subject}", body)
        if status != NOT_FOUND:
            return int(_expected(status, answer, "id"))
    status, answer = client.call("POST", f"/subjects/{subject}/versions", body)
    # After its first version: Apicurio keeps compatibility only for subjects that exist.
    client.call("PUT", f"/config/{subject}", {"compatibility": COMPATIBILITY})
    if status == CONFLICT:
        raise ConfigurationError(f"the registry refuses the schema of {topic}: incompatible with an earlier version")
    return int(_expected(status, answer, "id"))


def compatible(url: str, topic: str) -> bool:
    """Whether the registry would take our schema of a topic; true when it knows none. Raises LogUnavailableError."""
    subject = quote(TOPIC_BY_NAME[topic].subject, safe="")
    body = {"schema": schema_text(topic)}
    status, answer = RegistryClient(url).call("POST", f"/compatibility/subjects/{subject}/versions", body)
    return status == NOT_FOUND or bool(_expected(status, answer, "is_compatible"))


def _expected(status: int, answer: Any, field: str) -> Any:
    if not isinstance(answer, dict) or field not in answer:
        raise LogUnavailableError(f"schema registry: an answer with status {status} has no {field!r}")
    return answer[field]
