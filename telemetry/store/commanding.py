"""What operators ask devices to do: asked through the API, sent by the engine, answered by the device."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from telemetry.api.reader import CheckInRow, CommandRow, Page
from telemetry.store.caseload import and_of_caseload, with_groups
from telemetry.store.cursors import read_cursor, write_cursor
from telemetry.store.rows import bound, moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from telemetry.store.pool import ReadingPool

__all__ = ["Commanding", "WaitingCommand", "mark_commands_sent", "waiting_commands"]

_ASK: Final = """
INSERT INTO commands (asked_time, device_id, command, who, payload)
VALUES (%(now)s, %(device_id)s, %(command)s, %(who)s, %(payload)s)
RETURNING command_id
"""
# A device may answer twice (its result is sent at least once): the first answer counts.
_COMMANDS: Final = """
SELECT c.command_id, c.device_id, c.command, c.who, c.payload::text, c.asked_time, c.sent_time,
       CASE r.done WHEN true THEN 'done' WHEN false THEN 'refused' END, r.detail, r.received_time
FROM (
    SELECT * FROM commands WHERE device_id = %(device_id)s AND command_id < %(before)s{mine}
    ORDER BY command_id DESC LIMIT %(limit)s
) c
LEFT JOIN LATERAL (
    SELECT done, detail, received_time FROM command_results r
    WHERE r.device_id = c.device_id AND r.command_id = c.command_id::text
    ORDER BY received_time LIMIT 1
) r ON true
ORDER BY c.command_id DESC
"""
_CHECK_INS: Final = """
SELECT device_id, time, received_time, outcome, method FROM check_ins
WHERE device_id = %(device_id)s AND time >= %(from)s AND time < %(to)s AND time <= %(before)s
  AND (time, received_time) < (%(before)s, %(before_received)s){mine}
ORDER BY time DESC, received_time DESC LIMIT %(limit)s
"""
_LAST: Final = 2**63 - 1


class Commanding:
    """The part of ``Reader`` that is about commands to devices, and about check-ins."""

    _pool: ReadingPool

    async def ask_device(
        self, device_id: str, command: str, who: str, arguments: dict[str, Any]
    ) -> CommandRow:
        """Have a command sent. arguments: what stands beside ``id`` and ``command`` in its message."""
        values = {
            "now": moment(time.time_ns() // 1000),
            "device_id": device_id,
            "command": command,
            "who": who,
            "payload": msgspec.json.encode({"command": command, **arguments}).decode(),
        }
        async with self._pool.use("asking a device") as connection:
            row = await (await connection.execute(_ASK, values)).fetchone()
        assert row is not None
        (asked,) = await self._commands(device_id, row[0] + 1, 1, mine="")
        return asked

    async def commands(self, device_id: str, *, cursor: str | None, limit: int) -> Page[CommandRow]:
        """What was asked of a device, newest first, with its answers."""
        (before,) = read_cursor(cursor, "commands", int) if cursor else (_LAST,)
        mine = and_of_caseload("commands.device_id", "commands.asked_time")
        rows = await self._commands(device_id, before, limit + 1, mine=mine)
        items = rows[:limit]
        more = len(rows) > limit
        return Page(items, write_cursor("commands", items[-1].command_id) if more else None)

    async def _commands(self, device_id: str, before: int, limit: int, *, mine: str) -> list[CommandRow]:
        values = with_groups({"device_id": device_id, "before": before, "limit": limit})
        async with self._pool.use("listing commands") as connection:
            rows = await (
                await connection.execute(_COMMANDS.format(mine=mine), values, binary=True)
            ).fetchall()
        return [_command_row(row) for row in rows]

    async def check_ins(
        self, device_id: str, *, from_us: int | None, to_us: int | None, cursor: str | None, limit: int
    ) -> Page[CheckInRow]:
        """The check-ins of a device, newest first."""
        before, received = read_cursor(cursor, "check_ins", int, int) if cursor else (_LAST, _LAST)
        values = {
            "device_id": device_id,
            "from": bound(-_LAST if from_us is None else from_us),
            "to": bound(_LAST if to_us is None else to_us),
            "before": bound(before),
            "before_received": bound(received),
            "limit": limit + 1,
        }
        mine = and_of_caseload("check_ins.device_id", "check_ins.time")
        async with self._pool.use("listing check-ins") as connection:
            found = await connection.execute(_CHECK_INS.format(mine=mine), with_groups(values), binary=True)
            rows = await found.fetchall()
        items = [CheckInRow(*row) for row in rows[:limit]]
        more = len(rows) > limit
        last = write_cursor("check_ins", items[-1].time_us, items[-1].received_us) if more else None
        return Page(items, last)


def _command_row(row: Sequence[Any]) -> CommandRow:
    payload: dict[str, Any] = msgspec.json.decode(row[4])
    return CommandRow(row[0], row[1], row[2], row[3], payload, row[5], row[6], row[7], row[8], row[9])


@dataclass(frozen=True, slots=True)
class WaitingCommand:
    """A command that the broker does not have yet."""

    command_id: int
    device_id: str
    payload: dict[str, Any]


def waiting_commands(connection: Connection[Any], limit: int) -> list[WaitingCommand]:
    """The oldest that were not sent, in order."""
    rows = connection.execute(
        "SELECT command_id, device_id, payload::text FROM commands WHERE sent_time IS NULL"
        " ORDER BY command_id LIMIT %s",
        (limit,),
    ).fetchall()
    return [WaitingCommand(row[0], row[1], msgspec.json.decode(row[2])) for row in rows]


def mark_commands_sent(connection: Connection[Any], ids: Sequence[int]) -> None:
    """Note that the broker has confirmed these."""
    connection.execute(
        "UPDATE commands SET sent_time = clock_timestamp() WHERE command_id = ANY(%s) AND sent_time IS NULL",
        (list(ids),),
    )
