"""What a rule may require, and the bits of a ping's status that conditions read."""

from __future__ import annotations

__all__ = ["KINDS"]

KINDS = (
    "none",
    "inside",
    "outside",
    "strap_closed",
    "case_closed",
    "battery",
    "contact",
    "fix",
    "no_jamming",
    "plausible_movement",
    "check_in",
    "clock",
)
RECORD, INSIDE, OUTSIDE, STRAP, CASE, BATTERY, CONTACT, FIX, NO_JAMMING, MOVEMENT, CHECK_IN, CLOCK = range(12)

STRAP_OPEN, CASE_OPEN, BEACON, JAMMING, BUFFERED = 1, 2, 16, 32, 128
