"""What operators do to alerts. The steps are written once, for a blocking and an async connection alike:
a generator yields statements and is sent rows, and whoever drives it does the waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from telemetry.store.errors import AlertConflict, NoSuchAlert, StoreError
from telemetry.store.rows import moment
from telemetry.store.telling import FIND_ALERT, LOG_STEP, AlertNow, tell

if TYPE_CHECKING:
    from telemetry.store.telling import Steps

__all__ = ["ACTIONS", "OUTCOMES", "act"]

OUTCOMES: Final = ("real", "false", "excused", "equipment")


@dataclass(frozen=True, slots=True)
class _Action:
    """From which states it may come, where it leads, and how its step is called."""

    allowed: tuple[str, ...]
    state: str | None  # None: it stays as it is
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
    "assign": _Action(
        ("open", "acknowledged"), None, "assigned", "only one that is still to be dealt with can be assigned"
    ),
    "reopen": _Action(
        ("acknowledged", "resolved", "withdrawn"), "open", "reopened", "it needs nothing: it is open already"
    ),
}


def act(
    alert_id: int,
    action: str,
    *,
    who: str,
    note: str | None,
    outcome: str | None,
    now_us: int,
    assignee: str | None = None,
) -> Steps:
    """Statements for one action, to be run in one transaction: the alert, its log, the outbox.

    assignee : of ``assign``, who deals with it from now on; None: nobody yet
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
    row = yield FIND_ALERT, {"alert_id": alert_id}
    if row is None:
        raise NoSuchAlert(alert_id)
    alert = AlertNow(*row)
    if alert.state not in step.allowed:
        raise AlertConflict(alert_id, step.change, alert.state, step.remedy)
    alert = replace(
        alert,
        state=step.state or alert.state,
        outcome=outcome,
        assigned_to={"acknowledge": who, "assign": assignee, "reopen": None}.get(action, alert.assigned_to),
    )
    values = {
        "alert_id": alert_id,
        "violation_id": alert.violation_id,
        "state": alert.state,
        "assigned_to": alert.assigned_to,
        "change": step.change,
        "outcome": outcome,
        "note": f"to {assignee or 'nobody'}{f': {note}' if note else ''}" if action == "assign" else note,
        "remembered": None if action == "assign" else note,
        "who": who,
        "now": moment(now_us),
        "time": moment(now_us),
        "sentence": None,
    }
    yield _UPDATE, values
    if action == "reopen" and alert.suppression_id is None:
        yield _ESCALATE, values
    elif action in {"acknowledge", "resolve"}:
        yield "DELETE FROM escalations WHERE alert_id = %(alert_id)s", values
    (log_id,) = yield LOG_STEP, values
    yield from tell(
        alert,
        step.change,
        event_id=f"{alert_id}-step-{log_id}",
        source="/ringfence/operators",
        now_us=now_us,
        who=who,
        note=note,
    )


_UPDATE: Final = """
UPDATE alerts SET
    state = %(state)s, outcome = %(outcome)s, note = coalesce(%(remembered)s, note),
    updated_time = greatest(updated_time, %(now)s), assigned_to = %(assigned_to)s,
    acknowledged_time = CASE %(change)s WHEN 'acknowledged' THEN %(now)s::timestamptz
                                        WHEN 'reopened' THEN NULL ELSE acknowledged_time END,
    resolved_time = CASE WHEN %(change)s = 'resolved' THEN %(now)s::timestamptz END
WHERE alert_id = %(alert_id)s
"""
_ESCALATE: Final = """
INSERT INTO escalations (alert_id, since_time, due_time, steps_done)
VALUES (%(alert_id)s, %(now)s, %(now)s, 0)
ON CONFLICT (alert_id) DO UPDATE SET since_time = EXCLUDED.since_time, due_time = EXCLUDED.due_time,
    steps_done = 0
"""
