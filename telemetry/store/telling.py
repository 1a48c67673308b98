"""How a step of an alert that is not the engine's gets into the outbox.

Written once for a blocking and an async connection alike: a generator yields statements and is sent rows, and
whoever drives it does the waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from geofence import to_rfc3339
from telemetry.alerts.events import EVENT_TYPE, AlertData, AlertEvent, Escalation
from telemetry.store.rows import OUTBOX_CHANNEL, OUTBOX_LOCK, moment, time_us_of

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from datetime import datetime

__all__ = ["FIND_ALERT", "LIVE", "LOG_STEP", "AlertNow", "Statement", "Steps", "tell"]

LIVE: Final = ("open", "acknowledged")  # states of an alert that somebody still has to deal with

Statement = tuple[str, dict[str, Any]]

if TYPE_CHECKING:
    Steps = Generator[Statement, Any, None]
else:
    Steps = object

FIND_ALERT: Final = """
SELECT alert_id, violation_id, opened_time, rules_version, device_id, rule_id, zone_id, severity, state,
       outcome, sentence, assigned_to, topic, suppression_id, told
FROM alerts WHERE alert_id = %(alert_id)s FOR UPDATE
"""


# The one statement by which a step of an alert gets into its log.
LOG_STEP: Final = """
INSERT INTO alert_log (alert_id, violation_id, time, recorded_time, change, who, outcome, sentence, note)
VALUES (%(alert_id)s, %(violation_id)s, %(time)s, %(now)s, %(change)s, %(who)s, %(outcome)s, %(sentence)s,
        %(note)s)
RETURNING log_id
"""


@dataclass(frozen=True, slots=True)
class AlertNow:
    """A row of FIND_ALERT: an alert while its row is locked."""

    alert_id: int
    violation_id: int
    opened_time: datetime
    rules_version: int
    device_id: str
    rule_id: str
    zone_id: str | None
    severity: Any
    state: Any
    outcome: Any
    sentence: str
    assigned_to: str | None
    topic: str
    suppression_id: int | None
    told: bool


def tell(
    alert: AlertNow,
    change: str,
    *,
    event_id: str,
    source: str,
    now_us: int,
    who: str | None = None,
    note: str | None = None,
    escalation: Escalation | None = None,
    contact: Mapping[str, Any] | None = None,
) -> Steps:
    """Statements that write one message about an alert; let them be the last of their transaction.

    alert   : as it is after the step
    contact : whom the message is meant for by name: ``contact``, and addresses by channel

    A quiet alert's message is written for the record and for live streams, and delivered nowhere; but the end
    of an alert that has been told is always told.
    """
    ended = alert.state not in LIVE
    quiet = alert.suppression_id is not None and not (ended and alert.told)
    event = AlertEvent(
        id=event_id,
        source=source,
        type=f"{EVENT_TYPE}.{change}",
        subject=alert.device_id,
        time=to_rfc3339(now_us),
        data=AlertData(
            alert_id=str(alert.alert_id),
            violation_id=str(alert.violation_id),
            device_id=alert.device_id,
            rule_id=alert.rule_id,
            rules_version=alert.rules_version,
            zone_id=alert.zone_id,
            severity=alert.severity,
            state=alert.state,
            outcome=alert.outcome,
            assigned_to=alert.assigned_to,
            opened_at=to_rfc3339(time_us_of(alert.opened_time)),
            who=who,
            note=note,
            sentence=alert.sentence,
            escalation=escalation or UNSET,
        ),
    )
    if not quiet and not alert.told:
        yield "UPDATE alerts SET told = true WHERE alert_id = %(alert_id)s", {"alert_id": alert.alert_id}
    yield "SELECT pg_advisory_xact_lock(%(key)s, 0)", {"key": OUTBOX_LOCK}
    yield (
        _SEND,
        {
            "alert_id": alert.alert_id,
            "device_id": alert.device_id,
            "topic": alert.topic,
            "suppression_id": alert.suppression_id if quiet else None,
            "nowhere": quiet or not alert.topic,
            "retain": not ended,
            "clears": alert.topic if ended and not quiet and alert.topic else None,
            "contact": None if contact is None else msgspec.json.encode(contact).decode(),
            "payload": msgspec.json.encode(event),
            "now": moment(now_us),
            "channel": OUTBOX_CHANNEL,
        },
    )


# An alert that was never published has no topic; its messages are not for the broker.
_SEND: Final = """
INSERT INTO outbox (alert_id, created_time, sent_time, suppression_id, retain, device_id, topic, clears,
                    contact, payload)
VALUES (%(alert_id)s, %(now)s, CASE WHEN %(nowhere)s THEN %(now)s::timestamptz END, %(suppression_id)s,
        %(retain)s, %(device_id)s, %(topic)s, %(clears)s, %(contact)s, %(payload)s)
RETURNING pg_notify(%(channel)s, id::text)
"""
