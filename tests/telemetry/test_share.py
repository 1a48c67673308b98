"""A share on a real broker and a real database: what it restores, what it does when something goes wrong."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from geofence import Engine, Ruleset
from telemetry.columns import Tick
from telemetry.config import Settings
from telemetry.metrics import Metrics
from telemetry.mqtt.session import Session
from telemetry.mqtt.topics import Topics, subscriptions
from telemetry.pipeline import Work
from telemetry.share import RulesVersion, Share
from telemetry.store import Store
from tests.end_to_end.conftest import HOME, Client, Database, write_circle_rules

ROOT = "ringfence/v1"


class Station:
    """A share with its session and its store, in this process."""

    def __init__(self, mqtt_url: str, database_url: str, ruleset: Ruleset, **settings: object) -> None:
        self.store = Store.open(database_url)
        self.store.migrate()
        version = self.store.save_ruleset(ruleset.document, ruleset.digest, 1)
        self.session = Session(mqtt_url, "ringfence-share-0", subscriptions(ROOT), topics=Topics(ROOT))
        self.share = Share(Settings(**settings), self.store, self.session, Metrics(), lambda: None)
        self.share.start(RulesVersion(version, ruleset, 1))
        self.session.start()
        self.thread = threading.Thread(target=self.share.run)
        self.thread.start()

    def stop(self) -> None:
        self.share.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.session.close(5)
        self.store.close()


@pytest.fixture
def ruleset(tmp_path) -> Ruleset:
    return Ruleset.load(write_circle_rules(tmp_path / "rules"))


@pytest.fixture
def station(nats_url, embedded_database_url, ruleset):
    stations: list[Station] = []

    def start(rules: Ruleset = ruleset, **settings: object) -> Station:
        stations.append(Station(nats_url, embedded_database_url, rules, **settings))
        return stations[-1]

    yield start
    for one in stations:
        with contextlib.suppress(Exception):
            one.stop()


@pytest.fixture
def device(nats_url):
    client = Client(nats_url)
    yield client
    client.close()


@pytest.fixture
def database(embedded_database_url):
    database = Database(embedded_database_url)
    yield database
    database.close()


def ping(device: Client, device_id: str, seq: int, at: datetime, *, inside: bool = False) -> None:
    lat = HOME[0] if inside else HOME[0] + 0.1
    device.ping(device_id, boot=1, seq=seq, time=at.isoformat(), lat=lat, lon=HOME[1], accuracy_m=5)


def forget_snapshots(database: Database) -> None:
    """So that a start must decide everything again from the stored inputs."""
    database.execute("DELETE FROM snapshots")


def state_of(share: Share) -> dict:
    """What a share knows, by device id: the slots of devices follow the order in which they came."""
    ids = share.devices.ids
    rows = sorted((ids[row["device"]], *row.tolist()[6:]) for row in share.engine.open_violations())
    return {
        "beliefs": {device_id: share.engine.belief(device_id) for device_id in sorted(ids)},
        "open": rows,
        "alerts": share.tracker.snapshot(),
    }


def test_a_restarted_share_has_the_state_of_one_that_went_on(station, device, database, eventually):
    first = station(snapshot_s=3600, tick_s=3600)
    began = datetime.now(UTC) - timedelta(minutes=30)
    for seq in range(20):
        for device_id in ("a17", "b2"):
            ping(device, device_id, seq, began + timedelta(minutes=seq), inside=seq % 7 in {3, 4})
    eventually(lambda: database.count("pings") == 40, 20)
    first.share._stopping.set()
    first.thread.join(20)
    forget_snapshots(database)
    first.session.close(5)
    second = station(snapshot_s=3600, tick_s=3600)
    assert second.share.last_batch == first.share.last_batch
    assert state_of(second.share) == state_of(first.share)


def age_snapshots(database: Database) -> None:
    """As an older engine would have laid them out: another version in the engine's frame."""
    for share, batch, blob in database.rows("SELECT share, batch, state FROM snapshots"):
        at = blob.index(b"RFENGINE") + 8
        older = blob[:at] + (2).to_bytes(4, "little") + blob[at + 4 :]
        database._connection.execute(
            "UPDATE snapshots SET state = %s WHERE share = %s AND batch = %s", (older, share, batch)
        )


def test_a_snapshot_of_an_older_layout_is_left_aside_and_the_kept_batches_decide(
    station, device, database, eventually, caplog
):
    first = station(snapshot_s=0.1, tick_s=3600)
    began = datetime.now(UTC) - timedelta(minutes=30)
    for seq in range(10):
        ping(device, "a17", seq, began + timedelta(minutes=seq), inside=seq > 6)
    eventually(lambda: database.count("pings") == 10 and database.count("snapshots") > 0, 20)
    first.stop()
    age_snapshots(database)
    second = station(snapshot_s=3600, tick_s=3600)
    assert "of layout 2" in caplog.text
    assert second.share.last_batch == first.share.last_batch
    assert state_of(second.share) == state_of(first.share)


def test_late_pings_are_judged_again_and_again_the_same_after_a_restart(
    station, device, database, eventually
):
    first = station(snapshot_s=3600, tick_s=3600)
    began = datetime.now(UTC) - timedelta(hours=2)
    for seq, minute in enumerate((0, 1, 20, 21, 40)):
        ping(device, "a17", seq, began + timedelta(minutes=minute))
    eventually(lambda: database.count("pings") == 5, 20)
    for seq, minute in ((10, 10), (11, 11), (12, 12)):  # stored on the device, sent late: inside the zone
        ping(device, "a17", seq, began + timedelta(minutes=minute), inside=True)
    eventually(lambda: database.count("pings") == 8, 20)
    violations = eventually(
        lambda: database.rows("SELECT opened_time, closed_time FROM current_violations ORDER BY opened_time"),
        10,
    )
    assert violations == [(began + timedelta(minutes=10), began + timedelta(minutes=20))]
    late = database.rows("SELECT count(*) FROM pings WHERE marks & 1 = 1")
    assert late == [(3,)]
    first.share._stopping.set()
    first.thread.join(20)
    forget_snapshots(database)
    first.session.close(5)
    assert state_of(station(snapshot_s=3600, tick_s=3600).share) == state_of(first.share)


SILENCE = """
[[rules]]
id = "silence"
subjects = ["all"]
require = "contact"
within = "10 min"
"""


def test_time_that_passed_in_silence_is_the_same_after_a_restart(
    station, device, database, eventually, tmp_path
):
    """A tick that brings nothing is not stored at once, yet it begins the time in which nobody listened."""
    directory = write_circle_rules(tmp_path / "silence")
    (directory / "rules.toml").write_text(SILENCE)
    silence = Ruleset.load(directory)
    first = station(silence, snapshot_s=3600, tick_s=3600)
    began = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    ping(device, "a17", 0, began)
    eventually(lambda: database.count("pings") == 1, 20)
    first.share._stopping.set()
    first.thread.join(20)

    def tick(share: Share, minute: float, since_minute: float) -> None:
        now_us, since_us = (
            round((began + timedelta(minutes=m)).timestamp() * 1e6) for m in (minute, since_minute)
        )
        share._take(Work(None, Tick(now_us, since_us)))

    for minute in (1, 5, 9):
        tick(first.share, minute, -1)
    for minute in (11.5, 11.6):  # from 9 to 11 there was no connection, which accuses nobody
        tick(first.share, minute, 11)
    first.share._store_passed_time()  # as at a clean stop
    forget_snapshots(database)
    first.session.close(5)
    second = station(silence, snapshot_s=3600, tick_s=3600)
    assert second.share.engine.deaf.tolist() == first.share.engine.deaf.tolist()
    assert second.share.watermark_us == first.share.watermark_us
    second.share._stopping.set()
    second.thread.join(20)
    for minute in (11.9, 12.1):
        tick(second.share, minute, 11)
    assert database.rows("SELECT confirmed_time FROM current_violations") == [
        (began + timedelta(minutes=12),)
    ]


def test_time_goes_on_while_pings_keep_coming(station, nats_url, database, eventually):
    one = station(tick_s=0.2)
    done = threading.Event()

    def publish() -> None:
        device = Client(nats_url)
        seq = 0
        while not done.is_set():
            ping(device, "a17", seq := seq + 1, datetime.now(UTC))
        device.close()

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        eventually(lambda: database.count("pings") > 50, 20)
        for _ in range(3):
            before_us = one.share.watermark_us
            eventually(lambda: one.share.watermark_us > before_us, 5)  # noqa: B023 - called at once
    finally:
        done.set()
        publisher.join(30)


def test_a_message_that_meets_a_bug_is_set_aside_alone(station, device, database, eventually, monkeypatch):
    true_check = Engine.check

    def check(self, pings):
        if any(self.devices.ids[slot] == "boom" for slot in pings.device):
            raise ZeroDivisionError("a bug that one device triggers")
        return true_check(self, pings)

    monkeypatch.setattr(Engine, "check", check)
    one = station()
    now = datetime.now(UTC)
    for seq in range(10):
        ping(device, f"d{seq}", seq, now)
        if seq == 4:
            ping(device, "boom", seq, now)
    eventually(lambda: database.count("pings") == 10, 30)
    eventually(lambda: database.count("quarantine") == 1, 10)
    ((topic, reason),) = database.rows("SELECT topic, reason FROM quarantine")
    assert topic.endswith("/boom/pings")
    assert reason == "internal_error"
    assert one.thread.is_alive()
    assert database.rows("SELECT count(DISTINCT device_id) FROM pings WHERE device_id <> 'boom'") == [(10,)]


def test_rules_are_not_lost_when_the_tick_beside_them_meets_a_bug(station, ruleset, tmp_path, monkeypatch):
    one = station(snapshot_s=3600, tick_s=3600)
    one.share._stopping.set()
    one.thread.join(20)
    directory = write_circle_rules(tmp_path / "wider", radius_m=500)
    wider = Ruleset.load(directory)
    version = one.store.save_ruleset(wider.document, wider.digest, 2)

    def tick(*_):
        raise ZeroDivisionError("a bug that time triggers")

    monkeypatch.setattr(Engine, "tick", tick)
    one.share._take(Work(None, Tick(10, 1), RulesVersion(version, wider, 2)))
    assert one.share.rules_version == version
    assert one.share.engine.ruleset.digest == wider.digest


def test_while_the_database_is_away_nothing_is_acknowledged_and_nothing_is_lost(
    station, device, database, eventually, embedded_database_url
):
    one = station()
    now = datetime.now(UTC)
    ping(device, "a17", 0, now)
    eventually(lambda: database.count("pings") == 1, 20)
    with locked_out(embedded_database_url):
        for seq in range(1, 30):
            ping(device, "a17", seq, now + timedelta(milliseconds=seq))
        eventually(lambda: one.share.problem is not None, 20)
        assert "database" in one.share.problem
    eventually(lambda: database.count("pings") == 30, 30)
    eventually(lambda: one.share.problem is None, 10)
    assert database.rows("SELECT seq, count(*) FROM pings GROUP BY seq HAVING count(*) > 1") == []


def test_a_lone_ping_waits_for_no_other_and_what_has_gathered_is_taken_at_once(
    station, device, database, eventually, embedded_database_url
):
    one = station(tick_s=3600)
    now = datetime.now(UTC)
    for seq in range(5):  # each is stored before the next is sent
        ping(device, "a17", seq, now + timedelta(milliseconds=seq))
        eventually(lambda: database.count("pings") == seq + 1, 20)  # noqa: B023 - called at once
    assert database.rows("SELECT pings FROM batches WHERE pings > 0 ORDER BY number") == [(1,)] * 5
    with locked_out(embedded_database_url):
        for seq in range(5, 405):
            ping(device, "a17", seq, now + timedelta(milliseconds=seq))
        eventually(lambda: one.share.problem is not None, 20)
    eventually(lambda: database.count("pings") == 405, 60)
    ((largest,),) = database.rows("SELECT max(pings) FROM batches")
    assert largest > 200


def test_a_share_can_be_stopped_while_the_database_is_away(
    station, device, database, eventually, embedded_database_url
):
    one = station()
    now = datetime.now(UTC)
    with locked_out(embedded_database_url):
        ping(device, "a17", 1, now)
        eventually(lambda: one.share.problem is not None, 20)
        began_s = time.monotonic()
        one.share.stop()
        one.thread.join(10)
        assert not one.thread.is_alive()
        assert time.monotonic() - began_s < 8
        one.session.close(5)
    station()
    eventually(lambda: database.count("pings") == 1, 40)


@contextlib.contextmanager
def locked_out(database_url: str):
    """Nobody can connect to the database, and the sessions of shares are ended."""
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    with psycopg.connect(database_url, dbname="postgres", autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND application_name LIKE 'ringfence%%'",
            [name],
        )
        try:
            yield
        finally:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def test_a_second_engine_takes_the_share_and_the_first_ends(station, device, database, eventually):
    first = station()
    second = station()
    for seq in range(5):
        ping(device, "a17", seq, datetime.now(UTC))
    eventually(lambda: not first.thread.is_alive(), 30)
    assert first.share.failure
    assert first.share.taken_over
    eventually(lambda: database.count("pings") == 5, 30)
    assert second.thread.is_alive()
