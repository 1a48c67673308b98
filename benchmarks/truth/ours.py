"""The engine over a world: rules as the simulator writes them, and the same with other confidences beside."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.truth.events import Pair
from benchmarks.truth.world import Day, World
from firmware_sim.codec import NO_FIX
from firmware_sim.scenario import write_rules
from geofence import Devices, Engine, Pings, Ruleset
from geofence.records import CLOSED, OPENED

__all__ = ["ALARM", "PROFILES", "Ours"]

# The engine's threshold, moved: the standard profile at other confidences, and the two other built-in ones.
CONFIDENCES: Final = (0.9, 0.98, 0.99, 0.995)
PROFILES: Final = ("standard", "strict", "lenient", *(f"c{1000 * c:.0f}" for c in CONFIDENCES))

ALARM: Final = np.dtype([("opened_us", "i8"), ("confirmed_us", "i8"), ("closed_us", "i8")])


@dataclass(slots=True)
class _Opening:
    """A violation that is open."""

    opened_us: int
    confirmed_us: int
    closed_us: int


class Ours:
    """Feeds an engine day by day and keeps its violations of zones.

    profiles : which of `PROFILES` beside the standard one, each as a copy of every zone rule
    """

    def __init__(self, world: World, directory: Path, profiles: Sequence[str] = PROFILES) -> None:
        write_rules(world.city, directory)
        if profiles:
            path = directory / "rules.toml"
            path.write_text(with_copies(path.read_text("utf-8"), profiles[1:]), "utf-8")
        self._world = world
        self._rules = Ruleset.load(directory)
        self._devices = Devices(world.city.device_ids)
        self._engine = Engine(self._rules, self._devices)
        self._found: dict[int, tuple[int, int, int, _Opening]] = {}

    def add(self, day: Day) -> None:
        """Judge a day, in one batch: how a stream is cut into batches changes nothing."""
        engine = self._engine
        for decided in (engine.check(pings_of(day, self._devices)), engine.tick(day.until_s * 1_000_000)):
            rows = decided.violations
            for row in rows[(rows["zone"] >= 0) & np.isin(rows["change"], (OPENED, CLOSED))]:
                number = int(row["violation_id"])
                if row["change"] == OPENED:
                    opening = _Opening(int(row["opened_us"]), int(row["confirmed_us"]), self._world.end_us)
                    self._found[number] = int(row["device"]), int(row["rule"]), int(row["zone"]), opening
                elif number in self._found:
                    self._found[number][3].closed_us = int(row["closed_us"])

    def violations(self, pairs: list[Pair]) -> dict[str, dict[int, NDArray[Any]]]:
        """What it found: profile, then pair, then ALARM (a,) in order of confirmation."""
        index = {(p.device, p.rule_id, p.zone.id): k for k, p in enumerate(pairs)}
        found: dict[str, dict[int, list[tuple[int, int, int]]]] = {}
        for device, rule, zone, opening in self._found.values():
            rule_id, _, profile = self._rules.rule_ids[rule].partition("@")
            pair = index[device, rule_id, self._rules.zones.ids[zone]]
            found.setdefault(profile or "standard", {}).setdefault(pair, []).append(
                (opening.opened_us, opening.confirmed_us, opening.closed_us)
            )
        return {
            profile: {
                pair: np.sort(np.array(rows, ALARM), order="confirmed_us") for pair, rows in by_pair.items()
            }
            for profile, by_pair in found.items()
        }


def pings_of(day: Day, devices: Devices) -> Pings:
    """A day's samples in the engine's columns."""
    record = day.record
    unknown = record["accuracy_dm"] == 65_535
    return Pings.of(
        devices,
        device=day.device,
        fix_time_us=record["time_ms"].astype(np.int64) * 1000,
        boot=day.boot,
        seq=record["seq"],
        lat_e7=record["lat_e7"],
        lon_e7=np.where(record["lat_e7"] == NO_FIX, NO_FIX, record["lon_e7"]),
        accuracy_mm=np.where(unknown, -1, record["accuracy_dm"].astype(np.int32) * 100),
        **{
            name: record[name]
            for name in ("speed_cmps", "heading_cdeg", "altitude_m", "status", "battery_pct", "satellites")
        },
    )


def with_copies(text: str, profiles: Sequence[str]) -> str:
    """Rules with a copy of each zone rule for each profile: its id is ``rule@profile``."""
    document = tomllib.loads(text)
    blocks = [text]
    for profile in profiles:
        if profile.startswith("c"):
            blocks.append(f"[profiles.{profile}]\nconfidence = {int(profile[1:]) / 1000}\n")
        for rule in document["rules"]:
            if rule["require"] in {"inside", "outside"}:
                copy = rule | {"id": f"{rule['id']}@{profile}", "profile": profile}
                # JSON's strings, numbers and lists of strings are TOML's
                blocks.append(
                    "[[rules]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in copy.items())
                )
    return "\n".join(blocks)
