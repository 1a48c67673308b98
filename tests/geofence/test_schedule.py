"""Schedules as windows: an hour-by-hour walk through zoneinfo is the oracle."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geofence import from_rfc3339, to_rfc3339
from geofence.plan import Calendars
from geofence.schedule import ALWAYS_FROM, ALWAYS_UNTIL, Calendar, Schedule

MINUTE = 60_000_000


def holds(windows, t):
    return bool(np.searchsorted(windows, t, "right") & 1)


def test_no_text_means_always():
    assert Schedule(None, "UTC", None).windows(2026, 2026).tolist() == [ALWAYS_FROM, ALWAYS_UNTIL]
    assert Schedule("24/7", "UTC", None).windows(2026, 2026).tolist() == [ALWAYS_FROM, ALWAYS_UNTIL]


@pytest.mark.parametrize(
    "zone", ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Kiritimati"]
)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 23), st.integers(0, 59), st.integers(1, 1439), st.integers(0, 364))
@example(19, 0, 31, 0)  # in New York on the last evening of the year before
def test_a_daily_window_holds_by_the_wall_clock(zone, hour, minute, length, day):
    start = hour * 60 + minute
    end = (start + length) % 1440
    text = f"{hour:02}:{minute:02}-{end // 60:02}:{end % 60:02}"
    windows = Schedule(text, zone, None).windows(2026, 2026)
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day, minutes=30)
    for _ in range(24):
        local = at.astimezone(ZoneInfo(zone))
        clock = local.hour * 60 + local.minute
        wanted = start <= clock < end if start < end else clock >= start or clock < end
        changed = (local - timedelta(hours=3)).utcoffset() != (local + timedelta(hours=3)).utcoffset()
        if not changed:  # the two nights have cases of their own
            assert holds(windows, int(at.timestamp()) * 1_000_000) == wanted
        at += timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "zone", "start", "end"),
    [
        ("20:00-06:00", "America/New_York", "2026-11-01T00:00:00Z", "2026-11-01T11:00:00Z"),  # clocks go back
        ("20:00-06:00", "America/New_York", "2026-03-08T01:00:00Z", "2026-03-08T10:00:00Z"),  # and forward
        (
            "22:00-02:30",
            "America/New_York",
            "2026-03-08T03:00:00Z",
            "2026-03-08T07:00:00Z",
        ),  # 02:30 is skipped
        (
            "22:00-01:30",
            "America/New_York",
            "2026-11-01T02:00:00Z",
            "2026-11-01T06:30:00Z",
        ),  # the second 01:30
        ("Feb 29 10:00-12:00", "UTC", "2028-02-29T10:00:00Z", "2028-02-29T12:00:00Z"),  # a leap day
        ("20:00-06:00", "Pacific/Kiritimati", "2026-07-01T06:00:00Z", "2026-07-01T16:00:00Z"),  # UTC+14
        ("2026 Dec 24 18:00-24:00", "Europe/Berlin", "2026-12-24T17:00:00Z", "2026-12-24T23:00:00Z"),
    ],
)
def test_worked_windows(text, zone, start, end):
    windows = [
        to_rfc3339(t)
        for t in Schedule(text, zone, None).windows(2026, 2028).tolist()
        if abs(t) < ALWAYS_UNTIL
    ]
    assert (start, end) in set(pairwise(windows))


def test_a_window_of_no_length_is_none():
    windows = Schedule("02:15-02:45", "America/New_York", None).windows(2026, 2026)
    assert not holds(windows, from_rfc3339("2026-03-08T07:00:00Z"))
    assert (np.diff(windows) > 0).all()


def test_holidays_are_those_of_the_country():
    noon = from_rfc3339("2026-11-26T17:00:00Z")  # Thanksgiving
    assert not holds(
        Schedule("Mo-Fr 08:00-16:00; PH off", "America/New_York", "US").windows(2026, 2026), noon
    )
    assert holds(Schedule("Mo-Fr 08:00-16:00; PH off", "America/New_York", "DE").windows(2026, 2026), noon)


def test_the_years_compiled_do_not_move_a_window():
    schedule = Schedule("2025 Jun 01-2027 Mar 01 20:00-06:00; 2026 00:00-24:00", "Europe/Berlin", None)
    narrow, wide = schedule.windows(2026, 2026), schedule.windows(2020, 2030)
    inside = narrow[
        (narrow > from_rfc3339("2026-01-02T00:00:00Z")) & (narrow < from_rfc3339("2027-12-01T00:00:00Z"))
    ]
    assert set(inside.tolist()) <= set(wide.tolist())
    t = from_rfc3339("2026-07-01T12:00:00Z")
    at = np.searchsorted(narrow, t, "right")
    assert narrow[at - 1] == wide[np.searchsorted(wide, t, "right") - 1]


def test_grace_leaves_and_start_cut_windows():
    schedule = Schedule("10:00-12:00", "UTC", None)
    day = from_rfc3339("2026-05-05T00:00:00Z")
    leave = (day + 630 * MINUTE, day + 660 * MINUTE)
    calendar = Calendar(schedule, 5 * MINUTE, from_us=day + 601 * MINUTE, leaves=(leave,))
    windows = calendar.windows(2026, 2026)
    first = [(t - day) / MINUTE for t in windows[:4].tolist()]
    assert first == [606, 630, 665, 720]
    raw = Calendar(schedule, 0, raw=True).windows(2026, 2026)
    assert holds(raw, day + 600 * MINUTE)


def test_a_grace_longer_than_the_window_leaves_none():
    assert not len(Calendar(Schedule("10:00-10:05", "UTC", None), 5 * MINUTE).windows(2026, 2026))


def test_calendars_grow_to_both_sides():
    calendars = Calendars([Calendar(Schedule("10:00-12:00", "UTC", None))])
    calendars.cover(from_rfc3339("2026-05-05T00:00:00Z"), from_rfc3339("2026-05-06T00:00:00Z"))
    horizon = calendars.horizon_us
    calendars.cover(from_rfc3339("2021-05-05T00:00:00Z"), from_rfc3339("2029-05-06T00:00:00Z"))
    assert calendars.horizon_us > horizon
    assert holds(calendars.edges, from_rfc3339("2021-05-05T11:00:00Z"))
    assert holds(calendars.edges, from_rfc3339("2029-05-05T11:00:00Z"))


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        (Schedule("25:99", "UTC", None), "opening_hours"),
        (Schedule(None, "Nowhere", None), "IANA"),
        (Schedule("24/7", "UTC", "ZZ"), "ISO"),
    ],
)
def test_what_is_wrong_is_said(schedule, says):
    with pytest.raises(ValueError, match=says):
        schedule.check()
