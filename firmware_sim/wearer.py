"""Where a wearer is: walks, rides and drives along the streets from stop to stop.

A trip is six points: the door, the street at the door, two corners, the street at the other door, the other
door. Streets run along multiples of the block's length; the river is crossed by a bridge. Every leg is
parallel to an axis, so headings are exact and no angle is computed.

Speeds: walking 1.35 m/s (Bohannon, "Comfortable and maximum walking speed of adults", Age and Ageing 26,
1997), cycling 4.5, bus 6.5 and car 10 m/s between stops (city traffic; the authors' choice).
"""

# ruff: noqa: PLR0917 (kernels take columns)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import njit

from firmware_sim._random import normal, seed_streams, uniform
from firmware_sim.agenda import AGENDA, WHY_TAILGATING
from firmware_sim.city import APARTMENT, BIG_BUILDING, HOUSE, PLACE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from firmware_sim.city import City

__all__ = [
    "AROUND",
    "AROUND_APARTMENT",
    "AROUND_BIG_BUILDING",
    "AROUND_CANYON",
    "AROUND_GARAGE",
    "AROUND_HOUSE",
    "AROUND_OPEN",
    "AROUND_SUBURB",
    "AROUND_TUNNEL",
    "CAR",
    "REST",
    "STREETS",
    "WEARER",
    "depart",
    "move",
    "new_wearers",
    "settle",
    "streets_of",
    "warm",
]

REST: Final = 0
WALK: Final = 1
CYCLE: Final = 2
BUS: Final = 3
CAR: Final = 4

# What stands around an antenna; rows of the tables in gnss.
AROUND_OPEN: Final = 0
AROUND_SUBURB: Final = 1
AROUND_CANYON: Final = 2
AROUND_HOUSE: Final = 3
AROUND_APARTMENT: Final = 4
AROUND_BIG_BUILDING: Final = 5
AROUND_TUNNEL: Final = 6
AROUND_GARAGE: Final = 7
AROUND: Final = ("open", "suburb", "canyon", "house", "apartment", "big_building", "tunnel", "garage")

_POINTS: Final = 6
_BRIDGE_EVERY: Final = 6
_INTO_GARAGE_S: Final = 90.0  # down the ramp, a free place, and up by the lift
_OUT_OF_GARAGE_S: Final = 45.0

WEARER: Final = np.dtype(
    [
        ("rng", "u8"),
        ("x", "f8"),  # metres east of the centre
        ("y", "f8"),
        ("along_x", "i1"),  # direction of the leg: one of the two is +-1, or both 0
        ("along_y", "i1"),
        ("mode", "u1"),
        ("around", "u1"),
        ("foiled", "u1"),
        ("left_behind", "u1"),  # the strap is cut and the device lies where it fell
        ("speed_mps", "f8"),
        ("pause_s", "f8"),  # still to wait at the corner
        ("garage_s", "f8"),  # still underground
        ("leg", "i4"),
        ("way_x", "f8", (_POINTS,)),
        ("way_y", "f8", (_POINTS,)),
    ]
)

STREETS: Final = np.dtype([("block_m", "f8"), ("half_m", "f8"), ("downtown_m", "f8"), ("river_y", "f8")])


def new_wearers(city: City, seed: int) -> NDArray[Any]:
    """Everyone at home: WEARER (n,)."""
    wearers = np.zeros(len(city), WEARER)
    wearers["rng"] = seed_streams(seed, "wearer", len(city))
    home = city.places[city.people["home"]]
    wearers["x"], wearers["y"] = home["x"], home["y"]
    return wearers


def streets_of(city: City) -> NDArray[Any]:
    """The few numbers of the street grid that the kernels read: STREETS (1,)."""
    plan = city.scenario.city
    return np.array([(plan.block_m, city.half_m, plan.downtown_m, city.river_y)], STREETS)


@njit(nogil=True, cache=True)
def settle(now_s: int, places: NDArray[Any], agendas: NDArray[Any], wearers: NDArray[Any]) -> None:
    """Put everyone where the agenda has them at ``now_s`` (UTC seconds), trips taken as done.

    places  : PLACE (p,)
    agendas : AGENDA (n,)  ``at`` written
    wearers : WEARER (n,)  position written
    """
    for i in range(len(wearers)):
        agenda = agendas[i]
        while agenda.at + 1 < agenda.count and agenda.leave_s[agenda.at] <= now_s:
            agenda.at += 1
        wearers[i].x = places[agenda.stop[agenda.at]].x
        wearers[i].y = places[agenda.stop[agenda.at]].y


@njit(nogil=True, cache=True)
def depart(wearer: Any, place: Any, streets: Any) -> None:
    """Choose the way and the vehicle from where the wearer is to a place.

    wearer  : a WEARER record  written
    place   : a PLACE record
    streets : a STREETS record
    """
    block = streets.block_m
    street_a = round(wearer.y / block) * block
    street_b = round(place.y / block) * block
    u = uniform(wearer)
    corner = wearer.x + (place.x - wearer.x) * (0.0 if u < 0.3 else 1.0 if u < 0.6 else u)
    pitch = block
    if (street_a > streets.river_y) != (street_b > streets.river_y):
        pitch = _BRIDGE_EVERY * block
    corner = round(corner / pitch) * pitch
    if corner > streets.half_m:
        corner -= pitch
    elif corner < -streets.half_m:
        corner += pitch
    wearer.way_x[0], wearer.way_y[0] = wearer.x, wearer.y
    wearer.way_x[1], wearer.way_y[1] = wearer.x, street_a
    wearer.way_x[2], wearer.way_y[2] = corner, street_a
    wearer.way_x[3], wearer.way_y[3] = corner, street_b
    wearer.way_x[4], wearer.way_y[4] = place.x, street_b
    wearer.way_x[5], wearer.way_y[5] = place.x, place.y
    length_m = 0.0
    for k in range(_POINTS - 1):
        # one of the two is zero
        length_m += abs(wearer.way_x[k + 1] - wearer.way_x[k]) + abs(wearer.way_y[k + 1] - wearer.way_y[k])
    u = uniform(wearer)
    z = normal(wearer)
    if length_m < 900.0:
        wearer.mode = WALK
        wearer.speed_mps = max(0.7, 1.35 + 0.15 * z)
    elif length_m < 5000.0 and u < 0.2:
        wearer.mode = CYCLE
        wearer.speed_mps = max(2.5, 4.5 + 0.7 * z)
    elif u < 0.45:
        wearer.mode = BUS
        wearer.speed_mps = max(4.0, 6.5 + 0.5 * z)
    else:
        wearer.mode = CAR
        wearer.speed_mps = max(6.0, 10.0 + 1.5 * z)
    wearer.leg = 0
    wearer.pause_s = 0.0


@njit(nogil=True, cache=True)
def _turn(wearer: Any) -> None:
    """Set the direction of the leg that begins."""
    k = wearer.leg
    wearer.along_x = np.sign(wearer.way_x[k + 1] - wearer.way_x[k])
    wearer.along_y = np.sign(wearer.way_y[k + 1] - wearer.way_y[k])


@njit(nogil=True, cache=True)
def _advance(wearer: Any, seconds: float) -> None:
    """Go on along the way for some seconds, waiting at corners; at its end, rest."""
    while seconds > 0.0 and wearer.mode != REST:
        if wearer.pause_s > 0.0:
            waited = min(wearer.pause_s, seconds)
            wearer.pause_s -= waited
            seconds -= waited
            continue
        k = wearer.leg
        left_m = abs(wearer.way_x[k + 1] - wearer.x) + abs(wearer.way_y[k + 1] - wearer.y)
        reach_m = wearer.speed_mps * seconds
        if reach_m < left_m:
            _turn(wearer)
            wearer.x += wearer.along_x * reach_m
            wearer.y += wearer.along_y * reach_m
            return
        seconds -= left_m / wearer.speed_mps
        wearer.x = wearer.way_x[k + 1]
        wearer.y = wearer.way_y[k + 1]
        wearer.leg = k + 1
        if k + 2 == _POINTS:
            wearer.mode = REST
            wearer.along_x = 0
            wearer.along_y = 0
        elif wearer.mode != WALK and 0 < k < _POINTS - 2 and left_m > 0.0:
            u = uniform(wearer)
            wearer.pause_s = 40.0 * u if u < 0.5 else 0.0  # traffic lights, a bus stop


@njit(nogil=True, cache=True)
def _crawl(wearer: Any, place: Any) -> None:
    """Drive slowly along one lane, bumper to bumper, with a halt half way at most."""
    middle = 0.5 * (wearer.x + place.x)
    wearer.way_y[:] = place.y
    wearer.way_x[1] = wearer.x
    wearer.way_x[2] = middle
    wearer.way_x[3] = middle
    wearer.way_x[4] = place.x
    wearer.mode = CAR
    wearer.speed_mps = 2.0 + 3.0 * uniform(wearer)


@njit(nogil=True, cache=True)
def _surroundings(wearer: Any, walls: int, streets: Any) -> int:
    """What stands around the antenna, one of AROUND."""
    if wearer.garage_s > 0.0:
        return AROUND_GARAGE
    if wearer.mode == REST:
        if walls == HOUSE:
            return AROUND_HOUSE
        if walls == APARTMENT:
            return AROUND_APARTMENT
        if walls == BIG_BUILDING:
            return AROUND_BIG_BUILDING
    block = streets.block_m
    # an underpass below downtown
    if abs(wearer.x - 2 * block) < 1.0 and -3 * block < wearer.y < -block:
        return AROUND_TUNNEL
    out_m2 = wearer.x * wearer.x + wearer.y * wearer.y
    if out_m2 < streets.downtown_m * streets.downtown_m:
        return AROUND_CANYON
    if out_m2 > (0.8 * streets.half_m) ** 2:
        return AROUND_OPEN
    return AROUND_SUBURB


@njit(nogil=True, cache=True)
def move(
    now_s: int,
    elapsed_s: float,
    streets: NDArray[Any],
    places: NDArray[Any],
    agendas: NDArray[Any],
    wearers: NDArray[Any],
) -> None:
    """Move everyone on to ``now_s`` (UTC seconds).

    elapsed_s : since the last call
    streets   : STREETS (1,)
    places    : PLACE (p,)
    agendas   : AGENDA (n,)  ``at``, ``leave_s`` written
    wearers   : WEARER (n,)  written
    """
    for i in range(len(wearers)):
        wearer = wearers[i]
        agenda = agendas[i]
        wearer.foiled = agenda.foil_from_s <= now_s < agenda.foil_until_s
        if wearer.left_behind:
            # the wearer goes on, the device lies where it fell
            wearer.mode = REST
            while agenda.at + 1 < agenda.count and now_s >= agenda.leave_s[agenda.at]:
                agenda.at += 1
            continue
        wearer.garage_s = max(0.0, wearer.garage_s - elapsed_s)
        if wearer.mode == REST:
            if agenda.at + 1 < agenda.count and now_s >= agenda.leave_s[agenda.at]:
                agenda.at += 1
                depart(wearer, places[agenda.stop[agenda.at]], streets[0])
                if wearer.mode == CAR and places[agenda.stop[agenda.at - 1]].garage:
                    wearer.garage_s = wearer.pause_s = _OUT_OF_GARAGE_S
                if agenda.why[agenda.at] == WHY_TAILGATING:
                    _crawl(wearer, places[agenda.stop[agenda.at]])
        else:
            by_car = wearer.mode == CAR
            _advance(wearer, elapsed_s)
            if wearer.mode == REST:
                if by_car and places[agenda.stop[agenda.at]].garage:
                    wearer.garage_s = _INTO_GARAGE_S
                stay_until_s = now_s + agenda.stay_s[agenda.at]
                agenda.leave_s[agenda.at] = max(agenda.leave_s[agenda.at], stay_until_s)
        wearer.around = _surroundings(wearer, places[agenda.stop[agenda.at]].walls, streets[0])


def warm() -> None:
    """Compile this module's kernels."""
    none = np.zeros(0, PLACE), np.zeros(0, AGENDA), np.zeros(0, WEARER)
    settle(0, *none)
    move(0, 0.0, np.zeros(1, STREETS), *none)
    depart(np.zeros(1, WEARER)[0], np.zeros(1, PLACE)[0], np.ones(1, STREETS)[0])
