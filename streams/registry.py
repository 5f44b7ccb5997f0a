"""Schemas in a Confluent-compatible registry: ids and texts for the codec, registration, compatibility."""

from __future__ import annotations

REQUEST_SECONDS_MAX = 5.0


class RegistrySchemas:
    """A SchemaSource on the registry; answers are cached, bounded, and never change."""

    def __init__(self, url: str) -> None:
        """Nothing is asked before it is needed."""
        raise NotImplementedError

    def schema_text(self, schema_id: int) -> str:
        """The schema of an id; raises SchemaUnknownError, or LogUnavailableError when it can't be asked."""
        raise NotImplementedError

    def id_of(self, topic: str) -> int:
        """The id under which our schema is registered; raises SchemaUnknownError or LogUnavailableError."""
        raise NotImplementedError


def register_all(url: str) -> dict[str, int]:
    """Register every schema under FULL_TRANSITIVE, idempotent; returns the id per topic. Blocks."""
    raise NotImplementedError
