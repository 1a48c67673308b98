"""The simulator's encoder and our decoder know nothing of each other; here they meet."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firmware_sim.codec import RECORD, binary_v1, json_v1, topic
from geofence import Devices
from geofence.pings import COLUMNS
from telemetry.formats import decode
from telemetry.mqtt.topics import device_topic


@st.composite
def flash(draw):
    """A few records as the simulated firmware keeps them."""
    records = np.zeros(draw(st.integers(1, 6)), RECORD)
    for record in records:
        fix = draw(st.booleans())
        record["seq"] = draw(st.integers(0, 2**32 - 1))
        record["time_ms"] = draw(st.integers(0, 4_102_444_800_000))
        record["lat_e7"] = draw(st.integers(-900_000_000, 900_000_000)) if fix else -(2**31)
        record["lon_e7"] = draw(st.integers(-1_800_000_000, 1_800_000_000)) if fix else -(2**31)
        record["accuracy_dm"] = draw(st.integers(0, 65_535))
        record["speed_cmps"] = draw(st.integers(0, 65_535))
        record["heading_cdeg"] = draw(st.integers(0, 35_999) | st.just(65_535))
        record["altitude_m"] = draw(st.integers(-32_768, 32_767))
        record["status"] = draw(st.integers(0, 255)) | (draw(st.integers(0, 3)) << 8 if fix else 0)
        record["battery_pct"] = draw(st.integers(0, 100) | st.just(255))
        record["satellites"] = draw(st.integers(0, 255))
    return records


@given(records=flash(), boot=st.integers(0, 65_535))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_formats_of_the_simulator_decode_to_the_same_pings(records, boot, messages_of):
    where = topic("ringfence/v1", "a17", "pings")
    assert where == device_topic("ringfence/v1", "a17", "pings")
    key = bytes(32)
    frames = [
        binary_v1(records, kind=0, boot=boot, device_id="a17", key=key),
        json_v1(records, boot=boot),
    ]
    binary, text = (decode(messages_of([(where, frame)]), Devices(), lambda _: None) for frame in frames)
    assert binary.rejects == text.rejects == []
    assert decode(messages_of([(where, frames[0])]), Devices(), lambda _: key).marks.tolist() == [0] * len(
        records
    )
    for name, _, _ in COLUMNS:
        assert getattr(binary.pings, name).tolist() == getattr(text.pings, name).tolist(), name
    assert binary.pings.lat_e7.tolist() == records["lat_e7"].tolist()
    assert binary.pings.fix_time_us.tolist() == (records["time_ms"] * 1000).tolist()
