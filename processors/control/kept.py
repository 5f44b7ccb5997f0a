"""How long each class of what is stored stays, what was given up of it, and the legal holds that stand against that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

from schemas.ids import uuid7_millis
from schemas.topics import SYSTEM_TENANT

MICROS_PER_MILLI = 1_000
#: By how much a clock may be off that a request's id or events were made by.
MARGIN_MICROS = 86_400_000_000
#: audit: entries of the audit log, in public files and in rows. events: months of requests, decisions, attempts and
#: health in Postgres and ClickHouse.
RetentionClass = Literal["audit", "events"]
RETENTION_CLASSES: tuple[RetentionClass, ...] = get_args(RetentionClass)


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """What retention gave up of a class: everything before `end`.

    Positions in the log for audit; months' first moments for events, microseconds since the epoch.
    """

    #: Where the cut before it ended; 0 for the first.
    begin: int = msgspec.field(name="from")
    #: What stays begins here.
    end: int = msgspec.field(name="to")
    #: The policy it followed.
    keep_days: int
    #: Entries under the checkpoint published when it was made, and their root (base64).
    size: int
    root: str


class Retention(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A class of what is stored: how long it stays, and what is gone of it."""

    #: Which.
    name: RetentionClass = msgspec.field(name="class")
    #: Days that a record stays at least. None: for ever.
    keep_days: int | None = None
    #: The newest cut. None: nothing is gone.
    cut: Cut | None = None

    @property
    def kept_from(self) -> int:
        """Where what stays begins, as a cut says it."""
        return 0 if self.cut is None else self.cut.end


class LegalHold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Records that must stay whatever retention and erasure say, until the hold is released."""

    #: hold_ and twelve hex digits.
    hold_id: str
    #: Whose records.
    tenant_id: str
    #: One request's alone; empty: any.
    request_id: str = ""
    #: One data subject's alone, by its handle; None: anybody's; empty: of a request without an end user.
    subject_handle: str | None = None
    #: Microseconds since the epoch, from and up to but without. None: no bound.
    since: int | None = None
    until: int | None = None
    #: Why, in the words of who placed it.
    reason: str = ""
    #: Microseconds since the epoch.
    created_at: int = 0

    @property
    def begins_micros(self) -> int:
        """No record that it covers is older, as far as the hold itself can tell; microseconds since the epoch."""
        if not self.request_id:
            return self.since or 0
        # A request's id is made as it comes in, and has that time in it, unless its producer named it otherwise.
        try:
            return uuid7_millis(self.request_id) * MICROS_PER_MILLI - MARGIN_MICROS
        except ValueError:
            return 0

    def covers(self, tenant_id: str, request_id: str, time_micros: int) -> bool:
        """Whether it may cover a record of the log.

        Public fields do not say whose data a record is, so a hold on a subject covers all of its tenant's; and nobody
        knows whose a record of the system's own is that can't be read, so it is covered as well.
        """
        if self.request_id:
            return (tenant_id, request_id) == (self.tenant_id, self.request_id)
        is_within = (self.since is None or self.since <= time_micros) and (
            self.until is None or time_micros < self.until
        )
        return is_within and tenant_id in {self.tenant_id, SYSTEM_TENANT}

    def covers_subject(self, tenant_id: str, subject_handle: str) -> bool:
        """Whether it may cover something of a data subject, whose key must stay then."""
        return tenant_id == self.tenant_id and self.subject_handle in {None, subject_handle}


def held_by(holds: Mapping[str, LegalHold], tenant_id: str, subject_handle: str) -> LegalHold | None:
    """The first hold, by id, that stands against the erasure of a data subject; None when it may be erased."""
    found = (holds[hold_id] for hold_id in sorted(holds))
    return next((hold for hold in found if hold.covers_subject(tenant_id, subject_handle)), None)
