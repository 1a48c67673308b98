"""What operators do to alerts. The steps are written once, for a blocking and an async connection alike:
a generator yields statements and is sent rows, and whoever drives it does the waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from geofence import to_rfc3339
from telemetry.store.errors import AlertConflict, NoSuchAlert, StoreError
from telemetry.store.rows import OUTBOX_CHANNEL, OUTBOX_LOCK, moment

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import datetime

__all__ = ["ACTIONS", "OUTCOMES", "act"]

OUTCOMES: Final = ("real", "false", "excused", "equipment")

Statement = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Action:
    """From which states it may come, where it leads, and how its step is called."""

    allowed: tuple[str, ...]
    state: str
    change: str
    remedy: str


ACTIONS: Final[dict[str, _Action]] = {
    "acknowledge": _Action(
        ("open",), "acknowledged", "acknowledged", "only an open alert can; reopen it first"
    ),
    "resolve": _Action(
        ("open", "acknowledged", "withdrawn"),
        "resolved",
        "resolved",
        "reopen it first to resolve it otherwise",
    ),
    "reopen": _Action(
        ("acknowledged", "resolved", "withdrawn"), "open", "reopened", "it needs nothing: it is open already"
    ),
}


def act(
    alert_id: int, action: str, *, who: str, note: str | None, outcome: str | None, now_us: int
) -> Generator[Statement, Any, None]:
    """Statements for one action, to be run in one transaction: the alert, its log, the outbox.

    Yields (SQL, parameters); is sent the first row of each, or None.
    Raises NoSuchAlert, AlertConflict, and StoreError for an unknown action or outcome.
    """
    step = ACTIONS.get(action)
    if step is None:
        raise StoreError(f"no action is called {action!r}; there are {', '.join(ACTIONS)}")
    if (outcome is not None) != (action == "resolve") or outcome not in {None, *OUTCOMES}:
        raise StoreError(
            f"outcome {outcome!r} does not go with {action}; resolve needs one of {', '.join(OUTCOMES)}"
        )
    now = moment(now_us)
    row = yield _FIND, {"alert_id": alert_id}
    if row is None:
        raise NoSuchAlert(alert_id)
    state, violation_id, device_id, rule_id, zone_id, severity, sentence, opened_time, topic = row
    if state not in step.allowed:
        raise AlertConflict(alert_id, step.change, state, step.remedy)
    values = {
        "alert_id": alert_id,
        "violation_id": violation_id,
        "device_id": device_id,
        "state": step.state,
        "change": step.change,
        "outcome": outcome,
        "note": note,
        "who": who,
        "now": now,
    }
    yield _UPDATE, values
    (log_id,) = yield _LOG, values
    event = {
        "specversion": "1.0",
        "id": f"{alert_id}-step-{log_id}",
        "source": "/ringfence/operators",
        "type": f"org.ringfence.alert.{step.change}",
        "subject": device_id,
        "time": to_rfc3339(now_us),
        "datacontenttype": "application/json",
        "data": {
            "alert_id": str(alert_id),
            "violation_id": str(violation_id),
            "device_id": device_id,
            "rule_id": rule_id,
            "zone_id": zone_id,
            "severity": severity,
            "state": step.state,
            "outcome": outcome,
            "opened_at": _rfc3339(opened_time),
            "who": who,
            "note": note,
            "sentence": sentence,
        },
    }
    yield "SELECT pg_advisory_xact_lock(%(key)s, 0)", {"key": OUTBOX_LOCK}
    message = {"topic": topic, "payload": msgspec.json.encode(event), "channel": OUTBOX_CHANNEL}
    yield _SEND, values | message


_FIND: Final = """
SELECT state, violation_id, device_id, rule_id, zone_id, severity, sentence, opened_time, topic
FROM alerts WHERE alert_id = %(alert_id)s FOR UPDATE
"""
_LOG: Final = """
INSERT INTO alert_log (alert_id, violation_id, time, recorded_time, change, who, outcome, note)
VALUES (%(alert_id)s, %(violation_id)s, %(now)s, %(now)s, %(change)s, %(who)s, %(outcome)s, %(note)s)
RETURNING log_id
"""
# An alert that was never published has no topic; its message is for readers of the outbox alone.
_SEND: Final = """
INSERT INTO outbox (alert_id, created_time, sent_time, retain, device_id, topic, payload)
VALUES (%(alert_id)s, %(now)s, CASE WHEN %(topic)s = '' THEN %(now)s::timestamptz END, true, %(device_id)s,
        %(topic)s, %(payload)s)
RETURNING pg_notify(%(channel)s, id::text)
"""
_UPDATE: Final = """
UPDATE alerts SET
    state = %(state)s, outcome = %(outcome)s, note = coalesce(%(note)s, note),
    updated_time = greatest(updated_time, %(now)s),
    assigned_to = CASE %(change)s WHEN 'acknowledged' THEN %(who)s
                                  WHEN 'reopened' THEN NULL ELSE assigned_to END,
    acknowledged_time = CASE %(change)s WHEN 'acknowledged' THEN %(now)s::timestamptz
                                        WHEN 'reopened' THEN NULL ELSE acknowledged_time END,
    resolved_time = CASE WHEN %(change)s = 'resolved' THEN %(now)s::timestamptz END
WHERE alert_id = %(alert_id)s
"""


def _rfc3339(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")
