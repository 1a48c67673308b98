"""The wearer's record, and erasing: what is told, what goes, and that the chains stay whole."""

from __future__ import annotations

import contextlib
import json
import re
import time

import psycopg
import pytest
from typer.testing import CliRunner

from geofence import to_rfc3339
from geofence.units import SECOND_US
from telemetry.access.audit import verify_database
from telemetry.cli import app
from telemetry.store import StoreError
from telemetry.store.erasure import erase
from telemetry.store.records import read_record, worn_by
from tests.telemetry.access.conftest import guarded, roster_town
from tests.telemetry.api.town import MINUTE_US, START_US, fresh_database


@pytest.fixture
def own_town(postgres_url):
    with fresh_database(postgres_url) as url, roster_town(url) as town:
        yield town


def test_the_record_tells_all_and_of_nobody_else(door_api, as_, caseloads):
    url = "/api/v1/participants/p-north/record"
    record = (
        door_api.get(url, params={"positions": True}, headers=as_("supervisor")).raise_for_status().json()
    )
    assert [worn["device_id"] for worn in record["devices"]] == ["a1"]
    assert record["days"][0]["pings"] == len(record["positions"]) == 5
    assert {row["device_id"] for row in record["violations"] + record["alerts"]} == {"a1"}
    assert any(step["change"] == "opened" for step in record["steps"])
    assert record["looks"][-1]["what"] == "record"  # this very look
    text = json.dumps(record)
    assert '"a2"' not in text
    assert "p-south" not in text


def test_the_record_is_a_page_that_loads_nothing(door_api, as_):
    url = "/api/v1/participants/p-north/record"
    page = door_api.get(
        url, headers=as_("supervisor") | {"Accept": "text/html", "Ringfence-Reason": "%3Cb%3E"}
    )
    assert page.headers["content-type"].startswith("text/html")
    assert not re.findall(r"(?:src|href|url)\s*[=(]", page.text)
    assert "&lt;b&gt;" in page.text
    assert "<b>" not in page.text
    policy = page.headers["content-security-policy"]
    assert "'unsafe-inline'" not in policy
    assert "sha256-" in policy
    for title in ("Your devices", "Where the system saw a rule broken", "Who looked at your data"):
        assert f"<h2>{title}</h2>" in page.text
    pdf = door_api.get(f"{url}?format=pdf", headers=as_("supervisor"))
    assert pdf.content.startswith(b"%PDF-")
    assert pdf.headers["content-type"] == "application/pdf"


def test_of_another_caseload_there_is_no_record(door_api, as_, problem):
    hidden = problem(door_api.get("/api/v1/participants/p-south/record", headers=as_("supervisor")), 404)
    unknown = problem(door_api.get("/api/v1/participants/p-nobody/record", headers=as_("supervisor")), 404)
    assert hidden["detail"].replace("p-south", "p-nobody") == unknown["detail"]
    problem(door_api.get("/api/v1/participants/p-north/record", headers=as_("operator")), 403)


def test_a_device_that_was_handed_on_is_in_both_records_for_its_time(own_town):
    handed_us = START_US + 2 * MINUTE_US
    rules = own_town.ruleset.document
    changed = json.loads(json.dumps(rules))
    for device in changed["rules"]["devices"]:
        if device["id"] == "a1":
            device["participant"], device["from"] = "p-later", to_rfc3339(handed_us)
    own_town.store.save_ruleset(changed, "other", handed_us)
    with psycopg.connect(own_town.url) as connection:
        (before,), (after,) = worn_by(connection, "p-north"), worn_by(connection, "p-later")
    assert before.until_us == after.from_us == handed_us
    counts = [
        sum(day["pings"] for day in read_record(own_town.url, name, groups=None, positions=False).days)
        for name in ("p-north", "p-later")
    ]
    assert counts == [2, 3]


def test_an_erasure_takes_what_it_says_and_leaves_the_chains_whole(own_town, query_of):
    alert_id = own_town.alert_ids[0]
    own_town.store.record_alert_action(alert_id, "resolve", "m.ito", note="she was ill", outcome="excused")
    before_us = START_US + 3 * MINUTE_US
    own_town.store.save_snapshot(0, own_town.epoch, own_town.batch, b"state")
    counts = erase(own_town.url, "p-north", before_us, by="clerk", reason="order 7", decisions=False)
    assert counts["pings"] == 3
    assert counts["alert_log"] == 2
    ask = query_of(own_town.url)
    assert ask("SELECT count(*) FROM pings WHERE device_id = 'a1'") == [(2,)]
    assert ask("SELECT count(*) FROM pings WHERE device_id = 'a2'") == [(5,)]
    assert ask(f"SELECT sentence, note, outcome FROM alerts WHERE alert_id = {alert_id}") == [
        ("", None, "excused")
    ]
    assert ask("SELECT count(*) FROM violations WHERE device_id = 'a1'") == [(1,)]
    assert ask("SELECT who, reason, participant FROM access_log WHERE what = 'erase'") == [
        ("clerk", "order 7", "p-north")
    ]
    for table in ("alerts", "alert_log", "pings", "violations", "access_log"):
        assert not ask(f"SELECT FROM {table} WHERE to_json({table})::text LIKE '%she was ill%'")
    verdicts = {v.log: v for v in verify_database(own_town.url, None, lambda *_: None)}
    assert [v.broken for v in verdicts.values()] == [None, None]
    assert verdicts["alert_log"].erased == 2
    erase(own_town.url, "p-north", before_us, by="clerk", reason="order 8", decisions=True)
    assert ask("SELECT count(*) FROM alerts WHERE device_id = 'a1'") == [(0,)]
    assert ask("SELECT count(*) FROM transitions WHERE device_id = 'a1'") == [(0,)]
    own_town.raise_alert("a1", opened_us=START_US + 10 * MINUTE_US)  # and life goes on
    assert all(v.broken is None for v in verify_database(own_town.url, None, lambda *_: None))


def test_an_erasure_takes_the_quarantined_messages_of_the_very_device(own_town, query_of):
    """An underscore in a device's id is itself, and no sign for any character."""
    with psycopg.connect(own_town.url, autocommit=True) as connection:
        connection.execute("UPDATE enrollments SET device_id = 'a_1' WHERE participant = 'p-north'")
        for topic in ("ringfence/v1/a_1/ping", "ringfence/v1/ab1/ping"):
            connection.execute(
                "INSERT INTO quarantine (received_time, batch, payload_bytes, share, topic, reason, detail,"
                " payload) VALUES (now(), 0, 0, 0, %s, 'bad', '', '')",
                (topic,),
            )
    own_town.store.save_snapshot(0, own_town.epoch, own_town.batch, b"state")
    now_us = time.time_ns() // 1000
    erase(own_town.url, "p-north", now_us, by="clerk", reason="order 9", decisions=False)
    assert query_of(own_town.url)("SELECT topic FROM quarantine") == [("ringfence/v1/ab1/ping",)]


def test_an_erasure_spares_what_a_restart_needs_and_names_who_is_unknown(own_town):
    later_us = START_US + 3600 * SECOND_US
    with pytest.raises(StoreError, match="still needed"):
        erase(own_town.url, "p-north", later_us, by="clerk", reason="x", decisions=False)
    with pytest.raises(StoreError, match="no roster names"):
        erase(own_town.url, "p-nobody", START_US, by="clerk", reason="x", decisions=False)


def test_the_commands_do_it(own_town, tmp_path):
    run = CliRunner().invoke
    at = ["--database-url", own_town.url]
    out = tmp_path / "record.html"
    assert run(app, ["record", "p-north", "--out", str(out), "--reason", "he asked", *at]).exit_code == 0
    assert "he asked" in out.read_text()
    own_town.store.save_snapshot(0, own_town.epoch, own_town.batch, b"state")
    done = run(
        app,
        [
            "erase",
            "p-north",
            "--before",
            to_rfc3339(START_US + 2 * MINUTE_US),
            "--reason",
            "order",
            "--yes",
            *at,
        ],
    )
    assert done.exit_code == 0, done.output
    assert "pings: 2 rows" in done.output
    verdict = json.loads(run(app, ["audit", "verify", "--json", *at]).stdout)
    assert verdict["ok"]
    added = run(
        app, ["user", "add", "m.ito", "--role", "operator", "--group", "north", "--password-stdin", *at],
        input="four random words\n",
    )  # fmt: skip
    assert added.exit_code == 0, added.output
    token = json.loads(
        run(app, ["token", "add", "sync", "--role", "supervisor", "--everyone", "--json", *at]).stdout
    )
    with guarded(own_town.url) as client:
        bearer = {"Authorization": f"Bearer {token['token']}"}
        looks = client.get("/api/v1/looks", headers=bearer).raise_for_status().json()["items"]
    assert [look["what"] for look in looks] == ["token", "account", "erase", "record"]
    assert token["token"] not in json.dumps(looks)
    assert run(app, ["token", "revoke", token["token_id"], *at]).exit_code == 0
    assert json.loads(run(app, ["token", "list", "--json", *at]).stdout)[0]["revoked_at"]
    with psycopg.connect(own_town.url, autocommit=True) as connection:
        connection.execute("ALTER TABLE access_log DISABLE TRIGGER USER")
        connection.execute("UPDATE access_log SET who = 'x' WHERE link = 1")
    broken = run(app, ["audit", "verify", "--json", *at])
    assert broken.exit_code == 1
    assert json.loads(broken.stdout)["logs"][0]["broken"]["link"] == 1


@pytest.fixture
def query_of():
    with contextlib.ExitStack() as stack:
        yield (
            lambda url: (
                lambda sql: stack.enter_context(psycopg.connect(url, autocommit=True)).execute(sql).fetchall()
            )
        )
