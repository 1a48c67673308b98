"""Publishes of ours, on their way from any thread through the network thread to the broker's PUBACK."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol

from paho.mqtt.enums import MQTTErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import paho.mqtt.client as paho

__all__ = ["Outbound", "Publishable"]

log = logging.getLogger(__name__)


class Publishable(Protocol):
    """What ``publish`` needs of a message; ``telemetry.columns.Outgoing`` is one."""

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def payload(self) -> bytes: ...  # noqa: D102
    @property
    def retain(self) -> bool: ...  # noqa: D102


class _Request:
    """One call of ``publish``."""

    __slots__ = ("abandoned", "confirmed", "done", "messages", "open")

    def __init__(self, messages: Sequence[Publishable]) -> None:
        self.messages = messages
        self.confirmed = [False] * len(messages)
        self.open = len(messages)
        self.done = threading.Event()
        self.abandoned = False

    def settle(self, index: int, *, confirmed: bool) -> None:
        self.confirmed[index] = confirmed
        self.open -= 1
        if self.open == 0:
            self.done.set()


class Outbound:
    """Publishes at QoS 1 and tells each caller which of its messages the broker took.

    ``publish`` is for any thread; the rest belongs to the network thread.
    """

    def __init__(self, client: paho.Client, wake: Callable[[], None]) -> None:
        self._client = client
        self._wake = wake
        self._waiting: deque[_Request] = deque()
        self._sent: dict[int, tuple[_Request, int]] = {}  # by packet id
        self._closed = False
        client.on_publish = self._on_publish

    def publish(self, messages: Sequence[Publishable], timeout_s: float) -> list[bool]:
        """Have messages sent in order; which of them had their PUBACK after ``timeout_s`` at the latest."""
        if not messages:
            return []
        request = _Request(list(messages))
        self._waiting.append(request)
        self._wake()
        if not self._closed:
            request.done.wait(timeout_s)
        request.abandoned = True
        return list(request.confirmed)

    def send(self) -> None:
        """Hand what waits to paho; call it while connected."""
        while self._waiting:
            request = self._waiting.popleft()
            if request.abandoned:
                continue
            for index, message in enumerate(request.messages):
                self._send_one(request, index, message)

    def give_up(self) -> None:
        """The connection ended: what has no PUBACK is left to its caller, and paho sends none of it again."""
        self._client.drop_out_messages()
        for request, _ in self._sent.values():
            request.done.set()
        self._sent.clear()
        while self._waiting and self._waiting[0].abandoned:
            self._waiting.popleft()

    def close(self) -> None:
        """Nothing will be sent any more."""
        self._closed = True
        self.give_up()
        while self._waiting:
            self._waiting.popleft().done.set()

    def _send_one(self, request: _Request, index: int, message: Publishable) -> None:
        try:
            info = self._client.publish(message.topic, message.payload, qos=1, retain=message.retain)
        except ValueError:
            log.exception("%r can't be published", message.topic)
            request.settle(index, confirmed=False)
            return
        if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._sent[info.mid] = (request, index)
        else:
            request.settle(index, confirmed=False)

    def _on_publish(
        self, _client: object, _data: object, mid: int, _reason: object, _properties: object
    ) -> None:
        ticket = self._sent.pop(mid, None)
        if ticket is not None:
            request, index = ticket
            request.settle(index, confirmed=True)
