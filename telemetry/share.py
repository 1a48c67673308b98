"""A share: one MQTT session, one engine state, one snapshot, one epoch. The unit that moves between machines.

Its state is a function of what is stored: the snapshot plus the inputs of the batches since. So a start is
load, replay, subscribe; and after an unexpected error the same path brings the state back to the last commit.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from geofence import NO_TIME, Decided, Devices, Engine, Pings, Ruleset, SnapshotError
from telemetry.admission import Admission, AdmissionError
from telemetry.alerts.tracker import AlertTracker
from telemetry.columns import Admitted, Batch, Messages, Reject, Tick
from telemetry.judging import RulesVersion, judge
from telemetry.pipeline import Work, nothing_admitted, run
from telemetry.replaying import replays_asked
from telemetry.rules_watch import RulesSchedule
from telemetry.store import StaleEpoch, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from telemetry.config import Settings
    from telemetry.metrics import Metrics
    from telemetry.mqtt.session import Session
    from telemetry.store import Lease, Replayed, Store

__all__ = ["RulesVersion", "Share", "Stopping"]

log = logging.getLogger(__name__)

T = TypeVar("T")

RECEIVE_WAIT_S: Final = 0.25  # how long an idle share waits for a message before it looks at the clock
DRAIN_S: Final = 5.0  # at a stop, the longest time spent on what has been received already
HISTORY_US: Final = 7 * 86_400 * 1_000_000  # the engine's horizon: older decisions stand
LOOK_S: Final = 2.0  # how long two engines can fight over a session, and an outage stay unseen
MAX_SET_ASIDE: Final = 100  # messages that meet a bug, in one run, before the bug is held to be everywhere
SLOW_S: Final = 5.0  # a database that has not answered for so long is told of, whether it ever will or not
RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # between tries to commit; the last one repeats


class Stopping(Exception):  # noqa: N818 - not an error: it ends a wait
    """The share was asked to stop while the database was away; nothing of the batch was acknowledged."""


class _Snapshot(msgspec.Struct, array_like=True):
    """What a share needs to go on, besides the stored inputs since."""

    rules_version: int
    watermark_us: int
    engine: bytes
    admission: bytes
    tracker: bytes


class Share:
    """One engine at work: ``start`` restores its state, ``run`` loops until ``stop``.

    ``problem`` says why it is not at work, None when it is; ``/readyz`` and the heartbeat show it.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        session: Session,
        metrics: Metrics,
        wake_notifier: Callable[[], None],
    ) -> None:
        self.number = settings.share
        self.mqtt_root, self.formats = settings.mqtt_root, settings.formats
        self.tells_transitions = settings.owntracks_transitions
        self.metrics = metrics
        self.wake_notifier = wake_notifier
        self._problem: str | None = "the share is restoring its state"
        self._asked_s: float | None = None  # when the question began that the database has not answered yet
        self.failure: str | None = None  # why it ended by itself
        self.taken_over = False  # another engine has it now, and speaks for it
        self.watermark_us = NO_TIME
        self._settings = settings
        self._store = store
        self._session = session
        self._stopping = threading.Event()
        self._coming_rules = RulesSchedule()
        self._unstored: Tick | None = None  # the last one, when it brought nothing: known to the engine alone
        self._set_aside_count = 0

    # --- restoring ------------------------------------------------------------------------------

    def start(self, rules: RulesVersion) -> None:
        """Take the share over, restore its state, and have ``rules`` adopted if they are newer.

        Versions in between took effect while nobody was at work; each is adopted for its own stretch.
        """
        self._restore(self._store.take_share(self.number), rules)
        if self.rules_version < rules.version:
            for version, _, _ in self._store.rulesets_after(self.rules_version):
                if version <= rules.version:
                    self.adopt(self._stored_rules(version, rules))

    def _restore(self, lease: Lease, rules: RulesVersion) -> None:
        self.epoch = lease.epoch
        self.last_batch = self._snapshot_batch = lease.snapshot_batch
        self._unstored = None
        later = self._from_snapshot(lease, rules) or self._from_nothing(rules)
        for past in later:
            new_rules = None
            if past.rules_version != self.rules_version:
                new_rules = self._stored_rules(past.rules_version, rules)
            admitted = replace(
                nothing_admitted(self.devices),
                pings=past.pings,
                marks=past.marks,
                judged=past.judged,
                check_ins=past.check_ins,
            )
            self.admission.remember(past.pings, past.marks, past.check_ins)
            for decided in self.judge(past.number, admitted, past.tick, new_rules)[0]:
                self.tracker.follow(decided)
            self.last_batch = past.number
        log.info("share %d restored: batch %d, epoch %d", self.number, self.last_batch, self.epoch)

    def _from_snapshot(self, lease: Lease, rules: RulesVersion) -> Iterator[Replayed] | None:
        """Take up the state of the snapshot; gives the batches since. None: there is none of use."""
        if lease.snapshot is None:
            return None
        try:
            saved = msgspec.msgpack.decode(lease.snapshot, type=_Snapshot)
            self._use(self._stored_rules(saved.rules_version, rules))
            self.engine = Engine.restore(self.ruleset, saved.engine)
            self.devices = self.engine.devices
            self.tracker = AlertTracker.restore(saved.tracker)
            self.admission = Admission(self.devices, self._stored)
            self.admission.restore(saved.admission)
        except (SnapshotError, AdmissionError, msgspec.DecodeError) as error:
            log.warning(
                "the snapshot of batch %d can't be used; every kept batch is decided again: %s",
                lease.snapshot_batch,
                error,
            )
            return None
        self.watermark_us = saved.watermark_us
        return self._store.replay(self.number, lease.snapshot_batch, self.devices)

    def _from_nothing(self, rules: RulesVersion) -> Iterator[Replayed]:
        """Begin with an engine that knows nothing; gives every kept batch."""
        self.devices = Devices()
        later = self._store.replay(self.number, 0, self.devices)
        first = next(later, None)
        self._use(rules if first is None else self._stored_rules(first.rules_version, rules))
        self.engine = Engine(self.ruleset, self.devices, version=self.rules_version)
        self.tracker = AlertTracker()
        self.admission = Admission(self.devices, self._stored)
        return chain([] if first is None else [first], later)

    def _stored_rules(self, version: int, newest: RulesVersion) -> RulesVersion:
        if version == newest.version:
            return newest
        stored = self._store.load_ruleset(version)
        assert stored is not None, f"batches name rules version {version}, which the store lacks"
        return RulesVersion(version, Ruleset.from_document(stored[1]), stored[2])

    def _use(self, rules: RulesVersion) -> None:
        self.rules_version, self.ruleset = rules.version, rules.ruleset

    # --- deciding -------------------------------------------------------------------------------

    def judge(
        self, batch: int, admitted: Admitted, tick: Tick | None, new_rules: RulesVersion | None
    ) -> tuple[list[Decided], NDArray[np.bool_]]:
        """All that the engine says to the inputs of one batch; live and after a restart it is this call.

        Gives the decisions, and for each admitted ping whether it came too late to be judged in order.
        """

        def history(slots: NDArray[np.int32], newest_us: NDArray[np.int64]) -> Pings:
            return self._patiently(partial(self._histories, batch, slots, newest_us))

        decided, late = judge(self.engine, admitted, tick, new_rules, history)
        if new_rules is not None:
            self._use(new_rules)
        if tick is not None:
            self.watermark_us = tick.watermark_us
        return decided, late

    def _histories(self, batch: int, slots: NDArray[np.int32], newest_us: NDArray[np.int64]) -> Pings:
        return self._store.histories(
            self.devices, slots, newest_us - HISTORY_US, newest_us + HISTORY_US, before_batch=batch
        )

    def adopt(self, rules: RulesVersion) -> None:
        """Have the next batch adopt these rules, once their time has come; safe from any thread."""
        self._coming_rules.add(rules)

    # --- looping --------------------------------------------------------------------------------

    def run(self) -> None:
        """Receive, decide, commit, acknowledge until ``stop``; then take what was received, and snapshot."""
        self._problem = None
        next_tick_s = next_snapshot_s = next_look_s = time.monotonic()
        drain_until_s: float | None = None
        try:
            while True:
                messages = self._session.receive(RECEIVE_WAIT_S, self._settings.batch_pings)
                now_s = time.monotonic()
                if self._stopping.is_set():
                    drain_until_s = drain_until_s or now_s + DRAIN_S
                    if messages is None or now_s > drain_until_s:
                        break
                tick = self._tick() if now_s >= next_tick_s else None
                if tick is not None:  # else again in the next turn: under load a caught-up moment is short
                    next_tick_s = now_s + self._settings.tick_s
                new_rules = self._coming_rules.due(self.now_us(), self.rules_version)
                if messages is not None or tick is not None or new_rules is not None:
                    self._take(Work(messages, tick, new_rules))
                if now_s >= next_look_s:
                    next_look_s = now_s + LOOK_S
                    if self._look_at_database():
                        self._take_replays()
                if now_s >= next_snapshot_s:
                    next_snapshot_s = now_s + self._settings.snapshot_s
                    self._save_snapshot()
            self._store_passed_time()
            self._save_snapshot()
        except Stopping:
            log.warning("stopped while the database was away; the broker keeps what was not committed")
        except StoreError as error:
            self.failure = f"this engine stops: {error}"
            self.taken_over = isinstance(error, StaleEpoch)
            log.error(self.failure)  # noqa: TRY400 - the message says it all
        except Exception as error:
            self.failure = f"this engine stops: {error!r}; the log has the traceback"
            log.exception("the share ends")
        finally:
            self._problem = self.failure or "the share has stopped"

    def stop(self) -> None:
        """Ask ``run`` to end; join its thread afterwards."""
        self._stopping.set()

    def abandon(self) -> None:
        """Have ``run`` end without the database, which hangs: the broker keeps what was not committed."""
        self._stopping.set()
        self._store.abandon()

    @property
    def problem(self) -> str | None:
        """Why this share is not at work, as a sentence; None: it is. Any thread may ask."""
        asked_s = self._asked_s
        if asked_s is not None and (waited_s := time.monotonic() - asked_s) > SLOW_S:
            return (
                f"the database is slow or hangs: no answer for {waited_s:.0f} s; nothing is acknowledged "
                "meanwhile. Look at its load, its locks (pg_stat_activity) and its disk"
            )
        return self._problem

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """The time in which the database owes an answer."""
        self._asked_s = time.monotonic()
        try:
            yield
        finally:
            self._asked_s = None

    def commit(self, batch: Batch) -> None:
        """Commit; while the database is away, try again with the same decided batch.

        Raises Stopping when the share is stopped meanwhile.
        """
        self._patiently(lambda: self._store.commit(batch))
        self.last_batch = batch.number
        self._unstored = None

    def let_pass(self, tick: Tick | None) -> None:
        """Take note of time that passed and brought nothing: the next one with these ears makes it void."""
        self._unstored = tick

    def _store_passed_time(self) -> None:
        """Store how far time had come, where what follows depends on it."""
        if self._unstored is not None:
            self._commit_alone(nothing_admitted(self.devices), self._unstored)

    def _look_at_database(self) -> bool:
        """Notice, also while nothing comes in, that the database is away or another has taken this share."""
        try:
            with self._asking():
                self._store.confirm_epoch(self.number, self.epoch)
        except StoreUnavailable as error:
            self._problem = f"the database is away: {error}"
            return False
        self._problem = None
        return True

    def _take_replays(self) -> None:
        """Take in again what operators ask for from the quarantine, like messages of the broker."""
        messages = replays_asked(self)
        if messages is not None:
            self._take(Work(messages))

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask the store, and again while it is away. Raises Stopping when the share is stopped meanwhile."""
        attempt = 0
        while True:
            try:
                with self._asking():
                    answer = ask()
            except StoreUnavailable as error:
                self._problem = f"the database is away: {error}"
                log.warning("waiting for the database: %s", error)
                if self._stopping.wait(RETRY_S[min(attempt, len(RETRY_S) - 1)]):
                    raise Stopping from error
                attempt += 1
            else:
                self._problem = None
                return answer

    def patiently(self, ask: Callable[[Store], T]) -> T:
        """What the store answers, however long it is away. Raises Stopping."""
        return self._patiently(lambda: ask(self._store))

    def _stored(self, pings: Pings) -> NDArray[np.bool_]:
        """Which of these the store has: what admission asks for pings older than its window."""
        return self._patiently(lambda: self._store.contains(pings))

    def now_us(self) -> int:
        """The wall clock, UTC microseconds."""
        return time.time_ns() // 1000

    def _tick(self) -> Tick | None:
        """How far time has come for the engine: now, if the session is up and idle; else no further."""
        now_us, since_us = self.now_us(), self._session.connected_since_us
        if since_us is not None and self._session.idle:
            self.metrics.watermark_lag_s.set(0)
            return Tick(max(now_us, self.watermark_us), since_us)
        if self.watermark_us != NO_TIME:
            self.metrics.watermark_lag_s.set((now_us - self.watermark_us) / 1e6)
        return None

    def _save_snapshot(self) -> None:
        if self.last_batch == self._snapshot_batch:
            return
        blob = msgspec.msgpack.encode(
            _Snapshot(
                self.rules_version,
                self.watermark_us,
                self.engine.snapshot(),
                self.admission.snapshot(),
                self.tracker.snapshot(),
            )
        )
        try:
            with self._asking():
                self._store.save_snapshot(self.number, self.epoch, self.last_batch, blob)
        except StoreUnavailable as error:
            log.warning("no snapshot: %s", error)
        else:
            self._snapshot_batch = self.last_batch

    # --- the unexpected -------------------------------------------------------------------------

    def _take(self, work: Work) -> None:
        """Run the pipeline. What meets a bug is taken apart: rules, messages and time alone, messages by
        halves, until the one bad message is set aside. By then the state may be half moved, so it is first
        brought back to the last commit.
        """
        try:
            if work.messages is not None or work.new_rules is not None or self._was_deaf(work.tick):
                self._store_passed_time()
            run(self, work)
        except (Stopping, StoreError):
            raise
        except Exception:
            self.metrics.failures.inc()
            log.exception("batch %d failed; restoring the state of the last commit", self.last_batch + 1)
            self._restore_after_failure()
            messages = work.messages
            if messages is None:
                if work.new_rules is not None and work.tick is not None:
                    self._take(Work(None, new_rules=work.new_rules))
                    self._take(Work(None, work.tick))
                return
            if work.new_rules is not None:
                self._take(Work(None, new_rules=work.new_rules))
            n = len(messages)
            if n > 1:
                self._take(Work(_part(messages, 0, n // 2)))
                self._take(Work(_part(messages, n // 2, n)))
            elif work.new_rules is None and work.tick is None:
                self._set_aside(messages)
            else:
                self._take(Work(_part(messages, 0, 1)))
            messages.acknowledge()
            if work.tick is not None:
                self._take(Work(None, work.tick))

    def _was_deaf(self, tick: Tick | None) -> bool:
        """Whether between the last tick, which is not stored, and this one the connection was made anew."""
        return (
            tick is not None
            and self._unstored is not None
            and tick.listening_since_us != self._unstored.listening_since_us
        )

    def _restore_after_failure(self) -> None:
        rules = RulesVersion(self.rules_version, self.ruleset, NO_TIME)
        self._patiently(lambda: self._restore(self._store.take_share(self.number), rules))

    def _set_aside(self, messages: Messages) -> None:
        self._set_aside_count += 1
        if self._set_aside_count > MAX_SET_ASIDE:
            raise StoreError(
                f"{MAX_SET_ASIDE} messages met unexpected errors, so this is no matter of single messages; "
                "the rest stays with the broker: report the traceback in the log"
            )
        reject = Reject(
            topic=messages.topics.names[messages.topic[0]],
            reason="internal_error",
            detail="the engine met an unexpected error on this message; its log has the traceback",
            payload=messages.payload(0),
            received_time_us=int(messages.received_time_us[0]),
        )
        self._commit_alone(replace(nothing_admitted(self.devices), rejects=[reject]), None)

    def _commit_alone(self, admitted: Admitted, tick: Tick | None) -> None:
        """A batch in which nothing is decided."""
        self.commit(
            Batch(
                share=self.number,
                epoch=self.epoch,
                number=self.last_batch + 1,
                rules_version=self.rules_version,
                admitted=admitted,
                decided=[],
                tick=tick,
                alerts=[],
                outgoing=[],
            )
        )


def _no_acknowledgement() -> None:
    """A part of a batch: the whole is acknowledged once all parts are committed."""


def _part(messages: Messages, begin: int, end: int) -> Messages:
    columns: dict[str, Any] = {
        name: getattr(messages, name)[begin:end] for name in ("start", "stop", "topic", "received_time_us")
    }
    return replace(messages, acknowledge=_no_acknowledgement, **columns)
