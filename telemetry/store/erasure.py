"""Erasing what is stored about a participant, in one transaction that is itself logged.

What goes: pings, check-ins, results and texts of commands, sent messages, quarantined messages, and the
words of alerts that are over. With ``decisions`` also violations, transitions and the alerts themselves. What
stays: the chained logs, of whose rows only the personal part is blanked, who looked, and the roster.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from telemetry.access.looks import Look
from telemetry.store.access_rows import LOOK, look_values
from telemetry.store.connect import connect
from telemetry.store.errors import StoreError, translated
from telemetry.store.records import worn_by
from telemetry.store.rows import bound, moment, time_us_of

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["erase"]


def erase(
    url: str, participant: str, before_us: int, *, by: str, reason: str, decisions: bool
) -> dict[str, int]:
    """Erase what is older than ``before_us``; gives how many rows of each table went or were blanked.

    Raises StoreError when nobody of that name is on a roster, or when a restart still needs what is to go.
    """
    connection = connect(url, "ringfence erasure")
    try:
        with translated("erasing"), connection.transaction():
            worn = worn_by(connection, participant)
            if not worn:
                raise StoreError(f"no roster names a participant {participant!r}; check the name")
            _refuse_what_is_needed(connection, before_us)
            row = connection.execute("SELECT nextval('erasure_ids')").fetchone()
            assert row is not None
            connection.execute("SELECT set_config('ringfence.erasure', %s, true)", (str(row[0]),))
            counts: dict[str, int] = {}
            for stretch in worn:
                values = {
                    "device": stretch.device_id,
                    "from": bound(stretch.from_us),
                    "until": bound(min(stretch.until_us, before_us)),
                    "erasure": row[0],
                    "topic": f"/{stretch.device_id}/",
                }
                for table, statement in (*_PERSONAL, *(_DECISIONS if decisions else ())):
                    done = connection.execute(statement, values).rowcount
                    counts[table] = counts.get(table, 0) + done
            told = ", ".join(f"{n} {table}" for table, n in counts.items() if n) or "nothing was there"
            look = Look(
                who=by,
                role="local",
                how="terminal",
                what="erase",
                participant=participant,
                to_us=before_us,
                reason=reason,
                detail=told,
                erasure=row[0],
            )
            # last: its lock holds up whoever looks at a track
            connection.execute(LOOK, look_values(look, time.time_ns() // 1000))
            return counts
    finally:
        connection.close()


def _refuse_what_is_needed(connection: Connection[Any], before_us: int) -> None:
    """A start decides again what came after the last snapshot; that must not go under it."""
    row = connection.execute(_NEEDED).fetchone()
    needed = min(time_us_of(row[0]) if row and row[0] else before_us, time.time_ns() // 1000)
    if before_us > needed:
        raise StoreError(
            f"what is newer than {moment(needed):%Y-%m-%dT%H:%M:%SZ} is still needed by the engine; "
            "erase what is older than that"
        )


_NEEDED: Final = """
SELECT min(b.first_fix_time) FROM batches b LEFT JOIN
    (SELECT share, max(batch) AS batch FROM snapshots GROUP BY share) n USING (share)
WHERE b.number > coalesce(n.batch, 0)
"""
_OVER: Final = """
device_id = %(device)s AND opened_time >= %(from)s AND opened_time < %(until)s
AND state IN ('resolved', 'withdrawn')
"""
_PERSONAL: Final = (
    (
        "pings",
        "DELETE FROM pings WHERE device_id = %(device)s AND fix_time >= %(from)s AND fix_time < %(until)s",
    ),
    (
        "check_ins",
        "DELETE FROM check_ins WHERE device_id = %(device)s AND time >= %(from)s AND time < %(until)s",
    ),
    (
        "command_results",
        "DELETE FROM command_results WHERE device_id = %(device)s AND time >= %(from)s AND time < %(until)s",
    ),
    (
        "commands",
        (
            "UPDATE commands SET payload = '{}' WHERE device_id = %(device)s AND asked_time >= %(from)s"
            " AND asked_time < %(until)s AND sent_time IS NOT NULL AND payload::text <> '{}'"
        ),
    ),
    (
        "positions",
        (
            "UPDATE device_status SET lat_e7 = NULL, lon_e7 = NULL, accuracy_mm = NULL"
            " WHERE device_id = %(device)s AND position_time >= %(from)s AND position_time < %(until)s"
            " AND lat_e7 IS NOT NULL"
        ),
    ),
    (
        "quarantine",
        (
            "DELETE FROM quarantine WHERE strpos(topic, %(topic)s) > 0 AND received_time >= %(from)s"
            " AND received_time < %(until)s"
        ),
    ),
    (
        "outbox",
        (
            "DELETE FROM outbox WHERE device_id = %(device)s AND created_time >= %(from)s"
            " AND created_time < %(until)s AND sent_time IS NOT NULL"
        ),
    ),
    (
        "deliveries",
        (
            "DELETE FROM deliveries WHERE device_id = %(device)s AND created_time >= %(from)s"
            " AND created_time < %(until)s AND state <> 'waiting'"
        ),
    ),
    (
        "alert_log",
        (
            "UPDATE alert_log SET sentence = NULL, note = NULL, salt = NULL, erased_by = %(erasure)s"  # noqa: S608
            f" WHERE erased_by IS NULL AND alert_id IN (SELECT alert_id FROM alerts WHERE {_OVER})"
        ),
    ),
    (
        "alerts",
        f"UPDATE alerts SET sentence = '', note = NULL WHERE {_OVER}",  # noqa: S608
    ),
)
_DECISIONS: Final = (
    (
        "transitions",
        "DELETE FROM transitions WHERE device_id = %(device)s AND time >= %(from)s AND time < %(until)s",
    ),
    (
        "violations",
        (
            "DELETE FROM violations v USING violation_heads h WHERE v.violation_id = h.violation_id"
            " AND h.state <> 'open' AND h.device_id = %(device)s AND h.opened_time >= %(from)s"
            " AND h.opened_time < %(until)s"
        ),
    ),
    (
        "violation_heads",
        (
            "DELETE FROM violation_heads WHERE state <> 'open' AND device_id = %(device)s"
            " AND opened_time >= %(from)s AND opened_time < %(until)s"
        ),
    ),
    ("alerts", f"DELETE FROM alerts WHERE {_OVER}"),  # noqa: S608
)
