"""Beliefs over time, commands and check-ins of a device."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg

from geofence import Engine, to_rfc3339
from telemetry.store.beliefs import belief_over_time
from tests.telemetry.api.town import MINUTE_US, START_US


def window(minutes: int) -> dict[str, str]:
    return {"from": to_rfc3339(START_US), "to": to_rfc3339(START_US + minutes * MINUTE_US)}


def test_beliefs_are_those_of_an_engine_over_the_same_pings(town, town_api):
    pings = town.walk("a9", 15, lat=35.22, lon=-80.84)  # from the middle of school-1 almost to its edge
    town.commit(pings)
    found = town_api.get("/api/v1/devices/a9/belief", params=window(60)).json()
    assert len(found["times"]) == 15
    (line,) = found["series"]
    assert (line["rule_id"], line["zone_id"]) == ("no-schools", "school-1")
    assert (line["opens_at"], line["clears_at"]) == (0.95, 0.27)
    engine = Engine(town.ruleset, town.devices)
    engine.check(pings)
    (held,) = engine.belief("a9")
    assert line["confidence"][-1] == held["confidence"]
    assert line["state"][-1] == held["state"]
    assert line["confidence"][5] >= 0.95  # deep inside
    assert line["state"][5] == "wrong"
    assert line["distance_m"][0] < -190
    assert -20 < line["distance_m"][-1] < 20


def test_evidence_before_the_asked_time_counts_and_is_not_shown(town, town_api):
    town.commit(town.walk("a9", 25, lat=35.22, lon=-80.84))
    later = {"from": to_rfc3339(START_US + 10 * MINUTE_US), "to": window(60)["to"]}
    whole = town_api.get("/api/v1/devices/a9/belief", params=window(60)).json()
    part = town_api.get("/api/v1/devices/a9/belief", params=later).json()
    assert part["times"] == whole["times"][10:]
    assert part["series"][0]["confidence"] == whole["series"][0]["confidence"][10:]
    assert part["series"][0]["confidence"][-1] is None  # clearly away, the zone is in question no more


def test_a_caseload_is_shown_beliefs_of_its_own_time_alone(town, town_api):
    town.commit(town.walk("a9", 30))
    whole = town_api.get("/api/v1/devices/a9/belief", params=window(60)).json()
    begin_us = START_US + 20 * MINUTE_US
    with psycopg.connect(town.url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO enrollments (from_version, from_time, device_id, kind, groups, digest)"
            " VALUES (%s, %s, 'a9', 'ankle', %s, '')",
            (town.version, datetime.fromtimestamp(begin_us / 1e6, UTC), ["north"]),
        )
    until_us = START_US + 60 * MINUTE_US
    own = belief_over_time(town.url, "a9", START_US, until_us, frozenset({"north"}))
    assert own.warm_us == begin_us
    assert [to_rfc3339(time_us) for time_us in own.times_us] == whole["times"][20:]
    assert not belief_over_time(town.url, "a9", START_US, until_us, frozenset({"south"})).times_us


def test_a_look_at_beliefs_has_its_bounds(town, town_api, problem):
    town.commit(town.walk("a9", 5_100))
    problem(town_api.get("/api/v1/devices/nobody/belief"), 404)
    assert (
        town_api.get("/api/v1/devices/a9/belief", params={**window(60), "reason": "call"}).status_code == 200
    )
    answer = town_api.get("/api/v1/devices/a9/belief", params=window(6_000))
    assert "5100 pings" in problem(answer, 422)["detail"]
    problem(town_api.get("/api/v1/devices/a9/belief", params=window(11_000)), 422)


def test_a_command_waits_is_sent_and_answered(town, town_api):
    town.commit(town.walk("a1", 1))
    asked = town_api.post("/api/v1/devices/a1/commands", json={"command": "message", "text": "call us"})
    assert asked.status_code == 202
    command = asked.json()
    assert (command["arguments"], command["sent_at"], command["outcome"]) == ({"text": "call us"}, None, None)
    (waiting,) = town.store.waiting_commands(10)
    assert waiting.payload == {"command": "message", "text": "call us"}
    town.store.mark_commands_sent([waiting.command_id])
    with psycopg.connect(town.url) as connection:
        for outcome in (False, True):  # a device may answer twice: the first answer counts
            connection.execute(
                "INSERT INTO command_results (time, received_time, batch, share, done, device_id, command_id,"
                " detail) VALUES (now(), clock_timestamp(), 1, 0, %s, 'a1', %s, 'no display')",
                (outcome, command["command_id"]),
            )
    (listed,) = town_api.get("/api/v1/devices/a1/commands").json()["items"]
    assert (listed["outcome"], listed["detail"]) == ("refused", "no display")
    assert listed["sent_at"] is not None
    assert listed["who"] == "local operator"


def test_commands_that_make_no_sense_are_refused(town, town_api, problem):
    town.commit(town.walk("a1", 1))
    for body in (
        {"command": "explode"},
        {"command": "message"},
        {"command": "locate", "seconds": 60},
        {"command": "set_interval", "seconds": 1},
        {"command": "locate", "text": "\0"},
    ):
        problem(town_api.post("/api/v1/devices/a1/commands", json=body), 422)
    problem(town_api.post("/api/v1/devices/nobody/commands", json={"command": "locate"}), 404)
    assert town.store.waiting_commands(10) == []


def test_check_ins_are_walked_newest_first(town, town_api):
    town.commit(town.walk("a1", 1))
    with psycopg.connect(town.url) as connection:
        for i in range(7):
            connection.execute(
                "INSERT INTO check_ins (time, received_time, batch, item, share, device_id, outcome, method)"
                " VALUES (now() - %s * interval '1 h', now() + %s * interval '1 s', 1, 0, 0, 'a1',"
                " 'verified', 'voice')",
                (i // 2, i),  # two share each time
            )
    seen, cursor = [], None
    while True:
        parameters = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = town_api.get("/api/v1/devices/a1/check-ins", params=parameters).json()
        seen += [(item["time"], item["received_time"]) for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 7
    assert seen == sorted(seen, reverse=True)


def test_a_track_is_a_moving_feature(town, town_api):
    pings = town.walk("a1", 4)
    town.commit(pings)
    address = "/api/v1/devices/a1/track"
    answer = town_api.get(address, params=window(60) | {"format": "mfjson"})
    assert answer.headers["content-type"] == "application/mf+json"
    feature = answer.json()
    moving = feature["temporalGeometry"]
    assert moving["type"] == "MovingPoint"
    assert moving["datetimes"] == [to_rfc3339(time_us) for time_us in pings.fix_time_us.tolist()]
    assert moving["coordinates"] == [
        [lon / 1e7, lat / 1e7] for lon, lat in zip(pings.lon_e7.tolist(), pings.lat_e7.tolist(), strict=True)
    ]
    assert feature["time"] == [moving["datetimes"][0], moving["datetimes"][-1]]
    assert feature["temporalProperties"][1]["battery_pct"]["values"] == [81] * 4
    empty = town_api.get(address, params={"format": "mfjson", "to": "2020-01-01T00:00:00Z"}).json()
    assert empty["temporalGeometry"]["datetimes"] == []
