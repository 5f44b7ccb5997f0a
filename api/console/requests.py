"""The API's view of requests: why one went as it did."""

from __future__ import annotations

from typing import Annotated

import msgspec

from api.console.operations import Reading
from api.console.parts import Parts, ReceiptFile
from api.console.problems import Problem, not_found
from api.why.story import Step
from schemas.ids import UUID_TEXT


class WhyAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Which request."""

    id: Annotated[str, msgspec.Meta(pattern=f"^{UUID_TEXT.pattern}$", description="x-quaestor-request-id.")]


class ReceiptsAsked(WhyAsked, forbid_unknown_fields=True):
    """Which request's."""


class Receipts(msgspec.Struct):
    """Receipts of all events of a request."""

    request_id: str
    receipts: list[ReceiptFile]


class Place(msgspec.Struct):
    """Where an entry of the audit log stands, in it and in Kafka."""

    seq: int
    topic: str
    partition: int
    offset: int
    event_id: str


class Why(msgspec.Struct):
    """A request's story, as `quaestor why --json` tells it."""

    request_id: str
    #: False when something contradicts: a step's mark is `mismatch`, or entries are missing in Postgres.
    ok: bool
    steps: list[Step]
    missing: list[Place]


async def why(parts: Parts, asked: WhyAsked) -> Why | Problem:
    """The whole story of a request."""
    story = await parts.tell(asked.id)
    if not story.steps and not story.missing:
        return not_found("No event of this request is in Postgres (yet).")
    missing = [Place(*place) for place in story.missing]
    return Why(story.request_id, story.ok, story.steps, missing)


async def receipts(parts: Parts, asked: ReceiptsAsked) -> Receipts | Problem:
    """The receipts of a request."""
    found = await parts.receipts(asked.id)
    return Receipts(asked.id, found) if found else not_found("No event of this request is in the audit log (yet).")


OPERATIONS = (
    Reading(
        name="request_receipts",
        path="/api/requests/{id}/receipts",
        summary=(
            "A receipt per event of a request, which anybody can check offline; "
            "503 until a checkpoint covers all of them."
        ),
        asked=ReceiptsAsked,
        answered=Receipts,
        handle=receipts,
    ),
    Reading(
        name="request_why",
        path="/api/requests/{id}/why",
        summary="A request's steps, each with its place in the audit log and what that proves.",
        asked=WhyAsked,
        answered=Why,
        handle=why,
    ),
)
