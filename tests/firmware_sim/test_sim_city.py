"""The city, its scenarios, and the rules it writes."""

from pathlib import Path

import numpy as np
import pytest

from firmware_sim.city import CURFEWS
from firmware_sim.codec import KIND_PHONE
from firmware_sim.errors import ScenarioError
from firmware_sim.exact import signed_distance_m
from firmware_sim.scenario import build, load, names, write_rules
from geofence import Ruleset


def test_every_scenario_of_the_package_loads_and_builds() -> None:
    assert {"city", "border-homes", "canyon", "outage", "storm", "versions"} <= set(names())
    for name in names():
        city = build(load(name), 40, 5)
        assert len(city) == 40
        assert load(name).title


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[behavior]\ncurfew = 1", "no such section: behavior; there are city"),
        ("[behaviour]\ncurfews = 1", r"\[behaviour\] curfews: no such key; there are curfew"),
        ("[sky]\njamming = 'often'", r"\[sky\] jamming = 'often': it must be a float"),
        ("[fleet]\nwrist = -0.1", "can't be negative"),
        ("[[radio.outages]]\nafter_h = 1", "outages.*hours"),
        ("[city]\n[city]", "mine.*twice"),
    ],
)
def test_a_wrong_scenario_says_where_and_what(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=what):
        load(path)


def test_an_unknown_scenario_names_those_there_are() -> None:
    with pytest.raises(ScenarioError, match="border-homes, canyon, city"):
        load("no-such-thing")
    with pytest.raises(ScenarioError, match="0 devices"):
        build(load("city"), 0, 1)


def test_the_first_people_are_the_same_in_a_larger_city() -> None:
    small, large = build(load("city"), 50, 11), build(load("city"), 500, 11)
    assert small.device_ids == large.device_ids[:50]
    assert small.keys == large.keys[:50]
    for column in ("home", "work", "shop", "friend", "park", "school"):
        here, there = small.places[small.people[column]], large.places[large.people[column][:50]]
        assert np.array_equal(here, there)
    assert build(load("city"), 50, 12).keys != small.keys


@pytest.mark.parametrize("scenario", ["city", "border-homes", "canyon"])
def test_nobody_lives_or_works_in_a_zone_that_is_forbidden_to_them(scenario: str) -> None:
    city = build(load(scenario), 400, 3)
    for zone in city.zones:
        if zone.layer not in {"schools", "victims"}:
            continue
        subjects = city.people["school_exclusion" if zone.layer == "schools" else "no_contact"] == 1
        for column in ("home", "work", "shop", "friend", "park", "kerb"):
            place = city.places[city.people[column][subjects]]
            lon, lat = city.to_degrees(place["x"], place["y"])
            assert signed_distance_m(zone, lon, lat).min() > 5.0
    # and the places of temptation are inside
    schools = [zone for zone in city.zones if zone.layer == "schools"]
    for column, depth_m in (("gate", 5.0), ("school", 20.0)):
        place = city.places[city.people[column]]
        lon, lat = city.to_degrees(place["x"], place["y"])
        nearest = np.min([signed_distance_m(zone, lon, lat) for zone in schools], axis=0)
        assert nearest.max() < -depth_m


def test_most_homes_of_border_homes_lie_at_a_school() -> None:
    def share_near_a_school(name: str) -> float:
        city = build(load(name), 400, 3)
        home = city.places[city.people["home"]]
        lon, lat = city.to_degrees(home["x"], home["y"])
        schools = [zone for zone in city.zones if zone.layer == "schools"]
        nearest = np.min([signed_distance_m(zone, lon, lat) for zone in schools], axis=0)
        return float((nearest < 60.0).mean())

    assert share_near_a_school("border-homes") > 0.7
    assert share_near_a_school("city") < 0.25


@pytest.mark.parametrize(("scenario", "devices"), [("city", 1), ("city", 200), ("storm", 7)])
def test_the_engine_loads_the_rules_without_a_warning(tmp_path: Path, scenario: str, devices: int) -> None:
    city = build(load(scenario), devices, 9)
    write_rules(city, tmp_path)
    rules = Ruleset.load(tmp_path)
    assert rules.warnings == []
    assert rules.zones.warnings == []
    assert sorted(rules.zones.ids) == sorted(zone.id for zone in city.zones)
    assert rules.roster is not None
    assert list(rules.roster) == city.device_ids
    for i, device_id in enumerate(city.device_ids):
        enrolled = rules.roster[device_id]
        assert enrolled.participant == city.participant(i)
        assert enrolled.key == city.keys[i]
        assert ("no-contact" in enrolled.groups) == (
            bool(city.people["no_contact"][i]) and city.kind[i] != KIND_PHONE
        )
        if city.kind[i] != KIND_PHONE:
            assert f"home-curfew-{device_id}" in rules.rule_ids


def test_engine_and_simulator_measure_the_same_zones(tmp_path: Path) -> None:
    city = build(load("city"), 20, 4)
    write_rules(city, tmp_path)
    zones = Ruleset.load(tmp_path).zones
    rng = np.random.default_rng(1)
    for zone in city.zones:
        spread = (
            rng.uniform(-0.004, 0.004, (2000, 2)) + zone.lon_lat[rng.integers(0, len(zone.lon_lat), 2000)]
        )
        lon, lat = np.round(spread.T, 7)
        ours = signed_distance_m(zone, lon, lat)
        theirs = zones.signed_distance(lon, lat, np.full(2000, zones.index(zone.id)))
        assert np.abs(ours - theirs).max() < 0.1


def test_curfew_minutes_say_what_the_opening_hours_say() -> None:
    for text, from_min, until_min in CURFEWS:
        begins, ends = (int(hhmm[:2]) * 60 + int(hhmm[3:]) for hhmm in text.split("-"))
        assert (begins, ends) == (from_min, until_min)
