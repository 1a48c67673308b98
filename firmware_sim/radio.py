"""The cellular link: up, or down in a gap, in an outage, in a tunnel, in foil."""

# ruff: noqa: PLR0917 (kernels take columns)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import njit

from firmware_sim._random import exponential, seed_streams, uniform
from firmware_sim.wearer import AROUND_GARAGE, AROUND_TUNNEL, WEARER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from firmware_sim.scenario import Radio

__all__ = ["RADIO", "new_radios", "outages_of", "step", "warm"]

RADIO: Final = np.dtype(
    [
        ("rng", "u8"),
        ("next_gap_s", "f8"),
        ("gap_until_s", "f8"),
        ("lot", "f8"),  # 0..1: an outage of share p takes the devices with lot < p
        ("linked", "u1"),
    ]
)


def new_radios(count: int, seed: int) -> NDArray[Any]:
    """Radios that are linked: RADIO (count,)."""
    radios = np.zeros(count, RADIO)
    radios["rng"] = seed_streams(seed, "radio", count)
    radios["lot"] = -1.0
    radios["linked"] = 1
    return radios


def outages_of(radio: Radio, start_s: int) -> NDArray[np.float64]:
    """The outages of a scenario for a run that starts at ``start_s``: float64 (k, 3) from, until, share."""
    return np.array(
        [
            (start_s + 3600 * o.after_h, start_s + 3600 * (o.after_h + o.hours), o.share)
            for o in radio.outages
        ],
        np.float64,
    ).reshape(-1, 3)


@njit(nogil=True, cache=True)
def step(
    now_s: int,
    gaps_per_day: float,
    gap_s: float,
    outages: NDArray[np.float64],
    wearers: NDArray[Any],
    radios: NDArray[Any],
) -> None:
    """See who has a network.

    now_s        : UTC seconds
    gaps_per_day : float64
    gap_s        : mean length
    outages      : float64 (k, 3)  from, until (UTC seconds), share
    wearers      : WEARER (n,)
    radios       : RADIO (n,)  written
    """
    for i in range(len(radios)):
        radio = radios[i]
        if radio.lot < 0.0:
            radio.lot = uniform(radio)
            radio.next_gap_s = np.inf
            if gaps_per_day > 0.0:
                radio.next_gap_s = now_s + 86_400.0 / gaps_per_day * exponential(radio)
        if now_s >= radio.next_gap_s:
            radio.gap_until_s = now_s + gap_s * exponential(radio)
            radio.next_gap_s = radio.gap_until_s + 86_400.0 / gaps_per_day * exponential(radio)
        below = wearers[i].around in (AROUND_TUNNEL, AROUND_GARAGE)
        linked = now_s >= radio.gap_until_s and not wearers[i].foiled and not below
        for k in range(len(outages)):
            if outages[k, 0] <= now_s < outages[k, 1] and radio.lot < outages[k, 2]:
                linked = False
        radio.linked = linked


def warm() -> None:
    """Compile this module's kernel."""
    step(0, 1.0, 1.0, np.zeros((0, 3)), np.zeros(0, WEARER), np.zeros(0, RADIO))
