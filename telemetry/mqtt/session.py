"""One MQTT session with a broker: paho 2 under a thread of our own.

paho's client is not safe for several threads once its socket is driven by hand, so one thread owns it: it
connects, reads, writes, and sends what other threads asked for. They hand over acknowledgements and publishes
through queues, and take messages from the inbox.
"""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from telemetry.mqtt.address import (
    BrokerAddress,
    MqttError,
    connect_error,
    refusal_error,
    silence_error,
    tls_context,
)
from telemetry.mqtt.inbox import Inbox, Owed, Receipt
from telemetry.mqtt.outbound import Outbound, Publishable
from telemetry.mqtt.plain import buffered_bytes
from telemetry.mqtt.scanner import ScannerReceiver

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from telemetry.columns import Messages
    from telemetry.mqtt.inbox import Chunk
    from telemetry.mqtt.topics import Topics

__all__ = ["PROTOCOLS", "MqttError", "Publishable", "Receiver", "Session"]

log = logging.getLogger(__name__)

PROTOCOLS: Final = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}

NEVER_EXPIRES_S: Final = 0xFFFF_FFFF  # session expiry interval of MQTT 5; in 3.1.1 it is the broker's matter
KEEPALIVE_S: Final = 30
CONNECT_TIMEOUT_S: Final = 5.0
HANDSHAKE_TIMEOUT_S: Final = 10.0  # from an open socket to the CONNACK, and from the last byte to the SUBACK
# A broker writes one message at a time. So that this does not cost one wake-up each, the network thread waits
# a little before it reads on, and the taker before it takes; both longer in a dense stream, where a message
# costs the less the more are handled together (python -m benchmarks.ingest).
LINGER_S: Final = 0.001  # before a read, after one that was short
COALESCE_S: Final = 0.002  # after the first message of a receive
DENSE_PER_S: Final = 16_000  # messages; from here on
DENSE_LINGER_S: Final = 0.005
DENSE_COALESCE_S: Final = 0.020
SHORT_READ: Final = 4096  # messages; a read of as many found a backlog, and there is more of it
ENOUGH: Final = 2048  # messages; for a taker who has as many a call costs little
TURN_S: Final = 0.5  # the longest sleep of the network thread
RETRY_FIRST_S: Final = 0.2  # wait before a reconnect; doubled each time, with jitter
RETRY_LAST_S: Final = 15.0
STABLE_S: Final = 10.0  # a connection that stood this long ends a series of failures
SETTLE_S: Final = 0.5  # after a connect, before silence may be believed
GOODBYE_S: Final = 0.7  # the longest wait for the broker to hear our goodbye
TAKEOVERS_TO_TELL: Final = 2  # short connections in a row that the broker ended
WINDOW_FLOOR: Final = 16  # fewer unacknowledged messages are no full window (mosquitto's default is 20)
OUT_INFLIGHT: Final = 500  # publishes of ours that may wait for their PUBACK


class Receiver(Protocol):
    """How PUBLISH packets become chunks. All calls come from the network thread.

    protocol_error : what the broker did that MQTT forbids; None so far
    wants_write    : ``flush`` has something to do
    """

    @property
    def protocol_error(self) -> str | None: ...  # noqa: D102
    @property
    def wants_write(self) -> bool: ...  # noqa: D102

    def begin(self) -> None:
        """A new connection is about to be made; what is left of the old one is void."""

    def read(self) -> None:
        """The socket has something: take it, and let paho handle what is not a PUBLISH."""

    def take(self, link: int, owed: Owed) -> Chunk | None:
        """The messages that arrived since the last call; None: none."""

    def acknowledge(self, ids: NDArray[np.uint16]) -> None:
        """Queue PUBACKs on the connection that stands now."""

    def flush(self) -> None:
        """Write what the socket would not take before."""


class Session:
    """A persistent session that subscribes at QoS 1 and acknowledges only when told.

    ``start`` connects; after that the session reconnects by itself, with jitter, until ``close``. ``receive``
    is for one thread, ``publish`` and ``Messages.acknowledge`` for any.

    problem            : why it is not ready, with the remedy; None when it is
    connected_since_us : when it last became ready, UTC microseconds; None when it is not
    session_present    : whether the broker still knew the session at the last connect
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        filters: Sequence[str],
        *,
        topics: Topics,
        will: Publishable | None = None,
        clean: bool = False,
        ca_file: Path | None = None,
        own_cert: tuple[Path, Path] | None = None,
        protocol: str = "3.1.1",
        receiver: Callable[[paho.Client, Topics, ssl.SSLContext | None, int], Receiver] = ScannerReceiver,
    ) -> None:
        """protocol: version of MQTT, one of PROTOCOLS."""
        self.address = BrokerAddress.parse(url)
        self.client_id = client_id
        self.problem: str | None = "the session has not been started"
        self.connected_since_us: int | None = None
        self.session_present: bool | None = None
        self._filters = list(filters)
        version = PROTOCOLS[protocol]
        self._client = self._new_client(version, clean=clean, will=will)
        context = tls_context(ca_file, own_cert) if self.address.tls else None
        self._receiver = receiver(self._client, topics, context, int(version))
        self._outbound = Outbound(self._client, self._wake)
        self._inbox = Inbox(topics, self._queue_receipts)
        self._receipts: deque[list[Receipt]] = deque()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._stopping = threading.Event()
        self._first = threading.Event()  # the first connect has succeeded or failed
        self._first_error: MqttError | None = None
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{client_id}", daemon=True)
        # Of the connection that stands, or was the last; the network thread's own.
        self._link = 0  # its number; a receipt of another number is void
        self._owed = Owed()
        self._connected = False  # a CONNACK said yes, and it has not ended
        self._subscribing: int | None = None  # packet id of the SUBSCRIBE that waits for its SUBACK
        self._refused: MqttError | None = None
        self._opened_s = self._deadline_s = 0.0
        self._drained = False  # the last look found nothing to read
        self._lingering = False  # the last read was short
        self._dense = False  # messages come in a dense stream
        self._read_s = 0.0  # when the last read was
        self._told = False  # its end has been dealt with
        self._heard = False  # the broker has read all that was sent before the goodbye
        self._failures = self._short_connections = 0

    # --- for other threads ----------------------------------------------------------------------

    def start(self) -> None:
        """Connect and subscribe; MqttError with the remedy when that fails the first time.

        A broker sends what it kept for the session before it grants a subscription. Where that is more than
        the inbox holds, this returns while it still comes, so that somebody takes it; ``problem`` says so.
        """
        self._thread.start()
        self._first.wait()
        if self._first_error is not None:
            self._thread.join()
            raise self._first_error

    def receive(self, wait_s: float, max_messages: int) -> Messages | None:
        """Messages that arrived, in order, up to ``max_messages``; None when none comes within ``wait_s``."""
        coalesce_s = DENSE_COALESCE_S if self._dense else COALESCE_S
        messages = self._inbox.take(wait_s, coalesce_s, max_messages, ENOUGH)
        if self._inbox.was_full():
            self._wake()
        return messages

    def publish(self, messages: Sequence[Publishable], timeout_s: float) -> list[bool]:
        """Publish at QoS 1, in order; which of them had their PUBACK after ``timeout_s`` at the latest.

        When the connection breaks, what has no PUBACK is given up, not sent again behind the caller's back.
        """
        return self._outbound.publish(messages, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Send the acknowledgements that are due, say goodbye (so no will is published), and end.

        Messages that were not acknowledged stay with the broker.
        """
        self._stopping.set()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        self._inbox.close()

    @property
    def ready(self) -> bool:
        """Connected, and every subscription granted."""
        return self.problem is None

    @property
    def idle(self) -> bool:
        """Whether all that the broker had for us was taken, so that a device's silence means something.

        False while messages wait here or in the socket, just after a connect, and while so many are
        unacknowledged that the broker's window may be full and more held back.
        """
        since_us = self.connected_since_us
        return (
            since_us is not None
            and self._drained
            and not len(self._inbox)
            and self._owed.count < max(WINDOW_FLOOR, 0.9 * self._owed.peak)
            and time.time_ns() // 1000 - since_us > SETTLE_S * 1e6
        )

    def _queue_receipts(self, receipts: list[Receipt]) -> None:
        self._receipts.append(receipts)
        self._wake()

    def _wake(self) -> None:
        # A full pipe wakes the thread anyway; a closed one has none left to wake.
        with contextlib.suppress(OSError):
            self._wake_write.send(b"\0")

    # --- the network thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set() and self._first_error is None:
                if self._connected or (self._client.socket() is not None and self._refused is None):
                    self._turn()
                    continue
                if self._link:
                    self._pause()
                if not self._stopping.is_set():
                    self._connect()
            self._say_goodbye()
        except Exception as error:
            log.exception("the MQTT session of %s ends", self.client_id)
            self.problem = f"the MQTT session met an unexpected error ({error}); restart the engine"
            self._first_error = MqttError(self.problem)
        finally:
            self._connected, self.connected_since_us = False, None
            self.problem = self.problem or "the session was closed"
            self._outbound.close()
            self._inbox.close()
            self._wake_write.close()
            self._wake_read.close()
            self._first.set()

    def _connect(self) -> None:
        """Open a socket and send the CONNECT."""
        if self._inbox.is_full:  # the broker would only send again what waits here already
            return
        self._link += 1
        self._owed = Owed()
        self._connected = self._drained = self._told = False
        self._subscribing = self._refused = None
        self._receiver.begin()
        self._outbound.give_up()
        try:
            self._client.reconnect()  # closes what may be left of the old socket
        except (OSError, UnicodeError) as error:
            self._failed(connect_error(self.address, error))
            return
        sock = self._client.socket()
        if isinstance(sock, socket.socket):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an acknowledgement should not wait
        self._opened_s = time.monotonic()
        self._deadline_s = self._opened_s + HANDSHAKE_TIMEOUT_S

    def _turn(self) -> None:
        """Sleep until there is something to do, and do it."""
        sock = self._client.socket()
        if sock is None:
            self._ended("closed")
            return
        if self._lingering:
            time.sleep(DENSE_LINGER_S if self._dense else LINGER_S)
        readable = self._sleep(sock)
        self._lingering = False
        if readable and not self._inbox.is_full:
            self._drained = False
            self._receiver.read()
            chunk = self._receiver.take(self._link, self._owed)
            if chunk is not None:
                now_s = time.monotonic()
                self._dense = len(chunk) > DENSE_PER_S * (now_s - self._read_s)
                self._read_s = now_s
                self._lingering = len(chunk) < SHORT_READ
                self._inbox.put(chunk)
        else:
            self._drained = not readable
        if self._connected:
            if readable or self._inbox.is_full:
                self._stay_patient()
            self._send_receipts()
            self._outbound.send()
        if self._client.socket() is not None:
            if self._client.want_write():
                self._client.loop_write()
            self._receiver.flush()
        if self._client.socket() is not None:
            self._client.loop_misc()
        self._check_manners()

    def _sleep(self, sock: paho.SocketLike) -> bool:
        """Wait for the socket or another thread; whether the socket can be read."""
        if buffered_bytes(sock):
            return True
        poll = select.poll()
        events = 0 if self._inbox.is_full else select.POLLIN
        if self._client.want_write() or self._receiver.wants_write:
            events |= select.POLLOUT
        poll.register(sock.fileno(), events)
        poll.register(self._wake_read.fileno(), select.POLLIN)
        readable = False
        for descriptor, happened in poll.poll(TURN_S * 1000):
            if descriptor == self._wake_read.fileno():
                self._wake_read.recv(4096)
            elif happened & (select.POLLERR | select.POLLHUP) and not events & select.POLLIN:
                self._drop("the connection broke while messages waited to be taken")
            else:
                readable = bool(happened & ~select.POLLOUT)
        return readable

    def _stay_patient(self) -> None:
        """Wait for the SUBACK as long as the broker sends: it stands behind all that was kept for us."""
        if self.connected_since_us is not None:
            return
        self._deadline_s = time.monotonic() + HANDSHAKE_TIMEOUT_S
        if self._inbox.is_full and not self._first.is_set():
            self.problem = (
                f"the broker {self.address.shown} still sends what it kept for {self.client_id}; "
                "its answer to our SUBSCRIBE stands behind that"
            )
            self._first.set()

    def _check_manners(self) -> None:
        """End a connection whose other end does not behave like a broker that wants us."""
        wrong = self._receiver.protocol_error
        if wrong is not None:
            self._refused = None if self._connected else silence_error(self.address, wrong)
            self._drop(wrong)
        elif self._refused is not None:
            self._drop(str(self._refused))
        elif self._client.socket() is not None and time.monotonic() > self._deadline_s:
            waited = f"no answer to our {'SUBSCRIBE' if self._connected else 'CONNECT'}"
            self._refused = silence_error(self.address, f"{waited} within {HANDSHAKE_TIMEOUT_S:.0f} s")
            self._drop(str(self._refused))

    def _send_receipts(self) -> None:
        while self._receipts:
            for receipt in self._receipts.popleft():
                if receipt.link == self._link:
                    self._receiver.acknowledge(self._owed.settle(receipt))

    def _pause(self) -> None:
        """Wait before the next try: longer each time, and never in step with other engines."""
        longest_s = min(RETRY_LAST_S, RETRY_FIRST_S * 2 ** min(self._failures, 10))
        until_s = time.monotonic() + longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._failures += 1
        while not self._stopping.is_set() and (left_s := until_s - time.monotonic()) > 0:
            select.select([self._wake_read], [], [], left_s)
            with contextlib.suppress(BlockingIOError):
                self._wake_read.recv(4096)

    def _say_goodbye(self) -> None:
        """Send what is due, make sure that the broker has read it, then DISCONNECT.

        Closing a socket that still holds unread bytes resets the connection, and the broker may then drop
        what it had not read yet: our acknowledgements. The answer to an UNSUBSCRIBE of nothing comes after.
        """
        if not self._connected:
            return
        self._send_receipts()
        self._client.unsubscribe(f"{self.client_id}/farewell")
        until_s = time.monotonic() + GOODBYE_S
        while not self._heard and self._connected and time.monotonic() < until_s:
            self._exchange()
        if self._connected:
            self._client.disconnect()
        while self._client.socket() is not None and time.monotonic() < until_s + GOODBYE_S:
            self._exchange()

    def _exchange(self) -> None:
        """Write what is to be written, and read on; what is received now stays with the broker."""
        sock = self._client.socket()
        if sock is None:
            return
        writing = self._client.want_write() or self._receiver.wants_write
        readable, _, _ = select.select([sock], [sock] if writing else [], [], 0.05)
        if readable:
            self._receiver.read()
            self._receiver.take(self._link, self._owed)
        if self._client.socket() is not None:
            self._client.loop_write()
            self._receiver.flush()

    # --- what can happen to a connection ----------------------------------------------------------

    def _new_client(
        self, version: MQTTProtocolVersion, *, clean: bool, will: Publishable | None
    ) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            clean_session=None if version == MQTTProtocolVersion.MQTTv5 else clean,
            protocol=version,
            reconnect_on_failure=False,  # the network thread does it
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(OUT_INFLIGHT)
        if self.address.user is not None:
            client.username_pw_set(self.address.user, self.address.password)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_disconnect = self._on_disconnect
        client.on_socket_register_write = lambda *_: None  # tells paho to leave writing to this thread
        where = (self.address.host, self.address.port, KEEPALIVE_S)
        if version == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if clean else NEVER_EXPIRES_S
            client.connect_async(*where, clean_start=clean, properties=properties)
        else:
            client.connect_async(*where)
        return client

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refused = refusal_error(self.address, reason.value, str(reason), self.client_id)
            return
        self._connected = True
        if self.session_present is not None and not flags.session_present and self._filters:
            log.warning(
                "%s no longer knew the session of %s: what devices sent meanwhile at QoS 1 is lost there",
                self.address.shown,
                self.client_id,
            )
        self.session_present = bool(flags.session_present)
        if self._filters:
            _, self._subscribing = self._client.subscribe([(name, 1) for name in self._filters])
        else:
            self._became_ready()

    def _on_subscribe(self, _client: Any, _data: Any, mid: int, reasons: list[Any], _properties: Any) -> None:
        if mid != self._subscribing:
            return
        granted = [reason.value == 1 for reason in reasons] + [False] * len(self._filters)
        refused = [name for name, ok in zip(self._filters, granted, strict=False) if not ok]
        if not refused:
            self._became_ready()
            return
        self._refused = MqttError(
            f"the broker {self.address.shown} refused to subscribe {self.client_id} to {', '.join(refused)} "
            "at QoS 1; allow these topics there (nats-server: max_ack_pending times the number of "
            "subscriptions of a session must stay below 65,536)"
        )

    def _on_unsubscribe(self, *_: Any) -> None:
        self._heard = True

    def _became_ready(self) -> None:
        self._deadline_s = float("inf")
        self.connected_since_us = time.time_ns() // 1000
        self.problem = None
        self._first.set()
        log.info("%s: the session of %s is ready", self.address.shown, self.client_id)

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._ended(str(reason))

    def _drop(self, why: str) -> None:
        """End the connection from our side; the broker keeps what was not acknowledged."""
        if self._first.is_set():  # else the caller of start is told
            log.warning("%s: ending the connection: %s", self.address.shown, why)
        self._refused = self._refused or MqttError(f"{self.address.shown}: {why}; reconnecting")
        self._client.disconnect()
        if self._client.socket() is not None and self._client.want_write():
            self._client.loop_write()
        self._ended(why)

    def _ended(self, why: str) -> None:
        """The connection is gone, whoever ended it; may be told more than once."""
        if self._told:
            return
        self._told = True
        was_ready = self.connected_since_us is not None
        self._connected, self.connected_since_us, self._drained = False, None, False
        self._outbound.give_up()
        if self._stopping.is_set():
            return
        if was_ready and self._refused is None:
            self._lost(why)
        else:
            self._failed(self._refused or silence_error(self.address, "it closed the connection"))

    def _lost(self, why: str) -> None:
        """A connection that worked has ended. Short ones in a row look like somebody with our client id."""
        if time.monotonic() - self._opened_s >= STABLE_S:
            self._short_connections = self._failures = 0
        else:
            self._short_connections += 1
        self.problem = f"the connection to {self.address.shown} was lost ({why}); reconnecting"
        if self._short_connections >= TAKEOVERS_TO_TELL:
            self.problem = (
                f"the broker {self.address.shown} ended the session of {self.client_id} "
                f"{self._short_connections} times within {STABLE_S:.0f} s of its start: another client seems "
                "to use this client id; stop the other engine, or give this one another share"
            )
        log.warning("%s", self.problem)

    def _failed(self, error: MqttError) -> None:
        """A connection could not be made."""
        self.problem = str(error)
        if not self._first.is_set():
            self._first_error = error
        else:
            log.warning("%s", error)
