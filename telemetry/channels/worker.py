"""A thread that sleeps until there is something to do, does it, and survives an absent database."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from telemetry.store import StoreError

if TYPE_CHECKING:
    from telemetry.store.desk import Desk

__all__ = ["LOOK_S", "Worker"]

log = logging.getLogger(__name__)

LOOK_S: Final = 5.0  # the database says at once that there is news; this is for a lost word
RETRY_S: Final = 1.0  # while the database is away


class Worker(threading.Thread, ABC):
    """Has a desk of its own, so that none waits for another's statement."""

    def __init__(self, name: str, desk: Desk) -> None:
        super().__init__(name=name, daemon=True)
        self._desk = desk
        self._wake = threading.Event()
        self._stopping = threading.Event()

    @abstractmethod
    def turn(self) -> float:
        """Do some of what there is to do; gives the seconds until the next turn, 0: there may be more."""

    def wake(self) -> None:
        """Say that there is news; from any thread."""
        self._wake.set()

    def run(self) -> None:
        """Take turns until stopped; what the store refuses is logged and tried again."""
        in_trouble = False
        while True:
            stopping = self._stopping.is_set()
            self._wake.clear()
            try:
                wait_s = self.turn()
                in_trouble = False
            except StoreError as error:
                wait_s = RETRY_S
                if not in_trouble:
                    log.warning("%s waits for the database: %s", self.name, error)
                in_trouble = True
            except Exception:
                wait_s = RETRY_S
                log.exception("%s met an error that it does not know", self.name)
            if stopping:
                break
            if wait_s > 0:
                self._wake.wait(min(wait_s, LOOK_S))
        self.close()

    def close(self) -> None:
        """Give back what the worker holds; called once, by its own thread, at the end."""
        self._desk.close()

    def ask_to_stop(self) -> None:
        """Have it take one more turn, then end."""
        self._stopping.set()
        self.wake()

    def stop(self, timeout_s: float) -> None:
        """The same, and wait for the end; give up after ``timeout_s``: the rows stay for the next start."""
        self.ask_to_stop()
        if self.ident is None:
            self._desk.close()
        else:
            self.join(timeout_s)
