"""The truth of a run, in Parquet: where every wearer was, which zones they were in, which rules they broke.

For ``truth = run.parquet`` three files are written:

``run.parquet``, the true track, a row for each sample (and each minute of a device that is off)
    device_id, time_us, lon, lat, boot, seq (null: no sample), around, mode
``run.zones.parquet``, stays in zones; homes only of their own wearers
    device_id, zone_id, from_us, to_us (null: at the run's end still inside), deepest_m, deepest_us
``run.breaks.parquet``, what the rules of `firmware_sim.rules` call broken, without any grace, and what was
done to a device
    device_id, rule_id (null where no rule speaks of it), zone_id (null), kind, from_us, to_us (null:
    not over), deepest_m (null)

``kind`` is curfew, zone, strap, case, battery, contact (no ping for too long), check_in, off, foil, handover,
cradle (a wristband off the arm to charge; in the hours in which that is allowed it breaks no rule) or
tailgating (a slow drive along the edge of a school's zone, which breaks none either). Times are UTC
microseconds. Edges are found on the true track, sampled every five seconds, and interpolated between the
samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from firmware_sim.agenda import WHY_TAILGATING
from firmware_sim.codec import KIND_PHONE
from firmware_sim.device import TICK_S
from firmware_sim.power import CRADLE_HOURS
from firmware_sim.rules import BATTERY_PCT, STRAP_WRIST, may_use_cradle
from firmware_sim.silence import Heard, missed_check_ins
from firmware_sim.stays import Holding, Stay, Stays
from firmware_sim.wearer import AROUND, CAR
from firmware_sim.windows import curfew_windows, less

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from firmware_sim.checkin import CheckIn
    from firmware_sim.fleet import Burst, Fleet

__all__ = ["BREAKS", "STAYS", "TRACK", "Break", "TruthWriter"]

TRACK: Final = pa.schema(
    [
        ("device_id", pa.dictionary(pa.int32(), pa.string())),
        ("time_us", pa.int64()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("boot", pa.uint16()),
        ("seq", pa.uint32()),
        ("around", pa.dictionary(pa.int8(), pa.string())),
        ("mode", pa.dictionary(pa.int8(), pa.string())),
    ]
)
STAYS: Final = pa.schema(
    [
        ("device_id", pa.string()),
        ("zone_id", pa.string()),
        ("from_us", pa.int64()),
        ("to_us", pa.int64()),
        ("deepest_m", pa.float64()),
        ("deepest_us", pa.int64()),
    ]
)
BREAKS: Final = pa.schema(
    [
        ("device_id", pa.string()),
        ("rule_id", pa.string()),
        ("zone_id", pa.string()),
        ("kind", pa.string()),
        ("from_us", pa.int64()),
        ("to_us", pa.int64()),
        ("deepest_m", pa.float64()),
    ]
)

_MODES: Final = ("rest", "walk", "cycle", "bus", "car")
_FLUSH_ROWS: Final = 200_000  # about 10 MB of columns


@dataclass(frozen=True, slots=True)
class Break:
    """A rule broken, or a device tampered with."""

    device: int
    rule_id: str | None
    zone: int | None
    kind: str
    from_us: int
    to_us: int | None
    deepest_m: float | None


class TruthWriter:
    """Follows a fleet tick by tick; `add` after each step, `close` at the end."""

    def __init__(self, path: Path, fleet: Fleet) -> None:
        self._path = path
        self._fleet = fleet
        city = fleet.city
        self._may_use_cradle = may_use_cradle(city)
        self._zone = ZoneInfo(city.timezone)
        self._everyone = np.arange(len(city))
        self._worn = city.kind != KIND_PHONE
        self._ids = pa.array(city.device_ids)
        self._track = pq.ParquetWriter(path, TRACK, compression="zstd")
        self._rows: list[tuple[NDArray[Any], ...]] = []
        self._row_count = 0
        self._stays = Stays(city, self._worn)
        self._states = {
            ("strap", "strap"): Holding(len(city)),
            (STRAP_WRIST, "strap"): Holding(len(city)),
            ("case", "case"): Holding(len(city)),
            ("battery", "battery"): Holding(len(city)),
            ("contact", "contact"): Holding(len(city)),
            (None, "off"): Holding(len(city)),
            (None, "foil"): Holding(len(city)),
            (None, "handover"): Holding(len(city)),
            (None, "cradle"): Holding(len(city)),
            (None, "tailgating"): Holding(len(city)),
        }
        self._end_us = fleet.now_s * 1_000_000
        # each one's first moment; before it nothing is known
        self._start_us = self._end_us + fleet.phase_ms.astype(np.int64) * 1000
        self._heard = Heard(self._start_us)
        self._calls: list[CheckIn] = []
        self._began_us = self._end_us

    def add(self, burst: Burst) -> None:
        """Take in what a step did."""
        fleet, now_s = self._fleet, burst.now_s
        time_us = now_s * 1_000_000 + fleet.phase_ms.astype(np.int64) * 1000
        lon, lat = fleet.city.to_degrees(fleet.wearers["x"], fleet.wearers["y"])
        self._stays.add(time_us, lon, lat)
        self._end_us = (now_s + TICK_S) * 1_000_000

        batteries, straps, plans = fleet.batteries, fleet.straps, fleet.agendas
        strap_open, cradle = straps["is_open"] != 0, self._may_use_cradle
        self._states["strap", "strap"].add(time_us, strap_open & ~cradle)
        hour = datetime.fromtimestamp(now_s, self._zone).hour
        forbidden = not CRADLE_HOURS[0] <= hour < CRADLE_HOURS[1]
        self._states[STRAP_WRIST, "strap"].add(time_us, strap_open & cradle & forbidden)
        self._states[None, "cradle"].add(time_us, straps["off_to_charge"] != 0)
        self._states["case", "case"].add(time_us, straps["case_is_open"] != 0)
        # what the firmware reports is rounded
        low = np.floor(batteries["level_pct"] + 0.5) < BATTERY_PCT
        self._states["battery", "battery"].add(time_us, low & self._worn)
        self._states["contact", "contact"].add(time_us, self._heard.add(burst, time_us) & self._worn)
        self._calls += burst.check_ins
        self._states[None, "off"].add(time_us, (batteries["on"] == 0) & self._worn)
        self._states[None, "foil"].add(time_us, fleet.wearers["foiled"] != 0)
        handed = (plans["handed_from_s"] <= now_s) & (now_s < plans["handed_until_s"])
        self._states[None, "handover"].add(time_us, handed)

        why = plans["why"][self._everyone, plans["at"]]
        crawls = (why == WHY_TAILGATING) & (fleet.wearers["mode"] == CAR)
        self._states[None, "tailgating"].add(time_us, crawls)

        due = burst.due
        self._keep(due, time_us, lon, lat, burst.samples["seq"].astype(np.int64))
        if now_s % 60 == 0:
            off = np.flatnonzero((batteries["on"] == 0) & self._worn).astype(np.int32)
            self._keep(off, time_us, lon, lat, np.full(len(off), -1, np.int64))
        if self._row_count >= _FLUSH_ROWS:
            self._write_track()

    def close(self) -> None:
        """Write what is left, and the two files of intervals."""
        self._write_track()
        self._track.close()
        city = self._fleet.city
        stays = self._stays.all()
        pq.write_table(
            pa.table(
                {
                    "device_id": [city.device_ids[stay.device] for stay in stays],
                    "zone_id": [city.zones[stay.zone].id for stay in stays],
                    "from_us": [stay.from_us for stay in stays],
                    "to_us": [stay.to_us for stay in stays],
                    "deepest_m": [stay.deepest_m for stay in stays],
                    "deepest_us": [stay.deepest_us for stay in stays],
                },
                STAYS,
            ),
            self._path.with_suffix(".zones.parquet"),
        )
        breaks = self.breaks()
        pq.write_table(
            pa.table(
                {
                    "device_id": [city.device_ids[entry.device] for entry in breaks],
                    "rule_id": [entry.rule_id for entry in breaks],
                    "zone_id": [
                        None if entry.zone is None else city.zones[entry.zone].id for entry in breaks
                    ],
                    "kind": [entry.kind for entry in breaks],
                    "from_us": [entry.from_us for entry in breaks],
                    "to_us": [entry.to_us for entry in breaks],
                    "deepest_m": [entry.deepest_m for entry in breaks],
                },
                BREAKS,
            ),
            self._path.with_suffix(".breaks.parquet"),
        )

    def breaks(self) -> list[Break]:
        """Every rule broken so far, in order of device and time."""
        city, stays = self._fleet.city, self._stays.all()
        found = [
            Break(i, rule_id, None, kind, from_us, to_us, None)
            for (rule_id, kind), state in self._states.items()
            for i, from_us, to_us in state.all()
        ]
        for layer, rule_id, subjects in (
            ("schools", "schools", city.people["school_exclusion"] == 1),
            ("victims", "victim", city.people["no_contact"] == 1),
        ):
            found += [
                Break(s.device, rule_id, s.zone, "zone", s.from_us, s.to_us, s.deepest_m)
                for s in stays
                if city.zones[s.zone].layer == layer and subjects[s.device]
            ]
        found += self._curfew_breaks(stays)
        found += [
            Break(i, "check-in", None, "check_in", from_us, to_us, None)
            for i, from_us, to_us in missed_check_ins(city, self._calls, self._began_us, self._end_us)
        ]
        return sorted(found, key=lambda entry: (entry.device, entry.from_us, entry.kind))

    def _curfew_breaks(self, stays: list[Stay]) -> list[Break]:
        """Curfew windows less the stays at home."""
        city = self._fleet.city
        at_home: dict[int, list[tuple[int, int]]] = {}
        zone_of: dict[int, int] = {}
        homes = {f"home-{device_id}": i for i, device_id in enumerate(city.device_ids)}
        for k, zone in enumerate(city.zones):
            if zone.layer == "homes":
                zone_of[homes[zone.id]] = k
        for stay in stays:
            if city.zones[stay.zone].layer == "homes":
                until_us = self._end_us if stay.to_us is None else stay.to_us
                at_home.setdefault(stay.device, []).append((stay.from_us, until_us))
        found = []
        for i, home in zone_of.items():
            for window in curfew_windows(city, i, int(self._start_us[i]), self._end_us):
                for from_us, to_us in less(window, at_home.get(i, [])):
                    open_end = to_us == self._end_us
                    found.append(
                        Break(
                            i,
                            f"home-curfew-{city.device_ids[i]}",
                            home,
                            "curfew",
                            from_us,
                            None if open_end else to_us,
                            None,
                        )
                    )
        return found

    def _keep(
        self,
        devices: NDArray[np.int32],
        time_us: NDArray[np.int64],
        lon: NDArray[np.float64],
        lat: NDArray[np.float64],
        seq: NDArray[np.int64],
    ) -> None:
        """Keep rows of the track until they are written."""
        if not len(devices):
            return
        wearers = self._fleet.wearers[devices]
        self._rows.append(
            (
                devices,
                time_us[devices],
                lon[devices],
                lat[devices],
                self._fleet.devices["boot"][devices],
                seq,
                wearers["around"].astype(np.int8),
                wearers["mode"].astype(np.int8),
            )
        )
        self._row_count += len(devices)

    def _write_track(self) -> None:
        if not self._rows:
            return
        device, time_us, lon, lat, boot, seq, around, mode = (
            np.concatenate(column) for column in zip(*self._rows, strict=True)
        )
        self._rows, self._row_count = [], 0
        none = seq < 0
        columns = [
            pa.DictionaryArray.from_arrays(pa.array(device), self._ids),
            pa.array(time_us),
            pa.array(lon),
            pa.array(lat),
            pa.array(boot),
            pa.array(np.where(none, 0, seq).astype(np.uint32), mask=none),
            pa.DictionaryArray.from_arrays(pa.array(around), pa.array(AROUND)),
            pa.DictionaryArray.from_arrays(pa.array(mode), pa.array(_MODES)),
        ]
        self._track.write_table(pa.Table.from_arrays(columns, schema=TRACK))
