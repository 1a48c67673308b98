"""One alert for a device and a rule while any of its violations is open; restoring changes nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofence import (
    AMENDED,
    CLOSED,
    HELD_BACK,
    NO_TIME,
    OPENED,
    VIOLATION,
    WITHDRAWN,
    Decided,
    Devices,
    Ruleset,
)
from geofence.records import TRANSITION
from telemetry.alerts.events import alert_event
from telemetry.alerts.tracker import AlertTracker

DEVICES = Devices(["a17", "b2"])


@pytest.fixture(scope="module")
def ruleset() -> Ruleset:
    circle = {"type": "Point", "coordinates": [10.0, 50.0]}
    features = [
        {
            "type": "Feature",
            "properties": {"id": name, "radius_m": 100, "layer": "schools"},
            "geometry": circle,
        }
        for name in ("oak", "elm")
    ]
    rules = [
        {"id": rule, "subjects": ["all"], "require": "outside", "layer": "schools", "severity": "high"}
        for rule in ("keep-away", "other")
    ]
    return Ruleset.from_document(
        {
            "zones": {"type": "FeatureCollection", "features": features},
            "rules": {"timezone": "UTC", "rules": rules},
        }
    )


def decided(ruleset: Ruleset, *rows: dict) -> Decided:
    defaults = {
        "confirmed_us": 2,
        "opened_us": 1,
        "closed_us": NO_TIME,
        "severity": 2,
        "depth_error_mm": 5000,
    }
    defaults |= {"confidence_ppm": 990_000, "depth_mm": 30_000, "fixes": 3}
    array = np.zeros(len(rows), VIOLATION)
    for record, row in zip(array, rows, strict=True):
        for name, value in (defaults | row).items():
            record[name] = value
    return Decided(DEVICES, ruleset, np.zeros(0, TRANSITION), array, np.zeros(0, np.bool_))


def steps(tracker: AlertTracker, given: Decided) -> list[tuple[int, str, int]]:
    return [(c.alert_id, c.change, c.violation_id) for c, _ in tracker.follow(given)]


def test_a_second_violation_of_the_same_rule_joins_the_open_alert(ruleset):
    tracker = AlertTracker()
    oak = {"violation_id": 11, "change": OPENED, "zone": 0}
    elm = {"violation_id": 12, "change": OPENED, "zone": 1}
    assert steps(tracker, decided(ruleset, oak, elm)) == [(11, "opened", 11), (11, "updated", 12)]
    closed = {"violation_id": 11, "change": CLOSED, "revision": 1, "closed_us": 9}
    assert steps(tracker, decided(ruleset, closed)) == [(11, "updated", 11)]
    assert len(tracker) == 1, "the other violation goes on"
    closed = {"violation_id": 12, "change": CLOSED, "revision": 1, "closed_us": 9}
    assert steps(tracker, decided(ruleset, closed)) == [(11, "updated", 12)]
    assert len(tracker) == 0
    again = {"violation_id": 13, "change": OPENED}
    assert steps(tracker, decided(ruleset, again)) == [(13, "opened", 13)]


def test_devices_and_rules_have_alerts_of_their_own(ruleset):
    rows = [
        {"violation_id": 1, "change": OPENED},
        {"violation_id": 2, "change": OPENED, "device": 1},
        {"violation_id": 3, "change": OPENED, "rule": 1},
    ]
    assert steps(AlertTracker(), decided(ruleset, *rows)) == [(n, "opened", n) for n in (1, 2, 3)]


def test_what_was_held_back_alerts_nobody(ruleset):
    assert steps(AlertTracker(), decided(ruleset, {"violation_id": 1, "change": HELD_BACK})) == []


def test_an_alert_whose_only_violation_late_pings_refute_is_withdrawn(ruleset):
    tracker = AlertTracker()
    steps(tracker, decided(ruleset, {"violation_id": 1, "change": OPENED}))
    refuted = {"violation_id": 1, "change": WITHDRAWN, "revision": 1}
    assert steps(tracker, decided(ruleset, refuted)) == [(1, "withdrawn", 1)]
    assert len(tracker) == 0


def test_a_violation_that_takes_a_withdrawn_ones_place_keeps_its_alert(ruleset):
    tracker = AlertTracker()
    steps(tracker, decided(ruleset, {"violation_id": 1, "change": OPENED}))
    refuted = {"violation_id": 1, "change": WITHDRAWN, "revision": 1}
    instead = {"violation_id": 2, "change": OPENED, "supersedes": 1}
    assert steps(tracker, decided(ruleset, refuted, instead)) == [(1, "updated", 2), (1, "updated", 1)]
    assert len(tracker) == 1


def test_an_amendment_that_ends_a_violation_ends_its_alert(ruleset):
    tracker = AlertTracker()
    steps(tracker, decided(ruleset, {"violation_id": 1, "change": OPENED}))
    amended = {"violation_id": 1, "change": AMENDED, "revision": 1, "closed_us": 5}
    assert steps(tracker, decided(ruleset, amended)) == [(1, "updated", 1)]
    assert len(tracker) == 0


ROWS = st.lists(
    st.builds(
        lambda violation, change, device, rule: {
            "violation_id": violation,
            "change": change,
            "device": device,
            "rule": rule,
            "closed_us": 9 if change == CLOSED else NO_TIME,
        },
        st.integers(1, 6),
        st.sampled_from([OPENED, CLOSED, AMENDED, WITHDRAWN, HELD_BACK]),
        st.integers(0, 1),
        st.integers(0, 1),
    ),
    max_size=20,
)


@given(rows=ROWS, cut=st.integers(0, 20))
def test_a_restored_tracker_goes_on_as_if_nothing_had_happened(ruleset, rows, cut):
    straight, first = AlertTracker(), AlertTracker()
    steps(straight, decided(ruleset, *rows[:cut]))
    steps(first, decided(ruleset, *rows[:cut]))
    second = AlertTracker.restore(first.snapshot())
    rest = decided(ruleset, *rows[cut:])
    assert steps(second, rest) == steps(straight, rest)


def test_an_event_is_a_cloudevent_with_the_evidence(ruleset):
    opened = decided(ruleset, {"violation_id": 2**62 + 1, "change": OPENED, "zone": 1})
    ((change, row),) = AlertTracker().follow(opened)
    out = alert_event("ringfence/v1", 3, change, row, emitted_us=1_000_000, rules_version=7)
    event = json.loads(out.payload)
    assert out.topic == f"ringfence/v1/alerts/high/a17/{2**62 + 1}"
    assert out.retain
    assert {"specversion", "id", "source", "type"} <= event.keys()
    assert event["id"] == f"{2**62 + 1}-0"
    assert event["time"] == "1970-01-01T00:00:01Z"
    data = event["data"]
    assert data["alert_id"] == str(2**62 + 1), "as text: JSON numbers lose digits past 2**53"
    assert (data["zone_id"], data["rules_version"], data["fixes"]) == ("elm", 7, 3)
    assert (data["confidence"], data["depth_m"], data["depth_error_m"]) == (0.99, 30.0, 5.0)
    assert data["closed_at"] is None
