"""Devices, positions, tracks."""

from __future__ import annotations

import csv
import io

import pytest

from geofence import to_rfc3339
from telemetry.api.track import CSV_COLUMNS
from tests.telemetry.api.town import MINUTE_US, START_US, walk


def test_devices_are_listed_by_id_with_their_newest_position(api):
    answer = api.get("/api/v1/devices").json()
    assert [item["device_id"] for item in answer["items"]] == ["a1", "a2", "b-1", "c_1"]
    assert answer["next"] is None
    a1 = answer["items"][0]
    assert a1["online"] is True
    assert a1["position"]["time"] == to_rfc3339(START_US + 249 * MINUTE_US)
    assert a1["position"]["lat"] == pytest.approx(35.20 + 249 * 1e-4)
    assert a1["position"]["accuracy_m"] == 8.5
    assert a1["position"]["speed_mps"] == 1.2
    assert a1["position"]["heading_deg"] is None
    assert a1["position"]["battery_pct"] == 81
    assert a1["position"]["status"] == ["moving"]
    assert a1["open_alerts"] == 9


def test_a_device_without_fix_has_no_coordinates_and_says_its_doubts(api):
    position = api.get("/api/v1/devices/c_1").json()["position"]
    assert (position["lat"], position["lon"], position["accuracy_m"]) == (None, None, None)
    assert position["marks"] == ["not_enrolled", "clock_off"]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_walking_the_devices_meets_each_once(api, limit):
    assert walk(api, "/api/v1/devices", limit, "device_id") == ["a1", "a2", "b-1", "c_1"]


def test_an_unknown_device_is_not_found(api, problem):
    assert problem(api.get("/api/v1/devices/nobody"), 404)["type"].endswith("no-such-device")
    assert problem(api.get("/api/v1/devices/nobody/track"), 404)["type"].endswith("no-such-device")


BETWEEN = {"from": to_rfc3339(START_US), "to": to_rfc3339(START_US + 300 * MINUTE_US)}


def test_a_track_is_complete_and_ordered(api):
    items = api.get("/api/v1/devices/a1/track", params=BETWEEN).json()["items"]
    assert [item["seq"] for item in items] == list(range(250))
    assert items[0] == {
        "time": "2026-11-18T11:06:40Z",
        "received_time": to_rfc3339(START_US + 480_000),
        "boot": 3,
        "seq": 0,
        "lat": 35.2,
        "lon": -80.8,
        "accuracy_m": 8.5,
        "speed_mps": 1.2,
        "heading_deg": None,
        "altitude_m": None,
        "battery_pct": 81,
        "satellites": None,
        "status": ["moving"],
        "source": "gnss",
        "marks": [],
    }


def test_a_track_begins_at_from_and_ends_before_to(api):
    between = {"from": to_rfc3339(START_US + MINUTE_US), "to": to_rfc3339(START_US + 3 * MINUTE_US)}
    items = api.get("/api/v1/devices/a1/track", params=between).json()["items"]
    assert [item["seq"] for item in items] == [1, 2]


def test_a_time_without_pings_gives_an_empty_track_of_a_known_device(api):
    answer = api.get(
        "/api/v1/devices/a1/track", params={"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"}
    )
    assert answer.json() == {"items": [], "next": None}


def test_the_edges_of_time_are_no_errors(api):
    for bounds in ({"from": "0001-01-01T00:00:00+23:00"}, {"to": "9999-12-31T23:59:59-23:00"}):
        assert api.get("/api/v1/devices/a1/track", params=bounds).status_code == 200


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("text/*", "text/csv; charset=utf-8"),
        ("application/geo+json", "application/geo+json"),
        ("text/csv;q=0.5, application/geo+json", "application/geo+json"),
        ("application/json;q=0, */*", "text/csv; charset=utf-8"),
    ],
)
def test_accept_chooses_the_format(api, accept, media_type):
    headers = {"Accept": accept} if accept else {}
    answer = api.get("/api/v1/devices/a1/track", params=BETWEEN, headers=headers)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["vary"] == "Accept"


def test_the_three_formats_say_the_same(api):
    url = "/api/v1/devices/a1/track"
    plain = api.get(url, params=BETWEEN).json()["items"]
    rows = list(csv.DictReader(io.StringIO(api.get(url, params=BETWEEN | {"format": "csv"}).text)))
    features = api.get(url, params=BETWEEN | {"format": "geojson"}).json()["features"]
    assert len(plain) == len(rows) == len(features) == 250
    assert tuple(rows[0]) == CSV_COLUMNS
    for item, row, feature in zip(plain, rows, features, strict=True):
        assert row["device_id"] == feature["properties"]["device_id"] == "a1"
        assert feature["geometry"] == {"type": "Point", "coordinates": [item["lon"], item["lat"]]}
        assert (float(row["lat"]), float(row["lon"])) == (item["lat"], item["lon"])
        assert row["time"] == item["time"] == feature["properties"]["time"]
        assert row["status"].split() == item["status"] == feature["properties"]["status"]
        assert row["heading_deg"] == ""


def test_a_ping_without_fix_has_a_null_geometry(api):
    features = api.get("/api/v1/devices/c_1/track", params=BETWEEN | {"format": "geojson"}).json()["features"]
    assert [feature["geometry"] for feature in features] == [None]


def test_a_format_that_nobody_writes_is_refused(api, problem):
    answer = api.get("/api/v1/devices/a1/track", headers={"Accept": "image/png"})
    assert "text/csv" in problem(answer, 406)["remedy"]


def test_positions_as_columns_and_as_geojson(api):
    answer = api.get("/api/v1/positions").json()
    rows = {row[0]: dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]}
    assert set(rows) == {"a1", "a2", "b-1", "c_1"}
    assert rows["a2"]["time"] == to_rfc3339(START_US + 2 * MINUTE_US)
    assert rows["c_1"]["lat"] is None
    features = api.get("/api/v1/positions", headers={"Accept": "application/geo+json"}).json()["features"]
    assert {f["id"]: (f["geometry"] or {}).get("coordinates") for f in features} == {
        name: None if row["lat"] is None else [row["lon"], row["lat"]] for name, row in rows.items()
    }


def test_clients_that_leave_in_the_middle_of_a_track_hold_nothing(town, town_api):
    town.commit(town.walk("a1", 30_000, from_us=START_US - 30_000 * MINUTE_US))
    between = {"from": "2026-10-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}
    for _ in range(20):  # more than the reader has connections
        with town_api.stream("GET", "/api/v1/devices/a1/track", params=between) as response:
            next(response.iter_bytes())
    assert town_api.get("/api/v1/devices/a1").status_code == 200
    assert len(town_api.get("/api/v1/devices/a1/track", params=between).json()["items"]) == 30_000
