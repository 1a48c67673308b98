"""The way of a ping: one list of steps, run for every batch of messages.

A step is a function of the share (the long-lived state) and the work (one batch on its way); it fills in
what the next one needs. Nothing is acknowledged before the commit has happened, and what was decided for a
batch is decided once: when the database goes away, the same decided batch is committed later.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from geofence import TRANSITION_KINDS, VIOLATION_CHANGES, Decided, Pings
from telemetry.alerts.events import alert_event
from telemetry.channels.owntracks import transition_messages
from telemetry.columns import MARK_LATE, Admitted, AlertChange, Batch, Messages, Outgoing, Tick
from telemetry.formats import decode as decode_payloads
from telemetry.metrics import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from geofence import Devices
    from telemetry.columns import Decoded
    from telemetry.judging import RulesVersion
    from telemetry.share import Share

__all__ = ["STEPS", "Work", "nothing_admitted", "run"]


@dataclass(slots=True)
class Work:
    """One batch on its way.

    messages  : what was received; None when only time has passed
    tick      : how far time has come, to be told to the engine after the pings; None: not now
    new_rules : rules to adopt before the pings; then rules_before is the version that they follow
    """

    messages: Messages | None
    tick: Tick | None = None
    new_rules: RulesVersion | None = None
    rules_before: int | None = None
    decoded: Decoded | None = None
    admitted: Admitted | None = None
    decided: list[Decided] = field(default_factory=list)
    alerts: list[AlertChange] = field(default_factory=list)
    outgoing: list[Outgoing] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        """Nothing came and nothing was decided: there is nothing to store."""
        return self.messages is None and self.new_rules is None and not any(map(len, self.decided))


def decode(share: Share, work: Work) -> None:
    """Payloads to columns; what can't be read becomes a reject."""
    if work.messages is not None:
        work.decoded = decode_payloads(work.messages, share.devices, share.ruleset.key)


def admit(share: Share, work: Work) -> None:
    """Drop copies, mark doubts, refuse impossible times."""
    if work.decoded is None:
        work.admitted = nothing_admitted(share.devices)
        return
    work.admitted = share.admission.admit(
        work.decoded, share.ruleset.enrolled if share.ruleset.roster is not None else None
    )


def check(share: Share, work: Work) -> None:
    """Ask the engine; mark the pings that came too late to be judged in order."""
    assert work.admitted is not None
    work.rules_before = None if work.new_rules is None else share.rules_version
    work.decided, late = share.judge(share.last_batch + 1, work.admitted, work.tick, work.new_rules)
    if late.any():
        work.admitted = replace(
            work.admitted, marks=work.admitted.marks | np.where(late, MARK_LATE, 0).astype(np.uint16)
        )


def raise_alerts(share: Share, work: Work) -> None:
    """Say what operators must learn."""
    now_us = share.now_us()
    for decided in work.decided:
        if share.tells_transitions:
            assert work.admitted is not None
            work.outgoing += transition_messages(decided, work.admitted.pings, share.engine.effective_us)
        for change, row in share.tracker.follow(decided):
            work.alerts.append(change)
            work.outgoing.append(
                alert_event(
                    share.mqtt_root,
                    share.number,
                    change,
                    row,
                    emitted_us=now_us,
                    rules_version=decided.version or share.rules_version,
                )
            )


def commit(share: Share, work: Work) -> None:
    """Write it all in one transaction; wait for the database as long as it takes."""
    if work.is_idle:
        share.let_pass(work.tick)
        return
    assert work.admitted is not None
    share.commit(
        Batch(
            share=share.number,
            epoch=share.epoch,
            number=share.last_batch + 1,
            rules_version=share.rules_version,
            admitted=work.admitted,
            decided=work.decided,
            tick=work.tick,
            alerts=work.alerts,
            outgoing=work.outgoing,
            rules_before=work.rules_before,
        )
    )


def acknowledge(_share: Share, work: Work) -> None:
    """Tell the broker that it may forget these messages."""
    if work.messages is not None:
        work.messages.acknowledge()


def notify(share: Share, work: Work) -> None:
    """Wake the notifier; it reads the outbox."""
    if work.outgoing:
        share.wake_notifier()


def count(share: Share, work: Work) -> None:
    """Keep the metrics."""
    metrics, admitted = share.metrics, work.admitted
    assert admitted is not None
    if work.messages is not None:
        metrics.messages.inc(len(work.messages))
        metrics.latency_s.observe((share.now_us() - int(work.messages.received_time_us[0])) / 1e6)
    if work.decoded is not None:
        metrics.results.inc(len(work.decoded.results))
    metrics.pings.inc(len(admitted.pings))
    metrics.duplicates.inc(admitted.duplicates)
    metrics.late.inc(int(np.count_nonzero(admitted.marks & MARK_LATE)))
    for reject in admitted.rejects:
        metrics.rejects.labels(reason=reject.reason).inc()
    for decided in work.decided:
        for kind in decided.transitions["kind"]:
            metrics.transitions.labels(kind=TRANSITION_KINDS[kind]).inc()
        for change in decided.violations["change"]:
            metrics.violations.labels(change=VIOLATION_CHANGES[change]).inc()
    metrics.open_alerts.set(len(share.tracker))
    metrics.devices.set(len(share.devices))


STEPS: Final[tuple[Callable[[Share, Work], None], ...]] = (
    decode,
    admit,
    check,
    raise_alerts,
    commit,
    acknowledge,
    notify,
    count,
)


def run(share: Share, work: Work) -> None:
    """Take one batch through all steps."""
    for step in STEPS:
        with Stopwatch(share.metrics.step_s.labels(step=step.__name__)):
            step(share, work)


def nothing_admitted(devices: Devices) -> Admitted:
    """What a batch without messages admits."""
    return Admitted(
        pings=Pings.empty(devices),
        marks=np.zeros(0, np.uint16),
        judged=np.zeros(0, np.bool_),
        duplicates=0,
        rejects=[],
        check_ins=[],
        statuses=[],
    )
