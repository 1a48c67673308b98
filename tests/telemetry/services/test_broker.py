import os
import queue
import signal
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from telemetry.services import EmbeddedBroker, PortTaken
from telemetry.services import broker as broker_module
from telemetry.services.processes import ProcessId, wait_until
from tests.telemetry.services.services_helpers import listening_on, pids_inside


@pytest.fixture
def broker(data_dir: Path) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(data_dir)
    broker.start()
    yield broker
    broker.stop()


class Client:
    """A real MQTT client whose every wait has an end."""

    def __init__(self, url: str, client_id: str, *, clean: bool = True) -> None:
        parts = urlsplit(url)
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self._answers: queue.Queue[object] = queue.Queue()
        self.paho = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id, clean_session=clean, protocol=MQTTProtocolVersion.MQTTv311
        )
        self.paho.username_pw_set(parts.username, parts.password)
        self.paho.on_message = lambda _client, _data, message: self.messages.put(message)
        self.paho.on_connect = lambda _client, _data, _flags, reason, _properties: self._answers.put(reason)
        self.paho.on_subscribe = lambda _client, _data, _mid, reasons, _properties: self._answers.put(
            reasons[0]
        )
        assert parts.hostname
        assert parts.port
        self.paho.connect(parts.hostname, parts.port)
        self.paho.loop_start()
        self.connected = self._answers.get(timeout=10)

    def subscribe(self, topic: str) -> int:
        self.paho.subscribe(topic, qos=1)
        return int(self._answers.get(timeout=10).value)

    def publish(self, topic: str, payload: bytes) -> None:
        """Returns once the broker has acknowledged."""
        self.paho.publish(topic, payload, qos=1).wait_for_publish(timeout=10)

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


def connack(port: int, user: str, password: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5.0) as connection:
        connection.sendall(broker_module._mqtt_connect("tester", user, password))
        return connection.recv(4)


# --- an ordinary life -----------------------------------------------------------------------------


def test_a_message_goes_through_and_its_broker_stops(broker: EmbeddedBroker) -> None:
    client = Client(broker.url, "one")
    assert client.subscribe("a/+") == 1
    client.publish("a/b", b"hello")
    assert client.messages.get(timeout=10).payload == b"hello"
    client.close()
    broker.stop()
    assert pids_inside([broker.data_dir]) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", broker.port), 1.0)
    broker.stop()


def test_starting_twice_changes_nothing(broker: EmbeddedBroker) -> None:
    pid = broker.pid
    assert broker.start() == broker.url
    assert broker.pid == pid


def test_url_and_port_stay_from_start_to_start(broker: EmbeddedBroker) -> None:
    url = broker.url
    broker.stop()
    again = EmbeddedBroker(broker.data_dir)
    assert again.start() == url
    again.stop()


def test_everything_listens_on_loopback_only(broker: EmbeddedBroker) -> None:
    assert broker.pid is not None
    listening = listening_on([broker.pid])
    loopback = struct.pack("<I", 0x7F000001).hex().upper()
    assert [address for address, _ in listening] == [loopback, loopback]  # MQTT, and NATS's own protocol
    assert broker.port in [port for _, port in listening]


def test_a_share_can_subscribe_to_all_it_needs_in_one_session(broker: EmbeddedBroker) -> None:
    client = Client(broker.url, "share")
    granted = [client.subscribe(f"root/+/+/{number}") for number in range(7)]
    client.close()
    assert granted == [1, 1, 1, 1, 1, 1, 0x80]  # as the comment at MAX_ACK_PENDING says: six fit


def test_a_message_of_two_mebibytes_fits(broker: EmbeddedBroker) -> None:
    client = Client(broker.url, "big")
    client.subscribe("big")
    payload = os.urandom(2 << 20)
    client.publish("big", payload)
    assert client.messages.get(timeout=10).payload == payload
    client.close()


def test_a_data_directory_may_have_any_name(data_dir: Path) -> None:
    broker = EmbeddedBroker(data_dir.parent / ("q\"uo\\te $x 'y' ü" + "z" * 150))
    client = Client(broker.start(), "one")
    client.publish("a", b"b")
    client.close()
    broker.stop()


def test_ctrl_c_in_the_terminal_does_not_reach_it(broker: EmbeddedBroker) -> None:
    assert broker.pid is not None
    assert os.getsid(broker.pid) != os.getsid(0)


# --- killed ---------------------------------------------------------------------------------------


def test_what_was_acknowledged_outlives_a_kill(broker: EmbeddedBroker) -> None:
    listener = Client(broker.url, "listener", clean=False)
    assert listener.subscribe("kept/+") == 1
    listener.close()
    sender = Client(broker.url, "sender")
    for number in range(20):
        sender.publish(f"kept/{number}", b"%d" % number)
    sender.paho.loop_stop()
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)
    assert wait_until(lambda: broker.pid is None, 5.0)

    listener = Client(broker.start(), "listener", clean=False)
    received = {int(listener.messages.get(timeout=10).payload) for _ in range(20)}
    listener.close()
    assert received == set(range(20))


def test_an_orphan_is_ended_and_its_port_used_again(data_dir: Path, killable_up) -> None:
    [pid] = pids_inside([data_dir / "broker"])
    orphan = ProcessId.of(pid)
    assert orphan is not None
    killable_up.kill()
    assert orphan.runs()
    said: list[str] = []
    broker = EmbeddedBroker(data_dir, say=said.append)
    assert broker.start() == killable_up.mqtt_url
    assert not orphan.runs()
    assert said[0] == "ending the broker that an earlier run left behind"
    broker.stop()


def test_one_that_hangs_is_ended(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "STOP_S", 0.2)
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    broker.stop()
    assert pids_inside([broker.data_dir]) == []


# --- ports ----------------------------------------------------------------------------------------


def test_the_asked_port_is_used(data_dir: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    broker = EmbeddedBroker(data_dir, port)
    assert urlsplit(broker.start()).port == port
    broker.stop()


def test_a_taken_port_is_told_with_a_remedy(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            PortTaken, match=f"port {port} of 127.0.0.1 can't be used: .*--mqtt-port"
        ) as caught:
            EmbeddedBroker(data_dir, port).start()
        assert caught.value.port == port


def test_when_the_last_port_is_taken_another_is_used(broker: EmbeddedBroker) -> None:
    port = broker.port
    broker.stop()
    with socket.create_server(("127.0.0.1", port)):
        assert urlsplit(broker.start()).port != port


def test_after_a_death_it_comes_back_at_the_same_port_or_not_at_all(broker: EmbeddedBroker) -> None:
    url, pid, port = broker.url, broker.pid, broker.port
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: broker.pid is None, 5.0)
    with socket.create_server(("127.0.0.1", port)):
        for _ in range(2):
            with pytest.raises(PortTaken):
                broker.start()
    assert broker.start() == url


def test_restarted_it_is_another_process_at_the_same_address(broker: EmbeddedBroker) -> None:
    url, pid = broker.url, broker.pid
    broker.restart()
    assert broker.url == url
    assert broker.pid not in {None, pid}


# --- who may and who may not ----------------------------------------------------------------------


def test_without_the_password_nobody_gets_in(broker: EmbeddedBroker) -> None:
    password = urlsplit(broker.url).password
    assert password is not None
    assert connack(broker.port, "ringfence", password) == b"\x20\x02\x00\x00"
    assert connack(broker.port, "ringfence", "guess")[:2] == b"\x20\x02"
    assert connack(broker.port, "ringfence", "guess")[3] == 5
    assert connack(broker.port, "other", password)[3] == 5


def test_the_nats_port_asks_for_the_password_too(broker: EmbeddedBroker) -> None:
    assert broker.pid is not None
    [port] = {port for _, port in listening_on([broker.pid])} - {broker.port}
    with socket.create_connection(("127.0.0.1", port), 5.0) as connection:
        answers = connection.makefile("rb")
        assert b'"auth_required":true' in answers.readline()
        connection.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        assert b"Authorization Violation" in answers.readline()


def test_configuration_and_state_are_private(
    broker: EmbeddedBroker, as_stranger: Callable[[Callable[[], object]], str]
) -> None:
    assert stat.S_IMODE(broker.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(broker.config_path.stat().st_mode) == 0o600
    for path in (broker.config_path, broker.directory / "identity.json", broker.log_path):
        assert as_stranger(path.read_text).startswith("PermissionError")
