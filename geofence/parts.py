"""The parts that a zone set is made of: blocks in a row, and which of their zones were taken out.

A set with one zone more is the same blocks and one small block; a set with one zone less is the same blocks
and one number more in ``gone``. Nothing that is there is built again, so both cost microseconds whatever the
size of the set. docs/geometry.md says when parts are joined.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from geofence.block import Block
from geofence.table import ZoneTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["SMALL", "Part", "Parts", "appended", "joined"]

SMALL: Final = 8  # zones; parts below it are joined at once, which costs less than asking one part more


@dataclass(frozen=True, eq=False)
class Part:
    """A block without some of its zones.

    gone : int64 (g,)  numbers of the zones taken out, ascending
    """

    block: Block
    gone: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.block) - len(self.gone)

    def has(self, number: int) -> bool:
        """Whether the zone of this number in the block is still there."""
        at = int(np.searchsorted(self.gone, number))
        return at == len(self.gone) or self.gone[at] != number

    def rank(self, number: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of zones among those that are there, from their numbers in the block."""
        return number - np.searchsorted(self.gone, number) if len(self.gone) else number

    def number(self, rank: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers in the block of zones from their places among those that are there: undoes ``rank``."""
        if not len(self.gone):
            return rank
        there_before = self.gone - np.arange(len(self.gone))  # zones that are there before each gone one
        return rank + np.searchsorted(there_before, rank, side="right")

    def is_gone(self, number: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of these zones were taken out."""
        at = np.searchsorted(self.gone, number)
        found: NDArray[np.bool_] = self.gone[np.minimum(at, len(self.gone) - 1)] == number
        return found

    def without(self, numbers: Iterable[int]) -> Part:
        """The part without these zones too."""
        return Part(self.block, np.union1d(self.gone, np.fromiter(numbers, np.int64)))

    @property
    def ids(self) -> list[str]:
        """The ids of the zones that are there."""
        ids = self.block.table.ids
        return [ids[i] for i in self.number(np.arange(len(self)))] if len(self.gone) else ids

    @property
    def layers(self) -> dict[str, NDArray[np.int64]]:
        """The places of the zones of each layer among those that are there."""
        table = self.block.table
        found = {}
        for code, name in enumerate(table.layer_names):
            mine = np.flatnonzero(table.layer == code)
            mine = self.rank(mine[~self.is_gone(mine)]) if len(self.gone) else mine
            if len(mine):
                found[name] = mine
        return found

    @property
    def table(self) -> ZoneTable:
        """The zones that are there."""
        if not len(self.gone):
            return self.block.table
        return self.block.table.take(self.number(np.arange(len(self))))


@dataclass(frozen=True, eq=False)
class Parts:
    """Parts one after the other: zone i of the set is the i-th zone that is there."""

    parts: tuple[Part, ...]

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """The place of each part's first zone, and at the end the number of zones: int64 (parts + 1,)."""
        return np.cumsum([0] + [len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def only_block(self) -> Block | None:
        """The block whose zones are the set's, if there is one."""
        only = self.parts[0]
        return only.block if len(self.parts) == 1 and not len(only.gone) else None

    def __contains__(self, zone_id: object) -> bool:
        return any(
            (number := part.block.number.get(zone_id)) is not None and part.has(number)  # type: ignore[call-overload]
            for part in self.parts
        )

    def find(self, zone_id: str) -> tuple[int, int]:
        """Which part has a zone, and its number in the block; KeyError when none has."""
        for p, part in enumerate(self.parts):
            number = part.block.number.get(zone_id)
            if number is not None and part.has(number):
                return p, number
        raise KeyError(f"no zone has the id {zone_id!r}")

    def place(self, zone_id: str) -> int:
        """The zone's place in the set; KeyError when it is not there."""
        p, number = self.find(zone_id)
        return int(self.first[p] + self.parts[p].rank(np.array([number]))[0])

    def locate(self, zones: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of zones of the set: which part has each, and its number in the block."""
        part = np.searchsorted(self.first, zones, side="right") - 1
        number = np.empty(len(zones), np.int64)
        for p in np.unique(part):
            mine = part == p
            number[mine] = self.parts[p].number(zones[mine] - self.first[p])
        return part, number

    def distances(
        self, lon_e7: NDArray[np.int32], lat_e7: NDArray[np.int32], zone: NDArray[np.int32]
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Signed distance of position i to zone[i], in metres and in whole millimetres."""
        if (block := self.only_block) is not None:
            return block.distances(lon_e7, lat_e7, zone)
        metres, mm = np.empty(len(zone), np.float64), np.empty(len(zone), np.int32)
        of, number = self.locate(zone)
        for p in np.unique(of):
            mine = of == p
            metres[mine], mm[mine] = self.parts[p].block.distances(
                lon_e7[mine], lat_e7[mine], number[mine].astype(np.int32)
            )
        return metres, mm

    def without(self, zone_ids: Iterable[str]) -> Parts:
        """The parts without some zones; a part of which nothing is left goes too."""
        out: dict[int, list[int]] = {}
        for zone_id in zone_ids:
            p, number = self.find(zone_id)
            out.setdefault(p, []).append(number)
        left = [part.without(out[p]) if p in out else part for p, part in enumerate(self.parts)]
        return Parts(tuple(part for part in left if len(part)) or (Part(Block(ZoneTable.of([]))),))


def appended(parts: Parts, table: ZoneTable) -> Parts:
    """The parts with more zones at the end."""
    if not len(table):
        return parts
    kept = list(parts.parts)
    while kept and len(kept[-1]) + len(table) <= SMALL:
        table = ZoneTable.concat([kept.pop().table, table])
    return Parts((*kept, Part(Block(table))))


def joined(parts: Sequence[Part]) -> Part:
    """One part of the zones of several; the very same where there is nothing to join."""
    if len(parts) == 1 and not len(parts[0].gone):
        return parts[0]
    return Part(Block(ZoneTable.concat([part.table for part in parts])))
