"""What a request needs of its worker, put together once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from api.gateway.counting import Counting
from api.gateway.grace import Grace
from api.gateway.journal import Journal
from api.gateway.meters import Meters
from api.gateway.options import GatewayOptions
from api.gateway.subjects import Subjects
from api.providers.secrets import Secrets
from api.providers.upstream import Upstream
from processors.control import ControlState
from processors.routing import OrderedRouter, Router
from schemas.ids import MICROS_PER_MILLI, RANDOM_BYTES_PER_UUID7, uuid7_begin, uuid7_ends
from sinks.redis.holds import HoldStore


def now_micros() -> int:
    """The time, microseconds since the epoch."""
    return time.time_ns() // 1_000


#: Ids whose randomness is fetched and written down at once: a request needs thirteen, most of them of one millisecond.
IDS_AHEAD = 128


class IdSource:
    """Makes ids that nobody can guess. Owned by one event loop."""

    __slots__ = ("_begin", "_ends", "_millis")

    def __init__(self) -> None:
        """Fetch nothing yet."""
        self._millis, self._begin = 0, uuid7_begin(0)
        self._ends: list[str] = []

    def __call__(self, now: int) -> str:
        """A new uuid7 of the time `now`, microseconds."""
        millis = now // MICROS_PER_MILLI
        if millis != self._millis:
            self._millis, self._begin = millis, uuid7_begin(millis)
        if not self._ends:
            self._ends = uuid7_ends(os.urandom(IDS_AHEAD * RANDOM_BYTES_PER_UUID7))
        return self._begin + self._ends.pop()


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
    counting: Counting
    grace: Grace
    secrets: Secrets = field(default_factory=Secrets)
    router: Router = field(default_factory=OrderedRouter)
    now: Callable[[], int] = now_micros
    new_id: Callable[[int], str] = field(default_factory=IdSource)
