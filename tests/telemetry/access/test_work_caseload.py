"""Work on alerts stays within a caseload: a refused step has changed nothing."""

from __future__ import annotations


def test_a_step_on_an_alert_of_others_changes_nothing(door_api, as_, problem):
    alerts = door_api.get("/api/v1/alerts", headers=as_("all")).json()["items"]
    south = next(a for a in alerts if a["device_id"] == "a2")
    url = f"/api/v1/alerts/{south['alert_id']}"
    for step, body in (("acknowledge", {}), ("assign", {"to": "me"}), ("resolve", {"outcome": "false"})):
        problem(door_api.post(f"{url}/{step}", json=body, headers=as_("operator")), 404)
    after = door_api.get(url, headers=as_("all")).json()
    assert (after["state"], after["assigned_to"]) == (south["state"], south["assigned_to"])
