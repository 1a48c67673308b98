"""Zones, rules and leaves change by versions: checked like files, at a stated time, never over another."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator

import httpx
import pytest

from geofence import to_rfc3339
from tests.telemetry.api.town import Town, serving

SQUARE = {
    "type": "Feature",
    "geometry": {
        "type": "Polygon",
        "coordinates": [[[-80.8, 35.2], [-80.79, 35.2], [-80.79, 35.21], [-80.8, 35.21], [-80.8, 35.2]]],
    },
    "properties": {"name": "The market"},
}
ANY = {"If-Match": "*"}


@pytest.fixture
def edited(town: Town) -> Iterator[httpx.Client]:
    """A client of an API whose rules are in the database."""
    with serving(town.url, zones_read_only=False) as url, httpx.Client(base_url=url, timeout=20) as client:
        client.base_url = f"{url}/api/v1/"
        yield client


def in_an_hour() -> str:
    return to_rfc3339(time.time_ns() // 1000 + 3_600_000_000)


def test_a_zone_and_a_rule_are_made_changed_and_retired(edited):
    made = edited.put("zones/market", json=SQUARE, headers={"If-Match": '"rules-1"'})
    assert made.status_code == 200, made.text
    assert made.headers["etag"] == '"rules-2"'
    assert made.json()["saved"] is True
    assert made.json()["diff"]["zones"] == {"added": ["market"], "changed": [], "retired": []}
    rule = {"subjects": ["all"], "require": "outside", "zones": ["market"], "severity": "low"}
    made = edited.put("rules/no-market", json=rule, headers={"If-Match": made.headers["etag"]})
    assert made.json()["version"] == 3
    zone = edited.get("zones/market", params={"version": 3}).json()
    assert zone["properties"]["kind"] == "exclusion"
    assert zone["properties"]["name"] == "The market"

    # what a client got it can send back
    zone["properties"]["name"] = "Market"
    changed = edited.put("zones/market", json=zone, headers=ANY).json()
    (change,) = changed["diff"]["zones"]["changed"]
    assert (change["id"], change["after"]["properties"]["name"]) == ("market", "Market")

    refused = edited.delete("zones/market", headers=ANY)
    assert (refused.status_code, refused.json()["type"][-11:]) == (409, "zone-in-use")
    assert "no-market" in refused.json()["detail"]
    assert edited.delete("rules/no-market", headers=ANY).json()["diff"]["rules"]["retired"] == ["no-market"]
    assert edited.delete("zones/market", headers=ANY).status_code == 200
    versions = edited.get("versions").json()["items"]
    assert [v["version"] for v in versions] == [6, 5, 4, 3, 2, 1]
    assert versions[0]["saved_by"] == "local operator"
    assert versions[0]["state"] == "scheduled"  # for five seconds
    assert edited.get("versions/6/diff", params={"since": 1}).json()["zones"]["added"] == []


def test_the_same_again_is_no_version(edited):
    for expected in (True, False):
        answer = edited.put("zones/market", json=SQUARE, headers=ANY).json()
        assert answer["changed"] is answer["saved"] is expected
        assert answer["version"] == 2


def test_who_changes_says_on_which_version(edited, problem):
    assert "If-Match" in problem(edited.put("zones/market", json=SQUARE), 428)["remedy"]
    edited.put("zones/market", json=SQUARE, headers={"If-Match": '"rules-1"'})
    conflict = problem(edited.put("zones/other", json=SQUARE, headers={"If-Match": '"rules-1"'}), 412)
    assert conflict["newest"] == 2
    assert edited.get("versions/2/diff", params={"since": 1}).json()["zones"]["added"] == ["market"]
    problem(edited.put("zones/other", json=SQUARE, headers={"If-Match": "yesterday"}), 412)


def test_every_problem_is_told_with_its_place(edited, problem):
    rules = [
        {"id": "a", "subjects": ["all"], "require": "outside", "zones": ["nowhere"]},
        {"id": "b", "subjects": ["everyone"], "require": "inside", "zones": ["depot"], "when": "at night"},
    ]
    zones = edited.get("versions/1").json()["zones"]
    refused = problem(
        edited.post("versions", json={"zones": zones, "rules": {"rules": rules}}, headers=ANY), 422
    )
    assert {error["where"] for error in refused["errors"]} == {
        "/rules/rules/0/zones",
        "/rules/rules/1/subjects",
        "/rules/rules/1/when",
    }
    open_ring = {**SQUARE, "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [0, 1], [1, 1]]]}}
    refused = problem(edited.put("zones/bad", json=open_ring, headers=ANY), 422)
    assert refused["errors"][0]["where"] == f"/zones/features/{len(zones['features'])}"
    assert edited.get("versions").json()["items"][0]["version"] == 1


@pytest.mark.parametrize(
    "body",
    [
        '{"type": "Feature", "geometry": {"type": "Point", "coordinates": [NaN, 1]}}',
        '{"type":"Feature","geometry": {"type": "Point", "coordinates": [1,1]},"properties":{"a":"\\u0000"}}',
        '{"type": "Feature", "geometry": null, "properties": {"name": "\\ud800"}}',
        '{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1e400, 1]}}',
        '{"properties": 7}',
        "{}",
    ],
)
def test_what_can_not_be_stored_is_refused(edited, problem, body):
    headers = ANY | {"Content-Type": "application/json"}
    problem(edited.put("zones/odd", content=body, headers=headers), 422)


def test_a_document_of_great_depth_is_refused(edited, problem):
    deep = "[" * 600 + "]" * 600
    body = f'{{"zones": {{"type": "FeatureCollection", "features": []}}, "rules": {{"odd": {deep}}}}}'
    headers = ANY | {"Content-Type": "application/json"}
    refused = problem(edited.post("versions", content=body, headers=headers), 422)
    assert "deeper" in refused["detail"]


def test_a_dry_run_says_what_would_be_and_saves_nothing(edited, problem):
    answer = edited.put("zones/market", json=SQUARE, params={"validate": "only"}).json()
    assert (answer["changed"], answer["saved"]) == (True, False)
    assert answer["diff"]["zones"]["added"] == ["market"]
    problem(edited.put("zones/market", json={**SQUARE, "geometry": None}, params={"validate": "only"}), 422)
    assert edited.get("versions").json()["items"][0]["version"] == 1


def test_what_is_scheduled_is_seen_apart_kept_in_order_and_cancelled(edited, problem):
    at = in_an_hour()
    answer = edited.put("zones/market", json=SQUARE, params={"effective_at": at}, headers=ANY).json()
    assert answer["effective_at"] == at
    rules = edited.get("rules").json()
    assert (rules["version"], rules["newest_version"]) == (1, 2)
    assert edited.get("zones/market").status_code == 404
    assert edited.get("zones/market", params={"version": 2}).status_code == 200
    # a change made on the scheduled version must not bring it forward
    refused = problem(edited.delete("rules/strap", headers=ANY), 409)
    assert "DELETE /api/v1/versions/scheduled" in refused["remedy"]
    later = edited.delete("rules/strap", params={"effective_at": at}, headers=ANY)
    assert later.status_code == 200
    cancelled = edited.delete("versions/scheduled", headers={"If-Match": '"rules-3"'}).json()
    assert cancelled["diff"]["zones"] == {"added": [], "changed": [], "retired": []}
    states = {v["version"]: v["state"] for v in edited.get("versions").json()["items"]}
    assert states == {1: "in_force", 2: "replaced", 3: "replaced", 4: "scheduled"}
    soon = to_rfc3339(time.time_ns() // 1000)
    problem(edited.put("zones/market", json=SQUARE, params={"effective_at": soon}, headers=ANY), 422)


def test_a_leave_is_granted_and_revoked(edited, problem):
    leave = {
        "subjects": ["device:a1"],
        "rules": ["curfew"],
        "from": in_an_hour(),
        "until": "2099-01-01T00:00:00Z",
    }
    granted = edited.post("leaves", json=leave | {"reason": "hospital"}, headers=ANY)
    assert granted.status_code == 200, granted.text
    (listed,) = edited.get("leaves").json()["items"]
    assert (listed["granted_by"], listed["reason"], listed["rules"]) == (
        "local operator",
        "hospital",
        ["curfew"],
    )
    assert edited.delete(f"leaves/{listed['leave_id']}", headers=ANY).status_code == 200
    assert edited.get("leaves").json()["items"] == []
    problem(edited.delete(f"leaves/{listed['leave_id']}", headers=ANY), 404)
    problem(edited.post("leaves", json=leave | {"rules": ["no such rule"]}, headers=ANY), 422)

    begun = leave | {"from": "2026-01-01T00:00:00Z"}
    edited.post("leaves", json=begun, headers=ANY)
    (listed,) = edited.get("leaves").json()["items"]
    ended = edited.delete(f"leaves/{listed['leave_id']}", headers=ANY).json()
    (listed,) = edited.get("leaves").json()["items"]
    assert (
        listed["until"] == ended["effective_at"][:-1].rstrip("0").rstrip(".") + "Z"
        or listed["until"] < in_an_hour()
    )


def test_keys_of_devices_are_never_shown_and_survive_an_edit(edited, town):
    document = edited.get("versions/1").json()
    key = base64.b64encode(bytes(range(32))).decode()
    body = {"zones": document["zones"], "rules": document["rules"] | {"devices": [{"id": "a1", "key": key}]}}
    assert edited.post("versions", json=body, headers=ANY).status_code == 200
    got = edited.get("versions/2")
    assert key not in got.text
    assert key not in edited.get("versions/2/diff").text
    body = {"zones": got.json()["zones"], "rules": got.json()["rules"] | {"timezone": "UTC"}}
    answer = edited.post("versions", json=body, headers=ANY)
    assert [change["id"] for change in answer.json()["diff"]["settings"]] == ["timezone"]
    stored = town.store.load_ruleset(3)
    assert stored[1]["rules"]["devices"] == [{"id": "a1", "key": key}]


def test_rules_from_files_are_changed_there(town_api, problem):
    answer = town_api.put("/api/v1/zones/market", json=SQUARE, headers=ANY)
    assert "SIGHUP" in problem(answer, 409)["remedy"]
