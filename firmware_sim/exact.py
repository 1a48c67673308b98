"""Distance to a zone, slowly and obviously: the truth's own geometry, shared with no engine.

A point's surroundings are flattened with the ellipsoid's own metres per degree at that point (for circles:
halfway to the centre). Over the few hundred metres that matter this differs from the geodesic by
millimetres.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from firmware_sim.city import metres_per_degree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from firmware_sim.city import Zone

__all__ = ["bounds", "signed_distance_m"]


def signed_distance_m(zone: Zone, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres from each point to the zone's edge, negative inside: float64 (n,) from degrees (n,)."""
    if zone.shape == "circle":
        lon_0, lat_0 = zone.lon_lat[0]
        per_lon, per_lat = metres_per_degree((lat + lat_0) / 2)
        return np.asarray(np.hypot((lon - lon_0) * per_lon, (lat - lat_0) * per_lat) - zone.radius_m)
    per_lon, per_lat = metres_per_degree(lat)
    # every vertex as seen from every point, metres: (n, k)
    x = (zone.lon_lat[None, :, 0] - lon[:, None]) * per_lon[:, None]
    y = (zone.lon_lat[None, :, 1] - lat[:, None]) * per_lat[:, None]
    if zone.shape == "corridor":
        return _to_segments_m(x[:, :-1], y[:, :-1], x[:, 1:], y[:, 1:]) - zone.radius_m
    x_next, y_next = np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)
    edge_m = _to_segments_m(x, y, x_next, y_next)
    # even-odd: edges that the ray to the east crosses
    straddles = (y > 0) != (y_next > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        at_x = x - y * (x_next - x) / (y_next - y)
    inside = (straddles & (at_x > 0)).sum(axis=1) % 2 == 1
    return np.asarray(np.where(inside, -edge_m, edge_m) - zone.buffer_m)


def bounds(zone: Zone, margin_m: float) -> tuple[float, float, float, float]:
    """A box in degrees around the zone, with a margin: west, south, east, north."""
    west, south = zone.lon_lat.min(axis=0)
    east, north = zone.lon_lat.max(axis=0)
    per_lon, per_lat = metres_per_degree(max(abs(south), abs(north)))
    reach_m = zone.radius_m + zone.buffer_m + margin_m
    return (
        float(west - reach_m / per_lon),
        float(south - reach_m / per_lat),
        float(east + reach_m / per_lon),
        float(north + reach_m / per_lat),
    )


def _to_segments_m(
    ax: NDArray[np.float64], ay: NDArray[np.float64], bx: NDArray[np.float64], by: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance from the origin to the nearest of each row's segments a-b: (n,) from (n, k)."""
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy
    share = np.clip(-(ax * dx + ay * dy) / np.where(length2 > 0, length2, 1.0), 0.0, 1.0)
    return np.asarray(np.hypot(ax + share * dx, ay + share * dy).min(axis=1))
