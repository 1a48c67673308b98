"""The writing side: one connection, one transaction for each batch, everything in it or nothing."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from psycopg import errors as pg

from geofence import Devices
from telemetry.store import commanding, decisions, house, lookups, outbox, rulesets, shares
from telemetry.store.actions import act
from telemetry.store.alert_rows import write_alerts
from telemetry.store.errors import StaleEpoch
from telemetry.store.house import Retention
from telemetry.store.link import Link
from telemetry.store.packing import PING_COLUMNS, PingPacker
from telemetry.store.partitions import DAY_US, TimescaleChunks, days_of
from telemetry.store.quarantine import Quarantine, QuarantineGuard
from telemetry.store.rows import (
    moment,
    write_check_ins,
    write_command_results,
    write_transitions,
    write_violations,
)
from telemetry.store.schema import VERSION, layout_of, migrate
from telemetry.store.status import StatusBoard, write_statuses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from psycopg import Connection

    from geofence import Pings
    from telemetry.columns import Batch
    from telemetry.store.commanding import WaitingCommand
    from telemetry.store.decisions import DeviceDecisions
    from telemetry.store.outbox import OutboxRow
    from telemetry.store.partitions import Layout
    from telemetry.store.shares import Lease, Replayed

__all__ = ["Store"]

_COPY_PINGS: Final = f"COPY pings ({PING_COLUMNS}) FROM STDIN (FORMAT BINARY)"


class Store:
    """One connection to the database, for one thread.

    Every method raises StoreUnavailable when trying again may help; the next call connects again. ``commit``
    can be called again with the same batch after that: it is stored once.
    """

    def __init__(
        self, link: Link, retention: Retention | None = None, now_us: Callable[[], int] | None = None
    ) -> None:
        self._link = link
        self._retention = retention or Retention()
        self._now_us = now_us or (lambda: time.time_ns() // 1000)
        self._layout: Layout | None = None
        self._packer = PingPacker()
        self._board = StatusBoard()
        self._guard = QuarantineGuard(self._retention.quarantine_bytes)
        self.quarantine = Quarantine(link)

    @classmethod
    def open(
        cls, url: str, *, retention: Retention | None = None, now_us: Callable[[], int] | None = None
    ) -> Self:
        """Connect. url: postgresql://…; now_us: the clock, for tests.

        Raises StoreUnavailable when nobody answers, StoreError when the URL, the log-in, the database's name
        or the server's age is wrong; each message says the remedy.
        """
        return cls(Link(url), retention, now_us)

    def abandon(self) -> None:
        """Have every call, also one under way in another thread, raise StoreUnavailable from now on."""
        self._link.abandon()

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    # --- schema ---------------------------------------------------------------------------------

    def migrate(self) -> None:
        """Bring the schema up to date, and have the days around now. Raises SchemaTooNew."""
        with self._link.use("migrating the database") as connection:
            self._layout = migrate(connection, self._link.url)
            house.make_ahead(connection, self._layout, self._now_us())

    @property
    def extension(self) -> str | None:
        """``timescaledb 2.19.3``, with its edition, where tables are hypertables; None: native partitions."""
        with self._link.use("asking for the schema") as connection:
            layout = self._layout_of(connection)
        return layout.name if isinstance(layout, TimescaleChunks) else None

    def _layout_of(self, connection: Connection[Any]) -> Layout:
        if self._layout is None:
            version, layout = layout_of(connection)
            if layout is None or version < VERSION:
                raise pg.UndefinedTable(f"schema version {version}, this program needs {VERSION}")
            self._layout = layout
        return self._layout

    def make_days(self) -> None:
        """Have the days around now in every table, so that any row of these days finds its place."""
        with self._link.use("making the days ahead") as connection:
            house.make_ahead(connection, self._layout_of(connection), self._now_us())

    def keep_house(self, now_us: int | None = None) -> dict[str, int]:
        """Make days ahead, drop those past their retention, index the places of days that are over.

        Gives how many days of each table were dropped. Call it hourly, and not on the connection that
        commits: an index over a large day takes minutes.
        """
        now_us = self._now_us() if now_us is None else now_us
        with self._link.use("keeping house") as connection:
            layout = self._layout_of(connection)
            layout.forget()
            house.make_ahead(connection, layout, now_us)
            dropped = house.clean(connection, layout, self._retention, now_us)
            house.index_places(connection, layout, now_us)
            return dropped

    # --- shares ---------------------------------------------------------------------------------

    def take_share(self, share: int) -> Lease:
        """Become the one who commits for this share; ends the session of who did before."""
        self._board.forget()
        return shares.take(self._link, share)

    def replay(self, share: int, after_batch: int, devices: Devices | None = None) -> Iterator[Replayed]:
        """All inputs of every batch after ``after_batch``, in order.

        devices : the table in which the pings get their slots; left out: one of their own
        """
        devices = Devices() if devices is None else devices
        for past in shares.replayed(self._link, share, after_batch, devices):
            self._board.note(past.pings, past.marks)
            yield past

    def confirm_epoch(self, share: int, epoch: int) -> None:
        """Ask whether this share is still ours. Raises StaleEpoch when another has taken it over."""
        with self._link.use(f"looking after share {share}") as connection:
            row = connection.execute("SELECT epoch FROM shares WHERE share = %s", (share,)).fetchone()
        if row is None or row[0] != epoch:
            raise StaleEpoch(share, epoch, None if row is None else row[0])

    def save_snapshot(self, share: int, epoch: int, batch: int, blob: bytes) -> None:
        """Keep the state after this batch. Raises StaleEpoch."""
        with self._link.use(f"saving the snapshot of batch {batch}") as connection:
            with connection.transaction(), connection.cursor() as cursor:
                shares.write_snapshot(cursor, share, epoch, batch, blob)
                self._board.write(cursor, self._packer, self._now_us(), all_of_it=True)
            self._board.written()

    # --- one batch ------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> None:
        """Write a batch in one transaction, exactly once however often it is called.

        Raises StoreUnavailable (call again with the same batch), StaleEpoch (stop).
        """
        admitted = batch.admitted
        order = self._packer.order(admitted.pings)
        self._board.note(admitted.pings, admitted.marks)
        now_us = self._now_us()
        with self._link.use(f"committing batch {batch.number} of share {batch.share}") as connection:
            layout = self._layout_of(connection)
            self._make_days(connection, layout, batch, now_us)
            try:
                self._write(connection, batch, order, now_us)
            except pg.CheckViolation:  # somebody dropped a day that was there
                layout.forget()
                self._make_days(connection, layout, batch, now_us)
                self._write(connection, batch, order, now_us)

    def _write(
        self, connection: Connection[Any], batch: Batch, order: NDArray[np.int64], now_us: int
    ) -> None:
        admitted, now = batch.admitted, moment(now_us)
        with connection.transaction(), connection.cursor() as cursor:
            if not shares.advance(cursor, batch.share, batch.epoch, batch.number):
                return
            if len(admitted.pings):
                with cursor.copy(_COPY_PINGS) as copy:
                    for piece in self._packer.pieces(
                        admitted.pings, admitted.marks, admitted.judged, batch.share, batch.number, order
                    ):
                        copy.write(piece)
            if any(len(decided.transitions) for decided in batch.decided):
                write_transitions(cursor, batch)
            if any(len(decided.violations) for decided in batch.decided):
                write_violations(cursor, batch, now)
            if admitted.check_ins:
                write_check_ins(cursor, batch, admitted.check_ins)
            if admitted.results:
                write_command_results(cursor, batch, admitted.results)
            if admitted.rejects:
                self._guard.write(cursor, self._layout_of(connection), batch, admitted.rejects)
            if admitted.statuses:
                write_statuses(cursor, admitted.statuses)
            self._board.write(cursor, self._packer, now_us)
            self._write_batch_row(cursor, batch, now_us)
            write_alerts(cursor, batch, now)
        self._board.written()

    @staticmethod
    def _write_batch_row(cursor: Any, batch: Batch, now_us: int) -> None:
        admitted, fix_time_us = batch.admitted, batch.admitted.pings.fix_time_us
        some, tick = len(fix_time_us) > 0, batch.tick
        cursor.execute(
            "INSERT INTO batches (committed_time, number, epoch, rules_version, tick_time, listening_since,"
            " first_fix_time, last_fix_time, first_check_in, pings, check_ins, duplicates, rejects, share)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                moment(now_us),
                batch.number,
                batch.epoch,
                batch.rules_version,
                None if tick is None else moment(tick.watermark_us),
                None if tick is None else moment(tick.listening_since_us),
                moment(fix_time_us.min()) if some else None,
                moment(fix_time_us.max()) if some else None,
                min((moment(c.received_time_us) for c in admitted.check_ins), default=None),
                len(fix_time_us),
                len(admitted.check_ins),
                admitted.duplicates,
                len(admitted.rejects),
                batch.share,
            ),
        )

    @staticmethod
    def _make_days(connection: Connection[Any], layout: Layout, batch: Batch, now_us: int) -> None:
        """Have a place for every row of the batch. Days are made in transactions of their own, before."""
        admitted, today = batch.admitted, now_us // DAY_US
        received = [c.received_time_us for c in admitted.check_ins]
        rejected = [r.received_time_us for r in admitted.rejects]
        results = [r.received_time_us for r in admitted.results]
        for table, days in (
            ("batches", {today}),
            (
                "outbox",
                {today, today + 1},
            ),  # of tomorrow too: an operator's step may come before the next batch
            ("pings", days_of(admitted.pings.fix_time_us)),
            ("transitions", days_of(*(d.transitions["time_us"] for d in batch.decided))),
            ("violations", days_of(*(d.violations["opened_us"] for d in batch.decided))),
            ("check_ins", days_of(np.array(received, np.int64))),
            ("quarantine", days_of(np.array(rejected, np.int64))),
            ("command_results", days_of(np.array(results, np.int64))),
        ):
            layout.ensure(connection, table, days)

    # --- pings ----------------------------------------------------------------------------------

    def contains(self, pings: Pings) -> NDArray[np.bool_]:
        """Which are stored: bool (n,). By boot, seq and fix time; without a seq by fix time and position."""
        with self._link.use(f"looking {len(pings)} pings up") as connection:
            return lookups.contains(connection, pings)

    def history(
        self,
        device_id: str,
        from_us: int,
        to_us: int,
        devices: Devices | None = None,
        *,
        judged_only: bool = False,
        before_batch: int | None = None,
    ) -> Pings:
        """A device's pings with from <= fix time < to, by fix time, boot and seq.

        before_batch : leave out what that batch of its share and later ones brought
        """
        devices = Devices() if devices is None else devices
        with self._link.use("reading a device's history") as connection:
            stored = lookups.between(connection, device_id, from_us, to_us, devices)
        wanted = np.ones(len(stored.pings), np.bool_)
        if judged_only:
            wanted &= stored.judged
        if before_batch is not None:
            wanted &= stored.batch < before_batch
        return stored.pings.take(wanted)

    def histories(
        self,
        devices: Devices,
        slots: NDArray[np.int32],
        from_us: NDArray[np.int64],
        to_us: NDArray[np.int64],
        *,
        before_batch: int,
    ) -> Pings:
        """The judged pings of several devices, each with from <= fix time < to, by device and time.

        slots          : int32 (m,)  devices
        from_us, to_us : int64 (m,)
        before_batch   : leave out what that batch of its share and later ones brought
        """
        with self._link.use(f"reading the history of {len(slots)} devices") as connection:
            stored = lookups.between_each(connection, devices, slots, from_us, to_us)
        return stored.pings.take(stored.judged & (stored.batch < before_batch))

    # --- deciding again -------------------------------------------------------------------------

    def device_inputs(self, share: int, device_id: str, devices: Devices) -> list[Replayed]:
        """The inputs of a share's kept batches, in order; pings and check-ins of one device alone."""
        with self._link.use(f"reading the inputs of device {device_id}") as connection:
            return list(decisions.device_inputs(connection, share, device_id, devices))

    def stored_decisions(self, share: int, device_id: str) -> DeviceDecisions:
        """What was stored about a device."""
        with self._link.use(f"reading the decisions about device {device_id}") as connection:
            return decisions.stored_decisions(connection, share, device_id)

    # --- rules ----------------------------------------------------------------------------------

    def save_ruleset(
        self,
        document: dict[str, Any],
        digest: str,
        effective_us: int,
        *,
        saved_by: str | None = None,
        note: str | None = None,
    ) -> int:
        """The version of these rules: a new one, or the newest where that has the same digest."""
        with self._link.use("saving the rules") as connection:
            return rulesets.save(connection, document, digest, effective_us, saved_by, note)

    def load_ruleset(self, version: int | None = None) -> tuple[int, dict[str, Any], int] | None:
        """(version, document, effective_us) of a version, or of the newest; None: there is none."""
        with self._link.use("loading the rules") as connection:
            return rulesets.load(connection.execute(rulesets.LOAD_SQL, (version,)).fetchone())

    def ruleset_in_force(self) -> tuple[int, dict[str, Any], int] | None:
        """The same of the version that is in force now."""
        with self._link.use("loading the rules") as connection:
            return rulesets.load(
                connection.execute(rulesets.IN_FORCE_SQL, (moment(self._now_us()),)).fetchone()
            )

    def rulesets_after(self, version: int) -> list[tuple[int, dict[str, Any], int]]:
        """The same of every later version, oldest first; their times may be still to come."""
        with self._link.use("looking for new rules") as connection:
            rows = connection.execute(rulesets.AFTER_SQL, (version,)).fetchall()
        return [found for row in rows if (found := rulesets.load(row)) is not None]

    def knows_ruleset(self, digest: str) -> bool:
        """Whether rules with this digest were ever saved."""
        with self._link.use("looking for rules") as connection:
            row = connection.execute("SELECT FROM rules WHERE digest = %s LIMIT 1", (digest,)).fetchone()
        return row is not None

    # --- commands -------------------------------------------------------------------------------

    def waiting_commands(self, limit: int) -> list[WaitingCommand]:
        """The oldest commands to devices that the broker does not have, in order."""
        with self._link.use("reading commands") as connection:
            return commanding.waiting_commands(connection, limit)

    def mark_commands_sent(self, ids: Sequence[int]) -> None:
        """Note that the broker has confirmed these."""
        with self._link.use("marking commands as sent") as connection:
            commanding.mark_commands_sent(connection, ids)

    # --- messages and alerts --------------------------------------------------------------------

    def pending(self, limit: int, after_id: int = 0) -> list[OutboxRow]:
        """The oldest unsent messages with a greater id, in order."""
        with self._link.use("reading the outbox") as connection:
            return outbox.pending(connection, limit, after_id)

    def mark_sent(self, ids: Sequence[int]) -> None:
        """Note that the broker has confirmed these."""
        with self._link.use("marking messages as sent") as connection:
            outbox.mark_sent(connection, ids)

    def record_alert_action(
        self, alert_id: int, action: str, who: str, note: str | None = None, outcome: str | None = None
    ) -> None:
        """An operator's step: acknowledge, resolve (outcome real, false, excused or equipment) or reopen.

        Raises NoSuchAlert, AlertConflict.
        """
        now_us = self._now_us()
        with self._link.use(f"acting on alert {alert_id}") as connection:
            self._layout_of(connection).ensure(connection, "outbox", [now_us // DAY_US])
            with connection.transaction():
                steps = act(alert_id, action, who=who, note=note, outcome=outcome, now_us=now_us)
                row = None
                with contextlib.suppress(StopIteration):
                    while True:
                        cursor = connection.execute(*steps.send(row))
                        row = cursor.fetchone() if cursor.description else None
