"""A block of zones: a table, and what is derived from it when it is first asked. Immutable."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from geofence._kernels import pairs
from geofence.cellindex import CellIndex
from geofence.columns import ZoneColumns
from geofence.nearindex import NearIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence.table import ZoneTable

__all__ = ["Block"]

MIN_NEAR_MM: Final = 64_000


class Block:
    """Zones that are indexed together; zones are counted from 0 in it.

    Positions are int32 counts of 1e-7 degree, contiguous and equally long: ``ZoneSet`` sees to that.
    """

    def __init__(self, table: ZoneTable) -> None:
        self.table = table
        self._near: dict[int, NearIndex] = {}
        self._building = threading.Lock()

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def number(self) -> dict[str, int]:
        """The number of each id."""
        return {zone_id: i for i, zone_id in enumerate(self.table.ids)}

    @cached_property
    def columns(self) -> ZoneColumns:
        """What the kernels read."""
        return ZoneColumns.of(self.table)

    @cached_property
    def index(self) -> CellIndex:
        """The index of what the zones cover, buffers included."""
        return CellIndex.of(self.columns)

    @cached_property
    def sides(self) -> CellIndex:
        """The index of polygons without their buffers; the same as ``index`` where no polygon has one."""
        buffered = self.columns.is_area & (self.columns.reach_mm > 0)
        return CellIndex.of(self.columns.without_reach()) if buffered.any() else self.index

    def near_index(self, reach_mm: int) -> NearIndex:
        """The index for pairs within reach; one serves all reaches up to the next power of two metres."""
        serves_mm = max(MIN_NEAR_MM, 1000 << max(0, (reach_mm - 1) // 1000).bit_length())
        with self._building:
            index = self._near.get(serves_mm)
            if index is None:
                index = self._near[serves_mm] = NearIndex.of(self.columns, self.sides, serves_mm)
        return index

    def covering(self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32]) -> NDArray[np.int64]:
        """int64 (2, m): ping and zone of each pair, by ping, then zone."""
        return self.index.cover(lon_e7, lat_e7)

    def near(
        self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32], reach_mm: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """All pairs no farther apart than ``reach_mm``: ping, zone, signed distance in mm; by ping, then
        zone.
        """
        inside = self.sides.cover(lon_e7, lat_e7)
        return self.near_index(reach_mm).near(lon_e7, lat_e7, reach_mm, inside)

    def crossing(
        self,
        lon_a: NDArray[np.int32],
        lat_a: NDArray[np.int32],
        lon_b: NDArray[np.int32],
        lat_b: NDArray[np.int32],
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The zones that each straight track a->b touches: track, zone; by track, then zone."""
        track, zone = self.index.candidates(lon_a, lat_a, lon_b, lat_b)
        touch = np.empty(len(track), np.bool_)
        pairs.tracks_touch(
            lon_a,
            lat_a,
            lon_b,
            lat_b,
            track,
            zone,
            self.columns.for_distance,
            self.columns.boxes,
            self.columns.poles,
            self.sides.lookup,
            touch,
        )
        return track[touch], zone[touch].astype(np.int32)

    def distances(
        self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32], zone: NDArray[np.int32]
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Signed distance of position i to zone[i] in metres (float64) and in whole millimetres (int32)."""
        metres = np.empty(len(zone), np.float64)
        mm = np.empty(len(zone), np.int32)
        pairs.pair_distances(
            lon_e7,
            lat_e7,
            zone,
            self.columns.for_distance,
            self.columns.poles,
            self.sides.lookup,
            metres,
            mm,
        )
        return metres, mm
