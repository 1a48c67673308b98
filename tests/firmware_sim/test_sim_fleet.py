"""The whole fleet without a network: reproducible, lawful where it should be, awkward where it may be."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from firmware_sim import wearer
from firmware_sim.codec import KIND_PHONE, NO_FIX
from firmware_sim.errors import ScenarioError
from firmware_sim.exact import signed_distance_m
from firmware_sim.fleet import Burst, Fleet, run
from firmware_sim.load import Load
from firmware_sim.scenario import Scenario, build, load
from firmware_sim.truth import TruthWriter

START_S = 1_780_000_000  # Thursday 28 May 2026, 16:26 in Ohio


def payloads(fleet: Fleet, ticks: int) -> list[tuple[int, int, bytes]]:
    sent = []
    for _ in range(ticks):
        burst = fleet.step()
        sent += [(int(burst.due_ms[k]), int(i), fleet.payload(burst, k)) for k, i in enumerate(burst.device)]
        sent += [(call.time_ms, call.device, call.payload()) for call in burst.check_ins]
    return sent


def new_fleet(scenario: str | Scenario, devices: int, seed: int, start_s: int = START_S) -> Fleet:
    plan = scenario if isinstance(scenario, Scenario) else load(scenario)
    return Fleet(build(plan, devices, seed), seed, start_s)


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert payloads(new_fleet("storm", 40, 8), 720) == payloads(new_fleet("storm", 40, 8), 720)
    assert payloads(new_fleet("storm", 40, 8), 50) != payloads(new_fleet("storm", 40, 9), 50)


def test_a_device_does_not_care_how_large_its_fleet_is() -> None:
    few = payloads(new_fleet("storm", 25, 8), 720)
    many = [sent for sent in payloads(new_fleet("storm", 90, 8), 720) if sent[1] < 25]
    assert few == many


def test_messages_are_sent_in_order_of_time_within_their_tick() -> None:
    fleet = new_fleet("city", 300, 2)
    for _ in range(50):
        burst = fleet.step()
        assert np.all(np.diff(burst.due_ms) >= 0)
        if len(burst.due_ms):
            assert burst.now_s * 1000 <= burst.due_ms[0]
            assert burst.due_ms[-1] < (burst.now_s + 5) * 1000


def test_every_sample_is_sent_once_unless_the_flash_overflows() -> None:
    plan = load("outage")
    plan = dataclasses.replace(plan, fleet=dataclasses.replace(plan.fleet, flash_records=64))
    fleet = new_fleet(plan, 30, 4)
    sampled, sent = [], []
    buffered = 0
    for _ in range(720 * 6):
        burst = fleet.step()
        for i, seq in zip(burst.due, burst.samples["seq"], strict=True):
            sampled.append((int(i), int(fleet.devices["boot"][i]), int(seq)))
        for k, i in enumerate(burst.device):
            records = burst.records[burst.start[k] : burst.stop[k]]
            buffered += int((records["status"] & 128 != 0).sum())
            sent += [(int(i), int(burst.boot[k]), int(seq)) for seq in records["seq"]]
    kept = int(fleet.rings["count"].sum())
    lost = int(fleet.rings["lost"].sum())
    assert lost > 0
    assert buffered > 100
    assert len(set(sent)) == len(sent)
    assert set(sent) <= set(sampled)
    assert len(sampled) == len(sent) + kept + lost


def test_a_fleet_pings_every_5_to_60_seconds_by_mode() -> None:
    fleet = new_fleet("city", 200, 1)
    times: dict[int, list[tuple[int, int]]] = {}
    for _ in range(720 * 3):
        burst = fleet.step()
        for i, status in zip(burst.due, burst.samples["status"], strict=True):
            times.setdefault(int(i), []).append((burst.now_s, int(status)))
    assert len(times) == int((fleet.city.kind != KIND_PHONE).sum())
    moving, resting = [], []
    for seen in times.values():
        for (a, status_a), (b, status_b) in pairwise(seen):
            if not (status_a | status_b) & 3:
                (moving if status_a & status_b & 8 else resting).append(b - a)
    assert max(moving) == 10
    assert np.median(moving) == 10
    assert np.median(resting) == 60
    assert max(resting) == 60


def without_crime(plan: Scenario) -> Scenario:
    nothing = {field.name: 0.0 for field in dataclasses.fields(plan.behaviour)}
    return dataclasses.replace(
        plan,
        behaviour=dataclasses.replace(plan.behaviour, **nothing),
        opening=dataclasses.replace(plan.opening, incursions=0, straps=0),
    )


def true_distance_m(fleet: Fleet, layer: str, subjects: np.ndarray) -> float:
    lon, lat = fleet.city.to_degrees(fleet.wearers["x"][subjects], fleet.wearers["y"][subjects])
    return min(signed_distance_m(z, lon, lat).min() for z in fleet.city.zones if z.layer == layer)


def test_without_crime_nobody_breaks_a_rule_from_thursday_to_sunday() -> None:
    fleet = new_fleet(without_crime(load("border-homes")), 150, 6)
    city = fleet.city
    schools, victims = city.people["school_exclusion"] == 1, city.people["no_contact"] == 1
    home = city.places[city.people["home"]]
    out_s = 0
    for _ in range(720 * 24 * 4):
        burst = fleet.step()
        if burst.now_s % 120:
            continue
        assert true_distance_m(fleet, "schools", schools) > 2.0
        assert true_distance_m(fleet, "victims", victims) > 0.0
        away = np.hypot(fleet.wearers["x"] - home["x"], fleet.wearers["y"] - home["y"]) > 80.0
        out_s += int(away.sum()) * 120
        minute = fleet.local_time().hour * 60 + fleet.local_time().minute
        if minute >= 1261 or minute < 330:
            assert not away.any()
        assert not fleet.straps["is_open"].any()
    # they do have a life
    assert out_s / (150 * 4 * 86_400) > 0.15


@pytest.mark.parametrize("noon_s", [1_772_985_600, 1_793_552_400])  # 8 March, 1 November 2026, in Ohio
def test_lawful_people_keep_their_curfew_when_the_clocks_change(noon_s: int, tmp_path: Path) -> None:
    fleet = new_fleet(without_crime(load("city")), 150, 6, noon_s - 13 * 3600)
    truth = TruthWriter(tmp_path / "truth.parquet", fleet)
    assert fleet.local_time().utcoffset() != new_fleet("city", 1, 1, noon_s).local_time().utcoffset()
    for _ in range(720 * 23):
        truth.add(fleet.step())
    assert not [entry for entry in truth.breaks() if entry.kind == "curfew"]
    truth.close()


def test_something_happens_within_half_a_minute_whatever_the_hour() -> None:
    for hour in (3, 10, 15, 22):
        fleet = new_fleet("city", 200, 1, START_S - START_S % 86_400 + 3600 * hour)
        victims = fleet.city.people["no_contact"] == 1
        open_at, inside_at = None, None
        deep_fixes = 0
        for k in range(9):
            burst = fleet.step()
            if inside_at is None and true_distance_m(fleet, "victims", victims) < -60.0:
                inside_at = 5 * k
            zone = next(zone for zone in fleet.city.zones if zone.layer == "victims")
            known = burst.samples["lat_e7"] != NO_FIX
            fixes = burst.samples[known & np.isin(burst.due, np.flatnonzero(victims))]
            if len(fixes):
                deep_fixes += int(
                    (signed_distance_m(zone, fixes["lon_e7"] / 1e7, fixes["lat_e7"] / 1e7) < -60).sum()
                )
            if open_at is None and (burst.samples["status"] & 1).any():
                open_at = 5 * k
        assert inside_at is not None
        assert inside_at <= 25
        assert open_at is not None
        assert open_at <= 30
        assert deep_fixes >= 3


def test_the_storm_breaks_rules_far_more_often_than_the_city() -> None:
    def incursions(name: str) -> int:
        plan = dataclasses.replace(load(name), opening=dataclasses.replace(load(name).opening, incursions=0))
        fleet = new_fleet(plan, 200, 5)
        schools = fleet.city.people["school_exclusion"] == 1
        return sum(
            true_distance_m(fleet, "schools", schools) < 0
            for burst in (fleet.step() for _ in range(720 * 12))
            if burst.now_s % 60 == 0
        )

    assert incursions("storm") > 30 + incursions("city")


def test_speeds_are_human() -> None:
    fleet = new_fleet("city", 200, 1)
    before = fleet.wearers.copy()
    fastest = 0.0
    for _ in range(720 * 4):
        fleet.step()
        step_m = np.hypot(fleet.wearers["x"] - before["x"], fleet.wearers["y"] - before["y"])
        fastest = max(fastest, float(step_m.max()))
        before = fleet.wearers.copy()
    assert 40.0 < fastest <= 5 * 18.0
    assert (fleet.wearers["mode"] <= wearer.CAR).all()


def frames_of(data: bytes) -> list[tuple[str, int, bytes]]:
    """MQTT PUBLISH packets, parsed slowly: topic, packet id, payload."""
    at, packets = 0, []
    while at < len(data):
        assert data[at] == 0x32
        at += 1
        length = shift = 0
        while True:
            byte = data[at]
            at += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        body, at = data[at : at + length], at + length
        name = int.from_bytes(body[:2], "big")
        packets.append(
            (body[2 : 2 + name].decode(), int.from_bytes(body[2 + name : 4 + name], "big"), body[4 + name :])
        )
    return packets


@pytest.mark.parametrize("per_message", [1, 6])
def test_load_frames_hold_what_the_devices_send(per_message: int) -> None:
    load_of = Load(70, 3, per_message=per_message)
    next_id = 1
    messages = records = 0
    for _ in range(30):
        burst: Burst = load_of.step()
        packets = frames_of(load_of.frames(burst).tobytes())
        assert len(packets) == len(burst.device)
        for k, (name, packet_id, payload) in enumerate(packets):
            device_id = load_of.fleet.city.device_ids[burst.device[k]]
            assert name.endswith(f"/{device_id}/pings")
            assert packet_id == next_id
            next_id = next_id % 65_535 + 1
            assert payload == load_of.fleet.payload(burst, k)
        messages += len(packets)
        records += len(burst.records)
    assert records / messages == pytest.approx(per_message, rel=0.2)
    assert records > 70 * 20


def test_a_run_refuses_what_it_can_not_do(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="is no directory"):
        run("mqtt://127.0.0.1:1", devices=1, seed=1, truth=tmp_path / "nowhere" / "truth.parquet")
    with pytest.raises(ScenarioError, match="at least 1"):
        run("mqtt://127.0.0.1:1", devices=1, seed=1, speed=0.5)
    with pytest.raises(ScenarioError, match="30 days"):
        run("mqtt://127.0.0.1:1", devices=1, seed=1, speed=100.0, duration_s=40 * 86_400)
