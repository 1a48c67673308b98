"""Which times can be believed: bounds around the moment of reception."""

from __future__ import annotations

from typing import Final

from geofence import to_rfc3339
from geofence.units import SECOND_US

__all__ = ["CLOCK_OFF_US", "MAX_AHEAD_US", "MAX_BEHIND_US", "misdated"]

CLOCK_OFF_US: Final = 60 * SECOND_US  # a fix time this far ahead of ours is marked
MAX_AHEAD_US: Final = 10 * 60 * SECOND_US  # further ahead it is set aside
MAX_BEHIND_US: Final = 30 * 86_400 * SECOND_US  # as is what is older than any device's memory


def misdated(time_us: int, received_time_us: int) -> str | None:
    """Why a time can't be believed, as a sentence; None when it can."""
    off_us = time_us - received_time_us
    if -MAX_BEHIND_US <= off_us <= MAX_AHEAD_US:
        return None
    if off_us > 0:
        how = f"{off_us / 60 / SECOND_US:.1f} min ahead of its reception; at most 10 min are taken in"
    else:
        how = f"{-off_us / 86_400 / SECOND_US:.1f} days behind its reception; at most 30 days are taken in"
    return f"the time {to_rfc3339(time_us)} is {how}"
