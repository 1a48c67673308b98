"""Our own outage accuses nobody: devices that go on pinging while we are away are not called silent.

An outage of ten minutes where the rule allows two and a half, played sixty times as fast: the rule allows
2.5 s, the outage lasts 10 s. All clocks are the real ones, and so are broker and database.
"""

from __future__ import annotations

import shutil
import time
import uuid
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from geofence import Ruleset
from telemetry.services.broker import EmbeddedBroker
from tests.end_to_end.conftest import Client
from tests.telemetry.test_share import Station, database, locked_out

__all__ = ["database"]  # a fixture

WITHIN_S, OUTAGE_S, PACE_S = 2.5, 10.0, 0.25
DEVICES = [f"d{k}" for k in range(12)]
SILENCE = {"id": "silence", "subjects": ["all"], "require": "contact", "within": f"{WITHIN_S} s"}


@pytest.fixture
def broker(short_tmp):
    broker = EmbeddedBroker(short_tmp / f"broker-{uuid.uuid4().hex[:8]}")
    yield broker
    broker.stop()
    shutil.rmtree(broker.data_dir)


@pytest.fixture
def station(broker, embedded_database_url):
    rules = Ruleset.from_document(
        {"zones": {"type": "FeatureCollection", "features": []}, "rules": {"rules": [SILENCE]}}
    )
    station = Station(broker.start(), embedded_database_url, rules, tick_s=0.1)
    yield station
    station.stop()


class Fleet:
    """Devices that take samples at a pace, keep what they can't send, and send it later, oldest first."""

    def __init__(self, url):
        self.client = Client(url)
        self.samples, self.sent = [], 0

    def live(self, seconds, *, linked=True):
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            next_s = time.monotonic() + PACE_S
            self.samples.append(datetime.now(UTC))
            if linked:
                self.send()
            time.sleep(max(0.0, next_s - time.monotonic()))

    def send(self):
        for seq, moment in enumerate(self.samples[self.sent :], self.sent):
            for device_id in DEVICES:
                self.client.ping(device_id, boot=1, seq=seq, time=moment.isoformat())
        self.sent = len(self.samples)

    @property
    def longest_gap_s(self):
        return max((b - a).total_seconds() for a, b in pairwise(self.samples))


def nobody_is_accused(fleet, database, eventually):
    eventually(lambda: database.rows("SELECT count(*) FROM pings") == [(fleet.sent * len(DEVICES),)], 30)
    assert fleet.longest_gap_s < WITHIN_S, "this machine was too busy to play devices that are not silent"
    opened = database.rows(
        "SELECT device_id, opened_time FROM violations WHERE opened_time <= %s", fleet.samples[-1]
    )
    assert opened == []


def test_an_outage_of_the_database_accuses_nobody(
    station, broker, database, embedded_database_url, eventually
):
    fleet = Fleet(broker.url)
    fleet.live(1.0)
    eventually(lambda: database.count("pings") > 0, 20)
    with locked_out(embedded_database_url):
        fleet.live(OUTAGE_S)  # the broker keeps what they send
    fleet.live(4.0)
    fleet.client.close()
    nobody_is_accused(fleet, database, eventually)


def test_an_outage_of_the_broker_accuses_nobody(station, broker, database, eventually):
    fleet = Fleet(broker.url)
    fleet.live(1.0)
    eventually(lambda: database.count("pings") > 0, 20)
    fleet.client.close()
    broker.stop()
    fleet.live(OUTAGE_S, linked=False)
    broker.start()
    fleet.client = Client(broker.url)
    fleet.live(4.0)
    fleet.client.close()
    nobody_is_accused(fleet, database, eventually)


def test_real_silence_is_seen_in_the_same_setting(station, broker, database, eventually):
    fleet = Fleet(broker.url)
    fleet.live(1.0)
    fleet.client.close()
    eventually(
        lambda: database.rows("SELECT count(DISTINCT device_id) FROM violations") == [(len(DEVICES),)], 30
    )
