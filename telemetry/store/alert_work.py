"""What people do through the API: steps of alerts, suppressions, deliveries that failed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from psycopg import errors as pg

from telemetry.api.reader import Page
from telemetry.api.work import ChannelRow, DeliveryRow, SuppressionRow
from telemetry.store.actions import act
from telemetry.store.caseload import CASELOAD, and_of_caseload, device_of_caseload
from telemetry.store.cursors import read_cursor, write_cursor
from telemetry.store.deliveries import BACKLOGS
from telemetry.store.errors import NoSuchAlert
from telemetry.store.rows import OUTBOX_CHANNEL, moment
from telemetry.store.store import Store
from telemetry.store.telling import LOG_STEP

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemetry.api.reader import AlertRow
    from telemetry.store.pool import ReadingPool
    from telemetry.store.telling import Steps

__all__ = ["AlertWork"]


class AlertWork:
    """The part of ``Reader`` that is about working on alerts."""

    _pool: ReadingPool

    async def act_on_alert(
        self,
        alert_id: int,
        action: str,
        *,
        who: str,
        note: str | None = None,
        outcome: str | None = None,
        assignee: str | None = None,
    ) -> AlertRow:
        """Acknowledge, assign, resolve or reopen: alert, log and outbox in one transaction.

        Raises NoSuchAlert, AlertConflict.
        """
        now_us = time.time_ns() // 1000

        def steps() -> Steps:
            return act(
                alert_id, action, who=who, note=note, outcome=outcome, now_us=now_us, assignee=assignee
            )

        if await self.alert(alert_id) is None:  # also when it is of nobody in the caseload
            raise NoSuchAlert(alert_id)
        await self._drive(f"acting on alert {alert_id}", steps)
        row = await self.alert(alert_id)
        if row is None:
            raise NoSuchAlert(alert_id)
        return row

    async def alert(self, alert_id: int) -> AlertRow | None:
        """One alert; ``Reader`` has it."""
        raise NotImplementedError

    # --- suppressions ---------------------------------------------------------------------------

    async def suppress(
        self,
        *,
        device_id: str | None,
        rule_id: str | None,
        zone_id: str | None,
        until_us: int,
        reason: str,
        who: str,
    ) -> SuppressionRow:
        """Keep what fits quiet until then, from now on; alerts that are open already too."""
        now = moment(time.time_ns() // 1000)
        values = {
            "device_id": device_id,
            "rule_id": rule_id,
            "zone_id": zone_id,
            "until": moment(until_us),
            "reason": reason,
            "who": who,
            "now": now,
        }
        async with self._pool.use("suppressing alerts") as connection, connection.transaction():
            cursor = await connection.execute(_SUPPRESS, values)
            row = await cursor.fetchone()
            assert row is not None
            cursor = await connection.execute(_QUIET, values | {"suppression_id": row[0]})
            for alert_id, violation_id in await cursor.fetchall():
                note = f"suppression {row[0]}: {reason}"
                await connection.execute(
                    LOG_STEP,
                    {
                        "alert_id": alert_id,
                        "violation_id": violation_id,
                        "time": now,
                        "now": now,
                        "change": "suppressed",
                        "who": who,
                        "outcome": None,
                        "sentence": None,
                        "note": note,
                    },
                )
                await connection.execute("DELETE FROM escalations WHERE alert_id = %s", (alert_id,))
            await connection.execute("SELECT pg_notify(%s, '0')", (OUTBOX_CHANNEL,))  # its end is a deadline
        made = await self.suppression(row[0])
        assert made is not None
        return made

    async def lift(self, suppression_id: int, *, who: str) -> SuppressionRow | None:
        """End it now; what it kept quiet and is still open is told. Ended ones stay as they are.
        None: nobody knows it.
        """
        if await self.suppression(suppression_id) is None:
            return None
        async with self._pool.use("lifting a suppression") as connection, connection.transaction():
            await connection.execute(
                "UPDATE suppressions SET lifted_time = clock_timestamp(), lifted_by = %s"
                " WHERE suppression_id = %s AND lifted_time IS NULL AND until_time > clock_timestamp()",
                (who, suppression_id),
            )
            await connection.execute("SELECT pg_notify(%s, '0')", (OUTBOX_CHANNEL,))
        return await self.suppression(suppression_id)

    async def suppression(self, suppression_id: int) -> SuppressionRow | None:
        """One of them; None: nobody knows it, or it is not of the caseload."""
        values = {"id": suppression_id, "limit": 1, "now": moment(time.time_ns() // 1000)} | _groups()
        where = f"suppression_id = %(id)s{and_of_caseload(*_STRETCH)}"
        async with self._pool.use("looking a suppression up") as connection:
            cursor = await connection.execute(_SUPPRESSIONS.format(where=where), values, binary=True)
            row = await cursor.fetchone()
        return None if row is None else SuppressionRow(*row)

    async def suppressions(
        self, *, in_force: bool | None, cursor: str | None, limit: int
    ) -> Page[SuppressionRow]:
        """Newest first. in_force: those that hold now (True), those that have ended (False), all (None)."""
        (before,) = read_cursor(cursor, "suppressions", int) if cursor else (2**63 - 1,)
        conditions = ["suppression_id < %(before)s"]
        if in_force is not None:
            conditions.append(("" if in_force else "NOT ") + _IN_FORCE)
        where = " AND ".join(conditions) + and_of_caseload(*_STRETCH)
        values = {"before": before, "limit": limit + 1, "now": moment(time.time_ns() // 1000)} | _groups()
        async with self._pool.use("listing suppressions") as connection:
            found = await connection.execute(_SUPPRESSIONS.format(where=where), values, binary=True)
            rows = [SuppressionRow(*row) for row in await found.fetchall()]
        last = rows[limit - 1].suppression_id if len(rows) > limit else None
        return Page(rows[:limit], None if last is None else write_cursor("suppressions", last))

    # --- deliveries -----------------------------------------------------------------------------

    async def deliveries(
        self,
        *,
        state: str | None,
        channel: str | None,
        alert_id: int | None,
        cursor: str | None,
        limit: int,
    ) -> Page[DeliveryRow]:
        """Newest first."""
        (before,) = read_cursor(cursor, "deliveries", int) if cursor else (2**63 - 1,)
        conditions = ["delivery_id < %(before)s"]
        values: dict[str, Any] = {"before": before, "limit": limit + 1} | _groups()
        for name, value in (("state", state), ("channel", channel), ("alert_id", alert_id)):
            if value is not None:
                conditions.append(f"{name} = %({name})s")
                values[name] = value
        async with self._pool.use("listing deliveries") as connection:
            where = " AND ".join(conditions) + _and_mine()
            found = await connection.execute(_DELIVERIES.format(where=where), values, binary=True)
            rows = [DeliveryRow(*row) for row in await found.fetchall()]
        last = rows[limit - 1].delivery_id if len(rows) > limit else None
        return Page(rows[:limit], None if last is None else write_cursor("deliveries", last))

    async def retry_delivery(self, delivery_id: int) -> DeliveryRow | None:
        """Have one that waits or was given up tried at once; one that was made stays made.
        None: nobody knows it.
        """
        values = {"id": delivery_id, "limit": 1} | _groups()
        async with self._pool.use("retrying a delivery") as connection, connection.transaction():
            await connection.execute(_RETRY.format(mine=_and_mine()), values)
            await connection.execute("SELECT pg_notify(%s, '0')", (OUTBOX_CHANNEL,))
            where = f"delivery_id = %(id)s{_and_mine()}"
            found = await connection.execute(_DELIVERIES.format(where=where), values, binary=True)
            row = await found.fetchone()
        return None if row is None else DeliveryRow(*row)

    async def channels(self) -> list[ChannelRow]:
        """What each channel has before it."""
        async with self._pool.use("counting what channels owe") as connection:
            found = await connection.execute(BACKLOGS, binary=True)
            return [ChannelRow(*row) for row in await found.fetchall()]

    # --- how it writes --------------------------------------------------------------------------

    async def _drive(self, doing: str, steps: Callable[[], Steps]) -> None:
        async with self._pool.use(doing) as connection:
            try:
                await _run(connection, steps())
            except pg.CheckViolation:  # no batch was committed for days: the outbox lacks today's partition
                await asyncio.to_thread(_make_days, self._pool.url)
                await _run(connection, steps())


async def _run(connection: Any, steps: Steps) -> None:
    async with connection.transaction():
        row = None
        with contextlib.suppress(StopIteration):
            while True:
                # text format: the steps expect times as datetimes, not as this pool's microseconds
                cursor = await connection.execute(*steps.send(row))
                row = await cursor.fetchone() if cursor.description else None


def _and_mine() -> str:
    """What a condition adds for a caseload."""
    return "" if CASELOAD.get() is None else f" AND {device_of_caseload('device_id')}"


def _groups() -> dict[str, Any]:
    return {"groups": sorted(CASELOAD.get() or ())}


def _make_days(url: str) -> None:
    with contextlib.closing(Store.open(url)) as store:
        store.make_days()


_SUPPRESS: Final = """
INSERT INTO suppressions (created_time, until_time, device_id, rule_id, zone_id, reason, created_by)
VALUES (%(now)s, %(until)s, %(device_id)s, %(rule_id)s, %(zone_id)s, %(reason)s, %(who)s)
RETURNING suppression_id
"""
_QUIET: Final = """
UPDATE alerts SET suppression_id = %(suppression_id)s
WHERE state IN ('open', 'acknowledged') AND suppression_id IS NULL
  AND (%(device_id)s::text IS NULL OR device_id = %(device_id)s)
  AND (%(rule_id)s::text IS NULL OR rule_id = %(rule_id)s)
  AND (%(zone_id)s::text IS NULL OR zone_id = %(zone_id)s)
RETURNING alert_id, violation_id
"""
_STRETCH: Final = (
    "suppressions.device_id",
    "suppressions.created_time",
    "coalesce(suppressions.lifted_time, suppressions.until_time)",
)
_IN_FORCE: Final = "(lifted_time IS NULL AND until_time > %(now)s)"
_SUPPRESSIONS: Final = f"""
SELECT suppression_id, device_id, rule_id, zone_id, reason, created_by, created_time, until_time, lifted_by,
       lifted_time, {_IN_FORCE}
FROM suppressions WHERE {{where}} ORDER BY suppression_id DESC LIMIT %(limit)s
"""  # noqa: S608 - our own text
_RETRY: Final = """
UPDATE deliveries SET state = 'waiting', due_time = clock_timestamp(), settled_time = NULL,
    attempts = CASE WHEN state = 'dead' THEN 0 ELSE attempts END
WHERE delivery_id = %(id)s AND state <> 'delivered'{mine}
"""
_DELIVERIES: Final = """
SELECT delivery_id, channel, alert_id, device_id, state, attempts, error, created_time, due_time, settled_time
FROM deliveries WHERE {where} ORDER BY delivery_id DESC LIMIT %(limit)s
"""
