"""The zones of a set as columns: flat arrays and offsets, immutable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from geofence.zones import AREA_TYPES, GEOMETRY_TYPES, Zone, geojson_feature

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["ZoneTable"]

_SINGLE_POINT = GEOMETRY_TYPES.index("Point")


@dataclass(frozen=True, eq=False)
class ZoneTable:
    """n zones in columns.

    ids           : n texts
    layer_names   : the layers, in order of first appearance
    layer         : int32 (n,)     index into layer_names, -1: none
    geometry_type : uint8 (n,)     index into GEOMETRY_TYPES
    radius_mm     : int32 (n,)     of circles and corridors, else 0
    buffer_mm     : int32 (n,)
    vertices      : int32 (v, 2)   longitude and latitude, 1e-7 degree; rings are closed
    line_start    : int64 (l+1,)   line i is vertices[line_start[i]:line_start[i+1]]
    line_outer    : bool (l,)      the line begins a new polygon (or stands alone)
    zone_line     : int64 (n+1,)   zone z has lines zone_line[z]:zone_line[z+1]
    extra         : n JSON texts of the other properties, "" where there are none
    warnings      : what was cleaned, for people
    """

    ids: list[str]
    layer_names: list[str]
    layer: NDArray[np.int32]
    geometry_type: NDArray[np.uint8]
    radius_mm: NDArray[np.int32]
    buffer_mm: NDArray[np.int32]
    vertices: NDArray[np.int32]
    line_start: NDArray[np.int64]
    line_outer: NDArray[np.bool_]
    zone_line: NDArray[np.int64]
    extra: list[str]
    warnings: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, zones: Sequence[Zone]) -> Self:
        """Columns of zones, in their order."""
        layer_names: dict[str, int] = {}
        layer = np.full(len(zones), -1, np.int32)
        for i, zone in enumerate(zones):
            if zone.layer is not None:
                layer[i] = layer_names.setdefault(zone.layer, len(layer_names))
        lines = [line for zone in zones for line in zone.lines]
        outer = np.ones(len(lines), np.bool_)
        first = 0
        for zone in zones:
            if zone.geometry_type < AREA_TYPES:
                outer[first : first + len(zone.lines)] = False
                outer[first + np.cumsum([0, *zone.parts[:-1]])] = True
            first += len(zone.lines)
        return cls(
            ids=[zone.id for zone in zones],
            layer_names=list(layer_names),
            layer=layer,
            geometry_type=np.fromiter((z.geometry_type for z in zones), np.uint8, len(zones)),
            radius_mm=np.fromiter((z.radius_mm for z in zones), np.int32, len(zones)),
            buffer_mm=np.fromiter((z.buffer_mm for z in zones), np.int32, len(zones)),
            vertices=np.concatenate(lines) if lines else np.empty((0, 2), np.int32),
            line_start=_offsets(len(line) for line in lines),
            line_outer=outer,
            zone_line=_offsets(len(zone.lines) for zone in zones),
            extra=[json.dumps(zone.extra) if zone.extra else "" for zone in zones],
            warnings=[w for zone in zones for w in zone.warnings],
        )

    @cached_property
    def reach_mm(self) -> NDArray[np.int32]:
        """How far beyond its geometry each zone reaches: radius and buffer."""
        return self.radius_mm + self.buffer_mm

    @cached_property
    def is_area(self) -> NDArray[np.bool_]:
        """Which zones have an inside of their own (polygons)."""
        mask: NDArray[np.bool_] = self.geometry_type < AREA_TYPES
        return mask

    @cached_property
    def is_circle(self) -> NDArray[np.bool_]:
        """Which zones are a single point and a radius."""
        mask: NDArray[np.bool_] = self.geometry_type == _SINGLE_POINT
        return mask

    @cached_property
    def edges(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Edges (m, 4) as ax, ay, bx, by, and int64 (n+1,) which of them belong to each zone.

        A line of one vertex (a circle's centre) counts as one edge of no length.
        """
        length = np.diff(self.line_start)
        single = length == 1
        starts = np.ones(len(self.vertices), np.bool_)
        starts[self.line_start[1:][~single] - 1] = False  # the last vertex of a line starts no edge
        first = np.flatnonzero(starts)
        second = first + 1
        alone = np.zeros(len(self.vertices), np.bool_)
        alone[self.line_start[:-1][single]] = True
        second = np.where(alone[first], first, second)
        edges = np.concatenate([self.vertices[first], self.vertices[second]], axis=1)
        per_line = np.where(single, 1, length - 1)
        start = np.concatenate([[0], np.cumsum(per_line)])[self.zone_line]
        return np.ascontiguousarray(edges), start.astype(np.int64)

    def take(self, zones: NDArray[np.int64]) -> ZoneTable:
        """Some of the zones, in the order given."""
        lines, zone_line = _gather(self.zone_line, zones)
        vertices, line_start = _gather(self.line_start, lines)
        return ZoneTable(
            ids=[self.ids[i] for i in zones],
            layer_names=self.layer_names,
            layer=self.layer[zones],
            geometry_type=self.geometry_type[zones],
            radius_mm=self.radius_mm[zones],
            buffer_mm=self.buffer_mm[zones],
            vertices=self.vertices[vertices],
            line_start=line_start,
            line_outer=self.line_outer[lines],
            zone_line=zone_line,
            extra=[self.extra[i] for i in zones],
            warnings=[],
        )

    @classmethod
    def concat(cls, tables: Sequence[ZoneTable]) -> ZoneTable:
        """Tables one after the other."""
        names: dict[str, int] = {}
        layers = []
        for table in tables:
            code = np.array([names.setdefault(n, len(names)) for n in table.layer_names] + [-1], np.int32)
            layers.append(code[table.layer])
        return cls(
            ids=[i for t in tables for i in t.ids],
            layer_names=list(names),
            layer=np.concatenate(layers),
            geometry_type=np.concatenate([t.geometry_type for t in tables]),
            radius_mm=np.concatenate([t.radius_mm for t in tables]),
            buffer_mm=np.concatenate([t.buffer_mm for t in tables]),
            vertices=np.concatenate([t.vertices for t in tables]),
            line_start=_join_offsets([t.line_start for t in tables]),
            line_outer=np.concatenate([t.line_outer for t in tables]),
            zone_line=_join_offsets([t.zone_line for t in tables]),
            extra=[e for t in tables for e in t.extra],
            warnings=[w for t in tables for w in t.warnings],
        )

    def features(self) -> Iterable[dict[str, Any]]:
        """Each zone as the GeoJSON Feature that loads as it again."""
        for z, zone_id in enumerate(self.ids):
            first, last = self.zone_line[z], self.zone_line[z + 1]
            bounds = self.line_start[first : last + 1]
            lines = [self.vertices[a:b] for a, b in pairwise(bounds)]
            begins = np.flatnonzero(self.line_outer[first:last])
            parts = np.diff(np.append(begins, last - first))
            layer = int(self.layer[z])
            yield geojson_feature(
                zone_id,
                None if layer < 0 else self.layer_names[layer],
                int(self.geometry_type[z]),
                lines,
                parts.tolist(),
                int(self.radius_mm[z]),
                int(self.buffer_mm[z]),
                json.loads(self.extra[z]) if self.extra[z] else {},
            )


def _offsets(lengths: Iterable[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.int64)


def _join_offsets(offsets: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(o) for o in offsets]))]).astype(np.int64)


def _gather(start: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the items of some rows of a ragged array, and the new offsets."""
    length = start[rows + 1] - start[rows]
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    items = np.arange(offsets[-1]) + np.repeat(start[rows] - offsets[:-1], length)
    return items.astype(np.int64), offsets
