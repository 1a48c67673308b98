"""What operators do to alerts, and who may not."""

from __future__ import annotations

import pytest


def test_acknowledge_then_resolve_is_in_the_log(town, town_api):
    alert_id = town.raise_alert("a1")
    url = f"/api/v1/alerts/{alert_id}"
    seen = (
        town_api.post(f"{url}/acknowledge", json={"who": "m.ito", "note": "calling"})
        .raise_for_status()
        .json()
    )
    assert seen["state"] == "acknowledged"
    done = (
        town_api.post(f"{url}/resolve", json={"outcome": "excused", "who": "m.ito"}).raise_for_status().json()
    )
    assert (done["state"], done["outcome"]) == ("resolved", "excused")
    steps = [(s["change"], s["who"], s["note"]) for s in done["log"]]
    assert steps == [
        ("opened", None, None),
        ("acknowledged", "m.ito", "calling"),
        ("resolved", "m.ito", None),
    ]
    assert town_api.get(url).json() == done
    assert town_api.get("/api/v1/alerts?state=open&state=acknowledged").json()["items"] == []


def test_a_resolved_alert_can_be_reopened(busy, busy_api):
    url = f"/api/v1/alerts/{busy.raise_alert('a1')}"
    busy_api.post(f"{url}/resolve", json={"outcome": "false"}).raise_for_status()
    again = busy_api.post(f"{url}/reopen", json={}).raise_for_status().json()
    assert (again["state"], again["outcome"]) == ("open", None)
    assert again["log"][-1]["who"] == "local operator"


def test_a_step_that_the_state_forbids_is_a_conflict(busy, busy_api, problem):
    url = f"/api/v1/alerts/{busy.raise_alert('a1')}"
    busy_api.post(f"{url}/acknowledge", json={}).raise_for_status()
    document = problem(busy_api.post(f"{url}/acknowledge", json={}), 409)
    assert document["type"].endswith("alert-conflict")
    assert document["state"] == "acknowledged"


@pytest.mark.parametrize(
    ("step", "body"),
    [
        ("resolve", {}),
        ("resolve", {"outcome": "maybe"}),
        ("resolve", {"outcome": "real", "note": "x" * 2001}),
        ("resolve", {"outcome": "real", "note": "a\0b"}),
        ("resolve", {"outcome": "real", "who": ""}),
        ("resolve", {"outcome": "real", "whom": "me"}),
        ("acknowledge", []),
        ("acknowledge", {"who": 7}),
        ("acknowledge", {"outcome": "real"}),
    ],
)
def test_a_body_that_makes_no_sense_changes_nothing(busy, busy_api, problem, step, body):
    url = f"/api/v1/alerts/{busy.raise_alert('a1')}"
    problem(busy_api.post(f"{url}/{step}", json=body), 422)
    assert busy_api.get(url).json()["state"] == "open"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b'{"note": "\\ud800"}', "application/json"),
        (b"outcome=real", "text/plain"),
    ],
)
def test_a_body_that_is_no_json_is_refused(busy, busy_api, problem, content, kind):
    url = f"/api/v1/alerts/{busy.raise_alert('a1')}"
    problem(busy_api.post(f"{url}/acknowledge", content=content, headers={"Content-Type": kind}), 422)
    assert busy_api.get(url).json()["state"] == "open"


def test_an_alert_that_nobody_knows(busy_api, problem):
    problem(busy_api.post("/api/v1/alerts/17/acknowledge", json={}), 404)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_changes_nothing(busy, busy_api, problem, headers):
    url = f"/api/v1/alerts/{busy.raise_alert('a1')}"
    document = problem(busy_api.post(f"{url}/acknowledge", json={}, headers=headers), 403)
    assert document["type"].endswith("foreign-origin")
    assert busy_api.get(url).json()["state"] == "open"


def test_our_own_page_may(busy, busy_api):
    url = f"/api/v1/alerts/{busy.raise_alert('a1')}"
    own = {"Origin": str(busy_api.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert busy_api.post(f"{url}/acknowledge", json={}, headers=own).status_code == 200


def test_an_alert_is_assigned_and_found_by_it(busy, busy_api, problem):
    url = f"/api/v1/alerts/{busy.raise_alert('a1')}"
    given = busy_api.post(f"{url}/assign", json={"to": "k.osei", "who": "m.ito", "note": "night shift"})
    alert = given.raise_for_status().json()
    assert (alert["state"], alert["assigned_to"], alert["note"]) == ("open", "k.osei", None)
    assert alert["log"][-1] | {"time": ""} == {
        "time": "",
        "change": "assigned",
        "who": "m.ito",
        "note": "to k.osei: night shift",
        "outcome": None,
    }
    mine = busy_api.get("/api/v1/alerts", params={"assigned_to": "k.osei"}).json()["items"]
    assert [item["alert_id"] for item in mine] == [alert["alert_id"]]
    freed = busy_api.post(f"{url}/assign", json={"to": None}).raise_for_status().json()
    assert freed["assigned_to"] is None
    problem(busy_api.post(f"{url}/assign", json={}), 422)
    busy_api.post(f"{url}/resolve", json={"outcome": "real"}).raise_for_status()
    problem(busy_api.post(f"{url}/assign", json={"to": "k.osei"}), 409)


def test_who_acknowledges_deals_with_it(busy, busy_api):
    url = f"/api/v1/alerts/{busy.raise_alert('a1')}"
    busy_api.post(f"{url}/assign", json={"to": "k.osei"}).raise_for_status()
    alert = busy_api.post(f"{url}/acknowledge", json={"who": "m.ito"}).raise_for_status().json()
    assert alert["assigned_to"] == "m.ito"
    assert alert["acknowledged_at"] is not None
    assert busy_api.post(f"{url}/reopen", json={}).json()["assigned_to"] is None


def test_alerts_are_found_by_zone(busy, busy_api):
    busy.raise_alert("zoned", zone_id="depot")
    found = busy_api.get("/api/v1/alerts", params={"zone": "depot"}).json()["items"]
    assert [item["device_id"] for item in found] == ["zoned"]
