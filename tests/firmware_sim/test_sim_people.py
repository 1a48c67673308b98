"""People do what the scenario says, and as often: school runs, garages, and each way of breaking a rule."""

import dataclasses
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from firmware_sim import agenda, wearer
from firmware_sim.city import BIG_BUILDING
from firmware_sim.codec import KIND_ANKLE, KIND_PHONE, KIND_WRIST, NO_FIX
from firmware_sim.commands import obey
from firmware_sim.fleet import Fleet
from firmware_sim.scenario import Behaviour, CityPlan, FleetMix, Opening, Scenario, build, load

MONDAY = datetime(2026, 6, 1, tzinfo=ZoneInfo("America/New_York"))
MONDAY_S = int(MONDAY.timestamp())
QUIET = Behaviour(
    curfew=0.0, brief=0.0, deep=0.0, passing=0.0, victim=0.0, strap_cut=0.0, flat_battery=0.0, shielding=0.0,
    handover=0.0,
)  # fmt: skip


def scenario(*, behaviour: Behaviour = QUIET, **changes: object) -> Scenario:
    return dataclasses.replace(load("city"), opening=Opening(), behaviour=behaviour, **changes)


def planned(plan: Scenario, devices: int, days: int):
    """Everyone's agenda day by day, as one array for each day, with all of the day before done."""
    city = build(plan, devices, 5)
    agendas = agenda.new_agendas(city.people, 5)
    roads = agenda.new_roads(devices, 5)
    rates = agenda.rates_of(plan.behaviour)
    for day in range(days):
        midnight = MONDAY + timedelta(days=day)
        agenda.plan_day(
            int(midnight.timestamp()), midnight.weekday(), rates, city.kind, city.people, agendas, roads
        )
        yield city, agendas
        agendas["at"] = agendas["count"] - 1


def of_the_day(agendas, why):
    """Which agendas hold a stop of that kind, bool (n,)."""
    stops = np.arange(agenda.STOPS)[None, :]
    return ((agendas["why"] == why) & (stops < agendas["count"][:, None])).any(axis=1)


# what happens instead of what: dinner has room for one of these
DINNER = (
    ("victim", agenda.WHY_VICTIM),
    ("deep", agenda.WHY_DEEP),
    ("brief", agenda.WHY_BRIEF),
    ("passing", agenda.WHY_PASSING),
    ("tailgating", agenda.WHY_TAILGATING),
)


@pytest.mark.parametrize(("name", "why"), [*DINNER, ("curfew", agenda.WHY_CURFEW)])
def test_each_way_to_break_a_rule_happens_at_its_rate(name: str, why: int) -> None:
    rate, devices, days = 0.2, 3000, 4
    plan = scenario(
        behaviour=dataclasses.replace(QUIET, **{name: rate}),
        fleet=dataclasses.replace(FleetMix(), no_contact=0.3, school_exclusion=0.5),
    )
    did = able = 0
    for city, agendas in planned(plan, devices, days):
        people = city.people
        may = np.ones(devices, np.bool_)
        if name in {"deep", "brief", "tailgating"}:
            may = people["school_exclusion"] == 1
        elif name == "victim":
            may = people["victim"] >= 0
        found = of_the_day(agendas, why)
        assert not found[~may].any()
        did += int(found.sum())
        able += int(may.sum())
    spread = np.sqrt(rate * (1 - rate) / able)
    assert did / able == pytest.approx(rate, abs=4 * spread)


@pytest.mark.parametrize(("name", "from_s"), [("shielding", "foil_from_s"), ("handover", "handed_from_s")])
def test_foil_and_handovers_happen_at_their_rate(name: str, from_s: str) -> None:
    rate, devices = 0.2, 6000
    plan = scenario(behaviour=dataclasses.replace(QUIET, **{name: rate}))
    for city, agendas in planned(plan, devices, 1):
        may = city.kind == KIND_WRIST if name == "handover" else city.kind != KIND_PHONE
        did = agendas[from_s] >= MONDAY_S
        assert not did[~may].any()
        assert did[may].mean() == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / may.sum()))


def test_a_handed_over_wristband_stays_at_home_and_the_other_days_go_on() -> None:
    plan = scenario(behaviour=dataclasses.replace(QUIET, handover=0.5))
    for city, agendas in planned(plan, 400, 1):
        handed = agendas["handed_from_s"] >= MONDAY_S
        assert 0 < handed.sum() < (city.kind == KIND_WRIST).sum()
        assert (agendas["count"][handed] == 1).all()
        assert (agendas["handed_until_s"] > agendas["handed_from_s"])[handed].all()
        working = (city.people["routine"] == 0) & ~handed
        assert (agendas["count"][working] > 1).all()


def test_cuts_and_forgotten_batteries_happen_at_their_rate() -> None:
    devices, ticks, per_day = 3000, 720, 1.0
    plan = scenario(behaviour=dataclasses.replace(QUIET, strap_cut=per_day, flat_battery=per_day))
    fleet = Fleet(build(plan, devices, 3), 3, MONDAY_S + 12 * 3600)
    cuts = forgotten = 0
    for _ in range(ticks):
        was_open = fleet.straps["is_open"].astype(bool)
        before = fleet.batteries["forgets_until_s"].copy()
        fleet.step()
        cuts += int((fleet.straps["is_open"].astype(bool) & ~was_open).sum())
        forgotten += int((fleet.batteries["forgets_until_s"] != before).sum())
    worn = int((fleet.city.kind != KIND_PHONE).sum())
    expected = per_day * ticks * 5 / 86_400
    assert cuts == pytest.approx(worn * expected, abs=4 * np.sqrt(worn * expected) + 0.03 * worn * expected)
    assert forgotten == pytest.approx(devices * expected, abs=4 * np.sqrt(devices * expected))


def test_who_wears_a_device_that_vibrates_mostly_presses_its_button() -> None:
    fleet = Fleet(build(scenario(), 500, 6), 6, MONDAY_S + 12 * 3600)
    fleet.step()
    fleet.wearers["left_behind"][:100] = 1
    shaken = fleet.city.kind != KIND_PHONE
    on = (fleet.batteries["on"] == 1) & (fleet.batteries["docked"] == 0)
    for i in range(len(shaken)):
        answer = obey(b'{"id":"v","command":"vibrate"}', fleet.devices[i : i + 1], 0)
        assert answer is not None
        assert b"done" in answer
    burst = fleet.step()
    pressed = np.zeros(len(shaken), np.bool_)
    pressed[burst.due] = burst.samples["status"] >> 6 & 1
    assert not pressed[:100].any()
    able = (shaken & on)[100:]
    assert pressed[100:][able].mean() == pytest.approx(0.8, abs=0.09)
    assert not pressed[100:][~able].any()
    assert (fleet.step().samples["status"] >> 6 & 1).sum() <= 1  # once for each command


def test_the_school_run_is_made_on_school_days_by_those_who_may() -> None:
    plan = scenario(fleet=dataclasses.replace(FleetMix(), school_run=0.5))
    for day, (city, agendas) in enumerate(planned(plan, 2000, 7)):
        people = city.people
        parents = people["school_run"] == 1
        assert not (parents & (people["school_exclusion"] == 1)).any()
        free = (people["school_exclusion"] == 0) & (people["no_contact"] == 0)
        assert parents[free].mean() == pytest.approx(0.5, abs=0.06)
        goes = (agendas["stop"] == people["gate"][:, None]) & (
            np.arange(agenda.STOPS)[None, :] < agendas["count"][:, None]
        )
        weekday = day < 5
        assert np.array_equal(goes.any(axis=1), parents & np.isin(people["routine"], (0, 2)) & weekday)
        for i in np.flatnonzero(goes.any(axis=1))[:40]:
            k = int(np.flatnonzero(goes[i])[0])
            left_s = int(agendas["leave_s"][i, k - 1])
            hour = datetime.fromtimestamp(left_s, UTC).astimezone(MONDAY.tzinfo).hour
            assert 6 <= hour <= 8
            # with the child by car or on foot, then to work or home again
            assert agendas["stop"][i, k + 1] in {people["work"][i], people["home"][i]}


def test_cars_stand_in_the_garage_where_no_signal_comes() -> None:
    plan = scenario(city=dataclasses.replace(CityPlan(), garages=1.0))
    city = build(plan, 250, 4)
    work, shop = (city.places[city.people[name]] for name in ("work", "shop"))
    assert np.array_equal(work["garage"] == 1, work["walls"] == BIG_BUILDING)
    assert shop["garage"].all()
    assert not city.places["garage"][city.people["home"]].any()
    fleet = Fleet(city, 4, MONDAY_S + 6 * 3600)
    below = np.zeros(len(city), np.int64)
    fixes, sources = 0, set()
    for _ in range(720 * 5):
        burst = fleet.step()
        now = fleet.wearers["around"] == wearer.AROUND_GARAGE
        below += now
        assert not fleet.radios["linked"][now].any()
        at = np.flatnonzero(now[burst.due])
        seen = burst.samples[at]
        fixed = seen["lat_e7"] != NO_FIX
        fixes += int(fixed.sum())
        sources |= set((seen["status"][fixed] >> 8 & 3).tolist())
    drove = below > 0
    assert 20 < drove.sum() < len(city)
    assert fixes > 0
    assert sources == {1, 2}  # Wi-Fi and cell only
    # a minute and a half on arrival: 18 ticks, and no longer than two arrivals and two departures
    assert below[drove].min() >= 9
    assert below[drove].max() <= 60
    assert (city.kind[drove] >= KIND_ANKLE).all()


def test_without_garages_nobody_is_in_one() -> None:
    fleet = Fleet(build(scenario(city=CityPlan()), 250, 4), 4, MONDAY_S + 6 * 3600)
    for _ in range(720 * 3):
        fleet.step()
        assert not (fleet.wearers["around"] == wearer.AROUND_GARAGE).any()


def test_people_walk_cycle_ride_and_drive_at_the_speed_of_each() -> None:
    city = build(scenario(), 3000, 8)
    wearers, place = wearer.new_wearers(city, 8), city.places[:1].copy()
    for way_m, shares in ((480.0, [1.0, 0.0, 0.0, 0.0]), (3000.0, [0.0, 0.2, 0.25, 0.55])):
        wearers["x"] = wearers["y"] = 1600.0
        place["x"], place["y"] = 1600.0 + way_m, 1600.0
        for k in range(len(city)):
            wearer.depart(wearers[k], place[0], wearer.streets_of(city)[0])
        modes = (wearer.WALK, wearer.CYCLE, wearer.BUS, wearer.CAR)
        assert [float((wearers["mode"] == mode).mean()) for mode in modes] == pytest.approx(shares, abs=0.03)
        for mode, usual_mps in zip(modes, (1.35, 4.5, 6.5, 10.0), strict=True):
            mine = wearers["speed_mps"][wearers["mode"] == mode]
            if len(mine):
                assert np.median(mine) == pytest.approx(usual_mps, rel=0.03)
