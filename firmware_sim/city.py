"""A synthetic city: a grid of streets, homes, work, shops, schools, parks, a river, and a victim's home.

Inside the simulator a position is metres east and north of the city's centre (x, y). The plane is mapped onto
longitude and latitude linearly, so a street that is straight here is straight there, as GeoJSON wants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2s
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from firmware_sim import firmware
from firmware_sim._random import draws
from firmware_sim.codec import KIND_ANKLE, KIND_PHONE, KIND_WRIST
from firmware_sim.errors import ScenarioError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from firmware_sim.scenario import Scenario

__all__ = [
    "APARTMENT",
    "BIG_BUILDING",
    "CURFEWS",
    "HOUSE",
    "OUTDOORS",
    "PERSON",
    "PLACE",
    "City",
    "Zone",
    "build_city",
    "metres_per_degree",
]

# What a place does to radio signals.
OUTDOORS: Final = 0
HOUSE: Final = 1
APARTMENT: Final = 2
BIG_BUILDING: Final = 3

PLACE: Final = np.dtype([("x", "f8"), ("y", "f8"), ("walls", "u1"), ("garage", "u1")])  # garage: underground

# Indices are into City.places; -1: none. A school's places are where one stands: at the school,
# just inside of its zone, just outside of it; and the two ends of the lane that passes its zone.
PERSON: Final = np.dtype(
    [
        ("home", "i4"),
        ("work", "i4"),
        ("shop", "i4"),
        ("friend", "i4"),
        ("park", "i4"),
        ("school", "i4"),
        ("gate", "i4"),
        ("kerb", "i4"),
        ("victim", "i4"),
        ("verge_west", "i4"),
        ("verge_east", "i4"),
        ("routine", "u1"),  # 0 day work, 1 early shift, 2 part-time, 3 no work
        ("curfew", "u1"),  # index into CURFEWS
        ("school_exclusion", "u1"),
        ("no_contact", "u1"),
        ("school_run", "u1"),  # brings a child to school, and may
    ]
)

# opening_hours of the curfews, and the same in minutes of the day for the truth.
CURFEWS: Final = (("21:00-05:30", 1260, 330), ("21:30-06:00", 1290, 360), ("22:00-06:00", 1320, 360))

VICTIM_RADIUS_M: Final = 350.0
HOME_RADIUS_M: Final = 80.0
_LANE_M: Final = 4.0  # from the middle of the street to the lane's: 6 m from a school's zone
_VERGE_BLOCKS: Final = 0.35  # so far before and behind a school's block the lane's ends lie
_SETBACK_M: Final = 15.0  # from the middle of the street to a front door
_BRIDGE_EVERY: Final = 6  # streets
_RIVER_ROW: Final = -7  # the row of blocks that the river runs through; no street crosses it but by a bridge
_RIVER_HALF_WIDTH_M: Final = 25.0

_WGS84_A_M: Final = 6_378_137.0
_WGS84_E2: Final = 0.00669437999014


@dataclass(frozen=True, slots=True, eq=False)
class Zone:
    """One zone of the rules.

    lon_lat : float64 (k, 2) degrees; polygon: an open ring, circle: its centre, corridor: its line
    """

    id: str
    layer: str
    shape: Literal["polygon", "circle", "corridor"]
    lon_lat: NDArray[np.float64]
    radius_m: float = 0.0
    buffer_m: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class City:
    """A city and its people, one person for each device.

    places   : PLACE (p,)
    people   : PERSON (n,)
    kind     : uint8 (n,)  KIND_ANKLE, KIND_WRIST, KIND_PHONE
    version  : uint8 (n,)  of the firmware, an index into `firmware.VERSIONS`
    keys     : 32 bytes for tags, or None
    bridges  : float64 (b,) x of the streets that cross the river
    tower_xy : float64 (g, g, 2) cell towers on a jittered grid of ``tower_pitch_m``
    """

    scenario: Scenario
    seed: int
    places: NDArray[Any]
    people: NDArray[Any]
    device_ids: list[str]
    kind: NDArray[np.uint8]
    version: NDArray[np.uint8]
    keys: list[bytes | None]
    zones: list[Zone]
    bridges: NDArray[np.float64]
    river_y: float
    tower_xy: NDArray[np.float64]
    tower_pitch_m: float

    def __len__(self) -> int:
        return len(self.device_ids)

    @property
    def json(self) -> NDArray[np.bool_]:
        """Whose firmware writes JSON: bool (n,)."""
        return firmware.column(self.version, "json")

    @property
    def timezone(self) -> str:
        """IANA name of the city's time zone."""
        return self.scenario.city.timezone

    @property
    def half_m(self) -> float:
        """From the centre to the edge of the street grid."""
        return self.scenario.city.block_m * self.scenario.city.half_blocks

    def to_degrees(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Metres east and north of the centre as longitude and latitude in degrees."""
        plan = self.scenario.city
        per_lon, per_lat = metres_per_degree(plan.lat)
        return plan.lon + x / per_lon, plan.lat + y / per_lat

    def participant(self, i: int) -> str:
        """The opaque id of the person who wears device i."""
        return f"sub-{i + 1:05d}"


def metres_per_degree(lat: Any) -> tuple[Any, Any]:
    """Length of one degree of longitude and of latitude on the WGS 84 ellipsoid, metres."""
    phi = np.radians(lat)
    w2 = 1.0 - _WGS84_E2 * np.sin(phi) ** 2
    meridian = _WGS84_A_M * (1.0 - _WGS84_E2) / w2**1.5
    normal = _WGS84_A_M / np.sqrt(w2)
    return np.radians(1.0) * normal * np.cos(phi), np.radians(1.0) * meridian


def build_city(scenario: Scenario, devices: int, seed: int) -> City:
    """Lay out the city and settle ``devices`` people in it."""
    plan, mix = scenario.city, scenario.fleet
    if devices < 1:
        raise ScenarioError(f"{devices} devices; a fleet has at least one")
    if plan.half_blocks < 12:
        raise ScenarioError(f"half_blocks = {plan.half_blocks}; a city needs at least 12")
    block = plan.block_m
    half = plan.half_blocks
    rows = np.array([(i, j) for j in range(-half, half) for i in range(-half, half)])
    middle = (rows + 0.5) * block
    river_y = (_RIVER_ROW + 0.5) * block
    victim_xy = np.array([0.62 * half * block, 0.6 * half * block])
    victim_xy = np.floor(victim_xy / block) * block + [0.4 * block, _SETBACK_M]

    from_centre = np.hypot(middle[:, 0], middle[:, 1])
    from_victim = np.hypot(*(middle - victim_xy).T)
    buildable = (rows[:, 1] != _RIVER_ROW) & (from_victim > VICTIM_RADIUS_M + 2 * block)
    schools = _scatter(
        rows[buildable & (from_centre > plan.downtown_m + 2 * block)], plan.schools, 5, seed, "schools"
    )
    parks = _scatter(rows[buildable & (from_centre > plan.downtown_m)], 10, 4, seed, "parks")
    taken = {tuple(row) for row in np.concatenate([schools, parks])}
    free = np.array([tuple(row) not in taken for row in rows])

    lots = _lots(rows[buildable & free & (from_centre > 0.8 * plan.downtown_m)], block)
    offices = _lots(rows[buildable & free & (from_centre < 1.3 * plan.downtown_m)], block)
    across = np.array([(i, j + d) for i, j in schools for d in (-1, 1) if (i, j + d) not in taken])
    border_lots = _lots(across[across[:, 1] != _RIVER_ROW], block)
    # only the doors on the street that the school lies at
    border_lots = border_lots[_beside(border_lots, schools, block)]

    sites = _Sites(lots, offices, border_lots, (parks + 0.5) * float(block), schools, victim_xy)
    places, people = _settle(scenario, devices, seed, sites)
    drawn = draws(seed, "hardware", devices, 4)
    kind = np.where(
        drawn[:, 0] < mix.phone,
        KIND_PHONE,
        np.where(drawn[:, 0] < mix.phone + mix.wrist, KIND_WRIST, KIND_ANKLE),
    ).astype(np.uint8)
    kind[: max(3, scenario.opening.incursions + scenario.opening.straps)] = KIND_ANKLE
    device_ids = [f"{'awp'[k]}{i + 1:05d}" for i, k in enumerate(kind)]
    keys = [
        blake2s(device_id.encode(), key=seed.to_bytes(8, "little", signed=True)).digest() if tagged else None
        for device_id, tagged in zip(
            device_ids, (drawn[:, 3] < mix.tagged) & (kind != KIND_PHONE), strict=True
        )
    ]
    tagged = np.array([key is not None for key in keys])
    version = firmware.assign(mix, drawn[:, 1:3], tagged, seed)
    pitch = 1150.0
    towers = math.ceil(2 * half * block / pitch) + 4
    jitter = (draws(seed, "towers", towers * towers, 2).reshape(towers, towers, 2) - 0.5) * 0.6 * pitch
    corner = (np.arange(towers) - towers // 2) * pitch
    tower_xy = jitter + np.stack(np.meshgrid(corner, corner, indexing="ij"), axis=-1)

    streets = np.arange(-half, half + 1)
    city = City(
        scenario=scenario,
        seed=seed,
        places=places,
        people=people,
        device_ids=device_ids,
        kind=kind,
        version=version,
        keys=keys,
        zones=[],
        bridges=streets[streets % _BRIDGE_EVERY == 0] * block,
        river_y=river_y,
        tower_xy=tower_xy,
        tower_pitch_m=pitch,
    )
    city.zones.extend(_zones(city, schools, victim_xy))
    return city


def school_ring(row: NDArray[np.int64], block: float) -> NDArray[np.float64]:
    """The grounds of a school in block (i, j): a rectangle less one corner, float64 (6, 2) metres."""
    inset = 0.22 * block
    x0, y0 = row * block + inset
    x1, y1 = (row + 1) * block - inset
    notch = 0.2 * block
    return np.array(
        [(x0, y0), (x1, y0), (x1, y1 - notch), (x1 - notch, y1 - notch), (x1 - notch, y1), (x0, y1)]
    )


def school_buffer_m(block: float) -> float:
    """So wide that the zone ends 10 m before the middle of the street."""
    return 0.22 * block - 10.0


def _scatter(rows: NDArray[np.int64], count: int, apart: int, seed: int, name: str) -> NDArray[np.int64]:
    """Choose ``count`` blocks, ``apart`` blocks from each other: int64 (count, 2)."""
    order = np.argsort(draws(seed, name, len(rows), 1)[:, 0])
    chosen: list[NDArray[np.int64]] = []
    for row in rows[order]:
        if len(chosen) == count:
            break
        if all(np.abs(row - other).max() >= apart for other in chosen):
            chosen.append(row)
    if len(chosen) < count:
        raise ScenarioError(
            f"{count} {name} don't fit into the city; raise half_blocks or lower their number"
        )
    return np.array(chosen)


def _lots(rows: NDArray[np.int64], block: float) -> NDArray[np.float64]:
    """Front doors along the south and the north street of each block: float64 (m, 2) metres."""
    along = np.arange(0.15, 0.9, 0.14) * block
    doors = np.array([(x, y) for y in (_SETBACK_M, block - _SETBACK_M) for x in along])
    return np.asarray((rows[:, None, :] * block + doors[None, :, :]).reshape(-1, 2))


def _beside(lots: NDArray[np.float64], schools: NDArray[np.int64], block: float) -> NDArray[np.bool_]:
    """Of lots: those whose street is one that a school lies at, bool (m,)."""
    street = np.round(lots[:, 1] / block)
    column = np.floor(lots[:, 0] / block)
    beside = np.any(
        (column[:, None] == schools[:, 0])
        & ((street[:, None] == schools[:, 1]) | (street[:, None] == schools[:, 1] + 1)),
        axis=1,
    )
    return np.asarray(beside)


@dataclass(frozen=True, slots=True, eq=False)
class _Sites:
    """What the city has to offer: doors and middles float64 (m, 2) metres, schools as blocks int64 (k, 2)."""

    lots: NDArray[np.float64]
    offices: NDArray[np.float64]
    border_lots: NDArray[np.float64]
    parks: NDArray[Any]
    schools: NDArray[np.int64]
    victim_xy: NDArray[np.float64]


def _settle(scenario: Scenario, devices: int, seed: int, sites: _Sites) -> tuple[NDArray[Any], NDArray[Any]]:
    """Give everyone a home and the places of their week: PLACE (p,), PERSON (n,)."""
    lots, offices, schools, victim_xy = sites.lots, sites.offices, sites.schools, sites.victim_xy
    plan, mix = scenario.city, scenario.fleet
    block = plan.block_m
    drawn = draws(seed, "people", devices, 14)
    # Whoever has a no-contact order lives, works and shops west of the victim: routes are L-shaped, so their
    # ordinary trips stay out of the zone.
    no_contact = drawn[:, 0] < mix.no_contact
    no_contact[: max(3, scenario.opening.incursions)] = True
    west = victim_xy[0] - VICTIM_RADIUS_M - 8 * block

    def pick(pool: NDArray[np.float64], column: int) -> NDArray[np.float64]:
        """One of the pool for everyone; of its western part for those with a no-contact order."""
        pool_west = pool[pool[:, 0] < west]
        at = (drawn[:, column] * len(pool)).astype(np.int64)
        at_west = (drawn[:, column] * len(pool_west)).astype(np.int64)
        return np.where(no_contact[:, None], pool_west[at_west], pool[at])

    home_xy = pick(lots, 1)
    at_border = (drawn[:, 2] < plan.border_share) & ~no_contact
    home_xy[at_border] = sites.border_lots[(drawn[at_border, 3] * len(sites.border_lots)).astype(np.int64)]
    school = (drawn[:, 4] * len(schools)).astype(np.int64)
    west_schools = np.flatnonzero((schools[:, 0] + 1) * block < west)
    if len(west_schools):
        school[no_contact] = west_schools[(drawn[no_contact, 4] * len(west_schools)).astype(np.int64)]

    shops = np.concatenate([offices[::7], lots[:: max(1, len(lots) // 40)]])
    works = np.concatenate([offices, lots[3 :: max(1, len(lots) // 60)]])
    rings = [school_ring(row, block) for row in schools]
    buffer_m = school_buffer_m(block)
    school_xy = np.array([[ring[0, 0] + 0.28 * block, ring[0, 1] + 0.28 * block] for ring in rings])
    # the gate is 8 m inside of the zone's southern edge, the kerb 7 m outside of it
    gate_xy = np.array([[ring[0, 0] + 0.25 * block, ring[0, 1] - buffer_m + 8.0] for ring in rings])
    kerb_xy = np.array([[ring[0, 0] + 0.25 * block, ring[0, 1] - buffer_m - 7.0] for ring in rings])

    lane_y = schools[:, 1] * block + _LANE_M
    west_xy = np.stack([(schools[:, 0] - _VERGE_BLOCKS) * block, lane_y], axis=-1)
    east_xy = np.stack([(schools[:, 0] + 1 + _VERGE_BLOCKS) * block, lane_y], axis=-1)

    walls = np.where(drawn[:, 5] < plan.apartment_share, APARTMENT, HOUSE)
    columns = [
        (home_xy, walls),
        (pick(works, 6), np.where(drawn[:, 7] < 0.5, BIG_BUILDING, HOUSE)),
        (pick(shops, 8), np.full(devices, BIG_BUILDING)),
        (pick(lots, 9), np.full(devices, HOUSE)),
        (pick(sites.parks, 10), np.full(devices, OUTDOORS)),
        (school_xy, np.full(len(schools), HOUSE)),
        (gate_xy, np.full(len(schools), OUTDOORS)),
        (kerb_xy, np.full(len(schools), OUTDOORS)),
        (victim_xy[None, :] + [[-60.0, 0.0]], np.array([OUTDOORS])),
        (west_xy, np.full(len(schools), OUTDOORS)),
        (east_xy, np.full(len(schools), OUTDOORS)),
    ]
    offsets = np.cumsum([0] + [len(xy) for xy, _ in columns])
    places = np.empty(offsets[-1], PLACE)
    for (xy, kinds), start in zip(columns, offsets[:-1], strict=True):
        places["x"][start : start + len(xy)] = xy[:, 0]
        places["y"][start : start + len(xy)] = xy[:, 1]
        places["walls"][start : start + len(xy)] = kinds
    places["garage"] = 0

    people = np.empty(devices, PERSON)
    one_each = np.arange(devices)
    for name, start in zip(("home", "work", "shop", "friend", "park"), offsets, strict=False):
        people[name] = start + one_each
    for name, start in zip(("school", "gate", "kerb"), offsets[5:], strict=False):
        people[name] = start + school
    people["verge_west"] = offsets[9] + school
    people["verge_east"] = offsets[10] + school
    people["victim"] = np.where(no_contact, offsets[8], -1)
    people["routine"] = np.searchsorted([0.45, 0.6, 0.75], drawn[:, 11], side="right")
    people["curfew"] = (drawn[:, 12] * len(CURFEWS)).astype(np.uint8)
    people["school_exclusion"] = drawn[:, 13] < mix.school_exclusion
    people["no_contact"] = no_contact
    with_child = draws(seed, "children", devices, 1)[:, 0] < mix.school_run
    people["school_run"] = with_child & (people["school_exclusion"] == 0) & ~no_contact
    parked = draws(seed, "garages", devices, 2)
    for name, drawn_of in zip(("work", "shop"), parked.T, strict=True):
        at = people[name]
        places["garage"][at] = (drawn_of < plan.garages) & (places["walls"][at] == BIG_BUILDING)
    # the early shift leaves home at six
    early = people["routine"] == 1
    people["curfew"][early & (people["curfew"] == 0)] = 1
    return places, people


def _zones(city: City, schools: NDArray[np.int64], victim_xy: NDArray[np.float64]) -> list[Zone]:
    """Homes, schools, the victim's surroundings, and the river."""
    plan = city.scenario.city
    half = city.half_m

    def degrees(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        # to the grid of receivers, 1e-7 degree, so that what is written is what was meant
        return np.round(np.stack(city.to_degrees(xy[:, 0], xy[:, 1]), axis=-1), 7)

    home = city.places[city.people["home"]]
    home_xy = np.stack([home["x"], home["y"]], axis=-1)
    zones = [
        Zone(f"home-{device_id}", "homes", "circle", at[None, :], radius_m=HOME_RADIUS_M)
        for device_id, at, kind in zip(city.device_ids, degrees(home_xy), city.kind, strict=True)
        if kind != KIND_PHONE
    ]
    buffer_m = round(school_buffer_m(plan.block_m), 2)
    for i, row in enumerate(schools):
        ring = degrees(school_ring(row, plan.block_m))
        zones.append(Zone(f"school-{i + 1:02d}", "schools", "polygon", ring, buffer_m=buffer_m))
    zones.append(
        Zone("victim-01", "victims", "circle", degrees(victim_xy[None, :]), radius_m=VICTIM_RADIUS_M)
    )
    bend_x = np.linspace(-half, half, 25)
    bend_y = city.river_y + 20.0 * np.sin(bend_x / 500.0)
    zones.append(
        Zone(
            "river",
            "water",
            "corridor",
            degrees(np.stack([bend_x, bend_y], axis=-1)),
            radius_m=_RIVER_HALF_WIDTH_M,
        )
    )
    return zones
