"""What is stored: PostgreSQL with or without TimescaleDB, written by batches and read by the API.

``Store`` is the writing side, one connection for one thread; ``Reader`` is the reading side, an async pool.
"""

from telemetry.store.decisions import DeviceDecisions, decisions_in
from telemetry.store.errors import *  # noqa: F403 - each module's __all__ is its public part
from telemetry.store.errors import __all__ as _errors
from telemetry.store.house import Retention
from telemetry.store.outbox import OutboxRow
from telemetry.store.quarantine import Asked, QuarantineRow, Wanted
from telemetry.store.reader import NearRow, Reader
from telemetry.store.shares import Lease, Replayed
from telemetry.store.store import Store

__all__ = [  # noqa: PLE0604 - a list of names
    "Asked",
    "DeviceDecisions",
    "Lease",
    "NearRow",
    "OutboxRow",
    "QuarantineRow",
    "Reader",
    "Replayed",
    "Retention",
    "Store",
    "Wanted",
    "decisions_in",
    *_errors,
]
