"""Where a receiver believes to be: errors with memory, walls, tunnels, networks, and lies.

The error of a GNSS fix is the sum of three parts, each for two axes:

- a first-order Gauss-Markov process (satellites, ionosphere, slow multipath). Rankin, "GPS and differential
  GPS: an error model for sensor simulation" (IEEE PLANS 1994), models it so, with minutes of correlation;
- near tall buildings a multipath bias that is drawn anew every minute or two;
- white noise of half a metre.

Scales, as the median of the horizontal error (for two normal axes 1.18 sigma), next to what was measured:

==============  =========  =====================================================================
surroundings    median     published
==============  =========  =====================================================================
open            about 4 m  GPS.gov: phones under open sky within 4.9 m (read as 68 %, sigma 3.2)
suburb          about 6 m  5.0 to 8.5 m: Zandbergen and Barbeau, Journal of Navigation 64, 2011
canyon          about 15   14 m, 95 % within 43 m, a wearable logger between tall buildings: Rainham
                           and others, International Journal of Health Geographics 7:59, 2008
Wi-Fi           about 70   74 m: Zandbergen, Transactions in GIS 13(s1), 2009
cell            about 600  600 m: the same
==============  =========  =====================================================================

What a house (about 12 m), an apartment or a big building does, how often a claim of accuracy lies, and how
often jamming happens are the authors' choices; scenarios change some of them.
"""

# ruff: noqa: PLR0917 (kernels take columns)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import njit

from firmware_sim._random import decay, exponential, normal, seed_streams, uniform
from firmware_sim.codec import NO_FIX, RECORD
from firmware_sim.wearer import AROUND_GARAGE, AROUND_TUNNEL, REST, WEARER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from firmware_sim.city import City

__all__ = ["GNSS", "MAP", "map_of", "new_receivers", "observe", "restart", "warm"]

# Rows: open, suburb, canyon, house, apartment, big building, tunnel, garage (see wearer.AROUND).
_SIGMA_M: Final = np.array([3.2, 4.8, 9.0, 10.0, 16.0, 25.0, 25.0, 25.0])  # of each axis
_MEMORY_S: Final = np.array([240.0, 180.0, 90.0, 600.0, 600.0, 600.0, 600.0, 600.0])
_MULTIPATH_M: Final = np.array([0.0, 1.0, 12.0, 2.0, 5.0, 8.0, 0.0, 0.0])  # mean length of the bias
_FIX_SHARE: Final = np.array([0.998, 0.99, 0.94, 0.75, 0.45, 0.12, 0.0, 0.0])
_SATELLITES: Final = np.array([14.0, 12.0, 7.0, 7.0, 6.0, 5.0, 0.0, 0.0])
_WIFI_SHARE: Final = np.array([0.1, 0.6, 0.7, 0.85, 0.9, 0.8, 0.0, 0.25])  # when there is no GNSS fix

_WHITE_M: Final = 0.5
_R68: Final = 1.51  # 68 % radius of two normal axes, in sigma
_BIAS_HOLDS_S: Final = 90.0
_COLD_START_S: Final = 45.0  # to first fix, mean
_WARM_UP_S: Final = 60.0  # the first fixes are up to three times as wrong
_WIFI_BIAS_M: Final = 52.0  # of each axis; shared by all fixes from one spot, so it never averages out
_WIFI_JITTER_M: Final = 25.0
_SPOT_M: Final = 60.0  # a network fix is cached until the receiver has moved so far
_CACHED_SHARE: Final = 0.9
_SPOOF_S: Final = 900.0
_JAM_S: Final = 1200.0
_DAY_S: Final = 86_400.0

_GNSS_SOURCE: Final = 0
_WIFI_SOURCE: Final = 1
_CELL_SOURCE: Final = 2
_JAMMING_BIT: Final = 1 << 5

GNSS: Final = np.dtype(
    [
        ("rng", "u8"),
        ("seen_s", "f8"),  # time of the last observation
        ("error_x", "f8"),  # Gauss-Markov, in units of sigma, so that it carries over between surroundings
        ("error_y", "f8"),
        ("bias_x", "f8"),  # multipath, in units of its mean length
        ("bias_y", "f8"),
        ("bias_until_s", "f8"),
        ("ready_s", "f8"),  # the cold start ends
        ("jam_until_s", "f8"),
        ("spoof_until_s", "f8"),
        ("spoof_x", "f8"),  # where the spoofer says we are
        ("spoof_y", "f8"),
        ("net_source", "u1"),
        ("net_x", "f8"),  # the cached network fix
        ("net_y", "f8"),
        ("net_accuracy_m", "f8"),
        ("spot_x", "f8"),  # where it was taken
        ("spot_y", "f8"),
        ("spot_bias_x", "f8"),
        ("spot_bias_y", "f8"),
    ]
)

# The mapping onto degrees, the scenario's sky, and the grid of towers.
MAP: Final = np.dtype(
    [
        ("lon", "f8"),
        ("lat", "f8"),
        ("metres_per_lon", "f8"),
        ("metres_per_lat", "f8"),
        ("error_scale", "f8"),
        ("overconfident", "f8"),
        ("dishonest_cell", "f8"),
        ("jam_per_s", "f8"),
        ("spoof_per_s", "f8"),
        ("tower_pitch_m", "f8"),
    ]
)


def new_receivers(count: int, seed: int) -> NDArray[Any]:
    """Receivers that have been running for long: GNSS (count,)."""
    receivers = np.zeros(count, GNSS)
    receivers["rng"] = seed_streams(seed, "gnss", count)
    receivers["spot_x"] = np.inf
    return receivers


def map_of(city: City) -> NDArray[Any]:
    """What `observe` needs to know of the city: MAP (1,)."""
    from firmware_sim.city import metres_per_degree  # noqa: PLC0415  (keeps kernels importable alone)

    plan, sky = city.scenario.city, city.scenario.sky
    per_lon, per_lat = metres_per_degree(plan.lat)
    return np.array(
        [
            (
                plan.lon,
                plan.lat,
                per_lon,
                per_lat,
                sky.error_scale,
                sky.overconfident,
                sky.dishonest_cell,
                sky.jamming / _DAY_S,
                sky.spoofing / _DAY_S,
                city.tower_pitch_m,
            )
        ],
        MAP,
    )


@njit(nogil=True, cache=True)
def restart(receiver: Any, now_s: float) -> None:
    """A cold start: no fix until the almanac is in, and wrong ones for a minute after."""
    receiver.ready_s = now_s + 0.5 * _COLD_START_S * (1.0 + exponential(receiver))


@njit(nogil=True, cache=True)
def _drift(receiver: Any, around: int, elapsed_s: float, now_s: float) -> None:
    """Let the errors of the sky move on."""
    keep = decay(elapsed_s / _MEMORY_S[around])
    fresh = np.sqrt(1.0 - keep * keep)
    receiver.error_x = keep * receiver.error_x + fresh * normal(receiver)
    receiver.error_y = keep * receiver.error_y + fresh * normal(receiver)
    if now_s >= receiver.bias_until_s:
        receiver.bias_until_s = now_s + _BIAS_HOLDS_S * exponential(receiver)
        a, b = normal(receiver), normal(receiver)
        length = exponential(receiver) / max(np.sqrt(a * a + b * b), 1e-3)
        receiver.bias_x = a * length
        receiver.bias_y = b * length


@njit(nogil=True, cache=True)
def _network(receiver: Any, wearer: Any, sky: Any, tower_xy: Any, source: int) -> None:
    """Take a Wi-Fi or cell fix into the cache, unless the cached one still serves."""
    moved_x, moved_y = wearer.x - receiver.spot_x, wearer.y - receiver.spot_y
    new_spot = not (moved_x * moved_x + moved_y * moved_y < _SPOT_M * _SPOT_M)
    u = uniform(receiver)
    if not new_spot and source == receiver.net_source and u < _CACHED_SHARE:
        return
    if new_spot:
        receiver.spot_x, receiver.spot_y = wearer.x, wearer.y
        receiver.spot_bias_x = _WIFI_BIAS_M * normal(receiver)
        receiver.spot_bias_y = _WIFI_BIAS_M * normal(receiver)
    receiver.net_source = source
    if source == _WIFI_SOURCE:
        receiver.net_x = wearer.x + receiver.spot_bias_x + _WIFI_JITTER_M * normal(receiver)
        receiver.net_y = wearer.y + receiver.spot_bias_y + _WIFI_JITTER_M * normal(receiver)
        receiver.net_accuracy_m = 40.0 + 80.0 * uniform(receiver)
        return
    towers = len(tower_xy)
    column = int(np.floor(wearer.x / sky.tower_pitch_m + 0.5)) + towers // 2
    row = int(np.floor(wearer.y / sky.tower_pitch_m + 0.5)) + towers // 2
    u = uniform(receiver)
    if u < 0.35:  # the nearest tower is busy, or behind a house
        column += 1 if u < 0.0875 else -1 if u < 0.175 else 0
        row += 1 if 0.175 <= u < 0.2625 else -1 if u >= 0.2625 else 0
    column = min(max(column, 0), towers - 1)
    row = min(max(row, 0), towers - 1)
    receiver.net_x = tower_xy[column, row, 0]
    receiver.net_y = tower_xy[column, row, 1]
    off_x, off_y = receiver.net_x - wearer.x, receiver.net_y - wearer.y
    if uniform(receiver) < sky.dishonest_cell:
        receiver.net_accuracy_m = max(30.0, 0.2 * np.sqrt(off_x * off_x + off_y * off_y))
    else:
        receiver.net_accuracy_m = (0.5 + 0.6 * uniform(receiver)) * sky.tower_pitch_m


@njit(nogil=True, cache=True)
def observe(
    now_s: int,
    due: NDArray[np.int32],
    phase_ms: NDArray[np.int32],
    sky: NDArray[Any],
    tower_xy: NDArray[np.float64],
    wearers: NDArray[Any],
    receivers: NDArray[Any],
    records: NDArray[Any],
) -> None:
    """Take one position with each receiver that is due.

    now_s     : UTC seconds of the tick
    due       : int32 (m,)  devices that take one, ascending
    phase_ms  : int32 (n,)  each device's own moment after the tick
    sky       : MAP (1,)
    tower_xy  : float64 (g, g, 2)
    wearers   : WEARER (n,)
    receivers : GNSS (n,)    written
    records   : RECORD (m,)  position, accuracy, speed, heading, altitude, satellites, and of the status
    source and
                             jamming are written
    """
    world = sky[0]
    for j in range(len(due)):
        i = due[j]
        wearer = wearers[i]
        receiver = receivers[i]
        out = records[j]
        time_s = now_s + 0.001 * phase_ms[i]
        elapsed_s = max(time_s - receiver.seen_s, 0.0)
        receiver.seen_s = time_s
        around = wearer.around
        _drift(receiver, around, elapsed_s, time_s)

        chance_s = min(elapsed_s, 600.0)  # what happened in a long silence is over
        if uniform(receiver) < world.jam_per_s * chance_s:
            receiver.jam_until_s = time_s + _JAM_S * exponential(receiver)
        if uniform(receiver) < world.spoof_per_s * chance_s:
            receiver.spoof_until_s = time_s + _SPOOF_S * exponential(receiver)
            receiver.spoof_x = wearer.x + 4000.0 * normal(receiver)
            receiver.spoof_y = wearer.y + 4000.0 * normal(receiver)
        jammed = time_s < receiver.jam_until_s
        spoofed = time_s < receiver.spoof_until_s and not jammed

        out.lat_e7 = NO_FIX
        out.lon_e7 = NO_FIX
        out.accuracy_dm = 65535
        out.speed_cmps = 65535
        out.heading_cdeg = 65535
        out.altitude_m = -32768
        out.satellites = 0
        out.status = _JAMMING_BIT if jammed else 0
        below = around in (AROUND_TUNNEL, AROUND_GARAGE)
        caught = uniform(receiver) < _FIX_SHARE[around] or (spoofed and not below)
        if wearer.foiled:
            continue
        if caught and not jammed and time_s >= receiver.ready_s:
            young = 1.0 + 2.0 * max(0.0, 1.0 - (time_s - receiver.ready_s) / _WARM_UP_S) * (
                receiver.ready_s > 0.0
            )
            sigma_m = _SIGMA_M[around] * world.error_scale * young
            multipath_m = _MULTIPATH_M[around] * world.error_scale
            off_x = sigma_m * receiver.error_x + multipath_m * receiver.bias_x + _WHITE_M * normal(receiver)
            off_y = sigma_m * receiver.error_y + multipath_m * receiver.bias_y + _WHITE_M * normal(receiver)
            # a receiver knows its geometry and its noise, of multipath it knows half
            spread_m = np.sqrt(sigma_m * sigma_m + 0.5 * multipath_m * multipath_m)
            accuracy_m = _R68 * spread_m * (0.75 + 0.6 * uniform(receiver))
            if uniform(receiver) < world.overconfident:
                a, b = normal(receiver), normal(receiver)
                length_m = (150.0 + 100.0 * uniform(receiver)) / max(np.sqrt(a * a + b * b), 1e-3)
                off_x += a * length_m
                off_y += b * length_m
                accuracy_m = 2.0 + 3.0 * uniform(receiver)
            x, y = wearer.x, wearer.y
            if spoofed:
                x, y = receiver.spoof_x, receiver.spoof_y
                accuracy_m = 3.0
            x += off_x
            y += off_y
            speed_mps = wearer.speed_mps if wearer.mode != REST and wearer.pause_s <= 0.0 else 0.0
            out.speed_cmps = int(100.0 * abs(speed_mps + 0.2 * normal(receiver)))
            if speed_mps > 0.5:
                heading = 0.0 if wearer.along_y > 0 else 180.0
                if wearer.along_x != 0:
                    heading = 90.0 if wearer.along_x > 0 else 270.0
                out.heading_cdeg = int(100.0 * (heading + 3.0 * normal(receiver))) % 36000
            out.altitude_m = int(310.0 + 2.0 * sigma_m * receiver.error_x * 0.5 + 3.0 * normal(receiver))
            out.satellites = max(4, int(_SATELLITES[around] + 1.5 * normal(receiver)))
            source = _GNSS_SOURCE
        else:
            u = uniform(receiver)
            if below and u > 0.5:
                continue
            source = _WIFI_SOURCE if u < _WIFI_SHARE[around] else _CELL_SOURCE
            _network(receiver, wearer, world, tower_xy, source)
            x, y = receiver.net_x, receiver.net_y
            accuracy_m = receiver.net_accuracy_m
        out.lat_e7 = int(np.floor((world.lat + y / world.metres_per_lat) * 1e7 + 0.5))
        out.lon_e7 = int(np.floor((world.lon + x / world.metres_per_lon) * 1e7 + 0.5))
        out.accuracy_dm = min(int(10.0 * accuracy_m + 0.5), 65534)
        out.status |= source << 8


def warm() -> None:
    """Compile this module's kernels."""
    receivers = np.zeros(1, GNSS)
    restart(receivers[0], 0.0)
    observe(
        0,
        np.zeros(0, np.int32),
        np.zeros(0, np.int32),
        np.zeros(1, MAP),
        np.zeros((1, 1, 2)),
        np.zeros(0, WEARER),
        receivers,
        np.zeros(0, RECORD),
    )
