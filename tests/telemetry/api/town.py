"""A town in a real database, and the API over it on a real port."""

from __future__ import annotations

import contextlib
import socket
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psycopg
import uvicorn

from geofence import (
    NO_TIME,
    OPENED,
    SEVERITIES,
    TRANSITION,
    VIOLATION,
    WITHDRAWN,
    Decided,
    Devices,
    Pings,
    Ruleset,
)
from geofence.units import E7, SECOND_US
from telemetry.alerts.events import alert_event
from telemetry.api.app import create_app
from telemetry.columns import Admitted, AlertChange, Batch, DeviceStatus, Outgoing
from telemetry.store import Reader, Store

START_US = 1_795_000_000_000_000  # 2026-11-18T12:26:40Z
MINUTE_US = 60 * SECOND_US

DOCUMENT: dict[str, Any] = {
    "zones": {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [-80.84, 35.22]},
                "properties": {"id": "school-1", "layer": "schools", "radius_m": 200.0},
            },
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [-80.80, 35.20]},
                "properties": {"id": "home-a1", "radius_m": 80.0},
            },
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [-80.82, 35.24]},
                "properties": {"id": "depot", "radius_m": 80.0},
            },
        ],
    },
    "rules": {
        "timezone": "America/New_York",
        "rules": [
            {
                "id": "no-schools",
                "subjects": ["all"],
                "require": "outside",
                "layer": "schools",
                "severity": "critical",
            },
            {
                "id": "curfew",
                "subjects": ["device:a1"],
                "require": "inside",
                "zones": ["home-a1"],
                "when": "20:00-06:00",
            },
            {"id": "strap", "subjects": ["all"], "require": "strap_closed", "severity": "high"},
        ],
    },
}


class Town:
    """Writes what the tests need through the store, as the pipeline does."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.store = Store.open(url)
        self.store.migrate()
        self.ruleset = Ruleset.from_document(DOCUMENT)
        self.version = self.store.save_ruleset(self.ruleset.document, self.ruleset.digest, START_US)
        self.devices = Devices()
        lease = self.store.take_share(0)
        self.epoch, self.batch = lease.epoch, lease.last_batch
        self.alert_ids: list[int] = []

    def close(self) -> None:
        self.store.close()

    def commit(
        self,
        pings: Pings | None = None,
        *,
        marks: Sequence[int] | None = None,
        transitions: Sequence[tuple[Any, ...]] = (),
        violations: Sequence[tuple[Any, ...]] = (),
        alerts: Sequence[AlertChange] = (),
        outgoing: Sequence[Outgoing] = (),
        statuses: Sequence[DeviceStatus] = (),
    ) -> None:
        pings = Pings.empty(self.devices) if pings is None else pings
        n = len(pings)
        admitted = Admitted(
            pings=pings,
            marks=np.zeros(n, np.uint16) if marks is None else np.array(marks, np.uint16),
            judged=np.ones(n, np.bool_),
            duplicates=0,
            rejects=[],
            check_ins=[],
            statuses=list(statuses),
        )
        decided = Decided(
            self.devices,
            self.ruleset,
            np.array(list(transitions), TRANSITION),
            np.array(list(violations), VIOLATION),
            np.zeros(n, np.bool_),
        )
        self.batch += 1
        self.store.commit(
            Batch(
                share=0,
                epoch=self.epoch,
                number=self.batch,
                rules_version=self.version,
                admitted=admitted,
                decided=[decided],
                tick=None,
                alerts=list(alerts),
                outgoing=list(outgoing),
            )
        )

    def walk(
        self, device_id: str, n: int, *, from_us: int = START_US, lat: float = 35.20, lon: float = -80.80
    ) -> Pings:
        """n pings of one device, one each minute, going north-east; the last of them moves."""
        slot = self.devices.slot(device_id)
        steps = np.arange(n)
        return Pings.of(
            self.devices,
            device=np.full(n, slot),
            fix_time_us=from_us + steps * MINUTE_US,
            received_time_us=from_us + steps * MINUTE_US + 480_000,
            boot=np.full(n, 3),
            seq=steps,
            lat_e7=np.round(lat * E7).astype(int) + steps * 1000,
            lon_e7=np.round(lon * E7).astype(int) + steps * 1000,
            accuracy_mm=np.full(n, 8_500),
            speed_cmps=np.full(n, 120),
            battery_pct=np.full(n, 81),
            status=np.full(n, 8),
        )

    def transition(self, device_id: str, zone_id: str, kind: int, time_us: int) -> tuple[Any, ...]:
        zone = self.ruleset.zones.index(zone_id)
        return (self.devices.slot(device_id), zone, kind, 0, time_us, time_us + SECOND_US, -12_500, 998_000)

    def raise_alert(
        self,
        device_id: str,
        *,
        rule_id: str = "no-schools",
        zone_id: str | None = "school-1",
        severity: str = "critical",
        opened_us: int = START_US,
        alert_id: int | None = None,
    ) -> int:
        """One violation opens and raises an alert; gives its id."""
        alert_id = alert_id or 2**62 + len(self.alert_ids) + 1  # past 2^53, as real ones are
        violation = (
            alert_id, 0, OPENED, SEVERITIES.index(severity), 0, self.devices.slot(device_id),
            self.ruleset.rule_ids.index(rule_id),
            -1 if zone_id is None else self.ruleset.zones.index(zone_id),
            opened_us, opened_us + MINUTE_US, NO_TIME, 998_100, 62_000, 9_000, 5, 0,
        )  # fmt: skip
        change = AlertChange(
            alert_id=alert_id,
            change="opened",
            violation_id=alert_id,
            device_id=device_id,
            rule_id=rule_id,
            zone_id=zone_id,
            severity=severity,
            time_us=opened_us + MINUTE_US,
            sentence=f"inside {zone_id} by 62 m ± 9 m, 5 fixes, 99.8 % sure",
        )
        row = np.array([violation], VIOLATION)[0]
        message = alert_event(
            "ringfence/v1", 0, change, row, emitted_us=opened_us + MINUTE_US, rules_version=self.version
        )
        self.commit(violations=[violation], alerts=[change], outgoing=[message])
        self.alert_ids.append(alert_id)
        return alert_id

    def withdraw_alert(self, alert_id: int, device_id: str, *, severity: str = "critical") -> None:
        """Late pings refute the violation of an alert of ``raise_alert``."""
        violation = (
            alert_id, 9, WITHDRAWN, SEVERITIES.index(severity), 0, self.devices.slot(device_id),
            self.ruleset.rule_ids.index("no-schools"), self.ruleset.zones.index("school-1"),
            START_US, START_US + MINUTE_US, NO_TIME, 998_100, 62_000, 9_000, 5, 0,
        )  # fmt: skip
        change = AlertChange(
            alert_id=alert_id,
            change="withdrawn",
            violation_id=alert_id,
            device_id=device_id,
            rule_id="no-schools",
            zone_id="school-1",
            severity=severity,
            time_us=START_US + 2 * MINUTE_US,
            sentence="late pings refute it",
        )
        row = np.array([violation], VIOLATION)[0]
        message = alert_event("ringfence/v1", 0, change, row, emitted_us=START_US, rules_version=self.version)
        self.commit(violations=[violation], alerts=[change], outgoing=[message])


@dataclass
class Fine:
    """A health that tests can make ill."""

    reasons: list[str] = field(default_factory=list)

    def ready(self) -> list[str]:
        return list(self.reasons)

    def live(self) -> dict[str, Any]:
        return {"share": 0}

    def metrics(self) -> bytes:
        return b"# TYPE ringfence_pings_total counter\nringfence_pings_total 3.0\n"


@contextlib.contextmanager
def fresh_database(server_url: str, template: str = "template1") -> Iterator[str]:
    """A database of its own, dropped at the end. template: name of the database that it copies."""
    name = f"api_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield (
            urlsplit(server_url)
            ._replace(path=f"/{name}")
            .geturl()
            .replace("postgresql:/?", "postgresql:///?")
        )
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextlib.contextmanager
def serving(
    database_url: str,
    health: Fine | None = None,
    port: int = 0,
    *,
    zones_read_only: bool = True,
    **options: Any,
) -> Iterator[str]:
    """The API on a free port of its own, as ``ringfence up`` runs it; gives its address."""
    app = create_app(
        Reader(database_url),
        health or Fine(),
        zones_read_only=zones_read_only,
        version="0.0.test",
        **options,
    )
    # with proto 0 asyncio would leave TCP_NODELAY off, and every answer would wait 40 ms for an ACK
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        app.state.hub.close_soon()
        server.should_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"


def walk(api, path, limit, key, **filters):
    """Ids of every page in turn; each page but the last is full."""
    found, cursor = [], None
    while True:
        parameters = {"limit": limit, **filters} | ({"cursor": cursor} if cursor else {})
        answer = api.get(path, params=parameters).raise_for_status().json()
        found += [item[key] for item in answer["items"]]
        cursor = answer["next"]
        if cursor is None:
            return found
        assert len(answer["items"]) == limit
