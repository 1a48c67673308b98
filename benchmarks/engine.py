"""The engine whole: beliefs, rules, schedules, over a city of devices. ``python -m benchmarks.engine``.

200,000 devices, each with five private circles (a home with a curfew, four to stay out of), and a shared
layer of 5,000 polygons that everybody must stay out of by day; batches of 100,000 pings of devices that
wander about.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from geofence import Devices, Engine, Pings, Ruleset, from_rfc3339

__all__ = ["build", "measure", "measure_tick"]

START_US = from_rfc3339("2026-11-24T12:00:00Z")
WEST, SOUTH, WIDTH_DEG = -81.1, 35.0, 0.6  # a city of about 54 by 66 km


def build(devices: int, layer_zones: int, seed: int) -> tuple[Ruleset, np.ndarray[Any, Any]]:
    """Rules and the homes of all devices (lon, lat in degrees)."""
    rng = np.random.default_rng(seed)
    homes = np.column_stack((WEST + WIDTH_DEG * rng.random(devices), SOUTH + WIDTH_DEG * rng.random(devices)))
    features: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = [
        {
            "id": "schools",
            "subjects": ["all"],
            "require": "outside",
            "layer": "schools",
            "when": "Mo-Fr 07:00-17:00",
        },
        {"id": "strap", "subjects": ["all"], "require": "strap_closed", "severity": "critical"},
    ]
    around = rng.normal(0, 0.05, (devices, 4, 2))
    for i, (lon, lat) in enumerate(homes.tolist()):
        places = [(lon, lat), *((lon + a, lat + b) for a, b in around[i].tolist())]
        for k, place in enumerate(places):
            features.append(
                {
                    "type": "Feature",
                    "properties": {"id": f"z{i}-{k}", "radius_m": 150 if k == 0 else 300},
                    "geometry": {"type": "Point", "coordinates": list(place)},
                }
            )
        rules.append(
            {
                "id": f"home{i}",
                "subjects": [f"device:d{i}"],
                "require": "inside",
                "zones": [f"z{i}-0"],
                "when": "20:00-06:00",
                "grace": "5 min",
            }
        )
        rules.append(
            {
                "id": f"away{i}",
                "subjects": [f"device:d{i}"],
                "require": "outside",
                "zones": [f"z{i}-{k}" for k in range(1, 5)],
            }
        )
    centres = np.column_stack(
        (WEST + WIDTH_DEG * rng.random(layer_zones), SOUTH + WIDTH_DEG * rng.random(layer_zones))
    )
    angles = np.linspace(0, 2 * np.pi, 13)[:-1]
    for j, (lon, lat) in enumerate(centres.tolist()):
        radius = 0.0008 * (0.6 + 0.8 * rng.random(12))
        ring = (
            np.column_stack((lon + radius * np.cos(angles) * 1.2, lat + radius * np.sin(angles)))
            .round(7)
            .tolist()
        )
        features.append(
            {
                "type": "Feature",
                "properties": {"id": f"s{j}", "layer": "schools"},
                "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
            }
        )
    document = {
        "zones": {"type": "FeatureCollection", "features": features},
        "rules": {"timezone": "America/New_York", "rules": rules},
    }
    return Ruleset.from_document(document), homes


def measure(devices: int, layer_zones: int, batch: int, batches: int, seed: int) -> dict[str, float]:
    """Pings per CPU second of ``Engine.check``, warm; bytes of state per device and private zone."""
    began = time.perf_counter()
    ruleset, homes = build(devices, layer_zones, seed)
    loaded_s = time.perf_counter() - began
    engine = Engine(ruleset, Devices(f"d{i}" for i in range(devices)))
    rng = np.random.default_rng(seed + 1)
    position = homes.copy()
    seconds: list[float] = []  # CPU time: another process must not count
    rows = 0
    rounds = max(1, devices // batch)
    for k in range(rounds + batches):
        which = (np.arange(batch) + k * batch) % devices
        position[which] += rng.normal(0, 0.0005, (batch, 2))
        jitter = rng.normal(0, 0.00005, (batch, 2))
        seen = ((position[which] + jitter) * 1e7).round().astype(np.int32)
        t = START_US + k * 30_000_000 + rng.integers(0, 20_000_000, batch)
        pings = Pings.of(
            engine.devices,
            device=which.astype(np.int32),
            fix_time_us=t,
            lon_e7=seen[:, 0],
            lat_e7=seen[:, 1],
            accuracy_mm=rng.integers(4_000, 15_000, batch),
            seq=np.full(batch, k),
        )
        begun = time.process_time()
        decided = engine.check(pings)
        took = time.process_time() - begun
        if k >= rounds:  # each device has spoken before: the rows are there
            seconds.append(took)
            rows += len(decided)
    return {
        "load_s": loaded_s,
        "pings_per_cpu_s": batch / float(np.median(seconds)),
        "best_pings_per_cpu_s": batch / min(seconds),
        "worst_pings_per_cpu_s": batch / max(seconds),
        "rows_per_batch": rows / max(1, batches),
        "state_bytes_per_device_and_private_zone": engine.state_nbytes / (devices * 5),
    }


def measure_tick(devices: int, seed: int) -> dict[str, float]:
    """Milliseconds of a tick over many devices, of which one in a thousand has something due."""
    ruleset = Ruleset.from_document(
        {
            "zones": {"type": "FeatureCollection", "features": []},
            "rules": {
                "rules": [{"id": "silence", "subjects": ["all"], "require": "contact", "within": "15 min"}]
            },
        }
    )
    engine = Engine(ruleset, Devices(f"d{i}" for i in range(devices)))
    rng = np.random.default_rng(seed)
    t = START_US + rng.integers(0, 1_000_000_000, devices)
    engine.check(Pings.of(engine.devices, device=np.arange(devices, dtype=np.int32), fix_time_us=t))
    now_us = START_US + 15 * 60_000_000
    engine.tick(now_us - 1)
    times = []
    rows = 0
    for k in range(20):
        begun = time.perf_counter()
        rows += len(engine.tick(now_us + k * 1_000_000))
        times.append(time.perf_counter() - begun)
    return {"tick_ms": 1000 * float(np.median(times)), "rows_per_tick": rows / 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=200_000)
    parser.add_argument("--layer-zones", type=int, default=5_000)
    parser.add_argument("--batch", type=int, default=100_000)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--tick-devices", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    found = measure(args.devices, args.layer_zones, args.batch, args.batches, args.seed)
    found |= measure_tick(args.tick_devices, args.seed)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
