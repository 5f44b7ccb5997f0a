"""What a request needs of its worker, put together once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from api.gateway.journal import Journal
from api.gateway.meters import Meters
from api.gateway.options import GatewayOptions
from api.gateway.subjects import Subjects
from api.providers.secrets import Secrets
from api.providers.upstream import Upstream
from processors.control import ControlState
from processors.routing import OrderedRouter, Router
from schemas.ids import RANDOM_BYTES_PER_UUID7, uuid7
from sinks.redis.holds import HoldStore


def now_micros() -> int:
    """The time, microseconds since the epoch."""
    return time.time_ns() // 1_000


def new_id(now: int) -> str:
    """A new uuid7."""
    return uuid7(now, os.urandom(RANDOM_BYTES_PER_UUID7))


class Control(Protocol):
    """Where the control plane's state stands; `state` is replaced whole."""

    state: ControlState


@dataclass(kw_only=True)
class Parts:
    """One worker's parts. Tests put in fakes."""

    options: GatewayOptions
    #: gateway/<instance>.
    actor: str
    control: Control
    journal: Journal
    holds: HoldStore
    upstream: Upstream
    subjects: Subjects
    meters: Meters
    secrets: Secrets = field(default_factory=Secrets)
    router: Router = field(default_factory=OrderedRouter)
    now: Callable[[], int] = now_micros
