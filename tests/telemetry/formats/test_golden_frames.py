"""Frames written down by hand, byte by byte, and what each must decode to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geofence import Devices
from geofence.pings import COLUMNS
from telemetry.formats import decode

GOLDEN = Path(__file__).parents[2] / "golden"
NAMES = sorted(path.name.removesuffix(".expected.json") for path in GOLDEN.glob("*.expected.json"))


def payload_of(name: str) -> bytes:
    frame = GOLDEN / f"{name}.hex"
    return bytes.fromhex(frame.read_text()) if frame.exists() else (GOLDEN / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_frame_decodes_to_its_columns(name, messages_of):
    expected = json.loads((GOLDEN / f"{name}.expected.json").read_text())
    key = bytes.fromhex(expected["key"]) if "key" in expected else None
    payload = payload_of(name)
    found = decode(messages_of([(expected["topic"], payload)]), Devices(), lambda _: key)
    columns = [c for c, _, _ in COLUMNS if c not in {"device", "received_time_us"}]
    rows = [{c: int(getattr(found.pings, c)[i]) for c in columns} for i in range(len(found.pings))]
    assert rows == expected["pings"]
    assert found.marks.tolist() == expected.get("marks", [0] * len(rows))
    rejects = [{"reason": r.reason, "payload": r.payload.decode()} for r in found.rejects]
    assert rejects == expected.get("rejects", [])


def test_there_are_golden_frames_of_every_format():
    assert {name.split("_")[0] for name in NAMES} == {
        "binary",
        "json",
        "lwm2m",
        "owntracks",
        "teltonika",
        "traccar",
    }
