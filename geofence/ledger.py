"""What the engine has said lately: needed to say later what late pings change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence.records import TRANSITION, VIOLATION, WITHDRAWN
from geofence.units import NO_TIME

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HORIZON_US", "Ledger"]

HORIZON_US: Final = 7 * 86_400 * 1_000_000  # pings later than this are stored, but change no decision
_ROOM: Final = 4096


class Ledger:
    """Rows said, of the last seven days and of what is open; columns, oldest first."""

    def __init__(self) -> None:
        self.violations: NDArray[Any] = np.zeros(0, VIOLATION)
        self.when: NDArray[np.int64] = np.zeros(0, np.int64)  # fix time at which each row was decided
        self.transitions: NDArray[Any] = np.zeros(0, TRANSITION)
        self.newest_us = NO_TIME
        self.withdrawn: dict[int, int] = {}  # violations whose newest row withdraws them -> its revision
        self._pending: list[tuple[NDArray[Any], NDArray[np.int64], NDArray[Any]]] = []
        self._pending_rows = 0

    def note(self, violations: NDArray[Any], when: NDArray[np.int64], transitions: NDArray[Any]) -> None:
        """Remember what was just said."""
        self._note_withdrawn(violations)
        if len(violations) + len(transitions):
            self._pending.append((violations, when, transitions))
            self._pending_rows += len(violations) + len(transitions)
            if self._pending_rows > _ROOM + len(self.violations) + len(self.transitions):
                self.forget()

    def _note_withdrawn(self, rows: NDArray[Any]) -> None:
        """Follow which violations are withdrawn."""
        if not self.withdrawn and not (rows["change"] == WITHDRAWN).any():
            return
        columns = (rows[name].tolist() for name in ("violation_id", "change", "revision"))
        for violation_id, change, revision in zip(*columns, strict=True):
            if change == WITHDRAWN:
                self.withdrawn[violation_id] = revision
            else:
                self.withdrawn.pop(violation_id, None)

    def remember(self, violations: NDArray[Any], when: NDArray[np.int64], transitions: NDArray[Any]) -> None:
        """Begin with what was said before a snapshot."""
        self.violations, self.when, self.transitions = violations, when, transitions
        self._note_withdrawn(violations)

    def gather(self) -> None:
        """Bring the columns up to date."""
        if self._pending:
            self.violations = np.concatenate((self.violations, *(v for v, _, _ in self._pending)))
            self.when = np.concatenate((self.when, *(w for _, w, _ in self._pending)))
            self.transitions = np.concatenate((self.transitions, *(t for _, _, t in self._pending)))
            self._pending, self._pending_rows = [], 0

    def forget(self) -> None:
        """Drop what lies past the horizon; of a violation, once its newest row does."""
        self.gather()
        if self.newest_us == NO_TIME:
            return
        oldest_us = self.newest_us - HORIZON_US
        rows = self.violations
        recent = (rows["closed_us"] == NO_TIME) | (rows["closed_us"] >= oldest_us)
        # a row that opened is kept only as long as the row that closed
        ended = rows["violation_id"][(rows["closed_us"] != NO_TIME) & ~recent]
        kept = recent & ~np.isin(rows["violation_id"], ended)
        self.violations, self.when = rows[kept], self.when[kept]
        self.transitions = self.transitions[self.transitions["confirmed_us"] >= oldest_us]
        if self.withdrawn:
            known = set(self.violations["violation_id"].tolist())
            self.withdrawn = {k: revision for k, revision in self.withdrawn.items() if k in known}

    def of(self, slots: NDArray[np.int32]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[Any]]:
        """The rows about these devices: violations, when they were decided, transitions."""
        self.gather()
        about = np.isin(self.violations["device"], slots)
        moved = np.isin(self.transitions["device"], slots)
        return self.violations[about], self.when[about], self.transitions[moved]
