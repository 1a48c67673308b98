"""Cleaning and checking of rings and lines on the 1e-7 degree grid.

Rounding to the grid can repeat a vertex or fold a sliver into a spike of no width. Both go, with a warning:
they enclose nothing. A polygon that was valid before rounding and is not after it is snapped to the grid by
GEOS (set_precision). What remains invalid is a problem with its place and its remedy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence.units import E7, HALF_TURN_E7

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["clean_line", "clean_polygons", "to_grid"]

MAX_LON: Final = 214
MAX_LAT: Final = 90


def to_grid(degrees: NDArray[np.float64]) -> NDArray[np.int32]:
    """Degrees as int32 1e-7 degree, the nearest one, half to even."""
    return np.rint(degrees * E7).astype(np.int32)


def clean_line(
    given: object, least: int, where: str, problems: list[str], warnings: list[str]
) -> NDArray[np.int32] | None:
    """A line (or a single point, least = 1) on the grid; None when ``problems`` says what is wrong."""
    degrees = _positions(given, where, problems)
    if degrees is None:
        return None
    if len(degrees) < least:
        problems.append(f"{where}the line has {len(degrees)} position(s); it needs at least {least}")
        return None
    line = to_grid(degrees)
    if not _edges_fit(line, where, problems):
        return None
    clean = line[_differs_from_previous(line)]
    if len(clean) < len(line):
        warnings.append(f"{where}{len(line) - len(clean)} repeated position(s) left out")
    if len(clean) < least:  # a line of one place: two positions keep it a line
        clean = np.repeat(clean, 2, axis=0)
    return clean


def clean_polygons(
    given: object, problems: list[str], warnings: list[str]
) -> tuple[list[NDArray[np.int32]], list[int]]:
    """The rings of polygons on the grid, each closed, and how many rings each polygon has.

    given: GeoJSON coordinates of a MultiPolygon. Problems and warnings are appended to.
    """
    if not isinstance(given, list) or not given:
        problems.append("the geometry is empty; give it coordinates")
        return [], []
    found = len(problems)
    polygons: list[list[NDArray[np.int32]]] = []
    raw: list[list[NDArray[np.float64]]] = []
    for p, rings in enumerate(given):
        of_polygon = f"polygon {p}, " if len(given) > 1 else ""
        if not isinstance(rings, list) or not rings:
            problems.append(f"{of_polygon}the polygon is empty; give it an outer ring")
            continue
        kept: list[NDArray[np.int32]] = []
        degrees_kept: list[NDArray[np.float64]] = []
        for r, ring in enumerate(rings):
            where = f"{of_polygon}ring {r}: "
            degrees = _ring_degrees(ring, where, problems)
            if degrees is None:
                continue
            clean = _clean_ring(to_grid(degrees), where, problems, warnings)
            if clean is None:
                continue
            if len(clean) == 0:
                if r == 0:
                    kept = []
                    warnings.append(f"{where}thinner than the grid of 1.1 cm, left out")
                    break
                warnings.append(f"{where}this hole is thinner than the grid of 1.1 cm, left out")
                continue
            kept.append(clean)
            degrees_kept.append(degrees)
        if kept:
            polygons.append(kept)
            raw.append(degrees_kept)
    if len(problems) > found:
        return [], []
    if not polygons:
        problems.append(
            "no ring is wider than the grid of 1.1 cm; draw the zone larger, or as a line with radius_m"
        )
        return [], []
    polygons = _valid(polygons, raw, problems, warnings)
    return [ring for rings in polygons for ring in rings], [len(rings) for rings in polygons]


def _positions(given: object, where: str, problems: list[str]) -> NDArray[np.float64] | None:
    """Degrees (k, 2) of a list of positions, all of them numbers in range."""
    if not isinstance(given, list) or not given:
        problems.append(f"{where}it is empty; give it positions [longitude, latitude]")
        return None
    try:
        degrees = np.array([(p[0], p[1]) for p in given], dtype=np.float64)
        numbers = not any(isinstance(v, (str, bool)) for p in given for v in p[:2])
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        numbers = False
    if not numbers:
        problems.append(f"{where}a position is not [longitude, latitude] in numbers; correct it")
        return None
    wrong = ~(np.isfinite(degrees).all(axis=1))
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        problems.append(f"{where}position {i} is {_text(degrees[i])}; both must be finite numbers")
        return None
    wrong = (np.abs(degrees[:, 0]) > MAX_LON) | (np.abs(degrees[:, 1]) > MAX_LAT)
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        problems.append(
            f"{where}position {i} is {_text(degrees[i])}, out of range; longitude comes first and lies "
            f"within +-{MAX_LON}, latitude within +-{MAX_LAT}"
        )
        return None
    return degrees


def _ring_degrees(ring: object, where: str, problems: list[str]) -> NDArray[np.float64] | None:
    degrees = _positions(ring, where, problems)
    if degrees is None:
        return None
    if not np.array_equal(degrees[0], degrees[-1]):
        problems.append(
            f"{where}the ring is open (first position {_text(degrees[0])}, last {_text(degrees[-1])}); "
            "repeat the first position at the end"
        )
        return None
    if len(degrees) < 4:
        problems.append(f"{where}the ring has {len(degrees)} positions; it needs at least 4")
        return None
    return degrees


def _edges_fit(line: NDArray[np.int32], where: str, problems: list[str]) -> bool:
    """Whether no edge is longer than 180 degrees of longitude, on which the products' proof rests."""
    steps = np.abs(np.diff(line[:, 0].astype(np.int64)))
    if (steps > HALF_TURN_E7).any():
        i = int(np.flatnonzero(steps > HALF_TURN_E7)[0])
        problems.append(
            f"{where}the edge from {_text(line[i] / E7)} to {_text(line[i + 1] / E7)} is over 180 degrees; "
            "split the zone at the antimeridian, or let longitudes run past 180 (write 190 for -170)"
        )
        return False
    return True


def _clean_ring(
    ring: NDArray[np.int32], where: str, problems: list[str], warnings: list[str]
) -> NDArray[np.int32] | None:
    """The closed ring without repeated vertices and spikes; empty when nothing is left."""
    if not _edges_fit(ring, where, problems):
        return None
    vertices = ring[:-1]
    distinct = vertices[_differs_from_previous(vertices, closed=True)]
    if len(distinct) < len(vertices):
        warnings.append(f"{where}{len(vertices) - len(distinct)} repeated position(s) left out")
    smooth = _without_spikes(distinct)
    if len(smooth) < len(distinct):
        warnings.append(f"{where}{len(distinct) - len(smooth)} position(s) of spikes without width left out")
    if len(smooth) < 3:
        return np.empty((0, 2), np.int32)
    return np.concatenate([smooth, smooth[:1]])


def _differs_from_previous(line: NDArray[np.int32], *, closed: bool = False) -> NDArray[np.bool_]:
    keep = np.ones(len(line), np.bool_)
    keep[1:] = (line[1:] != line[:-1]).any(axis=1)
    if closed and len(line) > 1:
        keep[0] = bool((line[0] != line[-1]).any()) or not keep[1:].any()
    return keep


def _turns_back(a: NDArray[np.int64], b: NDArray[np.int64], c: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where b is the tip of a spike a-b-c: the three are collinear and c lies on a's side of b."""
    u = a - b
    v = c - b
    # Each product is at most 1.8e9 * 1.8e9 in size, so the sum of two still fits int64.
    collinear: NDArray[np.bool_] = u[:, 0] * v[:, 1] == u[:, 1] * v[:, 0]
    ahead: NDArray[np.bool_] = u[:, 0] * v[:, 0] + u[:, 1] * v[:, 1] > 0
    back: NDArray[np.bool_] = collinear & ahead
    return back


def _without_spikes(vertices: NDArray[np.int32]) -> NDArray[np.int32]:
    """Take tips of spikes out until none is left (the vertex where one stood may then repeat, or be a tip
    itself).
    """
    ring = vertices.astype(np.int64)
    if not _turns_back(np.roll(ring, 1, axis=0), ring, np.roll(ring, -1, axis=0)).any():
        return vertices
    done: list[NDArray[np.int64]] = []
    todo = list(ring[::-1])
    quiet = 0
    # Walk round the ring with a stack; a removal sends the walk back to the neighbours it changed.
    while todo and quiet <= len(todo) + len(done):
        done.append(todo.pop())
        changed = True
        while changed and len(done) > 1:
            changed = False
            if (done[-1] == done[-2]).all():
                done.pop()
                changed = True
            elif len(done) > 2 and _turns_back(done[-3][None], done[-2][None], done[-1][None])[0]:
                del done[-2]
                changed = True
    # The seam, where the last meets the first.
    changed = True
    while changed and len(done) >= 3:
        changed = False
        if (done[0] == done[-1]).all() or _turns_back(done[-2][None], done[-1][None], done[0][None])[0]:
            done.pop()
            changed = True
        elif _turns_back(done[-1][None], done[0][None], done[1][None])[0]:
            del done[0]
            changed = True
    return np.array(done, np.int32).reshape(-1, 2)


def _valid(
    polygons: list[list[NDArray[np.int32]]],
    raw: list[list[NDArray[np.float64]]],
    problems: list[str],
    warnings: list[str],
) -> list[list[NDArray[np.int32]]]:
    """The polygons if GEOS calls them valid; else snapped to the grid, or a problem with its place."""
    import shapely  # noqa: PLC0415  (a reader of stored zones needs no GEOS; see ADR on start-up time)

    shape = _multipolygon(shapely, polygons)
    if shapely.is_valid(shape):
        return polygons
    exact = _multipolygon(shapely, [[ring * E7 for ring in rings] for rings in raw])
    if shapely.is_valid(exact):
        snapped = shapely.set_precision(exact, 1.0)
        if not snapped.is_empty:
            warnings.append(
                "rounding to the grid of 1.1 cm made borders cross; they were moved by up to 1.1 cm"
            )
            return _rings_of(shapely, snapped)
    problems.append(_why_invalid(shapely, shape))
    return []


def _multipolygon(shapely: Any, polygons: list[list[NDArray[Any]]]) -> Any:
    parts = [
        shapely.polygons(rings[0], [shapely.linearrings(r) for r in rings[1:]] or None) for rings in polygons
    ]
    return parts[0] if len(parts) == 1 else shapely.multipolygons(parts)


def _rings_of(shapely: Any, shape: Any) -> list[list[NDArray[np.int32]]]:
    return [
        [np.rint(shapely.get_coordinates(ring)).astype(np.int32) for ring in (part.exterior, *part.interiors)]
        for part in shapely.get_parts(shape)
    ]


def _why_invalid(shapely: Any, shape: Any) -> str:
    reason, _, place = shapely.is_valid_reason(shape).partition("[")
    try:
        x, y = (float(v) / E7 for v in place.rstrip("]").split()[:2])
    except ValueError:
        at = ""
    else:
        at = f" near [{x:.7f}, {y:.7f}]"
    rule = "a valid polygon's rings meet in single points at most"
    return f"{reason.strip().lower()}{at}; redraw the zone there ({rule})"


def _text(position: NDArray[Any]) -> str:
    return f"[{float(position[0]):.10g}, {float(position[1]):.10g}]"
