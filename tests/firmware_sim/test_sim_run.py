"""Runs against real brokers: what devices send arrives, once and in order, with their status and answers."""

import json
import resource
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import paho.mqtt.client as paho
import pytest

from firmware_sim.codec import KIND_PHONE, RECORD, lane_of
from firmware_sim.errors import UplinkError
from firmware_sim.fleet import Fleet, Progress, run
from firmware_sim.scenario import build, load, names

ROOT = "ringfence/v1"
START_S = 1_780_000_000


@dataclass
class Listener:
    """A subscriber that keeps everything."""

    client: paho.Client
    got: list[tuple[str, bytes, bool]] = field(default_factory=list)

    def of(self, leaf: str) -> list[tuple[str, bytes]]:
        """Device id and payload of what came on one of the devices' topics."""
        return [(t.split("/")[3], payload) for t, payload, _ in self.got if t.endswith(f"/{leaf}")]


@pytest.fixture
def listen(request: pytest.FixtureRequest, eventually: Callable[..., object]):
    def start(url: str, filters: str = f"{ROOT}/#") -> Listener:
        parts = urlsplit(url)
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"listener-{time.time_ns()}")
        if parts.username:
            client.username_pw_set(parts.username, parts.password)
        listener = Listener(client)
        granted = threading.Event()
        client.on_message = lambda _c, _u, m: listener.got.append((m.topic, m.payload, m.retain))
        client.on_subscribe = lambda *_: granted.set()
        client.connect(parts.hostname, parts.port)
        client.loop_start()
        client.subscribe(filters, qos=1)
        eventually(granted.is_set)
        request.addfinalizer(lambda: (client.disconnect(), client.loop_stop()))
        return listener

    return start


def expected_payloads(
    scenario: str, devices: int, seed: int, ticks: int
) -> dict[tuple[str, str], list[bytes]]:
    """What each device would publish, from the simulation alone."""
    fleet = Fleet(build(load(scenario), devices, seed), seed, START_S)
    sent: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    for _ in range(ticks):
        burst = fleet.step()
        for k, i in enumerate(burst.device):
            sent[fleet.city.device_ids[i], "pings"].append(fleet.payload(burst, k))
        for call in burst.check_ins:
            sent[fleet.city.device_ids[call.device], "checkins"].append(call.payload())
    return sent


@pytest.mark.parametrize(("devices", "exact"), [(12, True), (80, False)])
def test_the_embedded_broker_gets_every_payload_once_and_in_order(
    nats_url: str,
    listen: Callable[..., Listener],
    eventually: Callable[..., object],
    devices: int,
    exact: bool,
) -> None:
    listener = listen(nats_url)
    reports: list[Progress] = []
    duration_s = 7200 if exact else 1800
    done = run(
        nats_url,
        devices=devices,
        seed=5,
        speed=5000.0,
        scenario="storm",
        duration_s=duration_s,
        start_us=START_S * 1_000_000,
        exact_sessions=exact,
        progress=reports.append,
    )
    expected = expected_payloads("storm", devices, 5, duration_s // 5)
    count = sum(map(len, expected.values()))
    assert (done.messages + done.check_ins, done.in_flight) == (count, 0)
    assert done.sessions == (devices if exact else 4)
    eventually(lambda: len(listener.got) >= count + 2 * devices)
    got: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    for leaf in ("pings", "checkins"):
        for device_id, payload in listener.of(leaf):
            got[device_id, leaf].append(payload)
    assert got == expected
    states: dict[str, list[bytes]] = defaultdict(list)
    for device_id, payload in listener.of("status"):
        states[device_id].append(payload)
    assert len(states) == devices
    assert all(
        said[0] != said[-1] and b"online" in said[0] and b"offline" in said[-1] for said in states.values()
    )
    assert reports[-1] == done
    assert reports[-1].eta_s == 0.0
    for topic_name, _, _ in listener.got:
        assert topic_name.split("/")[2] == lane_of(topic_name.split("/")[3])


def test_status_is_retained(
    nats_url: str, listen: Callable[..., Listener], eventually: Callable[..., object]
) -> None:
    run(nats_url, devices=3, seed=1, speed=1000.0, duration_s=30, start_us=START_S * 1_000_000)
    late = listen(nats_url)
    eventually(lambda: len(late.of("status")) == 3)
    assert all(retained and b"offline" in payload for topic_name, payload, retained in late.got)


def test_real_time_means_now(
    nats_url: str, listen: Callable[..., Listener], eventually: Callable[..., object]
) -> None:
    listener = listen(nats_url)
    arrived: list[float] = []
    keep = listener.client.on_message
    listener.client.on_message = lambda c, u, m: (arrived.append(time.time()), keep(c, u, m))
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(nats_url,), kwargs={"devices": 300, "seed": 1, "stop": stop})
    thread.start()
    eventually(lambda: len([1 for _, payload in listener.of("pings") if payload[0] == 0xA7]) >= 12, 30.0)
    stop.set()
    thread.join(10.0)
    assert not thread.is_alive()
    for (name, payload, _), when_s in zip(list(listener.got), arrived, strict=False):
        if name.endswith("/pings") and payload[0] == 0xA7:
            records = np.frombuffer(payload[8 : 8 + 32 * payload[4]], RECORD)
            age_s = when_s - records["time_ms"][-1] / 1000
            assert -0.1 < age_s < 6.0


def test_a_sped_up_run_starts_in_the_past_and_never_passes_now(
    nats_url: str, listen: Callable[..., Listener], eventually: Callable[..., object]
) -> None:
    listener = listen(nats_url)
    before_ms = time.time() * 1000
    run(nats_url, devices=30, seed=2, speed=2000.0, duration_s=3600)
    after_ms = time.time() * 1000
    eventually(lambda: len(listener.of("status")) == 60)
    times = np.concatenate(
        [
            np.frombuffer(payload[8 : 8 + 32 * int.from_bytes(payload[4:6], "little")], RECORD)["time_ms"]
            for _, payload in listener.of("pings")
            if payload[0] == 0xA7
        ]
    ).astype(float)
    assert before_ms - 3605_000 <= times.min() < before_ms - 3400_000
    assert before_ms - 120_000 < times.max() <= after_ms


def test_a_located_device_answers_and_sends_a_fix(
    nats_url: str, listen: Callable[..., Listener], eventually: Callable[..., object]
) -> None:
    listener = listen(nats_url)
    stop = threading.Event()
    thread = threading.Thread(
        target=run, args=(nats_url,), kwargs={"devices": 70, "seed": 1, "stop": stop, "exact_sessions": False}
    )
    thread.start()
    try:
        city = build(load("city"), 70, 1)
        # an ankle monitor that does nothing at the opening
        i = next(i for i in range(10, 70) if city.kind[i] == 0 and not city.json[i])
        device_id = city.device_ids[i]
        eventually(lambda: len(listener.of("status")) == 70)
        listener.client.publish(
            f"{ROOT}/{lane_of(device_id)}/{device_id}/commands", b'{"id":"c1","command":"locate"}', qos=1
        )
        asked_ms = time.time() * 1000
        eventually(lambda: listener.of("results"), 15.0)
        answer_from, answer = listener.of("results")[0]
        assert answer_from == device_id
        assert json.loads(answer)["id"] == "c1"
        assert json.loads(answer)["result"] == "done"

        def fixes() -> bool:
            mine = [payload for who, payload in listener.of("pings") if who == device_id]
            return any(
                np.frombuffer(payload[8 : 8 + 32 * payload[4]], RECORD)["time_ms"][-1] > asked_ms - 5000
                for payload in mine
            )

        eventually(fixes, 15.0)
    finally:
        stop.set()
        thread.join(10.0)


@pytest.mark.mosquitto
def test_a_killed_device_leaves_its_last_will(
    mosquitto_url: str, listen: Callable[..., Listener], eventually: Callable[..., object]
) -> None:
    from firmware_sim.uplink import Uplink

    listener = listen(mosquitto_url)
    uplink = Uplink(mosquitto_url, ROOT, ["a1", "a2"], sessions=None, on_command=lambda _i, _p: None)
    uplink.open()
    while uplink.in_flight:
        uplink.pump(0.1)
    eventually(lambda: len(listener.of("status")) == 2)
    # the socket is cut without a DISCONNECT
    uplink._sessions[0].client.socket().shutdown(socket.SHUT_RDWR)
    eventually(lambda: len(listener.of("status")) == 3)
    assert listener.of("status")[-1][0] == "a1"
    assert b"offline" in listener.of("status")[-1][1]

    def back() -> bool:
        uplink.pump(0.05)
        return uplink.connected == 2

    eventually(back)
    uplink.close()


def test_messages_survive_a_broker_that_goes_away(
    short_tmp, listen: Callable[..., Listener], eventually: Callable[..., object]
) -> None:
    """The broker is stopped and started again in the middle; every payload arrives, none is invented."""
    from telemetry.services.broker import EmbeddedBroker

    broker = EmbeddedBroker(short_tmp / "broker-restarts")
    url = broker.start()
    done: list[Progress] = []
    progress: list[Progress] = []
    thread = threading.Thread(
        target=lambda: done.append(
            run(
                url,
                devices=40,
                seed=5,
                speed=150.0,
                scenario="storm",
                duration_s=1200,
                start_us=START_S * 1_000_000,
                exact_sessions=False,
                progress=progress.append,
            )
        )
    )
    got = listen(url)
    thread.start()
    try:
        eventually(lambda: progress and progress[-1].messages > 60, 20.0)
        broker.stop()
        eventually(lambda: progress[-1].connected == 0, 20.0)
        assert broker.start() == url
        thread.join(60.0)
        assert not thread.is_alive()
    finally:
        broker.stop()
    expected = expected_payloads("storm", 40, 5, 240)
    seen: dict[tuple[str, str], set[bytes]] = defaultdict(set)
    for device_id, payload in got.of("pings"):
        seen[device_id, "pings"].add(payload)
    assert done[0].in_flight == 0
    assert done[0].messages == sum(len(sent) for (_, leaf), sent in expected.items() if leaf == "pings")
    for pair, payloads in seen.items():
        assert payloads <= set(expected[pair])


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("mqtt://127.0.0.1:1", "no MQTT broker at 127.0.0.1:1"),
        ("http://127.0.0.1", "no broker's address"),
    ],
)
def test_a_broker_that_is_not_there_is_named(url: str, what: str) -> None:
    with pytest.raises(UplinkError, match=what):
        run(url, devices=2, seed=1)


def test_wrong_credentials_are_named(nats_url: str) -> None:
    parts = urlsplit(nats_url)
    with pytest.raises(UplinkError, match="check user and password"):
        run(f"mqtt://ringfence:wrong@{parts.hostname}:{parts.port}", devices=2, seed=1)


def test_phones_send_no_pings() -> None:
    city = build(load("city"), 300, 1)
    phones = {city.device_ids[i] for i in np.flatnonzero(city.kind == KIND_PHONE)}
    assert len(phones) > 5
    sent = expected_payloads("city", 300, 1, 120)
    assert not phones & {device_id for device_id, leaf in sent if leaf == "pings"}


@pytest.mark.mosquitto
def test_thousands_of_devices_have_each_a_session_of_its_own(
    mosquitto_url: str, listen: Callable[..., Listener], eventually: Callable[..., object]
) -> None:
    devices, duration_s = 1500, 60
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < devices + 256:
        pytest.skip(f"{devices} sessions need as many file descriptors; raise `ulimit -n`")
    listener = listen(mosquitto_url)
    reports: list[Progress] = []
    done = run(
        mosquitto_url,
        devices=devices,
        seed=7,
        speed=1000.0,
        duration_s=duration_s,
        start_us=START_S * 1_000_000,
        exact_sessions=True,
        progress=reports.append,
    )
    expected = expected_payloads("city", devices, 7, duration_s // 5)
    count = sum(map(len, expected.values()))
    assert len(expected) > devices / 2
    assert (done.sessions, done.messages + done.check_ins, done.in_flight) == (devices, count, 0)
    eventually(lambda: len(listener.got) >= count + 2 * devices, 30.0)
    got: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    for leaf in ("pings", "checkins"):
        for device_id, payload in listener.of(leaf):
            got[device_id, leaf].append(payload)
    assert got == expected
    assert len({device_id for device_id, _ in listener.of("status")}) == devices


def test_the_help_of_simulate_names_every_scenario() -> None:
    from typer.testing import CliRunner

    from telemetry.cli import app

    said = CliRunner().invoke(app, ["simulate", "--help"], terminal_width=200).output
    assert all(name in said for name in names())
