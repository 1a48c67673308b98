"""How a run goes: counts, rate, time left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmware_sim.fleet import Fleet
    from firmware_sim.uplink import Uplink

__all__ = ["Progress", "Tally"]

_REPORT_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run goes."""

    messages: int
    pings: int
    check_ins: int
    in_flight: int  # published, not acknowledged yet
    pings_per_s: float  # since the last report
    elapsed_s: float
    sim_time_us: int
    eta_s: float | None  # None: the run has no end
    connected: int  # MQTT sessions that stand
    sessions: int


class Tally:
    """Counts, and reports now and then."""

    def __init__(
        self,
        fleet: Fleet,
        uplink: Uplink,
        started_s: float,
        end_s: float | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.messages = self.pings = self.check_ins = 0
        self._fleet, self._uplink = fleet, uplink
        self._started_s, self._end_s, self._progress = started_s, end_s, progress
        self._last_s, self._last_pings, self._rate = time.monotonic(), 0, 0.0

    def report(self, *, now: bool = False) -> Progress:
        """Call back if it is time; the state of the run."""
        clock_s = time.monotonic()
        due = clock_s - self._last_s >= _REPORT_EVERY_S
        if due:
            self._rate = (self.pings - self._last_pings) / (clock_s - self._last_s)
            self._last_s, self._last_pings = clock_s, self.pings
        elapsed_s = time.time() - self._started_s
        done_s = self._fleet.now_s - self._fleet.start_s
        eta_s = None
        if self._end_s is not None and done_s > 0:
            eta_s = max(0.0, (self._end_s - self._fleet.now_s) * elapsed_s / done_s)
        state = Progress(
            messages=self.messages,
            pings=self.pings,
            check_ins=self.check_ins,
            in_flight=self._uplink.in_flight,
            pings_per_s=self._rate,
            elapsed_s=elapsed_s,
            sim_time_us=self._fleet.now_s * 1_000_000,
            eta_s=eta_s,
            connected=self._uplink.connected,
            sessions=self._uplink.sessions,
        )
        if self._progress and (due or now):
            self._progress(state)
        return state
