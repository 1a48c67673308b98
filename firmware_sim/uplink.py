"""The devices' MQTT sessions: one for each device, or a few that many devices share. One thread drives them
all.

Publishing is QoS 1. A message stays in its session until the broker's PUBACK; after a lost connection the
session connects again, with growing pauses, and sends what was not acknowledged once more. At most
`IN_FLIGHT` messages wait in a session; then `has_room` is false, and the fleet waits. The last will of a
device's own session, and an orderly close, publish ``offline`` on its status topic. A shared session has no
will: a will has one topic.
"""

from __future__ import annotations

import json
import selectors
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from firmware_sim.codec import topic
from firmware_sim.errors import UplinkError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["IN_FLIGHT", "Uplink"]

IN_FLIGHT: Final = 200
_KEEPALIVE_S: Final = 60
_CONNECT_S: Final = 10.0
_MAX_PAUSE_S: Final = 30.0
_MISC_EVERY_S: Final = 1.0
_CLOSE_S: Final = 10.0


class Uplink:
    """MQTT sessions for a list of devices.

    ``sessions``: how many sessions the devices share; None: one for each. ``on_command`` gets the index
    of a device and the payload of a command, and gives the payload of its result, or None.
    """

    def __init__(
        self,
        url: str,
        root: str,
        device_ids: list[str],
        *,
        sessions: int | None,
        on_command: Callable[[int, bytes], bytes | None],
    ) -> None:
        self._root = root
        self._ids = device_ids
        self._on_command = on_command
        self._selector = selectors.DefaultSelector()
        self._misc_s = 0.0
        self._closed = False
        self._index = {topic(root, device_id, "commands"): i for i, device_id in enumerate(device_ids)}
        exact = sessions is None
        self._sessions = [
            _Session(self, url, root, k, device_ids[k] if exact else None)
            for k in range(len(device_ids) if sessions is None else min(sessions, len(device_ids)))
        ]

    @property
    def sessions(self) -> int:
        """How many sessions there are."""
        return len(self._sessions)

    @property
    def connected(self) -> int:
        """How many of them stand."""
        return sum(session.connected for session in self._sessions)

    @property
    def in_flight(self) -> int:
        """Messages published and not acknowledged."""
        return sum(session.in_flight for session in self._sessions)

    def open(self) -> None:
        """Connect every session; UplinkError when the broker is not there or refuses."""
        for session in self._sessions:
            session.connect()
        deadline_s = time.monotonic() + _CONNECT_S
        while self.connected < len(self._sessions):
            refusal = next((s.refusal for s in self._sessions if s.refusal), None)
            if refusal:
                raise UplinkError(
                    f"{self._sessions[0].where} refuses the devices: {refusal}; check user and password"
                )
            if time.monotonic() > deadline_s:
                raise UplinkError(
                    f"{self._sessions[0].where} does not answer an MQTT CONNECT within {_CONNECT_S:.0f} s; "
                    "check that the address is an MQTT broker's"
                )
            self.pump(0.05)
        for i in range(len(self._ids)):
            while not self.has_room(i):
                self.pump(0.05)
            self._publish_status(i, "online")

    def has_room(self, device: int) -> bool:
        """Whether the session of a device may take one message more."""
        return self._session_of(device).in_flight < IN_FLIGHT

    def publish(self, device: int, leaf: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 on one of a device's topics."""
        self._session_of(device).publish(topic(self._root, self._ids[device], leaf), payload, retain)

    def pump(self, timeout_s: float) -> None:
        """Read and write until the time is over; returns at once after something was read."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline_s - time.monotonic())
            busy = False
            for key, events in self._selector.select(left_s):
                session: _Session = key.data
                if events & selectors.EVENT_WRITE:
                    session.client.loop_write()
                if events & selectors.EVENT_READ:
                    session.client.loop_read()
                    busy = True
            now_s = time.monotonic()
            if now_s - self._misc_s >= _MISC_EVERY_S:
                self._misc_s = now_s
                for session in self._sessions:
                    session.look_after(now_s)
            if busy or now_s >= deadline_s:
                return
            if not self._selector.get_map():
                time.sleep(min(0.05, deadline_s - now_s))  # no socket stands: nothing to select on

    def close(self) -> None:
        """Say ``offline`` for every device, wait for what is not acknowledged, and disconnect."""
        deadline_s = time.monotonic() + _CLOSE_S
        if self.connected:
            for i in range(len(self._ids)):
                while not self.has_room(i) and time.monotonic() < deadline_s:
                    self.pump(0.05)
                if self._session_of(i).connected:
                    self._publish_status(i, "offline")
            while self.in_flight and self.connected and time.monotonic() < deadline_s:
                self.pump(0.05)
        for session in self._sessions:
            session.disconnect()
        self.pump(0.05)
        self._closed = True
        self._selector.close()

    def _session_of(self, device: int) -> _Session:
        return self._sessions[device % len(self._sessions)]

    def _publish_status(self, device: int, state: str) -> None:
        self.publish(device, "status", json.dumps(state).encode(), retain=True)

    def command(self, message: MQTTMessage) -> None:
        """A command came in: hand it to the device and publish the result."""
        device = self._index.get(message.topic)
        if device is None:
            return
        result = self._on_command(device, bytes(message.payload))
        if result is not None:
            self.publish(device, "results", result)

    def watch(self, session: _Session, sock: Any, events: int) -> None:
        """Select on a session's socket; no events: no longer."""
        if self._closed:
            return
        known = session.watched is sock
        if not events:
            if known:
                self._selector.unregister(sock)
                session.watched = None
        elif known:
            self._selector.modify(sock, events, session)
        else:
            self._selector.register(sock, events, session)
            session.watched = sock


class _Session:
    """One MQTT session, driven by `Uplink.pump`."""

    def __init__(self, uplink: Uplink, url: str, root: str, number: int, device_id: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname:
            raise UplinkError(
                f"{url!r} is no broker's address; write mqtt://user:password@host:1883 or mqtts://…"
            )
        self._uplink = uplink
        self._host = parts.hostname
        self._port = parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        self._commands = topic(root, device_id, "commands") if device_id else f"{root}/+/+/commands"
        # of the shared sessions one listens; each hears the commands of all devices
        self._listens = device_id is not None or number == 0
        self.connected = False
        self.refusal: str | None = None
        self.in_flight = 0
        self.watched: Any = None
        self._pause_s = 0.5
        self._retry_s: float | None = None
        name = device_id or f"fleet-{number}"
        self.client = client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"ringfence-sim-{name}-{time.time_ns():x}",
            protocol=MQTTv311,
        )
        if parts.username is not None:
            client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if parts.scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context())
        client.connect_timeout = 5.0
        client.max_inflight_messages_set(IN_FLIGHT + 50)
        if device_id:
            client.will_set(topic(root, device_id, "status"), json.dumps("offline"), qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = lambda _c, _u, message: uplink.command(message)
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = lambda _c, _u, sock: uplink.watch(self, sock, 0)
        client.on_socket_register_write = lambda _c, _u, sock: uplink.watch(self, sock, both)
        client.on_socket_unregister_write = lambda _c, _u, sock: uplink.watch(
            self, sock, selectors.EVENT_READ
        )

    @property
    def where(self) -> str:
        """The broker, without credentials."""
        return f"{self._host}:{self._port}"

    def connect(self) -> None:
        """Open the socket and send CONNECT."""
        try:
            self.client.connect(self._host, self._port, _KEEPALIVE_S)
        except OSError as exc:
            raise UplinkError(
                f"no MQTT broker at {self.where} ({exc.strerror or exc}); start it, or name another address"
            ) from exc

    def publish(self, where: str, payload: bytes, retain: bool) -> None:
        """Publish at QoS 1; without a connection the message waits in the session."""
        self.client.publish(where, payload, qos=1, retain=retain)
        self.in_flight += 1

    def look_after(self, now_s: float) -> None:
        """Keep the session alive; connect again when it is time."""
        self.client.loop_misc()
        if self._retry_s is not None and now_s >= self._retry_s:
            self._retry_s = now_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)
            try:
                self.client.reconnect()
                self._retry_s = None
            except OSError:
                pass  # the next attempt is planned already

    def disconnect(self) -> None:
        """Close in order: the broker publishes no will."""
        self._retry_s = None
        if self.client.socket() is not None:
            self.client.disconnect()
            self.client.loop_write()

    def _on_socket_open(self, _c: Client, _user: Any, sock: Any) -> None:
        # paho writes each packet by itself; held back by Nagle's algorithm they would wait for delayed ACKs
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._uplink.watch(self, sock, selectors.EVENT_READ)

    def _on_connect(
        self, client: Client, _user: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure:
            self.refusal = str(reason)
            return
        self.connected = True
        self._pause_s = 0.5
        if self._listens:
            client.subscribe(self._commands, qos=1)

    def _on_disconnect(
        self, _c: Client, _user: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        self.connected = False
        if reason != ReasonCode(PacketTypes.DISCONNECT, "Normal disconnection"):
            self._retry_s = time.monotonic() + self._pause_s

    def _on_publish(self, _c: Client, _user: Any, _mid: int, _reason: ReasonCode, _properties: Any) -> None:
        self.in_flight -= 1
