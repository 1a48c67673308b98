"""Random rule sets and tracks for the engine's tests, and the view that its rows add up to."""

from __future__ import annotations

import random

import numpy as np

from geofence import HELD_BACK, NO_FIX, TRANSITION_KINDS, WITHDRAWN, Pings, Ruleset, from_rfc3339, to_rfc3339
from geofence.records import FLAG_INITIAL, FLAG_WITHDRAWN
from tests.naive_engine import Ping

START_US = from_rfc3339("2026-11-24T17:00:00Z")
LON, LAT = -80.84, 35.22
METRE_LAT = 1 / 111_000
METRE_LON = 1 / 91_000
SECOND = 1_000_000


def circle(zone_id, east_m, north_m, radius_m, **properties):
    return {
        "type": "Feature",
        "properties": {"id": zone_id, "radius_m": radius_m, **properties},
        "geometry": {"type": "Point", "coordinates": [LON + east_m * METRE_LON, LAT + north_m * METRE_LAT]},
    }


def box(zone_id, east_m, north_m, width_m, **properties):
    west, south = LON + east_m * METRE_LON, LAT + north_m * METRE_LAT
    east, north = west + width_m * METRE_LON, south + width_m * METRE_LAT
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "properties": {"id": zone_id, **properties},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }


ZONES = {
    "type": "FeatureCollection",
    "features": [
        circle("home", 0, 0, 150),
        circle("work", 900, 100, 120),
        circle("victim", 400, 300, 250),
        *(box(f"school{k}", 300 * k - 900, 150 * (k % 3) - 400, 90, layer="schools") for k in range(8)),
    ],
}


def ruleset(rules, **top):
    return Ruleset.from_document(
        {"zones": ZONES, "rules": {"timezone": "America/New_York", "rules": rules, **top}}
    )


def random_rules(rng: random.Random):
    """A rule set over the zones above."""
    times = [None, "20:00-06:00", "12:10-12:40", "12:05-12:20,12:30-12:50"]
    rules = []

    def add(require, zones=None, layer=None, subjects="device:d0", **more):
        rule = {"id": f"r{len(rules)}", "subjects": [subjects], "require": require}
        rule |= {"zones": zones} if zones else {}
        rule |= {"layer": layer} if layer else {}
        when = rng.choice(times)
        rule |= {"when": when} if when else {}
        rule |= {"grace": f"{rng.choice([1, 3])} min"} if rng.random() < 0.4 else {}
        rule |= {"profile": rng.choice(["strict", "standard", "lenient"])}
        rule |= {"dwell": f"{rng.choice([0, 40, 90])} s"} if rng.random() < 0.4 else {}
        rules.append(rule | more)

    if rng.random() < 0.8:
        zones = rng.choice([["home"], ["home", "work"]])
        add("inside", zones, **({"beacon": True} if len(zones) == 1 and rng.random() < 0.5 else {}))
    if rng.random() < 0.8:
        more = {"warn_m": 80} if rng.random() < 0.3 else {}
        add("outside", rng.choice([["victim"], ["victim", "work"]]), crossing=rng.random() < 0.5, **more)
    if rng.random() < 0.8:
        more = {"warn_m": 60} if rng.random() < 0.3 else {}
        add("outside", layer="schools", subjects="all", crossing=rng.random() < 0.5, **more)
    if rng.random() < 0.4:
        add("none", layer="schools", subjects="all")
    if rng.random() < 0.4:
        add("none", ["home", "victim"])
    for require, more in (
        ("strap_closed", {}),
        ("battery", {"above_pct": 30}),
        ("fix", {"within": "3 min"}),
        ("contact", {"within": "4 min"}),
        ("no_jamming", {}),
        ("plausible_movement", {}),
        ("clock", {"within": "2 min"}),
    ):
        if rng.random() < 0.3:
            add(require, subjects="all", **more)
    for rule in rules:
        if rule["require"] not in {"inside", "outside", "none"}:
            rule.pop("profile")
    leaves = []
    for _ in range(rng.choice([0, 0, 1, 2])):
        from_us = START_US + rng.randrange(0, 3600) * SECOND
        leave = {"subjects": [rng.choice(["all", "device:d0", "device:other"])], "granted_by": "Judge K."}
        leave |= {"from": to_rfc3339(from_us), "until": to_rfc3339(from_us + rng.randrange(1, 1200) * SECOND)}
        named = rng.sample([rule["id"] for rule in rules], min(len(rules), rng.randrange(3)))
        leaves.append(leave | ({"rules": named} if named else {}))
    return ruleset(rules, leaves=leaves)


def random_track(rng: random.Random, length: int, start_us=START_US):
    """Pings of one device that walks, rests, drives, jumps, and is seen by every source."""
    east, north, t = rng.uniform(-300, 900), rng.uniform(-300, 400), start_us
    mode = "walk"
    speaks = rng.choice([0, 0.8])  # how often it tells its speed
    clock_s = rng.choice([0, 0, 0, 180, -150])  # how far its clock is behind
    says_moving = rng.random() < 0.7
    pings = []
    for _ in range(length):
        t += rng.choice([1, 5, 15, 30, 30, 60, 60, 90, 300]) * SECOND + rng.choice([0, 0, 123_456])
        if pings and rng.random() < 0.15:  # several pings of one fix time
            t = pings[-1].time_us
        if rng.random() < 0.2:
            mode = rng.choice(["walk", "rest", "drive"])
        step = {"walk": 40, "rest": 0, "drive": 350}[mode]
        east = min(max(east + rng.gauss(0, step), -1100), 1400)
        north = min(max(north + rng.gauss(0, step), -700), 700)
        source = rng.choices([0, 1, 2, 3], [80, 8, 8, 4])[0]
        accuracy_m = rng.choice([0.5, 4, 8, 15, 30, 60]) if source == 0 else rng.choice([10, 40, 150, 700])
        noise = accuracy_m / 1.5 if source == 0 else accuracy_m
        if source in (1, 2) and pings and rng.random() < 0.4 and pings[-1].has_fix:
            lon_e7, lat_e7 = pings[-1].lon_e7, pings[-1].lat_e7
        else:
            lon_e7 = round((LON + (east + rng.gauss(0, noise)) * METRE_LON) * 1e7)
            lat_e7 = round((LAT + (north + rng.gauss(0, noise)) * METRE_LAT) * 1e7)
        if rng.random() < 0.03:
            lat_e7 += rng.choice([-1, 1]) * round(rng.uniform(100, 400) * METRE_LAT * 1e7)  # a wild fix
        if rng.random() < 0.04:
            lon_e7 += rng.choice([-1, 1]) * 5_000_000  # a jump of 45 km
        if rng.random() < 0.1:
            lon_e7 = lat_e7 = NO_FIX
        status = source << 8
        status |= 1 if rng.random() < 0.08 else 0
        status |= 8 if mode != "rest" and says_moving else 0
        status |= 16 if abs(east) < 60 and abs(north) < 60 else 0
        status |= 32 if rng.random() < 0.08 else 0
        accuracy_mm = -1 if rng.random() < 0.1 else round(accuracy_m * 1000)
        battery = rng.choice([255, 20, 28, 32, 34, 40, 80])
        speed = 65_535
        if source == 0 and rng.random() < speaks:
            speed = round(100 * step / 30 * rng.uniform(0.5, 1.5))
        delay_s = clock_s + rng.choice([0, 0, 1, 40, 900])
        status |= 128 if delay_s - clock_s == 900 and rng.random() < 0.5 else 0
        pings.append(Ping(t, lon_e7, lat_e7, accuracy_mm, status, battery, speed, t + delay_s * SECOND))
    return pings


def columns(devices, tracks):
    """Pings of many devices ({device id: [Ping]}) as one batch, by device."""
    rows = [
        (devices.slot(device_id), seq, p)
        for device_id, pings in tracks.items()
        for seq, p in enumerate(pings)
    ]
    return Pings.of(
        devices,
        device=[r[0] for r in rows],
        seq=[r[1] for r in rows],
        boot=[0] * len(rows),
        fix_time_us=[r[2].time_us for r in rows],
        received_time_us=[r[2].time_us if r[2].received_us is None else r[2].received_us for r in rows],
        speed_cmps=[r[2].speed for r in rows],
        lon_e7=[r[2].lon_e7 for r in rows],
        lat_e7=[r[2].lat_e7 for r in rows],
        accuracy_mm=[r[2].accuracy_mm for r in rows],
        status=[r[2].status for r in rows],
        battery_pct=[r[2].battery for r in rows],
    )


class View:
    """What the rows of many calls add up to: the current, unsuperseded view."""

    def __init__(self):
        self.rows, self.moves, self.open = {}, {}, {}

    def add(self, decided):
        for row in (row for part in decided.parts for row in part.violations):
            key = int(row["violation_id"])
            known = self.rows.get(key)
            assert known is None or row["revision"] > known["revision"], "revisions count up"
            self.rows[key] = row.copy()
        for row in (row for part in decided.parts for row in part.transitions):
            key = (
                int(row["device"]),
                int(row["time_us"]),
                int(row["zone"]),
                int(row["kind"]),
                int(row["confirmed_us"]),
            )
            if row["flags"] & FLAG_WITHDRAWN:
                assert key in self.moves, "what is taken back was said before"
                del self.moves[key]
            else:
                self.moves[key] = bool(row["flags"] & FLAG_INITIAL)
        return decided

    def violations(self, device=None):
        """In the oracle's words, sorted as it sorts."""
        found = []
        held = {k for k, row in self.rows.items() if row["change"] == HELD_BACK}
        for key, told in self.rows.items():
            row = self.open.get(key, told)
            if row["change"] == WITHDRAWN or (device is not None and row["device"] != device):
                continue
            found.append(
                {
                    "rule": int(row["rule"]),
                    "zone": int(row["zone"]),
                    "opened": int(row["opened_us"]),
                    "confirmed": int(row["confirmed_us"]),
                    "closed": int(row["closed_us"]),
                    "ppm": int(row["confidence_ppm"]),
                    "depth": int(row["depth_mm"]),
                    "depth_error": int(row["depth_error_mm"]),
                    "fixes": int(row["fixes"]),
                    "held": key in held,
                }
            )
        return sorted(
            found, key=lambda v: (v["opened"], v["rule"], v["zone"], v["held"], v["confirmed"], v["closed"])
        )

    def transitions(self, device=None):
        return sorted(
            (t, zone, TRANSITION_KINDS[kind], confirmed, initial)
            for (slot, t, zone, kind, confirmed), initial in self.moves.items()
            if device is None or slot == device
        )


class NamedView:
    """The current view over changes of rules: by names, since numbers change with the rules."""

    def __init__(self):
        self.rows, self.moves = {}, {}

    def add(self, decided):
        for part in decided.parts:
            rules, zones = part.ruleset.rule_ids, part.ruleset.zones.ids
            for row in part.violations:
                key = int(row["violation_id"])
                assert key not in self.rows or row["revision"] > self.rows[key][0]["revision"]
                zone = zones[row["zone"]] if row["zone"] >= 0 else None
                self.rows[key] = row.copy(), rules[row["rule"]], zone
            for row in part.transitions:
                key = (int(row["time_us"]), zones[row["zone"]], int(row["kind"]), int(row["confirmed_us"]))
                if row["flags"] & FLAG_WITHDRAWN:
                    del self.moves[key]
                else:
                    self.moves[key] = bool(row["flags"] & FLAG_INITIAL)
        return decided

    def named(self):
        """What stands: violations as (opened, rule, zone, confirmed, closed, held back), and transitions."""
        found = []
        for row, rule_id, zone_id in self.rows.values():
            if row["change"] != WITHDRAWN:
                times = [int(row[name]) for name in ("opened_us", "confirmed_us", "closed_us")]
                held = bool(row["change"] == HELD_BACK)
                found.append((times[0], rule_id, zone_id or "", *times[1:], held))
        return sorted(found), sorted(self.moves.items())


def open_rows_agree(engine, view):
    """What the engine says is open is what the rows say is open; its rows are the newer ones."""
    view.open = {int(row["violation_id"]): row for row in engine.open_violations()}
    stands = {
        k for k, r in view.rows.items() if r["change"] not in (WITHDRAWN, HELD_BACK) and r["closed_us"] < 0
    }
    assert set(engine.open_violations()["violation_id"].tolist()) == stands


def split(rng, pings, parts):
    """A batch cut at random places."""
    cuts = sorted(rng.randrange(len(pings) + 1) for _ in range(parts - 1))
    return [pings.take(slice(a, b)) for a, b in zip([0, *cuts], [*cuts, len(pings)], strict=True)]


def by_time(pings):
    return pings.take(np.argsort(pings.fix_time_us, kind="stable"))
