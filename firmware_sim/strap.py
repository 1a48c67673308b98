"""Strap and case: cut, opened, refitted by a technician, and the sensors' bounce.

A wristband in its cradle has an open strap, which closes when it is put on again. A cut strap stays open for
hours. In half of the cases the device is left where it was cut. The sensor bounces now and then for one tick
although the strap is closed; the old firmware reports that, the newer ones wait for a second reading.
"""

# ruff: noqa: PLR0917 (kernels take columns)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import njit

from firmware_sim._random import exponential, seed_streams, uniform
from firmware_sim.codec import KIND_PHONE
from firmware_sim.power import POWER
from firmware_sim.wearer import WEARER

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["STRAP", "new_straps", "step", "warm"]

STRAP: Final = np.dtype(
    [
        ("rng", "u8"),
        ("cut_s", "i8"),  # to be cut at this time; 0: none planned
        ("open_until_s", "i8"),
        ("case_until_s", "i8"),
        ("is_open", "u1"),  # the truth
        ("off_to_charge", "u1"),  # open because it lies in the cradle
        ("case_is_open", "u1"),
        ("raw", "u1"),  # the sensor's last raw reading
        ("reads_open", "u1"),  # what the firmware says
        ("reads_case_open", "u1"),
        ("changed", "u1"),  # a reading changed in this tick
    ]
)

_REFIT_S: Final = 4 * 3600.0  # mean time until a technician comes, beyond one hour
_BOUNCE_PER_S: Final = 1.0 / (10 * 86_400)
_CASE_PER_S: Final = 0.0004 / 86_400
_CASE_S: Final = 1800.0


def new_straps(count: int, seed: int) -> NDArray[Any]:
    """Straps that are closed: STRAP (count,)."""
    straps = np.zeros(count, STRAP)
    straps["rng"] = seed_streams(seed, "strap", count)
    return straps


@njit(nogil=True, cache=True)
def step(
    now_s: int,
    elapsed_s: float,
    cuts_per_day: float,
    kinds: NDArray[np.uint8],
    bouncy: NDArray[np.bool_],
    batteries: NDArray[Any],
    wearers: NDArray[Any],
    straps: NDArray[Any],
) -> None:
    """Cut, refit, and read every strap and case.

    now_s        : UTC seconds
    elapsed_s    : since the last call
    cuts_per_day : float64
    kinds        : uint8 (n,)
    bouncy       : bool (n,)    the firmware reports the raw reading
    batteries    : POWER (n,)
    wearers      : WEARER (n,)  ``left_behind`` written
    straps       : STRAP (n,)   written
    """
    for i in range(len(straps)):
        if kinds[i] == KIND_PHONE:
            continue
        strap = straps[i]
        u = uniform(strap)
        planned = strap.cut_s != 0 and now_s >= strap.cut_s
        if strap.is_open:
            if strap.off_to_charge:
                strap.is_open = batteries[i].docked
                strap.off_to_charge = batteries[i].docked
            elif now_s >= strap.open_until_s:
                strap.is_open = 0
                wearers[i].left_behind = 0
        elif batteries[i].docked:
            strap.is_open = 1
            strap.off_to_charge = 1
        elif planned or u < cuts_per_day * elapsed_s / 86_400.0:
            strap.is_open = 1
            strap.cut_s = 0
            strap.open_until_s = now_s + int(3600.0 + _REFIT_S * exponential(strap))
            wearers[i].left_behind = uniform(strap) < 0.5
        if strap.case_is_open:
            strap.case_is_open = now_s < strap.case_until_s
        elif u > 1.0 - _CASE_PER_S * elapsed_s:
            strap.case_is_open = 1
            strap.case_until_s = now_s + int(120.0 + _CASE_S * exponential(strap))

        bounces = uniform(strap) < _BOUNCE_PER_S * elapsed_s
        raw = strap.is_open or bounces
        reads_open = raw if bouncy[i] or strap.raw == raw else strap.reads_open
        strap.changed = reads_open != strap.reads_open or strap.case_is_open != strap.reads_case_open
        strap.raw = raw
        strap.reads_open = reads_open
        strap.reads_case_open = strap.case_is_open


def warm() -> None:
    """Compile this module's kernel."""
    none = np.zeros(0, np.uint8), np.zeros(0, np.bool_), np.zeros(0, POWER)
    step(0, 0.0, 0.0, *none, np.zeros(0, WEARER), np.zeros(0, STRAP))
