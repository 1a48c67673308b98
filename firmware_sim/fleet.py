"""The fleet: every device of a city, stepped together in ticks of five seconds, and its run against a broker.

`Fleet` is the simulation alone: no clock, no network. The same city, seed and start give the same pings,
bit for bit, however they are paced. `run` publishes them.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import numpy as np

from firmware_sim import agenda, device, firmware, flash, gnss, power, radio, strap, wearer
from firmware_sim.checkin import CheckIn, day_of_check_ins
from firmware_sim.city import VICTIM_RADIUS_M
from firmware_sim.codec import RECORD, binary_v1, json_v1
from firmware_sim.commands import obey
from firmware_sim.errors import ScenarioError
from firmware_sim.progress import Progress, Tally
from firmware_sim.scenario import Scenario, build, load
from firmware_sim.truth import TruthWriter
from firmware_sim.uplink import Uplink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from firmware_sim.city import City

__all__ = ["Burst", "Fleet", "Progress", "run"]

_DAY_S: Final = 86_400
_MAX_PAST_S: Final = 28 * _DAY_S  # the engine refuses what is older than 30 days
_CATCH_UP_S: Final = 600.0  # of wall time that a sped-up run without an end takes to reach now
_MAX_SESSIONS: Final = 64  # fleets up to this size get one MQTT session for each device
_SHARED_SESSIONS: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class Burst:
    """What happened in one tick.

    now_s     : UTC seconds of the tick
    due       : int32 (m,)   devices that took a sample, ascending
    samples   : RECORD (m,)
    device    : int32 (k,)   the sender of each message, in order of due_ms
    boot      : uint16 (k,)
    start, stop : int64 (k,) message k holds records[start[k]:stop[k]]
    due_ms    : int64 (k,)   when it is sent, UTC milliseconds
    records   : RECORD (r,)
    check_ins : of this tick, in order of time
    """

    now_s: int
    due: NDArray[np.int32]
    samples: NDArray[Any]
    device: NDArray[np.int32]
    boot: NDArray[np.uint16]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    due_ms: NDArray[np.int64]
    records: NDArray[Any]
    check_ins: list[CheckIn]


class Fleet:
    """All state of a city's devices, as one record array for each state machine."""

    def __init__(self, city: City, seed: int, start_s: int) -> None:
        self.city = city
        self.seed = seed
        self.now_s = start_s - start_s % device.TICK_S
        self.start_s = self.now_s
        count, plan = len(city), city.scenario
        self._zone = ZoneInfo(city.timezone)
        self._rates = agenda.rates_of(plan.behaviour)
        self._streets = wearer.streets_of(city)
        self._sky = gnss.map_of(city)
        self._outages = radio.outages_of(plan.radio, self.now_s)
        self.agendas = agenda.new_agendas(city.people, seed)
        self._roads = agenda.new_roads(count, seed)
        self.wearers = wearer.new_wearers(city, seed)
        self.receivers = gnss.new_receivers(count, seed)
        self.batteries = power.new_batteries(city.kind, seed, plan.behaviour.taken_off)
        self.straps = strap.new_straps(count, seed)
        self.radios = radio.new_radios(count, seed)
        self.devices, self.phase_ms = device.new_devices(city, seed, self.now_s)
        self.rings, self.cells, self.boots = flash.new_flash(count, plan.fleet.flash_records)
        self._json = firmware.column(city.version, "json")
        self._bouncy = ~firmware.column(city.version, "debounced")
        self._oldest_first = ~firmware.column(city.version, "newest_first")
        self._omits = firmware.column(city.version, "omits").astype(np.uint8)
        self._due = np.empty(count, np.int32)
        self._sent = np.empty(count * min(flash.MAX_PER_MESSAGE, plan.fleet.flash_records), RECORD)
        self._sender = np.empty(count, np.int32)
        self._boot = np.empty(count, np.uint16)
        self._offsets = np.empty(count + 1, np.int64)
        self._calls: list[CheckIn] = []

        today = self.local_time().replace(hour=0, minute=0, second=0)
        self._plan(today - timedelta(days=1))
        wearer.settle(int(today.timestamp()), city.places, self.agendas, self.wearers)
        self._plan(today)
        wearer.settle(self.now_s, city.places, self.agendas, self.wearers)
        self._calls = [call for call in self._calls if call.time_ms >= self.now_s * 1000]
        self._next_midnight = today + timedelta(days=1)
        self._open()

    def local_time(self) -> datetime:
        """The city's wall clock."""
        return datetime.fromtimestamp(self.now_s, UTC).astimezone(self._zone)

    def step(self) -> Burst:
        """Simulate one tick and move on to the next."""
        now_s, city, tick_s = self.now_s, self.city, float(device.TICK_S)
        plan = city.scenario
        local = self.local_time()
        if local >= self._next_midnight:
            self._plan(self._next_midnight)
            self._next_midnight += timedelta(days=1)
        hour = local.hour + local.minute / 60
        outside_c = power.temperature_c(hour, local.timetuple().tm_yday)
        wearer.move(now_s, tick_s, self._streets, city.places, self.agendas, self.wearers)
        power.step(
            now_s,
            tick_s,
            hour,
            outside_c,
            plan.behaviour.flat_battery,
            city.kind,
            city.people,
            self.agendas,
            self.wearers,
            self.batteries,
        )
        strap.step(
            now_s,
            tick_s,
            plan.behaviour.strap_cut,
            city.kind,
            self._bouncy,
            self.batteries,
            self.wearers,
            self.straps,
        )
        radio.step(
            now_s, plan.radio.gaps, 60.0 * plan.radio.gap_min, self._outages, self.wearers, self.radios
        )
        due, samples = self._sample()
        messages = flash.upload(
            now_s,
            device.TICK_S,
            self._oldest_first,
            self.batteries,
            self.radios,
            self.devices,
            self.rings,
            self.cells,
            self.boots,
            self._sent,
            self._sender,
            self._boot,
            self._offsets,
        )
        sender = self._sender[:messages]
        due_ms = now_s * 1000 + self.phase_ms[sender].astype(np.int64)
        # 16 bits: NumPy sorts them by radix, 10 times faster than 64
        order = np.argsort(self.phase_ms[sender].astype(np.uint16), kind="stable")
        self.now_s += device.TICK_S
        return Burst(
            now_s=now_s,
            due=due,
            samples=samples,
            device=sender[order],
            boot=self._boot[:messages][order],
            start=self._offsets[:messages][order],
            stop=self._offsets[1 : messages + 1][order],
            due_ms=due_ms[order],
            records=self._sent[: self._offsets[messages]].copy(),
            check_ins=self._calls_before(self.now_s * 1000),
        )

    def payload(self, burst: Burst, k: int) -> bytes:
        """Message k of a burst as its device's firmware writes it."""
        i = burst.device[k]
        records = burst.records[burst.start[k] : burst.stop[k]]
        if self._json[i]:
            return json_v1(records, boot=int(burst.boot[k]))
        return binary_v1(
            records,
            kind=int(self.city.kind[i]),
            boot=int(burst.boot[k]),
            device_id=self.city.device_ids[i],
            key=self.city.keys[i],
        )

    def _sample(self) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """Let every device that is due take its sample and store it."""
        now_s, city = self.now_s, self.city
        found = device.choose_due(
            now_s,
            city.kind,
            self.wearers,
            self.batteries,
            self.straps,
            self.receivers,
            self.devices,
            self._due,
        )
        due = self._due[:found].copy()
        samples = np.zeros(found, RECORD)
        gnss.observe(
            now_s, due, self.phase_ms, self._sky, city.tower_xy, self.wearers, self.receivers, samples
        )
        device.sample(
            now_s,
            due,
            self.phase_ms,
            self._omits,
            city.people,
            city.places,
            self.wearers,
            self.batteries,
            self.straps,
            self.radios,
            self.devices,
            samples,
        )
        flash.store(due, samples, self.devices, self.rings, self.cells, self.boots)
        return due, samples

    def _plan(self, midnight: datetime) -> None:
        """Plan the local day that begins at ``midnight``."""
        # counted back from noon: so the day's hours are right on the days when the clocks change, too
        midnight_s = int(midnight.replace(hour=12).timestamp()) - _DAY_S // 2
        agenda.plan_day(
            midnight_s,
            midnight.weekday(),
            self._rates,
            self.city.kind,
            self.city.people,
            self.agendas,
            self._roads,
        )
        self._calls += day_of_check_ins(self.city, self.seed, midnight.toordinal(), midnight_s)

    def _calls_before(self, time_ms: int) -> list[CheckIn]:
        """Take the check-ins that fall before ``time_ms``."""
        count = 0
        while count < len(self._calls) and self._calls[count].time_ms < time_ms:
            count += 1
        calls, self._calls = self._calls[:count], self._calls[count:]
        return calls

    def _open(self) -> None:
        """Set up what the scenario wants to happen at once."""
        opening, city = self.city.scenario.opening, self.city
        drivers = np.flatnonzero((city.people["victim"] >= 0) & (city.kind == 0))[: opening.incursions]
        for k, i in enumerate(drivers):
            me, plan = self.wearers[i : i + 1], self.agendas[i : i + 1]
            target = city.people["victim"][i]
            block = city.scenario.city.block_m
            me["x"] = city.places["x"][target] - VICTIM_RADIUS_M - 20.0 * k
            me["y"] = np.round(city.places["y"][target] / block) * block
            plan["at"], plan["count"] = 0, 2
            plan["stop"][0, :2] = target, city.people["home"][i]
            plan["leave_s"][0, :2] = self.now_s + 900, agenda.FOREVER_S
            plan["why"][0, :2] = agenda.WHY_VICTIM, agenda.WHY_ROUTINE
            wearer.depart(self.wearers[i], city.places[target], self._streets[0])
            me["mode"], me["speed_mps"] = wearer.CAR, 11.0
            self.devices["next_sample_s"][i] = self.now_s
        others = np.setdiff1d(np.flatnonzero(city.kind == 0), drivers)[: opening.straps]
        self.straps["cut_s"][others] = self.now_s + device.TICK_S * (2 + np.arange(len(others)))


def run(
    url: str,
    *,
    devices: int,
    seed: int = 1,
    speed: float = 1.0,
    scenario: str | Path | Scenario = "city",
    truth: Path | None = None,
    root: str = "ringfence/v1",
    duration_s: float | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    start_us: int | None = None,
    exact_sessions: bool | None = None,
) -> Progress:
    """Publish a simulated fleet until ``duration_s`` simulated seconds are over, or ``stop`` is set.

    At speed 1 fix times are now. A faster run starts in the past: with a duration it ends at the moment
    it was started, without one it catches up with now and goes on in real time. ``start_us`` (UTC
    microseconds) fixes the start, so that a run can be repeated bit for bit. ``exact_sessions`` gives
    every device an MQTT session of its own, with a last will; by default small fleets get that, and
    larger ones share a few sessions.

    ``truth`` names a Parquet file for the true track; see `firmware_sim.truth` for it and the two beside it.
    While the broker does not acknowledge, the simulated time stands still: nothing is lost or skipped.
    """
    if speed < 1.0:
        raise ScenarioError(f"speed = {speed}; it must be at least 1, real time")
    halt = stop or threading.Event()
    started_s = time.time()
    start_s = started_s - _lead_s(speed, duration_s) if start_us is None else start_us / 1e6
    if truth is not None and not truth.parent.is_dir():
        raise ScenarioError(f"{truth.parent} is no directory; make it, or write the truth elsewhere")
    plan = scenario if isinstance(scenario, Scenario) else load(scenario)
    city = build(plan, devices, seed)
    fleet = Fleet(city, seed, int(start_s))
    end_s = None if duration_s is None else fleet.start_s + duration_s

    def on_command(i: int, payload: bytes) -> bytes | None:
        return obey(payload, fleet.devices[i : i + 1], fleet.now_s * 1000)

    exact = devices <= _MAX_SESSIONS if exact_sessions is None else exact_sessions
    uplink = Uplink(
        url, root, city.device_ids, sessions=None if exact else _SHARED_SESSIONS, on_command=on_command
    )
    tally = Tally(fleet, uplink, started_s, end_s, progress)
    writer = TruthWriter(truth, fleet) if truth else None
    try:
        uplink.open()
        while not halt.is_set() and (end_s is None or fleet.now_s < end_s):
            burst = fleet.step()
            if writer:
                writer.add(burst)
            for due_ms, i, send in _sends(fleet, burst, uplink, tally):
                wall_s = max(started_s + (due_ms / 1000 - fleet.start_s) / speed, due_ms / 1000)
                while not halt.is_set() and (time.time() < wall_s or not uplink.has_room(i)):
                    uplink.pump(min(max(wall_s - time.time(), 0.001), 0.2))
                    tally.report()
                if halt.is_set():
                    break
                send()
            uplink.pump(0.0)
            tally.report()
    finally:
        uplink.close()
        if writer:
            writer.close()
    return tally.report(now=True)


def _lead_s(speed: float, duration_s: float | None) -> float:
    """How far in the past a run starts."""
    if speed <= 1.0:
        return 0.0
    if duration_s is None:
        return min(speed * _CATCH_UP_S, _MAX_PAST_S)
    if duration_s > _MAX_PAST_S:
        raise ScenarioError(
            f"duration {duration_s:.0f} s; a sped-up run starts so far in the past, and the engine refuses "
            f"what is older than 30 days; use at most {_MAX_PAST_S} s"
        )
    return duration_s


def _sends(
    fleet: Fleet, burst: Burst, uplink: Uplink, tally: Tally
) -> list[tuple[int, int, Callable[[], None]]]:
    """What a burst sends: when (UTC milliseconds), which device, and the act, in order of time."""

    def ping_message(k: int) -> Callable[[], None]:
        def send() -> None:
            uplink.publish(int(burst.device[k]), "pings", fleet.payload(burst, k))
            tally.messages += 1
            tally.pings += int(burst.stop[k] - burst.start[k])

        return send

    def check_in_message(call: CheckIn) -> Callable[[], None]:
        def send() -> None:
            uplink.publish(call.device, "checkins", call.payload())
            tally.check_ins += 1

        return send

    sends = [(int(due_ms), int(burst.device[k]), ping_message(k)) for k, due_ms in enumerate(burst.due_ms)]
    sends += [(call.time_ms, call.device, check_in_message(call)) for call in burst.check_ins]
    if burst.check_ins:
        sends.sort(key=lambda entry: entry[0])
    return sends
