"""What the console is made of, passed in by whoever starts it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from api.console.control import ControlPlane
from api.console.log import PublicLog
from api.control.standings import LimitStanding
from api.why.tell import Story
from processors.audit.checkpoint import Checkpoint
from processors.audit.note import Verifier
from processors.control import Limit
from sinks.audit.search import AuditSearch
from streams.metrics import Metrics


class ReceiptFile(msgspec.Struct, frozen=True):
    """The receipt of one event: a C2SP tlog-proof, checked offline by `quaestor audit verify` and others' tools."""

    #: What to call the file.
    name: str
    #: Its entry's position in the log.
    index: int
    topic: str
    kind: str
    proof: str


@dataclass(frozen=True)
class Parts:
    """The seams of one console."""

    #: Whether a text is the admin token; compares in constant time.
    is_admin: Callable[[str], bool]
    log: PublicLog
    #: Whether the log's files are served without a token.
    log_is_public: bool
    search: AuditSearch
    #: The log's public key and its published checkpoint.
    published: Callable[[], Awaitable[tuple[Verifier, Checkpoint]]]
    #: The story of a request; without steps where Postgres knows nothing of it.
    tell: Callable[[str], Awaitable[Story]]
    #: One receipt per event of a request; none for a request without events. Raises StoreUnavailableError while the
    #: published checkpoint does not cover all of them.
    receipts: Callable[[str], Awaitable[list[ReceiptFile]]]
    control: ControlPlane
    #: What is used of limits at a moment, microseconds since the epoch. Raises StoreUnavailableError.
    standings: Callable[[Sequence[Limit], int], Awaitable[list[LimitStanding]]]
    #: The handle of a tenant's end user, made when they were never seen. Raises StoreUnavailableError.
    handle_of: Callable[[str, str], Awaitable[str]]
    #: Keys of tags that gateways read: limits stand on no others.
    tags_allowed: Collection[str]
    #: Whether each part that is needed works.
    ready: Callable[[], Awaitable[Mapping[str, bool]]]
    #: A new correlation id.
    new_id: Callable[[], str]
    #: The moment it is, microseconds since the epoch.
    now_micros: Callable[[], int]
    metrics: Metrics
