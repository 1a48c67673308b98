"""``ringfence quarantine`` beside a share at work: what is replayed is decided, stored once, and told."""

from __future__ import annotations

import json
import time

import pytest
from typer.testing import CliRunner

from geofence import Ruleset, to_rfc3339
from telemetry.mqtt.topics import device_topic
from telemetry.quarantine import app
from tests.end_to_end.conftest import HOME, Database, write_circle_rules
from tests.telemetry.test_share import Station


@pytest.fixture
def database(embedded_database_url):
    database = Database(embedded_database_url)
    yield database
    database.close()


@pytest.fixture
def station(nats_url, embedded_database_url, tmp_path):
    station = Station(nats_url, embedded_database_url, Ruleset.load(write_circle_rules(tmp_path / "rules")))
    yield station
    station.stop()


@pytest.fixture
def ask(embedded_database_url):
    """The command, on this database: exit status and what it printed, as JSON where it is."""

    def run(*arguments: str) -> tuple[int, object]:
        result = CliRunner().invoke(app, [*arguments, "--database-url", embedded_database_url])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, json.loads(result.stdout) if "--json" in arguments else result.stdout

    return run


def _quarantine(database, device_id: str, payload: str) -> int:
    """As an older program that could not read this message would have left it."""
    return database.rows(
        "INSERT INTO quarantine (received_time, batch, payload_bytes, share, topic, reason, detail, payload)"
        " VALUES (now(), 1, length(%s), 0, %s, 'internal_error', 'a bug', %s::text::bytea)"
        " RETURNING quarantine_id",
        payload,
        device_topic("ringfence/v1", device_id, "pings"),
        payload,
    )[0][0]


def _ping(seq: int) -> str:
    time_us = time.time_ns() // 1000 - 5_000_000
    ping = {
        "time": to_rfc3339(time_us),
        "boot": 1,
        "seq": seq,
        "lat": HOME[0],
        "lon": HOME[1],
        "accuracy_m": 5,
    }
    return json.dumps(ping)


def test_what_is_replayed_is_decided_and_stored_once(station, database, ask):
    number = _quarantine(database, "a17", _ping(1))
    status, answer = ask("replay", "--device", "a17", "--dry-run", "--json")
    assert (status, [item["id"] for item in answer["items"]]) == (0, [number])
    assert database.count("quarantine_replays") == 0

    status, answer = ask("replay", str(number), "--json")
    assert status == 0
    (item,) = answer["items"]
    assert item["taken"] is not None
    assert item["refused_again"] is False
    assert database.rows("SELECT device_id, seq FROM pings") == [("a17", 1)]
    assert database.rows("SELECT device_id, rule_id FROM current_violations") == [("a17", "keep-away")]

    assert ask("replay", "--device", "a17", "--json") == (0, {"items": []})  # it was replayed before
    status, answer = ask("replay", str(number), "--again", "--json")
    assert (status, len(answer["items"])) == (0, 1)
    assert database.count("pings") == 1
    assert database.rows("SELECT sum(duplicates) FROM batches") == [(1,)]
    assert len(database.rows("SELECT DISTINCT who FROM quarantine_replays")) == 1


def test_what_is_still_bad_is_refused_again_and_told(station, database, ask):
    good, bad = _quarantine(database, "a17", _ping(1)), _quarantine(database, "b2", "{")
    status, answer = ask("replay", "--reason", "internal_error", "--json")
    assert status == 1
    assert {item["id"]: item["refused_again"] for item in answer["items"]} == {good: False, bad: True}
    _, listed = ask("list", "--device", "b2", "--json")
    assert [item["reason"] for item in listed["items"]] == ["not_json", "internal_error"]
    assert "refused again" in ask("list", "--reason", "internal_error")[1]
    assert database.count("pings") == 1


def test_without_an_engine_a_replay_waits_and_says_so(store_only, database, ask):
    number = _quarantine(database, "a17", _ping(1))
    status, answer = ask("replay", str(number), "--wait", "0", "--json")
    assert (status, answer["items"][0]["taken"]) == (1, None)
    assert "1 wait for the engine" in ask("replay", str(number), "--again", "--wait", "0")[1]


@pytest.fixture
def store_only(embedded_database_url):
    from telemetry.store import Store

    store = Store.open(embedded_database_url)
    store.migrate()
    yield store
    store.close()


def test_a_message_is_shown_as_text_as_bytes_and_raw(store_only, database, ask):
    number = _quarantine(database, "a17", '{"lat": 95}')
    status, shown = ask("show", str(number))
    assert status == 0
    assert "internal_error" in shown
    assert '{"lat": 95}' in shown
    assert ask("show", str(number), "--raw")[1] == '{"lat": 95}'
    assert ask("show", str(number), "--json")[1]["payload"] == b'{"lat": 95}'.hex()
    database.execute(f"UPDATE quarantine SET payload = '\\xa701ff' WHERE quarantine_id = {number}")
    assert "a7 01 ff" in ask("show", str(number))[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay"], "nothing says which messages"),
        (["show", "77"], "no quarantined message has the number 77"),
        (["list", "--since", "yesterday"], "write the time as"),
    ],
)
def test_a_users_error_says_the_remedy(store_only, embedded_database_url, arguments, says):
    result = CliRunner().invoke(app, [*arguments, "--database-url", embedded_database_url])
    assert says in str(result.exception)
