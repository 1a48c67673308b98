"""What the engine asks the zones about a batch: private distances, zones in reach, tracks that touch.

Whatever is left unmeasured here is without effect on any decision; each kernel says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence._kernels import fixes
from geofence._kernels.layout import (
    own_counts,
    own_distances,
    questions,
    starts_of,
    tracks_in_question,
)
from geofence._kernels.pairs import tracks_touch, tracks_touch_circles
from geofence._kernels.world import Batch
from geofence.boxes import boxes_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence.block import Block
    from geofence.pings import Pings
    from geofence.plan import Plan
    from geofence.state import State
    from geofence.zoneset import ZoneSet

__all__ = ["Questions"]

# Fixes by error, mm, and how far around each the shared zones are measured: see stretch.reach_of.
_REACHES: Final = ((0, 20_000, 100_000), (20_000, 100_000, 500_000), (100_000, 1 << 31, 2_000_000))
_NONE: Final = np.zeros(0, np.int32)


class Questions:
    """The zones of one plan, made ready to be asked.

    Everything that has to be built is built here, when rules are loaded or adopted, and never in a batch.
    """

    def __init__(self, zones: ZoneSet, plan: Plan) -> None:
        self.zones = zones
        self.plan = plan
        self._boxes = boxes_of(zones)
        # Circles are measured from their boxes. Other private zones need pieces of borders and an index.
        drawn = [zone for zone in plan.private_zones() if not self._boxes["is_circle"][zone]]
        self._drawn = zones.select(drawn).whole
        self._number = np.full(len(zones), -1, np.int32)  # of each zone in ``_drawn``
        self._number[drawn] = np.arange(len(drawn))
        self._shared = zones.select(plan.shared).whole
        self._longest_us = int(plan.rules["cross_us"].max()) if len(plan.rules) else 0
        for block in (self._drawn, self._shared):
            _ = block.sides
        if len(plan.shared):
            for _, _, reach_mm in _REACHES:
                self._shared.near_index(reach_mm + plan.reach_offset_mm)

    def lay_out(self, pings: Pings, state: State) -> Batch:
        """Find out about each ping what the kernels need: fixes to believe, zones in reach, tracks.

        pings : sorted by device and time, none of them late
        state : the fields of fixes in ``devices`` move on
        """
        n = len(pings)
        bits = np.empty(n, np.uint8)
        error_mm, weight = np.empty(n, np.int32), np.empty(n, np.int32)
        from_lon, from_lat = np.empty(n, np.int32), np.empty(n, np.int32)
        gap_us = np.empty(n, np.int64)
        fixes.believe(
            pings.device,
            pings.fix_time_us,
            pings.lon_e7,
            pings.lat_e7,
            pings.accuracy_mm,
            pings.speed_cmps,
            pings.status,
            state.devices,
            bits,
            error_mm,
            weight,
            from_lon,
            from_lat,
            gap_us,
        )
        own_start = np.empty(n + 1, np.int64)
        own_mm = self._own_distances(pings, bits, error_mm, own_start, state)
        hit_start, hit_zone, hit_mm = hits = self._reach(pings, bits, error_mm)
        tracks = (bits, error_mm, from_lon, from_lat, gap_us)
        cut_start, cut_zone = self._cuts(pings, tracks, hits, state)
        return Batch(
            pings.device,
            pings.fix_time_us,
            pings.received_time_us,
            pings.boot,
            pings.seq,
            pings.lon_e7,
            pings.lat_e7,
            pings.status,
            pings.battery_pct,
            bits,
            error_mm,
            weight,
            from_lon,
            from_lat,
            gap_us,
            own_start,
            own_mm,
            hit_start,
            self.plan.shared[hit_zone],
            hit_mm,
            cut_start,
            cut_zone,
        )

    def touched(self, batch: Batch, ping: NDArray[np.int64], zone: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether the straight track that ends at ping[i] touches zone[i]."""
        touch = np.empty(len(ping), np.bool_)
        tracks = (batch.from_lon, batch.from_lat, batch.lon, batch.lat)
        tracks_touch_circles(*tracks, ping, zone, self._boxes, touch)
        drawn = np.flatnonzero(self._number[zone] >= 0)
        if len(drawn):
            touch[drawn] = _touched(
                self._drawn, tracks, ping[drawn], self._number[zone[drawn]].astype(np.int64)
            )
        return touch

    def _own_distances(
        self,
        pings: Pings,
        bits: NDArray[np.uint8],
        error_mm: NDArray[np.int32],
        own_start: NDArray[np.int64],
        state: State,
    ) -> NDArray[np.int32]:
        """Distances from each believed fix to the private zones of its device, in the order of the pairs."""
        m = own_counts(pings.device, bits, state.devices, own_start)
        own_mm, at = np.empty(m, np.int32), np.empty(m, np.int64)
        where = (pings.device, pings.lon_e7, pings.lat_e7)
        count = own_distances(
            *where,
            error_mm,
            own_start,
            state.devices,
            state.duties,
            state.pairs,
            self.plan.rules,
            self._boxes,
            own_mm,
            at,
        )
        if count:  # polygons and corridors that are near
            lon, lat, zone = (np.empty(count, np.int32) for _ in range(3))
            questions(*where, own_start, state.devices, state.pairs, at, count, lon, lat, zone)
            own_mm[at[:count]] = self._drawn.distances(lon, lat, self._number[zone])[1]
        return own_mm

    def _reach(
        self, pings: Pings, bits: NDArray[np.uint8], error_mm: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """The shared zones in reach of each believed fix: offsets, their numbers in the block, distances."""
        n = len(pings)
        if not len(self._shared):
            return np.zeros(n + 1, np.int64), _NONE, _NONE
        used = (bits & fixes.USED) != 0
        found: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        for low, high, reach_mm in _REACHES:
            which = np.flatnonzero(used & (error_mm > low) & (error_mm <= high))
            if len(which):
                ping, zone, distance = self._shared.near(
                    pings.lon_e7[which], pings.lat_e7[which], reach_mm + self.plan.reach_offset_mm
                )
                found.append((which[ping], zone, distance))
        if not found:
            return np.zeros(n + 1, np.int64), _NONE, _NONE
        ping, zone, distance = (np.concatenate(part) for part in zip(*found, strict=True))
        if len(found) > 1:
            order = np.argsort(ping, kind="stable")
            ping, zone, distance = ping[order], zone[order], distance[order]
        starts = np.empty(n + 1, np.int64)
        starts_of(ping, starts)
        return starts, zone, distance

    def _cuts(
        self,
        pings: Pings,
        tracks: tuple[NDArray[Any], ...],
        hits: tuple[NDArray[Any], ...],
        state: State,
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The shared zones that the straight track from the last believed fix touches: offsets, zones."""
        n = len(pings)
        starts = np.zeros(n + 1, np.int64)
        block = self._shared
        if not len(block):
            return starts, _NONE
        which = np.empty(n, np.int64)
        ping, zone = np.empty(len(hits[1]), np.int64), np.empty(len(hits[1]), np.int64)
        long, short = tracks_in_question(
            pings.device,
            pings.lon_e7,
            pings.lat_e7,
            *tracks,
            self._longest_us,
            *hits,
            self.plan.reach_offset_mm,
            state.devices,
            which,
            ping,
            zone,
        )
        if not long + short:
            return starts, _NONE
        ping, zone, which = ping[:short], zone[:short], which[:long]
        ends = (tracks[2], tracks[3], pings.lon_e7, pings.lat_e7)
        touch = _touched(block, ends, ping, zone)
        ping, zone = ping[touch], zone[touch]
        if long:
            track, crossed = block.crossing(*(column[which] for column in ends))
            ping = np.concatenate((ping, which[track]))
            zone = np.concatenate((zone, crossed))
            order = np.argsort(ping, kind="stable")  # the pings of the two differ
            ping, zone = ping[order], zone[order]
        starts_of(ping, starts)
        return starts, self.plan.shared[zone]


def _touched(
    block: Block, ends: tuple[NDArray[np.int32], ...], track: NDArray[np.int64], zone: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether track[i] touches zone[i] of the block. ends: longitudes and latitudes of a, then of b."""
    touch = np.empty(len(track), np.bool_)
    columns = block.columns
    lon_a, lat_a, lon_b, lat_b = ends
    tracks_touch(
        lon_a,
        lat_a,
        lon_b,
        lat_b,
        track,
        zone,
        columns.for_distance,
        columns.boxes,
        columns.poles,
        block.sides.lookup,
        touch,
    )
    return touch
