"""Zones as they are loaded: GeoJSON in, clean integer geometry in columns out.

A zone is a polygon or multipolygon, a circle (Point), or a corridor (LineString); MultiPoint and
MultiLineString work alike. What can be read is cleaned (geofence.rings); what can't be used refuses the
whole load with one ZoneError that lists every bad zone.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from geofence.errors import ZoneError
from geofence.rings import clean_line, clean_polygons
from geofence.units import E7

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["AREA_TYPES", "GEOMETRY_TYPES", "MAX_REACH_M", "Zone", "read_features", "read_zones"]

GEOMETRY_TYPES: Final = ("Polygon", "MultiPolygon", "Point", "MultiPoint", "LineString", "MultiLineString")
AREA_TYPES: Final = 2  # the first two have an inside of their own; the others need a radius
MAX_REACH_M: Final = 1_000_000  # radius and buffer together; far below where int32 millimetres end

_OWN_KEYS: Final = ("id", "layer", "radius_m", "buffer_m")


@dataclass(frozen=True, slots=True, eq=False)
class Zone:
    """One zone, checked and clean.

    lines     : int32 (k, 2) each, longitude and latitude in 1e-7 degree: closed rings of a polygon,
                the lines of a corridor, or the points of circles
    parts     : how many of ``lines`` make up each polygon, its outer ring first; (len(lines),) elsewhere
    radius_mm : of a circle or corridor; 0 for polygons
    extra     : the other properties, as they came
    """

    id: str
    layer: str | None
    geometry_type: int  # index into GEOMETRY_TYPES
    lines: tuple[NDArray[np.int32], ...]
    parts: tuple[int, ...]
    radius_mm: int
    buffer_mm: int
    extra: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


def read_features(source: object) -> Iterator[tuple[str, object]]:
    """Every feature of a source, with a name for it should it have no id.

    source: a path, a directory (its *.geojson in order of name), a list of either or of features,
    a Feature or a FeatureCollection.
    """
    if isinstance(source, (str, Path)):
        yield from _read_path(Path(source))
    elif isinstance(source, dict):
        yield from _features_of(source, "")
    elif isinstance(source, (list, tuple)):
        for i, item in enumerate(source):
            if isinstance(item, (str, Path)):
                yield from _read_path(Path(item))
            elif isinstance(item, dict):
                yield from _features_of(item, f"item {i}: ")
            else:
                yield f"item {i}", item
    else:
        raise ZoneError([("?", f"zones can't be read from a {type(source).__name__}; give a path or a dict")])


def read_zones(features: Iterable[tuple[str, object]], taken: Container[str] = ()) -> list[Zone]:
    """Check and clean features; raises one ZoneError that names every bad one.

    taken: ids that these zones may not have, because the set has them.
    """
    zones: list[Zone] = []
    problems: list[tuple[str, str]] = []
    own: dict[str, str] = {}
    for place, feature in features:
        name = place
        try:
            properties = _properties(feature)
            name = _zone_id(properties)
            _check_new(name, place, own, taken)
            zones.append(_zone(name, properties, feature))
        except _Bad as bad:
            problems.extend((name, what) for what in bad.args)
    if problems:
        raise ZoneError(problems)
    return zones


def _check_new(zone_id: str, place: str, own: dict[str, str], taken: Container[str]) -> None:
    if zone_id in own:
        raise _Bad(f"the id is used twice ({own[zone_id]} and {place}); give each zone its own id")
    own[zone_id] = place
    if zone_id in taken:
        raise _Bad("the set has a zone of this id already; take it out first (without) or rename")


class _Bad(Exception):  # noqa: N818  (never leaves this module)
    """What is wrong with one zone: each argument is one problem and its remedy."""


def _read_path(path: Path) -> Iterator[tuple[str, object]]:
    if path.is_dir():
        files = sorted(path.glob("*.geojson"))
        if not files:
            raise ZoneError([(str(path), "the directory holds no *.geojson; put the zones there")])
    else:
        files = [path]
    for file in files:
        try:
            document = json.loads(file.read_bytes())
        except OSError as exc:
            raise ZoneError(
                [(str(file), f"the file can't be read ({exc.strerror}); check path and rights")]
            ) from exc
        except (ValueError, RecursionError) as exc:
            raise ZoneError([(str(file), f"the file is not JSON ({exc}); export it again")]) from exc
        yield from _features_of(document, f"{file.name}: ")


def _features_of(document: object, prefix: str) -> Iterator[tuple[str, object]]:
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "Feature":
        yield f"{prefix}the feature", document
    elif kind == "FeatureCollection" and isinstance(document, dict):
        features = document.get("features")
        if not isinstance(features, list):
            raise ZoneError([(prefix or "?", 'a FeatureCollection needs a list "features"')])
        for i, feature in enumerate(features):
            yield f"{prefix}feature {i}", feature
    else:
        raise ZoneError(
            [(prefix or "?", f"the type is {kind!r}; zones come as a Feature or a FeatureCollection")]
        )


def _properties(feature: object) -> dict[str, Any]:
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise _Bad('this is no GeoJSON Feature; its "type" must be "Feature"')
    properties = feature.get("properties")
    if not isinstance(properties, dict):
        raise _Bad('the feature has no properties; add "properties": {"id": "…"}')
    return properties


def _zone_id(properties: dict[str, Any]) -> str:
    value = properties.get("id")
    if value is None or isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise _Bad(f'the id is {value!r}; give the zone a text "id" in its properties')
    return str(value)


def _zone(zone_id: str, properties: dict[str, Any], feature: Any) -> Zone:
    problems: list[str] = []
    layer = properties.get("layer")
    if layer is not None and (not isinstance(layer, str) or not layer):
        problems.append(f"layer is {layer!r}; it must be text, or left out")
    buffer_mm = _length_mm(properties, "buffer_m", problems)
    radius_mm = _length_mm(properties, "radius_m", problems)
    geometry = feature.get("geometry")
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in GEOMETRY_TYPES:
        problems.append(f"the geometry is {kind!r}; it must be one of {', '.join(GEOMETRY_TYPES)}")
        raise _Bad(*problems)
    geometry_type = GEOMETRY_TYPES.index(kind)
    is_area = geometry_type < AREA_TYPES
    if is_area and radius_mm is not None:
        problems.append("radius_m is for points and lines; enlarge a polygon with buffer_m")
    if not is_area and radius_mm is None and buffer_mm is None and not problems:
        problems.append(f"a {kind} needs a radius_m above 0 (metres) to be a zone; add it to the properties")
    if (radius_mm or 0) + (buffer_mm or 0) > MAX_REACH_M * 1000:
        problems.append(f"radius_m and buffer_m are above {MAX_REACH_M} m together; draw a polygon instead")
    warnings: list[str] = []
    lines: list[NDArray[np.int32]] = []
    parts: list[int] = []
    coordinates = geometry.get("coordinates")
    if is_area:
        polygons = [coordinates] if kind == "Polygon" else coordinates
        lines, parts = clean_polygons(polygons, problems, warnings)
    else:
        given = [coordinates] if kind in {"Point", "LineString"} else coordinates
        if kind in {"Point", "MultiPoint"} and isinstance(given, list):
            given = [[position] for position in given]
        if not isinstance(given, list) or not given:
            problems.append("the geometry is empty; give it coordinates")
            given = []
        least = 1 if kind in {"Point", "MultiPoint"} else 2
        for i, line in enumerate(given):
            where = "" if kind in {"Point", "LineString"} else f"{'point' if least == 1 else 'line'} {i}: "
            clean = clean_line(line, least, where, problems, warnings)
            if clean is not None:
                lines.append(clean)
        parts = [len(lines)]
    if problems:
        raise _Bad(*problems)
    return Zone(
        id=zone_id,
        layer=layer,
        geometry_type=geometry_type,
        lines=tuple(lines),
        parts=tuple(parts),
        radius_mm=radius_mm or 0,
        buffer_mm=buffer_mm or 0,
        extra={k: v for k, v in properties.items() if k not in _OWN_KEYS},
        warnings=tuple(f'zone "{zone_id}": {w}' for w in warnings),
    )


def _length_mm(properties: dict[str, Any], key: str, problems: list[str]) -> int | None:
    """A length in whole millimetres; None when it is left out (or wrong, which ``problems`` then says)."""
    value = properties.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        problems.append(f"{key} is {value!r}; it must be a number of metres")
        return None
    mm = round(min(value, 2.0 * MAX_REACH_M) * 1000)
    if mm <= 0 and (key == "radius_m" or mm < 0):
        rule = "above 0" if key == "radius_m" else "0 or more (draw a smaller polygon to shrink a zone)"
        problems.append(f"{key} is {value!r}; it must be {rule}")
        return None
    return mm


def geojson_feature(  # noqa: PLR0917 - a row of the table
    zone_id: str,
    layer: str | None,
    geometry_type: int,
    lines: Sequence[NDArray[np.int32]],
    parts: Sequence[int],
    radius_mm: int,
    buffer_mm: int,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """The Feature that loads as this zone again, to the last bit."""
    degrees = [(line / E7).tolist() for line in lines]
    kind = GEOMETRY_TYPES[geometry_type]
    coordinates: Any = degrees
    if kind in {"Polygon", "MultiPolygon"}:
        polygons = []
        first = 0
        for count in parts:
            polygons.append(degrees[first : first + count])
            first += count
        coordinates = polygons[0] if kind == "Polygon" else polygons
    elif kind == "Point":
        coordinates = degrees[0][0]
    elif kind == "MultiPoint":
        coordinates = [points[0] for points in degrees]
    elif kind == "LineString":
        coordinates = degrees[0]
    properties: dict[str, Any] = {"id": zone_id}
    if layer is not None:
        properties["layer"] = layer
    if radius_mm:
        properties["radius_m"] = radius_mm / 1000
    if buffer_mm:
        properties["buffer_m"] = buffer_mm / 1000
    return {
        "type": "Feature",
        "properties": properties | dict(extra),
        "geometry": {"type": kind, "coordinates": coordinates},
    }
