"""The chain of the logs: linked by the database, checked by code that was written from the definition."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.access.audit import verify_database
from telemetry.access.chain import PERSONAL, Anchor, Chain, fields_bytes, verify
from telemetry.store import Store
from telemetry.store.audit import StoredLogs, stored_logs

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def database(embedded_database_url):
    with migrated(embedded_database_url) as connection:
        yield connection, embedded_database_url


@contextlib.contextmanager
def migrated(url):
    store = Store.open(url)
    store.migrate()
    store.close()
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def log_steps(connection, n, alert_id=7):
    connection.cursor().executemany(
        "INSERT INTO alert_log (alert_id, violation_id, time, recorded_time, change, who, note, sentence)"
        " VALUES (%s, 1, %s, %s, 'acknowledged', %s, %s, %s)",
        [
            (
                alert_id,
                NOON + timedelta(microseconds=i * 1_000_100),
                NOON,
                "m.ito" if i % 2 else None,
                f"née Müller ☎ {i}" if i % 3 else None,
                "left home",
            )
            for i in range(n)
        ],
    )


def look(connection, erasure=None):
    connection.execute(
        "INSERT INTO access_log (time, who, role, how, what, device_id, participant, from_time, reason,"
        " erasure) VALUES (now(), 'm.ito', 'operator', 'session', %s, 'a1', 'p-1', %s, 'court asked', %s)",
        ("erase" if erasure else "track", NOON, erasure),
    )


def checked(url, anchor=None):
    verdicts = {v.log: v for v in verify_database(url, anchor, lambda *_: None)}
    return verdicts["alert_log"], verdicts["access_log"]


def tamper(connection, sql, *values):
    """Past the triggers, as whoever owns the tables can."""
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute(sql, values)


def test_what_the_database_links_is_what_the_definition_says(database_url):
    with migrated(database_url) as connection:
        look_at_first_links(connection, database_url)


def look_at_first_links(connection, url):
    log_steps(connection, 25)
    look(connection)
    alerts, looks = checked(url)
    assert (alerts.rows, alerts.broken, alerts.erased) == (25, None, 0)
    assert (looks.rows, looks.broken) == (1, None)
    with stored_logs(url) as logs:  # the first link by hand, so that not only two programs agree
        row = next(logs.rows("alert_log"))
    text = (
        "8:alert_id1:76:change12:acknowledged4:link1:13:log9:alert_log6:log_id1:1"
        f"13:personal_hash64:{row['personal_hash'].hex()}13:recorded_time25:2026-11-24T12:00:00+00:00"
        "4:time25:2026-11-24T12:00:00+00:0012:violation_id1:1"
    )
    assert row["hash"] == hashlib.sha256(bytes(32) + text.encode()).digest()
    assert row["personal_hash"] == hashlib.sha256(row["salt"] + b"8:sentence9:left home").digest()


ADDED = """
INSERT INTO alert_log (alert_id, violation_id, time, recorded_time, change, link, salt, personal_hash, hash)
SELECT 7, 1, now(), now(), 'resolved', 13, salt, personal_hash, hash FROM alert_log WHERE link = 12
"""
TAMPERED = [
    ("UPDATE alert_log SET who = 'somebody else' WHERE link = 4", 4, "its hash differs"),
    ("UPDATE alert_log SET outcome = 'false' WHERE link = 4", 4, "its hash differs"),
    ("UPDATE alert_log SET time = time - interval '1 us' WHERE link = 4", 4, "its hash differs"),
    ("UPDATE alert_log SET note = 'nothing' WHERE link = 4", 4, "not what was written"),
    ("UPDATE alert_log SET sentence = NULL WHERE link = 4", 4, "not what was written"),
    ("UPDATE alert_log SET salt = NULL, note = NULL, sentence = NULL WHERE link = 4", 4, "salt is gone"),
    ("UPDATE alert_log SET salt = NULL, note = NULL, sentence = NULL, erased_by = 9 WHERE link = 4", 4,
     "erasure 9"),
    ("UPDATE alert_log SET erased_by = 9 WHERE link = 4", 4, "is not blank"),
    ("UPDATE alert_log SET personal_hash = sha256('') WHERE link = 4", 4, "not what was written"),
    ("DELETE FROM alert_log WHERE link = 4", 4, "missing; the next one there is link 5"),
    ("DELETE FROM alert_log WHERE link = 1", 1, "missing"),
    ("UPDATE alert_log SET hash = sha256('') WHERE link = 12", 12, "its hash differs"),
    ("UPDATE alert_log SET link = 20 + link WHERE link = 3", 3, "missing"),
    (ADDED, 13, "not what was written"),
]  # fmt: skip


def test_the_first_broken_link_is_named(database):
    connection, _ = database
    log_steps(connection, 12)
    for change, link, why in TAMPERED:
        with connection.transaction(force_rollback=True):
            tamper(connection, change)
            broken = verify("alert_log", StoredLogs(connection).rows("alert_log"), erasures={}).broken
        assert broken, change
        assert broken[0] == link, change
        assert why in broken[1], change
    with connection.transaction():
        assert verify("alert_log", StoredLogs(connection).rows("alert_log")).broken is None


def test_a_cut_off_end_is_found_by_the_anchor_alone(database, tmp_path):
    connection, url = database
    anchor = tmp_path / "anchor.json"
    log_steps(connection, 5)
    assert checked(url, anchor)[0].broken is None
    noted = json.loads(anchor.read_text())
    assert noted["alert_log"]["link"] == 5
    log_steps(connection, 2)
    assert checked(url, anchor)[0].head.link == 7
    tamper(connection, "DELETE FROM alert_log WHERE link > 5")
    assert checked(url)[0].broken is None
    assert checked(url, anchor)[0].broken == (6, "the log ends here, but the anchor noted link 7")
    log_steps(connection, 3, alert_id=8)  # and written anew, in good order
    link, why = checked(url, anchor)[0].broken
    assert (link, "written anew" in why) == (7, True)
    assert json.loads(anchor.read_text())["alert_log"]["link"] == 7  # a broken log moves no anchor


def test_an_erasure_that_is_logged_leaves_the_chain_whole(database):
    connection, url = database
    log_steps(connection, 4)
    blank = "UPDATE alert_log SET salt = NULL, note = NULL, sentence = NULL, erased_by = 9 WHERE link = 2"
    connection.execute(blank)
    assert checked(url)[0].broken == (2, "it was blanked by erasure 9, which the access log does not know")
    look(connection, erasure=9)
    alerts, looks = checked(url)
    assert (alerts.broken, alerts.erased, looks.broken) == (None, 1, None)
    log_steps(connection, 1)
    assert checked(url)[0].rows == 5


def test_a_blanking_that_no_erasure_can_have_made_is_told(database):
    """Under the number of a real erasure, by whoever owns the tables."""
    connection, url = database
    log_steps(connection, 2)
    look(connection)
    look(connection, erasure=9)
    tamper(connection, "UPDATE access_log SET time = time - interval '1 day' WHERE erasure = 9")
    assert checked(url)[1].broken[0] == 2  # the erasure's own time is in the chain
    tamper(connection, "UPDATE access_log SET time = time + interval '1 day' WHERE erasure = 9")
    blank = "UPDATE alert_log SET salt = NULL, note = NULL, sentence = NULL, erased_by = 9 WHERE link = 2"
    tamper(connection, blank)
    early = {9: datetime(2020, 1, 1, tzinfo=UTC)}
    with stored_logs(url) as logs:
        broken = verify("alert_log", logs.rows("alert_log"), erasures=early).broken
    assert broken == (2, "it was written after erasure 9, which can't have blanked it")
    tamper(
        connection,
        "UPDATE access_log SET salt = NULL, device_id = NULL, participant = NULL, from_time = NULL,"
        " to_time = NULL, reason = NULL, detail = NULL, erased_by = 9 WHERE link = 1",
    )
    assert checked(url)[1].broken == (1, "it is blank, and an erasure blanks nothing in this log")


def test_the_logs_are_append_only(database):
    connection, _ = database
    log_steps(connection, 2)
    look(connection)
    connection.execute("SELECT set_config('ringfence.erasure', '1', false)")
    for change in (
        "UPDATE alert_log SET note = 'x'",
        "UPDATE alert_log SET note = NULL",
        "UPDATE alert_log SET who = 'x', salt = NULL, note = NULL, sentence = NULL, erased_by = 1",
        "UPDATE alert_log SET hash = sha256('')",
        "DELETE FROM alert_log",
        "TRUNCATE alert_log",
        "UPDATE access_log SET who = 'x'",
        "DELETE FROM access_log",
        "TRUNCATE access_log",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            connection.execute(change)


def test_every_column_of_a_log_is_covered(database):
    """A column that somebody adds later must be one that the chain covers: either hash changes with it."""
    connection, url = database
    log_steps(connection, 1)
    look(connection)
    with stored_logs(url) as logs:
        rows = {log: next(logs.rows(log)) for log in PERSONAL}
    other = {int: 99, str: "other", datetime: NOON + timedelta(days=1), bool: True}
    kinds = {
        "bigint": int,
        "integer": int,
        "text": str,
        "timestamp with time zone": datetime,
        "boolean": bool,
    }
    for log, row in rows.items():
        assert Chain(log, None).follow(row) is None
        columns = connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s", (log,)
        ).fetchall()
        for name, kind in columns:
            changed = {"bytea": b"x" * 32}.get(kind) or other[kinds[kind]]
            assert Chain(log, None).follow(row | {name: changed}), f"{log}.{name} can be changed unseen"


def test_writers_side_by_side_make_one_chain(database):
    _, url = database

    def write(alert_id):
        with psycopg.connect(url, autocommit=True) as own:
            for _ in range(10):
                with own.transaction():
                    log_steps(own, 3, alert_id)

    writers = [threading.Thread(target=write, args=(alert_id,)) for alert_id in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    alerts, _ = checked(url)
    assert (alerts.rows, alerts.broken) == (120, None)


def test_a_transaction_that_fails_leaves_no_gap(database):
    connection, url = database
    log_steps(connection, 2)
    with connection.transaction(force_rollback=True):
        log_steps(connection, 2)
    log_steps(connection, 1)
    assert checked(url)[0].rows == 3


values = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.text(st.characters(codec="utf-8")))


@given(
    st.dictionaries(st.text("abc_", min_size=1), values), st.dictionaries(st.text("abc_", min_size=1), values)
)
def test_different_fields_have_different_bytes(one, other):
    def told(fields):
        return {name: str(value) for name, value in fields.items() if value is not None}

    assert (fields_bytes(one) == fields_bytes(other)) == (told(one) == told(other))


def test_an_empty_log_holds_and_misses_its_anchor():
    assert verify("alert_log", []).broken is None
    assert verify("alert_log", [], anchor=Anchor(3, "00")).broken[0] == 1
