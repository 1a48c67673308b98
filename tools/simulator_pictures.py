"""Make the pictures of docs/simulator.md from a simulated city.

``docs/images/city.svg``: a weekday of the scenario ``city``, and what a receiver makes of a home at a border.
``docs/images/errors.svg``: the simulated errors beside the published ones that gnss.py cites.

Run it from the repository root: ``.venv/bin/python tools/simulator_pictures.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from firmware_sim import gnss, wearer
from firmware_sim.city import APARTMENT, metres_per_degree
from firmware_sim.codec import KIND_PHONE, NO_FIX, RECORD
from firmware_sim.fleet import Fleet
from firmware_sim.scenario import build, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from firmware_sim.city import City, Zone

IMAGES: Final = Path("docs/images")
SEED: Final = 4
DEVICES: Final = 120
MIDNIGHT_S: Final = 1_779_940_800  # Thursday 28 May 2026, 00:00 in Ohio
DAY_TICKS: Final = 24 * 720
SIZE: Final = 900.0
TRACKS: Final = ("#1b6ca8", "#c2571a", "#2f7d4f", "#7b4aa0", "#946b00", "#a0365f", "#3a7f8c", "#5b5b5b")
STYLE: Final = (
    "text{font:14px system-ui,sans-serif;fill:#333}.t{font-size:17px;font-weight:600}"
    ".s{stroke:#ddd8cc;stroke-width:1.6;fill:none}.w{fill:none;stroke:#9cc3dd}"
    ".z{fill:#e9a13b;fill-opacity:.4;stroke:#b5741a;stroke-width:1}"
    ".v{fill:#d0403a;fill-opacity:.22;stroke:#b3251f;stroke-width:1.6}"
    ".h{fill:#3d7d5c;fill-opacity:.25;stroke:#3d7d5c;stroke-width:.8}"
)


def main() -> None:
    """Write both pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    city = build(load("city"), DEVICES, SEED)
    fleet = Fleet(city, SEED, MIDNIGHT_S)
    x, y = np.empty((DAY_TICKS, DEVICES)), np.empty((DAY_TICKS, DEVICES))
    fixes: list[NDArray[Any]] = []
    for k in range(DAY_TICKS):
        burst = fleet.step()
        x[k], y[k] = fleet.wearers["x"], fleet.wearers["y"]
        known = burst.samples["lat_e7"] != NO_FIX
        fixes.append(np.rec.fromarrays([burst.due[known], burst.samples[known]], names="device,sample"))
    (IMAGES / "city.svg").write_text(city_picture(city, x, y, np.concatenate(fixes)), "utf-8")
    (IMAGES / "errors.svg").write_text(error_picture(), "utf-8")


def city_picture(city: City, x: NDArray[np.float64], y: NDArray[np.float64], fixes: NDArray[Any]) -> str:
    """The whole city with a day's true tracks; on the right one home at a school and a night of its fixes."""
    block, half = city.scenario.city.block_m, city.half_m
    whole = View(0.0, 0.0, half * 1.02, 10.0, 44.0)
    worn = city.kind != KIND_PHONE
    schools = [zone for zone in city.zones if zone.layer == "schools"]
    border = nearest_to_a_school(city, schools, worn)
    home = city.places[city.people["home"][border]]
    close = View(float(home["x"]), float(home["y"]), 150.0, SIZE + 40.0, 44.0)
    body = [
        f'<text class="t" x="10" y="28">{city.scenario.city.name}: one weekday, {len(TRACKS)} wearers</text>'
    ]
    body += drawn_city(city, whole, block)
    for k, i in enumerate(np.flatnonzero(worn)[5 : 5 + len(TRACKS)]):
        moved = np.append(True, (np.diff(x[:, i]) != 0) | (np.diff(y[:, i]) != 0))
        line = whole.path(x[moved, i], y[moved, i])
        body.append(
            f'<path d="{line}" fill="none" stroke="{TRACKS[k]}" stroke-width="2.4" stroke-opacity=".75"/>'
        )
    body.append(
        f'<text class="t" x="{SIZE + 40:.0f}" y="28">A home across the street from a school: '
        "every fix of the day within 150 m</text>"
    )
    body += drawn_city(city, close, block)
    mine = fixes["sample"][fixes["device"] == border]
    per_lon, per_lat = metres_per_degree(city.scenario.city.lat)
    fix_x = (mine["lon_e7"] / 1e7 - city.scenario.city.lon) * per_lon
    fix_y = (mine["lat_e7"] / 1e7 - city.scenario.city.lat) * per_lat
    colours = np.array(["#1b6ca8", "#7b4aa0", "#7b4aa0", "#7b4aa0"])[mine["status"] >> 8]
    near = (np.abs(fix_x - home["x"]) < close.reach_m) & (np.abs(fix_y - home["y"]) < close.reach_m)
    for px, py, colour in zip(*close.at(fix_x[near], fix_y[near]), colours[near], strict=True):
        body.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.6" fill="{colour}" fill-opacity=".45"/>')
    hx, hy = close.at(home["x"], home["y"])
    body.append(f'<circle cx="{hx:.1f}" cy="{hy:.1f}" r="6" fill="#111"/>')
    legend = (
        ("#e9a13b", "school with its buffer"),
        ("#d0403a", "victim's surroundings"),
        ("#3d7d5c", "home zone"),
        ("#9cc3dd", "river"),
        ("#1b6ca8", "GNSS fix"),
        ("#7b4aa0", "network fix"),
        ("#111", "the wearer, truly"),
    )
    for k, (colour, text) in enumerate(legend):
        left = 10 + 250 * k
        body.append(f'<rect x="{left}" y="{SIZE + 58:.0f}" width="14" height="14" fill="{colour}"/>')
        body.append(f'<text x="{left + 20}" y="{SIZE + 70:.0f}">{text}</text>')
    return document(2 * SIZE + 60, SIZE + 84, body)


class View:
    """A square window onto the plane, and where it stands in the picture."""

    def __init__(self, x: float, y: float, reach_m: float, left: float, top: float) -> None:
        self.x, self.y, self.reach_m = x, y, reach_m
        self.left, self.top = left, top
        self.scale = SIZE / (2 * reach_m)

    def at(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Metres as pixels."""
        return (
            self.left + (x - self.x + self.reach_m) * self.scale,
            self.top + (self.reach_m - y + self.y) * self.scale,
        )

    def path(self, x: Any, y: Any) -> str:
        """A line through points."""
        return "M" + "L".join(f"{px:.1f},{py:.1f}" for px, py in zip(*self.at(x, y), strict=True))


def drawn_city(city: City, view: View, block: float) -> list[str]:
    """Streets and zones in a view."""
    name = f"c{view.left:.0f}"
    frame = f'x="{view.left}" y="{view.top}" width="{SIZE}" height="{SIZE}"'
    parts = [
        f'<clipPath id="{name}"><rect {frame}/></clipPath>',
        f'<rect {frame} fill="#fbfaf6" stroke="#c9c3b4"/>',
        f'<g clip-path="url(#{name})">',
    ]
    cx, cy = view.at(0.0, 0.0)
    downtown = city.scenario.city.downtown_m * view.scale
    parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{downtown:.1f}" fill="#e9e5da"/>')
    half = city.half_m
    for k in range(-city.scenario.city.half_blocks, city.scenario.city.half_blocks + 1):
        at = k * block
        parts.append(f'<path class="s" d="{view.path(np.array([-half, half]), np.array([at, at]))}"/>')
        ends = np.array([-half, half])
        if at in city.bridges:
            parts.append(f'<path class="s" d="{view.path(np.array([at, at]), ends)}"/>')
            continue
        for low, high in ((-half, city.river_y - block / 2), (city.river_y + block / 2, half)):
            parts.append(f'<path class="s" d="{view.path(np.array([at, at]), np.array([low, high]))}"/>')
    parts += [shape(city, zone, view) for zone in sorted(city.zones, key=lambda zone: zone.layer)]
    return [*parts, "</g>"]


def shape(city: City, zone: Zone, view: View) -> str:
    """One zone, its buffer included."""
    per_lon, per_lat = metres_per_degree(city.scenario.city.lat)
    x = (zone.lon_lat[:, 0] - city.scenario.city.lon) * per_lon
    y = (zone.lon_lat[:, 1] - city.scenario.city.lat) * per_lat
    css = {"schools": "z", "victims": "v", "homes": "h", "water": "w"}[zone.layer]
    if zone.shape == "circle":
        px, py = view.at(x[0], y[0])
        return f'<circle class="{css}" cx="{px:.1f}" cy="{py:.1f}" r="{zone.radius_m * view.scale:.1f}"/>'
    if zone.shape == "corridor":
        wide = 2 * zone.radius_m * view.scale
        return f'<path class="{css}" stroke-width="{wide:.1f}" d="{view.path(x, y)}"/>'
    ring = view.path(x, y) + "Z"
    wide = 2 * zone.buffer_m * view.scale
    return (
        f'<g opacity=".35"><path d="{ring}" fill="#e9a13b" stroke="#e9a13b" stroke-width="{wide:.1f}" '
        f'stroke-linejoin="round"/></g><path class="{css}" d="{ring}"/>'
    )


def nearest_to_a_school(city: City, schools: list[Zone], worn: NDArray[np.bool_]) -> int:
    """The wearer in an apartment nearest to a school."""
    home = city.places[city.people["home"]]
    lon, lat = city.to_degrees(home["x"], home["y"])
    middle = np.array([zone.lon_lat.mean(axis=0) for zone in schools])
    away = np.hypot(lon[:, None] - middle[:, 0], lat[:, None] - middle[:, 1]).min(axis=1)
    away[~worn | (home["walls"] != APARTMENT)] = np.inf
    return int(np.argmin(away))


def error_picture() -> str:
    """Median and 95 % of the horizontal error by surroundings, and the published medians."""
    published = {
        "open": (3.8, 3.8, "GPS.gov (4.9 m, read as 68 %)"),
        "suburb": (5.0, 8.5, "Zandbergen and Barbeau 2011"),
        "canyon": (14.0, 14.0, "Rainham et al. 2008 (95 %: 43)"),
        "Wi-Fi": (74.0, 74.0, "Zandbergen 2009"),
        "cell": (600.0, 600.0, "Zandbergen 2009"),
    }
    measured = {name: errors(getattr(wearer, f"AROUND_{name.upper()}"), 0) for name in list(published)[:3]}
    measured["Wi-Fi"], measured["cell"] = (
        errors(wearer.AROUND_BIG_BUILDING, 1),
        errors(wearer.AROUND_BIG_BUILDING, 2),
    )

    def right(metres: float) -> float:
        """Pixels of a length on a logarithmic axis, 1 m to 3 km."""
        return float(120 + 620 * np.log10(metres) / np.log10(3000.0))

    body = ['<text class="t" x="10" y="28">Horizontal error, metres: simulated and published</text>']
    for metres in (1, 3, 10, 30, 100, 300, 1000, 3000):
        body.append(f'<path class="s" d="M{right(metres):.1f},46V346"/>')
        body.append(f'<text x="{right(metres) - 8:.1f}" y="364">{metres}</text>')
    for k, (name, (low, high, source)) in enumerate(published.items()):
        top = 58 + 58 * k
        length = measured[name]
        quarter, median, upper, most = np.percentile(length, [25, 50, 75, 95])
        half = right(upper) - right(quarter)
        body.append(f'<text x="10" y="{top + 16}">{name}</text>')
        body.append(
            f'<rect x="{right(quarter):.1f}" y="{top}" width="{half:.1f}" height="22" fill="#9cc3dd"/>'
            f'<path d="M{right(upper):.1f},{top + 11}H{right(most):.1f}" stroke="#1b6ca8"/>'
            f'<path d="M{right(median):.1f},{top}v22" stroke="#1b6ca8" stroke-width="3"/>'
        )
        wide = max(right(high) - right(low), 4.0)
        body.append(
            f'<rect x="{right(low) - 2:.1f}" y="{top + 26}" width="{wide:.1f}" height="7" fill="#c2571a"/>'
        )
        body.append(
            f'<text x="760" y="{top + 16}">median {median:.1f}, 95 % {most:.0f}; published {source}</text>'
        )
    body.append(
        '<text x="10" y="396">Blue: the middle half of the simulated errors, their median, and up to 95 %. '
        "Orange: published medians. Wearers at rest, one fix a minute.</text>"
    )
    return document(1250, 412, body)


def errors(around: int, source: int) -> NDArray[np.float64]:
    """Lengths of the errors of one source at people who stand still, metres."""
    city = build(load("city"), 1, SEED)
    count, rng = 2000, np.random.default_rng(SEED)
    people = np.zeros(count, wearer.WEARER)
    people["x"], people["y"] = rng.uniform(-4000, 4000, (2, count))
    people["around"] = around
    receivers, sky = gnss.new_receivers(count, SEED), gnss.map_of(city)
    due, phase_ms = np.arange(count, dtype=np.int32), np.zeros(count, np.int32)
    lengths = []
    for k in range(40):
        records = np.zeros(count, RECORD)
        gnss.observe(MIDNIGHT_S + 60 * k, due, phase_ms, sky, city.tower_xy, people, receivers, records)
        wanted = (records["lat_e7"] != NO_FIX) & (records["status"] >> 8 == source)
        east = (records["lon_e7"] / 1e7 - sky["lon"]) * sky["metres_per_lon"] - people["x"]
        north = (records["lat_e7"] / 1e7 - sky["lat"]) * sky["metres_per_lat"] - people["y"]
        lengths.append(np.hypot(east, north)[wanted])
    return np.concatenate(lengths)


def document(width: float, height: float, body: list[str]) -> str:
    """An SVG file."""
    box = f'viewBox="0 0 {width:.0f} {height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}><style>{STYLE}</style>'
    return "\n".join(
        [head, f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>', *body, "</svg>", ""]
    )


if __name__ == "__main__":
    main()
