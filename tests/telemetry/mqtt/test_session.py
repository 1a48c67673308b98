"""The session against real brokers: nothing is acknowledged too early, nothing is lost; problems are told."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from typing import NamedTuple

import pytest

from telemetry.mqtt import session as session_module
from telemetry.mqtt.oversize import MAX_PAYLOAD_BYTES, PREFIX_BYTES, Oversize
from telemetry.mqtt.plain import PlainReceiver
from telemetry.mqtt.scanner import BLOCK_BYTES, BYTES_PER_TURN, ScannerReceiver
from telemetry.mqtt.session import MqttError, Session
from telemetry.mqtt.topics import OVERSIZE, PINGS, Topics, device_topic

FILTERS = ["ringfence/v1/+/+/pings", "ringfence/v1/+/+/status", "owntracks/+/+"]
PINGS_TOPIC = device_topic("ringfence/v1", "a17", "pings")
STATUS_TOPIC = device_topic("ringfence/v1", "a17", "status")


class Message(NamedTuple):
    payload: bytes
    topic: str = PINGS_TOPIC
    retain: bool = False


def send(session: Session, *payloads: bytes, topic: str = PINGS_TOPIC, retain: bool = False) -> None:
    messages = [Message(payload, topic, retain) for payload in payloads]
    assert session.publish(messages, 20.0) == [True] * len(messages)


def payloads(messages) -> list[bytes]:
    return [] if messages is None else [messages.payload(i) for i in range(len(messages))]


def collect(session: Session, count: int, timeout_s: float = 15.0) -> tuple[list[bytes], list]:
    """At least ``count`` payloads, and the batches that they came in."""
    found: list[bytes] = []
    batches = []
    deadline_s = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < deadline_s:
        messages = session.receive(0.1, 10_000)
        if messages is not None:
            found += payloads(messages)
            batches.append(messages)
    assert len(found) >= count, f"{len(found)} of {count} came"
    return found, batches


def nothing_comes(session: Session, for_s: float) -> bool:
    found = payloads(session.receive(for_s, 10))
    assert found == []
    return True


# --- receiving and acknowledging ------------------------------------------------------------------------


def test_messages_arrive_in_order_as_columns(broker_url, sessions):
    engine, device = sessions(broker_url, "engine", FILTERS), sessions(broker_url, "device")
    sent = [b"%d" % i for i in range(3000)]
    began_us = time.time_ns() // 1000
    send(device, *sent)
    found, batches = collect(engine, len(sent))
    assert found == sent
    for messages in batches:
        assert {messages.topics.names[slot] for slot in messages.topic} == {PINGS_TOPIC}
        assert (messages.topics.kind[messages.topic] == PINGS).all()
        assert (
            (messages.received_time_us >= began_us) & (messages.received_time_us <= time.time_ns() // 1000)
        ).all()


def test_a_receive_takes_no_more_than_it_is_asked_for_and_gathers_what_comes_together(broker_url, sessions):
    engine, device = sessions(broker_url, "engine", FILTERS), sessions(broker_url, "device")
    send(device, *[b"%d" % i for i in range(100)])
    first = engine.receive(5.0, 7)
    rest, _ = collect(engine, 100 - len(first))
    assert len(first) <= 7
    assert payloads(first) + rest == [b"%d" % i for i in range(100)]
    assert engine.receive(0.01, 10) is None


def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(broker_url, sessions):
    device = sessions(broker_url, "device")
    engine = sessions(broker_url, "engine", FILTERS)
    send(device, b"one", b"two")
    _, batches = collect(engine, 2)
    for messages in batches:
        messages.acknowledge()
    send(device, b"three")
    collect(engine, 1)
    engine.close(5.0)
    engine = sessions(broker_url, "engine", FILTERS)
    assert engine.session_present
    found, _ = collect(engine, 1)
    assert found == [b"three"]
    assert nothing_comes(engine, 1.5)


def test_acknowledgements_go_out_when_the_session_closes(broker_url, sessions):
    device = sessions(broker_url, "device")
    engine = sessions(broker_url, "engine", FILTERS)
    send(device, *[b"%d" % i for i in range(500)])
    _, batches = collect(engine, 500)
    for messages in batches:
        messages.acknowledge()
    engine.close(5.0)
    engine = sessions(broker_url, "engine", FILTERS)
    assert nothing_comes(engine, 1.5)


def test_messages_sent_while_the_engine_is_away_wait_for_it(broker_url, sessions):
    device = sessions(broker_url, "device")
    sessions(broker_url, "engine", FILTERS).close(5.0)
    send(device, b"meanwhile")
    engine = sessions(broker_url, "engine", FILTERS)
    assert collect(engine, 1)[0] == [b"meanwhile"]


def test_an_acknowledgement_is_void_on_another_connection(broker_url, sessions, wires):
    wire = wires(broker_url)
    device, engine = sessions(broker_url, "device"), sessions(wire.url, "engine", FILTERS)
    send(device, b"precious")
    _, (before,) = collect(engine, 1)
    wire.cut()
    found, (again,) = collect(engine, 1)  # it reconnected, and the broker sent it once more
    assert found == [b"precious"]
    assert wire.connections == 2
    before.acknowledge()
    send(device, b"marker")
    assert collect(engine, 1)[0] == [b"marker"]
    wire.cut()
    found, _ = collect(engine, 2)
    assert sorted(found) == [b"marker", b"precious"]  # the old receipt acknowledged nothing
    again.acknowledge()


def test_acknowledging_twice_is_harmless(broker_url, sessions):
    device, engine = sessions(broker_url, "device"), sessions(broker_url, "engine", FILTERS)
    for number in range(3):
        send(device, b"%d" % number)
        _, (messages,) = collect(engine, 1)
        messages.acknowledge()
        messages.acknowledge()
    assert engine.ready
    engine.close(5.0)
    assert nothing_comes(sessions(broker_url, "engine", FILTERS), 1.5)


def test_a_message_that_nats_sends_again_inside_the_session_arrives_once(nats, sessions, eventually):
    url = nats()
    device, engine = sessions(url, "device"), sessions(url, "engine", FILTERS)
    send(device, b"slow")
    _, (messages,) = collect(engine, 1)
    assert nothing_comes(engine, 2.5)  # two ack_waits
    messages.acknowledge()
    eventually(lambda: engine._owed.count == 0)
    assert nothing_comes(engine, 1.5)
    engine.close(5.0)
    assert nothing_comes(sessions(url, "engine", FILTERS), 1.5)


def test_retained_and_qos_0_messages_arrive_and_need_no_acknowledgement(broker_url, sessions):
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    device = sessions(broker_url, "device")
    send(device, b'"online"', topic=STATUS_TOPIC, retain=True)
    engine = sessions(broker_url, "engine", FILTERS)
    found, (retained,) = collect(engine, 1)
    assert found == [b'"online"']
    retained.acknowledge()
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", int(broker_url.rsplit(":", 1)[1]))
    client.loop_start()
    client.publish(PINGS_TOPIC, b"qos 0", qos=0).wait_for_publish(5)
    found, (messages,) = collect(engine, 1)
    assert found == [b"qos 0"]
    messages.acknowledge()
    client.disconnect()
    client.loop_stop()
    send(device, b"qos 1")
    assert collect(engine, 1)[0] == [b"qos 1"]


def test_of_a_message_that_is_too_large_a_prefix_and_a_hash_arrive(nats, sessions):
    from hashlib import sha256

    url = nats(top="max_payload: 4MB")
    device, engine = sessions(url, "device"), sessions(url, "engine", FILTERS)
    large = bytes(range(256)) * (MAX_PAYLOAD_BYTES // 256) + b"!"
    send(device, b"before", large, b"after")
    found, batches = collect(engine, 3)
    assert (found[0], found[2]) == (b"before", b"after")
    assert Oversize.unpack(found[1]) == Oversize(len(large), sha256(large).digest(), large[:PREFIX_BYTES])
    kinds = [int(m.topics.kind[slot]) for m in batches for slot in m.topic]
    assert kinds == [PINGS, OVERSIZE, PINGS]
    for messages in batches:
        messages.acknowledge()
    engine.close(5.0)
    assert nothing_comes(sessions(url, "engine", FILTERS), 1.5)


def test_a_full_inbox_stops_reading_and_loses_nothing(broker_url, sessions, monkeypatch, eventually):
    monkeypatch.setattr("telemetry.mqtt.inbox.MAX_BYTES", 200_000)
    device, engine = sessions(broker_url, "device"), sessions(broker_url, "engine", FILTERS)
    sent = [b"%04d" % i * 10_000 for i in range(300)]  # 12 MB
    sender = threading.Thread(target=send, args=(device, *sent))
    sender.start()
    eventually(lambda: engine._inbox.is_full)
    time.sleep(0.3)  # time to overrun, if it would
    # it is asked once a turn: a turn reads up to its budget, and one block and a message beyond
    assert engine._inbox._bytes < 200_000 + BYTES_PER_TURN + BLOCK_BYTES + len(sent[0])
    waiting = len(engine._inbox)
    assert not engine.idle
    found, _ = collect(engine, len(sent))
    assert waiting < len(sent)
    assert found == sent
    sender.join()


def test_idle_means_that_all_was_taken(broker_url, sessions, eventually):
    device, engine = sessions(broker_url, "device"), sessions(broker_url, "engine", FILTERS)
    eventually(lambda: engine.idle, 5)
    send(device, b"x")
    eventually(lambda: len(engine._inbox) == 1)
    assert not engine.idle
    messages = engine.receive(1.0, 10)
    messages.acknowledge()
    eventually(lambda: engine.idle, 5)
    send(device, *[b"y"] * 50)
    _, batches = collect(engine, 50)
    assert not engine.idle  # 50 are unacknowledged, as many as ever: the broker's window may be full
    for messages in batches:
        messages.acknowledge()
    eventually(lambda: engine.idle, 5)


# --- connecting again -----------------------------------------------------------------------------------


def test_it_reconnects_and_goes_on(broker_url, sessions, wires, eventually):
    wire = wires(broker_url)
    device, engine = sessions(broker_url, "device"), sessions(wire.url, "engine", FILTERS)
    for round_number in range(3):
        since_us = engine.connected_since_us
        wire.cut()
        eventually(lambda since_us=since_us: engine.connected_since_us not in {since_us, None})
        assert engine.ready
        assert engine.session_present
        send(device, b"round %d" % round_number)
        found = []
        while (
            b"round %d" % round_number not in found
        ):  # what was acknowledged as the wire was cut may come again
            more, (messages, *_) = collect(engine, 1)
            found += more
            messages.acknowledge()
        assert set(found) <= {b"round %d" % past for past in range(round_number + 1)}


def test_while_the_broker_is_away_the_problem_says_so(broker_url, sessions, wires, eventually):
    wire = wires(broker_url)
    engine = sessions(wire.url, "engine", FILTERS)
    assert engine.ready
    wire.close()
    eventually(lambda: not engine.ready)
    eventually(lambda: "refuses connections" in engine.problem, 15)
    assert engine.connected_since_us is None
    assert not engine.idle


def test_two_engines_with_one_client_id_are_told(nats, sessions, eventually):
    url = nats()
    first, second = sessions(url, "engine", FILTERS), sessions(url, "engine", FILTERS)

    def told():
        return any("another client seems to use this client id" in (s.problem or "") for s in (first, second))

    eventually(told, 30, poll_s=0.001)


def test_a_will_is_published_when_the_wire_is_cut_and_not_at_a_goodbye(broker_url, sessions, wires):
    watcher = sessions(broker_url, "watcher", ["ringfence/v1/engine/+/status"])
    wire = wires(broker_url)
    will = Message(b"lost", "ringfence/v1/engine/0/status")
    sessions(wire.url, "polite", will=will).close(5.0)
    assert nothing_comes(watcher, 0.5)
    engine = sessions(wire.url, "engine", will=will)
    wire.close()
    assert collect(watcher, 1)[0] == [b"lost"]
    assert not engine.ready


# --- publishing -----------------------------------------------------------------------------------------


def test_publish_tells_what_the_broker_took(broker_url, sessions, wires, eventually):
    wire = wires(broker_url)
    watcher = sessions(broker_url, "watcher", FILTERS)
    notifier = sessions(wire.url, "notifier")
    assert notifier.publish([], 1.0) == []
    assert notifier.publish([Message(b"%d" % i) for i in range(1200)], 20.0) == [True] * 1200
    assert collect(watcher, 1200)[0] == [b"%d" % i for i in range(1200)]
    wire.close()
    eventually(lambda: not notifier.ready)
    began_s = time.monotonic()
    assert notifier.publish([Message(b"late"), Message(b"later")], 0.3) == [False, False]
    assert time.monotonic() - began_s < 2.0
    notifier.close(5.0)
    assert notifier.publish([Message(b"never")], 5.0) == [False]


def test_publishes_given_up_are_not_sent_behind_the_callers_back(broker_url, sessions, wires, eventually):
    wire = wires(broker_url)
    watcher, notifier = sessions(broker_url, "watcher", FILTERS), sessions(wire.url, "notifier")
    wire.cut()
    eventually(lambda: not notifier.ready or wire.connections > 1)
    given_up = notifier.publish([Message(b"given up")], 0.0)
    eventually(lambda: notifier.ready)
    send(notifier, b"second try")
    found, _ = collect(watcher, 1)
    expected = [b"second try"] if given_up == [False] else [b"given up", b"second try"]
    assert found == expected[: len(found)]


# --- what can be wrong ----------------------------------------------------------------------------------


def refused(url: str, filters=(), **options) -> str:
    session = Session(url, "engine", list(filters), topics=Topics(), **options)
    with pytest.raises(MqttError) as caught:
        session.start()
    assert not session.ready
    assert session.problem == str(caught.value)
    session.close(1.0)
    return str(caught.value)


def test_a_wrong_password_names_the_remedy_and_keeps_it_secret(nats):
    url = nats(top="authorization { user: ada, password: s3cret }")
    for wrong in (url, url.replace("mqtt://", "mqtt://ada:hunter2@")):
        said = refused(wrong)
        assert "refused the session" in said
        assert "mqtt://user:password@host:port" in said
        assert "hunter2" not in said


def test_a_broker_that_speaks_another_version_names_the_remedy(nats):
    said = refused(nats(), protocol="5")
    assert "refused the session" in said
    assert "mqtt_protocol" in said


def test_the_right_password_may_hold_any_character(nats, sessions):
    url = nats(top='authorization { user: ada, password: "p@ss:/%w" }')
    assert sessions(url.replace("mqtt://", "mqtt://ada:p%40ss%3A%2F%25w@"), "engine", FILTERS).ready


def test_a_refused_subscription_is_noticed(nats):
    said = refused(nats(mqtt="max_ack_pending: 40000"), FILTERS)
    assert "refused to subscribe" in said
    assert FILTERS[0] not in said  # the first one fits
    assert FILTERS[1] in said
    assert "max_ack_pending" in said


def test_nobody_listens():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        assert "start the broker" in refused(f"mqtt://127.0.0.1:{sock.getsockname()[1]}")


def test_an_unknown_host():
    assert "correct the host name" in refused("mqtt://nowhere.invalid:1883")


@pytest.fixture
def pretender():
    """``pretender(answer)``: a server that answers whoever comes with these bytes, then waits or closes."""
    listeners = []

    def start(answer: bytes, *, close: bool) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        kept = []

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.recv(100)
                connection.sendall(answer)
                if close:
                    connection.close()
                kept.append(connection)

        threading.Thread(target=serve, daemon=True).start()
        return f"mqtt://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x02\x00", b"\xff" * 40])
def test_something_else_listens_there(pretender, answer):
    said = refused(pretender(answer, close=True))
    assert "does not answer as an MQTT broker" in said
    assert "usually 1883" in said


def test_a_server_that_never_answers_is_given_up(pretender, monkeypatch):
    monkeypatch.setattr(session_module, "HANDSHAKE_TIMEOUT_S", 0.3)
    assert "no answer to our CONNECT" in refused(pretender(b"", close=False))


def test_a_server_that_accepts_but_never_subscribes_is_given_up(pretender, monkeypatch):
    monkeypatch.setattr(session_module, "HANDSHAKE_TIMEOUT_S", 0.3)
    assert "no answer to our SUBSCRIBE" in refused(pretender(b"\x20\x02\x00\x00", close=False), FILTERS)


@pytest.fixture
def keeper():
    """``keeper(frames)``: the URL of a broker that sends these before the SUBACK, and what it then reads."""
    opened = []

    def start(frames) -> tuple[str, bytearray]:
        listener = socket.create_server(("127.0.0.1", 0))
        opened.append(listener)
        read = bytearray()

        def serve():
            connection, _ = listener.accept()
            opened.append(connection)
            connection.recv(1000)
            connection.sendall(b"\x20\x02\x01\x00")
            subscribe = connection.recv(1000)
            for frame in frames:
                connection.sendall(frame)
            connection.sendall(b"\x90" + bytes([2 + len(FILTERS)]) + subscribe[2:4] + b"\1" * len(FILTERS))
            with contextlib.suppress(OSError):
                while data := connection.recv(65_536):
                    read.extend(data)

        threading.Thread(target=serve, daemon=True).start()
        return f"mqtt://127.0.0.1:{listener.getsockname()[1]}", read

    yield start
    for each in opened:
        each.close()


def kept(number: int, payload: bytes) -> bytes:
    """A PUBLISH at QoS 1 of a message that waited; its payload has over 127 bytes."""
    body = len(PINGS_TOPIC).to_bytes(2, "big") + PINGS_TOPIC.encode() + number.to_bytes(2, "big") + payload
    return bytes([0x32, len(body) & 127 | 128, len(body) >> 7]) + body


@pytest.mark.parametrize("receiver", [ScannerReceiver, PlainReceiver])
def test_a_backlog_may_take_longer_than_the_deadline_to_come(keeper, sessions, monkeypatch, receiver):
    monkeypatch.setattr(session_module, "HANDSHAKE_TIMEOUT_S", 1.5)
    began_s, turn, sent = time.monotonic(), threading.Event(), []

    def slowly():
        while time.monotonic() < began_s + 2.5:
            turn.wait(0.02)  # never set: this is the broker's pace
            sent.append(b"%03d" % len(sent) * 50)
            yield kept(len(sent), sent[-1])

    url, _ = keeper(slowly())
    engine = sessions(url, "engine", FILTERS, receiver=receiver)
    assert engine.ready
    assert collect(engine, len(sent))[0] == sent


@pytest.mark.parametrize("receiver", [ScannerReceiver, PlainReceiver])
def test_a_backlog_larger_than_the_inbox_is_taken_before_the_subscription_is_granted(
    keeper, sessions, monkeypatch, eventually, receiver
):
    monkeypatch.setattr("telemetry.mqtt.inbox.MAX_BYTES", 100_000)
    sent = [b"%04d" % i * 2_000 for i in range(2_000)]  # 16 MB: more than the sockets between can hold
    url, read = keeper(kept(i + 1, payload) for i, payload in enumerate(sent))
    engine = sessions(url, "engine", FILTERS, receiver=receiver)
    assert not engine.ready
    assert "still sends what it kept" in engine.problem
    found, batches = collect(engine, len(sent))
    assert found == sent
    eventually(lambda: engine.ready)
    for messages in batches:
        messages.acknowledge()
    wanted = b"".join(b"\x40\x02" + (i + 1).to_bytes(2, "big") for i in range(len(sent)))
    eventually(lambda: bytes(read) == wanted)


@pytest.mark.parametrize(
    "url", ["http://host", "mqtt://", "host:1883", "mqtt://host:99999", "mqtt://host:port"]
)
def test_a_wrong_url(url):
    with pytest.raises(MqttError, match=r"mqtt://user:password@host:1883|1 to 65535"):
        Session(url, "engine", [], topics=Topics())


# --- TLS ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1 and its key; skips where there is no openssl to make one."""
    directory = tmp_path_factory.mktemp("tls")
    key, cert = directory / "key.pem", directory / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-days", "2", "-subj", "/CN=ringfence test", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return cert, key


@pytest.fixture
def tls_url(nats, certificate):
    cert, key = certificate
    return nats(mqtt=f'tls {{ cert_file: "{cert}", key_file: "{key}" }}').replace("mqtt:", "mqtts:")


def test_over_tls(tls_url, certificate, sessions):
    ca_file, _ = certificate
    device = sessions(tls_url, "device", ca_file=ca_file)
    engine = sessions(tls_url, "engine", FILTERS, ca_file=ca_file)
    sent = [b"%d" % i * 2000 for i in range(200)]
    send(device, *sent)
    found, batches = collect(engine, len(sent))
    assert found == sent
    for messages in batches:
        messages.acknowledge()
    engine.close(5.0)
    assert nothing_comes(sessions(tls_url, "engine", FILTERS, ca_file=ca_file), 1.5)


def test_a_certificate_that_nobody_vouches_for(tls_url):
    assert "mqtt_ca" in refused(tls_url)


def test_tls_where_there_is_none(nats):
    assert "does not speak TLS" in refused(nats().replace("mqtt:", "mqtts:"))


def test_no_tls_where_there_is_some(tls_url):
    assert "mqtts://" in refused(tls_url.replace("mqtts:", "mqtt:"))


def test_a_ca_file_that_is_none(tmp_path):
    junk = tmp_path / "ca.pem"
    junk.write_text("junk")
    for path in (junk, tmp_path / "missing.pem"):
        with pytest.raises(MqttError, match="PEM file"):
            Session("mqtts://host", "engine", [], topics=Topics(), ca_file=path)
