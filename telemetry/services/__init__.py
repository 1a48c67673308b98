"""The parts that ``ringfence up`` can bring along: a broker and a PostgreSQL of its own, in one directory.

A data directory holds (see docs/operations.md)::

    lock              held by the running ``up``
    state.json        its addresses, for ``ringfence doctor`` and its siblings; 0600
    broker/           nats-server: configuration, log, messages; 0700
    postgres.json     where the database lives and as whom it runs
    postgres.password 0600
    postgres/         the database, unless its uid can't reach it here; 0700
"""

from __future__ import annotations

from telemetry.services.broker import EmbeddedBroker
from telemetry.services.datadir import DataDirLock
from telemetry.services.errors import (
    ClusterVersionError,
    DataDirError,
    DataDirInUse,
    PortTaken,
    ServiceError,
    StartError,
)
from telemetry.services.postgres import EmbeddedPostgres
from telemetry.services.state import RunningUp, clear_state, read_state, write_state

__all__ = [
    "ClusterVersionError",
    "DataDirError",
    "DataDirInUse",
    "DataDirLock",
    "EmbeddedBroker",
    "EmbeddedPostgres",
    "PortTaken",
    "RunningUp",
    "ServiceError",
    "StartError",
    "clear_state",
    "read_state",
    "write_state",
]
