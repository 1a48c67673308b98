"""A store on a fresh database of each kind, and what its tests ask with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from geofence import Devices
from telemetry.store import Store
from tests.telemetry.store.batches import NOW_US, Maker, Wire


@pytest.fixture
def make() -> Maker:
    return Maker(Devices())


@pytest.fixture
def store(database_url: str, make: Maker) -> Iterator[Store]:
    """A migrated store that holds share 0, with a clock that stands still."""
    store = Store.open(database_url, now_us=lambda: NOW_US)
    store.migrate()
    make.lease = store.take_share(0)
    yield store
    store.close()


@pytest.fixture
def query(database_url: str) -> Iterator[Callable[..., list[Any]]]:
    """Asks the database past the store."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET TIME ZONE 'UTC'")

        def ask(sql: str, *values: Any) -> list[Any]:
            cursor = connection.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

        yield ask


@pytest.fixture
def wire(database_url: str) -> Iterator[Wire]:
    wire = Wire(database_url)
    yield wire
    wire.close()
