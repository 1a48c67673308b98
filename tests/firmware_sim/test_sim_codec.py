"""The firmware's own encoder, against the wire format's text and the golden frames."""

import json
import struct
from hashlib import blake2b, blake2s
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_sim.codec import RECORD, STATUS_BITS, binary_v1, json_v1, lane_of, rfc3339, topic

u8, u16, u32 = st.integers(0, 255), st.integers(0, 65_535), st.integers(0, 2**32 - 1)
records = st.lists(
    st.tuples(
        u32,
        st.integers(0, 2**41),
        st.integers(-900_000_000, 900_000_000) | st.just(-(2**31)),
        st.integers(-1_800_000_000, 1_800_000_000),
        u16,
        u16,
        u16,
        st.integers(-32_768, 32_767),
        st.integers(0, 1023),
        u8,
        u8,
    ),
    min_size=1,
    max_size=40,
)


@given(records, st.integers(0, 1), u16)
def test_binary_v1_is_what_the_format_says(rows: list[tuple[int, ...]], kind: int, boot: int) -> None:
    expected = struct.pack("<BBBBHH", 0xA7, 1, 0, kind, len(rows), boot)
    for row in rows:
        expected += struct.pack("<IQiiHHHhHBB", *row)
    assert binary_v1(np.array(rows, RECORD), kind=kind, boot=boot) == expected


def test_a_tag_covers_device_and_message() -> None:
    key = bytes(range(32))
    plain = binary_v1(np.zeros(2, RECORD), kind=1, boot=3)
    tagged = binary_v1(np.zeros(2, RECORD), kind=1, boot=3, device_id="w7", key=key)
    body, tag = tagged[:-16], tagged[-16:]
    assert body == plain[:2] + b"\x01" + plain[3:]
    assert tag == blake2s(b"w7\0" + body, digest_size=16, key=key).digest()


@pytest.mark.parametrize("count", [0, 1025])
def test_a_message_holds_1_to_1024_records(count: int) -> None:
    with pytest.raises(ValueError, match=f"not {count}"):
        binary_v1(np.zeros(count, RECORD), kind=0, boot=0)


@given(records, u16)
def test_json_v1_keeps_what_is_known_and_leaves_out_the_rest(rows: list[tuple[int, ...]], boot: int) -> None:
    said = json.loads(json_v1(np.array(rows, RECORD), boot=boot))
    objects = said if isinstance(said, list) else [said]
    assert isinstance(said, list) == (len(rows) > 1)
    for row, got in zip(rows, objects, strict=True):
        seq, time_ms, lat, lon, accuracy, speed, heading, altitude, status, battery, satellites = row
        assert (got["boot"], got["seq"], got["time"]) == (boot, seq, rfc3339(time_ms))
        known = lat != -(2**31)
        assert ("lat" in got) == ("lon" in got) == ("source" in got) == known
        if known:
            assert (round(got["lat"] * 1e7), round(got["lon"] * 1e7)) == (lat, lon)
            assert got["source"] == ("gnss", "wifi", "cell", "beacon")[status >> 8]
        for name, value, unknown, scale in (
            ("accuracy_m", accuracy, 65_535, 10),
            ("speed_mps", speed, 65_535, 100),
            ("heading_deg", heading, 65_535, 100),
            ("altitude_m", altitude, -32_768, 1),
            ("battery_pct", battery, 255, 1),
            ("satellites", satellites, 255, 1),
        ):
            assert (name in got) == (value != unknown)
            if name in got:
                assert round(got[name] * scale) == value
        assert sum(STATUS_BITS[name] for name in got["status"]) == status & 255


GOLDEN = Path(__file__).parents[1] / "golden"
FIELDS = ("speed_cmps", "heading_cdeg", "altitude_m", "status", "battery_pct", "satellites")


def golden_records(name: str) -> tuple[dict, np.ndarray]:
    """A golden frame's expected columns, and the records that a device would have to hold for it."""
    expected = json.loads((GOLDEN / f"{name}.expected.json").read_text())
    rows = np.zeros(len(expected["pings"]), RECORD)
    for row, ping in zip(rows, expected["pings"], strict=True):
        row["seq"], row["time_ms"] = ping["seq"], ping["fix_time_us"] // 1000
        row["lat_e7"], row["lon_e7"] = ping["lat_e7"], ping["lon_e7"]
        row["accuracy_dm"] = 65_535 if ping["accuracy_mm"] < 0 else ping["accuracy_mm"] // 100
        for field in FIELDS:
            row[field] = ping[field]
    return expected, rows


@pytest.mark.parametrize("name", ["binary_v1_fix", "binary_v1_tagged"])
def test_our_binary_is_the_golden_frame(name: str) -> None:
    expected, rows = golden_records(name)
    frame = bytes.fromhex((GOLDEN / f"{name}.hex").read_text())
    key = bytes.fromhex(expected["key"]) if "key" in expected else None
    boot = expected["pings"][0]["boot"]
    device_id = expected["topic"].split("/")[-2]
    assert binary_v1(rows, kind=frame[3], boot=boot, device_id=device_id, key=key) == frame
    assert topic("ringfence/v1", device_id, "pings") == expected["topic"]


def test_our_json_says_what_the_golden_frame_says() -> None:
    expected, rows = golden_records("json_v1_full")
    golden = json.loads((GOLDEN / "json_v1_full.json").read_text())
    assert json.loads(json_v1(rows, boot=expected["pings"][0]["boot"])) == golden


def test_topics() -> None:
    lane = blake2b(b"a17", digest_size=1).hexdigest()
    assert lane_of("a17") == lane
    assert topic("ringfence/v1", "a17", "pings") == f"ringfence/v1/{lane}/a17/pings"


def test_rfc3339() -> None:
    assert rfc3339(1_763_971_200_123) == "2025-11-24T08:00:00.123Z"
    assert rfc3339(1_763_971_200_000) == "2025-11-24T08:00:00.000Z"
