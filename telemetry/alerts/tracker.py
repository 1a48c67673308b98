"""Which alert a violation belongs to: one for a device and a rule while any of its violations is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from geofence import CLOSED, HELD_BACK, NO_TIME, OPENED, SEVERITIES, WITHDRAWN, sentence
from telemetry.columns import AlertChange

if TYPE_CHECKING:
    from geofence import Decided

__all__ = ["AlertTracker"]


class _Open(msgspec.Struct, array_like=True):
    """An alert whose violations have not all ended."""

    alert_id: int
    violations: list[int]


class AlertTracker:
    """Turns rows of violations into steps of alerts. Its state is a function of the rows it has followed."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def follow(self, decided: Decided) -> list[tuple[AlertChange, np.void]]:
        """The alert steps that these decisions cause, each with its VIOLATION row.

        In the order of the rows, but withdrawals last: by then it is known what takes their place.
        """
        rows = decided.violations[np.argsort(decided.violations["change"] == WITHDRAWN, kind="stable")]
        steps = ((self._step(decided, row), row) for row in rows)
        return [(step, row) for step, row in steps if step is not None]

    def _step(self, decided: Decided, row: np.void) -> AlertChange | None:
        change = int(row["change"])
        if change == HELD_BACK:
            return None
        violation_id = int(row["violation_id"])
        device_id = decided.devices.ids[row["device"]]
        rule_id = decided.ruleset.rule_ids[row["rule"]]
        zone = int(row["zone"])
        key = (device_id, rule_id)
        alert = self._open.get(key)
        ended = change in {CLOSED, WITHDRAWN} or int(row["closed_us"]) != NO_TIME
        step = "updated"
        if change == OPENED and alert is None:
            step = "opened"
            alert = _Open(violation_id, [])
        elif alert is None:  # its alert ended before; what is learned late still names the same alert
            alert = _Open(violation_id, [])
            step = "withdrawn" if change == WITHDRAWN else "updated"
        if ended:
            if violation_id in alert.violations:
                alert.violations.remove(violation_id)
            if change == WITHDRAWN and not alert.violations:
                step = "withdrawn"
        elif violation_id not in alert.violations:
            alert.violations.append(violation_id)
        if alert.violations:
            self._open[key] = alert
        else:
            self._open.pop(key, None)
        moment = max(int(row["opened_us"]), int(row["confirmed_us"]), int(row["closed_us"]))
        return AlertChange(
            alert_id=alert.alert_id,
            change=step,
            violation_id=violation_id,
            device_id=device_id,
            rule_id=rule_id,
            zone_id=decided.ruleset.zones.ids[zone] if zone >= 0 else None,
            severity=SEVERITIES[row["severity"]],
            time_us=moment,
            sentence=sentence(decided.ruleset, decided.devices, row),
            rules_version=decided.version,
        )

    def snapshot(self) -> bytes:
        """The state as bytes."""
        return msgspec.msgpack.encode(
            [(device, rule, alert) for (device, rule), alert in sorted(self._open.items())]
        )

    @classmethod
    def restore(cls, blob: bytes) -> AlertTracker:
        """A tracker in the state that ``snapshot`` gave."""
        tracker = cls()
        rows = msgspec.msgpack.decode(blob, type=list[tuple[str, str, _Open]])
        tracker._open = {(device, rule): alert for device, rule, alert in rows}
        return tracker
