"""Events of the control plane, for tests that need a state of it."""

from __future__ import annotations

import msgspec

from processors.control import Limit
from schemas.events import ControlAction, ControlEvent, EntityKind


def limit_event(limit: Limit, number: int = 0, occurred_at: int = 1) -> ControlEvent:
    """The event that sets a limit."""
    return ControlEvent(
        event_id=f"00000000-0000-7000-8000-{number:012d}",
        occurred_at=occurred_at,
        tenant_id=limit.tenant_id,
        actor="cli/0",
        entity_kind=EntityKind.LIMIT,
        entity_id=limit.limit_id,
        action=ControlAction.CREATED,
        after=msgspec.json.encode(limit).decode(),
    )
