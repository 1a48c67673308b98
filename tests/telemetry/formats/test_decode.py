"""Decoding: round trips against a small encoder of our own, and whatever a broken or hostile device sends."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime, timedelta
from hashlib import blake2s

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geofence import Devices
from geofence.pings import COLUMNS, SOURCES, STATUS_NAMES
from telemetry.columns import MARK_TAG_WRONG, MARK_TOPIC_MISMATCH
from telemetry.formats import decode
from telemetry.formats.reading import time_us, times_us
from telemetry.mqtt.oversize import Oversize
from telemetry.mqtt.topics import Topics

PINGS = "ringfence/v1/8d/a17/pings"
STATUS, RESULTS, CHECKINS = (PINGS.replace("pings", leaf) for leaf in ("status", "results", "checkins"))
OWNTRACKS = "owntracks/ada/phone"
TRACCAR, TELTONIKA, LWM2M = "traccar/482915", "fleet/350424064018000/data", "lwm2m/urn-imei-35042/6"
TIME_MS = 1_795_507_200_123
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEY = bytes(range(32))
fixtures_ok = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def no_key(_device_id):
    return None


def header(count=1, *, magic=0xA7, version=1, flags=0, kind=0, boot=3) -> bytes:
    return struct.pack("<BBBBHH", magic, version, flags, kind, count, boot)


_FIELDS = {
    "seq": 17,
    "time_ms": TIME_MS,
    "lat": 352_271_000,
    "lon": -808_431_000,
    "accuracy": 45,
    "speed": 120,
}
_FIELDS |= {"heading": 9050, "altitude": 229, "status": 8, "battery": 87, "satellites": 11}


def record(seq=17, **fields: int) -> bytes:
    return struct.pack("<IQiiHHHhHBB", *(_FIELDS | {"seq": seq} | fields).values())


def tagged(body: bytes, device_id="a17", key=KEY) -> bytes:
    return body + blake2s(device_id.encode() + b"\0" + body, digest_size=16, key=key).digest()


def rows_of(pings) -> list[dict]:
    names = [name for name, _, _ in COLUMNS]
    return [
        dict(zip(names, values, strict=True))
        for values in zip(*(getattr(pings, n).tolist() for n in names), strict=True)
    ]


# --- round trips ------------------------------------------------------------------------------------

u16, u8 = st.integers(0, 65_535), st.integers(0, 255)
position = st.one_of(
    st.just((-(2**31), -(2**31))),
    st.tuples(st.integers(-900_000_000, 900_000_000), st.integers(-1_800_000_000, 1_800_000_000)),
)
records = st.lists(
    st.tuples(
        st.integers(0, 2**32 - 1),
        st.integers(0, 253_402_300_799_999),
        position,
        u16,
        u16,
        st.integers(0, 35_999) | st.just(65_535),
        st.integers(-32_768, 32_767),
        st.integers(0, 1023),
        st.integers(0, 100) | st.just(255),
        u8,
    ),
    min_size=1,
    max_size=20,
)


@given(batches=st.lists(st.tuples(records, st.integers(0, 65_535), st.booleans()), min_size=1, max_size=5))
@fixtures_ok
def test_binary_v1_round_trip(batches, messages_of):
    items, expected = [], []
    for number, (rows, boot, tag) in enumerate(batches):
        body = header(len(rows), boot=boot, flags=int(tag))
        for seq, time_ms, (lat, lon), accuracy, *rest in rows:
            body += struct.pack("<IQiiHHHhHBB", seq, time_ms, lat, lon, accuracy, *rest)
            accuracy_mm = -1 if accuracy == 65_535 else accuracy * 100
            expected.append((number, boot, seq, time_ms * 1000, lat, lon, accuracy_mm, *rest))
        items.append((PINGS, tagged(body) if tag else body))
    found = decode(messages_of(items), Devices(), no_key)
    p = found.pings
    columns = (found.message, p.boot, p.seq, p.fix_time_us, p.lat_e7, p.lon_e7, p.accuracy_mm, p.speed_cmps,
               p.heading_cdeg, p.altitude_m, p.status, p.battery_pct, p.satellites)  # fmt: skip
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == expected
    assert found.rejects == []


maybe = st.none()
json_pings = st.fixed_dictionaries(
    {"time": st.integers(0, 253_402_300_799_999)},
    optional={
        "boot": maybe | st.integers(0, 2**31 - 1),
        "seq": maybe | st.integers(0, 2**63 - 1),
        "accuracy_mm": st.integers(0, 2_000_000_000),
        "speed_cmps": st.integers(0, 65_534),
        "heading_cdeg": st.integers(0, 35_999),
        "altitude_m": st.integers(-32_767, 32_767),
        "battery_pct": st.integers(0, 100),
        "satellites": st.integers(0, 254),
        "status": st.lists(st.sampled_from(STATUS_NAMES), unique=True),
        "source": st.sampled_from(SOURCES),
        "position": st.tuples(
            st.integers(-900_000_000, 900_000_000), st.integers(-1_800_000_000, 1_800_000_000)
        ),
    },
)


@given(pings=st.lists(json_pings, min_size=1, max_size=8), alone=st.booleans())
@fixtures_ok
def test_json_v1_round_trip(pings, alone, messages_of):
    objects = [as_json(ping) for ping in pings]
    texts = [json.dumps(o) for o in objects] if alone else [json.dumps(objects)]
    found = decode(messages_of([(PINGS, text.encode()) for text in texts]), Devices(), no_key)
    assert found.rejects == []
    for row, ping in zip(rows_of(found.pings), pings, strict=True):
        lat, lon = ping.get("position", (-(2**31), -(2**31)))
        status = sum(1 << STATUS_NAMES.index(name) for name in ping.get("status", ()))
        status |= SOURCES.index(ping.get("source", "gnss")) << 8
        assert row["fix_time_us"] == ping["time"] * 1000
        assert (row["lat_e7"], row["lon_e7"], row["status"]) == (lat, lon, status)
        for name, _, unknown in COLUMNS:
            if name not in {"device", "fix_time_us", "received_time_us", "lat_e7", "lon_e7", "status"}:
                said = ping.get(name)
                assert row[name] == (unknown if said is None else said), name


AS_THEY_ARE = ("time", "boot", "seq", "altitude_m", "battery_pct", "satellites", "status", "source")
SCALED = (
    ("accuracy_m", "accuracy_mm", 1000),
    ("speed_mps", "speed_cmps", 100),
    ("heading_deg", "heading_cdeg", 100),
)


def as_json(ping: dict) -> dict:
    said = {name: ping[name] for name in AS_THEY_ARE if name in ping}
    said |= {name: ping[column] / scale for name, column, scale in SCALED if column in ping}
    if "position" in ping:
        said["lat"], said["lon"] = ping["position"][0] / 1e7, ping["position"][1] / 1e7
    return said


# --- what can't be read -----------------------------------------------------------------------------


def traccar(timestamp="2026-11-24T08:00:00Z", mock=False, **coords) -> bytes:
    coords = {"latitude": 35.2, "longitude": -80.8} | coords
    return json.dumps({"location": {"timestamp": timestamp, "coords": coords, "mock": mock}}).encode()


def teltonika(**fields) -> bytes:
    return json.dumps({"state": {"reported": {"ts": TIME_MS, "sat": 9, "latlng": "1,2"} | fields}}).encode()


BAD = [
    ("truncated header", PINGS, header()[:5], "truncated"),
    ("only the first byte", PINGS, b"\xa7", "truncated"),
    ("truncated record", PINGS, header() + record()[:-1], "truncated"),
    ("tag announced, not there", PINGS, header(flags=1) + record(), "truncated"),
    ("trailing bytes", PINGS, header() + record() + b"\0", "trailing_bytes"),
    ("tag not announced", PINGS, tagged(header() + record()), "trailing_bytes"),
    ("version 2", PINGS, header(version=2) + record(), "wrong_version"),
    ("flag bit 1", PINGS, header(flags=2) + record(), "unknown_flags"),
    ("kind 2", PINGS, header(kind=2) + record(), "unknown_kind"),
    ("count 0", PINGS, header(0), "bad_count"),
    ("count 1025", PINGS, header(1025) + record() * 1025, "bad_count"),
    ("count too small", PINGS, header(1) + record() * 2, "trailing_bytes"),
    ("latitude beyond the pole", PINGS, header() + record(lat=900_000_001), "out_of_range"),
    ("longitude beyond 180", PINGS, header() + record(lon=-1_800_000_001), "out_of_range"),
    ("only a longitude", PINGS, header() + record(lat=-(2**31)), "half_fix"),
    ("time overflows in us", PINGS, header() + record(time_ms=2**63 // 1000 + 1), "out_of_range"),
    ("time with the top bit", PINGS, header() + record(time_ms=2**64 - 1), "out_of_range"),
    ("heading 361", PINGS, header() + record(heading=36_001), "out_of_range"),
    ("battery 101", PINGS, header() + record(battery=101), "out_of_range"),
    ("empty", PINGS, b"", "empty"),
    ("nul bytes", PINGS, bytes(64), "not_json"),
    ("not utf-8", PINGS, b'{"time": 0, "x": "\xff"}', "not_utf8"),
    ("not utf-8 at all", PINGS, b"\xff" * 100, "not_utf8"),
    ("5,000 lists deep", PINGS, b"[" * 5000, "too_deep"),
    ("5,000 lists deep in a field", PINGS, b'{"time": 0, "x": ' + b"[" * 5000 + b"}", "too_deep"),
    ("one mebibyte of junk", PINGS, b"x" * (1 << 20), "not_json"),
    ("one mebibyte of a list", PINGS, b"[" + b"1," * (1 << 19) + b"1", "not_json"),
    ("cut off", PINGS, b'{"time": 0', "not_json"),
    ("two documents", PINGS, b'{"time": 0}{"time": 1}', "not_json"),
    ("a word", PINGS, b'"hello"', "wrong_type"),
    ("null", PINGS, b"null", "wrong_type"),
    ("empty list", PINGS, b"[]", "empty_list"),
    ("no time", PINGS, b'{"lat": 1, "lon": 2}', "missing_field"),
    ("time of yesterday", PINGS, b'{"time": "yesterday"}', "bad_time"),
    ("time without offset", PINGS, b'{"time": "2026-11-24T08:00:00"}', "bad_time"),
    ("time null", PINGS, b'{"time": null}', "wrong_type"),
    ("time true", PINGS, b'{"time": true}', "wrong_type"),
    ("time negative", PINGS, b'{"time": -1}', "out_of_range"),
    ("ms time that overflows", PINGS, b'{"time": 9223372036854775807}', "out_of_range"),
    ("huge integer", PINGS, b'{"time": 1' + b"0" * 400 + b"}", "out_of_range"),
    ("huge float", PINGS, b'{"time": 1e400}', "out_of_range"),
    ("NaN", PINGS, b'{"time": 0, "lat": NaN, "lon": 0}', "not_json"),
    ("Infinity", PINGS, b'{"time": 0, "lat": Infinity, "lon": 0}', "not_json"),
    ("latitude 900", PINGS, b'{"time": 0, "lat": 900, "lon": 0}', "out_of_range"),
    ("number as text", PINGS, b'{"time": 0, "lat": "1", "lon": 0}', "wrong_type"),
    ("only a latitude", PINGS, b'{"time": 0, "lat": 1}', "half_fix"),
    ("seq beyond 63 bits", PINGS, b'{"time": 0, "seq": 9223372036854775808}', "out_of_range"),
    ("seq with a fraction", PINGS, b'{"time": 0, "seq": 1.5}', "wrong_type"),
    ("unknown status", PINGS, b'{"time": 0, "status": ["melting"]}', "unknown_word"),
    ("negative accuracy", PINGS, b'{"time": 0, "accuracy_m": -1}', "out_of_range"),
    ("owntracks: not a location", OWNTRACKS, b'{"_type": "card"}', "not_location"),
    ("owntracks: no type", OWNTRACKS, b'{"lat": 1, "lon": 2, "tst": 0}', "missing_field"),
    ("owntracks: no time", OWNTRACKS, b'{"_type": "location", "lat": 1, "lon": 2}', "missing_field"),
    ("invalid position", OWNTRACKS, b'{"_type":"location","lat":1,"lon":2,"tst":0,"acc":-1}', "out_of_range"),
    ("owntracks: list", OWNTRACKS, b"[]", "wrong_type"),
    ("traccar: no position", TRACCAR, b'{"location":{"timestamp":"2026-11-24T08:00:00Z"}}', "missing_field"),
    ("traccar: time without offset", TRACCAR, traccar(timestamp="2026-11-24T08:00:00"), "bad_time"),
    ("traccar: latitude 91", TRACCAR, traccar(latitude=91), "out_of_range"),
    ("traccar: faster than the column", TRACCAR, traccar(speed=700), "out_of_range"),
    ("traccar: made up by an app", TRACCAR, traccar(mock=True), "mock_location"),
    ("teltonika: no time", TELTONIKA, b'{"state": {"reported": {"latlng": "1,2"}}}', "missing_field"),
    ("teltonika: time in words", TELTONIKA, teltonika(ts="noon"), "bad_time"),
    ("teltonika: time of 16 digits", TELTONIKA, teltonika(ts="1795507200123000"), "bad_time"),
    ("teltonika: one number", TELTONIKA, teltonika(latlng="35.2"), "wrong_type"),
    ("teltonika: no number", TELTONIKA, teltonika(latlng="35.2,x"), "wrong_type"),
    ("teltonika: not a number", TELTONIKA, teltonika(latlng="nan,1"), "out_of_range"),
    ("teltonika: latitude 95", TELTONIKA, teltonika(latlng="95,1"), "out_of_range"),
    ("teltonika: 120 percent", TELTONIKA, teltonika(**{"113": 120}), "out_of_range"),
    ("lwm2m: empty pack", LWM2M, b"[]", "missing_field"),
    ("lwm2m: another object", LWM2M, b'[{"bn": "/3/0/", "n": "9", "v": 87}]', "missing_field"),
    ("lwm2m: no time", LWM2M, b'[{"bn": "/6/0/", "n": "0", "v": 1}, {"n": "1", "v": 2}]', "bad_time"),
    ("lwm2m: relative time", LWM2M, b'[{"bn": "/6/0/", "bt": -60, "n": "0", "v": 1}]', "bad_time"),
    ("lwm2m: only a latitude", LWM2M, b'[{"bn": "/6/0/", "bt": 1795507200, "n": "0", "v": 1}]', "half_fix"),
    ("lwm2m: text for a number", LWM2M, b'[{"bn": "/6/0/", "n": "0", "v": "1"}]', "wrong_type"),
    ("status: other word", STATUS, b'"asleep"', "unknown_word"),
    ("status: empty", STATUS, b"", "empty"),
    ("result: neither", RESULTS, b'{"id": "c1", "result": "maybe", "time": 0}', "unknown_word"),
    ("check-in: no method", CHECKINS, b'{"time": 1795507200000, "outcome": "verified"}', "missing_field"),
    ("check-in of 1970", CHECKINS, b'{"time": 0, "outcome": "verified", "method": "voice"}', "misdated"),
    ("foreign topic", "weather/today", b"{}", "unknown_topic"),
    ("device id with a space", "ringfence/v1/8d/a 17/pings", b"{}", "unknown_topic"),
    ("lane of one digit", "ringfence/v1/8/a17/pings", b"{}", "unknown_topic"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("topic", "payload", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_what_cannot_be_read_is_set_aside_with_its_reason(topic, payload, reason, messages_of):
    good = (PINGS, header() + record())
    found = decode(messages_of([good, (topic, payload), good]), Devices(), no_key)
    (reject,) = found.rejects
    assert reject.reason == reason
    assert len(reject.detail) > 10
    assert (reject.topic, reject.payload) == (topic, payload)
    assert found.message.tolist() == [0, 2]


def test_of_a_list_the_good_count_and_the_bad_are_set_aside_one_by_one(messages_of):
    payload = b'[{"time":1,"seq":1}, {"time":"x"}, 7, {"time":2,"seq":2,"lat":1}, {"time":3,"seq":3}]'
    found = decode(messages_of([(PINGS, payload)]), Devices(), no_key)
    assert found.pings.seq.tolist() == [1, 3]
    assert [(r.reason, r.payload) for r in found.rejects] == [
        ("bad_time", b'{"time":"x"}'),
        ("wrong_type", b"7"),
        ("half_fix", b'{"time":2,"seq":2,"lat":1}'),
    ]
    assert [found.source(i) for i in range(2)] == [
        (PINGS, b'{"time":1,"seq":1}'),
        (PINGS, b'{"time":3,"seq":3}'),
    ]


@pytest.mark.parametrize("key", [None, KEY])
def test_a_bad_record_is_set_aside_as_a_message_of_its_own(key, messages_of):
    body = header(3, flags=1 if key else 0) + record(1) + record(2, lat=900_000_001) + record(3)
    payload = tagged(body) if key else body
    found = decode(messages_of([(PINGS, payload)]), Devices(), lambda _: key)
    assert found.pings.seq.tolist() == [1, 3]
    (reject,) = found.rejects
    alone = header(1, flags=1 if key else 0) + record(2, lat=900_000_001)
    assert reject.payload == (tagged(alone) if key else alone)
    topic, again = found.source(1)
    third = decode(messages_of([(topic, again)]), Devices(), lambda _: key)
    assert (third.pings.seq.tolist(), third.marks.tolist(), third.rejects) == ([3], [0], [])


# --- tags, devices, marks -----------------------------------------------------------------------------

BODY, TAGGED_BODY = header() + record(), header(flags=1) + record()
TAGS = [
    ("right", PINGS, tagged(TAGGED_BODY), 0),
    ("another device's", PINGS, tagged(TAGGED_BODY, device_id="a18"), MARK_TAG_WRONG),
    ("another key", PINGS, tagged(TAGGED_BODY, key=bytes(32)), MARK_TAG_WRONG),
    ("one bit off", PINGS, tagged(TAGGED_BODY)[:-1] + bytes([tagged(TAGGED_BODY)[-1] ^ 1]), MARK_TAG_WRONG),
    ("missing", PINGS, BODY, MARK_TAG_WRONG),
    ("json can have none", PINGS, b'{"time": 0}', MARK_TAG_WRONG),
    ("nor can owntracks", OWNTRACKS, b'{"_type": "location", "lat": 1, "lon": 2, "tst": 0}', MARK_TAG_WRONG),
]


@pytest.mark.parametrize(
    ("topic", "payload", "mark"), [row[1:] for row in TAGS], ids=[row[0] for row in TAGS]
)
def test_with_a_key_the_tag_must_be_right(topic, payload, mark, messages_of):
    assert decode(messages_of([(topic, payload)]), Devices(), lambda _: KEY).marks.tolist() == [mark]


def test_without_a_key_a_tag_is_passed_over(messages_of):
    assert decode(messages_of([(PINGS, tagged(TAGGED_BODY))]), Devices(), no_key).marks.tolist() == [0]


def test_a_payload_that_names_another_device_is_marked(messages_of):
    items = [
        (PINGS, b'{"time": 0, "device_id": "a17"}'),
        (PINGS, b'{"time": 0, "device_id": "a18"}'),
        (OWNTRACKS, b'{"_type":"location","lat":1,"lon":2,"tst":0,"topic":"owntracks/ada/phone"}'),
        (OWNTRACKS, b'{"_type":"location","lat":1,"lon":2,"tst":0,"topic":"owntracks/bob/phone"}'),
    ]
    marks = decode(messages_of(items), Devices(), no_key).marks.tolist()
    assert marks == [0, MARK_TOPIC_MISMATCH, 0, MARK_TOPIC_MISMATCH]


def test_devices_come_from_topics_in_order_of_arrival_and_only_for_pings(messages_of):
    devices = Devices(["known"])
    items = [
        ("ringfence/v1/00/garbage/pings", b"junk"),
        ("ringfence/v1/00/b/pings", b'{"time": 0}'),
        ("ringfence/v1/ff/a/pings", BODY),
        ("owntracks/u/d", b'{"_type":"location","lat":1,"lon":2,"tst":0}'),
        ("ringfence/v1/01/known/pings", BODY),
        ("ringfence/v1/00/b/pings", BODY),
    ]
    found = decode(messages_of(items), devices, no_key)
    assert [devices.ids[d] for d in found.pings.device] == ["b", "a", "u-d", "known", "b"]
    assert devices.ids == ["known", "b", "a", "u-d"]
    assert found.message.tolist() == [1, 2, 3, 4, 5]
    assert found.pings.received_time_us.tolist() == [1_795_507_201_000_000 + m for m in range(1, 6)]


def test_one_session_may_serve_several_device_tables(messages_of):
    topics = Topics()
    first, second = Devices(["x", "y"]), Devices()
    decode(messages_of([(PINGS, BODY)], topics), first, no_key)
    found = decode(messages_of([(PINGS, BODY)], topics), second, no_key)
    assert [second.ids[d] for d in found.pings.device] == ["a17"]


# --- what is no ping ----------------------------------------------------------------------------------


def test_statuses_results_and_check_ins(messages_of):
    items = [
        (STATUS, b'"online"'),
        (STATUS, b"offline"),
        (STATUS, b'{"state": "online"}'),
        (OWNTRACKS, b'{"_type": "lwt", "tst": 1}'),
        (RESULTS, b'{"id": "c1", "result": "refused", "reason": "battery", "time": "2026-11-24T08:00:00Z"}'),
        (CHECKINS, b'{"time": "2026-11-24T08:00:00Z", "outcome": "no_answer", "method": "voice"}'),
    ]
    found = decode(messages_of(items), Devices(), no_key)
    said = [(status.device_id, status.online) for status in found.statuses]
    assert said == [("a17", True), ("a17", False), ("a17", True), ("ada-phone", False)]
    (result,) = found.results
    assert (result.device_id, result.command_id, result.done, result.detail) == (
        "a17",
        "c1",
        False,
        "battery",
    )
    (check_in,) = found.check_ins
    assert (check_in.device_id, check_in.time_us) == ("a17", 1_795_507_200_000_000)
    assert (check_in.outcome, check_in.method) == ("no_answer", "voice")
    assert found.rejects == []


def test_an_oversize_message_is_told_by_prefix_and_hash(messages_of):
    topics = Topics()
    messages = messages_of([(PINGS, Oversize(3_000_000, bytes(32), b"\xa7\x01start").pack())], topics)
    messages.topic[0] = topics.oversize_slot(int(messages.topic[0]))
    (reject,) = decode(messages, Devices(), no_key).rejects
    assert (reject.topic, reject.reason, reject.payload) == (PINGS, "too_large", b"\xa7\x01start")
    assert "3000000 bytes" in reject.detail
    assert bytes(32).hex() in reject.detail


# --- anything at all ----------------------------------------------------------------------------------

topics_of_all = st.sampled_from(
    [PINGS, PINGS, STATUS, RESULTS, CHECKINS, OWNTRACKS, TRACCAR, TELTONIKA, LWM2M, "plain/a/b", "x"]
)
seeds = [
    BODY,
    tagged(TAGGED_BODY),
    header(4) + record() * 4,
    b'[{"time": 1795507200123, "lat": 1, "lon": 2}, {"time": "2026-11-24T08:00:00Z", "status": ["button"]}]',
    b'{"_type": "location", "lat": 1, "lon": 2, "tst": 1795507200, "acc": 5}',
    b'{"time": "2026-11-24T08:00:00Z", "outcome": "verified", "method": "voice"}',
    traccar(),
    teltonika(),
    b'[{"bn":"/6/0/","bt":1795507200,"n":"0","v":1},{"n":"1","v":2},{"n":"0","t":9,"v":3},{"n":"1","t":9,"v":4}]',
    b'{"bn":"/6/0/","e":[{"n":"0","v":35.2},{"n":"1","v":-80.8},{"n":"5","v":1795507200}]}',
]


@st.composite
def mutated(draw) -> bytes:
    """A good payload with some bytes changed, cut out or put in."""
    payload = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(payload)))
        what = draw(st.sampled_from(["set", "cut", "put"]))
        if what == "set" and at < len(payload):
            payload[at] = draw(u8)
        elif what == "cut":
            del payload[at : at + draw(st.integers(1, 40))]
        else:
            payload[at:at] = draw(
                st.binary(max_size=40) | st.sampled_from([b"[" * 2000, b'"', b"1" * 500, b"\0"])
            )
    return bytes(payload)


@given(items=st.lists(st.tuples(topics_of_all, st.binary(max_size=80) | mutated()), max_size=8))
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_raises_and_every_message_is_accounted_for(items, messages_of):
    found = decode(messages_of(items), Devices(), no_key)
    told = len(set(found.message.tolist())) + len(found.statuses) + len(found.check_ins) + len(found.results)
    assert told + len(found.rejects) >= len(items)
    if not any(b"[" in payload or payload[:1] == b"\xa7" for _, payload in items):
        assert told + len(found.rejects) == len(items)
    p = found.pings
    has_fix = p.lat_e7 != -(2**31)
    assert (has_fix == (p.lon_e7 != -(2**31))).all()
    assert (np.abs(p.lat_e7[has_fix].astype(np.int64)) <= 900_000_000).all()
    assert (np.abs(p.lon_e7[has_fix].astype(np.int64)) <= 1_800_000_000).all()
    assert ((p.fix_time_us >= 0) & (p.fix_time_us <= 253_402_300_799_999_999)).all()
    for i in range(len(p)):  # what can be cut out can be read again, alone
        topic, payload = found.source(i)
        again = decode(messages_of([(topic, payload)]), Devices(), no_key)
        assert (len(again.pings), again.rejects) == (1, [])
        assert again.pings.fix_time_us[0] == p.fix_time_us[i]
        assert again.pings.lat_e7[0] == p.lat_e7[i]


@given(payload=mutated())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_set_aside_is_set_aside_again_when_published_again(payload, messages_of):
    for reject in decode(messages_of([(PINGS, payload)]), Devices(), no_key).rejects:
        again = decode(messages_of([(reject.topic, reject.payload)]), Devices(), no_key)
        assert len(again.pings) == 0
        assert len(again.rejects) >= 1


@given(
    moments=st.lists(
        st.integers(0, 253_402_300_799_999_999).map(lambda us: EPOCH + timedelta(microseconds=us)),
        min_size=1,
        max_size=50,
    )
)
@settings(deadline=None)
def test_times_of_many_are_exact_to_the_microsecond(moments):
    assert times_us(moments).tolist() == [time_us(moment) for moment in moments]
    early = [moment.replace(year=1970 + moment.year % 130, day=1) for moment in moments]
    assert times_us(early).tolist() == [time_us(moment) for moment in early]
