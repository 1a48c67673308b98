"""The frame scanner against a slow parser written from the standard, and against paho on the same bytes."""

from __future__ import annotations

import random
import socket
from hashlib import sha256
from itertools import pairwise

import paho.mqtt.client as paho
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from telemetry.mqtt import scanner as scanner_module
from telemetry.mqtt.inbox import Owed
from telemetry.mqtt.oversize import MAX_PAYLOAD_BYTES, PREFIX_BYTES, Oversize
from telemetry.mqtt.plain import PlainReceiver
from telemetry.mqtt.scanner import FrameReader, ScannerReceiver
from telemetry.mqtt.topics import OVERSIZE, Topics

CONNACK = {4: b"\x20\x02\x00\x00", 5: b"\x20\x03\x00\x00\x00"}
VERSIONS = st.sampled_from([4, 5])
PROPERTIES = [
    b"",
    b"\x01\x01",  # payload format: text
    b"\x02\x00\x00\x0e\x10",  # message expiry
    b"\x03\x00\x04json\x08\x00\x01r\x09\x00\x02\x00\xff",  # content type, response topic, correlation data
    b"\x26\x00\x01k\x00\x03abc" * 12,  # user properties: more than 127 bytes
    b"\x0b\x07\x0b\xff\xff\x7f",  # subscription identifiers
]


def varint(number: int) -> bytes:
    out = bytearray()
    while True:
        number, digit = divmod(number, 128)
        out.append(digit | (128 if number else 0))
        if not number:
            return bytes(out)


def publish(
    topic: bytes,
    payload: bytes,
    packet_id: int = 0,
    *,
    again: bool = False,
    retain: bool = False,
    properties: bytes | None = None,
) -> bytes:
    """A PUBLISH packet; of MQTT 5 where properties are given."""
    head = len(topic).to_bytes(2, "big") + topic + (packet_id.to_bytes(2, "big") if packet_id else b"")
    body = head + (b"" if properties is None else varint(len(properties)) + properties) + payload
    return bytes([0x30 | again << 3 | bool(packet_id) << 1 | retain]) + varint(len(body)) + body


def naive_properties(data: bytes) -> bool:
    """Whether these are properties that a PUBLISH of MQTT 5 may have, an alias apart (section 3.3.2.3)."""
    while data:
        kind, data = data[0], data[1:]
        if kind in (0x01, 0x02):
            size = {0x01: 1, 0x02: 4}[kind]
        elif kind in (0x03, 0x08, 0x09):
            size = 2 + int.from_bytes(data[:2], "big") if len(data) >= 2 else 2
        elif kind == 0x26:
            size = 2 + int.from_bytes(data[:2], "big") if len(data) >= 2 else 2
            rest = data[size:]
            size += 2 + int.from_bytes(rest[:2], "big") if len(rest) >= 2 else 2
        elif kind == 0x0B:
            size = next((i + 1 for i, digit in enumerate(data[:4]) if digit < 128), 5)
        else:
            return False
        if size > len(data):
            return False
        data = data[size:]
    return True


def naive(stream: bytes, version: int = 4) -> tuple[list[tuple], bytes, bool]:
    """Messages, control packets, and whether the stream is malformed (MQTT 3.1.1 or 5, sections 2.2, 3.3)."""
    messages, control, at = [], b"", 0
    while at < len(stream):
        remaining, digits = 0, 0
        while True:
            if at + 1 + digits >= len(stream):
                return messages, control, False
            digit = stream[at + 1 + digits]
            remaining += (digit & 127) * 128**digits
            digits += 1
            if digit < 128:
                break
            if digits == 4:
                return messages, control, True
        frame = stream[at : at + 1 + digits + remaining]
        body = frame[1 + digits :]
        whole = len(body) == remaining
        if frame[0] >> 4 == 3:
            qos = frame[0] >> 1 & 3
            if qos > 1 or remaining < 2:
                return messages, control, True
            if len(body) >= 2:
                length = int.from_bytes(body[:2], "big")
                if length == 0 or 2 + length + 2 * qos > remaining:
                    return messages, control, True
                rest = body[2 + length :]
                packet_id = int.from_bytes(rest[:2], "big") if qos else 0
                payload, left = rest[2 * qos :], remaining - 2 - length - 2 * qos
                if version == 5:
                    size, digits = 0, 0
                    while digits < 4:
                        if digits == left:
                            return messages, control, True  # no room for their length
                        if digits == len(payload):
                            return messages, control, False  # not there yet
                        size += (payload[digits] & 127) * 128**digits
                        digits += 1
                        if payload[digits - 1] < 128:
                            break
                    else:
                        return messages, control, True
                    if digits + size > left or size > 1 << 16:
                        return messages, control, True
                    if digits + size > len(payload):
                        return messages, control, False
                    if not naive_properties(payload[digits : digits + size]):
                        return messages, control, True
                    payload = payload[digits + size :]
                if whole:
                    messages.append((body[2 : 2 + length], payload, packet_id, bool(frame[0] & 8)))
        elif remaining > MAX_PAYLOAD_BYTES - 10:
            return messages, control, True
        elif whole:
            control += frame
        if not whole:
            return messages, control, False
        at += len(frame)
    return messages, control, False


def feed(reader: FrameReader, stream: bytes) -> None:
    """As a socket would: as much as there is room for."""
    view = memoryview(stream)
    while view and reader.protocol_error is None:
        room = reader.room()
        n = min(len(room), len(view))
        room[:n] = view[:n]
        reader.received(n)
        view = view[n:]


class NoOwed(Owed):
    """Keeps copies too, so that all that was parsed can be compared."""

    def receive(self, ids, again):
        self.flags = again.tolist()
        keep, serial = super().receive(ids, again & False)
        return keep, serial


def messages_of(chunk, topics: Topics, flags) -> list[tuple]:
    return [
        (
            topics.names[chunk.topic[i]],
            chunk.buffer[chunk.start[i] : chunk.stop[i]].tobytes(),
            int(chunk.receipt.ids[i]),
            flags[i],
        )
        for i in range(len(chunk))
    ]


def scanned(
    pieces: list[bytes], version: int = 4, *, take_often: bool = False
) -> tuple[list[tuple], bytes, bool]:
    topics = Topics()
    reader = FrameReader(topics, version)
    found = []

    def take() -> None:
        owed = NoOwed()
        chunk = reader.take(1, owed)
        if chunk is not None:
            found.extend(messages_of(chunk, topics, owed.flags))

    for piece in pieces:
        feed(reader, piece)
        if take_often:
            take()
    take()
    return found, bytes(reader.control), reader.protocol_error is not None


def expected_of(stream: bytes, version: int = 4) -> tuple[list[tuple], bytes, bool]:
    messages, control, bad = naive(stream, version)
    return [(t.decode("utf-8", "backslashreplace"), *rest) for t, *rest in messages], control, bad


topics_bytes = st.sampled_from(
    [b"a", b"ringfence/v1/8d/a17/pings", b"ringfence/v1/8d/a18/pings", b"\xff\xfe", "ü/x".encode()]
)


@st.composite
def streams(draw, version: int) -> bytes:
    """Good packets of a broker that speaks this version."""
    properties = st.sampled_from(PROPERTIES) if version == 5 else st.none()
    subacks = [b"\x90\x03\x00\x01\x01", b"\x90\x04\x00\x02\x01\x80"]
    if version == 5:
        subacks = [b"\x90\x04\x00\x01\x00\x01", b"\x90\x05\x00\x02\x00\x01\x80"]
    packets = st.one_of(
        st.builds(
            publish,
            topics_bytes,
            st.binary(max_size=40),
            st.sampled_from([0, 1, 2, 255, 256, 65_535]),
            again=st.booleans(),
            retain=st.booleans(),
            properties=properties,
        ),
        st.builds(
            publish,
            topics_bytes,
            st.integers(100, 400).map(bytes),
            st.integers(0, 65_535),
            properties=properties,
        ),
        st.sampled_from([b"\xd0\x00", b"\x40\x02\x00\x07", *subacks]),
    )
    return b"".join(draw(st.lists(packets, max_size=8)))


@st.composite
def mutated(draw, version: int) -> bytes:
    stream = bytearray(draw(streams(version)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(stream)))
        what = draw(st.sampled_from(["set", "cut", "put"]))
        if what == "set" and at < len(stream):
            stream[at] = draw(st.integers(0, 255))
        elif what == "cut":
            del stream[at : at + draw(st.integers(1, 9))]
        else:
            stream[at:at] = draw(st.binary(max_size=9))
    return bytes(stream)


good = VERSIONS.flatmap(lambda version: st.tuples(st.just(version), streams(version)))
bad = VERSIONS.flatmap(
    lambda version: st.tuples(st.just(version), mutated(version) | st.binary(max_size=200))
)


@given(stream=good)
@settings(max_examples=40, deadline=None)
def test_every_split_point_gives_the_same(stream):
    version, stream = stream
    expected = expected_of(stream, version)
    assert not expected[2]
    for cut in range(len(stream) + 1):
        assert scanned([stream[:cut], stream[cut:]], version) == expected
    assert scanned([stream[i : i + 1] for i in range(len(stream))], version, take_often=True) == expected


@given(stream=bad, cuts=st.lists(st.integers(0, 400), max_size=6))
@settings(max_examples=1000, deadline=None)
def test_mutated_streams_are_parsed_as_the_standard_says(stream, cuts):
    version, stream = stream
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(places)]
    assert scanned(pieces, version, take_often=True) == expected_of(stream, version)


@pytest.mark.parametrize("payload_bytes", [(1 << 20) - 40, 1 << 20, (1 << 20) + 1, MAX_PAYLOAD_BYTES])
def test_frames_up_to_the_limit_fill_a_growing_buffer(payload_bytes):
    large = random.Random(payload_bytes).randbytes(payload_bytes)
    stream = publish(b"a", b"x", 1) + publish(b"b", large, 2) + publish(b"a", b"y", 3)
    found, control, bad = scanned(
        [stream[i : i + 300_000] for i in range(0, len(stream), 300_000)], take_often=True
    )
    assert [m[:3] for m in found] == [("a", b"x", 1), ("b", large, 2), ("a", b"y", 3)]
    assert (control, bad) == (b"", False)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("step", [1 << 16, 777_777, 1 << 30])
def test_of_a_larger_frame_prefix_and_hash_are_kept_and_the_rest_is_let_go(step, version):
    large = random.Random(step).randbytes(3 * MAX_PAYLOAD_BYTES + 17)
    extra = {"properties": PROPERTIES[4]} if version == 5 else {}
    stream = publish(b"a", b"x", 1, **extra) + publish(b"r/\xff", large, 2, again=True, **extra)
    stream += publish(b"a", b"y", 3, **extra)
    topics = Topics()
    reader = FrameReader(topics, version)
    for at in range(0, len(stream), step):
        feed(reader, stream[at : at + step])
        assert len(reader._buffer) <= scanner_module.MAX_FRAME_BYTES
    owed = NoOwed()
    chunk = reader.take(1, owed)
    found = messages_of(chunk, topics, owed.flags)
    assert [m[0] for m in found] == ["a", r"r/\xff", "a"]
    assert [m[2:] for m in found] == [(1, False), (2, True), (3, False)]
    assert topics.kind[chunk.topic].tolist() == [0, OVERSIZE, 0]
    assert Oversize.unpack(found[1][1]) == Oversize(len(large), sha256(large).digest(), large[:PREFIX_BYTES])
    assert (found[0][1], found[2][1]) == (b"x", b"y")


def test_more_messages_and_topics_than_the_columns_hold():
    n = 3 * scanner_module.MESSAGES_PER_SCAN // 2
    stream = b"".join(publish(b"t/%d" % (i % 9000), b"", i % 65_535 + 1) for i in range(n))
    found, _, _ = scanned([stream])
    assert [m[0] for m in found] == [f"t/{i % 9000}" for i in range(n)]
    assert [m[2] for m in found] == [i % 65_535 + 1 for i in range(n)]


def test_a_qos_2_publish_is_a_protocol_error():
    reader = FrameReader(Topics())
    feed(reader, publish(b"a", b"x", 1) + b"\x34" + publish(b"a", b"y", 2)[1:])
    assert "QoS 2" in reader.protocol_error
    assert len(reader.take(1, Owed())) == 1


@pytest.mark.parametrize("topic", [b"", b"a"])
def test_a_topic_alias_is_a_protocol_error(topic):
    reader = FrameReader(Topics(), 5)
    alias = publish(topic, b"y", 2, properties=b"\x23\x00\x01")
    feed(reader, publish(b"a", b"x", 1, properties=b"") + alias)
    assert "topic alias" in reader.protocol_error
    assert len(reader.take(1, Owed())) == 1


def test_properties_without_end_are_a_protocol_error_and_fill_no_memory():
    reader = FrameReader(Topics(), 5)
    feed(reader, publish(b"a", b"", 1, properties=PROPERTIES[4] * 1000))
    assert "malformed" in reader.protocol_error
    assert len(reader._buffer) <= 1 << 20


# --- the same bytes through paho ------------------------------------------------------------------------


class Pair:
    """A receiver with its paho client, connected to us by TCP; we play the broker."""

    def __init__(self, make, version: int = 4) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.topics = Topics()
            self.client = paho.Client(
                CallbackAPIVersion.VERSION2,
                client_id="x",
                clean_session=None if version == 5 else False,
                protocol=version,
                reconnect_on_failure=False,
                manual_ack=True,
            )
            self.client.on_socket_register_write = lambda *_: None
            self.receiver = make(self.client, self.topics, None, version)
            self.receiver.begin()
            self.client.connect_async("127.0.0.1", listener.getsockname()[1], 60)
            self.client.reconnect()
            self.far, _ = listener.accept()
        self.client.loop_write()
        self.far.recv(1000)
        self.found: list[tuple] = []
        self.feed(CONNACK[version])
        assert self.client.is_connected()

    @property
    def alive(self) -> bool:
        return self.client.socket() is not None and self.receiver.protocol_error is None

    def feed(self, data: bytes) -> None:
        self.far.sendall(data)
        for _ in range(len(data) + 2):
            if not self.alive:
                break
            self.receiver.read()
        owed = NoOwed()
        chunk = self.receiver.take(1, owed)
        if chunk is not None:
            self.found += messages_of(chunk, self.topics, owed.flags)

    def close(self) -> None:
        self.far.close()
        self.client.disconnect()
        self.client.loop_write()


def both(stream: bytes, cuts: list[int], version: int) -> tuple[Pair, Pair]:
    plain, fast = Pair(PlainReceiver, version), Pair(ScannerReceiver, version)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for begin, end in pairwise(places):
        for pair in (plain, fast):
            if pair.alive and end > begin:
                pair.feed(stream[begin:end])
    plain.close()
    fast.close()
    return plain, fast


@given(stream=good, cuts=st.lists(st.integers(0, 600), max_size=4))
@settings(max_examples=80, deadline=None)
def test_good_streams_are_the_same_to_paho_and_to_the_scanner(stream, cuts):
    version, stream = stream
    plain, fast = both(stream, cuts, version)
    assert fast.found == plain.found == expected_of(stream, version)[0]


@given(stream=bad, cuts=st.lists(st.integers(0, 600), max_size=3))
@settings(max_examples=200, deadline=None)
def test_of_mutated_streams_the_scanner_takes_what_paho_takes(stream, cuts):
    version, stream = stream
    plain, fast = both(stream, cuts, version)
    # The scanner may be some messages ahead of a control packet that makes paho end the connection.
    assert fast.found[: len(plain.found)] == plain.found


@pytest.mark.parametrize("make", [PlainReceiver, ScannerReceiver])
def test_acknowledgements_are_pubacks_in_order(make):
    import numpy as np

    pair = Pair(make)
    pair.receiver.acknowledge(np.array([1, 258, 65_535], np.uint16))
    pair.client.loop_write()
    pair.receiver.flush()
    pair.far.settimeout(5)
    received = b""
    while len(received) < 12:
        received += pair.far.recv(100)
    assert received == b"\x40\x02\x00\x01\x40\x02\x01\x02\x40\x02\xff\xff"
    pair.close()


def test_writes_that_the_socket_does_not_take_at_once_are_kept_in_order():
    import numpy as np

    pair = Pair(ScannerReceiver)
    ids = np.arange(1, 65_536).astype(np.uint16)
    expected = b"".join(b"\x40\x02" + int(i).to_bytes(2, "big") for i in ids)
    rounds = 0
    while not pair.receiver.wants_write and rounds < 200:
        pair.receiver.acknowledge(ids)
        rounds += 1
    assert pair.receiver.wants_write
    pair.client.publish("after", b"", qos=0)
    pair.client.loop_write()
    received = b""
    pair.far.settimeout(5)
    while len(received) < rounds * len(expected) + 9:
        received += pair.far.recv(1 << 20)
        pair.receiver.flush()
    assert received == expected * rounds + publish(b"after", b"")
    pair.close()
