"""ZoneSet: the zones, and the questions that can be asked of them. The one gate into the kernels."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from geofence._kernels import pairs
from geofence.cellindex import CellIndex
from geofence.columns import ZoneColumns
from geofence.errors import PingError, ZoneError
from geofence.nearindex import NearIndex
from geofence.table import ZoneTable
from geofence.units import E7, MAX_LON_E7, NO_FIX, QUARTER_TURN_E7
from geofence.zones import read_features, read_zones

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["ZoneSet"]

MIN_NEAR_MM: Final = 64_000
MAX_REACH_MM: Final = 2_000_000_000


class ZoneSet:
    """An immutable set of zones.

    Positions are degrees in the methods that design names (``covering``, ``signed_distance``) and int32
    counts
    of 1e-7 degree in the others. A zone's border counts as inside; ``buffer_m`` enlarges a zone by distance.
    Distances are signed, negative inside.

    >>> zones = ZoneSet.from_geojson({"type": "Feature", "properties": {"id": "home", "radius_m": 150},
    ...                               "geometry": {"type": "Point", "coordinates": [-80.84, 35.22]}})
    >>> zones.covering([-80.84, -80.80], [35.2201, 35.22]).tolist()
    [[0], [0]]
    """

    def __init__(self, table: ZoneTable) -> None:
        self._table = table
        self._near: dict[int, NearIndex] = {}

    @classmethod
    def from_geojson(cls, source: object) -> Self:
        """Zones of a path, a directory of ``*.geojson``, a list of paths, a Feature or a FeatureCollection.

        Raises ZoneError, which lists every zone that can't be used.
        """
        return cls(ZoneTable.of(read_zones(read_features(source))))

    @property
    def ids(self) -> list[str]:
        """The zones' ids; a zone's index is its place here."""
        return self._table.ids

    @cached_property
    def layers(self) -> dict[str, NDArray[np.int32]]:
        """Indices of the zones of each layer."""
        return {
            name: np.flatnonzero(self._table.layer == code).astype(np.int32)
            for code, name in enumerate(self._table.layer_names)
            if (self._table.layer == code).any()
        }

    @property
    def warnings(self) -> list[str]:
        """What was cleaned at load, for people."""
        return self._table.warnings

    def __len__(self) -> int:
        return len(self._table)

    def index(self, zone_id: str) -> int:
        """The index of a zone; KeyError when the set has no such zone."""
        try:
            return self._number[zone_id]
        except KeyError:
            raise KeyError(f"no zone has the id {zone_id!r}") from None

    @cached_property
    def _number(self) -> dict[str, int]:
        return {zone_id: i for i, zone_id in enumerate(self._table.ids)}

    @cached_property
    def _columns(self) -> ZoneColumns:
        return ZoneColumns.of(self._table)

    @cached_property
    def _index(self) -> CellIndex:
        return CellIndex.of(self._columns)

    @cached_property
    def _sides(self) -> CellIndex:
        """The index of polygons without their buffers; the same as ``_index`` where no polygon has one."""
        buffered = self._columns.is_area & (self._columns.reach_mm > 0)
        return CellIndex.of(self._columns.without_reach()) if buffered.any() else self._index

    def _near_index(self, reach_mm: int) -> NearIndex:
        """The index for pairs within reach; one serves all reaches up to the next power of two metres."""
        serves_mm = max(MIN_NEAR_MM, 1000 << max(0, (reach_mm - 1) // 1000).bit_length())
        index = self._near.get(serves_mm)
        if index is None:
            index = self._near[serves_mm] = NearIndex.of(self._columns, self._sides, serves_mm)
        return index

    def covering(self, lon: ArrayLike, lat: ArrayLike) -> NDArray[np.int64]:
        """Which zones cover which pings: int64 (2, m), ping index and zone index, sorted by ping, then zone.

        lon, lat: degrees; NaN means no fix, which no zone covers.
        """
        return self.covering_e7(*_grid(lon, lat))

    def covering_e7(self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32]) -> NDArray[np.int64]:
        """``covering`` of positions in 1e-7 degree (both INT32_MIN: no fix)."""
        lon_e7, lat_e7 = _int32(lon_e7, lat_e7)
        return self._index.cover(lon_e7, lat_e7)

    def signed_distance(self, lon: ArrayLike, lat: ArrayLike, zone: ArrayLike) -> NDArray[np.float64]:
        """Metres to the border of zone[i] from position i, negative inside; NaN where there is no fix."""
        lon_e7, lat_e7 = _grid(lon, lat)
        return self._distances(lon_e7, lat_e7, zone)[0]

    def distance_mm(
        self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32], zone: ArrayLike
    ) -> NDArray[np.int32]:
        """``signed_distance`` in whole millimetres, the same on every machine.

        0 or less exactly where the zone covers the position; saturates at +-2,000,000,000 (2,000 km), which
        also stands
        where there is no fix.
        """
        lon_e7, lat_e7 = _int32(lon_e7, lat_e7)
        return self._distances(lon_e7, lat_e7, zone)[1]

    def near(
        self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32], reach_mm: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """All pairs no farther apart than ``reach_mm``: ping, zone, signed distance in mm; by ping, then
        zone.
        """
        lon_e7, lat_e7 = _int32(lon_e7, lat_e7)
        if not 0 <= reach_mm <= MAX_REACH_MM:
            raise PingError(f"reach_mm is {reach_mm}; it must lie within 0..{MAX_REACH_MM} (2,000 km)")
        inside = self._sides.cover(lon_e7, lat_e7)
        return self._near_index(int(reach_mm)).near(lon_e7, lat_e7, int(reach_mm), inside)

    def crossing(
        self,
        lon_a: NDArray[np.int32],
        lat_a: NDArray[np.int32],
        lon_b: NDArray[np.int32],
        lat_b: NDArray[np.int32],
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The zones that each straight track a->b touches: track, zone; by track, then zone. All in 1e-7
        degree.
        """
        lon_a, lat_a, lon_b, lat_b = _int32(lon_a, lat_a, lon_b, lat_b)
        track, zone = self._index.candidates(lon_a, lat_a, lon_b, lat_b)
        touch = np.empty(len(track), np.bool_)
        pairs.tracks_touch(
            lon_a,
            lat_a,
            lon_b,
            lat_b,
            track,
            zone,
            self._columns.for_distance,
            self._columns.poles,
            self._sides.lookup,
            touch,
        )
        return track[touch], zone[touch].astype(np.int32)

    def with_zones(self, features: object) -> Self:
        """A set with more zones at its end. features: as for ``from_geojson``. An id may not be there
        already.
        """
        added = read_zones(read_features(features), taken=self._number)
        return type(self)(ZoneTable.concat([self._table, ZoneTable.of(added)]))

    def without(self, ids: Iterable[str]) -> Self:
        """A set without some zones; the others keep their order. KeyError when one is not there."""
        gone = {self.index(zone_id) for zone_id in ids}
        return self.select(np.array([i for i in range(len(self)) if i not in gone], np.int64))

    def select(self, indices: ArrayLike) -> Self:
        """A set of the zones at these indices, in this order; each at most once."""
        chosen = np.asarray(indices, np.int64).reshape(-1)
        if len(np.unique(chosen)) < len(chosen):
            raise ZoneError([("?", "select was given an index twice; give each zone once")])
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"zone indices must lie within 0..{len(self) - 1}")
        return type(self)(self._table.take(chosen))

    def to_geojson(self) -> dict[str, Any]:
        """A FeatureCollection of the zones as they stand after cleaning; loads again as an equal set."""
        return {"type": "FeatureCollection", "features": list(self._table.features())}

    def _distances(
        self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32], zone: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        zones = np.ascontiguousarray(zone, np.int32)
        if zones.shape != lon_e7.shape:
            raise PingError(
                f"zone has shape {zones.shape}, positions {lon_e7.shape}; give one zone for each position"
            )
        if len(zones) and (zones.min() < 0 or zones.max() >= len(self)):
            raise IndexError(f"zone indices must lie within 0..{len(self) - 1}")
        metres = np.empty(len(zones), np.float64)
        mm = np.empty(len(zones), np.int32)
        pairs.pair_distances(
            lon_e7,
            lat_e7,
            zones,
            self._columns.for_distance,
            self._columns.poles,
            self._sides.lookup,
            metres,
            mm,
        )
        return metres, mm


def _grid(lon: ArrayLike, lat: ArrayLike) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Degrees on the grid; NaN becomes "no fix", a value out of range is an error."""
    x = np.asarray(lon, np.float64) * E7
    y = np.asarray(lat, np.float64) * E7
    if x.ndim != 1 or x.shape != y.shape:
        raise PingError(
            f"lon has shape {x.shape}, lat {y.shape}; both must be one-dimensional and equally long"
        )
    none = np.isnan(x) | np.isnan(y)
    wrong = ~none & ~((np.abs(x) <= MAX_LON_E7) & (np.abs(y) <= QUARTER_TURN_E7))
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        raise PingError(
            f"position {i} is longitude {x[i] / E7:g}, latitude {y[i] / E7:g}; longitude must lie within "
            "+-214 degrees, latitude within +-90; use NaN where there is no fix"
        )
    x = np.where(none, NO_FIX, np.rint(x))
    y = np.where(none, NO_FIX, np.rint(y))
    return x.astype(np.int32), y.astype(np.int32)


def _int32(*columns: NDArray[np.int32]) -> tuple[NDArray[np.int32], ...]:
    """Columns that a kernel may read: int32, contiguous, equally long."""
    for column in columns:
        if column.dtype != np.int32 or column.shape != columns[0].shape or column.ndim != 1:
            raise PingError(
                f"positions are {column.dtype}{column.shape}; they must be int32 columns of "
                "1e-7 degree, equally long"
            )
    return tuple(np.ascontiguousarray(c) for c in columns)
