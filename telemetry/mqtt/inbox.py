"""What has been received and not yet taken: chunks of messages as columns, and what is owed for them.

The network thread puts chunks in, the share's thread takes them out as one ``Messages``. Memory is bounded by
bytes: when the inbox is full the network thread stops reading, so the broker's own queue fills instead.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from telemetry._kernels.frames import note_deliveries
from telemetry.columns import Messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from telemetry.mqtt.topics import Topics

__all__ = ["Chunk", "Inbox", "Owed", "Receipt"]

MAX_BYTES: Final = 64 << 20  # of payload waiting; with the batch on its way, memory stays below twice this
MAX_TAKEN_BYTES: Final = 64 << 20
PACKET_IDS: Final = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Receipt:
    """The right to acknowledge some messages, on the connection that brought them and on no other.

    link   : number of that connection
    ids    : uint16 (n,)  packet ids; 0: nothing to acknowledge (QoS 0)
    serial : int64 (n,)   position of the delivery in its connection, from 1
    """

    link: int
    ids: NDArray[np.uint16]
    serial: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Messages that arrived together, with the columns of ``Messages``, and the receipt for them."""

    buffer: NDArray[np.uint8]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    topic: NDArray[np.int32]
    received_time_us: NDArray[np.int64]
    receipt: Receipt

    def __len__(self) -> int:
        return len(self.start)

    @property
    def payload_bytes(self) -> int:
        """The sum of the payloads' lengths."""
        return int((self.stop - self.start).sum())

    def take(self, cut: slice | NDArray[np.bool_]) -> Chunk:
        """Some of the messages, over the same buffer."""
        receipt = Receipt(self.receipt.link, self.receipt.ids[cut], self.receipt.serial[cut])
        return Chunk(
            self.buffer,
            self.start[cut],
            self.stop[cut],
            self.topic[cut],
            self.received_time_us[cut],
            receipt,
        )


class Owed:
    """Which deliveries of one connection the broker still waits for. Used by the network thread alone.

    A packet id that is owed is in use: a delivery under it with the DUP flag is the same message again
    (nats-server sends one after its ack_wait) and is dropped here, so a long stall fills no memory. One
    without the flag is another message, and makes the older receipt void: it can't acknowledge the new one.
    """

    __slots__ = ("_newest", "_serial", "count", "peak")

    def __init__(self) -> None:
        self._newest = np.zeros(PACKET_IDS, np.int64)  # serial of what is owed under an id; 0: nothing
        self._serial = 0
        self.count = 0
        self.peak = 0

    def receive(
        self, ids: NDArray[np.uint16], again: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Note deliveries, in order.

        ids   : uint16 (n,)  packet ids; 0 for QoS 0
        again : bool (n,)    the DUP flags

        Gives which of them to keep, bool (n,), and their serials, int64 (n,).
        """
        first = self._serial + 1
        self._serial += len(ids)
        keep = np.empty(len(ids), np.bool_)
        self.count += note_deliveries(ids, again, self._newest, first, keep)
        self.peak = max(self.peak, self.count)
        return keep, np.arange(first, first + len(ids))

    def settle(self, receipt: Receipt) -> NDArray[np.uint16]:
        """The packet ids to acknowledge now, in the order of arrival; they are owed no more."""
        due: NDArray[np.uint16] = receipt.ids[
            (self._newest[receipt.ids] == receipt.serial) & (receipt.ids != 0)
        ]
        self._newest[due] = 0
        self.count -= len(due)
        return due


class Inbox:
    """A bounded queue of chunks between the network thread and one taker."""

    def __init__(self, topics: Topics, acknowledge: Callable[[list[Receipt]], None]) -> None:
        self._topics = topics
        self._acknowledge = acknowledge
        self._chunks: deque[Chunk] = deque()
        self._arrived = threading.Condition()
        self._messages = 0
        self._bytes = 0
        self._wanted = 1  # messages for which the taker wants to be woken
        self._filled = False  # it was full, and the taker has not been told
        self._closed = False

    def __len__(self) -> int:
        return self._messages

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read for now."""
        return self._bytes >= MAX_BYTES

    def put(self, chunk: Chunk) -> None:
        """Add messages, in order of arrival."""
        with self._arrived:
            self._chunks.append(chunk)
            self._messages += len(chunk)
            self._bytes += chunk.payload_bytes
            self._filled |= self.is_full
            if self._messages >= self._wanted or self.is_full:
                self._arrived.notify()

    def was_full(self) -> bool:
        """Whether it was full since this was last asked: who puts may then wait for room, and be woken."""
        with self._arrived:
            filled, self._filled = self._filled, False
        return filled

    def close(self) -> None:
        """Wake the taker for good; what is in the inbox can still be taken."""
        with self._arrived:
            self._closed = True
            self._arrived.notify()

    def take(
        self, wait_s: float, coalesce_s: float, max_messages: int, enough: int | None = None
    ) -> Messages | None:
        """Up to ``max_messages`` in one; None when none arrives within ``wait_s``.

        After the first it waits ``coalesce_s`` for more, until there are ``enough``: brokers write one
        message at a time.
        """
        enough = max_messages if enough is None else min(enough, max_messages)
        with self._arrived:
            if not self._wait_for(1, wait_s):
                return None
            self._wait_for(enough, coalesce_s)
            chunks = self._pop(max_messages)
        return self._join(chunks) if chunks else None

    def _wait_for(self, messages: int, wait_s: float) -> bool:
        """Wait until so many are here, or no more can come; whether it came to that."""
        self._wanted = messages
        return self._arrived.wait_for(
            lambda: self._messages >= messages or self.is_full or self._closed, wait_s
        )

    def _pop(self, max_messages: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        room, room_bytes = max_messages, MAX_TAKEN_BYTES
        while self._chunks and room > 0 and room_bytes > 0:
            chunk = self._chunks.popleft()
            if len(chunk) > room:
                self._chunks.appendleft(chunk.take(slice(room, None)))
                chunk = chunk.take(slice(room))
            chunks.append(chunk)
            taken = chunk.payload_bytes
            room -= len(chunk)
            room_bytes -= taken
            self._messages -= len(chunk)
            self._bytes -= taken
        return chunks

    def _join(self, chunks: list[Chunk]) -> Messages:
        receipts = [chunk.receipt for chunk in chunks]
        sent = threading.Lock()  # taken once and never given back: a second call does nothing

        def acknowledge() -> None:
            if sent.acquire(blocking=False):
                self._acknowledge(receipts)

        base = np.cumsum([0] + [len(chunk.buffer) for chunk in chunks])
        return Messages(
            topics=self._topics,
            buffer=chunks[0].buffer if len(chunks) == 1 else np.concatenate([c.buffer for c in chunks]),
            start=np.concatenate([c.start + at for c, at in zip(chunks, base, strict=False)]),
            stop=np.concatenate([c.stop + at for c, at in zip(chunks, base, strict=False)]),
            topic=np.concatenate([c.topic for c in chunks]),
            received_time_us=np.concatenate([c.received_time_us for c in chunks]),
            acknowledge=acknowledge,
        )
