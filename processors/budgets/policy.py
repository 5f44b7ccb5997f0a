"""What an expired hold is charged: the provider may have been called, so no overspend means the full hold."""

from __future__ import annotations

from enum import StrEnum

from schemas.money import divide_half_even


class ExpiredCharge(StrEnum):
    """Policies of settings' `expired_hold_charge`. INPUT and NOTHING give up the promise of no overspend."""

    FULL = "full"
    INPUT = "input"
    NOTHING = "nothing"


#: Part of the hold that INPUT charges where nobody recorded how much of it was for input: per thousand.
INPUT_PER_MILLE = 250


def expired_charge_nano(policy: ExpiredCharge, held_nano: int) -> int:
    """What a hold of this amount is charged when its lease ran out, nano-units."""
    if policy is ExpiredCharge.FULL:
        return held_nano
    if policy is ExpiredCharge.NOTHING:
        return 0
    return divide_half_even(held_nano * INPUT_PER_MILLE, 1000)
