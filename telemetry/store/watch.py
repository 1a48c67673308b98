"""What time does to alerts: the steps of their escalation, and the end of their suppression."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from telemetry.alerts.events import Escalation
from telemetry.store.rows import moment, time_us_of
from telemetry.store.telling import FIND_ALERT, LIVE, LOG_STEP, AlertNow, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import Connection

    from geofence.escalation import EscalationPolicy
    from telemetry.store.telling import Steps

__all__ = ["act_on_time", "drive", "next_deadline_us"]

SOURCE: Final = "/ringfence/escalation"
MOST_AT_ONCE: Final = 200  # then the caller gets its turn, and a stop is heard


def drive(connection: Connection[Any], steps: Steps) -> None:
    """Run the statements of a generator in one transaction."""
    with connection.transaction():
        row = None
        with suppress(StopIteration):
            while True:
                cursor = connection.execute(*steps.send(row))
                row = cursor.fetchone() if cursor.description else None


def act_on_time(
    connection: Connection[Any], now_us: int, policy: Callable[[], EscalationPolicy]
) -> tuple[int, bool]:
    """Do what is due: how many alerts were looked at, and whether more may be.

    Every alert is a transaction of its own: whatever ends this program, a step has happened once or not yet.
    """
    now = moment(now_us)
    rows = connection.execute(
        "SELECT suppression_id FROM suppressions WHERE released_time IS NULL"
        " AND (lifted_time IS NOT NULL OR until_time <= %s) ORDER BY suppression_id",
        (now,),
    ).fetchall()
    for (suppression_id,) in rows:
        _release(connection, suppression_id, now_us)
    due = connection.execute(
        "SELECT alert_id FROM escalations WHERE due_time <= %s ORDER BY due_time, alert_id LIMIT %s",
        (now, MOST_AT_ONCE),
    ).fetchall()
    for (alert_id,) in due:
        drive(connection, _escalate(alert_id, now_us, policy()))
    return len(rows) + len(due), len(due) == MOST_AT_ONCE


def next_deadline_us(connection: Connection[Any]) -> int | None:
    """When ``act_on_time`` has something to do next; None: never, as things stand."""
    row = connection.execute(
        "SELECT least((SELECT min(due_time) FROM escalations),"
        " (SELECT min(until_time) FROM suppressions WHERE released_time IS NULL))"
    ).fetchone()
    return None if row is None or row[0] is None else time_us_of(row[0])


def _escalate(alert_id: int, now_us: int, policy: EscalationPolicy) -> Steps:
    """All steps of one alert that are due, in order; then when to look again."""
    row = yield FIND_ALERT, {"alert_id": alert_id}
    place = yield (
        _PLACE,
        {"alert_id": alert_id, "now": moment(now_us)},
    )
    if place is None:  # another engine did it, or somebody has taken the alert up
        return
    alert = AlertNow(*row)
    if alert.state != "open" or alert.suppression_id is not None:
        yield "DELETE FROM escalations WHERE alert_id = %(alert_id)s", {"alert_id": alert_id}
        return
    since_us, done = time_us_of(place[0]), place[1]
    steps = policy.steps_for(alert.rule_id, alert.severity)
    messages: list[tuple[int, Escalation, dict[str, Any]]] = []
    while done < len(steps) and since_us + steps[done].after_us <= now_us:
        contact = policy.contacts[steps[done].contact]
        done += 1
        (log_id,) = yield (
            LOG_STEP,
            {
                "alert_id": alert_id,
                "violation_id": alert.violation_id,
                "time": moment(since_us + steps[done - 1].after_us),
                "now": moment(now_us),
                "change": "escalated",
                "who": None,
                "outcome": None,
                "sentence": None,
                "note": f"step {done}: {contact.id}",
            },
        )
        addresses = {"contact": contact.id, "email": contact.email, "webhooks": contact.webhooks}
        messages.append((log_id, Escalation(done, contact.id), addresses))
    due = moment(since_us + steps[done].after_us) if done < len(steps) else None
    yield (
        "UPDATE escalations SET steps_done = %(done)s, due_time = %(due)s WHERE alert_id = %(alert_id)s",
        {"alert_id": alert_id, "done": done, "due": due},
    )
    for log_id, escalation, addresses in messages:
        yield from tell(
            alert,
            "escalated",
            event_id=f"{alert_id}-step-{log_id}",
            source=SOURCE,
            now_us=now_us,
            escalation=escalation,
            contact=addresses,
        )


def _release(connection: Connection[Any], suppression_id: int, now_us: int) -> None:
    """Tell what a suppression that has ended kept quiet, and is still to be dealt with."""
    with connection.transaction():
        alert_ids = connection.execute(
            "SELECT alert_id FROM alerts WHERE suppression_id = %s ORDER BY alert_id", (suppression_id,)
        ).fetchall()
    for (alert_id,) in alert_ids:
        drive(connection, _unsuppress(alert_id, suppression_id, now_us))
    connection.execute(
        "UPDATE suppressions SET released_time = %(now)s WHERE suppression_id = %(id)s"
        " AND NOT EXISTS (SELECT FROM alerts WHERE suppression_id = %(id)s)",
        {"now": moment(now_us), "id": suppression_id},
    )


def _unsuppress(alert_id: int, suppression_id: int, now_us: int) -> Steps:
    row = yield FIND_ALERT, {"alert_id": alert_id}
    alert = AlertNow(*row)
    if alert.suppression_id != suppression_id:
        return
    other = yield _ANOTHER, {"alert_id": alert_id, "now": moment(now_us)}
    alert = replace(alert, suppression_id=None if other is None else other[0])
    yield (
        "UPDATE alerts SET suppression_id = %(suppression_id)s WHERE alert_id = %(alert_id)s",
        {"alert_id": alert_id, "suppression_id": alert.suppression_id},
    )
    if alert.suppression_id is not None or alert.state not in LIVE:
        return
    values = {
        "alert_id": alert_id,
        "violation_id": alert.violation_id,
        "time": moment(now_us),
        "now": moment(now_us),
        "change": "unsuppressed",
        "who": None,
        "outcome": None,
        "sentence": None,
        "note": f"suppression {suppression_id} has ended",
    }
    (log_id,) = yield LOG_STEP, values
    if alert.state == "open":
        yield (
            _BEGIN,
            values,
        )
    yield from tell(
        alert,
        "unsuppressed",
        event_id=f"{alert_id}-step-{log_id}",
        source=SOURCE,
        now_us=now_us,
    )


_PLACE: Final = """
SELECT since_time, steps_done FROM escalations WHERE alert_id = %(alert_id)s AND due_time <= %(now)s
FOR UPDATE
"""
_BEGIN: Final = """
INSERT INTO escalations (alert_id, since_time, due_time, steps_done)
VALUES (%(alert_id)s, %(now)s, %(now)s, 0) ON CONFLICT DO NOTHING
"""
_ANOTHER: Final = """
SELECT s.suppression_id FROM suppressions s JOIN alerts a ON a.alert_id = %(alert_id)s
WHERE s.released_time IS NULL AND s.lifted_time IS NULL AND s.until_time > %(now)s
  AND (s.device_id IS NULL OR s.device_id = a.device_id) AND (s.rule_id IS NULL OR s.rule_id = a.rule_id)
  AND (s.zone_id IS NULL OR s.zone_id = a.zone_id)
ORDER BY s.suppression_id LIMIT 1
"""
