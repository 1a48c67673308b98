"""What the engine says of alerts, and the messages about it, as part of a batch's transaction.

Here it is settled which messages go out: a message about an alert that is kept quiet is written for the
record alone, and one about an alert that has ended leaves nothing retained at the broker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from telemetry.store.rows import OUTBOX_CHANNEL, OUTBOX_LOCK, copy_rows, moment
from telemetry.store.telling import LIVE, LOG_STEP

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Cursor

    from telemetry.columns import AlertChange, Batch

__all__ = ["write_alerts"]


@dataclass(frozen=True, slots=True)
class _Suppression:
    """One that holds now; None fits everything."""

    suppression_id: int
    device_id: str | None
    rule_id: str | None
    zone_id: str | None
    reason: str

    def fits(self, step: AlertChange) -> bool:
        return (
            self.device_id in {None, step.device_id}
            and self.rule_id in {None, step.rule_id}
            and self.zone_id in {None, step.zone_id}
        )


@dataclass(slots=True)
class _Alert:
    """An alert as it was before the batch, and as it has become since."""

    state: str
    topic: str = ""
    suppression_id: int | None = None
    told: bool = False
    cleared_topic: str | None = None  # where it was retained before its severity changed


def write_alerts(cursor: Cursor[Any], batch: Batch, now: datetime) -> None:
    """Apply the batch's steps to ``alerts``, in order, log each, and write the messages. Call it last."""
    if batch.alerts:
        alerts = _apply(cursor, batch, now)
        _mind_escalation(cursor, alerts, now)
    else:
        alerts = {}
    if batch.outgoing:
        _write_outgoing(cursor, batch, alerts, now)


def _apply(cursor: Cursor[Any], batch: Batch, now: datetime) -> dict[int, _Alert]:
    topics = {message.alert_id: message.topic for message in batch.outgoing}
    alerts = _before(cursor, {step.alert_id for step in batch.alerts})
    suppressions = _in_force(cursor, now)
    steps, logged = [], []
    for step in batch.alerts:
        alert = alerts.setdefault(step.alert_id, _Alert("new"))
        values = {
            "alert_id": step.alert_id,
            "change": step.change,
            "violation_id": step.violation_id,
            "device_id": step.device_id,
            "rule_id": step.rule_id,
            "zone_id": step.zone_id,
            "severity": step.severity,
            "time": moment(step.time_us),
            "now": now,
            "sentence": step.sentence,
            "who": None,
            "outcome": None,
            "note": None,
            "rules_version": step.rules_version or batch.rules_version,
        }
        logged.append(values)
        suppression = next((s for s in suppressions if s.fits(step)), None)
        if suppression is not None and alert.suppression_id is None:
            alert.suppression_id = suppression.suppression_id
            note = f"suppression {suppression.suppression_id}: {suppression.reason}"
            logged.append(values | {"change": "suppressed", "sentence": None, "note": note})
        alert.state = _state_after(alert.state, step.change)
        alert.told = alert.told or alert.suppression_id is None
        topic = topics.get(step.alert_id, "")
        if topic and alert.topic not in {"", topic}:
            alert.cleared_topic = alert.topic
        alert.topic = topic or alert.topic
        steps.append(
            values
            | {
                "topic": alert.topic,
                "state": alert.state,
                "suppression_id": alert.suppression_id,
                "told": alert.told,
            }
        )
    cursor.executemany(_UPSERT, steps)
    cursor.executemany(LOG_STEP, logged)
    return alerts


def _before(cursor: Cursor[Any], alert_ids: set[int]) -> dict[int, _Alert]:
    """Those that exist, locked: an operator's step at the same moment comes before or after the batch's."""
    rows = cursor.execute(
        "SELECT alert_id, state, topic, suppression_id, told FROM alerts WHERE alert_id = ANY(%s)"
        " ORDER BY alert_id FOR UPDATE",
        (list(alert_ids),),
    )
    return {row[0]: _Alert(*row[1:]) for row in rows}


def _in_force(cursor: Cursor[Any], now: datetime) -> list[_Suppression]:
    rows = cursor.execute(
        "SELECT suppression_id, device_id, rule_id, zone_id, reason FROM suppressions"
        " WHERE released_time IS NULL AND lifted_time IS NULL AND until_time > %s ORDER BY suppression_id",
        (now,),
    )
    return [_Suppression(*row) for row in rows]


def _state_after(state: str, change: str) -> str:
    """What an operator resolved stays resolved; what was withdrawn comes back when it is broken again."""
    if state == "resolved":
        return state
    if change == "withdrawn":
        return "withdrawn"
    return "open" if state in {"new", "withdrawn"} else state


def _mind_escalation(cursor: Cursor[Any], alerts: dict[int, _Alert], now: datetime) -> None:
    """Have those that operators must look at escalated, and the others no longer."""
    waiting = [alert_id for alert_id, a in alerts.items() if a.state == "open" and a.suppression_id is None]
    over = [alert_id for alert_id, a in alerts.items() if a.state not in LIVE]
    if waiting:
        cursor.execute(
            "INSERT INTO escalations (alert_id, since_time, due_time, steps_done)"
            " SELECT alert_id, %s, %s, 0 FROM unnest(%s::int8[]) AS alert_id ON CONFLICT DO NOTHING",
            (now, now, waiting),
        )
    if over:
        cursor.execute("DELETE FROM escalations WHERE alert_id = ANY(%s)", (over,))


def _write_outgoing(cursor: Cursor[Any], batch: Batch, alerts: dict[int, _Alert], now: datetime) -> None:
    """COPY messages into the outbox and wake who listens.

    The lock is held to the end of the transaction, so that ids grow in the order of commits: who has read up
    to an id has missed none below it.
    """
    cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", (OUTBOX_LOCK,))
    columns = (
        ("alert_id", "int8"),
        ("created_time", "timestamptz"),
        ("sent_time", "timestamptz"),
        ("suppression_id", "int8"),
        ("retain", "bool"),
        ("device_id", "text"),
        ("topic", "text"),
        ("clears", "text"),
        ("payload", "bytea"),
    )
    newest = {message.alert_id: i for i, message in enumerate(batch.outgoing)}

    def rows() -> Any:
        for i, m in enumerate(batch.outgoing):
            retain, clears, suppression_id = m.retain, None, None
            alert = alerts.get(m.alert_id)
            if alert is not None:
                ended = alert.state not in LIVE
                retain = m.retain and not ended
                if alert.suppression_id is not None and not (ended and alert.told):
                    suppression_id = alert.suppression_id
                elif newest[m.alert_id] == i:
                    clears = m.topic if ended else alert.cleared_topic
            sent_time = None if suppression_id is None else now
            yield m.alert_id, now, sent_time, suppression_id, retain, m.device_id, m.topic, clears, m.payload

    copy_rows(cursor, "outbox", columns, rows())
    cursor.execute("SELECT pg_notify(%s, currval('outbox_ids')::text)", (OUTBOX_CHANNEL,))


_UPSERT: Final = """
INSERT INTO alerts AS a (alert_id, violation_id, opened_time, updated_time, withdrawn_time, rules_version,
                         device_id, rule_id, zone_id, severity, state, sentence, topic, suppression_id, told)
VALUES (%(alert_id)s, %(violation_id)s, %(time)s, %(time)s,
        CASE WHEN %(change)s = 'withdrawn' THEN %(now)s::timestamptz END,
        %(rules_version)s, %(device_id)s, %(rule_id)s, %(zone_id)s, %(severity)s, %(state)s, %(sentence)s,
        %(topic)s, %(suppression_id)s, %(told)s)
ON CONFLICT (alert_id) DO UPDATE SET
    violation_id = EXCLUDED.violation_id, updated_time = greatest(a.updated_time, EXCLUDED.updated_time),
    rules_version = EXCLUDED.rules_version, zone_id = EXCLUDED.zone_id, severity = EXCLUDED.severity,
    sentence = EXCLUDED.sentence, topic = EXCLUDED.topic, state = EXCLUDED.state,
    suppression_id = EXCLUDED.suppression_id, told = EXCLUDED.told,
    withdrawn_time = CASE WHEN a.state = 'resolved' THEN a.withdrawn_time ELSE EXCLUDED.withdrawn_time END
"""
