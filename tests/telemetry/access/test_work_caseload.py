"""Work on alerts stays within a caseload: a refused step has changed nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def later() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")


def test_a_step_on_an_alert_of_others_changes_nothing(door_api, as_, problem):
    alerts = door_api.get("/api/v1/alerts", headers=as_("all")).json()["items"]
    south = next(a for a in alerts if a["device_id"] == "a2")
    url = f"/api/v1/alerts/{south['alert_id']}"
    for step, body in (("acknowledge", {}), ("assign", {"to": "me"}), ("resolve", {"outcome": "false"})):
        problem(door_api.post(f"{url}/{step}", json=body, headers=as_("operator")), 404)
    after = door_api.get(url, headers=as_("all")).json()
    assert (after["state"], after["assigned_to"]) == (south["state"], south["assigned_to"])


def test_a_caseload_keeps_only_its_own_quiet(door_api, as_, problem):
    def suppress(name: str, **fits: str):
        body = {"until": later(), "reason": "new strap", **fits}
        return door_api.post("/api/v1/suppressions", json=body, headers=as_(name))

    for fits in ({"rule_id": "strap"}, {"zone_id": "school-1"}, {"device_id": "a2"}):
        problem(suppress("operator", **fits), 403)
    mine = suppress("operator", device_id="a1").json()
    others = suppress("all", device_id="a2").json()
    everybody = suppress("all", rule_id="strap").json()
    seen = door_api.get("/api/v1/suppressions", headers=as_("operator")).json()["items"]
    ids = [item["suppression_id"] for item in seen]
    assert ids == [everybody["suppression_id"], mine["suppression_id"]]
    lift = "/api/v1/suppressions/{}/lift"
    problem(door_api.post(lift.format(others["suppression_id"]), json={}, headers=as_("operator")), 404)
    problem(door_api.post(lift.format(everybody["suppression_id"]), json={}, headers=as_("operator")), 403)
    for number in (mine, others, everybody):
        door_api.post(lift.format(number["suppression_id"]), json={}, headers=as_("all")).raise_for_status()
    in_force = door_api.get("/api/v1/suppressions?in_force=true", headers=as_("all")).json()["items"]
    assert in_force == []
