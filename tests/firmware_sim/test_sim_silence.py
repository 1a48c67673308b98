"""Silence and missed check-ins: what the truth calls broken, by hand and against a run of a fleet."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim.checkin import CheckIn
from firmware_sim.codec import KIND_PHONE, RECORD
from firmware_sim.fleet import Burst, Fleet
from firmware_sim.rules import CONTACT_S
from firmware_sim.scenario import Behaviour, FleetMix, Opening, Radio, build, load
from firmware_sim.silence import Heard, missed_check_ins
from firmware_sim.windows import check_in_windows

START_S = 1_780_027_200  # midnight in Ohio
DAY_US = 86_400_000_000
START_US = START_S * 1_000_000
PHONES = build(
    dataclasses.replace(load("city"), opening=Opening(), fleet=dataclasses.replace(FleetMix(), phone=1.0)),
    4,
    1,
)
PHONE = int(np.flatnonzero(PHONES.kind == KIND_PHONE)[0])
WINDOWS = check_in_windows(PHONES, START_US, START_US + DAY_US)
MORNING, EVENING = WINDOWS


def burst_of(now_s: int, device: list[int], newest_s: list[float]) -> Burst:
    """Each device sends two records, the second of which is the newest."""
    records = np.zeros(2 * len(device), RECORD)
    records["time_ms"] = np.repeat(np.array(newest_s) * 1000, 2).astype(np.uint64)
    records["time_ms"][::2] -= np.uint64(60_000)
    start = np.arange(len(device)) * 2
    return Burst(
        now_s=now_s,
        due=np.zeros(0, np.int32),
        samples=np.zeros(0, RECORD),
        device=np.array(device, np.int32),
        boot=np.ones(len(device), np.uint16),
        start=start,
        stop=start + 2,
        due_ms=np.full(len(device), now_s * 1000),
        records=records,
        check_ins=[],
    )


def test_who_was_not_heard_for_longer_than_the_rule_allows_is_silent() -> None:
    heard = Heard(np.zeros(3, np.int64))

    def at(now_s: int, device: list[int], newest_s: list[float]) -> list[bool]:
        burst = burst_of(now_s, device, newest_s)
        return heard.add(burst, np.full(3, now_s * 1_000_000)).tolist()

    assert at(CONTACT_S, [0], [CONTACT_S - 1.0]) == [False, False, False]
    assert at(CONTACT_S + 1, [], []) == [False, True, True]
    # what is sent late counts by its own time, and an old record takes nothing back
    assert at(CONTACT_S + 2, [1], [3.0]) == [False, False, True]
    assert at(CONTACT_S + 3, [1], [1.0]) == [False, False, True]
    assert at(CONTACT_S + 4, [], []) == [False, True, True]
    assert at(2 * CONTACT_S, [2], [2 * CONTACT_S]) == [True, True, False]


def said(*calls: tuple[int, str], device: int = PHONE) -> list[CheckIn]:
    return [CheckIn(time_us // 1000, device, outcome, "voice") for time_us, outcome in calls]


def middle(window: tuple[int, int]) -> int:
    return (window[0] + window[1]) // 2_000 * 1000


NIGHT = EVENING[1] + 3_600_000_000


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([(middle(MORNING), "verified"), (middle(EVENING), "verified")], []),
        ([], [(MORNING[1], None)]),
        ([(middle(MORNING), "no_answer"), (middle(EVENING), "verified")], [(MORNING[1], middle(EVENING))]),
        ([(middle(MORNING), "verified")], [(EVENING[1], None)]),
        ([(middle(MORNING), "verified"), (NIGHT, "verified")], [(EVENING[1], NIGHT)]),
        ([(middle(MORNING), "failed"), (middle(EVENING), "verified")], [(middle(MORNING), middle(EVENING))]),
        (
            [(MORNING[0], "failed"), (middle(MORNING), "verified"), (middle(EVENING), "verified")],
            [(MORNING[0], middle(MORNING))],
        ),
        # outside of a window a failed call says nothing
        ([(MORNING[0] - 1_000_000, "failed"), (MORNING[0], "verified"), (EVENING[1], "verified")], []),
    ],
)
def test_missed_check_ins_by_hand(
    calls: list[tuple[int, str]], expected: list[tuple[int, int | None]]
) -> None:
    city = dataclasses.replace(PHONES, kind=np.where(np.arange(len(PHONES)) == PHONE, KIND_PHONE, 0))
    found = missed_check_ins(city, said(*calls), START_US, START_US + DAY_US)
    assert found == [(PHONE, *broken) for broken in expected]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3 * 86_400),
            st.integers(0, len(PHONES) - 1),
            st.sampled_from(["verified", "failed", "no_answer"]),
        ),
        max_size=30,
        unique_by=lambda call: call[:2],
    )
)
def test_every_minute_is_broken_or_not_as_its_own_past_says(calls: list[tuple[int, int, str]]) -> None:
    """Against the sentence itself, asked anew for each minute: the newest thing that happened decides."""
    end_us = START_US + 3 * DAY_US
    windows = check_in_windows(PHONES, START_US, end_us)
    made = [CheckIn(START_S * 1000 + s * 1000, i, outcome, "voice") for s, i, outcome in sorted(calls)]
    found = missed_check_ins(PHONES, made, START_US, end_us)
    for i in np.flatnonzero(PHONES.kind == KIND_PHONE).tolist():
        mine = [(call.time_ms * 1000, call.outcome) for call in made if call.device == i]
        verified = [t for t, outcome in mine if outcome == "verified"]
        bad = [t for t, outcome in mine if outcome == "failed" and any(a <= t <= b for a, b in windows)]
        bad += [b for a, b in windows if not any(a <= t <= b for t in verified)]
        for minute in range(0, 3 * 24 * 60, 7):
            now_us = START_US + minute * 60_000_000 + 500_000  # never at the very time of something
            newest_bad = max((t for t in bad if t < now_us), default=0)
            newest_good = max((t for t in verified if t < now_us), default=0)
            if newest_bad == newest_good:
                continue
            broken = any(d == i and a < now_us and (b is None or now_us < b) for d, a, b in found)
            assert broken == (newest_bad > newest_good)


def test_an_outage_silences_whom_it_touches_and_nobody_else() -> None:
    quiet = Behaviour(
        curfew=0.0, brief=0.0, deep=0.0, passing=0.0, victim=0.0, strap_cut=0.0, flat_battery=0.0,
        shielding=0.0, handover=0.0,
    )  # fmt: skip
    plan = dataclasses.replace(
        load("outage"),
        opening=Opening(),
        behaviour=quiet,
        radio=dataclasses.replace(load("outage").radio, gaps=0.0),
    )
    assert isinstance(plan.radio, Radio)
    fleet = Fleet(build(plan, 120, 2), 2, START_S + 12 * 3600)
    outage = plan.radio.outages[0]
    begins_s, ends_s = (
        fleet.start_s + int(3600 * h) for h in (outage.after_h, outage.after_h + outage.hours)
    )
    heard = Heard(fleet.start_s * 1_000_000 + fleet.phase_ms.astype(np.int64) * 1000)
    worn = fleet.city.kind != KIND_PHONE
    before = fleet.radios["lot"].copy()
    late = np.zeros(len(worn), np.bool_)
    for _ in range(720 * 5):
        burst = fleet.step()
        silent = heard.add(burst, burst.now_s * 1_000_000 + fleet.phase_ms.astype(np.int64) * 1000)
        if burst.now_s <= begins_s:
            assert not silent[worn].any()
        elif burst.now_s == ends_s - 5:
            late = silent
        elif burst.now_s > ends_s + 300:
            assert not silent[worn].any()
            break
    assert (before < 0).all()  # lots are drawn in the run
    assert np.array_equal(late[worn], fleet.radios["lot"][worn] < outage.share)
    assert 0.0 < late[worn].mean() <= 1.0
