"""New versions of the rules on their way to a share: found in the database, kept until their time comes."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from geofence import GeofenceError, Ruleset
from telemetry.judging import RulesVersion
from telemetry.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemetry.store import Store

__all__ = ["RulesSchedule", "RulesWatch"]

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0  # well within the lead that every new version has (telemetry/store/editing.py)


class RulesSchedule:
    """Versions that wait for their time. Any thread may add; one asks what is due."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, RulesVersion] = {}

    def add(self, rules: RulesVersion) -> None:
        """Have this version adopted at its time, or at once where that has passed."""
        with self._lock:
            self._waiting[rules.version] = rules

    def due(self, now_us: int, current: int) -> RulesVersion | None:
        """The next to adopt, after the version ``current``; None: none is due.

        Of several they come in the order of their times, so each rules its own stretch. One that is older
        than what is in force by then was replaced before its time came.
        """
        with self._lock:
            self._waiting = {version: rules for version, rules in self._waiting.items() if version > current}
            due = [rules for rules in self._waiting.values() if rules.effective_us <= now_us]
            if not due:
                return None
            first = min(due, key=lambda rules: (rules.effective_us, rules.version))
            return self._waiting.pop(first.version)


class RulesWatch(threading.Thread):
    """Looks for versions that the API saved and hands them on; it compiles them aside, not while pings wait.

    newest : the newest version that is known already
    """

    def __init__(self, store: Store, newest: int, hand_on: Callable[[RulesVersion], None]) -> None:
        super().__init__(name="rules watch", daemon=True)
        self._store = store
        self._newest = newest
        self._hand_on = hand_on
        self._stopping = threading.Event()

    def run(self) -> None:
        """Look until stopped; a database that is away is asked again."""
        while not self._stopping.wait(LOOK_S):
            try:
                self.look()
            except StoreError as error:
                log.warning("can't look for new rules: %s", error)

    def look(self) -> None:
        """Hand on what is new. A version that can't be read is told of and left out."""
        for version, document, effective_us in self._store.rulesets_after(self._newest):
            self._newest = version
            try:
                ruleset = Ruleset.from_document(document)
            except GeofenceError:
                log.exception("rules version %d can't be used; those before stay in force", version)
                continue
            log.info("version %d of the rules is known", version)
            self._hand_on(RulesVersion(version, ruleset, effective_us))

    def stop(self, timeout_s: float) -> None:
        """End."""
        self._stopping.set()
        self.join(timeout_s)
