"""Transitions, violations and alerts: filters and pages against what was written, ids as text."""

from __future__ import annotations

import pytest

from geofence import to_rfc3339
from tests.telemetry.api.town import DOCUMENT, MINUTE_US, START_US, walk

LISTS = ("transitions", "violations", "alerts")
KEY = {"transitions": "transition_id", "violations": "violation_id", "alerts": "alert_id"}
TIME = {"transitions": "time", "violations": "opened_at", "alerts": "opened_at"}


def everything(api, name):
    answer = api.get(f"/api/v1/{name}", params={"limit": 1000}).json()
    assert answer["next"] is None
    return answer["items"]


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("limit", [1, 7, 24, 25, 60])
def test_walking_a_list_meets_each_item_once_newest_first(api, name, limit):
    items = everything(api, name)
    assert len(items) == (60 if name == "transitions" else 25)
    assert [item[TIME[name]] for item in items] == sorted((i[TIME[name]] for i in items), reverse=True)
    assert walk(api, f"/api/v1/{name}", limit, KEY[name]) == [item[KEY[name]] for item in items]


@pytest.mark.parametrize(
    ("name", "filters", "keep"),
    [
        ("transitions", {"device": "a1"}, lambda i: i["device_id"] == "a1"),
        ("transitions", {"zone": "home-a1"}, lambda i: i["zone_id"] == "home-a1"),
        ("transitions", {"kind": "CROSS"}, lambda i: i["kind"] == "CROSS"),
        (
            "transitions",
            {"kind": "EXIT", "device": "a2"},
            lambda i: (i["kind"], i["device_id"]) == ("EXIT", "a2"),
        ),
        ("violations", {"device": "b-1"}, lambda i: i["device_id"] == "b-1"),
        ("violations", {"rule": "strap"}, lambda i: i["rule_id"] == "strap"),
        ("violations", {"zone": "school-1"}, lambda i: i["zone_id"] == "school-1"),
        ("violations", {"severity": "high"}, lambda i: i["severity"] == "high"),
        ("violations", {"state": "open"}, lambda _: True),
        ("violations", {"state": "closed"}, lambda _: False),
        ("alerts", {"device": "a2"}, lambda i: i["device_id"] == "a2"),
        ("alerts", {"rule": "no-schools"}, lambda i: i["rule_id"] == "no-schools"),
        ("alerts", {"severity": "critical"}, lambda i: i["severity"] == "critical"),
        ("alerts", {"state": "open"}, lambda _: True),
        ("alerts", {"state": ["resolved", "withdrawn"]}, lambda _: False),
    ],
)
@pytest.mark.parametrize("limit", [3, 1000])
def test_a_filter_keeps_what_it_says(api, name, filters, keep, limit):
    expected = [item[KEY[name]] for item in everything(api, name) if keep(item)]
    assert walk(api, f"/api/v1/{name}", limit, KEY[name], **filters) == expected


@pytest.mark.parametrize("name", LISTS)
def test_from_is_inclusive_and_to_is_not(api, name):
    low, high = to_rfc3339(START_US + 3 * MINUTE_US), to_rfc3339(START_US + 7 * MINUTE_US)
    expected = [i[KEY[name]] for i in everything(api, name) if low <= i[TIME[name]] < high]
    assert 0 < len(expected) < 25
    assert walk(api, f"/api/v1/{name}", 5, KEY[name], **{"from": low, "to": high}) == expected


def test_ids_past_2_to_the_53_travel_as_text(api, filled):
    ids = {item["alert_id"] for item in everything(api, "alerts")}
    assert ids == {str(alert_id) for alert_id in filled.alert_ids}
    assert all(isinstance(i["violation_id"], str) for i in everything(api, "violations"))


def test_an_alert_names_its_violation_in_metres(api, filled):
    alert = api.get(f"/api/v1/alerts/{filled.alert_ids[1]}").json()
    assert alert["state"] == "open"
    assert alert["sentence"] == "inside school-1 by 62 m ± 9 m, 5 fixes, 99.8 % sure"
    assert alert["confidence"] == 0.9981
    assert alert["violation"] == {
        "violation_id": str(filled.alert_ids[1]),
        "revision": 0,
        "change": "opened",
        "device_id": "a2",
        "rule_id": "no-schools",
        "zone_id": "school-1",
        "severity": "high",
        "opened_at": to_rfc3339(START_US),
        "confirmed_at": to_rfc3339(START_US + MINUTE_US),
        "closed_at": None,
        "confidence": 0.9981,
        "depth_m": 62.0,
        "depth_error_m": 9.0,
        "fixes": 5,
        "supersedes": None,
        "rules_version": filled.version,
    }
    assert [step["change"] for step in alert["log"]] == ["opened"]


def test_zones_have_the_kind_that_the_rules_give_them(api):
    answer = api.get("/api/v1/zones")
    assert answer.headers["content-type"] == "application/geo+json"
    kinds = {f["properties"]["id"]: f["properties"]["kind"] for f in answer.json()["features"]}
    assert kinds == {"school-1": "exclusion", "home-a1": "inclusion", "depot": "unused"}
    again = api.get("/api/v1/zones", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_rules_are_told_without_keys(town, town_api):
    secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ="
    document = DOCUMENT | {
        "rules": DOCUMENT["rules"] | {"devices": [{"id": "a1", "kind": "ankle", "key": secret}]}
    }
    town.store.save_ruleset(document, "another", START_US)
    answer = town_api.get("/api/v1/rules")
    assert secret not in answer.text
    assert answer.json()["rules"]["devices"] == [{"id": "a1", "kind": "ankle"}]
    assert answer.json()["read_only"] is True
    assert answer.json()["version"] == town.version + 1


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/api/v1/alerts?cursor=nonsense", 422, "bad-cursor"),
        ("/api/v1/alerts?cursor=%FF%FE", 422, "bad-cursor"),
        ("/api/v1/transitions?from=yesterday", 422, "invalid-value"),
        ("/api/v1/transitions?from=2026-11-24T08:00:00", 422, "invalid-value"),
        ("/api/v1/transitions?from=2026-02-30T08:00:00Z", 422, "invalid-value"),
        ("/api/v1/transitions?from=2026-11-24T08:00:00%2B99:00", 422, "invalid-value"),
        ("/api/v1/transitions?from=2026-11-24T08:00:00Z&to=2026-11-23T08:00:00Z", 422, "invalid-value"),
        ("/api/v1/violations?limit=0", 422, "invalid-value"),
        ("/api/v1/violations?limit=1001", 422, "invalid-value"),
        ("/api/v1/violations?severity=loud", 422, "invalid-value"),
        ("/api/v1/violations?zone=a%00b", 422, "invalid-value"),
        ("/api/v1/violations?devices=a1", 422, "invalid-value"),
        ("/api/v1/alerts?state=shut", 422, "invalid-value"),
        ("/api/v1/alerts/17x", 422, "invalid-value"),
        ("/api/v1/alerts/17", 404, "no-such-alert"),
        ("/api/v1/alerts/9999999999999999999", 404, "no-such-alert"),
        ("/api/v1/devices/a%20b", 422, "invalid-value"),
        ("/api/v1/nothing", 404, "no-such-path"),
        ("/nothing", 404, "no-such-path"),
        ("/api/v1/stream?last_event_id=-1", 422, "invalid-value"),
    ],
)
def test_what_makes_no_sense_is_a_problem_with_a_remedy(api, problem, path, status, kind):
    assert problem(api.get(path), status)["type"] == f"urn:ringfence:problem:{kind}"


def test_a_cursor_of_another_list_is_refused(api, problem):
    cursor = api.get("/api/v1/alerts?limit=1").json()["next"]
    problem(api.get("/api/v1/transitions", params={"cursor": cursor}), 422)


def test_a_plus_that_became_a_space_is_explained(api, problem):
    answer = problem(api.get("/api/v1/alerts?from=2026-11-24T08:00:00+01:00"), 422)
    assert "%2B" in answer["detail"]
    assert answer["errors"][0]["where"] == "query.from"
