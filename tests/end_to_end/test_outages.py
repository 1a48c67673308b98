"""Outages, copies and disorder under QoS 1 load: what the broker acknowledged is stored once.

Bounded here; ``make outages`` lets each outage last a minute and sends a million pings in any order
(RINGFENCE_OUTAGE_S, RINGFENCE_PERMUTED_PINGS). The counts are printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from geofence import NO_TIME, Ruleset
from telemetry.mqtt.topics import device_topic
from telemetry.services.broker import EmbeddedBroker
from telemetry.services.postgres import EmbeddedPostgres
from tests.end_to_end.conftest import Client, write_circle_rules
from tests.end_to_end.ledger import ROOT, START_MS, STEP_MS, Ledger, Sent, expected_violations
from tests.end_to_end.test_kills import VIOLATIONS
from tests.telemetry.test_share import Station

OUTAGE_S = float(os.environ.get("RINGFENCE_OUTAGE_S", "1"))
PERMUTED = int(os.environ.get("RINGFENCE_PERMUTED_PINGS", "6000"))
PER_MESSAGE = 100
PAUSE = threading.Event()  # never set: an outage lasts
pytestmark = pytest.mark.timeout(max(300, 8 * OUTAGE_S, PERMUTED / 100))


@pytest.fixture
def small_disk(short_tmp):
    """A file system of 40 MB that anybody may write to; skips where none can be mounted."""
    place = short_tmp / f"disk-{uuid.uuid4().hex[:6]}"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40m,mode=1777", "tmpfs", place]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)
    place.rmdir()


@pytest.fixture
def servers(short_tmp):
    """A broker and a database of this test alone, which it may stop and start."""
    home = short_tmp / f"outage-{uuid.uuid4().hex[:8]}"
    home.mkdir(mode=0o711)
    broker, database = EmbeddedBroker(home / "broker"), EmbeddedPostgres(home / "database")
    yield broker, database
    broker.stop()
    database.stop()
    shutil.rmtree(home)


@pytest.fixture
def rules(tmp_path):
    return write_circle_rules(tmp_path / "rules")


@pytest.fixture
def station(servers, rules):
    broker, database = servers
    station = Station(broker.start(), database.start(), Ruleset.load(rules))
    yield station
    station.stop()


def stored(url: str, query: str, *values: object) -> list[tuple]:
    with psycopg.connect(url) as connection:
        return connection.execute(query, values or None).fetchall()


def all_are_stored_once(url: str, rules, made: list[Sent], eventually, within_s: float = 60.0) -> int:
    """Compare with the ledger, and the violations with an undisturbed run's; gives how many those are."""
    eventually(lambda: stored(url, "SELECT count(*) FROM pings")[0][0] >= len(made), within_s)
    rows = stored(url, "SELECT device_id, seq, count(*) FROM pings GROUP BY 1, 2")
    assert {(device_id, seq) for device_id, seq, _ in rows} == {(ping.device_id, ping.seq) for ping in made}
    assert [row for row in rows if row[2] != 1] == []
    found, expected = set(stored(url, VIOLATIONS, NO_TIME)), expected_violations(rules, made)
    assert found == expected, f"{len(found ^ expected)} differ, such as {list(found ^ expected)[:4]}"
    return len(found)


def copies(url: str) -> int:
    return stored(url, "SELECT coalesce(sum(duplicates), 0)::int8 FROM batches")[0][0]


@pytest.mark.parametrize("what", ["database", "broker"])
def test_an_outage_loses_nothing_and_all_goes_on_by_itself(what, servers, station, rules, eventually):
    broker, database = servers
    ledger = Ledger(broker.url)
    ledger.start()
    eventually(lambda: stored(database.url, "SELECT count(*) FROM pings")[0][0] > 50, 20)
    server = database if what == "database" else broker
    server.stop()
    PAUSE.wait(OUTAGE_S)
    told = station.share.problem if what == "database" else station.session.problem
    assert told is not None
    before = station.share.last_batch
    server.start()
    eventually(lambda: station.share.last_batch > before, 60)
    PAUSE.wait(0.5)  # some load after it
    ledger.finish(90)
    violations = all_are_stored_once(database.url, rules, ledger.made, eventually)
    print(
        f"\n{what} away for {OUTAGE_S:g} s: {len(ledger.made)} pings acknowledged, each stored once; "
        f"{copies(database.url)} copies on the way; {violations} violations, those of an undisturbed run"
    )


def test_a_slow_database_holds_acknowledgements_back_and_is_told(servers, station, rules, eventually):
    """A lock on the table of pings: commits wait until it is lifted; what waits stays with the broker."""
    broker, database = servers
    ledger = Ledger(broker.url)
    ledger.start()
    eventually(lambda: stored(database.url, "SELECT count(*) FROM pings")[0][0] > 50, 20)
    with psycopg.connect(database.url) as slow:
        slow.execute("LOCK TABLE pings IN ACCESS EXCLUSIVE MODE")
        held = station.share.last_batch
        eventually(lambda: "slow or hangs" in (station.share.problem or ""), 30)
        assert station.share.last_batch <= held + 1
        made = len(ledger.made)
        eventually(lambda: len(ledger.made) > made, 20)  # devices can still publish
    eventually(lambda: station.share.problem is None, 30)
    ledger.finish(60)
    all_are_stored_once(database.url, rules, ledger.made, eventually)


def test_a_full_disk_is_told_and_all_goes_on_once_there_is_room(
    small_disk, servers, station, rules, eventually
):
    """The day of the pings lies on a file system of its own, which is full."""
    broker, database = servers
    os.chown(small_disk, database.home.owner.uid, database.home.owner.gid)
    ballast = small_disk / "ballast"
    with psycopg.connect(database.url, autocommit=True) as admin:
        admin.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
        start_ms = time.time_ns() // 1_000_000 - START_MS
        for ms in (start_ms, start_ms + 86_400_000):  # should midnight come in the middle
            day = datetime.fromtimestamp(ms / 1000, UTC)
            name = f"pings_{day:%Y_%m_%d}"
            admin.execute(
                f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF pings FOR VALUES FROM"
                f" ('{day:%Y-%m-%d} 00:00+00') TO ('{day + timedelta(days=1):%Y-%m-%d} 00:00+00')"
                " TABLESPACE small"
            )
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    ledger = Ledger(broker.url, pings_per_s=1000)
    ledger.start()
    eventually(lambda: "disk is full" in (station.share.problem or ""), 60)
    before = station.share.last_batch
    ballast.unlink()
    eventually(lambda: station.share.last_batch > before, 30)
    ledger.finish(60)
    all_are_stored_once(database.url, rules, ledger.made, eventually)


def message(pings: list[Sent]) -> bytes:
    return b"[" + b",".join(ping.payload for ping in pings) + b"]"


def series(devices: int, each: int) -> list[Sent]:
    start_ms = time.time_ns() // 1_000_000 - START_MS
    return [Sent(k, seq, start_ms + seq * STEP_MS) for k in range(devices) for seq in range(each)]


def publish(client: Client, pings: list[Sent]) -> None:
    """Pings of one device, as one message, without waiting for the PUBACK."""
    client._client.publish(device_topic(ROOT, pings[0].device_id, "pings"), message(pings), qos=1)


def test_a_storm_of_copies_is_stored_once(servers, station, rules, eventually):
    """Every ping forty times, from two connections at once: copies meet while the first is in flight."""
    broker, database = servers
    made = series(devices=10, each=60)
    parts = [[ping for ping in made if ping.device == k] for k in range(10)]

    def storm(seed: int) -> None:
        client = Client(broker.url)
        chance = random.Random(seed)
        for _ in range(20):
            for part in chance.sample(parts, len(parts)):
                publish(client, part)
        client.publish(device_topic(ROOT, "k0", "pings"), message(parts[0]), timeout_s=60)
        client.close()

    storms = [threading.Thread(target=storm, args=(seed,)) for seed in (1, 2)]
    for one in storms:
        one.start()
    for one in storms:
        one.join(120)
    sent = 2 * (20 * len(made) + len(parts[0]))
    eventually(lambda: copies(database.url) == sent - len(made), 60)
    violations = all_are_stored_once(database.url, rules, made, eventually)
    print(f"\n{sent} pings sent, {len(made)} different ones stored once; {violations} violations")


def test_pings_in_any_order_are_stored_once_and_decide_the_same(servers, station, rules, eventually):
    """Messages of pings from anywhere in a device's time, in any order, some of them twice."""
    broker, database = servers
    devices = max(10, PERMUTED // 5_000)
    each = min(PERMUTED // devices, 6 * 86_400_000 // STEP_MS)
    made, chance = series(devices, each), random.Random(11)
    messages = []
    for k in range(devices):
        own = made[k * each : (k + 1) * each]
        chance.shuffle(own)
        messages += [own[at : at + PER_MESSAGE] for at in range(0, each, PER_MESSAGE)]
    messages += chance.sample(messages, len(messages) // 10)
    chance.shuffle(messages)
    client, began_s = Client(broker.url), time.monotonic()
    for some in messages:
        publish(client, some)
    violations = all_are_stored_once(database.url, rules, made, eventually, within_s=60 + PERMUTED / 200)
    client.close()
    print(
        f"\n{len(made)} pings of {devices} devices in any order, a tenth of the messages twice: each stored "
        f"once; {copies(database.url)} copies; {violations} violations, those of pings in order; "
        f"{time.monotonic() - began_s:.0f} s"
    )


def test_times_that_no_clock_can_mean_make_no_day(servers, station, eventually):
    """Pings of 1970 and of 2106 are set aside, and no partition is made for them."""
    broker, database = servers
    days = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'pings'::regclass"
    before, client = stored(database.url, days), Client(broker.url)
    now = datetime.now(UTC)
    moments = [
        datetime.fromtimestamp(0, UTC),
        datetime(2106, 2, 7, tzinfo=UTC),
        now - timedelta(days=31),
        now,
    ]
    for seq, moment in enumerate(moments):
        client.publish(
            device_topic(ROOT, "a17", "pings"), json.dumps({"time": moment.isoformat(), "seq": seq})
        )
    client.close()
    eventually(lambda: stored(database.url, "SELECT seq FROM pings") == [(3,)], 20)
    eventually(lambda: stored(database.url, "SELECT count(*) FROM quarantine") == [(3,)], 10)
    assert stored(database.url, "SELECT DISTINCT reason FROM quarantine") == [("misdated",)]
    assert stored(database.url, days) == before
