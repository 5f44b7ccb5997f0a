"""When a sink gives way to whoever else wants the CPU: while it is far behind, and catches up all the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

#: How long a sink gives way before it is seen what that costs, seconds.
TRIAL_SECONDS = 10.0
#: A backlog must be on its way to be gone within so long, or it is worked off at full speed.
CATCH_UP_SECONDS_MAX = 3_600.0
#: For how long it is then, before giving way is tried again, seconds.
FULL_SPEED_SECONDS = 60.0


@dataclass(frozen=True)
class Yielding:
    """What is decided, and remembered of the looks before."""

    gives_way: bool = False
    #: When this trial began, monotonic seconds, and the lag then.
    began_at: float = 0.0
    began_lag_events: int = 0
    #: Not to be tried before.
    again_at: float = 0.0


def look(before: Yielding, now: float, lag_events: int, oldest_seconds: float, behind_seconds: float) -> Yielding:
    """Decide anew, at this monotonic time, seconds.

    `oldest_seconds` is the age of the oldest event that is not applied; a sink is far behind from `behind_seconds` on.
    """
    if oldest_seconds < behind_seconds:
        return replace(before, gives_way=False)
    if not before.gives_way:
        return before if now < before.again_at else Yielding(True, now, lag_events)
    spent_seconds = now - before.began_at
    if spent_seconds < TRIAL_SECONDS:
        return before
    if (before.began_lag_events - lag_events) * CATCH_UP_SECONDS_MAX >= lag_events * spent_seconds:
        return Yielding(True, now, lag_events)
    return Yielding(again_at=now + FULL_SPEED_SECONDS)
