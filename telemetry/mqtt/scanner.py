"""The fast way in: PUBLISH frames are found by a kernel, and paho sees only the rest of the stream.

paho asks its TLS context for a socket; ours gives it one that reads large blocks, keeps the PUBLISH frames
and hands on only complete control packets. Acknowledgements are written on the same socket, many in one
block. paho keeps what it is good at: handshake, credentials, keepalive, subscriptions, and publishing.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from telemetry._kernels import frames as kernel
from telemetry.mqtt.inbox import Chunk, Owed, Receipt
from telemetry.mqtt.oversize import MAX_PAYLOAD_BYTES, PREFIX_BYTES, Oversize

if TYPE_CHECKING:
    import paho.mqtt.client as paho
    from numpy.typing import NDArray

    from telemetry.mqtt.topics import Topics

__all__ = ["FrameReader", "FrameSocket", "ScannerReceiver"]

BLOCK_BYTES: Final = 1 << 20
# With the longest topic, packet id and header, and the longest properties of MQTT 5.
MAX_FRAME_BYTES: Final = MAX_PAYLOAD_BYTES + 65_535 + 9 + kernel.MAX_PROPERTIES + 4
MQTT_3_1_1: Final = 4  # as a CONNECT says it
MESSAGES_PER_SCAN: Final = 1 << 15
BYTES_PER_TURN: Final = 4 << 20  # then the inbox is asked whether it has room for more
LAST_WRITE_S: Final = 0.5  # for what is still to be written when the socket is closed

_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Messages of one scan; columns as in Chunk."""

    buffer: NDArray[np.uint8]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    topic: NDArray[np.int32]
    packet_id: NDArray[np.uint16]
    again: NDArray[np.bool_]
    received_time_us: NDArray[np.int64]


class _Skipping:
    """A message that is too large, while its payload goes by."""

    __slots__ = ("again", "left", "length", "packet_id", "prefix", "sha", "topic")

    def __init__(self, topic: int, packet_id: int, again: bool, length: int) -> None:
        self.topic = topic
        self.packet_id = packet_id
        self.again = again
        self.length = self.left = length
        self.sha = sha256()
        self.prefix = b""

    def see(self, data: bytes) -> None:
        """Take note of the next bytes."""
        self.left -= len(data)
        self.sha.update(data)
        self.prefix += data[: PREFIX_BYTES - len(self.prefix)]

    def packed(self) -> bytes:
        """What stands in for the payload."""
        return Oversize(self.length, self.sha.digest(), self.prefix).pack()


class _TopicTable:
    """Topic bytes to slots of ``Topics``, for the kernel: a hash table over an arena of the topics' bytes."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._numbers: dict[bytes, int] = {}
        self._used = 0
        self.slots = np.zeros(16, np.int32)  # by number
        self.bounds = np.zeros((16, 2), np.int64)
        self.arena = np.zeros(4096, np.uint8)
        self.table = np.full(64, -1, np.int32)

    def number(self, topic: bytes) -> int:
        """The number of a topic, given on first sight."""
        known = self._numbers.get(topic)
        if known is not None:
            return known
        number = len(self._numbers)
        if number == len(self.slots):
            self.slots, self.bounds = _doubled(self.slots), _doubled(self.bounds)
        while self._used + len(topic) > len(self.arena):
            self.arena = _doubled(self.arena)
        self.arena[self._used : self._used + len(topic)] = np.frombuffer(topic, np.uint8)
        self.bounds[number] = self._used, self._used + len(topic)
        self.slots[number] = self._topics.slot(topic)
        self._used += len(topic)
        self._numbers[topic] = number
        new = [number]
        if 2 * len(self._numbers) > len(self.table):
            self.table, new = np.full(2 * len(self.table), -1, np.int32), list(range(number + 1))
        for each in new:
            kernel.insert_topic(each, self.table, self.arena, self.bounds)
        return number


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([array, np.zeros_like(array)])


class FrameReader:
    """Bytes in, messages and control packets out; knows nothing of sockets.

    control        : complete control packets, to be read by paho
    protocol_error : what was wrong with the stream; nothing is read after it
    """

    def __init__(self, topics: Topics, version: int = MQTT_3_1_1) -> None:
        """version: of MQTT, 4 (3.1.1) or 5."""
        self._topics = topics
        self._version = version
        self._table = _TopicTable(topics)
        m = MESSAGES_PER_SCAN
        self._topic_bounds = np.zeros((m, 2), np.int64)
        self._number = np.zeros(m, np.int32)
        self._start, self._stop = np.zeros(m, np.int64), np.zeros(m, np.int64)
        self._packet_id, self._again = np.zeros(m, np.uint16), np.zeros(m, np.bool_)
        self.reset()

    def reset(self) -> None:
        """A new connection begins."""
        self.control = bytearray()
        self.protocol_error: str | None = None
        self.payload_bytes = 0
        self._buffer = np.empty(BLOCK_BYTES, np.uint8)
        self._end = 0  # bytes in the buffer
        self._wanted = 0  # length of the frame that is not complete; 0: not known
        self._pieces: list[_Piece] = []
        self._skipping: _Skipping | None = None

    def room(self) -> memoryview:
        """Where the next bytes go; tell ``received`` how many came."""
        if self._end == len(self._buffer) or self._wanted > len(self._buffer):
            grown = np.empty(min(max(2 * len(self._buffer), self._wanted), MAX_FRAME_BYTES), np.uint8)
            grown[: self._end] = self._buffer[: self._end]
            self._buffer = grown
        return memoryview(self._buffer)[self._end :]  # type: ignore[arg-type]

    def received(self, count: int) -> None:
        """Take in the bytes that were written to ``room``."""
        self._end += count
        now_us = time.time_ns() // 1000
        at = 0
        while self.protocol_error is None:
            if self._skipping is not None:
                at = self._skip(at, now_us)
                if self._skipping is not None:
                    break
            at, again = self._scan(at, now_us)
            if not again:
                break
        if at:
            self._buffer[: self._end - at] = self._buffer[at : self._end].copy()
            self._end -= at

    def take(self, link: int, owed: Owed) -> Chunk | None:
        """The messages that are complete; None: none."""
        pieces, self._pieces = self._pieces, []
        self.payload_bytes = 0
        if not pieces:
            return None
        base = np.cumsum([0] + [len(piece.buffer) for piece in pieces])
        ids = np.concatenate([piece.packet_id for piece in pieces])
        keep, serial = owed.receive(ids, np.concatenate([piece.again for piece in pieces]))
        chunk = Chunk(
            buffer=pieces[0].buffer if len(pieces) == 1 else np.concatenate([p.buffer for p in pieces]),
            start=np.concatenate([p.start + at for p, at in zip(pieces, base, strict=False)]),
            stop=np.concatenate([p.stop + at for p, at in zip(pieces, base, strict=False)]),
            topic=np.concatenate([p.topic for p in pieces]),
            received_time_us=np.concatenate([p.received_time_us for p in pieces]),
            receipt=Receipt(link, ids, serial),
        )
        return chunk if keep.all() else chunk.take(keep)

    def _scan(self, at: int, now_us: int) -> tuple[int, bool]:
        """Take frames from ``at`` on; gives how far it came, and whether there may be more to take."""
        table = self._table
        begin = at
        at, n, why, length = kernel.scan(
            self._buffer,
            at,
            self._end,
            self._version,
            MAX_PAYLOAD_BYTES,
            table.table,
            table.arena,
            table.bounds,
            0,
            self._topic_bounds,
            self._number,
            self._start,
            self._stop,
            self._packet_id,
            self._again,
        )
        self._wanted = 0
        if n:
            self._keep(begin, at, n, now_us)
        if why == kernel.CONTROL:
            self.control += self._buffer[at : at + length].tobytes()
            return at + length, True
        if why == kernel.OVERSIZE:
            return self._start_skipping(at, length), True
        if why == kernel.MALFORMED:
            self.protocol_error = "it sent a malformed packet"
        elif why == kernel.ALIAS:
            self.protocol_error = "it used a topic alias, and we announced none"
        elif why == kernel.QOS_2:
            self.protocol_error = "it delivered at QoS 2, which no subscription asked for"
        elif n < MESSAGES_PER_SCAN:
            self._wanted = length
            return at, False
        return at, self.protocol_error is None

    def _keep(self, begin: int, end: int, n: int, now_us: int) -> None:
        """Copy n messages out of the buffer, which is used again."""
        number = self._number[:n]
        for i in np.flatnonzero(number < 0).tolist():
            first, last = self._topic_bounds[i].tolist()
            number[i] = self._table.number(self._buffer[first:last].tobytes())
        self._pieces.append(
            _Piece(
                buffer=self._buffer[begin:end].copy(),
                start=self._start[:n] - begin,
                stop=self._stop[:n] - begin,
                topic=self._table.slots[number],
                packet_id=self._packet_id[:n].copy(),
                again=self._again[:n].copy(),
                received_time_us=np.full(n, now_us),
            )
        )
        self.payload_bytes += end - begin

    def _start_skipping(self, at: int, length: int) -> int:
        """An oversize PUBLISH stands at ``at``; gives where its payload begins."""
        body = at + 1
        while self._buffer[body] & 128:
            body += 1
        head = self._buffer[body + 1 : body + 3].tobytes()
        first = body + 3
        last = first + int.from_bytes(head, "big")
        qos = self._buffer[at] >> 1 & 3
        packet_id = int.from_bytes(self._buffer[last : last + 2].tobytes(), "big") if qos else 0
        payload = last + 2 if qos else last
        if self._version == kernel.MQTT_5:
            size, shift, digit = 0, 0, 128
            while digit & 128:
                digit = int(self._buffer[payload])
                size |= (digit & 127) << shift
                payload, shift = payload + 1, shift + 7
            payload += size
        number = self._table.number(self._buffer[first:last].tobytes())
        topic = self._topics.oversize_slot(int(self._table.slots[number]))
        self._skipping = _Skipping(topic, packet_id, bool(self._buffer[at] & 8), at + length - payload)
        return payload

    def _skip(self, at: int, now_us: int) -> int:
        """Let more of an oversize payload go by; gives where it stopped."""
        skipping = self._skipping
        assert skipping is not None
        stop = min(self._end, at + skipping.left)
        skipping.see(self._buffer[at:stop].tobytes())
        if skipping.left == 0:
            packed = np.frombuffer(skipping.packed(), np.uint8)
            self._pieces.append(
                _Piece(
                    buffer=packed,
                    start=np.zeros(1, np.int64),
                    stop=np.array([len(packed)], np.int64),
                    topic=np.array([skipping.topic], np.int32),
                    packet_id=np.array([skipping.packet_id], np.uint16),
                    again=np.array([skipping.again], np.bool_),
                    received_time_us=np.array([now_us], np.int64),
                )
            )
            self._skipping = None
        return stop


class FrameSocket:
    """What paho believes to be its socket: reads give control packets only, writes are never partial."""

    def __init__(self, sock: socket.socket, reader: FrameReader) -> None:
        self._sock = sock
        self._reader = reader
        self._by_records = isinstance(sock, ssl.SSLSocket)
        self._out = bytearray()
        self.ended = False  # the other end has closed

    def fill(self) -> None:
        """Read what there is, up to some mebibytes of messages."""
        reader = self._reader
        while not self.ended and reader.protocol_error is None and reader.payload_bytes < BYTES_PER_TURN:
            room = reader.room()
            count = self._read_into(room)
            if count:
                reader.received(count)
            if count < len(room):
                return

    def _read_into(self, room: memoryview) -> int:
        """Fill the room as far as there are bytes; gives how many.

        A plain socket gives all that it has at once, so a short read is the last. TLS gives one record at a
        time, which is one message as a rule: they are gathered, so that they are scanned together.
        """
        count = 0
        try:
            while count < len(room):
                more = self._sock.recv_into(room[count:] if count else room)
                if more == 0:
                    self.ended = True
                    break
                count += more
                if not self._by_records:
                    break
        except _WOULD_BLOCK:
            pass
        except OSError:
            self.ended = True
        return count

    def recv(self, count: int) -> bytes:
        """Bytes of control packets, as paho asks for them; the stream's end once they are used up."""
        control = self._reader.control
        if not control:
            if self.ended:
                return b""
            raise BlockingIOError
        taken = bytes(control[:count])
        del control[:count]
        return taken

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Write, or keep for ``flush`` what can't be written now: no other packet can get in between."""
        self._out += data
        self.flush()
        return len(data)

    def flush(self) -> None:
        """Write what was kept."""
        try:
            while self._out:
                sent = self._sock.send(self._out)
                del self._out[:sent]
        except _WOULD_BLOCK:
            pass

    @property
    def wants_write(self) -> bool:
        """Whether ``flush`` has something to do."""
        return bool(self._out)

    def close(self) -> None:
        """Write what is left, a goodbye as a rule, unless that takes long; then close."""
        if self._out and not self.ended:
            with contextlib.suppress(OSError):
                self._sock.settimeout(LAST_WRITE_S)
                self._sock.sendall(self._out)
        self._sock.close()

    def fileno(self) -> int:  # noqa: D102
        return self._sock.fileno()

    def pending(self) -> int:
        """Bytes that TLS has decrypted and a poll can't see."""
        return self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0

    def setblocking(self, flag: bool) -> None:  # noqa: D102
        self._sock.setblocking(flag)

    def settimeout(self, timeout_s: float | None) -> None:  # noqa: D102
        self._sock.settimeout(timeout_s)

    def do_handshake(self) -> None:
        """TLS, where there is any."""
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.do_handshake()


class _FramingContext:
    """What paho believes to be its TLS context; with none inside it leaves the connection plain."""

    check_hostname = True  # the inner context does; paho shall not try on its own

    def __init__(self, inner: ssl.SSLContext | None, reader: FrameReader) -> None:
        self._inner = inner
        self._reader = reader
        self.socket: FrameSocket | None = None

    def wrap_socket(self, sock: socket.socket, **options: Any) -> FrameSocket:
        """A FrameSocket over a connected socket."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an acknowledgement should not wait
        inner = sock if self._inner is None else self._inner.wrap_socket(sock, **options)
        self.socket = FrameSocket(inner, self._reader)
        return self.socket


class ScannerReceiver:
    """Receives through the frame scanner; see telemetry.mqtt.session.Receiver."""

    def __init__(
        self,
        client: paho.Client,
        topics: Topics,
        context: ssl.SSLContext | None,
        version: int = MQTT_3_1_1,
    ) -> None:
        self._client = client
        self._reader = FrameReader(topics, version)
        self._context = _FramingContext(context, self._reader)
        client.tls_set_context(self._context)  # type: ignore[arg-type]

    @property
    def protocol_error(self) -> str | None:
        """What the broker did that MQTT forbids; None so far."""
        return self._reader.protocol_error

    @property
    def wants_write(self) -> bool:
        """Whether ``flush`` has something to do."""
        return self._context.socket is not None and self._context.socket.wants_write

    def begin(self) -> None:
        """A new connection is about to be made."""
        self._reader.reset()
        self._context.socket = None

    def read(self) -> None:
        """Take what the socket has, and let paho read the control packets among it."""
        sock = self._context.socket
        if sock is None:
            return
        sock.fill()
        while self._reader.control or sock.ended:
            try:
                ended = self._client.loop_read()
            except Exception as error:  # noqa: BLE001 - what paho raises for a bad packet is not documented
                self._reader.protocol_error = f"it sent a packet that can't be read ({error})"
                return
            if ended or self._client.socket() is None:
                return

    def take(self, link: int, owed: Owed) -> Chunk | None:
        """The messages that arrived since the last call; None: none."""
        return self._reader.take(link, owed)

    def acknowledge(self, ids: NDArray[np.uint16]) -> None:
        """Write PUBACKs, all in one block."""
        if self._context.socket is None or not len(ids):
            return
        packets = np.empty((len(ids), 4), np.uint8)
        packets[:, 0], packets[:, 1] = 0x40, 2
        packets[:, 2], packets[:, 3] = ids >> 8, ids & 0xFF
        with contextlib.suppress(OSError):  # a broken connection shows at the next read
            self._context.socket.send(packets.tobytes())

    def flush(self) -> None:
        """Write what the socket would not take before."""
        if self._context.socket is not None:
            with contextlib.suppress(OSError):
                self._context.socket.flush()
