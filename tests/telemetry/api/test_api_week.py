"""A device's week: the windows of its rules, between midnights of the rules' time zone."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import httpx
import pytest

from tests.telemetry.api.town import serving


def spans(items):
    return [(datetime.fromisoformat(x["from"]), datetime.fromisoformat(x["until"])) for x in items]


def rule(week, rule_id):
    return next(rule for rule in week["rules"] if rule["rule_id"] == rule_id)


@pytest.mark.parametrize(
    ("week_of", "sunday_h"), [("2026-03-08", 23), ("2026-11-01", 25), ("2026-06-10", 24)]
)
def test_a_night_curfew_keeps_its_clock_when_clocks_change(api, week_of, sunday_h):
    week = api.get("/api/v1/devices/a1/week", params={"week_of": week_of}).raise_for_status().json()
    days = spans(week["days"])
    assert [end - begin for begin, end in days[:6]] == [timedelta(days=1)] * 6
    assert days[6][1] - days[6][0] == timedelta(hours=sunday_h)
    assert all(before[1] == after[0] for before, after in pairwise(days))
    nights = spans(rule(week, "curfew")["intervals"])
    assert len(nights) == 8  # the tail of Sunday's, six whole ones, the head of the next Sunday's
    assert nights[0][0] == days[0][0]
    assert nights[-1][1] == days[6][1]
    for i, (begin, end) in enumerate(nights[1:-1]):
        assert begin == days[i][1] - timedelta(hours=4)
        if i < 5:
            assert end == days[i + 1][0] + timedelta(hours=6)
    saturday_night = nights[6][1] - nights[6][0]
    assert saturday_night == timedelta(hours=10 + sunday_h - 24)


def test_a_rule_without_hours_fills_the_week_and_others_devices_have_no_curfew(api):
    week = api.get("/api/v1/devices/a2/week").raise_for_status().json()
    assert [r["rule_id"] for r in week["rules"]] == ["no-schools", "strap"]
    assert spans(rule(week, "strap")["intervals"]) == [
        (spans(week["days"])[0][0], spans(week["days"])[-1][1])
    ]
    today = datetime.now().astimezone()
    begin, end = spans(week["days"])[0][0], spans(week["days"])[-1][1]
    assert begin <= today < end


def test_a_device_that_nobody_knows_has_no_week(api, problem):
    assert problem(api.get("/api/v1/devices/nobody/week"), 404)["type"].endswith("no-such-device")
    problem(api.get("/api/v1/devices/a1/week", params={"week_of": "tomorrow"}), 422)


def test_a_leave_is_cut_out_of_the_week(town):
    town.commit(town.walk("a1", 1))
    with serving(town.url, zones_read_only=False) as url:
        leave = {"subjects": ["device:a1"], "rules": ["curfew"], "from": "2030-01-08T03:00:00Z"}
        leave |= {"until": "2030-01-08T09:00:00Z", "reason": "hospital"}
        httpx.post(f"{url}/api/v1/leaves", json=leave, headers={"If-Match": "*"}).raise_for_status()
        week = httpx.get(f"{url}/api/v1/devices/a1/week", params={"week_of": "2030-01-08"}).json()
        assert [x["reason"] for x in week["leaves"]] == ["hospital"]
        away = (datetime.fromisoformat(leave["from"]), datetime.fromisoformat(leave["until"]))
        nights = spans(rule(week, "curfew")["intervals"])
        assert any(end == away[0] for _, end in nights)
        assert any(begin == away[1] for begin, _ in nights)
        assert all(end <= away[0] or away[1] <= begin for begin, end in nights)
        assert (
            httpx.get(f"{url}/api/v1/devices/a1/week", params={"week_of": "2030-02-01"}).json()["leaves"]
            == []
        )
