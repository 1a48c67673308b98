"""Scenarios: TOML files that say which city, which devices, which weather, and who breaks what how often.

>>> load("city").city.timezone
'America/New_York'
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from firmware_sim.city import City, build_city
from firmware_sim.errors import ScenarioError
from firmware_sim.rules import write_rules

__all__ = [
    "Behaviour",
    "CityPlan",
    "FleetMix",
    "Opening",
    "Outage",
    "Radio",
    "Scenario",
    "Sky",
    "build",
    "load",
    "names",
    "write_rules",
]


@dataclass(frozen=True, slots=True)
class CityPlan:
    """Where the city lies and how it is built."""

    name: str = "Alder Falls"  # made up, on farmland in Ohio
    lat: float = 40.31
    lon: float = -83.62
    timezone: str = "America/New_York"
    block_m: float = 160.0
    half_blocks: int = 30  # the grid reaches so many blocks from the centre
    downtown_m: float = 900.0  # radius of the urban canyon
    schools: int = 14
    border_share: float = 0.1  # homes that stand across the street from a school
    apartment_share: float = 0.35
    garages: float = 0.0  # share of the big buildings whose cars stand underground


@dataclass(frozen=True, slots=True)
class FleetMix:
    """Which devices, and how they report."""

    wrist: float = 0.3  # shares of the fleet; what is left are ankle monitors
    phone: float = 0.08
    # shares of the firmware versions, see `firmware`; what is left runs the current one
    json: float = 0.1  # of those without a key
    old: float = 0.15  # no accuracy, no debouncing, oldest first
    blunt: float = 0.0  # no speed, no heading, no motion bit, oldest first
    saver: float = 0.0  # a third of the samples, no satellites
    tagged: float = 0.2  # share that holds a key
    school_exclusion: float = 0.35
    school_run: float = 0.0  # share that brings a child to school, of those who may be near one
    no_contact: float = 0.02  # share that must stay away from the victim's home; at least three
    flash_records: int = 512
    moving_s: int = 10  # seconds between samples
    resting_s: int = 60
    alarm_s: int = 5
    upload_resting_s: int = 60
    upload_moving_s: int = 10


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How often a wearer does what, in events per wearer and day."""

    curfew: float = 0.01
    brief: float = 0.01  # one to three minutes just inside a school's zone
    deep: float = 0.006  # two to forty minutes at the school, short ones more often
    passing: float = 0.05  # a stop just outside of a school's zone: legal, and a trap for plain geometry
    victim: float = 0.03  # of those with a no-contact order
    strap_cut: float = 0.002
    flat_battery: float = 0.01
    shielding: float = 0.005
    handover: float = 0.003  # of wristbands
    tailgating: float = 0.0  # a crawl by car along the edge of a school's zone: legal, and a trap
    taken_off: float = 0.0  # no rate, but the share of wristbands that are taken off to charge


@dataclass(frozen=True, slots=True)
class Sky:
    """What disturbs positions, beyond the errors of `gnss`."""

    error_scale: float = 1.0  # multiplies every GNSS error
    # share of GNSS fixes 150 to 250 m off that claim 2 to 5 m: about one per device and month
    overconfident: float = 2e-5
    dishonest_cell: float = 0.2  # share of cell fixes that claim a fifth of their error
    jamming: float = 0.005  # events per device and day
    spoofing: float = 0.001


@dataclass(frozen=True, slots=True)
class Outage:
    """A stretch in which a share of the devices has no network."""

    after_h: float
    hours: float
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Radio:
    """The cellular network."""

    gaps: float = 2.0  # gaps per device and day
    gap_min: float = 6.0  # mean length
    outages: tuple[Outage, ...] = ()


@dataclass(frozen=True, slots=True)
class Opening:
    """What is about to happen when the run starts, whatever the hour."""

    incursions: int = 0  # devices that drive into the victim's zone within half a minute
    straps: int = 0  # devices whose strap is cut within half a minute


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario file, read."""

    name: str
    title: str = ""
    city: CityPlan = field(default_factory=CityPlan)
    fleet: FleetMix = field(default_factory=FleetMix)
    behaviour: Behaviour = field(default_factory=Behaviour)
    sky: Sky = field(default_factory=Sky)
    radio: Radio = field(default_factory=Radio)
    opening: Opening = field(default_factory=Opening)


_SECTIONS = {
    "city": CityPlan,
    "fleet": FleetMix,
    "behaviour": Behaviour,
    "sky": Sky,
    "radio": Radio,
    "opening": Opening,
}


def names() -> list[str]:
    """The scenarios that come with the package."""
    folder = resources.files("firmware_sim") / "scenarios"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def load(name_or_path: str | Path) -> Scenario:
    """Read a scenario of the package by name, or any by the path of its TOML file."""
    name = str(name_or_path)
    if name in names():
        text = (resources.files("firmware_sim") / "scenarios" / f"{name}.toml").read_text("utf-8")
    else:
        path = Path(name_or_path)
        if not path.is_file():
            raise ScenarioError(
                f'scenario "{name}" is unknown; use one of {", ".join(names())}, or the path of a TOML file'
            )
        name, text = path.stem, path.read_text("utf-8")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ScenarioError(f'scenario "{name}": {exc}') from exc
    unknown = sorted(document.keys() - _SECTIONS.keys() - {"title"})
    if unknown:
        raise ScenarioError(
            f'scenario "{name}": no such section: {unknown[0]}; there are {", ".join(_SECTIONS)}'
        )
    sections: dict[str, Any] = {
        key: _section(name, key, kind, document.get(key, {})) for key, kind in _SECTIONS.items()
    }
    return Scenario(name=name, title=str(document.get("title", "")), **sections)


def build(scenario: Scenario, devices: int, seed: int) -> City:
    """The city of a scenario with its people: the same for the same arguments."""
    return build_city(scenario, devices, seed)


_Section = TypeVar("_Section")


def _section(scenario: str, section: str, kind: type[_Section], table: dict[str, Any]) -> _Section:
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        where = f'scenario "{scenario}": [{section}] {key}'
        if key not in known:
            raise ScenarioError(f"{where}: no such key; there are {', '.join(known)}")
        if key == "outages":
            values[key] = tuple(_section(scenario, "radio.outages", Outage, entry) for entry in value)
            continue
        wanted = str if known[key].type == "str" else (int, float)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ScenarioError(f"{where} = {value!r}: it must be a {known[key].type}")
        if isinstance(value, (int, float)) and value < 0 and key not in {"lat", "lon"}:
            raise ScenarioError(f"{where} = {value}: it can't be negative")
        values[key] = value
    try:
        return kind(**values)
    except TypeError as exc:
        raise ScenarioError(f'scenario "{scenario}": [{section}] {exc}') from exc
