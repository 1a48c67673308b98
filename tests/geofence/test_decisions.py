"""The worked cases of docs/decisions.md; each test names the sentence that it shows."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest

from geofence import (
    AMENDED,
    CLOSED,
    HELD_BACK,
    NO_FIX,
    NO_TIME,
    OPENED,
    TRANSITION_KINDS,
    WITHDRAWN,
    Devices,
    Engine,
    Pings,
    Ruleset,
    SnapshotError,
    from_rfc3339,
    sentence,
    to_rfc3339,
)
from geofence.calls import call_times
from geofence.nearindex import NearIndex
from geofence.records import FLAG_INITIAL, FLAG_LATE
from tests.geofence.engine_worlds import (
    LAT,
    LON,
    METRE_LAT,
    METRE_LON,
    START_US,
    NamedView,
    circle,
    columns,
    random_rules,
    random_track,
    ruleset,
)

STRAP, MOVING, BEACON, JAMMING, BUFFERED = 1, 8, 16, 32, 128
WIFI, CELL = 1 << 8, 2 << 8
MINUTE = 60_000_000
SURE = 997_527  # log-odds 6


class Bench:
    """One device under test: ``at(minute, east_m, north_m)`` sends a ping and keeps what is said."""

    def __init__(self, *rules, device="d0", start_us=START_US, **top):
        self.rules = rules[0] if rules and isinstance(rules[0], Ruleset) else ruleset(list(rules), **top)
        self.engine = Engine(self.rules)
        self.slot = self.engine.devices.slot(device)
        self.start_us = start_us
        self.rows, self.moves, self.sent = [], [], []
        self.seq = 0

    def take(self, decided):
        self.rows += list(decided.violations)
        self.moves += list(decided.transitions)
        return decided

    def ping(
        self,
        minute,
        east_m=None,
        north_m=0,
        *,
        accuracy_m=5.0,
        status=0,
        battery=255,
        speed_mps=None,
        received_minute=None,
    ):
        self.seq += 1
        lon = NO_FIX if east_m is None else round((LON + east_m * METRE_LON) * 1e7)
        lat = NO_FIX if east_m is None else round((LAT + north_m * METRE_LAT) * 1e7)
        ping = Pings.of(
            self.engine.devices,
            device=[self.slot],
            seq=[self.seq],
            fix_time_us=[self.start_us + round(minute * MINUTE)],
            lon_e7=[lon],
            lat_e7=[lat],
            accuracy_mm=[-1 if accuracy_m is None else round(accuracy_m * 1000)],
            status=[status],
            battery_pct=[battery],
            speed_cmps=[65_535 if speed_mps is None else round(speed_mps * 100)],
            received_time_us=[
                self.start_us + round((minute if received_minute is None else received_minute) * MINUTE)
            ],
        )
        self.sent.append(ping)
        return ping

    def at(self, minute, east_m=None, north_m=0, **more):
        return self.take(self.engine.check(self.ping(minute, east_m, north_m, **more)))

    def tick(self, minute, **more):
        return self.take(self.engine.tick(self.start_us + round(minute * MINUTE), **more))

    def minutes(self, time_us):
        return None if time_us == NO_TIME else (int(time_us) - self.start_us) / MINUTE

    def story(self):
        """(change, opened, confirmed, closed) of each row, in minutes."""
        names = ("opened_us", "confirmed_us", "closed_us")
        return [(int(r["change"]), *(self.minutes(r[name]) for name in names)) for r in self.rows]

    def track(self):
        return [(TRANSITION_KINDS[m["kind"]], self.minutes(m["time_us"])) for m in self.moves]

    def confidence(self, zone="home"):
        return next(b["confidence"] for b in self.engine.belief("d0") if b["zone_id"] == zone)

    def log_odds(self, zone="home"):
        return next(b["log_odds"] for b in self.engine.belief("d0") if b["zone_id"] == zone)


def rule(require, *zones, **more):
    found = {"id": "r", "subjects": ["device:d0"], "require": require, **more}
    return found | ({"zones": list(zones)} if zones else {})


HOME = rule("inside", "home")
AWAY = rule("outside", "victim")
VISIT_M = 190  # east: 40 m past the line of AWAY
DRIVING = {"status": MOVING, "speed_mps": 6, "accuracy_m": None}
PARKED = {"speed_mps": 0.1, "accuracy_m": None}


def test_2_1_an_outside_rule_has_a_violation_for_each_zone():
    bench = Bench(two_zone_rules("outside"))
    bench.at(0, 400, 300)
    assert [(r["zone"], r["change"]) for r in bench.rows] == [(0, OPENED), (1, OPENED)]


def two_zone_rules(require):
    zones = {
        "type": "FeatureCollection",
        "features": [circle("a", 400, 300, 200), circle("b", 450, 300, 280)],
    }
    rules = {"rules": [rule(require, "a", "b")]}
    return Ruleset.from_document({"zones": zones, "rules": rules})


def test_2_2_an_inside_rule_has_one_and_names_the_nearest_zone():
    bench = Bench(two_zone_rules("inside"))
    bench.at(0, 260, 300)  # in both
    bench.at(1, 185, 300)  # in b alone: lawful
    assert not bench.rows
    bench.at(2, -100, 300)
    assert [(r["zone"], r["change"]) for r in bench.rows] == [(1, OPENED)]
    bench.at(3, 400, 300)
    assert bench.story()[-1] == (CLOSED, 2, 2, 3)


def test_2_3_a_condition_names_no_zone():
    bench = Bench(rule("strap_closed"))
    bench.at(0, 0, status=STRAP)
    assert bench.rows[0]["zone"] == -1
    assert bench.rows[0]["confidence_ppm"] == 1_000_000


def test_2_4_and_2_5_openings_and_closings_are_dated_by_their_stretch():
    bench = Bench(HOME)
    bench.at(0, 0)
    for minute in (1, 2, 3, 4):
        bench.at(minute, 160)  # 10 m past the line, two errors: not deep
    assert [b for b in bench.story() if b[0] == OPENED] == [(OPENED, 1, 4, None)]
    for minute in (5, 6, 7):
        bench.at(minute, 135)
    assert bench.story()[-1][0] == CLOSED
    assert bench.story()[-1][3] == 5
    assert bench.track() == [("ENTER", 0), ("EXIT", 1), ("ENTER", 5)]


def fates(bench):
    """(violation, revision, change, opened, closed) of each row: the violation by number, times in 1 µs."""
    numbers = {}
    return [
        (
            numbers.setdefault(int(r["violation_id"]), len(numbers)),
            int(r["revision"]),
            int(r["change"]),
            int(r["opened_us"]) - bench.start_us,
            None if r["closed_us"] == NO_TIME else int(r["closed_us"]) - bench.start_us,
        )
        for r in bench.rows
    ]


TWICE_AT_ONCE = [(0, 0, OPENED, 0, None), (0, 1, CLOSED, 0, 0), (1, 0, OPENED, 1, None)]


def test_2_5_a_second_opening_at_one_time_is_another_violation():
    bench = Bench(rule("strap_closed"))
    for status in (STRAP, 0, STRAP):
        bench.at(0, 0, status=status)
        bench.engine = Engine.restore(bench.rules, bench.engine.snapshot())
    assert fates(bench) == TWICE_AT_ONCE
    assert bench.engine.open_violations()["violation_id"].tolist() == [bench.rows[2]["violation_id"]]
    bench.at(0, 0, status=STRAP)
    bench.at(0, 0)
    assert fates(bench) == [*TWICE_AT_ONCE, (1, 1, CLOSED, 1, 1)]
    assert len(bench.engine.open_violations()) == 0


@pytest.mark.parametrize("subjects", ["device:d0", "all"])
@pytest.mark.parametrize(("require", "zone"), [("outside", "victim"), ("inside", "home")])
def test_2_5_so_it_is_with_zones_in_reach_and_out_of_it(subjects, require, zone):
    bench = Bench(rule(require, zone, subjects=[subjects], profile="strict"))
    wrong, right = ((400, 300), (-900, 300)) if require == "outside" else ((900, 0), (0, 0))
    for east_m, north_m in (wrong, right, right, wrong, wrong):
        bench.at(0, east_m, north_m)
    assert fates(bench) == TWICE_AT_ONCE


def test_2_5_none_opens_on_the_end_of_its_window():
    bench = Bench(rule("strap_closed", when="12:00-12:01"))
    for status in (STRAP, 0, STRAP):
        bench.at(1 - 1 / MINUTE, 0, status=status)
    last = MINUTE - 1
    assert fates(bench) == [(0, 0, OPENED, last, None), (0, 1, CLOSED, last, last)]
    assert len(bench.engine.open_violations()) == 0


@pytest.mark.parametrize("subjects", ["device:d0", "all"])
def test_2_6_a_crossing_and_a_stretch_that_begins_at_its_time_are_two(subjects):
    bench = Bench(rule("outside", "victim", crossing=True, subjects=[subjects]))
    bench.at(0, 100, 300)
    bench.at(1, 670, 300)
    bench.at(1, 605, 300)
    assert [row[:3] for row in fates(bench)] == [(0, 0, OPENED), (0, 1, CLOSED), (1, 0, OPENED)]
    assert bench.story()[2][1] == 1


def test_2_6_the_id_follows_from_names_and_opening():
    bench = Bench(AWAY)
    bench.at(0, 400, 300)
    text = f"d0\0r\0victim\0{bench.start_us}".encode()
    expected = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
    assert bench.rows[0]["violation_id"] == expected


def test_2_7_a_near_violation_is_recorded_as_held_back():
    bench = Bench(HOME)
    bench.at(0, 0)
    bench.at(1, 160)
    bench.at(2, 160)
    bench.at(3, 0)
    assert bench.story() == [(HELD_BACK, 1, 3, 3)]
    assert 0 < bench.rows[0]["confidence_ppm"] < 500_000
    assert bench.rows[0]["depth_mm"] == pytest.approx(10_000, abs=700)
    assert len(bench.engine.open_violations()) == 0
    assert sentence(bench.rules, bench.engine.devices, bench.rows[0]).startswith(
        "held back, not sure enough: d0 outside home by 10 m"
    )


def test_2_7_nothing_is_held_back_while_the_rule_is_not_in_force():
    bench = Bench(rule("inside", "home", when="20:00-06:00"))
    bench.at(0, 0)
    bench.at(1, 160)
    bench.at(2, 0)
    assert not bench.rows


def test_2_8_a_lasting_violation_says_its_newest_numbers():
    bench = Bench(HOME)
    bench.at(0, 0)
    for minute in range(1, 21):
        bench.at(minute, 190 + 10 * minute, status=MOVING)
    rows = [r for r in bench.rows if r["change"] == AMENDED]
    assert [(int(r["fixes"]), round(r["depth_mm"] / 1000, -1)) for r in rows] == [
        (4, 80), (6, 100), (8, 120), (16, 200),
    ]  # fmt: skip
    assert [int(r["revision"]) for r in bench.rows] == [0, 1, 2, 3, 4]
    assert all(r["flags"] == 0 and r["closed_us"] == NO_TIME for r in rows)
    bench.at(30, 0, status=MOVING)
    assert bench.story()[-1][0] == CLOSED


@pytest.mark.parametrize("accuracy_m", [0, 0.001, 4.999, 5])
def test_3_1_an_absurd_accuracy_counts_as_the_floor(accuracy_m):
    bench = Bench(HOME)
    bench.at(0, 0)
    bench.at(1, 170, accuracy_m=accuracy_m)  # four floored errors: not deep
    assert not bench.rows
    bench.at(2, 180, accuracy_m=accuracy_m)  # six: deep
    assert bench.story()[-1][0] == OPENED
    assert bench.rows[-1]["depth_error_mm"] == 5_000


def test_3_1_an_unknown_accuracy_counts_as_15_m():
    bench = Bench(HOME)
    bench.at(0, 0)
    bench.at(1, 220, accuracy_m=None)
    assert not bench.rows
    bench.at(2, 230, accuracy_m=None)
    assert bench.rows[0]["depth_error_mm"] == 15_000


@pytest.mark.parametrize(("speed_mps", "error_mm"), [(None, 15_000), (0.99, 20_000), (1.0, 15_000)])
def test_3_1_an_unknown_accuracy_at_rest_counts_as_20_m(speed_mps, error_mm):
    bench = Bench(AWAY)
    bench.at(0, 400, 300, accuracy_m=None, speed_mps=speed_mps)
    assert [r["depth_error_mm"] for r in bench.rows] == [error_mm]


def test_3_2_fixes_close_in_time_are_hardly_more_than_one():
    bench = Bench(HOME)
    bench.at(0, 0)
    bench.at(1, 160)
    after_one = bench.log_odds()
    for k in range(10):
        bench.at(1 + (k + 1) / 600, 160)
    assert after_one == pytest.approx(-6 + 4 * (1 - np.exp(-1)), abs=0.01)
    assert bench.log_odds() - after_one < 0.08


def test_3_2_a_visit_of_two_minutes_by_car_is_found_without_an_accuracy():
    bench = Bench(AWAY)
    for k in range(12):
        bench.at(k / 6 - 2, VISIT_M - 60 * (12 - k), 300, **DRIVING)
    assert bench.log_odds("victim") == -6
    bench.at(0, VISIT_M, 300, **DRIVING)
    one = 4 * (1 - np.exp(-10 / 15))
    assert bench.log_odds("victim") == pytest.approx(-4 + one, abs=0.02)
    bench.at(1 / 6, VISIT_M, 300, **PARKED)
    assert bench.log_odds("victim") == pytest.approx(-4 + 2 * one, abs=0.02)
    bench.at(7 / 6, VISIT_M, 300, **PARKED)
    assert openings(bench) == []
    bench.at(13 / 6, VISIT_M, 300, **PARKED)
    assert openings(bench) == [(0, 13 / 6)]
    assert bench.log_odds("victim") == pytest.approx(3.04, abs=0.02)


def test_3_2_of_a_resting_device_fixes_10_s_apart_stay_one_sixth_of_news():
    bench = Bench(AWAY)
    bench.at(0, VISIT_M - 120, 300, speed_mps=0.2, accuracy_m=15)
    bench.at(1 / 6, VISIT_M, 300, speed_mps=0.9, accuracy_m=15)
    assert bench.log_odds("victim") == pytest.approx(-6 + 4 * (1 - np.exp(-10 / 60)), abs=0.02)


@pytest.mark.parametrize(("minute_of_movement", "memory_s"), [(-9, 120), (5.5, 60), (None, 60)])
def test_3_2_of_one_who_stood_still_errors_stay_for_two_minutes(minute_of_movement, memory_s):
    """A device that tells movement, and moved long ago, just now, or never said anything of it."""
    bench = Bench(AWAY)
    if minute_of_movement == -9:
        bench.at(-9, status=MOVING)
    for k in range(6):
        bench.at(k, VISIT_M - 50, 300, accuracy_m=20)
    assert bench.log_odds("victim") < -3
    before = bench.log_odds("victim")
    if minute_of_movement == 5.5:
        bench.at(5.5, status=MOVING)
    bench.at(6, VISIT_M, 300, accuracy_m=20)
    assert bench.log_odds("victim") - before == pytest.approx(4 * (1 - np.exp(-60 / memory_s)), abs=0.02)


def test_3_3_a_cached_network_fix_weighs_a_tenth():
    gains = []
    for east_2 in (200, 201):
        bench = Bench(HOME)
        bench.at(0, 0)
        bench.at(1, 200, status=WIFI, accuracy_m=60)
        before = bench.log_odds()
        bench.at(1.1, east_2, status=WIFI, accuracy_m=60)
        gains.append(bench.log_odds() - before)
    assert 0 <= gains[0] < gains[1] / 5 or gains == [0, 0]


@pytest.mark.parametrize("source", [WIFI, CELL])
def test_3_4_a_network_fix_of_700_m_breaks_no_home_zone_however_often(source):
    bench = Bench(HOME)
    bench.at(0, 0)
    for minute in range(1, 600):
        bench.at(minute, 1200 + minute % 7, status=source, accuracy_m=700)
    assert not [row for row in bench.rows if row["change"] == OPENED]
    assert bench.log_odds() <= -4  # -6 and the best of them alone, 2


def test_3_4_nor_does_it_before_anything_else_is_known():
    bench = Bench(HOME)
    for minute in range(200):
        bench.at(minute, 1200 + minute % 7, status=CELL, accuracy_m=700)
    assert not bench.rows
    bench.at(300, 9_000, status=CELL, accuracy_m=700)  # deep
    assert bench.story()[0][0] == OPENED


def test_3_4_nor_do_both_network_sources_together():
    bench = Bench(HOME)
    for minute in range(200):
        bench.at(minute, 290 + minute % 7, status=WIFI if minute % 2 else CELL, accuracy_m=150)
    assert not bench.rows
    assert 0 < bench.log_odds() <= 2


def test_3_5_a_deep_incursion_opens_with_its_first_ping():
    bench = Bench(AWAY)
    bench.at(0, -300)
    bench.at(5, 400, 300)
    assert bench.story() == [(OPENED, 5, 5, None)]
    assert bench.rows[0]["depth_mm"] == 250_000
    assert bench.rows[0]["confidence_ppm"] == SURE
    bench.at(10, -300)
    assert bench.story()[-1] == (CLOSED, 5, 5, 10)


def test_3_5_the_very_first_ping_of_a_device_can_open():
    bench = Bench(AWAY)
    bench.at(0, 400, 300)
    assert bench.story() == [(OPENED, 0, 0, None)]


def test_3_6_an_impossible_jump_waits_for_a_second_fix():
    bench = Bench(HOME)
    bench.at(0, 0)
    bench.at(0.5, 40_000)
    assert not bench.rows
    bench.at(1, 0)
    assert not bench.rows  # it was nothing
    bench.at(1.5, 40_000)
    bench.at(2, 40_010)
    assert bench.story() == [(OPENED, 2, 2, None)]


def openings(bench):
    return [row[1:3] for row in bench.story() if row[0] == OPENED]


def test_3_5_one_deep_wifi_fix_opens_nothing_nor_does_a_cached_one_repeated():
    bench = Bench(HOME)
    bench.at(0, 0)
    for minute in range(1, 60):
        bench.at(minute, 500, status=WIFI, accuracy_m=40)  # 350 m past the line, again and again to the digit
    assert openings(bench) == []


def test_3_5_a_wearer_who_is_away_is_found_by_network_fixes_alone():
    bench = Bench(HOME)
    bench.at(0, 0)
    for minute in range(1, 4):
        bench.at(5 * minute, 5_000 + 100 * minute, status=WIFI, accuracy_m=40)
    assert openings(bench) == [(5, 10)]


@pytest.mark.parametrize("status", [0, MOVING])
def test_3_6_1_who_may_have_come_so_far_opens_at_the_first_ping(status):
    bench = Bench(AWAY)
    bench.at(0, -300, status=status)
    bench.at(5, 400, 300, status=status)
    assert openings(bench) == [(5, 5)]


def test_3_6_2_a_walker_does_not_jump_but_a_driver_gets_there():
    walker = Bench(AWAY)
    walker.at(0, 120, 300, status=MOVING, speed_mps=1.4, accuracy_m=2)
    walker.at(1 / 6, 320, 300, status=MOVING, speed_mps=1.4, accuracy_m=2)  # 200 m in 10 s
    walker.at(2 / 6, 130, 300, status=MOVING, speed_mps=1.4, accuracy_m=2)
    assert walker.rows == []
    driver = Bench(AWAY)
    driver.at(0, 120, 300, status=MOVING, speed_mps=14)
    driver.at(1 / 6, 320, 300, status=MOVING, speed_mps=14)
    assert openings(driver) == [(1 / 6, 1 / 6)]


def at_rest(bench, east_m=0, north_m=0):
    """A device that is known to report movement has come to rest."""
    bench.at(0, east_m, north_m, status=MOVING)
    bench.at(1, east_m, north_m)


def test_3_6_3_a_wild_fix_of_a_resting_device_opens_nothing():
    bench = Bench(HOME)
    at_rest(bench)
    bench.at(6, 350, accuracy_m=2)  # claims 2 m, is 350 m off
    bench.at(11, 0)
    assert bench.rows == []
    bench.at(16, 351, accuracy_m=2)
    bench.at(21, 353, accuracy_m=2)  # it is borne out
    assert openings(bench) == [(21, 21)]


@pytest.mark.parametrize(("status", "more"), [(MOVING, {}), (0, {"speed_mps": 1.2}), (0, {"minute": 12})])
def test_3_6_3_who_moved_or_was_silent_opens_at_the_first_ping(status, more):
    bench = Bench(HOME)
    at_rest(bench)
    minute = more.pop("minute", 6)
    bench.at(minute, 350, status=status, **more)
    assert openings(bench) == [(minute, minute)]


def test_3_6_3_movement_counts_since_the_last_good_fix_also_without_a_position():
    bench = Bench(HOME)
    at_rest(bench)
    bench.at(2, None, status=MOVING)
    bench.at(3, 350)
    assert openings(bench) == [(3, 3)]


def test_3_6_3_the_beacon_in_range_of_both_fixes_holds_the_wearer_too():
    bench = Bench(AWAY)
    bench.at(0, 120, 300, status=BEACON)
    bench.at(5, 400, 300, status=BEACON)
    assert bench.rows == []
    bench.at(10, 400, 300)
    assert openings(bench) == [(10, 10)]


def test_3_6_4_no_network_fix_carries_a_resting_wearer_off():
    bench = Bench(HOME)
    at_rest(bench)
    for minute in range(6, 600, 5):  # as from an access point that was moved
        bench.at(minute, 600 + minute % 7, status=WIFI, accuracy_m=40)
    assert bench.rows == []
    assert bench.log_odds() == -6


def test_3_6_5_a_fast_train_is_believed_and_a_jump_to_and_fro_is_not():
    train = Bench(AWAY)
    for k in range(6):
        train.at(k / 2, -9_560 + 2_490 * k, 300)  # 83 m/s
    assert openings(train) == [(2, 2)]
    jumper = Bench(AWAY)
    for k in range(6):
        jumper.at(k / 2, 400 if k % 2 else -12_000, 300)
    assert openings(jumper) == []


def test_3_7_a_beacon_in_range_is_evidence_of_being_home():
    bench = Bench(rule("inside", "home", beacon=True))
    bench.at(0, None, status=BEACON)
    assert bench.track() == [("ENTER", 0)]
    bench.at(1, 300, status=BEACON)  # the fix is deep outside, but the beacon is in range
    assert not bench.rows
    bench.at(2, 300)
    assert bench.story() == [(OPENED, 2, 2, None)]


def test_3_8_far_is_as_good_as_reach():
    bench = Bench(AWAY)
    bench.at(0, 400, 300)
    bench.at(10, -3_000, -3_000)
    assert bench.moves[-1]["distance_mm"] == 100_000


@pytest.mark.parametrize(
    ("before", "then", "minutes", "left", "memory_s"),
    [
        ({"speed_mps": 6}, {"speed_mps": 0.2}, 0.5, -4, 15),
        ({"speed_mps": 0.2}, {"speed_mps": 6}, 0.5, -4, 15),
        ({"speed_mps": 6}, {"speed_mps": 6}, 2, -4, 15),
        ({"speed_mps": 6}, {"speed_mps": 6}, 2.1, -6, 15),  # heard too long ago to have come from there
        ({"speed_mps": 6, "status": WIFI}, {"speed_mps": 6}, 0.5, -6, 15),
        ({"speed_mps": 0.9}, {"speed_mps": 0.9}, 0.5, -6, 60),
        ({}, {}, 0.5, -6, 60),
    ],
)
def test_3_9_who_moved_has_left_the_past_behind(before, then, minutes, left, memory_s):
    """From 80 m before a line to 40 m past it."""
    bench = Bench(AWAY)
    for k in range(4):
        bench.at(k / 10 - 2, VISIT_M - 120, 300, accuracy_m=20, speed_mps=0.2)
    bench.at(0, VISIT_M - 120, 300, accuracy_m=20, **before)
    assert bench.log_odds("victim") == -6
    bench.at(minutes, VISIT_M, 300, accuracy_m=20, **then)
    since_gnss_s = 60 * (minutes + (1.7 if before.get("status") else 0))
    news = 1 - np.exp(-since_gnss_s / memory_s)
    assert bench.log_odds("victim") == pytest.approx(left + 4 * news, abs=0.02)


def test_3_9_a_way_back_is_told_alike():
    bench = Bench(AWAY)
    for k in range(-4, 1):
        bench.at(k, VISIT_M, 300, speed_mps=0.2)
    assert bench.log_odds("victim") == 6
    bench.at(1 / 6, VISIT_M - 57, 300, accuracy_m=10, speed_mps=6)  # 12 m past the line of return
    says = np.log((p := 0.5 + 0.5 * math.erf(1.51 * 1.2 / np.sqrt(2))) / (1 - p))
    assert bench.log_odds("victim") == pytest.approx(4 - says * (1 - np.exp(-10 / 15)), abs=0.05)


def test_4_1_dwell_is_measured_by_fixes():
    bench = Bench(rule("outside", "victim", dwell="2 min"))
    bench.at(0, -300)
    bench.at(1, 400, 300)
    bench.tick(30)
    assert not bench.rows
    bench.at(31, 400, 301)
    assert bench.story() == [(OPENED, 1, 31, None)]


def test_4_1_a_passage_shorter_than_dwell_is_held_back():
    bench = Bench(rule("outside", "victim", dwell="2 min"))
    bench.at(0, -300)
    bench.at(1, 400, 300)
    bench.at(2, -300)
    assert bench.story() == [(HELD_BACK, 1, 2, 2)]
    assert sentence(bench.rules, bench.engine.devices, bench.rows[0]).startswith(
        "held back, not for long enough: d0 inside exclusion zone victim"
    )


def test_4_2_hysteresis_moves_the_line_of_return():
    wide = {"profiles": {"wide": {"hysteresis_m": 50}}}
    bench = Bench(rule("outside", "victim", profile="wide"), **wide)
    bench.at(0, 400, 300)
    for minute in range(1, 9):
        bench.at(minute, 400, 300 + 290)  # 40 m outside, but not 50
    assert len(bench.engine.open_violations()) == 1
    bench.at(9, 400, 300 + 250 + 80)
    assert bench.story()[-1][0] == CLOSED


def test_4_3_transitions_have_their_usual_meaning():
    bench = Bench(rule("none", "victim"))
    bench.at(0, -300)
    bench.at(5, 400, 300)
    bench.at(10, -300)
    assert bench.track() == [("ENTER", 5), ("EXIT", 10)]
    assert not bench.rows


def test_4_4_a_first_state_inside_is_an_initial_enter_and_outside_is_none():
    inside, outside = Bench(rule("none", "victim")), Bench(rule("none", "victim"))
    inside.at(0, 400, 300)
    outside.at(0, -300)
    assert inside.track() == [("ENTER", 0)]
    assert inside.moves[0]["flags"] == FLAG_INITIAL
    assert outside.track() == []


@pytest.mark.parametrize("subjects", ["device:d0", "all"])
def test_4_5_a_track_through_a_zone_is_a_cross(subjects):
    plain = rule("outside", "victim", subjects=[subjects])
    bench = Bench(plain)
    bench.at(0, 100, 300)
    bench.at(1, 700, 301)
    assert bench.track() == [("CROSS", 1)]
    assert not bench.rows
    bench.at(30, 100, 300)  # too long ago to say
    assert bench.track() == [("CROSS", 1)]
    strict = Bench(plain | {"crossing": True})
    strict.at(0, 100, 300)
    strict.at(1, 700, 301)
    assert strict.story() == [(OPENED, 1, 1, None), (CLOSED, 1, 1, 1)]
    for row in (*strict.rows, strict.moves[0]):  # two fixes outside never show it for certain
        assert row["confidence_ppm"] == pytest.approx(950_000, abs=100)
    assert sentence(strict.rules, strict.engine.devices, strict.rows[0]) == (
        "d0 passed through exclusion zone victim on the straight line between fixes, 2 fixes"
    )


def test_4_6_the_first_rule_writes_the_transitions():
    first = rule("none", "victim", id="first")
    second = rule("outside", "victim", id="second", profile="strict")
    bench = Bench(first, second)
    bench.at(0, 400, 300)
    assert bench.track() == [("ENTER", 0)]
    assert len(bench.rows) == 1


def test_5_1_a_rule_holds_in_its_windows_less_leaves():
    leave = {"subjects": ["device:d0"], "from": "2026-11-24T17:30:00Z", "until": "2026-11-24T18:00:00Z"}
    leave |= {"granted_by": "Judge K.", "reason": "hospital"}
    bench = Bench(HOME, leaves=[leave])
    bench.at(0, 0)
    bench.at(29, 600)
    bench.tick(120)
    assert bench.story() == [(OPENED, 29, 29, None), (CLOSED, 29, 29, 30), (OPENED, 60, 60, None)]


@pytest.mark.parametrize("require", ["inside", "outside", "strap_closed"])
@pytest.mark.parametrize("when", [None, "20:00-06:00"])
def test_5_1_the_end_of_an_enrollment_ends_what_is_open(require, when):
    start_us = from_rfc3339("2026-11-25T02:00:00Z")
    about = [] if require == "strap_closed" else ["victim" if require == "outside" else "home"]
    device = {"id": "d0", "until": "2026-11-25T02:30:00Z"}
    one = rule(require, *about, **({"when": when} if when else {}))
    bench = Bench(one, devices=[device], start_us=start_us)
    bench.at(0, 400, 300, status=STRAP)
    bench.tick(29)
    bench.tick(31)
    bench.tick(3 * 24 * 60)
    assert bench.story() == [(OPENED, 0, 0, None), (CLOSED, 0, 0, 30)]
    assert not len(bench.engine.open_violations())


def test_5_1_no_call_is_missed_after_the_end_of_an_enrollment():
    phone = {"id": "d0", "kind": "phone", "until": "2026-11-25T18:30:00Z"}  # in a window
    bench = Bench(rule("check_in", when="13:00-14:00"), devices=[phone])
    bench.tick(0)
    bench.tick(121)
    assert bench.story() == [(OPENED, 120, 120, None)]
    bench.take(bench.engine.check_in([Call(bench.start_us + 130 * MINUTE, "verified")]))
    bench.tick(24 * 60)
    said = len(bench.rows)
    bench.tick(10 * 24 * 60)
    assert len(bench.rows) - said <= 1  # the window that the end cut short
    assert not [row for row in bench.rows if bench.minutes(row["opened_us"]) > 24 * 60 + 90]


def test_5_2_a_curfew_opens_at_start_and_grace_without_a_ping():
    # 17:00Z is noon in New York: 20:00 is eight hours on
    bench = Bench(rule("inside", "home", when="20:00-06:00", grace="5 min"))
    bench.at(0, 600)
    bench.tick(484.9)
    assert not bench.rows
    bench.tick(700)
    assert bench.story() == [(OPENED, 485, 485, None)]
    bench.tick(2000)
    assert bench.story()[1:] == [(CLOSED, 485, 485, 18 * 60), (OPENED, 1925, 1925, None)]
    late_home = Bench(rule("inside", "home", when="20:00-06:00", grace="5 min"))
    late_home.at(470, 600)
    late_home.at(484, 0)
    late_home.tick(700)
    assert not late_home.rows


def test_5_2_the_next_ping_says_the_same_as_a_tick():
    bench = Bench(rule("inside", "home", when="20:00-06:00", grace="5 min"))
    bench.at(0, 600)
    bench.at(2000, 600)
    assert bench.story() == [(OPENED, 485, 485, None), (CLOSED, 485, 485, 1080), (OPENED, 1925, 1925, None)]


def test_5_3_who_is_on_the_way_back_at_the_edge_is_not_accused_by_the_edge():
    bench = Bench(rule("inside", "home", when="20:00-06:00"))
    bench.at(470, 600)
    bench.at(479.5, 140)  # within, by two errors
    bench.tick(481)
    assert not bench.rows
    for minute in (482, 483, 484, 485):
        bench.at(minute, 135)
    bench.tick(700)
    assert not [row for row in bench.rows if row["change"] == OPENED]


def test_5_4_a_warning_comes_before_the_line():
    bench = Bench(rule("outside", "victim", warn_m=100, severity="critical"))
    bench.at(0, -300)
    bench.at(5, 110, 300)  # 40 m outside the zone
    assert [bench.rules.rule_ids[r["rule"]] for r in bench.rows] == ["r.warning"]
    assert sentence(bench.rules, bench.engine.devices, bench.rows[0]) == (
        "d0 past the warning line of victim (100 m before the edge) by 60 m ± 5 m, 1 fix, 99.8 % sure"
    )
    assert bench.rows[0]["severity"] == 1
    bench.at(10, 400, 300)
    opened = [r for r in bench.rows if r["change"] == OPENED]
    assert [bench.rules.rule_ids[r["rule"]] for r in opened] == ["r.warning", "r"]


def test_5_5_order_and_cuts_of_batches_change_nothing():
    one = Bench(AWAY)
    for minute, east_m in enumerate((300, 345, 350, 400, 300, 200)):
        one.at(minute, east_m, 300)
    assert one.rows
    other = Bench(AWAY)
    pings = [other.ping(minute, east_m, 300) for minute, east_m in enumerate((300, 345, 350, 400, 300, 200))]
    other.take(other.engine.check(Pings.concat(pings[::-1])))
    assert other.rows == one.rows


def test_5_6_a_late_ping_is_reported_and_not_judged():
    bench = Bench(AWAY)
    bench.at(0, -300)
    bench.at(10, -300)
    decided = bench.at(5, 400, 300)
    assert decided.late.tolist() == [True]
    assert not bench.rows


def test_5_6_equal_times_go_by_seq():
    bench = Bench(AWAY)
    bench.at(0, -300)
    decided = bench.at(0, -300)  # its seq is greater
    assert decided.late.tolist() == [False]
    again = bench.engine.check(bench.sent[0])
    assert again.late.tolist() == [True]


@pytest.mark.parametrize("first", [0, 1])
def test_5_6_without_a_seq_the_order_of_arrival_decides_nothing(first):
    bench = Bench(AWAY)
    bench.at(0, -300)
    both = [bench.ping(10, 400, 300), bench.ping(10, -300)]
    for ping in both:
        ping.seq[:] = -1
    late = [bench.take(bench.engine.check(both[k])).late.tolist() for k in (first, 1 - first)]
    assert late == [[False], [True]]
    bench.take(bench.engine.rejudge(Pings.concat(bench.sent)))
    whole = Engine(bench.rules)
    pings = Pings.concat(bench.sent)
    whole.devices.slot("d0")
    expected = whole.check(replace(pings, devices=whole.devices))
    standing = {int(row["violation_id"]): row for row in bench.rows}
    assert {i for i, row in standing.items() if row["change"] != WITHDRAWN} == set(
        expected.violations["violation_id"].tolist()
    )


def test_5_7_a_ping_at_the_deadline_comes_before_it():
    bench = Bench(rule("inside", "home", when="20:00-06:00"))
    bench.at(470, 600)
    bench.at(480, 0)
    bench.tick(700)
    assert not bench.rows


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [
        ("2026-10-31T18:00:00Z", "2026-11-01T11:00:00Z", 11),
        ("2026-03-07T18:00:00Z", "2026-03-08T10:00:00Z", 9),
    ],
)
def test_5_8_the_nights_on_which_clocks_change(start, end, hours):
    bench = Bench(rule("inside", "home", when="20:00-06:00"), start_us=from_rfc3339(start))
    bench.at(0, 600)
    bench.tick(24 * 60)
    closed = bench.rows[-1]
    assert to_rfc3339(closed["closed_us"]) == end
    assert closed["closed_us"] - closed["opened_us"] == hours * 60 * MINUTE


def test_6_1_bits_open_and_clear():
    bench = Bench(rule("strap_closed"))
    bench.at(0, 0)
    bench.at(1, None, status=STRAP)
    bench.at(2, None, status=STRAP)
    bench.at(3, 0)
    assert bench.story() == [(OPENED, 1, 1, None), (CLOSED, 1, 1, 3)]
    assert bench.rows[-1]["fixes"] == 2


def test_6_1_dwell_and_schedule_hold_for_conditions_too():
    bench = Bench(rule("no_jamming", dwell="90 s", when="12:02-12:30"))
    bench.at(0, 0, status=JAMMING)
    bench.at(1, 0, status=JAMMING)
    assert not bench.rows
    bench.at(1.5, 0, status=JAMMING)
    bench.tick(60)
    assert bench.story() == [(OPENED, 2, 2, None), (CLOSED, 2, 2, 30)]


def test_6_2_battery():
    bench = Bench(rule("battery", above_pct=20))
    for minute, charge in enumerate((50, 20, 19, 255, 21, 24, 25)):
        bench.at(minute, 0, battery=charge)
    assert bench.story() == [(OPENED, 2, 2, None), (CLOSED, 2, 2, 6)]


def test_6_2_the_time_left_follows_from_the_slope():
    bench = Bench(rule("battery", above_pct=20))
    assert bench.engine.battery_left_s("d0") is None
    for minute, charge in ((0, 80), (10, 100), (70, 70)):
        bench.at(minute, 0, battery=charge)
    assert bench.engine.battery_left_s("d0") == 70 / 30 * 3600


def test_6_3_silence_counts_up_to_the_watermark():
    bench = Bench(rule("contact", within="15 min"))
    bench.at(0, 0)
    bench.tick(14)
    assert not bench.rows
    bench.tick(40)
    bench.at(41, 0)
    assert bench.story() == [(OPENED, 15, 15, None), (CLOSED, 15, 15, 41)]


def test_6_3_our_own_outage_accuses_nobody():
    bench = Bench(rule("contact", within="5 min"))
    bench.at(0, 0)
    bench.tick(1)
    listening = bench.start_us + 11 * MINUTE
    bench.tick(12, listening_since_us=listening)  # ten minutes without a broker
    bench.tick(14)
    assert not bench.rows
    bench.tick(20)
    assert bench.story() == [(OPENED, 15, 15, None)]
    buffered = Bench(rule("contact", within="5 min"))
    buffered.at(0, 0)
    buffered.tick(1)
    for minute in range(1, 12):
        buffered.at(minute, 0)  # delivered after the outage, before the next tick
    buffered.tick(12)
    assert not buffered.rows


def test_6_4_pings_without_a_position():
    bench = Bench(rule("fix", within="10 min"))
    bench.at(0, 0)
    bench.at(9, None)
    bench.at(12, None)
    bench.at(13, 0)
    assert bench.story() == [(OPENED, 10, 12, None), (CLOSED, 10, 12, 13)]


def test_6_5_jumps_to_and_fro_are_not_plausible():
    bench = Bench(rule("plausible_movement"))
    for minute in range(4):
        bench.at(minute, 0)
        bench.at(minute + 0.5, 60_000)
    assert [row[0] for row in bench.story()] == [OPENED]
    for minute in range(10, 14):
        bench.at(minute, minute)
    assert [row[0] for row in bench.story()] == [OPENED, CLOSED]


def test_6_5_frozen_coordinates_while_moving():
    bench = Bench(rule("plausible_movement"))
    for minute in range(12):
        bench.at(minute, 0, status=8)
    assert [row[0] for row in bench.story()] == [OPENED]


@dataclass
class Call:
    time_us: int
    outcome: str
    method: str = "voice"
    device_id: str = "d0"


def test_6_6_a_missed_call_opens_after_window_and_grace_and_the_next_closes_it():
    bench = Bench(rule("check_in", when="13:00-14:00", grace="10 min"))
    bench.at(0, 0)
    bench.tick(129)
    assert not bench.rows
    bench.tick(300)
    assert bench.story() == [(OPENED, 130, 130, None)]
    bench.take(bench.engine.check_in([Call(bench.start_us + 310 * MINUTE, "verified")]))
    assert bench.story()[-1] == (CLOSED, 130, 130, 310)


def test_6_6_a_call_in_time_keeps_the_rule_and_one_heard_of_late_withdraws():
    bench = Bench(rule("check_in", when="13:00-14:00"))
    bench.at(0, 0)
    bench.take(bench.engine.check_in([Call(bench.start_us + 90 * MINUTE, "verified")]))
    bench.tick(24 * 60)
    assert not bench.rows
    bench.tick(24 * 60 + 121)
    assert bench.story() == [(OPENED, 1560, 1560, None)]
    bench.take(bench.engine.check_in([Call(bench.start_us + 1510 * MINUTE, "verified")]))
    assert bench.rows[-1]["change"] == WITHDRAWN


def test_6_6_a_failed_call_opens_at_once():
    bench = Bench(rule("check_in", when="13:00-14:00", methods=["face"]))
    bench.at(0, 0)
    bench.take(
        bench.engine.check_in([Call(bench.start_us + 70 * MINUTE, "failed")])
    )  # by voice: not asked for
    assert not bench.rows
    bench.take(bench.engine.check_in([Call(bench.start_us + 71 * MINUTE, "failed", "face")]))
    assert bench.story() == [(OPENED, 71, 71, None)]


def test_6_6_a_failed_call_heard_of_again_after_a_verified_one_says_nothing():
    bench = Bench(rule("check_in", when="13:00-14:00"))
    bench.at(0, 0)
    for minute, outcome in ((71, "failed"), (71, "verified"), (71, "failed"), (70, "failed")):
        bench.take(bench.engine.check_in([Call(bench.start_us + minute * MINUTE, outcome)]))
    assert bench.story() == [(OPENED, 71, 71, None), (CLOSED, 71, 71, 71)]
    bench.take(bench.engine.check_in([Call(bench.start_us + 72 * MINUTE, "failed")]))
    assert bench.story()[-1] == (OPENED, 72, 72, None)


def test_6_6_a_telephone_of_the_roster_that_never_speaks_misses_its_call():
    phone = {"id": "d0", "kind": "phone", "participant": "p1"}
    bench = Bench(rule("check_in", when="13:00-14:00"), devices=[phone])
    bench.tick(0)
    bench.tick(121)
    assert bench.story() == [(OPENED, 120, 120, None)]


def test_6_7_a_late_call_within_grace_is_recorded():
    bench = Bench(rule("check_in", when="13:00-14:00", grace="10 min"))
    bench.at(0, 0)
    bench.take(bench.engine.check_in([Call(bench.start_us + 125 * MINUTE, "verified")]))
    bench.tick(200)
    assert bench.story() == [(HELD_BACK, 120, 125, 125)]
    assert said(bench) == [
        "d0 checked in late, within grace: due until 2026-11-24T19:00:00Z, came 2026-11-24T19:05:00Z"
    ]


def said(bench):
    return [sentence(bench.rules, bench.engine.devices, row) for row in bench.rows]


def test_6_6_each_fate_of_a_call_has_its_sentence():
    bench = Bench(rule("check_in", when="13:00-14:00", grace="10 min"))
    bench.at(0, 0)
    bench.take(bench.engine.check_in([Call(bench.start_us + 71 * MINUTE, "failed")]))
    bench.take(bench.engine.check_in([Call(bench.start_us + 72 * MINUTE, "verified")]))
    bench.tick(24 * 60 + 131)
    bench.take(bench.engine.check_in([Call(bench.start_us + (24 * 60 + 140) * MINUTE, "verified")]))
    missed = "d0 missed a check-in that was due until 2026-11-25T19:10:00Z (10 min of grace included)"
    assert said(bench) == [
        "d0 failed a check-in at 2026-11-24T18:11:00Z",
        "d0 failed a check-in at 2026-11-24T18:11:00Z, verified 2026-11-24T18:12:00Z",
        missed,
        f"{missed}, verified 2026-11-25T19:20:00Z",
    ]


KEY = {"call_key": "c2l4dGVlbiBieXRlcyBvciBtb3JlIG9mIGl0"}


def drawn(**more):
    rules = ruleset([rule("check_in", when="13:00-17:00", answer_within="10 min", calls=2, **more)], **KEY)
    return rules, call_times(rules, "d0", START_US, START_US + 3 * 24 * 60 * MINUTE)


def test_6_8_drawn_calls_lie_in_their_parts_and_differ_by_day_device_and_key():
    rules, calls = drawn()
    minutes = [((begin - START_US) / MINUTE, (end - begin) / MINUTE) for _, begin, end in calls]
    assert len(minutes) == 6
    for k, (minute, length) in enumerate(minutes):
        assert length == 10
        assert 0 <= minute - (60 + k // 2 * 24 * 60 + k % 2 * 120) <= 110
    offsets = {(begin - START_US) % (24 * 60 * MINUTE) for _, begin, _ in calls}
    assert len(offsets) == 6
    assert call_times(rules, "d1", START_US, START_US + 3 * 24 * 60 * MINUTE) != calls
    other = ruleset(
        [rule("check_in", when="13:00-17:00", answer_within="10 min", calls=2)], call_key="b" * 24
    )
    assert call_times(other, "d0", START_US, START_US + 3 * 24 * 60 * MINUTE) != calls


def test_6_8_the_draw_is_what_the_page_says():
    _, calls = drawn()
    begin = START_US + 60 * MINUTE
    key = b"sixteen bytes or more of it"
    seed = hashlib.blake2b(b"r\0d0", key=key, digest_size=16).digest()
    number = hashlib.blake2b(begin.to_bytes(8, "little"), key=seed, digest_size=8).digest()
    assert calls[0][1] == begin + int.from_bytes(number, "big") % (110 * 60 + 1) * 1_000_000


def test_6_8_a_drawn_call_is_missed_or_kept_like_any_other():
    rules, calls = drawn()
    bench = Bench(rules)
    bench.at(0, 0)
    first, second = calls[:2]
    bench.take(bench.engine.check_in([Call(first[1] - 1, "verified")]))  # before it was due: no answer to it
    bench.engine = Engine.restore(rules, bench.engine.snapshot())
    bench.take(bench.engine.check_in([Call(first[2] + MINUTE, "verified"), Call(second[1], "verified")]))
    bench.tick(24 * 60)
    assert [(int(r["change"]), int(r["opened_us"])) for r in bench.rows] == [
        (OPENED, first[2]), (CLOSED, first[2]),
    ]  # fmt: skip


def test_6_8_a_call_that_a_leave_touches_is_not_placed():
    _, calls = drawn()
    moment = calls[0][1] + 5 * MINUTE
    leave = {"subjects": ["device:d0"], "from": to_rfc3339(moment), "until": to_rfc3339(moment + MINUTE)}
    leave |= {"granted_by": "Judge K."}
    one = rule("check_in", when="13:00-17:00", answer_within="10 min", calls=2)
    rules = ruleset([one], leaves=[leave], **KEY)
    assert call_times(rules, "d0", START_US, START_US + 3 * 24 * 60 * MINUTE) == calls[1:]


def test_6_9_a_clock_that_runs_ahead():
    bench = Bench(rule("clock", within="2 min"))
    bench.at(0, 0, received_minute=-1)
    bench.at(10, 0, received_minute=7)
    bench.at(11, 0, received_minute=11)
    assert bench.story() == [(OPENED, 10, 10, None), (CLOSED, 10, 10, 11)]
    assert said(bench)[0] == "d0 clock wrong by more than 2 min"


def test_6_9_a_clock_that_is_behind_and_a_backlog_that_is_not():
    behind = Bench(rule("clock"))
    for minute in range(0, 60, 5):
        behind.at(minute, 0, received_minute=minute + 20)
    assert behind.story() == [(OPENED, 0, 30, None)]
    backlog = Bench(rule("clock"))
    for minute in range(0, 60, 5):
        backlog.at(minute, 0, received_minute=61)
    for minute in range(60, 120, 5):
        backlog.at(minute, 0, received_minute=minute + 61, status=BUFFERED)
    assert backlog.rows == []


def test_7_late_pings_refute_amend_and_replace():
    bench = Bench(rule("inside", "home", when="20:00-06:00"))
    bench.at(470, 600)
    bench.tick(490)
    assert bench.story() == [(OPENED, 480, 480, None)]
    assert bench.at(479, 0).late.all()
    bench.take(bench.engine.rejudge(Pings.concat(bench.sent)))
    assert bench.rows[-1]["change"] == WITHDRAWN
    assert bench.rows[-1]["flags"] == FLAG_LATE
    assert len(bench.engine.open_violations()) == 0

    bench = Bench(AWAY)
    bench.at(0, -300)
    bench.at(10, 400, 300)
    bench.at(20, -300)
    bench.at(15, -300)
    bench.take(bench.engine.rejudge(Pings.concat(bench.sent)))
    assert bench.story()[-1] == (AMENDED, 10, 10, 15)
    bench.at(5, 400, 300)
    bench.take(bench.engine.rejudge(Pings.concat(bench.sent)))
    assert {(row[0], row[1]) for row in bench.story()[-3:]} == {(OPENED, 5), (CLOSED, 5), (WITHDRAWN, 10)}
    assert bench.rows[-2]["supersedes"] == bench.rows[0]["violation_id"]


def test_7_to_judge_again_or_to_restore_builds_the_index_of_zones_no_second_time(monkeypatch):
    built = []
    build = NearIndex.of
    monkeypatch.setattr(NearIndex, "of", lambda *what: built.append(what) or build(*what))
    bench = Bench(rule("outside", layer="schools", subjects=["all"]))
    once = len(built)
    assert once
    bench.at(0, 0)
    bench.at(10, 0)
    assert bench.at(5, 0).late.all()
    bench.engine.rejudge(Pings.concat(bench.sent))
    assert len(built) == once
    again = Engine.restore(bench.rules, bench.engine.snapshot())
    assert len(built) == 2 * once
    assert again.snapshot() == bench.engine.snapshot()


def test_an_engine_shares_only_with_one_of_its_own_rules():
    with pytest.raises(ValueError, match="another rule set"):
        Engine(ruleset([HOME]), beside=Engine(ruleset([AWAY])))


def test_7_2_what_was_withdrawn_and_is_borne_out_after_all_goes_on_counting():
    bench = Bench(AWAY)
    bench.at(0, 0, 300)
    for minute in range(1, 7):
        bench.at(minute, 155, 300)
    bench.at(5.5, 140, 300)
    bench.take(bench.engine.rejudge(Pings.concat(bench.sent)))
    bench.engine = Engine.restore(bench.rules, bench.engine.snapshot())
    for minute in range(7, 12):
        bench.at(minute, 155, 300)
    bench.at(12, 0, 300)
    said = [(OPENED, None), (WITHDRAWN, None), (OPENED, None), (AMENDED, None), (CLOSED, 12 * MINUTE)]
    assert fates(bench) == [(0, k, change, MINUTE, closed) for k, (change, closed) in enumerate(said)]


def test_7_4_a_violation_that_began_before_the_history_keeps_its_id():
    bench = Bench(AWAY)
    bench.at(0, 400, 300)
    bench.at(10, 400, 301)
    bench.at(30, 400, 302)
    bench.at(20, 400, 303)
    before = bench.engine.open_violations()
    bench.take(bench.engine.rejudge(Pings.concat(bench.sent[1:])))
    after = bench.engine.open_violations()
    assert after["violation_id"].tolist() == before["violation_id"].tolist()
    assert after["opened_us"].tolist() == before["opened_us"].tolist()


def test_8_a_rule_change_closes_what_is_gone_and_goes_on_with_the_rest():
    kept = rule("outside", "victim", id="kept")
    bench = Bench(kept, rule("inside", "home", id="gone"))
    bench.at(0, 400, 300)
    assert len(bench.rows) == 2
    new = ruleset([rule("inside", "work", id="new", grace="5 min"), kept])
    decided = bench.take(bench.engine.adopt(new, bench.start_us + 2 * MINUTE))
    assert decided.ruleset is bench.rules
    assert [(r["rule"], r["change"], bench.minutes(r["closed_us"])) for r in decided.violations] == [
        (1, CLOSED, 2)
    ]
    (still,) = bench.engine.open_violations()
    assert still["violation_id"] == bench.rows[0]["violation_id"]
    assert bench.engine.ruleset.rule_ids[still["rule"]] == "kept"
    bench.at(3, 400, 301)
    bench.tick(30)
    assert bench.story()[-1] == (OPENED, 7, 7, None)
    bench.at(31, 400, 302)
    again = Engine.restore(new, bench.engine.snapshot())
    assert again.snapshot() == bench.engine.snapshot()


def test_a_snapshot_says_why_it_can_not_be_used():
    bench = Bench(AWAY)
    bench.at(0, 400, 300)
    blob = bench.engine.snapshot()
    with pytest.raises(SnapshotError, match="of rules"):
        Engine.restore(ruleset([HOME]), blob)
    with pytest.raises(SnapshotError, match="damaged"):
        Engine.restore(bench.rules, blob[:-20] + bytes([blob[-20] ^ 1]) + blob[-19:])
    with pytest.raises(SnapshotError, match="no snapshot"):
        Engine.restore(bench.rules, b"something else entirely, quite long enough")


def test_sentences_can_be_read():
    bench = Bench(AWAY, rule("strap_closed", id="strap"))
    bench.at(0, 400, 300, status=STRAP)
    bench.at(4, 400, 310, status=STRAP)
    bench.at(4.5, -300)
    said = [sentence(bench.rules, bench.engine.devices, row) for row in bench.rows]
    assert said[0] == "d0 inside exclusion zone victim by 250 m ± 5 m, 1 fix, 99.8 % sure"
    assert said[1] == "d0 strap open"
    assert "for 4 min 30 s, 2 fixes" in said[2]


def test_a_sentence_calls_a_zone_by_its_name():
    zones = {
        "type": "FeatureCollection",
        "features": [
            circle("school-1", 0, 0, 100, name="Oak Street School"),
            circle("h", 0, 0, 50, name="Home"),
        ],
    }
    rules = {"rules": [rule("outside", "school-1", id="away"), rule("inside", "h", id="in")]}
    bench = Bench(Ruleset.from_document({"zones": zones, "rules": rules}))
    bench.at(0, 0)
    bench.at(1, 300)
    where = "d0 inside Oak Street School's exclusion zone by 100 m ± 5 m"
    how_sure = "1 fix, 99.8 % sure"
    assert said(bench) == [
        f"{where}, {how_sure}",
        f"{where} for 1 min, {how_sure}, ended 2026-11-24T17:01:00Z",
        "d0 outside Home by 250 m ± 5 m, 1 fix, 99.8 % sure",
    ]


def test_7_4_late_pings_are_judged_by_the_rules_that_held_then():
    bench = Bench(AWAY)
    bench.at(0, -300)
    bench.at(10, 400, 300)
    bench.at(20, -300)
    before = len(bench.rows)
    bench.take(bench.engine.adopt(ruleset([HOME | {"id": "home"}]), bench.start_us + 30 * MINUTE, 8))
    bench.at(40, -300)
    assert bench.at(15, -300).late.all()  # it closes the violation five minutes sooner
    bench.engine = Engine.restore(bench.engine.ruleset, bench.engine.snapshot())
    sent = Pings.concat(bench.sent)
    fields = {name: getattr(sent, name) for name in Pings.__dataclass_fields__ if name != "devices"}
    again = bench.engine.rejudge(Pings(devices=bench.engine.devices, **fields))
    (earlier,) = again.earlier
    assert (earlier.version, again.version) == (0, 8)
    assert earlier.ruleset.rule_ids == ["r"]
    (row,) = earlier.violations
    assert row["violation_id"] == bench.rows[before - 1]["violation_id"]
    assert (row["change"], bench.minutes(row["closed_us"])) == (AMENDED, 15)
    text = sentence(earlier.ruleset, earlier.devices, row)
    assert text.startswith(
        "learned late, from pings that came after newer ones: d0 inside exclusion zone victim"
    )


@pytest.mark.parametrize("seed", range(12))
def test_8_late_delivery_across_a_change_of_rules_ends_in_the_same_view(seed):
    rng = random.Random(seed)
    first, second = random_rules(rng), random_rules(rng)
    track = random_track(rng, rng.randrange(4, 40))
    change_us = track[rng.randrange(1, len(track))].time_us - rng.choice([0, 1_000_000])
    end_us = track[-1].time_us + 600_000_000

    def judged(arrivals):
        engine, view = Engine(first), NamedView()
        engine.devices.slot("d0")
        every = columns(engine.devices, {"d0": track})
        view.add(engine.tick(change_us))
        late = early = [k for k in arrivals if track[k].time_us <= change_us]
        late = [k for k in arrivals if k not in early]
        if arrivals != sorted(arrivals):  # some of the first come after the change
            cut = rng.randrange(len(early) + 1)
            early, late = early[:cut], sorted([*early[cut:], *late], key=lambda _: rng.random())
        arrived = []
        for part in (early, late):
            for k in part:
                arrived.append(k)
                if view.add(engine.check(every.take(np.array([k], np.intp)))).late.any():
                    view.add(engine.rejudge(every.take(np.array(arrived, np.intp))))
                if rng.random() < 0.1:
                    engine = Engine.restore(engine.ruleset, engine.snapshot())
                    every = columns(engine.devices, {"d0": track})
            if part is early:
                view.add(engine.adopt(second, change_us))
                view.add(engine.tick(end_us))
        view.add(engine.tick(end_us))
        return view.named()

    order = list(range(len(track)))
    assert judged(rng.sample(order, len(order))) == judged(order)


def test_8_a_leave_granted_while_a_violation_lasts_closes_it_as_one_known_from_the_start():
    minute_us = 60_000_000
    start_us = 1_795_000_000_000_000

    def document(leaves):
        rule = {"id": "away", "subjects": ["all"], "require": "outside", "zones": ["z"]}
        zone = {
            "type": "Feature",
            "properties": {"id": "z", "radius_m": 200},
            "geometry": {"type": "Point", "coordinates": [-80.84, 35.22]},
        }
        rules = {"rules": [rule], "leaves": leaves}
        return Ruleset.from_document(
            {"zones": {"type": "FeatureCollection", "features": [zone]}, "rules": rules}
        )

    leave = {
        "subjects": ["device:a9"],
        "from": to_rfc3339(start_us + 12 * minute_us),
        "until": to_rfc3339(start_us + 600 * minute_us),
        "granted_by": "Judge K.",
    }
    ends = []
    for early in (True, False):
        devices = Devices()
        engine = Engine(document([leave] if early else []), devices)
        n = 8
        pings = Pings.of(
            devices,
            device=np.full(n, devices.slot("a9")),
            fix_time_us=start_us + np.arange(n) * minute_us,
            seq=np.arange(n),
            lat_e7=np.full(n, 352_200_000),
            lon_e7=np.full(n, -808_400_000),
            accuracy_mm=np.full(n, 8_000),
        )
        engine.check(pings)
        assert len(engine.open_violations()) == 1
        if not early:
            engine.adopt(document([leave]), start_us + 10 * minute_us)
            assert len(engine.open_violations()) == 1
        closed = engine.tick(start_us + 15 * minute_us).violations
        assert len(engine.open_violations()) == 0
        ends.append(closed["closed_us"].tolist())
    assert ends == [[start_us + 12 * minute_us]] * 2
