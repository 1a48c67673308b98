"""The plain way in: paho takes every PUBLISH apart, and messages are gathered into columns.

It is the reference that the frame scanner is tested against, and what a session falls back to.
"""

from __future__ import annotations

import select
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import numpy as np

from telemetry.mqtt.inbox import Chunk, Owed, Receipt
from telemetry.mqtt.oversize import MAX_PAYLOAD_BYTES, PREFIX_BYTES, Oversize

if TYPE_CHECKING:
    import ssl

    import paho.mqtt.client as paho
    from numpy.typing import NDArray

    from telemetry.mqtt.topics import Topics

__all__ = ["PlainReceiver", "buffered_bytes"]

PACKETS_PER_TURN: Final = 1024
BYTES_PER_TURN: Final = 1 << 20  # then the inbox is asked whether it has room for more


class PlainReceiver:
    """Receives through paho's ``on_message``. All calls come from the network thread."""

    def __init__(
        self,
        client: paho.Client,
        topics: Topics,
        context: ssl.SSLContext | None,
        _version: int = 0,  # the client knows it
    ) -> None:
        self._client = client
        self._topics = topics
        self._payloads: list[bytes] = []
        self._slots: list[int] = []
        self._times_us: list[int] = []
        self._ids: list[int] = []
        self._again: list[bool] = []
        self._bytes = 0
        self.protocol_error: str | None = None
        client.on_message = self._on_message
        if context is not None:
            client.tls_set_context(context)

    def begin(self) -> None:
        """A new connection is about to be made."""
        self._clear()
        self.protocol_error = None

    def read(self) -> None:
        """Take what the socket has, up to some thousand packets or a mebibyte."""
        for _ in range(PACKETS_PER_TURN):
            try:
                ended = self._client.loop_read()
            except Exception as error:  # noqa: BLE001 - what paho raises for a bad packet is not documented
                self.protocol_error = f"it sent a packet that can't be read ({error})"
                return
            if ended or self._bytes >= BYTES_PER_TURN or not _can_read(self._client.socket()):
                return

    def take(self, link: int, owed: Owed) -> Chunk | None:
        """The messages that arrived since the last call; None: none."""
        if not self._ids:
            return None
        stop = np.cumsum([len(payload) for payload in self._payloads])
        ids = np.array(self._ids, np.uint16)
        keep, serial = owed.receive(ids, np.array(self._again, np.bool_))
        chunk = Chunk(
            buffer=np.frombuffer(b"".join(self._payloads), np.uint8),
            start=np.concatenate([[0], stop[:-1]]),
            stop=stop,
            topic=np.array(self._slots, np.int32),
            received_time_us=np.array(self._times_us, np.int64),
            receipt=Receipt(link, ids, serial),
        )
        self._clear()
        return chunk if keep.all() else chunk.take(keep)

    @property
    def wants_write(self) -> bool:
        """Never: paho keeps what is to be written."""
        return False

    def flush(self) -> None:
        """Nothing to do."""

    def acknowledge(self, ids: NDArray[np.uint16]) -> None:
        """Queue PUBACKs on the connection that stands now."""
        for packet_id in ids.tolist():
            self._client.ack(packet_id, 1)

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        if message.qos == 2:
            self.protocol_error = "it delivered at QoS 2, which no subscription asked for"
            return
        if hasattr(message.properties, "TopicAlias"):
            self.protocol_error = "it used a topic alias, and we announced none"
            return
        try:
            topic: str | bytes = message.topic
        except UnicodeDecodeError as error:
            topic = error.object
        payload, slot = bytes(message.payload), self._topics.slot(topic)
        if len(payload) > MAX_PAYLOAD_BYTES:
            kept = Oversize(len(payload), sha256(payload).digest(), payload[:PREFIX_BYTES])
            payload, slot = kept.pack(), self._topics.oversize_slot(slot)
        self._payloads.append(payload)
        self._bytes += len(payload)
        self._slots.append(slot)
        self._times_us.append(time.time_ns() // 1000)
        self._ids.append(message.mid if message.qos else 0)
        self._again.append(bool(message.dup))

    def _clear(self) -> None:
        for column in (self._payloads, self._slots, self._times_us, self._ids, self._again):
            column.clear()
        self._bytes = 0


def buffered_bytes(sock: paho.SocketLike) -> int:
    """Bytes that TLS has decrypted and a poll of the socket can't see."""
    pending = getattr(sock, "pending", None)
    return 0 if pending is None else pending()


def _can_read(sock: paho.SocketLike | None) -> bool:
    if sock is None:
        return False
    return buffered_bytes(sock) > 0 or bool(select.select([sock], [], [], 0)[0])
