"""A month at home with nothing but Wi-Fi and cell fixes: whoever is accused here is accused falsely.

The receiver never gets a GNSS fix (its cold start does not end), so every fix is one of a network: biased,
cached, off by a cell tower's distance, with claims that are honest or not. The curfew holds around the clock,
so nothing is excused by the hour.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.truth.ours import pings_of
from benchmarks.truth.world import DAY_S, START_S, Day
from firmware_sim import gnss, wearer
from firmware_sim.city import APARTMENT, HOME_RADIUS_M, HOUSE, City
from firmware_sim.codec import KIND_PHONE, RECORD
from firmware_sim.scenario import build, load, write_rules
from geofence import Devices, Engine, Ruleset
from geofence.records import OPENED

__all__ = ["INTERVAL_S", "run_resting"]

INTERVAL_S: Final = 60


def run_resting(
    scenario: str, seed: int, devices: int, days: int, progress: Callable[[float], None] = lambda _: None
) -> dict[str, Any]:
    """Judge ``devices`` at rest for some days: how many violations the engine opens, and which."""
    city = build(load(scenario), devices, seed)
    slots = Devices(city.device_ids)
    with tempfile.TemporaryDirectory() as directory:
        write_rules(city, Path(directory))
        rules = Path(directory) / "rules.toml"
        lines = [line for line in rules.read_text("utf-8").splitlines() if not line.startswith("when = ")]
        rules.write_text("\n".join(lines).replace('require = "check_in"', 'require = "no_jamming"'), "utf-8")
        engine = Engine(Ruleset.load(directory), slots)
    found: list[dict[str, Any]] = []
    worn = int((city.kind != KIND_PHONE).sum())
    fixes = outside = 0
    for day, far_share in _days(city, seed, days):
        for decided in (engine.check(pings_of(day, slots)), engine.tick(day.until_s * 1_000_000)):
            rows = decided.violations
            opened = rows[(rows["zone"] >= 0) & (rows["change"] == OPENED)]
            found += [_tell(row, day, engine, scenario, seed) for row in opened]
        fixes += len(day.record)
        outside += far_share
        progress((day.until_s - START_S) / (DAY_S * days))
    return {
        "scenario": scenario,
        "seed": seed,
        "device_months": worn * days / 30,
        "fixes": fixes,
        "outside_home": outside / fixes,
        "false": len(found),
        "which": found,
    }


def _days(city: City, seed: int, days: int) -> Any:
    """Day by day what the receivers see at home, and how many fixes lay outside of the home's zone."""
    wearers = wearer.new_wearers(city, seed)
    walls = city.places["walls"][city.people["home"]]
    wearers["around"] = np.where(walls == APARTMENT, wearer.AROUND_APARTMENT, wearer.AROUND_HOUSE)
    assert np.isin(walls, (APARTMENT, HOUSE)).all()
    receivers = gnss.new_receivers(len(city), seed)
    receivers["ready_s"] = np.inf
    sky = gnss.map_of(city)
    sky["jam_per_s"] = sky["spoof_per_s"] = 0.0
    worn = np.flatnonzero(city.kind != KIND_PHONE).astype(np.int32)
    phase_ms = (np.arange(len(city)) * 997 % (INTERVAL_S * 1000)).astype(np.int32)
    seq = 0
    for number in range(days):
        steps = DAY_S // INTERVAL_S
        records = np.zeros((steps, len(worn)), RECORD)
        for k in range(steps):
            now_s = START_S + number * DAY_S + k * INTERVAL_S
            gnss.observe(now_s, worn, phase_ms, sky, city.tower_xy, wearers, receivers, records[k])
            records["time_ms"][k] = now_s * 1000 + phase_ms[worn].astype(np.int64)
            records["seq"][k] = seq
            seq += 1
        records["battery_pct"] = 90
        record = np.ascontiguousarray(records.T).ravel()
        device = np.repeat(worn, steps)
        yield _day(city, number, device, record, wearers), _outside(city, record, device)


def _day(city: City, number: int, device: NDArray[np.int32], record: NDArray[Any], wearers: Any) -> Day:
    return Day(
        until_s=START_S + (number + 1) * DAY_S,
        device=device,
        start=np.searchsorted(device, np.arange(len(city) + 1)),
        boot=np.ones(len(device), np.uint16),
        record=record,
        x=wearers["x"][device].astype(np.float32),
        y=wearers["y"][device].astype(np.float32),
    )


def _outside(city: City, record: NDArray[Any], device: NDArray[np.int32]) -> int:
    """How many fixes lie outside of the home's zone: what plain geometry would accuse for."""
    x, y = _metres(city, record)
    home = city.places[city.people["home"]][device]
    return int((np.hypot(x - home["x"], y - home["y"]) > HOME_RADIUS_M).sum())


def _metres(city: City, record: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sky = gnss.map_of(city)[0]
    return (
        (record["lon_e7"] * 1e-7 - sky["lon"]) * sky["metres_per_lon"],
        (record["lat_e7"] * 1e-7 - sky["lat"]) * sky["metres_per_lat"],
    )


def _tell(row: Any, day: Day, engine: Engine, scenario: str, seed: int) -> dict[str, Any]:
    """A violation with the fix that opened it, so that it can be looked at again."""
    device = int(row["device"])
    mine = slice(*day.start[device : device + 2].tolist())
    time_us = day.record["time_ms"][mine].astype(np.int64) * 1000
    at = mine.start + min(int(np.searchsorted(time_us, row["confirmed_us"])), len(time_us) - 1)
    fix = day.record[at]
    return {
        "scenario": scenario,
        "seed": seed,
        "device_id": engine.devices.ids[device],
        "rule_id": engine.ruleset.rule_ids[row["rule"]],
        "confirmed_us": int(row["confirmed_us"]),
        "depth_m": int(row["depth_mm"]) / 1000,
        "accuracy_m": float(fix["accuracy_dm"]) / 10,
        "source": ("gnss", "wifi", "cell", "beacon")[int(fix["status"]) >> 8 & 3],
    }
