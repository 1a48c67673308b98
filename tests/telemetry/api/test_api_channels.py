"""Suppressions and deliveries over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest


def later(**delta: int) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat().replace("+00:00", "Z")


def test_a_suppression_keeps_open_and_new_alerts_quiet(town, town_api):
    before = town.raise_alert("a1", rule_id="strap", zone_id=None)
    body = {
        "device_id": "a1",
        "rule_id": "strap",
        "until": later(hours=1),
        "reason": "new strap",
        "who": "m.ito",
    }
    made = town_api.post("/api/v1/suppressions", json=body)
    assert made.status_code == 201
    suppression = made.json()
    assert (suppression["in_force"], suppression["created_by"]) == (True, "m.ito")
    after = town.raise_alert("a1", rule_id="strap", zone_id=None)
    other = town.raise_alert("a2", rule_id="strap", zone_id=None)

    def quiet(alert_id: int) -> str | None:
        return town_api.get(f"/api/v1/alerts/{alert_id}").json()["suppression_id"]

    assert [quiet(a) for a in (before, after, other)] == [suppression["suppression_id"]] * 2 + [None]
    log = town_api.get(f"/api/v1/alerts/{after}").json()["log"]
    assert [(s["change"], s["note"]) for s in log] == [
        ("opened", None),
        ("suppressed", f"suppression {suppression['suppression_id']}: new strap"),
    ]
    listed = town_api.get("/api/v1/suppressions", params={"in_force": True}).json()["items"]
    assert listed == [suppression]
    lifted = town_api.post(
        f"/api/v1/suppressions/{suppression['suppression_id']}/lift", json={"who": "k.osei"}
    )
    assert (lifted.json()["in_force"], lifted.json()["lifted_by"]) == (False, "k.osei")
    assert town_api.get("/api/v1/suppressions", params={"in_force": True}).json()["items"] == []
    again = town_api.post(f"/api/v1/suppressions/{suppression['suppression_id']}/lift", json={"who": "x"})
    assert again.json() == lifted.json()


@pytest.mark.parametrize(
    "body",
    [
        {"until": "2099-01-01T00:00:00Z", "device_id": "a1", "reason": "x"},
        {"until": "2020-01-01T00:00:00Z", "device_id": "a1", "reason": "x"},
        {"until": None, "device_id": "a1", "reason": "x"},
        {"device_id": "a1", "reason": ""},
        {"device_id": "a1"},
        {"reason": "x"},
        {"device_id": "a/1", "reason": "x"},
        {"device": "a1", "reason": "x"},
    ],
)
def test_a_suppression_that_makes_no_sense_is_refused(busy_api, problem, body):
    body = {"until": later(hours=1)} | body
    problem(busy_api.post("/api/v1/suppressions", json=body), 422)
    assert busy_api.get("/api/v1/suppressions").json()["items"] == []


def test_deliveries_are_listed_and_tried_again(town, town_api, problem):
    with psycopg.connect(town.url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO deliveries (outbox_id, alert_id, created_time, due_time, settled_time, attempts,"
            " state, channel, device_id, error, payload)"
            " SELECT i, 7, now(), now(), now(), 10, 'dead', 'webhook:w', 'a1', 'status 500', '{}'"
            " FROM generate_series(1, 3) AS i"
        )
    first = town_api.get("/api/v1/deliveries", params={"state": "dead", "limit": 2}).json()
    second = town_api.get("/api/v1/deliveries", params={"state": "dead", "cursor": first["next"]}).json()
    items = first["items"] + second["items"]
    assert [item["delivery_id"] for item in items] == ["3", "2", "1"]
    assert second["next"] is None
    retried = town_api.post("/api/v1/deliveries/2/retry").raise_for_status().json()
    assert (retried["state"], retried["attempts"], retried["settled_at"]) == ("waiting", 0, None)
    assert retried["next_try_at"] is not None
    assert town_api.get("/api/v1/deliveries", params={"alert": "8"}).json()["items"] == []
    problem(town_api.post("/api/v1/deliveries/17/retry"), 404)
    problem(town_api.get("/api/v1/deliveries", params={"cursor": "x"}), 422)
    channels = {item["channel"]: item for item in town_api.get("/api/v1/channels").json()["items"]}
    assert channels["mqtt"]["waiting"] == 0


def test_what_nobody_knows(busy_api, problem):
    problem(busy_api.post("/api/v1/suppressions/99/lift", json={}), 404)
