"""Decisions made again from what is stored are those stored; one that was tampered with shows."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta

import pytest

from geofence import Ruleset
from telemetry.judging import RulesVersion
from telemetry.replay import ReplayError, read_times, replay_device
from telemetry.store import Store
from tests.telemetry.test_share import database, device, ping, ruleset, station

__all__ = ["database", "device", "ruleset", "station"]  # fixtures

LONG = timedelta(days=1)


@pytest.fixture
def lived(station, device, database, eventually):
    """A share that has decided about two devices: in and out of the zone, with pings that came late."""
    one = station(tick_s=0.2)
    began = datetime.now(UTC) - timedelta(hours=3)
    for device_id in ("a17", "b2"):
        for seq in range(30):
            ping(device, device_id, seq, began + timedelta(minutes=2 * seq), inside=seq % 9 in {4, 5, 6})
    eventually(lambda: database.count("pings") == 60, 30)
    for seq, minute in ((100, 31), (101, 33), (102, 35)):
        ping(device, "a17", seq, began + timedelta(minutes=minute), inside=True)
    eventually(lambda: database.count("pings") == 63, 30)
    one.stop()
    return datetime.now(UTC)


@pytest.fixture
def store(embedded_database_url):
    with contextlib.closing(Store.open(embedded_database_url)) as store:
        yield store


def test_a_replay_gives_what_was_stored_and_shows_what_was_changed(lived, store, database):
    for device_id, pings in (("a17", 33), ("b2", 30)):
        result = replay_device(store, 0, device_id, lived - LONG, lived)
        assert result.differences == []
        assert result.pings == pings
        assert result.decisions >= 12, "violations opened and closed, and transitions"

    database.execute("ALTER TABLE violations DISABLE TRIGGER USER")
    database.execute(
        "UPDATE violations SET depth_mm = depth_mm - 1000 WHERE device_id = 'b2' AND revision = 0"
    )
    tampered = replay_device(store, 0, "b2", lived - LONG, lived)
    assert {(d.side, d.table) for d in tampered.differences} == {
        ("stored", "violations"),
        ("replayed", "violations"),
    }
    changed, again = (
        next(d.row for d in tampered.differences if d.side == side) for side in ("stored", "replayed")
    )
    assert again["depth_mm"] - changed["depth_mm"] == 1000
    assert tampered.document()["differences"][0]["row"]["opened_time"].endswith("Z")
    assert replay_device(store, 0, "a17", lived - LONG, lived).differences == []
    assert replay_device(store, 0, "b2", lived - 3 * LONG, lived - 2 * LONG).decisions == 0


def test_what_a_change_of_rules_ends_names_the_rules_that_it_was_judged_by(
    station, ruleset, device, database, store, eventually
):
    one = station(tick_s=0.2)
    before = one.share.rules_version
    ping(device, "a17", 0, datetime.now(UTC) - timedelta(minutes=1), inside=True)
    eventually(lambda: database.count("violations") == 1, 20)
    document = {"zones": ruleset.document["zones"], "rules": {"rules": []}}
    fewer = Ruleset.from_document(document)
    now_us = time.time_ns() // 1000
    version = store.save_ruleset(fewer.document, fewer.digest, now_us)
    one.share.adopt(RulesVersion(version, fewer, now_us))
    eventually(lambda: database.count("violations") == 2, 20)
    rows = database.rows("SELECT change, rules_version FROM violations ORDER BY revision")
    assert [version for _, version in rows] == [before, before]
    assert before != version
    one.stop()
    until = datetime.now(UTC)
    assert replay_device(store, 0, "a17", until - LONG, until).differences == []


def test_an_unknown_device_is_told(lived, store):
    with pytest.raises(ReplayError, match="nobody"):
        replay_device(store, 0, "nobody", lived - LONG, lived)


def test_times_are_checked():
    assert read_times("2026-11-24T08:00:00Z", "2026-11-24T10:00:00+01:00")[1] == datetime(
        2026, 11, 24, 9, tzinfo=UTC
    )
    for begin, end in (
        ("yesterday", "2026-11-24T08:00:00Z"),
        ("2026-11-24T08:00:00Z", "2026-11-24T07:00:00Z"),
    ):
        with pytest.raises(ReplayError):
            read_times(begin, end)
