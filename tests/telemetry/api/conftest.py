"""The API over a town with history, and over an empty one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from geofence import Pings
from telemetry.columns import DeviceStatus
from tests.telemetry.api.town import MINUTE_US, START_US, Town, fresh_database, serving


@pytest.fixture(scope="package")
def migrated(postgres_url: str) -> Iterator[str]:
    """The name of an empty database with the tables: copying it takes a tenth of migrating anew."""
    with fresh_database(postgres_url) as url:
        Town(url).close()
        yield urlsplit(url).path[1:]


@pytest.fixture(scope="package")
def filled(postgres_url: str, migrated: str) -> Iterator[Town]:
    """A town with some history, for tests that only read."""
    with fresh_database(postgres_url, migrated) as url:
        town = Town(url)
        for device_id, n in (("a1", 250), ("a2", 3), ("b-1", 1)):
            town.commit(town.walk(device_id, n), statuses=[DeviceStatus(device_id, True, START_US)])
        silent = Pings.of(town.devices, device=[town.devices.slot("c_1")], fix_time_us=[START_US], seq=[7])
        town.commit(silent, marks=[1 << 1 | 1 << 5])
        town.commit(
            transitions=[
                town.transition(
                    "a1" if i % 2 else "a2",
                    "school-1" if i % 3 else "home-a1",
                    1 + i % 3,
                    START_US + i * MINUTE_US // 4,
                )
                for i in range(60)
            ]
        )
        for i in range(25):
            town.raise_alert(
                ("a1", "a2", "b-1")[i % 3],
                rule_id="strap" if i % 5 == 0 else "no-schools",
                zone_id=None if i % 5 == 0 else "school-1",
                severity=("critical", "high")[i % 2],
                opened_us=START_US + (i // 2) * MINUTE_US,  # two share each time: a cursor must not lose one
            )
        yield town
        town.close()


@pytest.fixture(scope="package")
def api(filled: Town) -> Iterator[httpx.Client]:
    """A client of the API over the filled town."""
    with serving(filled.url) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.fixture(scope="package")
def busy(postgres_url: str, migrated: str) -> Iterator[Town]:
    """A town that many tests write to, each about an alert of its own."""
    with fresh_database(postgres_url, migrated) as url:
        town = Town(url)
        yield town
        town.close()


@pytest.fixture(scope="package")
def busy_api(busy: Town) -> Iterator[httpx.Client]:
    """A client of the API over the busy town."""
    with serving(busy.url) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.fixture
def town(postgres_url: str, migrated: str) -> Iterator[Town]:
    """An empty town, for tests that write."""
    with fresh_database(postgres_url, migrated) as url:
        town = Town(url)
        yield town
        town.close()


@pytest.fixture
def town_api(town: Town) -> Iterator[httpx.Client]:
    """A client of the API over the empty town."""
    with serving(town.url) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.fixture(scope="session")
def problem() -> Callable[[httpx.Response, int], dict[str, Any]]:
    """Checks that an answer is a problem document of this status, and gives it."""

    def check(response: httpx.Response, status: int) -> dict[str, Any]:
        assert response.status_code == status, response.text[:300]
        assert response.headers["content-type"] == "application/problem+json"
        document = dict(response.json())
        assert document["status"] == status
        assert document["type"].startswith("urn:ringfence:problem:")
        assert document["detail"]
        assert document["remedy"]
        return document

    return check
