"""Sends what operators ask of devices: at least once, in order, with an id that the device's result names."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from telemetry.mqtt.topics import device_topic
from telemetry.store import StoreError

if TYPE_CHECKING:
    from telemetry.mqtt.session import Session
    from telemetry.store import Store

__all__ = ["Commander"]

log = logging.getLogger(__name__)

POLL_S: Final = 0.5  # somebody waits for the device to answer
MOST: Final = 100
PUBLISH_TIMEOUT_S: Final = 10.0


class _Message(NamedTuple):
    topic: str
    payload: bytes
    retain: bool


class Commander(threading.Thread):
    """A thread with its own database connection that publishes commands and notes the broker's PUBACK.

    Not retained: a device that is away gets it from its session when it comes back, and a new one never.
    """

    def __init__(self, store: Store, session: Session, root: str) -> None:
        super().__init__(name="commander", daemon=True)
        self._store = store
        self._session = session
        self._root = root
        self._stopping = threading.Event()

    def run(self) -> None:
        """Publish until stopped; errors are logged and retried."""
        while not self._stopping.wait(POLL_S):
            try:
                while self.send_some():
                    pass
            except StoreError as error:
                log.warning("commands can't be read: %s", error)

    def send_some(self) -> bool:
        """Publish what waits; say whether more may be waiting."""
        waiting = self._store.waiting_commands(MOST)
        if not waiting:
            return False
        messages = [
            _Message(
                device_topic(self._root, command.device_id, "commands"),
                msgspec.json.encode({"id": str(command.command_id), **command.payload}),
                retain=False,
            )
            for command in waiting
        ]
        sent = self._session.publish(messages, PUBLISH_TIMEOUT_S)
        confirmed = [command.command_id for command, ok in zip(waiting, sent, strict=True) if ok]
        self._store.mark_commands_sent(confirmed)
        return len(confirmed) == len(waiting) == MOST

    def stop(self, timeout_s: float) -> None:
        """End; what was not sent waits for the next start."""
        self._stopping.set()
        self.join(timeout_s)
