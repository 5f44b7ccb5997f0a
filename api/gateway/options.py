"""What the gateway is started with: plain values, filled from the settings by api/cli/serve.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from schemas import limits

TAGS_ALLOWED = ("team", "feature", "environment", "service", "agent", "version", "purpose")


@dataclass(frozen=True, kw_only=True)
class GatewayOptions:
    """Everything a gateway process needs to know; names and meanings are those of api.settings."""

    #: Address and port to listen on.
    host: str = "127.0.0.1"
    port: int = 8080
    #: Worker processes; one serves in this process, more are supervised by it.
    workers: int = 1
    #: The spool lies in `spool/` of it, what workers tell each other in `run/`.
    data_directory: Path
    kafka_bootstrap: str
    registry_url: str
    redis_url: str
    postgres_dsn: str
    body_bytes_max: int = limits.BODY_BYTES_MAX
    request_timeout_seconds: float = limits.REQUEST_TIMEOUT_SECONDS
    lease_seconds: int = limits.LEASE_SECONDS
    hold_tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS
    #: Output tokens held for when neither the caller nor the price book gives a bound.
    output_tokens_default: int = 4096
    #: Output tokens per choice by which the hold of a stream without a bound grows.
    stream_step_tokens: int = limits.STREAM_STEP_TOKENS
    #: What all workers together let through per key and hour while budgets can't be checked, nano-dollars; 0: nothing.
    fail_open_nano: int = 0
    #: Tag and metadata keys that stand in events in the clear.
    tags_allowed: tuple[str, ...] = TAGS_ALLOWED
    #: Where the keys that wrap end users' data keys are (api.gateway.vault_keys).
    vault_keys: str = "file"
    #: How long running requests may take to end after SIGTERM; what is left then goes to the spool.
    drain_seconds: float = 15.0
    #: Least level logged.
    log_level: str = "info"

    @property
    def grace_file(self) -> Path:
        """Where the workers count what of `fail_open_nano` is used."""
        return self.data_directory / "grace.sqlite"

    @property
    def spool_directory(self) -> Path:
        """Where terminal events wait while Kafka is away."""
        return self.data_directory / "spool"

    @property
    def run_directory(self) -> Path:
        """Where each worker writes what it says about itself."""
        return self.data_directory / "run" / "gateway"
