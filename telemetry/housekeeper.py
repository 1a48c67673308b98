"""Once an hour, aside: days of tables made ahead of need, days past their retention dropped."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from telemetry.store import StoreError

if TYPE_CHECKING:
    from telemetry.store import Store

__all__ = ["Housekeeper"]

log = logging.getLogger(__name__)

EVERY_S: Final = 3600.0
RETRY_S: Final = 60.0


class Housekeeper(threading.Thread):
    """A thread with its own database connection; an index over a day that has ended can take it minutes."""

    def __init__(self, store: Store) -> None:
        super().__init__(name="housekeeper", daemon=True)
        self._store = store
        self._stopping = threading.Event()

    def run(self) -> None:
        """Keep house until stopped; a database that is away is asked again a minute later."""
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            try:
                dropped = self._store.keep_house()
            except StoreError as error:
                log.warning("housekeeping waits: %s", error)
                wait_s = RETRY_S
            else:
                for table, days in dropped.items():
                    if days:
                        log.info("dropped %d days of %s that were past their retention", days, table)
                wait_s = EVERY_S

    def stop(self, timeout_s: float) -> None:
        """End; what it is doing now is left to itself after ``timeout_s``."""
        self._stopping.set()
        self.join(timeout_s)
