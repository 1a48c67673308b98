"""One device's inputs and decisions as they were stored, to decide again and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from telemetry.columns import CheckIn, Tick
from telemetry.store.lookups import between
from telemetry.store.rows import (
    TRANSITION_COLUMNS,
    VIOLATION_COLUMNS,
    time_us_of,
    transition_rows,
    violation_row,
)
from telemetry.store.shares import Replayed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from geofence import Devices
    from telemetry.columns import Batch

__all__ = ["DeviceDecisions", "decisions_in", "device_inputs", "stored_decisions"]

_FAR_FUTURE_US: Final = 253_402_300_799_000_000
_VIOLATIONS: Final = tuple(name for name, _ in VIOLATION_COLUMNS if name != "recorded_time")
_TRANSITIONS: Final = tuple(name for name, _ in TRANSITION_COLUMNS)


class DeviceDecisions(NamedTuple):
    """Rows of violations and transitions, each as column name to value."""

    violations: list[dict[str, Any]]
    transitions: list[dict[str, Any]]


def device_inputs(
    connection: Connection[Any], share: int, device_id: str, devices: Devices
) -> Iterator[Replayed]:
    """The inputs of a share's kept batches, in order, with the pings and check-ins of one device alone."""
    stored = between(connection, device_id, 0, _FAR_FUTURE_US, devices)
    stored = stored.take(np.argsort(stored.batch, kind="stable"))
    check_ins: dict[int, list[CheckIn]] = {}
    for batch, time, received_time, outcome, method in connection.execute(
        "SELECT batch, time, received_time, outcome, method FROM check_ins"
        " WHERE share = %s AND device_id = %s ORDER BY batch, item",
        (share, device_id),
    ):
        check_ins.setdefault(batch, []).append(
            CheckIn(device_id, time_us_of(time), time_us_of(received_time), outcome, method)
        )
    rows = connection.execute(
        "SELECT number, rules_version, tick_time, listening_since FROM batches"
        " WHERE share = %s ORDER BY number",
        (share,),
    ).fetchall()
    for number, rules_version, tick_time, listening_since in rows:
        begin, end = np.searchsorted(stored.batch, [number, number + 1])
        yield Replayed(
            number=number,
            rules_version=rules_version,
            pings=stored.pings.take(slice(begin, end)),
            marks=stored.marks[begin:end],
            judged=stored.judged[begin:end],
            check_ins=check_ins.get(number, []),
            tick=None if tick_time is None else Tick(time_us_of(tick_time), time_us_of(listening_since)),
        )


def decisions_in(batch: Batch, device_id: str) -> DeviceDecisions:
    """What a batch decides about a device, as the rows that would be stored."""
    violations = []
    for decided in batch.decided:
        for row in decided.violations:
            if decided.devices.ids[row["device"]] == device_id:
                values = violation_row(batch, decided, row, None)
                violations.append(dict(zip((name for name, _ in VIOLATION_COLUMNS), values, strict=True)))
    transitions = [dict(zip(_TRANSITIONS, row, strict=True)) for row in transition_rows(batch)]
    for row in violations:
        del row["recorded_time"]
    return DeviceDecisions(violations, [row for row in transitions if row["device_id"] == device_id])


def stored_decisions(connection: Connection[Any], share: int, device_id: str) -> DeviceDecisions:
    """What was stored about a device."""

    def read(table: str, columns: tuple[str, ...]) -> list[dict[str, Any]]:
        rows = connection.execute(
            f"SELECT {', '.join(columns)} FROM {table} WHERE share = %s AND device_id = %s",  # noqa: S608 - our names
            (share, device_id),
        )
        return [dict(zip(columns, row, strict=True)) for row in rows]

    return DeviceDecisions(read("violations", _VIOLATIONS), read("transitions", _TRANSITIONS))
