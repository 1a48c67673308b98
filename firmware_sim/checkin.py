"""The check-in line: calls a wearer's telephone in its windows; a wristband's button and camera do the same.

Telephones are called twice a day, at a moment that only the machine knows; wristbands ask for the face or
the button once a day. Most calls are answered in person; some are not answered, some voices fail.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from firmware_sim._random import draws
from firmware_sim.codec import KIND_PHONE, KIND_WRIST, rfc3339

if TYPE_CHECKING:
    from firmware_sim.city import City

__all__ = ["WINDOWS", "CheckIn", "day_of_check_ins"]

WINDOWS: Final = ("08:00-10:00", "19:00-21:00")  # opening_hours, local time
_WINDOW_STARTS_S: Final = (8 * 3600, 19 * 3600)
_WINDOW_S: Final = 2 * 3600
_NO_ANSWER: Final = 0.03
_FAILED: Final = 0.01
_FACE_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, order=True)
class CheckIn:
    """The outcome of one call."""

    time_ms: int
    device: int
    outcome: str  # verified, failed, no_answer
    method: str  # voice, face, button

    def payload(self) -> bytes:
        """What is published on the device's ``checkins`` topic."""
        said = {"time": rfc3339(self.time_ms), "outcome": self.outcome, "method": self.method}
        return json.dumps(said, separators=(",", ":")).encode()


def day_of_check_ins(city: City, seed: int, day: int, midnight_s: int) -> list[CheckIn]:
    """All check-ins of one local day, in order of time.

    ``day`` counts local days and seeds the draws; ``midnight_s`` is its start in UTC seconds.
    """
    drawn = draws(seed, f"c{day}", len(city), 6)
    calls = []
    for i in np.flatnonzero(city.kind == KIND_PHONE):
        for k, start_s in enumerate(_WINDOW_STARTS_S):
            when_ms = int(1000 * (midnight_s + start_s + drawn[i, k] * (_WINDOW_S - 120)))
            calls.append(CheckIn(when_ms, int(i), _outcome(drawn[i, 2 + k]), "voice"))
    for i in np.flatnonzero(city.kind == KIND_WRIST):
        when_ms = int(1000 * (midnight_s + 12 * 3600 + drawn[i, 0] * 6 * 3600))
        calls.append(
            CheckIn(when_ms, int(i), _outcome(drawn[i, 2]), "face" if drawn[i, 1] < _FACE_SHARE else "button")
        )
    return sorted(calls)


def _outcome(u: float) -> str:
    if u < _NO_ANSWER:
        return "no_answer"
    return "failed" if u < _NO_ANSWER + _FAILED else "verified"
