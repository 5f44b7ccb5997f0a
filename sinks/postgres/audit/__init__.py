"""The audit log's tables: writes and reads."""

from __future__ import annotations

from sinks.postgres.audit.store import PostgresAuditStore

__all__ = ["PostgresAuditStore"]
