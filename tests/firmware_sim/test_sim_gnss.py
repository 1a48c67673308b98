"""The error model, against the figures that its docstring promises."""

import dataclasses

import numpy as np
import pytest

from firmware_sim import gnss, wearer
from firmware_sim._random import decay
from firmware_sim.codec import NO_FIX, RECORD
from firmware_sim.scenario import build, load
from firmware_sim.wearer import WEARER

RECEIVERS, ROUNDS, EVERY_S = 1500, 40, 60
CITY = build(load("city"), 1, 1)


def observe(around: int, *, every_s: int = EVERY_S, **sky: float):
    """Errors (rounds, receivers, 2) in metres east and north, and the records, of people who stand still."""
    wearers = np.zeros(RECEIVERS, WEARER)
    wearers["x"] = np.random.default_rng(5).uniform(-4000, 4000, RECEIVERS)
    wearers["y"] = np.random.default_rng(6).uniform(-4000, 4000, RECEIVERS)
    wearers["around"] = around
    receivers = gnss.new_receivers(RECEIVERS, 99)
    world = gnss.map_of(CITY)
    for name, value in sky.items():
        world[name] = value
    due, phase_ms = np.arange(RECEIVERS, dtype=np.int32), np.zeros(RECEIVERS, np.int32)
    seen = []
    for k in range(ROUNDS):
        records = np.zeros(RECEIVERS, RECORD)
        gnss.observe(
            1_780_000_000 + k * every_s, due, phase_ms, world, CITY.tower_xy, wearers, receivers, records
        )
        seen.append(records)
    records = np.array(seen)
    errors = np.stack(
        [
            (records["lon_e7"] / 1e7 - world["lon"]) * world["metres_per_lon"] - wearers["x"],
            (records["lat_e7"] / 1e7 - world["lat"]) * world["metres_per_lat"] - wearers["y"],
        ],
        axis=-1,
    )
    return errors, records


QUIET = {"jam_per_s": 0.0, "spoof_per_s": 0.0, "overconfident": 0.0}


@pytest.mark.parametrize(
    ("around", "low_m", "high_m"),
    [
        (wearer.AROUND_OPEN, 3.0, 5.0),
        (wearer.AROUND_SUBURB, 5.0, 8.5),
        (wearer.AROUND_CANYON, 12.0, 20.0),
        (wearer.AROUND_HOUSE, 8.0, 20.0),
    ],
)
def test_median_error_of_gnss_fixes(around: int, low_m: float, high_m: float) -> None:
    errors, records = observe(around, **QUIET)
    of_gnss = (records["lat_e7"] != NO_FIX) & (records["status"] >> 8 == 0)
    median_m = np.median(np.hypot(*errors[of_gnss].T))
    assert low_m < median_m < high_m


def test_median_error_of_network_fixes() -> None:
    errors, records = observe(wearer.AROUND_BIG_BUILDING, **QUIET)
    length_m = np.hypot(errors[..., 0], errors[..., 1])
    source = records["status"] >> 8
    assert 55.0 < np.median(length_m[source == 1]) < 95.0
    assert 400.0 < np.median(length_m[source == 2]) < 800.0


def test_errors_have_a_memory_of_minutes() -> None:
    errors, records = observe(wearer.AROUND_OPEN, **QUIET)
    assert (records["status"] >> 8 == 0).mean() > 0.99
    east = np.where(records["status"] >> 8 == 0, errors[..., 0], np.nan)
    for lag in (1, 2, 4):
        a, b = east[:-lag], east[lag:]
        known = ~np.isnan(a) & ~np.isnan(b)
        correlation = np.corrcoef(a[known], b[known])[0, 1]
        assert correlation == pytest.approx(np.exp(-lag * EVERY_S / 240.0), abs=0.06)


def test_an_open_sky_claims_about_what_it_holds() -> None:
    errors, records = observe(wearer.AROUND_OPEN, **QUIET)
    of_gnss = records["status"] >> 8 == 0
    within = np.hypot(*errors[of_gnss].T) <= records["accuracy_dm"][of_gnss] / 10
    assert 0.6 < within.mean() < 0.76


def test_overconfident_fixes_come_at_their_rate_and_lie_far_off() -> None:
    errors, records = observe(wearer.AROUND_OPEN, jam_per_s=0.0, spoof_per_s=0.0, overconfident=0.01)
    of_gnss = records["status"] >> 8 == 0
    lie = (np.hypot(errors[..., 0], errors[..., 1]) > 130.0) & (records["accuracy_dm"] <= 50) & of_gnss
    assert lie.sum() / of_gnss.sum() == pytest.approx(0.01, rel=0.15)


def test_network_fixes_from_one_spot_share_a_bias_and_repeat_to_the_digit() -> None:
    _, records = observe(wearer.AROUND_BIG_BUILDING, **QUIET)
    of_wifi = records["status"] >> 8 == 1
    both = of_wifi[1:] & of_wifi[:-1]
    same = (records["lat_e7"][1:] == records["lat_e7"][:-1]) & (
        records["lon_e7"][1:] == records["lon_e7"][:-1]
    )
    assert 0.8 < same[both].mean() < 0.95
    errors, _ = observe(wearer.AROUND_BIG_BUILDING, **QUIET)
    # the mean over an hour is nearly as wrong as one fix
    mean_m = [np.hypot(*errors[of_wifi[:, i], i].mean(axis=0)) for i in range(RECEIVERS)]
    assert np.median(mean_m) > 45.0


def test_jammed_receivers_have_no_gnss_and_say_so() -> None:
    _, records = observe(wearer.AROUND_OPEN, jam_per_s=1e-3, spoof_per_s=0.0, overconfident=0.0)
    jammed = records["status"] & 32 != 0
    assert 0.1 < jammed.mean() < 0.9
    assert not np.any(jammed & (records["lat_e7"] != NO_FIX) & (records["status"] >> 8 == 0))


def test_spoofed_receivers_are_kilometres_off_and_sure_of_it() -> None:
    errors, records = observe(wearer.AROUND_OPEN, jam_per_s=0.0, spoof_per_s=2e-4, overconfident=0.0)
    of_gnss = records["status"] >> 8 == 0
    far = (np.hypot(errors[..., 0], errors[..., 1]) > 1000.0) & of_gnss
    assert 0.01 < far.mean() < 0.5
    assert (records["accuracy_dm"][far] == 30).all()


def test_no_gnss_in_a_tunnel_and_no_position_in_foil() -> None:
    _, records = observe(wearer.AROUND_TUNNEL, **QUIET)
    known = records["lat_e7"] != NO_FIX
    assert np.all((records["status"] >> 8)[known] == 2)
    wearers = np.zeros(1, WEARER)
    wearers["foiled"] = 1
    seen = np.zeros(1, RECORD)
    gnss.observe(
        1_780_000_000,
        np.zeros(1, np.int32),
        np.zeros(1, np.int32),
        gnss.map_of(CITY),
        CITY.tower_xy,
        wearers,
        gnss.new_receivers(1, 1),
        seen,
    )
    assert seen["lat_e7"][0] == seen["lon_e7"][0] == NO_FIX


def test_a_cold_start_takes_its_time_and_begins_badly() -> None:
    receivers = gnss.new_receivers(RECEIVERS, 4)
    now_s = 1_780_000_000
    for receiver in receivers:
        gnss.restart(receiver, float(now_s))
    wearers = np.zeros(RECEIVERS, WEARER)
    due, phase_ms, world = (
        np.arange(RECEIVERS, dtype=np.int32),
        np.zeros(RECEIVERS, np.int32),
        gnss.map_of(CITY),
    )
    first_s = np.full(RECEIVERS, np.inf)
    for k in range(80):
        records = np.zeros(RECEIVERS, RECORD)
        gnss.observe(now_s + 5 * k, due, phase_ms, world, CITY.tower_xy, wearers, receivers, records)
        fixed = (records["lat_e7"] != NO_FIX) & (records["status"] >> 8 == 0)
        first_s = np.where(fixed & np.isinf(first_s), 5.0 * k, first_s)
    assert first_s.min() >= 20.0
    assert 35.0 < np.mean(first_s[np.isfinite(first_s)]) < 60.0


def test_the_canyon_scenario_is_worse() -> None:
    assert load("canyon").sky.error_scale > dataclasses.replace(load("city")).sky.error_scale
    plain, _ = observe(wearer.AROUND_SUBURB, **QUIET)
    worse, records = observe(wearer.AROUND_SUBURB, error_scale=1.5, **QUIET)
    of_gnss = records["status"] >> 8 == 0
    ratio = np.median(np.hypot(*worse[of_gnss].T)) / np.median(np.hypot(*plain[of_gnss].T))
    assert ratio == pytest.approx(1.5, abs=0.1)


def test_decay_is_an_exponential() -> None:
    x = np.linspace(0.0, 5.0, 200)
    assert np.array([decay(float(v)) for v in x]) == pytest.approx(np.exp(-x), abs=2e-3)
    assert decay(25.0) == 0.0
