"""The simulated fleet in front of the real engine: what is seen in the first minute after a start."""

from pathlib import Path

import numpy as np
import pytest

from firmware_sim.codec import NO_FIX
from firmware_sim.fleet import Burst, Fleet
from firmware_sim.scenario import build, load, write_rules
from firmware_sim.truth import TruthWriter
from geofence import Devices, Engine, Pings, Ruleset
from geofence.records import OPENED


def pings_of(burst: Burst, devices: Devices) -> Pings:
    """The records that a burst sends, as columns."""
    order = np.concatenate([np.arange(a, b) for a, b in zip(burst.start, burst.stop, strict=True)])
    records, count = burst.records[order], burst.stop - burst.start
    unknown = records["accuracy_dm"] == 65_535
    return Pings.of(
        devices,
        device=np.repeat(burst.device, count),
        fix_time_us=records["time_ms"].astype(np.int64) * 1000,
        boot=np.repeat(burst.boot, count),
        seq=records["seq"],
        lat_e7=records["lat_e7"],
        lon_e7=np.where(records["lat_e7"] == NO_FIX, NO_FIX, records["lon_e7"]),
        accuracy_mm=np.where(unknown, -1, records["accuracy_dm"].astype(np.int32) * 100),
        **{
            name: records[name]
            for name in ("speed_cmps", "heading_cdeg", "altitude_m", "status", "battery_pct", "satellites")
        },
    )


@pytest.mark.parametrize("hour", [4, 9, 16, 21])
def test_the_first_violations_open_within_a_minute_whatever_the_hour(tmp_path: Path, hour: int) -> None:
    city = build(load("city"), 200, 1)
    write_rules(city, tmp_path)
    rules = Ruleset.load(tmp_path)
    devices = Devices(city.device_ids)
    engine = Engine(rules, devices)
    fleet = Fleet(city, 1, 1_780_012_800 + 3600 * hour)  # hours after 20:00 in Ohio
    truth = TruthWriter(tmp_path / "truth.parquet", fleet)
    opened: dict[str, list[str]] = {}
    for _ in range(10):
        burst = fleet.step()
        truth.add(burst)
        decided = [engine.check(pings_of(burst, devices))] if len(burst.records) else []
        decided.append(engine.tick(fleet.now_s * 1_000_000))
        for part in decided:
            for row in part.violations[part.violations["change"] == OPENED]:
                opened.setdefault(rules.rule_ids[row["rule"]], []).append(devices.ids[row["device"]])
    assert len(opened["victim"]) == city.scenario.opening.incursions
    assert len(opened["strap"]) == city.scenario.opening.straps
    # at night those who drive to the victim's, and a few others, are not at home: only the guilty are accused
    guilty = {(entry.rule_id, devices.ids[entry.device]) for entry in truth.breaks()}
    truth.close()
    accused = {(rule_id, device_id) for rule_id, ids in opened.items() for device_id in ids}
    assert {pair for pair in accused if pair[0] != "check-in"} <= guilty
