"""``ringfence check`` over a file gives what the same pings give over MQTT."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta

from tests.end_to_end.conftest import HOME

DEVICES = 6
PINGS = 80
FIELDS = ("rule_id", "zone_id", "opened_at", "confirmed_at", "closed_at", "confidence", "depth_m", "severity")


def wander(seed: int, now: datetime) -> list[dict]:
    """Pings of devices that walk in and out of the zone, with straps that open now and then."""
    chance = random.Random(seed)
    pings = []
    for number in range(DEVICES):
        lat, lon = HOME[0] + chance.uniform(-0.006, 0.006), HOME[1] + chance.uniform(-0.006, 0.006)
        moment = now - timedelta(minutes=PINGS + 2)
        for seq in range(PINGS):
            lat += chance.gauss(0, 0.0008) + (HOME[0] - lat) * 0.05
            lon += chance.gauss(0, 0.0008) + (HOME[1] - lon) * 0.05
            moment += timedelta(seconds=chance.uniform(40, 60))
            pings.append(
                {
                    "device_id": f"w{number}",
                    "boot": 1,
                    "seq": seq,
                    "time": moment.isoformat(timespec="milliseconds"),
                    "lat": round(lat, 7),
                    "lon": round(lon, 7),
                    "accuracy_m": round(chance.choice([4, 8, 15, 40]) * chance.uniform(0.8, 1.2), 1),
                    "status": ["strap_open"] if chance.random() < 0.02 else [],
                }
            )
    return sorted(pings, key=lambda ping: ping["time"])


def test_check_and_live_agree(
    engines, clients, embedded_database_url, nats_url, circle_rules, tmp_path, eventually
):
    pings = wander(5, datetime.now(UTC))
    file = tmp_path / "pings.csv"
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(pings[0]))
        writer.writeheader()
        writer.writerows(ping | {"status": " ".join(ping["status"])} for ping in pings)

    engine = engines(
        "--mqtt-url", nats_url, "--database-url", embedded_database_url, "--rules", str(circle_rules)
    )
    device = clients(nats_url)
    for ping in pings:
        device.ping(**ping)
    eventually(lambda: sum(len(engine.track(f"w{n}")) for n in range(DEVICES)) == len(pings), 20)
    live = engine.items("violations")

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "telemetry.cli",
            "check",
            "--rules",
            str(circle_rules),
            "--json",
            "--transitions",
            file,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    checked = json.loads(done.stdout)
    assert len(checked["violations"]) > DEVICES, "the walk should break rules"
    assert any(v["closed_at"] for v in checked["violations"])
    assert violations(checked["violations"]) == violations(
        v for v in live if v["change"] not in {"held_back", "withdrawn"}
    )
    assert transitions(checked["transitions"]) == transitions(engine.items("transitions"))


def violations(rows) -> list[tuple]:
    return sorted((row["device_id"], *(str(row[field]) for field in FIELDS)) for row in rows)


def transitions(rows) -> list[tuple]:
    return sorted((row["device_id"], row["zone_id"], row["kind"], row["time"]) for row in rows)
