"""The one settings model: defaults, then quaestor.toml, then the running stack's endpoints, then QUAESTOR_* variables.

Only entry points (api/cli and what it starts) read it; everything below takes plain arguments. Every field has a
default, its unit in its name, and a line in docs/reference/settings.md (a test compares).
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas import limits
from schemas.errors import ConfigurationError

ENDPOINTS_FILE = "endpoints.json"


class Settings(BaseSettings):
    """Every setting of every process."""

    model_config = SettingsConfigDict(env_prefix="QUAESTOR_", extra="forbid", frozen=True)

    data: Path = Field(
        Path(".quaestor"), description="Data directory: the embedded stack's state, secrets, spool, logs, audit log."
    )
    cache: Path | None = Field(
        None, description="Where downloaded artifacts are kept; the user's cache folder when unset."
    )
    ports: str = Field("fixed", description="'fixed' uses the *_port settings; 'auto' takes free ports.")

    kafka_bootstrap: str = Field("127.0.0.1:19092", description="Kafka bootstrap servers.")
    registry_url: str = Field(
        "http://127.0.0.1:18081/apis/ccompat/v7", description="Confluent-compatible schema registry."
    )
    postgres_dsn: str = Field("postgresql://postgres@127.0.0.1:15432/quaestor", description="Postgres.")
    redis_url: str = Field("redis://127.0.0.1:16379/0", description="Redis or Valkey.")
    clickhouse_url: str = Field("http://127.0.0.1:18123", description="ClickHouse over HTTP.")
    gateway_url: str = Field("http://127.0.0.1:8080", description="Where clients reach the gateway.")
    console_url: str = Field("http://127.0.0.1:8081", description="Where the console is reached.")
    simulator_url: str = Field("http://127.0.0.1:18090/v1", description="Where the simulated provider listens.")

    kafka_port: int = Field(19092, description="Port of the embedded Kafka.")
    registry_port: int = Field(18081, description="Port of the embedded schema registry.")
    postgres_port: int = Field(15432, description="Port of the embedded Postgres (loopback).")
    redis_port: int = Field(16379, description="Port of the embedded Valkey.")
    clickhouse_port: int = Field(18123, description="Port of the embedded ClickHouse front.")
    gateway_host: str = Field(
        "127.0.0.1", description="Address the gateway listens on; loopback unless told otherwise."
    )
    gateway_port: int = Field(8080, description="Port of the gateway.")
    gateway_workers: int = Field(1, ge=1, le=64, description="Gateway worker processes.")
    console_host: str = Field(
        "127.0.0.1", description="Address the console listens on; loopback unless told otherwise."
    )
    console_port: int = Field(8081, description="Port of the console.")
    simulator_port: int = Field(18090, description="Port of the simulated provider.")
    monitor_port: int = Field(0, description="Port of this process's /metrics and /status; 0 takes a free one.")

    body_bytes_max: int = Field(limits.BODY_BYTES_MAX, description="Largest request body accepted, bytes.")
    request_timeout_seconds: float = Field(
        limits.REQUEST_TIMEOUT_SECONDS,
        gt=0,
        le=limits.REQUEST_TIMEOUT_SECONDS,
        description="Longest call to a provider.",
    )
    lease_seconds: int = Field(limits.LEASE_SECONDS, gt=0, description="Lease of a hold.")
    spool_grace_seconds: int = Field(
        limits.SPOOL_GRACE_SECONDS, ge=0, description="Waited after a lease for spooled events, before expiry."
    )
    clock_skew_seconds: int = Field(limits.CLOCK_SKEW_SECONDS, ge=0, description="Clock skew allowed between machines.")
    hold_tombstone_seconds: int = Field(
        limits.HOLD_TOMBSTONE_SECONDS,
        gt=0,
        description="How long a resolved hold is remembered; its commit may come so late, less an hour.",
    )
    snapshot_seconds: float = Field(
        limits.SNAPSHOT_SECONDS,
        ge=1,
        le=3600,
        description="How often the Redis sink keeps a snapshot of its budgets in Postgres: what a rebuild reads again.",
    )
    redis_waitaof_replicas: int | None = Field(
        None,
        ge=0,
        le=16,
        description="When set, a batch of the Redis sink counts as written once Redis has it on disk (`WAITAOF`), and "
        "this many replicas on theirs; Redis needs `appendonly yes`.",
    )
    fail_open_usd_per_hour: str = Field(
        "0",
        pattern=r"^\d{1,7}(\.\d{1,9})?$",
        description="Dollars per key and hour that a gateway lets through unchecked while budgets can't be checked "
        "(Redis away, live state being rebuilt), all its workers together; 0: none, such calls wait (503).",
    )
    output_tokens_default: int = Field(
        4096, gt=0, description="Output tokens held for when neither the caller nor the price book gives a bound."
    )
    stream_step_tokens: int = Field(
        limits.STREAM_STEP_TOKENS,
        ge=64,
        description="Output tokens per choice by which the hold of a stream without a bound grows.",
    )
    expired_hold_charge: str = Field(
        "full",
        pattern="^(full|input|nothing)$",
        description="What an expired hold is charged; 'input' and 'nothing' give up the promise of no overspend.",
    )
    tags_allowed: tuple[str, ...] = Field(
        ("team", "feature", "environment", "service", "agent", "version", "purpose"),
        description="Tag and metadata keys that stand in events in the clear; others are sealed.",
    )
    vault_keys: str = Field(
        "file",
        pattern=r"^(file(:.+)?|env:[A-Za-z_][A-Za-z0-9_]*|kms:[A-Za-z0-9_.]+:[A-Za-z0-9_]+)$",
        description="Where the keys that wrap end users' data keys are: 'file' (secrets/vault.key of the data "
        "directory, made at the first start), 'file:PATH', 'env:NAME', or 'kms:MODULE:FACTORY', a key management "
        "service.",
    )
    session_seconds: float = Field(
        limits.SESSION_SECONDS,
        ge=1,
        le=120,
        description="Silent for so long, a sink or stream process is dead and others of its kind take over.",
    )
    instance: str = Field(
        "",
        pattern="^[A-Za-z0-9._-]{0,64}$",
        description="This process's name among those of its kind, the same after a restart (a pod's name): it takes "
        "its partitions back at once, instead of after session_seconds.",
    )
    yield_behind_seconds: float = Field(
        limits.YIELD_BEHIND_SECONDS,
        ge=0,
        description="From this age of its oldest unapplied event on, a sink that catches up (Postgres, ClickHouse, "
        "audit) lets other processes have the CPU first, as long as it catches up all the same; 0: never.",
    )
    audit_log: str = Field("main", pattern="^[a-z0-9_-]{1,64}$", description="Name of the audit log and its folder.")
    audit_origin: str = Field("quaestor.local/audit/main", description="Origin of the audit log: its key's name.")
    audit_log_public: bool = Field(
        True,
        description="Whether the console serves the audit log's files (checkpoint, tiles, entries) without a token.",
    )
    audit_witness_policy: Path | None = Field(
        None,
        description="Whole path of a witness policy (c2sp.org/tlog-policy): a checkpoint is published when its quorum "
        "has signed. Nobody is asked when unset.",
    )
    audit_witness_seconds: float = Field(
        limits.AUDIT_WITNESS_SECONDS,
        gt=0,
        le=limits.AUDIT_UNWITNESSED_SECONDS,
        description="How long one round of witnesses may take.",
    )
    audit_unwitnessed_seconds: float = Field(
        limits.AUDIT_UNWITNESSED_SECONDS,
        gt=0,
        description="How long a signed checkpoint may wait for its quorum before that is an alarm.",
    )
    audit_anchors: tuple[str, ...] = Field(
        (),
        description="Where checkpoints of the audit log are anchored: file:PATH, s3://BUCKET/PREFIX, rfc3161:URL, "
        "options after a # (docs/guides/audit-keys-and-anchors.md).",
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least level logged.")

    @property
    def late_seconds(self) -> int:
        """How long after its lease ended a hold's last event may stand in the log: the reaper waits, then works."""
        return self.clock_skew_seconds + self.spool_grace_seconds + limits.REPORT_SLACK_SECONDS

    @property
    def story_seconds(self) -> float:
        """The longest time from a request's first event to its last: its last hold is placed late, and expires."""
        return self.request_timeout_seconds + self.lease_seconds + self.late_seconds

    @model_validator(mode="after")
    def _requests_end_before_leases(self) -> Self:
        """A call that outlives its lease would be charged as expired while it runs."""
        if self.request_timeout_seconds + limits.DELIVERY_TIMEOUT_SECONDS >= self.lease_seconds:
            raise ValueError("request_timeout_seconds must end before lease_seconds do, with time to record the end")
        needed = self.lease_seconds + self.clock_skew_seconds + self.spool_grace_seconds + limits.HOLD_MARGIN_SECONDS
        if needed >= self.hold_tombstone_seconds:
            raise ValueError("hold_tombstone_seconds must outlive a lease, clock skew and spool grace by an hour")
        return self


def load_settings(data: Path | None = None) -> Settings:
    """The settings of this process; raises ConfigurationError with the field to fix.

    `data` (the --data option) wins over QUAESTOR_DATA. endpoints.json in the data directory, written by `quaestor up`,
    says where the running stack is.
    """
    directory = data or Path(os.environ.get("QUAESTOR_DATA") or ".quaestor")
    values = _toml(Path("quaestor.toml")) | _endpoints(directory) | {"data": directory}
    overridden = {name for name in values if f"QUAESTOR_{name.upper()}" in os.environ and not (name == "data" and data)}
    try:
        return Settings(**{name: value for name, value in values.items() if name not in overridden})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "settings"
        raise ConfigurationError(
            f"setting {field!r}: {first['msg']} (set QUAESTOR_{field.upper()} or quaestor.toml)"
        ) from None


def _toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _endpoints(directory: Path) -> dict[str, Any]:
    path = directory / ENDPOINTS_FILE
    if not path.is_file():
        return {}
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"{path} is damaged ({error}); run `quaestor up` again") from None
    return settings
