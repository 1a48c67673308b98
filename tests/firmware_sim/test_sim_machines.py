"""The device's small state machines: flash, strap, battery, radio, commands, check-ins."""

import json
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim import flash, power, radio, strap, wearer
from firmware_sim.agenda import AGENDA
from firmware_sim.checkin import WINDOWS, day_of_check_ins
from firmware_sim.city import PERSON
from firmware_sim.codec import KIND_ANKLE, KIND_PHONE, KIND_WRIST, RECORD
from firmware_sim.commands import obey
from firmware_sim.device import DEVICE, TICK_S
from firmware_sim.power import CRADLE_HOURS, POWER
from firmware_sim.radio import RADIO
from firmware_sim.scenario import Outage, Radio, build, load
from firmware_sim.strap import STRAP
from firmware_sim.wearer import WEARER


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["store", "store", "reboot", "upload", "gap"]), max_size=120),
    st.integers(1, 9),
    st.booleans(),
)
def test_the_flash_is_a_bounded_queue(acts: list[str], size: int, old: bool) -> None:
    """Against a deque: nothing is sent twice or lost but the oldest when full, messages don't mix boots."""
    devices = np.zeros(1, DEVICE)
    devices["urgent"] = 1
    batteries, radios = np.zeros(1, POWER), np.zeros(1, RADIO)
    batteries["on"] = 1
    rings, cells, boots = flash.new_flash(1, size)
    due = np.zeros(1, np.int32)
    model: deque[tuple[int, int]] = deque(maxlen=size)
    stored = sent = 0
    for act in acts:
        radios["linked"] = act != "gap"
        if act == "store":
            record = np.zeros(1, RECORD)
            record["seq"] = devices["seq"]
            model.append((int(devices["boot"][0]), int(devices["seq"][0])))
            devices["seq"] += 1
            flash.store(due, record, devices, rings, cells, boots)
            stored += 1
        elif act == "reboot":
            devices["boot"] += 1
            devices["seq"] = 0
        else:
            devices["urgent"] = 1
            out = np.zeros(max(size, flash.MAX_PER_MESSAGE), RECORD)
            sender, boot_of, offsets = np.zeros(1, np.int32), np.zeros(1, np.uint16), np.zeros(2, np.int64)
            count = flash.upload(
                0,
                TICK_S,
                np.array([old]),
                batteries,
                radios,
                devices,
                rings,
                cells,
                boots,
                out,
                sender,
                boot_of,
                offsets,
            )
            if act == "gap" or not model:
                assert count == 0
                continue
            assert count == 1
            got = [(int(boot_of[0]), int(seq)) for seq in out["seq"][: offsets[1]]]
            edge = model[0] if old else model[-1]
            expected = [entry for entry in model if entry[0] == edge[0]]
            expected = expected[: flash.MAX_PER_MESSAGE] if old else expected[-flash.MAX_PER_MESSAGE :]
            assert got == expected
            for entry in got:
                model.remove(entry)
            sent += len(got)
    assert int(rings["count"][0]) == len(model)
    assert stored == sent + len(model) + int(rings["lost"][0])


def run_straps(old: bool, bounce: bool, cut_at: int | None, ticks: int):
    straps, wearers = strap.new_straps(1, 3), np.zeros(1, WEARER)
    said, truth = [], []
    for k in range(ticks):
        if cut_at == k:
            straps["cut_s"] = 1
        # a tick so long that the bounce is certain, or so short that it is impossible
        elapsed_s = 20 * 86_400.0 if bounce and k == 3 else 0.0
        strap.step(
            1000 + 5 * k,
            elapsed_s,
            0.0,
            np.zeros(1, np.uint8),
            np.array([old]),
            np.zeros(1, POWER),
            wearers,
            straps,
        )
        said.append(int(straps["reads_open"][0]))
        truth.append(int(straps["is_open"][0]))
    return said, truth


def test_the_old_firmware_reports_a_bounce_and_the_new_one_does_not() -> None:
    assert run_straps(True, True, None, 6) == ([0, 0, 0, 1, 0, 0], [0] * 6)
    assert run_straps(False, True, None, 6) == ([0] * 6, [0] * 6)


def test_a_cut_strap_is_reported_one_reading_later_by_the_new_firmware() -> None:
    assert run_straps(True, False, 2, 5) == ([0, 0, 1, 1, 1], [0, 0, 1, 1, 1])
    assert run_straps(False, False, 2, 5) == ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])


def test_a_cut_strap_is_refitted_and_a_left_device_picked_up() -> None:
    count = 400
    straps, wearers = strap.new_straps(count, 8), np.zeros(count, WEARER)
    fixed = np.zeros(count, np.uint8), np.zeros(count, np.bool_), np.zeros(count, POWER)
    straps["cut_s"] = 1
    strap.step(1000, 5.0, 0.0, *fixed, wearers, straps)
    assert straps["is_open"].all()
    assert 0.4 < wearers["left_behind"].mean() < 0.6
    assert straps["open_until_s"].min() >= 1000 + 3600
    strap.step(int(straps["open_until_s"].max()), 5.0, 0.0, *fixed, wearers, straps)
    assert not straps["is_open"].any()
    assert not wearers["left_behind"].any()


def evening(kind: int, level_pct: float, taken_off: float, hours: range) -> list[tuple[int, int, int]]:
    """At home, by minutes: charging, strap truly open, strap read as open."""
    kinds = np.full(1, kind, np.uint8)
    batteries = power.new_batteries(kinds, 1, taken_off)
    batteries["level_pct"], batteries["charge_below_pct"] = level_pct, 75.0
    straps, wearers, agendas, people = (np.zeros(1, t) for t in (STRAP, WEARER, AGENDA, PERSON))
    seen = []
    for minute in range(60 * hours.start, 60 * hours.stop):
        power.step(60 * minute, 60.0, minute / 60 % 24, 20.0, 0.0, kinds, people, agendas, wearers, batteries)
        strap.step(60 * minute, 0.0, 0.0, kinds, np.zeros(1, np.bool_), batteries, wearers, straps)
        seen.append((int(batteries["charging"][0]), int(straps["is_open"][0]), int(straps["reads_open"][0])))
    return seen


def test_a_wristband_is_taken_off_to_charge_at_the_hours_that_allow_it() -> None:
    seen = evening(KIND_WRIST, 62.0, 1.0, range(16, 24))
    charging, is_open, reads_open = np.array(seen).T
    assert np.array_equal(is_open, charging)
    assert np.array_equal(reads_open[1:], is_open[:-1])  # debounced: a reading later
    off = np.flatnonzero(charging) + 16 * 60
    assert off[0] == CRADLE_HOURS[0] * 60
    # a tenth of the charge is used before 18:00; 45 % an hour up to 98 %
    assert len(off) == pytest.approx((98 - 62 + 2 * 2.6) / 45 * 60, abs=2)
    assert np.all(np.diff(off) == 1)


def test_a_wristband_is_put_on_again_in_time_unless_it_is_nearly_empty() -> None:
    # charged from 20 % at 20:30: not full at 22:00, so it is put on again before
    seen = np.array(evening(KIND_WRIST, 20.0, 1.0, range(20, 24)))
    assert seen[:, 1].any()
    assert not seen[115:, 1].any()
    # nobody begins after 21:00, but for a battery that is nearly empty
    assert not np.array(evening(KIND_WRIST, 60.0, 1.0, range(21, 26)))[:, 1].any()
    seen = np.array(evening(KIND_WRIST, 14.0, 1.0, range(22, 24)))
    assert seen[0, 1]
    assert seen[:, 1].sum() == pytest.approx((30 - 14) / 45 * 60, abs=2)


def test_only_a_wristband_of_one_who_takes_it_off_opens_its_strap_to_charge() -> None:
    for kind, share in ((KIND_WRIST, 0.0), (KIND_ANKLE, 1.0)):
        seen = np.array(evening(kind, 40.0, share, range(17, 24)))
        assert seen[:, 0].any()
        assert not seen[:, 1].any()
    kinds = np.full(4000, KIND_WRIST, np.uint8)
    assert power.new_batteries(kinds, 1, 0.6)["takes_off"].mean() == pytest.approx(0.6, abs=0.03)


def drain(kind: int, hours: float, outside_c: float, moving: bool) -> float:
    batteries = power.new_batteries(np.full(1, kind, np.uint8), 1)
    batteries["level_pct"] = 100.0
    wearers = np.zeros(1, WEARER)
    wearers["mode"] = wearer.WALK if moving else wearer.REST
    agendas, people = np.zeros(1, AGENDA), np.zeros(1, PERSON)
    people["home"] = 1  # and the wearer is at place 0
    kinds = np.full(1, kind, np.uint8)
    for k in range(int(hours * 60)):
        power.step(60 * k, 60.0, 12.0, outside_c, 0.0, kinds, people, agendas, wearers, batteries)
    return float(100.0 - batteries["level_pct"][0])


def test_a_battery_drains_by_kind_activity_and_cold() -> None:
    ankle = drain(KIND_ANKLE, 10, 20.0, False)
    assert ankle == pytest.approx(14.0, rel=0.01)
    assert drain(KIND_WRIST, 10, 20.0, False) > 1.5 * ankle
    walking = drain(KIND_ANKLE, 10, 20.0, True)
    assert walking == pytest.approx(1.6 * ankle, rel=0.01)
    assert drain(KIND_ANKLE, 10, -15.0, True) == pytest.approx(1.3 * walking, rel=0.01)


def test_a_flat_device_is_off_and_boots_when_it_is_charged_at_home() -> None:
    kinds = np.zeros(1, np.uint8)
    batteries = power.new_batteries(kinds, 1)
    batteries["level_pct"] = 0.5
    batteries["forgets_until_s"] = 7200
    wearers, agendas, people = np.zeros(1, WEARER), np.zeros(1, AGENDA), np.zeros(1, PERSON)
    booted = []
    for now_s in range(0, 3 * 3600, 60):
        power.step(now_s, 60.0, 12.0, 20.0, 0.0, kinds, people, agendas, wearers, batteries)
        if batteries["booted"][0]:
            booted.append(now_s)
        if now_s == 7000:
            assert not batteries["on"][0]
    # charged from 7200 s on, 45 % an hour, it starts at 5 %
    assert booted == [pytest.approx(7200 + 5 / 45 * 3600, abs=120)]
    assert batteries["on"][0]


def test_a_radio_has_gaps_at_its_rate_and_obeys_outages() -> None:
    count, days = 400, 3
    radios, wearers = radio.new_radios(count, 2), np.zeros(count, WEARER)
    outages = radio.outages_of(Radio(outages=(Outage(after_h=24.0, hours=1.0, share=0.25),)), 0)
    down = []
    for now_s in range(0, days * 86_400, 60):
        radio.step(now_s, 4.0, 600.0, outages, wearers, radios)
        down.append(1.0 - radios["linked"].mean())
    usual = np.array(down[:1400])
    assert usual.mean() == pytest.approx(4 * 600 / 86_400, rel=0.2)
    assert np.mean(down[1440:1500]) == pytest.approx(0.25 + usual.mean() * 0.75, abs=0.06)
    wearers["foiled"] = 1
    radio.step(days * 86_400, 4.0, 600.0, outages, wearers, radios)
    assert not radios["linked"].any()


def result(payload: object, device: np.ndarray | None = None) -> dict[str, object] | None:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    answer = obey(raw, np.zeros(1, DEVICE) if device is None else device, 1_763_971_200_000)
    return None if answer is None else json.loads(answer)


def test_commands_change_the_device_and_are_answered() -> None:
    device = np.zeros(1, DEVICE)
    time = "2025-11-24T08:00:00.000Z"
    assert result({"id": "c1", "command": "locate"}, device) == {"id": "c1", "result": "done", "time": time}
    assert device["asked"][0] == 1
    assert (
        result({"id": "c2", "command": "set_interval", "seconds": 30, "mode": "moving"}, device)["result"]
        == "done"
    )
    assert (int(device["moving_s"][0]), int(device["resting_s"][0])) == (30, 0)
    assert result({"id": "c3", "command": "set_interval", "seconds": 90}, device)["result"] == "done"
    assert (int(device["moving_s"][0]), int(device["resting_s"][0])) == (90, 90)
    assert result({"id": "c4", "command": "vibrate"}, device)["result"] == "done"


@pytest.mark.parametrize(
    "command",
    [
        {"command": "explode"},
        {"command": "set_interval", "seconds": 1},
        {"command": "set_interval", "seconds": True},
        {"command": "set_interval", "seconds": 60, "mode": "asleep"},
        {},
    ],
)
def test_what_a_device_can_not_do_is_refused_with_a_reason(command: dict[str, object]) -> None:
    device = np.zeros(1, DEVICE)
    answer = result({"id": "c", **command}, device)
    assert answer is not None
    assert answer["result"] == "refused"
    assert answer["reason"]
    assert device == np.zeros(1, DEVICE)


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b"{}", b'{"id": [7]}'])
def test_what_is_no_command_is_not_answered(payload: bytes) -> None:
    assert result(payload) is None


def test_check_ins_come_in_their_windows_and_mostly_succeed() -> None:
    city = build(load("city"), 600, 2)
    calls = [call for day in range(20) for call in day_of_check_ins(city, 2, day, 86_400 * day)]
    voice = [call for call in calls if call.method == "voice"]
    phones = int((city.kind == KIND_PHONE).sum())
    assert len(voice) == 2 * 20 * phones
    hours = [tuple(int(part[:2]) for part in window.split("-")) for window in WINDOWS]
    for call in voice:
        hour = call.time_ms / 3.6e6 % 24
        assert any(low <= hour < high for low, high in hours)
    outcomes = [call.outcome for call in calls]
    assert outcomes.count("verified") / len(outcomes) == pytest.approx(0.96, abs=0.01)
    assert {"no_answer", "failed"} <= set(outcomes)
    assert {call.method for call in calls} == {"voice", "face", "button"}
    said = json.loads(calls[0].payload())
    assert said["outcome"] == calls[0].outcome
    assert set(said) == {"time", "outcome", "method"}
