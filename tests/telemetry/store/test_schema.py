"""Migrations, both kinds of database, and what is said when a database can't be used."""

from __future__ import annotations

import subprocess
import threading
import uuid
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from geofence import NO_TIME
from telemetry.store import Retention, SchemaTooNew, Store, StoreError, StoreUnavailable
from telemetry.store.connect import check_server, shown
from telemetry.store.partitions import DAILY, DAY_US
from telemetry.store.schema import VERSION
from tests.telemetry.store.batches import NOW_US


def test_migrating_again_and_at_once_is_harmless(database_url, query):
    errors: list[BaseException] = []

    def migrate() -> None:
        try:
            store = Store.open(database_url)
            store.migrate()
            store.migrate()
            store.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert query("SELECT version FROM ringfence_schema") == [(VERSION,)]


def test_the_kind_of_database_decides_how_tables_are_cut(store, query, request):
    if "timescale" in request.node.callspec.id:
        assert store.extension is not None
        assert store.extension.startswith("timescaledb 2.")
        ((licence,),) = query("SELECT current_setting('timescaledb.license')")
        assert ("Apache edition: no columnstore" in store.extension) == (licence == "apache")
        hypertables = query("SELECT hypertable_name FROM timescaledb_information.hypertables")
        assert {name for (name,) in hypertables} == set(DAILY)
    else:
        assert store.extension is None
        parents = query(
            "SELECT DISTINCT inhparent::regclass::text FROM pg_inherits JOIN pg_class ON oid = inhparent"
            " WHERE relkind = 'p'"
        )
        assert {name for (name,) in parents} == set(DAILY)


def test_every_table_of_the_design_is_there(store, query):
    tables = {name for (name,) in query("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v')")}
    assert tables >= {
        "pings", "transitions", "violations", "current_violations", "alerts", "alert_log", "check_ins",
        "quarantine",
        "zones", "rules", "enrollments", "shares", "batches", "snapshots", "outbox", "device_status",
        "command_results", "quarantine_replays",
    }  # fmt: skip
    texts = query(
        "SELECT table_name FROM information_schema.columns"
        " WHERE column_name = 'device_id' AND table_schema = 'public'"
        " AND NOT (data_type = 'text' AND collation_name = 'C')"
    )
    assert texts == []


def test_a_newer_schema_is_refused(store, database_url, query):
    query("INSERT INTO ringfence_schema (version, layout) VALUES (%s, 'native')", VERSION + 1)
    other = Store.open(database_url)
    with pytest.raises(SchemaTooNew, match="upgrade ringfence") as caught:
        other.migrate()
    assert (caught.value.found, caught.value.known) == (VERSION + 1, VERSION)
    other.close()


def test_a_database_goes_forward_with_its_rows_and_the_older_program_refuses_it_then(
    store, make, database_url, query, tmp_path, monkeypatch
):
    """A version that does not exist yet: a column and a table; a failure in its middle changes nothing."""
    store.commit(make.batch(make.pings("a17", "b2")))
    second = tmp_path / "second.sql"
    steps = "ALTER TABLE pings ADD COLUMN pressure_pa integer;\nCREATE TABLE later (n integer);\n"
    with monkeypatch.context() as newer:
        newer.setattr("telemetry.store.schema.MIGRATIONS", ("schema.sql", str(second)))
        newer.setattr("telemetry.store.schema.VERSION", VERSION + 1)
        newer.setattr("telemetry.store.store.VERSION", VERSION + 1)
        second.write_text(steps + "SELECT nonsense;")
        program = Store.open(database_url, now_us=lambda: NOW_US)
        with pytest.raises(StoreError):
            program.migrate()
        assert query("SELECT max(version), to_regclass('later') IS NULL FROM ringfence_schema") == [(1, True)]
        second.write_text(steps)
        program.migrate()
        make.lease = program.take_share(0)
        program.commit(make.batch(make.pings("a17")))
        program.close()
    assert query("SELECT count(*), count(pressure_pa) FROM pings") == [(3, 0)]
    assert query("SELECT version FROM ringfence_schema ORDER BY 1") == [(1,), (2,)]
    older = Store.open(database_url)
    with pytest.raises(SchemaTooNew):
        older.migrate()
    older.close()


def test_a_store_without_a_schema_says_so(database_url, make):
    store = Store.open(database_url)
    with pytest.raises(StoreError, match="run the migration"):
        store.commit(make.batch())
    store.close()


def _role(query, database_url: str, *grants: str) -> tuple[str, str]:
    """An ordinary role, and a URL whose sessions have its rights."""
    role = f"plain_{uuid.uuid4().hex[:8]}"
    query(f"CREATE ROLE {role}")
    for grant in grants:
        query(grant.format(role=role))
    parts = urlsplit(database_url)
    query_text = "&".join(filter(None, [parts.query, f"options=-c%20role%3D{role}"]))
    return role, parts._replace(query=query_text).geturl()


def test_an_ordinary_role_gets_native_partitions_and_is_told(database_url, query, request, caplog, make):
    role, url = _role(query, database_url, "GRANT CREATE ON SCHEMA public TO {role}")
    try:
        store = Store.open(url)
        store.migrate()
        if "timescale" in request.node.callspec.id:
            assert "let an administrator run CREATE EXTENSION" in caplog.text
        assert store.extension is None
        make.lease = store.take_share(0)
        store.commit(make.batch(make.pings("a17")))
        store.close()
        assert query("SELECT count(*) FROM pings") == [(1,)]
    finally:
        query(f"DROP OWNED BY {role} CASCADE")
        query(f"DROP ROLE {role}")


def test_a_role_that_may_not_create_is_told_what_to_grant(database_url, query):
    query("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    role, url = _role(query, database_url)
    try:
        store = Store.open(url)
        with pytest.raises(StoreError, match=r"permission denied for schema public.*grant this role"):
            store.migrate()
        store.close()
    finally:
        query(f"DROP OWNED BY {role}")
        query(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (lambda u: u._replace(path="/nowhere"), StoreError, 'database "nowhere" does not exist.*createdb'),
        (
            lambda u: u._replace(netloc="ringfence:wrong@" + u.netloc.rpartition("@")[2]),
            StoreError,
            "refuses the log-in.*correct user and password",
        ),
        (
            lambda u: u._replace(netloc="x@127.0.0.1:1", query=""),
            StoreUnavailable,
            "can't be reached.*check that it runs",
        ),
        (lambda u: u._replace(query="nonsense=1"), StoreError, "can't be read.*postgresql://user"),
    ],
)
def test_a_database_that_can_not_be_used_is_explained(database_url, change, kind, says):
    with pytest.raises(StoreError, match=says) as caught:
        Store.open(change(urlsplit(database_url)).geturl())
    assert type(caught.value) is kind
    assert "wrong@" not in str(caught.value)


def test_a_password_is_never_shown():
    assert (
        shown("postgresql://me:secret@db.example:5433/r?sslmode=require")
        == "postgresql://me@db.example:5433/r"
    )
    assert shown("postgresql://me:secret@/r?host=%2Fvar%2Frun") == "postgresql://me@/var/run/r"
    assert shown("host=x password=secret") == "the database URL"


def test_old_servers_are_refused():
    check_server(140_000, "here")
    with pytest.raises(StoreError, match=r"is PostgreSQL 13; Ringfence needs 14 or newer"):
        check_server(130_014, "here")


def test_a_read_only_database_makes_a_batch_wait(store, make, database_url, query):
    name = urlsplit(database_url).path.lstrip("/")
    store.commit(make.batch(make.pings("a17")))
    query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'ringfence share 0'"
    )
    batch = make.batch(make.pings("a17"))
    with pytest.raises(StoreUnavailable):
        store.commit(batch)
    with pytest.raises(StoreUnavailable, match=r"read-only.*target_session_attrs"):
        store.commit(batch)
    query(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'ringfence share 0'"
    )
    with pytest.raises(StoreUnavailable):
        store.commit(batch)
    store.commit(batch)
    assert query("SELECT count(*) FROM pings") == [(2,)]


def test_a_server_that_goes_and_comes_back(short_tmp, make):
    """A real stop and start: batches wait as StoreUnavailable, then go in once."""
    from telemetry.services.postgres import EmbeddedPostgres

    server = EmbeddedPostgres(short_tmp / f"outage-{uuid.uuid4().hex[:6]}")
    store = Store.open(server.start())
    try:
        store.migrate()
        make.lease = store.take_share(0)
        store.commit(make.batch(make.pings("a17", fix_time_us=NOW_US)))
        server.stop()
        batch = make.batch(make.pings("a17", fix_time_us=NOW_US))
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                store.commit(batch)
        server.start()
        store.commit(batch)
        assert sum(len(past.pings) for past in store.replay(0, 0)) == 2
    finally:
        store.close()
        server.stop()


@pytest.fixture
def small_disk(short_tmp, postgres_url):
    """A file system of 40 MB that the embedded server may write to; skips where none can be mounted."""
    import os
    import shutil

    place = short_tmp / f"disk-{uuid.uuid4().hex[:6]}"
    place.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=40m,mode=1777", "tmpfs", place],
            capture_output=True,
            check=False,
        ).returncode
    ):
        pytest.skip("no file system can be mounted here")
    server = Path(conninfo_to_dict(postgres_url)["host"]).stat()
    os.chown(place, server.st_uid, server.st_gid)
    yield place
    subprocess.run(["umount", "-l", place], check=True)
    shutil.rmtree(place, ignore_errors=True)


def test_a_full_disk_makes_a_batch_wait(small_disk, embedded_database_url, make):
    name = urlsplit(embedded_database_url).path.lstrip("/")
    space = f"small_{uuid.uuid4().hex[:6]}"
    with psycopg.connect(embedded_database_url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE {space} LOCATION '{small_disk}'")
        connection.execute(f"ALTER DATABASE {name} SET default_tablespace = {space}")
        try:
            store = Store.open(embedded_database_url, now_us=lambda: NOW_US)
            store.migrate()
            make.lease = store.take_share(0)
            ids = [f"d{i}" for i in range(20_000)]
            batch = None

            def fill() -> None:
                nonlocal batch
                for _ in range(60):
                    batch = make.batch(make.pings(*ids))
                    store.commit(batch)

            with pytest.raises(StoreUnavailable, match=r"disk is full.*free space"):
                fill()
            ((stored,),) = connection.execute("SELECT last_batch FROM shares").fetchall()
            assert stored == batch.number - 1
            (count,) = connection.execute("SELECT count(*) FROM pings").fetchone()
            assert count == stored * len(ids)
            subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
            store.commit(batch)
            assert connection.execute("SELECT count(*) FROM pings").fetchone() == (batch.number * len(ids),)
            store.close()
        finally:
            connection.execute(f"ALTER DATABASE {name} RESET default_tablespace")
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute(f"DROP TABLESPACE {space}")


# --- keeping house ------------------------------------------------------------------------------


def _days(query, store, table: str) -> set[int]:
    if store.extension is None:
        rows = query(
            "SELECT right(inhrelid::regclass::text, 10) FROM pg_inherits WHERE inhparent = %s::regclass",
            table,
        )
        dates = [text.replace("_", "-") for (text,) in rows]
    else:
        rows = query(
            "SELECT range_start::date::text FROM timescaledb_information.chunks WHERE hypertable_name = %s",
            table,
        )
        dates = [text for (text,) in rows]
    return {(date.fromisoformat(text) - date(1970, 1, 1)).days for text in dates}


def test_old_days_are_dropped_whole_and_new_ones_made(database_url, make, query):
    store = Store.open(database_url, retention=Retention(pings=7, quarantine=None), now_us=lambda: NOW_US)
    store.migrate()
    make.lease = store.take_share(0)
    today = NOW_US // DAY_US
    ages = [0, 1, 6, 7, 8, 20, 29]
    store.commit(
        make.batch(make.pings(*["a17"] * len(ages), fix_time_us=[NOW_US - age * DAY_US for age in ages]))
    )
    # not yet: a restart would still replay this batch
    assert store.keep_house() == {}
    store.save_snapshot(0, make.lease.epoch, 1, b"state")
    assert store.keep_house() == {"pings": 3}
    assert _days(query, store, "pings") >= {today, today - 1, today - 6, today - 7}
    assert query("SELECT count(*) FROM pings") == [(4,)]
    assert store.keep_house(NOW_US + 2 * DAY_US) == {"pings": 2}
    if store.extension is None:
        assert max(_days(query, store, "outbox")) >= today + 5
    store.close()


def test_violations_go_with_their_heads_and_those_that_last_stay(database_url, make, query):
    retention = Retention(violations=7)
    store = Store.open(database_url, retention=retention, now_us=lambda: NOW_US)
    store.migrate()
    make.lease = store.take_share(0)
    violations = [
        {"violation_id": age, "opened_us": NOW_US - age * DAY_US, "confirmed_us": NOW_US, "closed_us": closed}
        for age, closed in ((2, NOW_US), (9, NOW_US), (12, NO_TIME), (20, NOW_US))
    ]
    make.pings("a17")  # the device of the decisions
    store.commit(make.batch(decided=[make.decided(violations=violations)]))
    store.save_snapshot(0, make.lease.epoch, 1, b"state")
    assert store.keep_house() == {"violations": 1}  # of 20 days ago; that of 9 waits for the open one before
    assert query("SELECT violation_id, state FROM current_violations ORDER BY 1") == [
        (2, "closed"),
        (9, "closed"),
        (12, "open"),
    ]
    assert query("SELECT count(*) FROM violation_heads") == [(3,)]
    store.close()


def test_messages_that_wait_are_kept_whatever_their_age(database_url, make, query):
    from telemetry.columns import Outgoing

    clock = [NOW_US]
    store = Store.open(database_url, now_us=lambda: clock[0])
    store.migrate()
    make.lease = store.take_share(0)
    store.commit(make.batch(outgoing=[Outgoing(1, "a17", "t", b"{}", True)]))
    store.save_snapshot(0, make.lease.epoch, 1, b"state")
    clock[0] += 40 * DAY_US
    store.keep_house()
    assert len(store.pending(10)) == 1
    store.mark_sent([row.id for row in store.pending(10)])
    assert store.keep_house()["outbox"] >= 1
    assert query("SELECT count(*) FROM outbox") == [(0,)]
    store.close()


def test_days_that_are_over_get_the_index_by_place_once(store, make, query):
    store.commit(make.batch(make.pings("a17", "a17", fix_time_us=[NOW_US, NOW_US - 3 * DAY_US])))
    indexed = (
        "SELECT count(*) FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid"
        " JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = 'cell'"
        " WHERE i.indkey[0] = a.attnum AND i.indisvalid"
    )
    store.keep_house()
    ((before,),) = query(indexed)
    assert before >= 1
    store.keep_house()
    assert query(indexed) == [(before,)]
    store.commit(make.batch(make.pings("a17", fix_time_us=NOW_US - 3 * DAY_US + 5)))
    assert query("SELECT count(*) FROM pings") == [(3,)]


@pytest.mark.parametrize("days", [0, -1])
def test_a_retention_of_nothing_is_refused(days):
    with pytest.raises(ValueError, match="give at least 1, or None"):
        Retention(pings=days)


@pytest.mark.parametrize("days", [None, 400])
def test_the_order_of_decisions_stays_as_long_as_the_pings(days):
    retention = Retention.of_pings(days)
    assert (retention.pings, retention.batches) == (days, days)
