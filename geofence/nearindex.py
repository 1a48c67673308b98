"""The index for distances: which pieces of which borders matter in which cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from geofence._kernels import near as near_kernel
from geofence._kernels import near_lists
from geofence._kernels.lists import IS_GRID, sort_entries
from geofence._kernels.near_plane import LANES
from geofence._kernels.raster import grow_boxes
from geofence.cellindex import fit_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence.cellindex import CellIndex
    from geofence.columns import ZoneColumns

__all__ = ["NearIndex"]

MAX_CELLS: Final = 1 << 20
PAIRS: Final = 1 << 18  # (cell, zone) pairs that a set may have, and PAIRS_PER_PIECE more for each piece
PAIRS_PER_PIECE: Final = 8
CELLS_PER_REACH: Final = (
    4  # a cell is not smaller than a quarter of the reach: the lists would hardly shorten
)
HEAVY_ZONES: Final = 64  # cells that more zones are near to get a grid of their own
MAX_DEPTH: Final = 6
NESTED_HALVINGS: Final = 4
MIN_SHIFT: Final = 9
E7_PER_M: Final = 90.0


@dataclass(frozen=True, eq=False)
class NearIndex:
    """Cells and lists as geofence._kernels.near describes them; good for limits up to ``serves_mm``."""

    columns: ZoneColumns
    serves_mm: int
    cells: NDArray[np.int32]
    lists: NDArray[np.int32]
    grid: tuple[int, int, int, int, int, int]

    @cached_property
    def border(self) -> NDArray[np.float64]:
        """float64 (4, p + LANES): the pieces by columns, and as many zeros as a vector may read past them."""
        return np.ascontiguousarray(np.pad(self.columns.pieces.T, ((0, 0), (0, LANES))))

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.cells.nbytes + self.lists.nbytes + self.border.nbytes

    @classmethod
    def of(cls, columns: ZoneColumns, sides: CellIndex, serves_mm: int) -> NearIndex:
        """Build it. sides: the cell index of the polygons without their buffers."""
        if not len(columns.is_area):
            nothing = np.zeros(1, np.int32)
            return cls(columns, serves_mm, nothing, nothing, (20, 20, 0, 0, 1, 1))
        smallest = serves_mm / 1000.0 * E7_PER_M / CELLS_PER_REACH
        top = _top_grid(columns, serves_mm, smallest)
        cells: list[NDArray[np.int32]] = []
        lists: list[NDArray[np.int32]] = [np.zeros(1, np.int32)]
        n_cells, n_words = 0, 1
        every = np.arange(len(columns.is_area), dtype=np.int32)
        tasks = [(top, every, -1, 0)]
        links: list[tuple[int, int]] = []
        while tasks:
            grid, zones, parent, depth = tasks.pop()
            kx, ky, col0, row0, cols, rows = grid
            entries, pool = near_lists.rasterise_near(
                zones,
                serves_mm,
                columns.boxes,
                columns.is_circle,
                *(*columns.for_distance[2:], *sides.lookup, *grid),
            )
            entries, begins = sort_entries(entries, cols * rows)
            # A cell no larger than the reach has the same neighbours as its quarters.
            nests = (
                depth < MAX_DEPTH
                and min(kx, ky) > MIN_SHIFT
                and (1 << ky) > smallest
                and n_cells < 16 * MAX_CELLS
            )
            heavy = HEAVY_ZONES << depth if nests else np.iinfo(np.int64).max
            new_cells, words, too_heavy = near_lists.pack_near(
                entries, begins, pool, columns.centres, n_words, heavy
            )
            halvings = min(NESTED_HALVINGS, kx - MIN_SHIFT, ky - MIN_SHIFT)
            for cell in too_heavy:
                row, col = divmod(int(cell), cols)
                side = 1 << halvings
                inner = (
                    kx - halvings,
                    ky - halvings,
                    (col + col0) << halvings,
                    (row + row0) << halvings,
                    side,
                    side,
                )
                mine = entries[begins[cell] : begins[cell + 1], 1].astype(np.int32)
                tasks.append((inner, mine, n_cells + int(cell), depth + 1))
            lists.append(words)
            n_words += len(words)
            if parent >= 0:
                links.append((parent, (n_words << 2) | IS_GRID))
                lists.append(
                    np.array([n_cells, kx, ky, cols.bit_length() - 1, rows.bit_length() - 1], np.int32)
                )
                n_words += 5
            cells.append(new_cells)
            n_cells += len(new_cells)
        joined = np.concatenate(cells)
        for place, word in links:
            joined[place] = word
        return cls(columns, serves_mm, joined, np.concatenate(lists), top)

    def near(
        self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32], limit_mm: int, inside: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """Ping, zone, signed distance in mm of all pairs within the limit. inside: what polygons cover,
        buffers aside.
        """
        found: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]
        found = near_kernel.near(
            lon_e7,
            lat_e7,
            limit_mm,
            inside,
            self.cells,
            self.lists,
            *self.grid,
            self.border,
            *self.columns.for_distance[2:],
        )
        return found


def _top_grid(columns: ZoneColumns, serves_mm: int, smallest: float) -> tuple[int, int, int, int, int, int]:
    """Fine enough for short lists, coarse enough that the number of (cell, zone) pairs stays in
    proportion.
    """
    reach_mm = columns.reach_mm + np.int32(min(serves_mm, 900_000_000))
    boxes = np.repeat(np.array([[1 << 40, 1 << 40, -(1 << 40), -(1 << 40)]], np.int64), len(reach_mm), axis=0)
    grow_boxes(boxes, np.zeros_like(columns.is_area), reach_mm, columns.pieces, columns.zone_piece)
    # What lies around a pole is inside of a border that comes nowhere near it.
    boxes[:, 1] = np.minimum(boxes[:, 1], columns.boxes[:, 1])
    boxes[:, 3] = np.maximum(boxes[:, 3], columns.boxes[:, 3])
    boxes = boxes[np.diff(columns.zone_piece) > 0]
    if not len(boxes):
        return (20, 20, 0, 0, 1, 1)
    west, south = boxes[:, :2].min(axis=0)
    east, north = boxes[:, 2:].max(axis=0)
    most = MAX_CELLS
    pairs = PAIRS + PAIRS_PER_PIECE * len(columns.pieces)
    size = boxes[:, 2:] - boxes[:, :2]
    while True:
        grid = fit_grid(int(west), int(south), int(east), int(north), most)
        touched = np.minimum(
            (size[:, 0] / (1 << grid[0]) + 1.0) * (size[:, 1] / (1 << grid[1]) + 1.0), 1e12
        ).sum()
        if most <= 256 or (touched <= pairs and (1 << grid[1]) >= smallest):
            return grid
        most //= 2
