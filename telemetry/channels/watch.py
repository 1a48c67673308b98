"""Looks after open alerts by the clock: escalation, and suppressions that end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from telemetry.channels.worker import LOOK_S, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from geofence.escalation import EscalationPolicy
    from telemetry.store.desk import Desk

__all__ = ["EscalationWatch"]

NAME: Final = "escalation"
FORGET_US: Final = 3_600_000_000  # hourly


class EscalationWatch(Worker):
    """The state is in the database and steps are found by time, so nothing is lost while no engine runs.

    policy : gives the policy of the rules in force
    """

    def __init__(self, desk: Desk, policy: Callable[[], EscalationPolicy]) -> None:
        super().__init__(NAME, desk)
        self._policy = policy
        self._forget_us = 0

    def turn(self) -> float:
        """Do what is due; sleep until the next thing is."""
        if not self._desk.hold(NAME):
            return LOOK_S
        _, more = self._desk.act_on_time(self._policy)
        if more:
            return 0.0
        now_us = self._desk.now_us()
        if now_us >= self._forget_us:
            self._desk.forget_deliveries()
            self._forget_us = now_us + FORGET_US
        next_us = self._desk.next_deadline_us()
        return LOOK_S if next_us is None else max((next_us - now_us) / 1e6, 0.001)
