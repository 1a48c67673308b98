"""The cell index of a set of zones. docs/geometry.md explains it with pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence._kernels import lists as packing
from geofence._kernels import raster
from geofence._kernels.cover import cover
from geofence._kernels.lists import IS_GRID
from geofence._kernels.walk import walk_tracks
from geofence.pieces import NORTH, SOUTH
from geofence.units import E7, HALF_TURN_E7, NO_FIX, QUARTER_TURN_E7

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence.columns import ZoneColumns

__all__ = ["CellIndex", "fit_grid"]

MAX_CELLS: Final = 2 << 20  # 8 MB of words; beyond it a random read leaves the second-level cache
MIN_CELLS: Final = 1 << 10
CELLS_PER_EDGE: Final = 64  # a small set needs no large grid: most of its cells would be empty
MIN_SHIFT: Final = 7  # cells of 128 counts (1.4 m); smaller ones would not tell edges apart any better
HEAVY_WORDS: Final = 160  # lists longer than this get a grid of their own: 10 zones of 3 edges
MAX_DEPTH: Final = 6
MAX_NESTED_CELLS: Final = 1 << 16
ALIAS_FROM: Final = (
    146 * E7
)  # a longitude this far from 0 has a second name, one turn away, within +-214 degrees
MAX_COVERS: Final = 1 << 25  # (cell, zone) pairs in which a zone covers a cell; coarser cells keep below it


@dataclass(frozen=True, eq=False)
class CellIndex:
    """The index of some zones.

    columns       : the zones
    cells, lists  : int32, see geofence._kernels.lists
    grid          : kx, ky, col0, row0, cols, rows of the top grid
    past_180      : a polygon reaches the antimeridian or runs past it
    """

    columns: ZoneColumns
    cells: NDArray[np.int32]
    lists: NDArray[np.int32]
    grid: tuple[int, int, int, int, int, int]
    past_180: bool

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.cells.nbytes + self.lists.nbytes

    @property
    def lookup(self) -> tuple[Any, ...]:
        """What geofence._kernels.sides takes."""
        return (self.cells, self.lists, *self.grid)

    @classmethod
    def of(cls, columns: ZoneColumns) -> CellIndex:
        """Build the index of zones."""
        return _Builder(columns).build()

    def cover(self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32]) -> NDArray[np.int64]:
        """int64 (2, m): ping and zone of each pair, by ping, then zone. int32 positions, contiguous."""
        found = self._cover(lon_e7, lat_e7)
        if self.past_180:
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
        track, zone, used = walk_tracks(lon_a, lat_a, lon_b, lat_b, self.cells, self.lists, *self.grid)
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
        found, used = cover(lon_e7, lat_e7, 0, self.cells, self.lists, *self.grid, *self.columns.for_distance)
        pairs: NDArray[np.int64] = found[:, :used]
        return pairs

    def _with_alias(
        self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32], found: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Look again under the other longitude of positions that have two within +-214 degrees."""
        far = np.flatnonzero((np.abs(lon_e7.astype(np.int64)) >= ALIAS_FROM) & (lon_e7 != NO_FIX))
        if not len(far):
            return found
        lon = lon_e7[far].astype(np.int64)
        other = np.where(lon > 0, lon - 2 * HALF_TURN_E7, lon + 2 * HALF_TURN_E7).astype(np.int32)
        again = self._cover(other, lat_e7[far])
        return _merged(found, np.stack([far[again[0]], again[1]]), len(self.columns.is_area))

    def _at_poles(self, lat_e7: NDArray[np.int32], found: NDArray[np.int64]) -> NDArray[np.int64]:
        """At a pole all longitudes are one place: every polygon that touches it covers it."""
        at_pole = np.flatnonzero(np.abs(lat_e7.astype(np.int64)) == QUARTER_TURN_E7)
        if not len(at_pole):
            return found
        touching = self.columns.poles[None, :] & np.where(lat_e7[at_pole] > 0, NORTH, SOUTH)[:, None]
        ping, zone = np.nonzero(touching)
        return _merged(found, np.stack([at_pole[ping], zone]), len(self.columns.is_area))


@dataclass(frozen=True, slots=True)
class _Task:
    """A grid to build: where, and from what."""

    grid: tuple[int, int, int, int, int, int]
    areas: NDArray[np.int64]  # sources of raster.rasterise_areas
    pool: NDArray[np.int32]
    reaches: NDArray[np.int32]  # zones of raster.rasterise_reaches
    covers: NDArray[np.int64]  # zones that cover all of it
    parent: int  # the place of the word that points to it; -1: the top grid
    depth: int


class _Builder:
    def __init__(self, columns: ZoneColumns) -> None:
        self.columns = columns
        self.cells: list[NDArray[np.int32]] = []
        self.lists: list[NDArray[np.int32]] = []
        self.n_cells = 0
        self.n_words = 1  # word 0 is a guard, so that no list's place is 0
        self.lists.append(np.zeros(1, np.int32))

    def build(self) -> CellIndex:
        top = self._top()
        if top is None:
            nothing = np.zeros(1, np.int32)
            return CellIndex(self.columns, nothing, nothing, (20, 20, 0, 0, 1, 1), past_180=False)
        tasks = [top]
        links: list[tuple[int, int]] = []
        # The cells of a list grow with each nested grid; a budget keeps thousands of equal zones from
        # exploding.
        budget = 8 * MAX_CELLS + 64 * len(self.columns.edges)
        while tasks:
            task = tasks.pop()
            nested, word = self._grid(task, may_nest=self.n_cells < budget)
            tasks.extend(nested)
            if task.parent >= 0:
                links.append((task.parent, word))
        cells = np.concatenate(self.cells)
        for place, word in links:
            cells[place] = word
        reaches_180 = np.abs(self.columns.boxes[self.columns.is_area][:, [0, 2]]) >= HALF_TURN_E7
        past_180 = bool(reaches_180.any())
        return CellIndex(self.columns, cells, np.concatenate(self.lists), top.grid, past_180)

    def _top(self) -> _Task | None:
        c = self.columns
        if not len(c.zone_edge) - 1:
            return None
        areas = np.flatnonzero(c.is_area)
        reaches = np.flatnonzero(c.reach_mm > 0).astype(np.int32)
        west, south, east, north = self._extent()
        weight = len(c.edges) + 8 * len(reaches)
        most = min(max(MIN_CELLS, CELLS_PER_EDGE * weight), MAX_CELLS)
        grid = fit_grid(west, south, east, north, most)
        sizes = (c.zone_edge[1:] - c.zone_edge[:-1])[areas]
        sources = np.zeros((len(areas), 7), np.int64)
        sources[:, 0] = areas
        sources[:, 1] = np.cumsum(sizes) - sizes
        sources[:, 2] = sizes
        own = np.repeat(c.is_area, np.diff(c.zone_edge))
        pool = np.flatnonzero(own).astype(np.int32)
        while True:
            covers = self._cover_estimate(grid)
            if covers <= MAX_COVERS or most <= MIN_CELLS:
                break
            most //= 4
            grid = fit_grid(west, south, east, north, most)
        return _Task(grid, sources, pool, reaches, np.empty(0, np.int64), -1, 0)

    def _extent(self) -> tuple[int, int, int, int]:
        """The box of all that the grid must hold."""
        boxes = self.columns.boxes
        west, south = boxes[:, :2].min(axis=0)
        east, north = boxes[:, 2:].max(axis=0)
        return int(west), int(south), int(east), int(north)

    def _cover_estimate(self, grid: tuple[int, int, int, int, int, int]) -> float:
        boxes = self.columns.boxes.astype(np.float64)
        wide = (boxes[:, 2] - boxes[:, 0]) / (1 << grid[0])
        high = (boxes[:, 3] - boxes[:, 1]) / (1 << grid[1])
        return float((wide * high).sum())

    def _grid(self, task: _Task, *, may_nest: bool) -> tuple[list[_Task], int]:
        """Build one grid; returns the grids to build inside it, and the word that points to it."""
        c = self.columns
        kx, ky, _, _, cols, rows = task.grid
        n = cols * rows
        parts: list[NDArray[np.int64]] = []
        pool = np.empty(0, np.int32)
        if len(task.areas):
            entries, pool = raster.rasterise_areas(c.edges, task.pool, task.areas, *task.grid)
            parts.append(entries)
        if len(task.reaches):
            parts.append(
                raster.rasterise_reaches(
                    task.reaches,
                    c.reach_mm,
                    c.is_circle,
                    c.pieces,
                    c.zone_piece,
                    c.spheres,
                    c.levels,
                    c.zone_level,
                    *task.grid,
                )
            )
        if len(task.covers):
            inherited = np.zeros((n * len(task.covers), raster.ENTRY_COLUMNS), np.int64)
            inherited[:, 0] = np.repeat(np.arange(n), len(task.covers))
            inherited[:, 1] = np.tile(task.covers, n)
            parts.append(inherited)
        entries, begins = packing.sort_entries(
            np.concatenate(parts) if parts else np.empty((0, raster.ENTRY_COLUMNS), np.int64), n
        )
        may_nest = may_nest and task.depth < MAX_DEPTH and min(kx, ky) > MIN_SHIFT
        heavy = HEAVY_WORDS if may_nest else np.iinfo(np.int64).max
        cells, words, too_heavy = packing.pack(
            entries, begins, pool, c.edges, c.centres, c.reach_mm, self.n_words, heavy
        )
        first_cell = self.n_cells
        self.cells.append(cells)
        self.n_cells += n
        self.lists.append(words)
        self.n_words += len(words)
        word = 0
        if task.parent >= 0:
            word = (self.n_words << 2) | IS_GRID
            self.lists.append(
                np.array([first_cell, kx, ky, cols.bit_length() - 1, rows.bit_length() - 1], np.int32)
            )
            self.n_words += 5
        nested = [
            self._nested(task, int(cell), entries[begins[cell] : begins[cell + 1]], pool, first_cell)
            for cell in too_heavy
        ]
        return nested, word

    def _nested(
        self, task: _Task, cell: int, entries: NDArray[np.int64], pool: NDArray[np.int32], first_cell: int
    ) -> _Task:
        kx, ky, col0, row0, cols, _ = task.grid
        row, col = divmod(cell, cols)
        kind = entries[:, 2]
        areas = entries[kind == raster.EDGES]
        covers = entries[kind == raster.COVER, 1]
        asked = entries[(kind == raster.CIRCLE) | (kind == raster.ASK), 1].astype(np.int32)
        weight = int(areas[:, 4].sum()) + 4 * len(asked)
        most = min(max(64, 8 * weight), MAX_NESTED_CELLS, max(64, (1 << 21) // (1 + len(covers))))
        halvings = max(1, min((most.bit_length() - 1) // 2, kx - MIN_SHIFT, ky - MIN_SHIFT))
        side = 1 << halvings
        grid = (kx - halvings, ky - halvings, (col + col0) << halvings, (row + row0) << halvings, side, side)
        sources = np.zeros((len(areas), 7), np.int64)
        sources[:, 0] = areas[:, 1]
        sources[:, 1:3] = areas[:, 3:5]
        sources[:, 3] = 1
        sources[:, 4:7] = areas[:, 5:8]
        return _Task(grid, sources, pool, asked, covers, first_cell + cell, task.depth + 1)


def fit_grid(west: int, south: int, east: int, north: int, most: int) -> tuple[int, int, int, int, int, int]:
    """The finest grid of at most ``most`` cells over a box, with a free column and row around it."""
    for k in range(2 * MIN_SHIFT, 64):
        kx, ky = (k + 1) // 2, k // 2
        col0, row0 = (west >> kx) - 1, (south >> ky) - 1
        cols, rows = (east >> kx) - col0 + 2, (north >> ky) - row0 + 2
        if cols * rows <= most:
            return kx, ky, col0, row0, cols, rows
    raise AssertionError("a grid of 2**32 wide cells holds everything")


def _merged(a: NDArray[np.int64], b: NDArray[np.int64], zones: int) -> NDArray[np.int64]:
    """Pairs of both, each once, by ping, then zone."""
    key = np.unique(np.concatenate([a[0] * zones + a[1], b[0] * zones + b[1]]))
    return np.stack(np.divmod(key, zones))
