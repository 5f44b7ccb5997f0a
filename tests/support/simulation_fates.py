"""What may happen to a process in the middle of a write of a simulation."""

from __future__ import annotations

from enum import StrEnum

from hypothesis import strategies as st


class Fate(StrEnum):
    """What happens in the middle of a write."""

    ABANDON = "abandon"
    CRASH = "crash"
    ZOMBIE = "zombie"
    SPOIL = "spoil"
    LOSE_REQUEST = "lose request"
    LOSE_ANSWER = "lose answer"
    OVERSLEEP = "oversleep"


FATES = st.sampled_from(Fate)
