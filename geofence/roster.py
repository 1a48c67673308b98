"""Who is supervised: devices, their participants and groups, and from when until when."""

from __future__ import annotations

from dataclasses import dataclass

from geofence.units import NO_TIME

__all__ = ["DEVICE_KINDS", "Enrolled"]

DEVICE_KINDS = ("ankle", "wrist", "phone")


@dataclass(frozen=True, slots=True)
class Enrolled:
    """One device of the roster.

    layers   : only rules over these layers apply to it; None: over all layers
    from_us  : NO_TIME: since ever
    until_us : NO_TIME: no end known
    key      : 32 bytes, for the tags of binary messages
    """

    device_id: str
    kind: str = "ankle"
    participant: str | None = None
    groups: tuple[str, ...] = ()
    layers: tuple[str, ...] | None = None
    from_us: int = NO_TIME
    until_us: int = NO_TIME
    key: bytes | None = None

    def covers(self, time_us: int) -> bool:
        """Whether the enrollment holds at this time (its end excluded)."""
        return (self.from_us == NO_TIME or self.from_us <= time_us) and (
            self.until_us == NO_TIME or time_us < self.until_us
        )
