"""``ringfence replay``: decide again what was decided about a device, from what is stored, and compare.

The engine runs over every kept batch of the device's share: its pings and check-ins, the ticks, the rules in
the versions of then. What it says must be what was stored, row for row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence import Devices, Engine, Pings, Ruleset, from_rfc3339
from telemetry.columns import Admitted, Batch
from telemetry.judging import RulesVersion, judge
from telemetry.pipeline import nothing_admitted
from telemetry.store import DeviceDecisions, decisions_in

if TYPE_CHECKING:
    from telemetry.store import Replayed, Store

__all__ = ["Difference", "ReplayError", "Replayal", "read_times", "replay_device"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
HISTORY_US: Final = 7 * 86_400 * 1_000_000  # as Share gives to rejudge


class ReplayError(Exception):
    """The device's decisions can't be made again; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that only one side has. ``side`` is stored or replayed."""

    side: str
    table: str
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Replayal:
    """What a replay found within the asked time."""

    pings: int
    decisions: int
    differences: list[Difference]

    def document(self) -> dict[str, Any]:
        """The shape of ``--json``: times as RFC 3339."""
        return {
            "pings": self.pings,
            "decisions": self.decisions,
            "differences": [
                {"side": d.side, "table": d.table, "row": {name: _plain(v) for name, v in d.row.items()}}
                for d in self.differences
            ],
        }


def read_times(begin: str, end: str) -> tuple[datetime, datetime]:
    """The times of the command line. Raises ReplayError."""
    try:
        times = [from_rfc3339(text) for text in (begin, end)]
    except ValueError as error:
        raise ReplayError(f"{error}; write a time as 2026-11-24T08:00:00Z") from error
    if times[0] > times[1]:
        raise ReplayError(f"FROM {begin} is after TO {end}; give the earlier one first")
    first, last = (EPOCH + timedelta(microseconds=time_us) for time_us in times)
    return first, last


def replay_device(store: Store, share: int, device_id: str, begin: datetime, end: datetime) -> Replayal:
    """Decide again about a device and compare the decisions that were confirmed in [begin, end].

    Raises ReplayError when nothing of the device is stored.
    """
    devices = Devices([device_id])
    inputs = store.device_inputs(share, device_id, devices)
    pings = [past.pings for past in inputs if len(past.pings)]
    if not pings:
        raise ReplayError(
            f"no ping of device {device_id} is stored for share {share}; `ringfence doctor` names the "
            "database in use, /api/v1/devices the devices in it"
        )
    replayed = _decide_again(store, share, device_id, devices, inputs)
    stored = store.stored_decisions(share, device_id)
    differences: list[Difference] = []
    compared = 0
    for table, ours, theirs in (
        ("violations", replayed.violations, stored.violations),
        ("transitions", replayed.transitions, stored.transitions),
    ):
        ours = [row for row in ours if begin <= row["confirmed_time"] <= end]  # noqa: PLW2901
        theirs = [row for row in theirs if begin <= row["confirmed_time"] <= end]  # noqa: PLW2901
        compared += len(theirs)
        differences += [Difference("stored", table, row) for row in _only_in(theirs, ours)]
        differences += [Difference("replayed", table, row) for row in _only_in(ours, theirs)]
    fix_time_us = Pings.concat(pings).fix_time_us
    within = (fix_time_us >= begin.timestamp() * 1e6) & (fix_time_us <= end.timestamp() * 1e6)
    return Replayal(int(np.count_nonzero(within)), compared, differences)


def _decide_again(
    store: Store, share: int, device_id: str, devices: Devices, inputs: list[Replayed]
) -> DeviceDecisions:
    rules = _rules(store, inputs[0].rules_version)
    engine = Engine(rules.ruleset, devices, version=rules.version)
    found = DeviceDecisions([], [])
    seen = Pings.empty(devices)
    for past in inputs:
        new_rules = _rules(store, past.rules_version) if past.rules_version != rules.version else None
        before = None if new_rules is None else rules.version
        rules = new_rules or rules
        admitted = replace(
            nothing_admitted(devices),
            pings=past.pings,
            marks=past.marks,
            judged=past.judged,
            check_ins=past.check_ins,
        )
        earlier = seen

        def history(_slots: Any, newest_us: Any, earlier: Pings = earlier) -> Pings:
            near = np.abs(earlier.fix_time_us - newest_us[0]) < HISTORY_US
            return earlier.take(near)

        decided, _ = judge(engine, admitted, past.tick, new_rules, history)
        if any(map(len, decided)):
            batch = _as_batch(share, past, admitted, decided, before)
            rows = decisions_in(batch, device_id)
            found.violations.extend(rows.violations)
            found.transitions.extend(rows.transitions)
        if len(past.pings):
            seen = Pings.concat([seen, past.pings.take(past.judged)])
    return found


def _rules(store: Store, version: int) -> RulesVersion:
    stored = store.load_ruleset(version)
    if stored is None:
        raise ReplayError(f"rules version {version} is not stored any more; restore it from a backup")
    return RulesVersion(version, Ruleset.from_document(stored[1]), stored[2])


def _as_batch(
    share: int, past: Replayed, admitted: Admitted, decided: list[Any], rules_before: int | None
) -> Batch:
    return Batch(
        share=share,
        epoch=0,
        number=past.number,
        rules_version=past.rules_version,
        admitted=admitted,
        decided=decided,
        tick=past.tick,
        alerts=[],
        outgoing=[],
        rules_before=rules_before,
    )


def _plain(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def _only_in(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that ``others`` lacks, counting repeats."""
    left = Counter(tuple(row.values()) for row in others)
    missing = []
    for row in rows:
        key = tuple(row.values())
        if left[key]:
            left[key] -= 1
        else:
            missing.append(row)
    return missing
