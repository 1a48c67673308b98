"""The reading side: what console, API and reports ask. It implements ``telemetry.api.reader.Reader``."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from telemetry.api.reader import EventRow, LogRow, Page
from telemetry.columns import CommandResult
from telemetry.store import queries
from telemetry.store.alert_work import AlertWork
from telemetry.store.beliefs import Believing
from telemetry.store.caseload import CASELOAD, and_of_caseload, device_of_caseload, of_caseload
from telemetry.store.cells import cells_around
from telemetry.store.commanding import Commanding
from telemetry.store.cursors import read_cursor, write_cursor
from telemetry.store.editing import RulesEditing
from telemetry.store.gate import Gate
from telemetry.store.pool import ReadingPool
from telemetry.store.records import Record, read_record
from telemetry.store.rows import OUTBOX_CHANNEL, bound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from typing import TypeVar

    from telemetry.api.reader import (
        AlertRow,
        DeviceRow,
        PositionRow,
        TrackRow,
        TransitionRow,
        ViolationRow,
    )

    Item = TypeVar("Item")

__all__ = ["NearRow", "Reader"]

CHUNK_ROWS: Final = 2_000  # of a stream: some 20 ms of work, so that other requests get their turn
MOST_CELLS: Final = 4_000


@dataclass(frozen=True, slots=True)
class NearRow:
    """A ping near a place."""

    device_id: str
    fix_time_us: int
    lat_e7: int
    lon_e7: int
    accuracy_mm: int
    marks: int
    distance_mm: int


class Reader(RulesEditing, Commanding, Believing, AlertWork):
    """Reads through a pool of connections on one event loop.

    Every method raises StoreUnavailable within about two seconds when the database is away, and works again
    by itself when it is back. Lists are walked by keyset cursors; they raise BadCursor.
    """

    def __init__(self, url: str) -> None:
        self._pool = ReadingPool(url)

    @property
    def gate(self) -> Gate:
        """Accounts, tokens, sessions and the access log, through the same pool."""
        return Gate(self._pool)

    async def record(
        self, participant: str, *, groups: frozenset[str] | None, positions: bool
    ) -> Record | None:
        """All that is stored about a participant, on a connection of its own; None: nobody is called so."""
        return await asyncio.to_thread(
            read_record, self._pool.url, participant, groups=groups, positions=positions
        )

    async def open(self) -> None:
        """Open the pool on the running event loop; does not fail when the database is away."""
        await self._pool.open()

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()

    async def check(self) -> None:
        """Return when the database answers."""
        await self._rows("asking whether the database answers", "SELECT 1")

    # --- devices --------------------------------------------------------------------------------

    async def devices(self, *, cursor: str | None, limit: int) -> Page[DeviceRow]:
        """Devices by id: all that are enrolled or have spoken."""
        (after,) = read_cursor(cursor, "devices", str) if cursor else ("",)
        rows = await self._rows(
            "listing devices",
            self._devices("device_id > %(after)s"),
            {"after": after, "limit": limit + 1},
        )
        return _page(rows, limit, queries.device_row, lambda row: write_cursor("devices", row.device_id))

    async def device(self, device_id: str) -> DeviceRow | None:
        """One device."""
        rows = await self._rows(
            "looking a device up",
            self._devices("device_id = %(device_id)s"),
            {"device_id": device_id, "limit": 1},
        )
        return queries.device_row(rows[0]) if rows else None

    async def positions(self, since_us: int | None = None) -> Sequence[PositionRow]:
        """The newest position of every device that was received after ``since_us``."""
        where = "" if since_us is None else " AND d.received_time > %(since)s"
        where += self._and_mine("d.device_id", "d.fix_time")
        values = {} if since_us is None else {"since": bound(since_us)}
        found: list[PositionRow] = []
        async for rows in self._stream("reading positions", queries.POSITIONS + where, values):
            found.extend(map(queries.position_row, rows))
        return found

    async def track(self, device_id: str, from_us: int, to_us: int) -> AsyncIterator[Sequence[TrackRow]]:
        """Every stored ping of a device with from <= fix time < to, by fix time, in chunks."""
        values = {"device_id": device_id, "from": bound(from_us), "to": bound(to_us)}
        query = queries.TRACK.format(mine=self._and_mine("pings.device_id", "pings.fix_time"))
        async for rows in self._stream("reading a track", query, values):
            yield list(map(queries.track_row, rows))

    async def command_results(self, device_id: str, *, limit: int = 100) -> Sequence[CommandResult]:
        """What a device did with commands, newest first."""
        rows = await self._rows(
            "reading results of commands",
            queries.COMMAND_RESULTS,
            {"device_id": device_id, "limit": limit},
        )
        return [CommandResult(*row) for row in rows]

    async def near(
        self, lat_e7: int, lon_e7: int, radius_m: float, from_us: int, to_us: int, *, limit: int = 10_000
    ) -> Sequence[NearRow]:
        """Every ping within ``radius_m`` of a place with from <= fix time < to, by device and time.

        Raises ValueError when the circle is larger than the place key is made for (some 60 km).
        """
        cells = cells_around(lat_e7, lon_e7, radius_m)
        if len(cells) > MOST_CELLS:
            raise ValueError(
                f"a radius of {radius_m:.0f} m touches {len(cells)} cells; ask for a smaller one"
            )
        values = {
            "lat": lat_e7 / 1e7,
            "lon": lon_e7 / 1e7,
            "cells": cells,
            "radius_m": radius_m,
            "from": bound(from_us),
            "to": bound(to_us),
            "limit": limit,
        }
        return [NearRow(*row) for row in await self._rows("looking around a place", queries.NEAR, values)]

    # --- what happened --------------------------------------------------------------------------

    async def transitions(
        self,
        *,
        device_id: str | None = None,
        zone_id: str | None = None,
        kind: str | None = None,
        from_us: int | None = None,
        to_us: int | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[TransitionRow]:
        """Newest first."""
        rows = await self._newest_first(
            "transitions",
            queries.TRANSITIONS,
            {"device_id": device_id, "zone_id": zone_id, "kind": kind},
            ("time", "transition_id"),
            (from_us, to_us, cursor, limit),
            mine=self._and_mine("transitions.device_id", "transitions.time"),
        )
        return _page(
            rows,
            limit,
            queries.transition_row,
            lambda row: write_cursor("transitions", row.time_us, row.transition_id),
        )

    async def violations(
        self,
        *,
        device_id: str | None = None,
        rule_id: str | None = None,
        zone_id: str | None = None,
        severity: str | None = None,
        state: str | None = None,
        from_us: int | None = None,
        to_us: int | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[ViolationRow]:
        """Current revisions, newest opening first. state: open, closed, withdrawn, held_back."""
        rows = await self._newest_first(
            "violations",
            queries.VIOLATIONS,
            {
                "h.device_id": device_id,
                "h.rule_id": rule_id,
                "h.zone_id": zone_id,
                "h.severity": severity,
                "h.state": state,
            },
            ("h.opened_time", "h.violation_id"),
            (from_us, to_us, cursor, limit),
            mine=self._and_mine("h.device_id", "h.opened_time"),
        )
        return _page(
            rows,
            limit,
            queries.violation_row,
            lambda row: write_cursor("violations", row.opened_us, row.violation_id),
        )

    # --- alerts ---------------------------------------------------------------------------------

    async def alerts(
        self,
        *,
        device_id: str | None = None,
        rule_id: str | None = None,
        zone_id: str | None = None,
        severity: str | None = None,
        states: Sequence[str] = (),
        assigned_to: str | None = None,
        from_us: int | None = None,
        to_us: int | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[AlertRow]:
        """Newest opening first. states: any of these; empty: all."""
        rows = await self._newest_first(
            "alerts",
            queries.ALERTS,
            {
                "a.device_id": device_id,
                "a.rule_id": rule_id,
                "a.zone_id": zone_id,
                "a.severity": severity,
                "a.assigned_to": assigned_to,
                "a.state": list(states) or None,
            },
            ("a.opened_time", "a.alert_id"),
            (from_us, to_us, cursor, limit),
            mine=self._and_mine("a.device_id", "a.opened_time"),
        )
        return _page(
            rows, limit, queries.alert_row, lambda row: write_cursor("alerts", row.opened_us, row.alert_id)
        )

    async def alert(self, alert_id: int) -> AlertRow | None:
        """One alert."""
        rows = await self._rows(
            "looking an alert up",
            queries.ALERTS.format(
                where="a.alert_id = %(alert_id)s" + self._and_mine("a.device_id", "a.opened_time")
            ),
            {"alert_id": alert_id, "limit": 1},
        )
        return queries.alert_row(rows[0]) if rows else None

    async def alert_log(self, alert_id: int) -> Sequence[LogRow]:
        """Its history, oldest first."""
        rows = await self._rows(
            "reading an alert's log",
            "SELECT recorded_time, change, who, note, outcome FROM alert_log"
            " WHERE alert_id = %(alert_id)s ORDER BY log_id",
            {"alert_id": alert_id},
        )
        return [LogRow(*row) for row in rows]

    # --- messages ---------------------------------------------------------------------------

    async def outbox_since(self, after_id: int, limit: int) -> Sequence[EventRow]:
        """Rows of the outbox with a greater id, by id. Ids grow in the order of commits: none is skipped."""
        rows = await self._rows(
            "reading the outbox",
            _OUTBOX.format(mine="" if CASELOAD.get() is None else _OF_OWN_ALERT),
            {"after": after_id, "limit": limit},
        )
        return [EventRow(*row) for row in rows]

    async def newest_outbox_id(self) -> int:
        """The greatest id that ``outbox_since`` could have given; 0: none yet."""
        rows = await self._rows("reading the outbox", "SELECT coalesce(max(id), 0) FROM outbox")
        return int(rows[0][0])

    async def outbox_wakes(self) -> AsyncIterator[int]:
        """The newest id of the outbox, each time that something was committed to it. Holds one connection.

        The first comes at once, so that nothing is missed between a look and the first wake.
        """
        async with self._pool.use("listening to the outbox") as connection:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(OUTBOX_CHANNEL)))
            try:
                yield await self.newest_outbox_id()
                async for notice in connection.notifies():
                    yield int(notice.payload)
            finally:
                if not connection.closed:
                    await connection.execute("UNLISTEN *")

    # --- how it asks ----------------------------------------------------------------------------

    def _and_mine(self, device: str, time: str | None = None) -> str:
        """What a condition adds for a caseload. device, time: columns with their table's name."""
        return and_of_caseload(device, time)

    def _devices(self, which: str) -> str:
        by_name = "" if CASELOAD.get() is None else " AND " + device_of_caseload("device_id")
        return queries.DEVICES.format(
            which=which + by_name,
            newest=self._and_mine("d.device_id", "d.fix_time"),
            opened=self._and_mine("a.device_id", "a.opened_time"),
        )

    def _with_groups(self, values: dict[str, Any] | None) -> dict[str, Any] | None:
        groups = CASELOAD.get()
        return values if groups is None else {**(values or {}), "groups": sorted(groups)}

    async def _rows(self, doing: str, query: str, values: dict[str, Any] | None = None) -> list[Any]:
        async with self._pool.use(doing) as connection:
            cursor = await connection.execute(query, self._with_groups(values), binary=True)
            return await cursor.fetchall()

    async def _stream(self, doing: str, query: str, values: dict[str, Any]) -> AsyncIterator[list[Any]]:
        """The rows in chunks, through a cursor of the server: neither side holds them all."""
        async with (
            self._pool.use(doing) as connection,
            connection.transaction(),
            connection.cursor("stream") as cursor,
        ):
            await cursor.execute(query, self._with_groups(values), binary=True)
            while rows := await cursor.fetchmany(CHUNK_ROWS):
                yield rows

    async def _newest_first(
        self,
        name: str,
        query: str,
        equal: dict[str, Any],
        key: tuple[str, str],
        window: tuple[int | None, int | None, str | None, int],
        *,
        mine: str,
    ) -> list[Any]:
        """One page and a row more.

        equal  : column and the value it must have (a list: one of these; None: any)
        key    : the columns of the order: a time, and an id that tells equal times apart
        window : from_us, to_us, cursor, limit
        mine   : what a caseload adds, see _and_mine
        """
        from_us, to_us, cursor, limit = window
        conditions = ["true"]
        values: dict[str, Any] = {"limit": limit + 1}
        for number, (column, value) in enumerate(equal.items()):
            if value is not None:
                conditions.append(f"{column} = {'ANY' if isinstance(value, list) else ''}(%(equal{number})s)")
                values[f"equal{number}"] = value
        for operator, bound_name, time_us in ((">=", "from", from_us), ("<", "to", to_us)):
            if time_us is not None:
                conditions.append(f"{key[0]} {operator} %({bound_name})s")
                values[bound_name] = bound(time_us)
        if cursor:
            after_us, values["after_id"] = read_cursor(cursor, name, int, int)
            values["after"] = bound(after_us)
            # the first condition alone lets the planner skip days
            conditions.append(f"{key[0]} <= %(after)s AND ({key[0]}, {key[1]}) < (%(after)s, %(after_id)s)")
        return await self._rows(
            f"listing {name}", query.format(where=" AND ".join(conditions) + mine), values
        )


# By the alert's opening, as alerts are listed: a later step of it is about who wore the device then.
_OF_OWN_ALERT: Final = (
    f" AND EXISTS (SELECT FROM alerts a WHERE a.alert_id = outbox.alert_id"
    f" AND {of_caseload('a.device_id', 'a.opened_time')})"
)
_OUTBOX: Final = """
SELECT id, payload, created_time FROM outbox WHERE id > %(after)s AND alert_id <> 0{mine}
ORDER BY id LIMIT %(limit)s
"""


def _page(
    rows: list[Any], limit: int, make: Callable[[Any], Item], cursor_of: Callable[[Item], str]
) -> Page[Item]:
    items = [make(row) for row in rows[:limit]]
    return Page(items, cursor_of(items[-1]) if len(rows) > limit else None)
