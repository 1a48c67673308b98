"""The live stream over a real connection: no gap, no repeat, whoever reconnects and whatever dies."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import httpx
import psycopg
import pytest

from telemetry.alerts.stream import Event, parse
from tests.telemetry.api.town import MINUTE_US, START_US, serving


@contextlib.contextmanager
def listening(client: httpx.Client, last_id: str | None = None, **parameters) -> Iterator[Iterator[Event]]:
    """The events of one connection, heartbeats left out."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with client.stream("GET", "/api/v1/stream", params=parameters, headers=headers, timeout=30) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        yield (event for event in parse(response.iter_bytes()) if event.kind != "beat")


def take(events: Iterator[Event], n: int, kind: str = "alert") -> list[Event]:
    found: list[Event] = []
    for event in events:
        if event.kind == kind:
            found.append(event)
            if len(found) == n:
                return found
    raise AssertionError(f"the stream ended after {len(found)} of {n}")


def alert_ids(events: list[Event]) -> list[int]:
    return [int(json.loads(event.data)["data"]["alert_id"]) for event in events]


def test_an_alert_arrives_as_the_cloudevent_that_mqtt_carries(town, town_api):
    with listening(town_api) as events:
        hello = next(events)
        assert hello.kind == "hello"
        assert json.loads(hello.data) == {"newest_id": "0", "resumed": False}
        alert_id = town.raise_alert("a1")
        (event,) = take(events, 1)
    told = json.loads(event.data)
    assert told == json.loads(town.store.pending(10)[0].payload)
    assert told["type"] == "org.ringfence.alert.opened"
    assert told["data"]["alert_id"] == str(alert_id)


def test_an_operators_step_arrives_too(town, town_api):
    alert_id = town.raise_alert("a1")
    with listening(town_api) as events:
        next(events)
        town_api.post(f"/api/v1/alerts/{alert_id}/acknowledge", json={"who": "m.ito"}).raise_for_status()
        (event,) = take(events, 1)
    assert json.loads(event.data)["type"] == "org.ringfence.alert.acknowledged"


def test_a_client_that_comes_back_gets_what_it_missed_and_nothing_twice(town, town_api):
    with listening(town_api) as events:
        next(events)
        first = town.raise_alert("a1")
        (event,) = take(events, 1)
    missed = [town.raise_alert("a2", opened_us=START_US + i * MINUTE_US) for i in range(30)]
    with listening(town_api, last_id=event.id) as events:
        assert json.loads(next(events).data)["resumed"] is True
        caught_up = take(events, 30)
        later = town.raise_alert("b-1")
        caught_up += take(events, 1)
    assert alert_ids(caught_up) == [*missed, later]
    assert first not in alert_ids(caught_up)
    ids = [int(e.id) for e in caught_up]
    assert ids == sorted(set(ids))


def test_the_id_of_the_greeting_is_a_place_to_come_back_to(town, town_api):
    with listening(town_api) as events:
        hello = next(events)
    missed = town.raise_alert("a1")
    with listening(town_api, last_event_id=hello.id) as events:  # as a parameter, for EventSource
        assert alert_ids(take(events, 1)) == [missed]


def test_an_id_of_another_database_is_told(town_api):
    with listening(town_api, last_id="999999") as events:
        hello = next(events)
    assert json.loads(hello.data) == {"newest_id": "0", "resumed": False}
    assert hello.id == "0"


def test_reconnecting_while_alerts_pour_in_loses_none(town, town_api):
    """Many connections, each cut after a few events, while another thread commits."""
    total = 120
    committed: list[int] = []

    def pour() -> None:
        committed.extend(town.raise_alert("a1", opened_us=START_US + i * MINUTE_US) for i in range(total))

    with listening(town_api) as events:
        last_id = next(events).id
    writer = threading.Thread(target=pour)
    writer.start()
    got: list[int] = []
    while len(got) < total:
        with listening(town_api, last_id=last_id) as events:
            batch = take(events, min(7, total - len(got)))
        last_id = batch[-1].id
        got += alert_ids(batch)
    writer.join()
    assert got == committed


def test_the_stream_goes_on_after_the_server_was_restarted(town):
    with serving(town.url) as url, httpx.Client(base_url=url) as client, listening(client) as events:
        last_id = next(events).id
    missed = town.raise_alert("a1")
    with serving(town.url) as url, httpx.Client(base_url=url) as client, listening(client, last_id) as events:
        assert alert_ids(take(events, 1)) == [missed]


def test_the_stream_survives_the_loss_of_every_database_connection(town, town_api):
    with listening(town_api) as events:
        next(events)
        with psycopg.connect(town.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE '%reader%'"
            )
        alert_id = town.raise_alert("a1")
        assert alert_ids(take(events, 1)) == [alert_id]


def test_every_listener_gets_every_event(town, town_api):
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(listening(town_api)) for _ in range(4)]
        for events in streams:
            next(events)
        raised = [town.raise_alert("a1", opened_us=START_US + i * MINUTE_US) for i in range(5)]
        for events in streams:
            assert alert_ids(take(events, 5)) == raised


def test_positions_say_what_moved_after_the_greeting(town, town_api):
    town.commit(town.walk("a1", 1))
    town.commit(town.walk("a2", 1))
    with listening(town_api, positions="true") as events:
        next(events)
        town.commit(town.walk("a1", 1, from_us=START_US + 5 * MINUTE_US, lat=35.3))
        (event,) = take(events, 1, "positions")
    told = json.loads(event.data)
    assert event.id == ""  # a place in the outbox is not moved by positions
    rows = [dict(zip(told["columns"], row, strict=True)) for row in told["rows"]]
    assert [(row["device_id"], row["lat"]) for row in rows] == [("a1", 35.3)]


def test_positions_are_not_sent_to_who_did_not_ask(town, town_api):
    with listening(town_api) as events:
        next(events)
        town.commit(town.walk("a1", 1))
        town.raise_alert("a1")
        assert next(events).kind == "alert"


@pytest.mark.parametrize("cut", range(1, 12))
def test_the_parser_does_not_care_how_bytes_are_cut(cut):
    text = (
        'retry: 1000\n\nid: 3\nevent: alert\ndata: {"a":"x\u2028y"}\n\n'
        ": beat\n\nevent: positions\ndata: {}\n\n"
    ).encode()
    chunks = [text[i : i + cut] for i in range(0, len(text), cut)]
    assert list(parse(iter(chunks))) == [
        Event("3", "alert", '{"a":"x\u2028y"}'.encode()),
        Event("", "beat", b""),
        Event("", "positions", b"{}"),
    ]
