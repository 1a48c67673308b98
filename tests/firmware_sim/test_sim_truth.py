"""The truth files: consistent with the track, with another library's geometry, and with what devices say."""

import dataclasses
from collections import Counter
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyproj import Geod, Transformer
from shapely import LineString, Polygon, points

from firmware_sim.city import CURFEWS, City, Zone
from firmware_sim.codec import NO_FIX
from firmware_sim.exact import signed_distance_m
from firmware_sim.fleet import Fleet
from firmware_sim.scenario import build, load
from firmware_sim.truth import TruthWriter

START_S = 1_780_000_000
GEOD = Geod(ellps="WGS84")


@dataclasses.dataclass
class Lived:
    city: City
    fleet: Fleet
    track: dict[str, np.ndarray]
    stays: list[dict]
    breaks: list[dict]
    samples: list[tuple[str, int, int, int]]  # device, boot, seq, time_ms
    end_us: int


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """Thirty hours of a stormy city with its truth."""
    path: Path = tmp_path_factory.mktemp("truth") / "run.parquet"
    city = build(load("storm"), 60, 21)
    fleet = Fleet(city, 21, START_S)
    writer = TruthWriter(path, fleet)
    samples = []
    for _ in range(720 * 30):
        burst = fleet.step()
        writer.add(burst)
        for i, sample in zip(burst.due, burst.samples, strict=True):
            boot = int(fleet.devices["boot"][i])
            samples.append((city.device_ids[i], boot, int(sample["seq"]), int(sample["time_ms"])))
    writer.close()
    table = pq.read_table(path)
    track = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    track["device_id"] = track["device_id"].astype("U6")
    stays = pq.read_table(path.with_suffix(".zones.parquet")).to_pylist()
    breaks = pq.read_table(path.with_suffix(".breaks.parquet")).to_pylist()
    return Lived(city, fleet, track, stays, breaks, samples, fleet.now_s * 1_000_000)


def other_distance_m(zone: Zone, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """By pyproj's geodesics and shapely's planes: shares nothing with ours."""
    if zone.shape == "circle":
        n = len(lon)
        at_lon, at_lat = np.full(n, zone.lon_lat[0, 0]), np.full(n, zone.lon_lat[0, 1])
        return GEOD.inv(lon, lat, at_lon, at_lat)[2] - zone.radius_m
    lon_0, lat_0 = zone.lon_lat.mean(axis=0)
    plane = Transformer.from_crs("EPSG:4326", f"+proj=aeqd +lon_0={lon_0} +lat_0={lat_0}", always_xy=True)
    shape = np.stack(plane.transform(zone.lon_lat[:, 0], zone.lon_lat[:, 1]), axis=-1)
    at = points(np.stack(plane.transform(lon, lat), axis=-1))
    if zone.shape == "corridor":
        return LineString(shape).distance(at) - zone.radius_m
    polygon = Polygon(shape)
    return (
        np.where(polygon.contains(at), -polygon.exterior.distance(at), polygon.distance(at)) - zone.buffer_m
    )


def test_our_slow_geometry_agrees_with_pyproj_and_shapely(lived: Lived) -> None:
    rng = np.random.default_rng(3)
    for zone in lived.city.zones[::7] + lived.city.zones[-18:]:
        middle = zone.lon_lat[rng.integers(0, len(zone.lon_lat), 400)]
        lon, lat = (middle + rng.uniform(-0.003, 0.003, (400, 2))).T
        ours, theirs = signed_distance_m(zone, lon, lat), other_distance_m(zone, lon, lat)
        near = np.abs(theirs) < 500
        # the corridor's plane is that of a ten-kilometre river
        assert np.abs(ours - theirs)[near].max() < (0.05 if zone.shape == "corridor" else 0.01)


def test_the_track_has_every_sample_with_its_time(lived: Lived) -> None:
    seq = lived.track["seq"]
    of_sample = ~np.isnan(seq.astype(float))
    rows = {
        (str(device_id), int(boot), int(seq)): int(time_us)
        for device_id, boot, seq, time_us in zip(
            lived.track["device_id"][of_sample],
            lived.track["boot"][of_sample],
            seq[of_sample],
            lived.track["time_us"][of_sample],
            strict=True,
        )
    }
    assert len(rows) == len(lived.samples)
    for device_id, boot, number, time_ms in lived.samples:
        # a device's clock drifts by 20 ppm since its last GNSS fix
        assert abs(rows[device_id, boot, number] / 1000 - time_ms) <= 2000
    off_rows = int((~of_sample).sum())
    assert (off_rows > 0) == any(entry["kind"] == "off" for entry in lived.breaks)


def test_stays_are_where_the_track_is(lived: Lived) -> None:
    stays: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for stay in lived.stays:
        until = np.inf if stay["to_us"] is None else stay["to_us"]
        stays.setdefault((stay["device_id"], stay["zone_id"]), []).append(
            (stay["from_us"], until, stay["deepest_m"])
        )
    assert len(lived.stays) > 150
    checked = 0
    for device_id in np.unique(lived.track["device_id"])[::2]:
        mine = lived.track["device_id"] == device_id
        time_us, lon, lat = (lived.track[name][mine] for name in ("time_us", "lon", "lat"))
        for zone in lived.city.zones:
            if zone.layer == "homes" and zone.id != f"home-{device_id}":
                continue
            distance = other_distance_m(zone, lon, lat)
            inside = np.zeros(len(lon), bool)
            deepest = 0.0
            for from_us, to_us, deepest_m in stays.get((device_id, zone.id), []):
                inside |= (time_us >= from_us) & (time_us <= to_us)
                deepest = max(deepest, deepest_m)
            clear = np.abs(distance) > 0.2  # at the edge itself the centimetres decide
            assert np.array_equal(inside[clear], (distance < 0)[clear]), (device_id, zone.id)
            assert deepest >= -distance.min() - 0.2
            checked += int(inside.sum())
    assert checked > 5_000


def test_stays_of_one_device_in_one_zone_do_not_overlap(lived: Lived) -> None:
    last: dict[tuple[str, str], int] = {}
    for stay in sorted(lived.stays, key=lambda stay: stay["from_us"]):
        pair = stay["device_id"], stay["zone_id"]
        until_us = lived.end_us if stay["to_us"] is None else stay["to_us"]
        assert last.get(pair, 0) <= stay["from_us"] <= stay["deepest_us"] <= until_us
        last[pair] = until_us


def test_every_break_follows_from_a_rule_and_the_stays(lived: Lived) -> None:
    city, kinds = lived.city, Counter(entry["kind"] for entry in lived.breaks)
    assert {"zone", "curfew", "strap", "foil"} <= set(kinds)
    index = {device_id: i for i, device_id in enumerate(city.device_ids)}
    spans = {(s["device_id"], s["zone_id"], s["from_us"]): s for s in lived.stays}
    expected = sum(
        (stay["zone_id"].startswith("school") and city.people["school_exclusion"][index[stay["device_id"]]])
        or (stay["zone_id"].startswith("victim") and city.people["no_contact"][index[stay["device_id"]]])
        for stay in lived.stays
    )
    assert kinds["zone"] == expected
    for entry in lived.breaks:
        if entry["kind"] == "zone":
            stay = spans[entry["device_id"], entry["zone_id"], entry["from_us"]]
            assert (entry["to_us"], entry["deepest_m"]) == (stay["to_us"], stay["deepest_m"])
            assert entry["rule_id"] == ("schools" if entry["zone_id"].startswith("school") else "victim")


def test_curfew_breaks_are_the_time_away_from_home_within_the_hours(lived: Lived) -> None:
    zone = ZoneInfo(lived.city.timezone)
    for i, device_id in enumerate(lived.city.device_ids):
        mine = lived.track["device_id"] == device_id
        if not mine.any():
            continue
        _, from_min, until_min = CURFEWS[lived.city.people["curfew"][i]]
        home = next(z for z in lived.city.zones if z.id == f"home-{device_id}")
        distance = other_distance_m(home, lived.track["lon"][mine], lived.track["lat"][mine])
        spans = [
            (e["from_us"], lived.end_us if e["to_us"] is None else e["to_us"])
            for e in lived.breaks
            if e["device_id"] == device_id and e["kind"] == "curfew"
        ]
        for time_us, metres in zip(lived.track["time_us"][mine], distance, strict=True):
            local = datetime.fromtimestamp(time_us / 1e6, zone)
            second = local.hour * 3600 + local.minute * 60 + local.second
            holds = second >= from_min * 60 or second < until_min * 60
            broken = any(from_us <= time_us <= to_us for from_us, to_us in spans)
            if abs(metres) > 0.2:
                assert broken == (holds and metres > 0), (device_id, local, metres)


def test_a_strap_break_begins_shortly_before_the_device_reports_it(tmp_path: Path) -> None:
    plan = load("city")
    city = build(plan, 30, 2)
    fleet = Fleet(city, 2, START_S)
    writer = TruthWriter(tmp_path / "run.parquet", fleet)
    reported: dict[int, int] = {}
    for _ in range(60):
        burst = fleet.step()
        writer.add(burst)
        for i, sample in zip(burst.due, burst.samples, strict=True):
            if sample["status"] & 1:
                reported.setdefault(int(i), int(sample["time_ms"]) * 1000)
    true = {entry.device: entry.from_us for entry in writer.breaks() if entry.kind == "strap"}
    writer.close()
    assert len(true) == plan.opening.straps
    assert true.keys() == reported.keys()
    for i, from_us in true.items():
        assert 0 <= reported[i] - from_us <= 10_000_000


def test_the_true_position_is_what_the_receiver_scatters_around() -> None:
    """At each device's own moment, not at the tick: else a car at 15 m/s would be 70 m off."""
    city = build(load("city"), 300, 3)
    fleet = Fleet(city, 3, 1_779_966_000)  # 07:00 local: many are on the way
    off = []
    for _ in range(400):
        burst = fleet.step()
        good = (burst.samples["lat_e7"] != NO_FIX) & (burst.samples["status"] >> 8 == 0)
        good &= (fleet.wearers["mode"][burst.due] == 4) & (fleet.wearers["around"][burst.due] != 2)
        lon, lat = city.to_degrees(fleet.wearers["x"][burst.due], fleet.wearers["y"][burst.due])
        fix = burst.samples[good]
        off += GEOD.inv(lon[good], lat[good], fix["lon_e7"] / 1e7, fix["lat_e7"] / 1e7)[2].tolist()
    assert len(off) > 200
    assert np.median(off) < 8.0


def test_who_crawls_past_a_school_stays_outside_and_the_truth_says_so(lived: Lived) -> None:
    drives = [entry for entry in lived.breaks if entry["kind"] == "tailgating"]
    assert drives
    for drive in drives:
        until_us = lived.end_us if drive["to_us"] is None else drive["to_us"]
        mine = lived.track["device_id"] == drive["device_id"]
        mine &= (lived.track["time_us"] > drive["from_us"]) & (lived.track["time_us"] < until_us)
        assert mine.any()
        metres = np.min(
            [
                other_distance_m(z, lived.track["lon"][mine], lived.track["lat"][mine])
                for z in lived.city.zones
                if z.layer == "schools"
            ],
            axis=0,
        )
        assert metres.min() == pytest.approx(6.0, abs=0.5)


def test_an_allowed_cradle_breaks_no_rule(lived: Lived) -> None:
    cradles = [entry for entry in lived.breaks if entry["kind"] == "cradle"]
    straps = {e["device_id"] for e in lived.breaks if e["rule_id"] == "strap-wrist"}
    assert {entry["device_id"] for entry in cradles} - straps
    assert all(entry["rule_id"] is None and entry["device_id"].startswith("w") for entry in cradles)


def test_the_same_seed_writes_the_same_truth(tmp_path: Path) -> None:
    def written(name: str, seed: int) -> list[dict[str, list]]:
        path = tmp_path / f"{name}.parquet"
        fleet = Fleet(build(load("storm"), 20, seed), seed, START_S)
        writer = TruthWriter(path, fleet)
        for _ in range(720):
            writer.add(fleet.step())
        writer.close()
        return [
            pq.read_table(path.with_suffix(suffix)).to_pydict()
            for suffix in (".parquet", ".zones.parquet", ".breaks.parquet")
        ]

    once = written("once", 3)
    assert all(table["device_id"] for table in once)
    assert written("again", 3) == once
    assert written("other", 4) != once
