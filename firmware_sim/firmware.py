"""The firmware versions in the field, as a table: what each sends, how often, and in which order.

Only what differs stands here. The machines read single columns of it: `strap` whether the sensor is
debounced, `flash` the order of an upload, `device` the intervals and what a record leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from firmware_sim._random import draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from firmware_sim.scenario import FleetMix

__all__ = [
    "OMITS_ACCURACY",
    "OMITS_ALTITUDE",
    "OMITS_MOTION",
    "OMITS_SATELLITES",
    "OMITS_VELOCITY",
    "VERSIONS",
    "Firmware",
    "assign",
    "column",
]

# What a record leaves out, as bits.
OMITS_ACCURACY: Final = 1 << 0
OMITS_ALTITUDE: Final = 1 << 1
OMITS_VELOCITY: Final = 1 << 2  # speed and heading
OMITS_MOTION: Final = 1 << 3  # the motion sensor's bit
OMITS_SATELLITES: Final = 1 << 4


@dataclass(frozen=True, slots=True)
class Firmware:
    """One version.

    share        : the key of a scenario's ``[fleet]`` that says how many devices run it; None: the rest
    slower       : multiplies the resting and moving intervals of the scenario, sampling and upload
    """

    version: str
    share: str | None
    json: bool = False
    debounced: bool = True
    newest_first: bool = True
    omits: int = 0
    slower: int = 1


VERSIONS: Final = (
    Firmware("1.4", "old", debounced=False, newest_first=False, omits=OMITS_ACCURACY | OMITS_ALTITUDE),
    Firmware("1.8", "blunt", newest_first=False, omits=OMITS_VELOCITY | OMITS_MOTION),
    Firmware("2.0", None),
    Firmware("2.1", "json", json=True),
    Firmware("2.3", "saver", omits=OMITS_ALTITUDE | OMITS_SATELLITES, slower=3),
)
_CURRENT: Final = next(k for k, firmware in enumerate(VERSIONS) if firmware.share is None)


def assign(
    mix: FleetMix, drawn: NDArray[np.float64], tagged: NDArray[np.bool_], seed: int
) -> NDArray[np.uint8]:
    """Each device's version, an index into `VERSIONS`: uint8 (n,).

    ``drawn``, float64 (n, 2), decides about 1.4 and 2.1; the others have draws of their own, so that adding
    them to a scenario leaves those two as they were. JSON has no room for a tag: ``tagged`` devices speak
    binary.
    """
    number = {firmware.share: k for k, firmware in enumerate(VERSIONS)}
    version = np.full(len(drawn), _CURRENT, np.uint8)
    own = draws(seed, "version", len(drawn), 1)[:, 0]
    version[own < mix.blunt + mix.saver] = number["saver"]
    version[own < mix.blunt] = number["blunt"]
    version[(drawn[:, 1] < mix.json) & ~tagged] = number["json"]
    version[drawn[:, 0] < mix.old] = number["old"]
    return version


def column(version: NDArray[np.uint8], name: str) -> NDArray[Any]:
    """One field of `Firmware` for each device: (n,)."""
    return np.array([getattr(firmware, name) for firmware in VERSIONS])[version]
