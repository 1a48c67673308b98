"""The cell index of a set of zones. docs/geometry.md explains it with pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence._kernels import nodes, raster
from geofence._kernels.cover import beyond, cover
from geofence._kernels.lists import NODE_BITS, sort_entries
from geofence._kernels.walk import walk_tracks
from geofence.pieces import NORTH, SOUTH
from geofence.units import E7, HALF_TURN_E7, QUARTER_TURN_E7

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence.columns import ZoneColumns

__all__ = ["CellIndex", "fit_grid"]

# 1 MB of words where zones are: every ping there reads one of them, so they should stay in the second-level
# cache. With 2 MB counties and cities cost the same, one coast a quarter more.
MAX_CELLS: Final = 1 << 18
MOST_CELLS: Final = 1 << 22  # 16 MB, where most of the grid lies far from any zone and hardly a ping reads it
MIN_CELLS: Final = 1 << 10
OCCUPIED_BITS: Final = 7  # a board of 128 by 128 fields tells how much of their common box zones are in
CELLS_PER_EDGE: Final = 64  # a small set needs no large grid: most of its cells would be empty
MIN_SHIFT: Final = 5  # cells of 32 counts (0.4 m); smaller ones would not tell edges apart any better
MAX_LEVELS: Final = 8
MAX_BYTES: Final = 32 << 20  # beyond it, and BYTES_PER_EDGE for each edge, no cell is divided further
BYTES_PER_EDGE: Final = 64
# A set of few edges stops far earlier: 300 squares that overlap took 64 MB and 1.6 s to build without this,
# 2 MB and 0.08 s with it, and a ping the same 10 ns. Above 65,536 edges it is MAX_BYTES that counts.
MOST_BYTES_PER_EDGE: Final = 512
NODE_BYTES: Final = 64
BYTES_PER_TEST: Final = 32  # about what the records in a node take for each test that its cell asks for
WORTH_DIVIDING: Final = (0.5, 4.0, 16.0)  # by level: cells that ask for more tests of an edge than this
ALIAS_FROM: Final = (
    146 * E7
)  # a longitude this far from 0 has a second name, one turn away, within +-214 degrees
NO_ALIAS: Final = 1 << 62  # no ping is that far
MAX_COVERS: Final = 1 << 23  # (cell, zone) pairs in which a zone covers a cell; coarser cells keep below it


@dataclass(frozen=True, eq=False)
class CellIndex:
    """The index of some zones.

    columns       : the zones
    words         : int32, see geofence._kernels.lists
    grid          : kx, ky, col0, row0, cols, rows of the top grid
    alias_from    : pings this far from longitude 0 are looked up under their other longitude as well
    """

    columns: ZoneColumns
    words: NDArray[np.int32]
    grid: tuple[int, int, int, int, int, int]
    alias_from: int

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.words.nbytes

    @property
    def lookup(self) -> tuple[Any, ...]:
        """What geofence._kernels.sides takes."""
        return (self.words[: self.grid[4] * self.grid[5]], self.words, *self.grid)

    @classmethod
    def of(cls, columns: ZoneColumns) -> CellIndex:
        """Build the index of zones."""
        return _Builder(columns).build()

    def cover(self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32]) -> NDArray[np.int64]:
        """int64 (2, m): ping and zone of each pair, by ping, then zone. int32 positions, contiguous."""
        found = self._cover(lon_e7, lat_e7)
        if self.alias_from != NO_ALIAS:
            found = self._with_alias(lon_e7, lat_e7, found)
        if self.columns.poles.any():
            found = self._at_poles(lat_e7, found)
        return found

    def candidates(
        self,
        lon_a: NDArray[np.int32],
        lat_a: NDArray[np.int32],
        lon_b: NDArray[np.int32],
        lat_b: NDArray[np.int32],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The zones that straight tracks may touch: track, zone; by track, then zone. Looks at the cells on
        the way.
        """
        track, zone, used = walk_tracks(lon_a, lat_a, lon_b, lat_b, self.words, *self.grid)
        key = np.unique(track[:used] * len(self.columns.is_area) + zone[:used])
        at_pole = (np.abs(lat_a.astype(np.int64)) == QUARTER_TURN_E7) | (
            np.abs(lat_b.astype(np.int64)) == QUARTER_TURN_E7
        )
        polar = np.flatnonzero(self.columns.poles)
        if at_pole.any() and len(polar):
            more = np.flatnonzero(at_pole)[:, None] * len(self.columns.is_area) + polar[None, :]
            key = np.unique(np.concatenate([key, more.ravel()]))
        found: tuple[NDArray[np.int64], NDArray[np.int64]] = np.divmod(key, max(1, len(self.columns.is_area)))
        return found

    def _cover(self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32]) -> NDArray[np.int64]:
        n = len(lon_e7)
        room = np.empty((2, n + n // 4 + 64), np.int64)
        found, used = cover(lon_e7, lat_e7, 0, room, self.words, *self.grid, *self._columns_of_zones)
        pairs: NDArray[np.int64] = found[:, :used]
        return pairs

    @property
    def _columns_of_zones(self) -> tuple[NDArray[np.generic], ...]:
        """What cover() takes of the zones themselves."""
        edges, zone_edge, _, *others = self.columns.for_distance
        return (edges, zone_edge, *others)

    def _with_alias(
        self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32], found: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Look again under the other longitude of positions that have two within +-214 degrees."""
        far = beyond(lon_e7, self.alias_from)
        if not len(far):
            return found
        lon = lon_e7[far].astype(np.int64)
        other = np.where(lon > 0, lon - 2 * HALF_TURN_E7, lon + 2 * HALF_TURN_E7).astype(np.int32)
        again = self._cover(other, lat_e7[far])
        return _merged(found, np.stack([far[again[0]], again[1]]), len(self.columns.is_area))

    def _at_poles(self, lat_e7: NDArray[np.int32], found: NDArray[np.int64]) -> NDArray[np.int64]:
        """At a pole all longitudes are one place: every polygon that touches it covers it."""
        at_pole = beyond(lat_e7, QUARTER_TURN_E7)
        if not len(at_pole):
            return found
        touching = self.columns.poles[None, :] & np.where(lat_e7[at_pole] > 0, NORTH, SOUTH)[:, None]
        ping, zone = np.nonzero(touching)
        return _merged(found, np.stack([at_pole[ping], zone]), len(self.columns.is_area))


@dataclass(slots=True)
class _Level:
    """Cells of one size: see geofence._kernels.nodes."""

    entries: NDArray[np.int64]
    begins: NDArray[np.int64]
    where: NDArray[np.int64]
    corner: NDArray[np.int64]
    pool: NDArray[np.int32]

    def cost(self) -> NDArray[np.float64]:
        """float64 (cells,): what a ping in each costs beyond reading a word, in tests of an edge."""
        kind = self.entries[:, 2]
        tests = np.where(kind == raster.COVER, 0.0, np.where(kind == raster.EDGES, 1.0, 8.0))
        tests += np.maximum(self.entries[:, 4], 0)
        sums: NDArray[np.float64] = np.bincount(self.entries[:, 0], tests, len(self.where)).astype(np.float64)
        return sums

    def most_records(self) -> int:
        """How many records its words may need: a set for each cell, a chain and two sets more with edges."""
        return len(self.where) + 3 * int(np.count_nonzero(self.entries[:, 2] != raster.COVER))


class _Builder:
    def __init__(self, columns: ZoneColumns) -> None:
        self.columns = columns

    def build(self) -> CellIndex:
        c = self.columns
        if not len(c.zone_edge) - 1:
            return CellIndex(c, np.zeros(8, np.int32), (20, 20, 0, 0, 1, 1), NO_ALIAS)
        grid = self._grid()
        kx, ky, _, _, cols, rows = grid
        level = self._top(grid)
        words = np.zeros(cols * rows + 1024, np.int32)
        used = cols * rows
        table = np.zeros((1 << 12, 2), np.int64)
        most_bytes = min(MAX_BYTES, MOST_BYTES_PER_EDGE * len(c.edges)) + BYTES_PER_EDGE * len(c.edges)
        for depth in range(MAX_LEVELS):
            divisible = depth + 1 < MAX_LEVELS and min(kx, ky) - NODE_BITS >= MIN_SHIFT
            left = most_bytes - 4 * used if divisible else 0
            divided = _worth_dividing(level.cost(), depth, left)
            records = int(np.count_nonzero(table[:, 0])) + level.most_records()
            if 2 * records > len(table):
                table = nodes.rehash(table, 1 << (4 * records).bit_length())
            words, used = nodes.settle(
                level.entries,
                level.begins,
                level.where,
                divided,
                level.pool,
                c.edges,
                c.reach_mm,
                c.levels,
                c.zone_level,
                words,
                used,
                table,
            )
            if not divided.any():
                break
            kx, ky = kx - NODE_BITS, ky - NODE_BITS
            words, used, *parts = nodes.divide(
                level.entries,
                level.begins,
                level.where,
                level.corner,
                np.flatnonzero(divided),
                level.pool,
                c.edges,
                c.reach_mm,
                c.pieces,
                c.zone_piece,
                c.spheres,
                c.levels,
                c.zone_level,
                kx,
                ky,
                words,
                used,
            )
            level = _Level(*parts)
        return CellIndex(c, _in_lines(words[:used]), grid, _alias_from(c))

    def _grid(self) -> tuple[int, int, int, int, int, int]:
        """The top grid: over all that the zones cover."""
        c = self.columns
        west, south = c.boxes[:, :2].min(axis=0)
        east, north = c.boxes[:, 2:].max(axis=0)
        weight = len(c.edges) + 8 * int(np.count_nonzero(c.reach_mm))
        fits = min(int(MAX_CELLS / _occupied(c.boxes)), MOST_CELLS)
        most: int = min(max(MIN_CELLS, CELLS_PER_EDGE * weight), fits)
        while True:
            grid = fit_grid(int(west), int(south), int(east), int(north), most)
            if self._cover_estimate(grid) <= MAX_COVERS or most <= MIN_CELLS:
                return grid
            most //= 4

    def _cover_estimate(self, grid: tuple[int, int, int, int, int, int]) -> float:
        boxes = self.columns.boxes.astype(np.float64)
        wide = (boxes[:, 2] - boxes[:, 0]) / (1 << grid[0])
        high = (boxes[:, 3] - boxes[:, 1]) / (1 << grid[1])
        return float((wide * high).sum())

    def _top(self, grid: tuple[int, int, int, int, int, int]) -> _Level:
        c = self.columns
        kx, ky, col0, row0, cols, rows = grid
        areas, pool = raster.rasterise_areas(c.edges, np.flatnonzero(c.is_area), c.zone_edge, *grid)
        reaches = raster.rasterise_reaches(
            np.flatnonzero(c.reach_mm > 0).astype(np.int32),
            c.reach_mm,
            c.is_circle,
            c.pieces,
            c.zone_piece,
            c.spheres,
            c.levels,
            c.zone_level,
            *grid,
        )
        entries, begins = sort_entries(np.concatenate([areas, reaches]), cols * rows)
        where = np.flatnonzero(np.diff(begins))
        row, col = np.divmod(where, cols)
        corner = np.stack([(col + col0) << kx, (row + row0) << ky], axis=1)
        entries[:, 0] = np.repeat(np.arange(len(where)), np.diff(begins)[where])
        return _Level(entries, np.append(begins[where], len(entries)), where, corner, pool)


def _occupied(boxes: NDArray[np.int64]) -> float:
    """The share of the zones' common box in which zones are, roughly; those count that are no wider than half
    a turn, since the box of a zone on both sides of the antimeridian goes round the Earth.

    Pings come where zones are. The counties of the United States lie in a twentieth of their box, since the
    Aleutians and Samoa belong to them. With a grid as coarse as if they filled it, half of the pings had to
    read a node as well, and took a third longer.
    """
    fields = 1 << OCCUPIED_BITS
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    size = (high - low) // fields + 1
    narrow = boxes[boxes[:, 2] - boxes[:, 0] <= HALF_TURN_E7]
    first, end = (narrow[:, :2] - low) // size, (narrow[:, 2:] - low) // size + 1
    # how many boxes cover each field: their corners, summed up both ways
    stride = fields + 1
    corners = np.zeros(stride * stride, np.int64)
    for row, col, sign in ((first, first, 1), (first, end, -1), (end, first, -1), (end, end, 1)):
        corners += sign * np.bincount(row[:, 1] * stride + col[:, 0], minlength=stride * stride)
    zones = corners.reshape(stride, stride).cumsum(axis=0).cumsum(axis=1)
    return max(int(np.count_nonzero(zones)), 1) / fields**2


def _worth_dividing(cost: NDArray[np.float64], depth: int, bytes_left: int) -> NDArray[np.bool_]:
    """Which cells of a level get a node: the dearest first, as far as the bytes go."""
    worth = np.flatnonzero(cost > WORTH_DIVIDING[min(depth, len(WORTH_DIVIDING) - 1)])
    dearest = worth[np.argsort(-cost[worth], kind="stable")]
    chosen = np.zeros(len(cost), np.bool_)
    chosen[dearest[np.cumsum(NODE_BYTES + BYTES_PER_TEST * cost[dearest]) <= bytes_left]] = True
    return chosen


def _alias_from(c: ZoneColumns) -> int:
    """See CellIndex. Where no polygon reaches the antimeridian, only pings past it need a second look, and
    those only if a zone lies where they may mean it.
    """
    farthest = np.abs(c.boxes[:, [0, 2]]).max(axis=1)
    if (farthest[c.is_area] >= HALF_TURN_E7).any():
        return ALIAS_FROM
    return HALF_TURN_E7 + 1 if (farthest >= ALIAS_FROM).any() else NO_ALIAS


def _in_lines(words: NDArray[np.int32]) -> NDArray[np.int32]:
    """A copy whose first word begins a line of the cache, so that a node is one line; with room behind it to
    read past the last set.
    """
    room = np.zeros(len(words) + 32, np.int32)
    begin = -(room.ctypes.data // 4) % 16
    room[begin : begin + len(words)] = words
    return room[begin : begin + len(words) + 8]


def fit_grid(west: int, south: int, east: int, north: int, most: int) -> tuple[int, int, int, int, int, int]:
    """The finest grid of at most ``most`` cells over a box, with a free column and row around it."""
    for k in range(2 * MIN_SHIFT, 64):
        kx, ky = (k + 1) // 2, k // 2
        # (a box that begins on a line between cells touches the cell before it as well)
        col0, row0 = ((west - 1) >> kx) - 1, ((south - 1) >> ky) - 1
        cols, rows = (east >> kx) - col0 + 2, (north >> ky) - row0 + 2
        if cols * rows <= most:
            return kx, ky, col0, row0, cols, rows
    raise AssertionError("a grid of 2**32 wide cells holds everything")


def _merged(a: NDArray[np.int64], b: NDArray[np.int64], zones: int) -> NDArray[np.int64]:
    """Pairs of both, each once, by ping, then zone."""
    key = np.unique(np.concatenate([a[0] * zones + a[1], b[0] * zones + b[1]]))
    return np.stack(np.divmod(key, zones))
