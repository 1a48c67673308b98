"""ZoneSet: the zones, and the questions that can be asked of them. The one gate into the kernels."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from geofence.block import Block
from geofence.compaction import Lineage
from geofence.errors import PingError, ZoneError
from geofence.parts import Part, Parts, appended, joined
from geofence.table import ZoneTable
from geofence.threads import in_slices
from geofence.units import E7, MAX_LON_E7, NO_FIX, QUARTER_TURN_E7
from geofence.zones import read_features, read_zones

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["ZoneSet"]

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

    def __init__(self, parts: Parts, warnings: tuple[str, ...] = (), lineage: Lineage | None = None) -> None:
        self._parts = parts
        self._warnings = warnings
        self._lineage = Lineage() if lineage is None else lineage

    @classmethod
    def from_geojson(cls, source: object) -> Self:
        """Zones of a path, a directory of ``*.geojson``, a list of paths, a Feature or a FeatureCollection.

        Raises ZoneError, which lists every zone that can't be used.
        """
        table = ZoneTable.of(read_zones(read_features(source)))
        block = Block(table)
        _ = block.number  # now, so that the first zone that is added does not pay for it
        return cls(Parts((Part(block),)), tuple(table.warnings))

    @cached_property
    def ids(self) -> list[str]:
        """The zones' ids; a zone's index is its place here."""
        return [zone_id for part in self._parts.parts for zone_id in part.ids]

    @cached_property
    def layers(self) -> dict[str, NDArray[np.int32]]:
        """Indices of the zones of each layer."""
        found: dict[str, list[NDArray[np.int64]]] = {}
        for part, first in zip(self._parts.parts, self._parts.first, strict=False):
            for name, ranks in part.layers.items():
                found.setdefault(name, []).append(ranks + first)
        return {name: np.concatenate(parts).astype(np.int32) for name, parts in found.items()}

    @property
    def warnings(self) -> list[str]:
        """What was cleaned at load, for people."""
        return list(self._warnings)

    def __len__(self) -> int:
        return len(self._parts)

    def index(self, zone_id: str) -> int:
        """The index of a zone; KeyError when the set has no such zone."""
        return self._parts.place(zone_id)

    @cached_property
    def whole(self) -> Block:
        """All zones in one block, in the set's order: for those who read columns and indices themselves.

        It is there already in a set that was loaded or selected; in one that was made by adding and taking
        out zones the first use joins the parts, which takes as long as building them.
        """
        return joined(self._parts.parts).block

    def _current(self) -> Parts:
        """The parts to ask, those joined meanwhile included."""
        self._parts = parts = self._lineage.newest(self._parts)
        return parts

    def covering(self, lon: ArrayLike, lat: ArrayLike, *, threads: int = 1) -> NDArray[np.int64]:
        """Which zones cover which pings: int64 (2, m), ping index and zone index, sorted by ping, then zone.

        lon, lat: degrees; NaN means no fix, which no zone covers. threads: at most so many share a large
        batch; the answer is the same.
        """
        return self.covering_e7(*_grid(lon, lat), threads=threads)

    def covering_e7(
        self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32], *, threads: int = 1
    ) -> NDArray[np.int64]:
        """``covering`` of positions in 1e-7 degree (both INT32_MIN: no fix)."""
        where = _int32(lon_e7, lat_e7)
        parts = self._current()
        if (block := parts.only_block) is not None and threads == 1:
            return block.covering(*where)

        def ask(lon: NDArray[np.int32], lat: NDArray[np.int32]) -> tuple[NDArray[Any], ...]:
            return self._merged((part.block.covering(lon, lat) for part in parts.parts), parts)

        return np.stack(in_slices(ask, where, threads, counts_rows=True))

    def signed_distance(
        self, lon: ArrayLike, lat: ArrayLike, zone: ArrayLike, *, threads: int = 1
    ) -> NDArray[np.float64]:
        """Metres to the border of zone[i] from position i, negative inside; NaN where there is no fix."""
        return self._distances(*_grid(lon, lat), zone, threads)[0]

    def distance_mm(
        self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32], zone: ArrayLike, *, threads: int = 1
    ) -> NDArray[np.int32]:
        """``signed_distance`` in whole millimetres, the same on every machine.

        0 or less exactly where the zone covers the position; saturates at +-2,000,000,000 (2,000 km), which
        also stands where there is no fix.
        """
        lon_e7, lat_e7 = _int32(lon_e7, lat_e7)
        return self._distances(lon_e7, lat_e7, zone, threads)[1]

    def near(
        self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32], reach_mm: int, *, threads: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """All pairs no farther apart than ``reach_mm``: ping, zone, signed distance in mm; by ping, then
        zone.
        """
        lon_e7, lat_e7 = _int32(lon_e7, lat_e7)
        if not 0 <= reach_mm <= MAX_REACH_MM:
            raise PingError(f"reach_mm is {reach_mm}; it must lie within 0..{MAX_REACH_MM} (2,000 km)")
        parts = self._current()
        if (block := parts.only_block) is not None and threads == 1:
            return block.near(lon_e7, lat_e7, int(reach_mm))

        def ask(lon: NDArray[np.int32], lat: NDArray[np.int32]) -> tuple[NDArray[Any], ...]:
            return self._merged((part.block.near(lon, lat, int(reach_mm)) for part in parts.parts), parts)

        ping, zone, distance_mm = in_slices(ask, (lon_e7, lat_e7), threads, counts_rows=True)
        return ping, zone.astype(np.int32), distance_mm.astype(np.int32)

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
        parts = self._current()
        if (block := parts.only_block) is not None:
            return block.crossing(lon_a, lat_a, lon_b, lat_b)
        found = [part.block.crossing(lon_a, lat_a, lon_b, lat_b) for part in parts.parts]
        track, zone = self._merged(found, parts)
        return track, zone.astype(np.int32)

    def with_zones(self, features: object) -> Self:
        """A set with more zones at its end. features: as for ``from_geojson``. An id may not be there
        already.

        What is there is shared, not built again: the cost is that of the new zones.
        """
        parts = self._current()
        added = ZoneTable.of(read_zones(read_features(features), taken=parts))
        return self._descendant(appended(parts, added), (*self._warnings, *added.warnings))

    def without(self, ids: Iterable[str]) -> Self:
        """A set without some zones; the others keep their order. KeyError when one is not there."""
        return self._descendant(self._current().without(ids), self._warnings)

    def select(self, indices: ArrayLike) -> Self:
        """A set of the zones at these indices, in this order; each at most once."""
        chosen = np.asarray(indices, np.int64).reshape(-1)
        if len(np.unique(chosen)) < len(chosen):
            raise ZoneError([("?", "select was given an index twice; give each zone once")])
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"zone indices must lie within 0..{len(self) - 1}")
        parts = self._current()
        part, number = parts.locate(chosen)
        by_part = np.argsort(part, kind="stable")
        tables = [parts.parts[p].block.table.take(number[part == p]) for p in np.unique(part)]
        table = ZoneTable.concat(tables) if tables else ZoneTable.of([])
        if len(tables) > 1:
            table = table.take(np.argsort(by_part))
        return type(self)(Parts((Part(Block(table)),)))

    def _descendant(self, parts: Parts, warnings: tuple[str, ...]) -> Self:
        self._lineage.consider(parts)
        return type(self)(parts, warnings, self._lineage)

    def to_geojson(self) -> dict[str, Any]:
        """A FeatureCollection of the zones as they stand after cleaning; loads again as an equal set."""
        features = [feature for part in self._parts.parts for feature in part.table.features()]
        return {"type": "FeatureCollection", "features": features}

    def _merged(self, found: Iterable[Iterable[NDArray[Any]]], parts: Parts) -> tuple[NDArray[np.int64], ...]:
        """What the parts found, as one: by ping, then by the zone's place in the set.

        found : of each part its columns: ping, the zone's number in the block, others
        """
        first = 0
        shifted: list[tuple[NDArray[Any], ...]] = []
        for columns, part in zip(found, parts.parts, strict=True):
            ping, number, *others = columns
            if len(part.gone):
                left = ~part.is_gone(number)
                ping, number, *others = (column[left] for column in (ping, number, *others))
            shifted.append((ping, part.rank(number.astype(np.int64)) + first, *others))
            first += len(part)
        merged: tuple[NDArray[Any], ...] = tuple(np.concatenate(c) for c in zip(*shifted, strict=True))
        if sum(len(ping) > 0 for ping, *_ in shifted) > 1:
            order = np.argsort(merged[0], kind="stable")  # parts are in order: zones follow
            merged = tuple(column[order] for column in merged)
        return merged

    def _distances(
        self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32], zone: ArrayLike, threads: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        zones = np.ascontiguousarray(zone, np.int32)
        if zones.shape != lon_e7.shape:
            raise PingError(
                f"zone has shape {zones.shape}, positions {lon_e7.shape}; give one zone for each position"
            )
        if len(zones) and (zones.min() < 0 or zones.max() >= len(self)):
            raise IndexError(f"zone indices must lie within 0..{len(self) - 1}")
        parts = self._current()
        metres, mm = in_slices(parts.distances, (lon_e7, lat_e7, zones), threads, counts_rows=False)
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
