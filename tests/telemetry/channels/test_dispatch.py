"""All channels together: nobody waits for one that hangs, and the broker forgets what has ended."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import paho.mqtt.client as mqtt
import pytest

from geofence import TRANSITION, TRANSITION_KINDS, VIOLATION, Decided
from telemetry.channels.dispatch import Dispatch
from telemetry.channels.owntracks import transition_messages
from telemetry.config import Settings
from telemetry.metrics import Metrics
from telemetry.mqtt.session import Session
from telemetry.mqtt.topics import Topics
from tests.telemetry.api.town import MINUTE_US, START_US
from tests.telemetry.channels.conftest import SECRET


class Listener:
    """An MQTT client that keeps what is published, in order."""

    def __init__(self, url: str, pattern: str = "ringfence/v1/alerts/#") -> None:
        address = urlsplit(url)
        self.messages: list[tuple[str, bytes, bool]] = []
        self.subscribed = threading.Event()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        if address.username:
            self.client.username_pw_set(address.username, address.password)
        self.client.on_connect = lambda client, *_: client.subscribe(pattern, 1)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = lambda _c, _u, m: self.messages.append((m.topic, m.payload, m.retain))
        self.client.connect(str(address.hostname), int(address.port or 1883))
        self.client.loop_start()
        assert self.subscribed.wait(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def changes(self) -> list[str]:
        return [json.loads(p)["type"].rpartition(".")[2] if p else "" for _, p, _ in self.messages]


@pytest.fixture
def dispatch(town, nats_url) -> Iterator[Callable[..., Dispatch]]:
    """Starts the channels of these settings over the town."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Dispatch:
            session = Session(nats_url, "ringfence-notify-test", [], topics=Topics())
            stack.callback(session.close, 1.0)
            session.start()
            made = Dispatch(Settings.model_validate(settings), town.url, session, Metrics())
            made.start()
            stack.callback(made.stop, 5.0)
            return made

        yield start


@pytest.fixture
def listener(nats_url) -> Iterator[Callable[[], Listener]]:
    made: list[Listener] = []

    def start() -> Listener:
        made.append(Listener(nats_url))
        return made[-1]

    yield start
    for each in made:
        each.close()


def hooks(*receivers: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": f"hook-{i}",
            "url": r.url,
            "secrets": [SECRET],
            "allow_networks": ["127.0.0.0/8"],
            "timeout_s": 60,
        }
        for i, r in enumerate(receivers)
    ]


def test_a_receiver_that_hangs_delays_nobody(town, receivers, dispatch, listener, query, eventually):
    hung, well = receivers(), receivers()
    hung.hangs = threading.Event()
    heard = listener()
    dispatch(webhooks=hooks(hung, well))
    eventually(lambda: query("SELECT count(*) FROM channels") == [(2,)])
    first = town.raise_alert("a1")
    assert hung.reached.wait(10)
    eventually(lambda: len(well.requests) == 1 and len(heard.messages) == 1)
    second = town.raise_alert("a2")
    eventually(lambda: len(well.requests) == 2 and len(heard.messages) == 2)
    assert len(hung.requests) == 1, "it still hangs over the first"
    assert [r.event["data"]["alert_id"] for r in well.requests] == [str(first), str(second)]
    hung.hangs.set()
    eventually(lambda: len(hung.requests) == 2)


def test_what_is_retained_goes_when_the_alert_ends(town, dispatch, listener, eventually):
    heard = listener()
    dispatch()
    alert_id = town.raise_alert("a1")
    town.store.record_alert_action(alert_id, "acknowledge", "m.ito")
    eventually(lambda: heard.changes() == ["opened", "acknowledged"])
    late = listener()
    eventually(lambda: late.changes() == ["acknowledged"])
    assert late.messages[0][2], "it was retained"
    town.store.record_alert_action(alert_id, "resolve", "m.ito", outcome="real")
    eventually(lambda: heard.changes() == ["opened", "acknowledged", "resolved", ""])
    assert {topic for topic, _, _ in heard.messages} == {f"ringfence/v1/alerts/critical/a1/{alert_id}"}
    town.store.record_alert_action(alert_id, "reopen", "m.ito")
    eventually(lambda: heard.changes()[4:] == ["reopened"])
    town.store.record_alert_action(alert_id, "resolve", "m.ito", outcome="false")
    eventually(lambda: heard.changes()[5:] == ["resolved", ""])
    town.raise_alert("b2")
    last = listener()
    eventually(lambda: last.messages)
    assert [topic.split("/")[4] for topic, _, _ in last.messages] == ["b2"], "nothing of a1 is retained"


def test_the_engine_may_withdraw_an_alert_or_change_its_severity(town, dispatch, listener, eventually):
    heard = listener()
    dispatch()
    alert_id = town.raise_alert("a1", severity="high")
    town.raise_alert("a1", severity="critical", alert_id=alert_id)
    eventually(lambda: len(heard.messages) == 3)
    assert [(topic.split("/")[3], bool(p)) for topic, p, _ in heard.messages] == [
        ("high", True),
        ("critical", True),
        ("high", False),
    ]
    town.withdraw_alert(alert_id, "a1")
    eventually(lambda: heard.changes()[3:] == ["withdrawn", ""])


def test_an_alert_that_was_resolved_is_not_retained_by_what_the_engine_learns_later(
    town, dispatch, listener, eventually
):
    heard = listener()
    dispatch()
    alert_id = town.raise_alert("a1")
    town.store.record_alert_action(alert_id, "resolve", "m.ito", outcome="real")
    town.raise_alert("a1", alert_id=alert_id)
    eventually(lambda: heard.changes() == ["opened", "resolved", "", "opened", ""])


def test_the_message_that_nobody_wakes_for_is_found(town, dispatch, listener, eventually):
    """A row that some other program commits: the database says so."""
    heard = listener()
    dispatch()
    alert_id = town.raise_alert("a1")
    eventually(lambda: len(heard.messages) == 1)
    town.store.record_alert_action(alert_id, "acknowledge", "m.ito")
    eventually(lambda: len(heard.messages) == 2, timeout_s=3.0)


def test_home_assistant_learns_of_a_device_and_its_alerts(town, dispatch, nats_url, query, eventually):
    heard = Listener(nats_url, "#")
    try:
        dispatch(home_assistant="homeassistant")
        eventually(lambda: query("SELECT count(*) FROM channels") == [(1,)])
        low = town.raise_alert("a1", severity="high", rule_id="strap", zone_id=None)
        worst = town.raise_alert("a1", severity="critical")

        def told(part: str) -> list[Any]:
            return [json.loads(p) for topic, p, _ in heard.messages if part in topic]

        eventually(lambda: told("/state") and told("/state")[-1]["open"] == 2)
        (config,) = told("/config")
        assert config["unique_id"] == "ringfence_a1_alert"
        assert config["state_topic"] == "ringfence/v1/home_assistant/a1/state"
        assert config["availability_topic"] == "ringfence/v1/engine/0/status"
        assert [t for t, _, _ in heard.messages if t.endswith("config")] == [
            "homeassistant/binary_sensor/ringfence_a1/alert/config"
        ]
        assert (told("/state")[-1]["alert"], told("/state")[-1]["severity"]) == ("ON", "critical")
        for alert_id in (worst, low):
            town.store.record_alert_action(alert_id, "resolve", "m.ito", outcome="real")
        eventually(lambda: told("/state")[-1]["alert"] == "OFF")
        late = Listener(nats_url, "ringfence/v1/home_assistant/#")
        eventually(lambda: [json.loads(p)["open"] for _, p, retained in late.messages if retained] == [0])
        late.close()
    finally:
        heard.close()


def test_entering_and_leaving_as_owntracks_tells_it(town, dispatch, nats_url, eventually):
    heard = Listener(nats_url, "owntracks/#")
    try:
        dispatch()
        pings = town.walk("a1", 2)
        rows = [
            town.transition("a1", "school-1", TRANSITION_KINDS.index("ENTER"), START_US),
            town.transition("a1", "school-1", TRANSITION_KINDS.index("CROSS"), START_US + MINUTE_US),
            town.transition("a1", "depot", TRANSITION_KINDS.index("EXIT"), START_US + MINUTE_US // 2),
        ]
        decided = Decided(
            town.devices,
            town.ruleset,
            np.array(rows, TRANSITION),
            np.zeros(0, VIOLATION),
            np.zeros(0, np.bool_),
        )
        messages = list(transition_messages(decided, pings, START_US - 1))
        town.commit(pings, outgoing=messages)
        eventually(lambda: len(heard.messages) == 2)
        entered, left = [json.loads(payload) for _, payload, _ in heard.messages]
        assert {topic for topic, _, _ in heard.messages} == {"owntracks/ringfence/a1/event"}
        assert entered == {
            "_type": "transition",
            "event": "enter",
            "desc": "school-1",
            "tst": START_US // 10**6,
            "wtst": START_US // 10**6 - 1,
            "tid": "a1",
            "lat": 35.2,
            "lon": -80.8,
            "acc": 8,
        }
        assert (left["event"], left["desc"], "lat" in left) == ("leave", "depot", False)
    finally:
        heard.close()
