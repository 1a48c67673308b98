"""The engine's whole state as bytes, and back: bit-exact, versioned, guarded by a checksum."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence.eras import Era, Left
from geofence.errors import SnapshotError
from geofence.plan import Calendars, Plan, calendar_document, calendar_of
from geofence.records import TRANSITION, VIOLATION
from geofence.state import State

if TYPE_CHECKING:
    from geofence.engine import Engine

__all__ = ["restore", "snapshot"]

# magic, version of this layout, length of the JSON head; then the head, the tables, and a BLAKE2b of it all
_MAGIC: Final = b"RFENGINE"
_VERSION: Final = 4
_FRAME: Final = struct.Struct("<8sIQ")
_SUM_BYTES: Final = 16
_LEFT: Final = {"violations": VIOLATION, "when": np.dtype("i8"), "transitions": TRANSITION}  # of each era
_USED_ROWS: Final = {"devices": 0, "due_us": 0, "duties": 1, "pairs": 2, "opens": 3}


def snapshot(engine: Engine) -> bytes:
    """Everything that decides what the engine will say."""
    state = engine.state
    tables = {field.name: getattr(state, field.name) for field in fields(State)}
    for name, k in _USED_ROWS.items():
        tables[name] = tables[name][: int(state.used[k])]
    engine.ledger.forget()
    tables["deaf"] = engine.deaf
    tables["told_violations"] = engine.ledger.violations
    tables["told_when"] = engine.ledger.when
    tables["told_transitions"] = engine.ledger.transitions
    engine.eras.forget(engine.ledger.newest_us)
    lefts = [era.left for era in engine.eras.all]
    for name, dtype in _LEFT.items():
        rows = [getattr(left, name) for left in lefts]
        tables[f"left_{name}"] = np.concatenate(rows) if rows else np.zeros(0, dtype)
    plan = engine.plan
    head = {
        "digest": engine.ruleset.digest,
        "devices": engine.devices.ids,
        "watermark_us": engine.watermark_us,
        "effective_us": engine.effective_us,
        "version": engine.version,
        "eras": [era.to_json() for era in engine.eras.all],
        "newest_us": engine.ledger.newest_us,
        "effective": plan.effective,
        "calendars": [calendar_document(calendar) for calendar in plan.calendars.all],
        "years": [plan.calendars.first_year, plan.calendars.last_year],
        "tables": [[name, _layout(table.dtype), list(table.shape)] for name, table in tables.items()],
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    body = b"".join((_FRAME.pack(_MAGIC, _VERSION, len(text)), text, *(t.tobytes() for t in tables.values())))
    return body + hashlib.blake2b(body, digest_size=_SUM_BYTES).digest()


def restore(engine: Engine, blob: bytes) -> None:
    """Bring a fresh engine into the state that ``snapshot`` gave."""
    body = memoryview(blob)[:-_SUM_BYTES]
    if len(blob) < _FRAME.size + _SUM_BYTES or bytes(body[:8]) != _MAGIC:
        raise SnapshotError(f"these {len(blob)} bytes are no snapshot of an engine")
    _, version, length = _FRAME.unpack_from(body)
    if version != _VERSION:
        raise SnapshotError(
            f"the snapshot is of layout {version}, this engine reads {_VERSION}; "
            "start without it and replay the stored inputs"
        )
    if hashlib.blake2b(body, digest_size=_SUM_BYTES).digest() != bytes(blob[-_SUM_BYTES:]):
        raise SnapshotError("the snapshot is damaged (its checksum differs); use an earlier one")
    head = json.loads(bytes(body[_FRAME.size : _FRAME.size + length]))
    if head["digest"] != engine.ruleset.digest:
        raise SnapshotError(
            f"the snapshot is of rules {head['digest']}, these are {engine.ruleset.digest}; "
            "restore with the rules that it was taken under, then adopt"
        )
    tables = _tables(body[_FRAME.size + length :], head["tables"])
    for device_id in head["devices"]:
        engine.devices.slot(device_id)
    engine.watermark_us, engine.effective_us = head["watermark_us"], head["effective_us"]
    engine.deaf = tables.pop("deaf")
    engine.ledger.remember(*(tables.pop(f"told_{name}") for name in ("violations", "when", "transitions")))
    engine.ledger.newest_us = head["newest_us"]
    engine.version = head["version"]
    engine.eras.all = _eras(head["eras"], {name: tables.pop(f"left_{name}") for name in _LEFT})
    calendars = Calendars(calendar_of(document) for document in head["calendars"])
    engine.use(Plan(engine.ruleset, head["effective"], calendars))
    if head["years"][1]:
        calendars.cover_years(*head["years"])
    engine.state = State(**tables)


def _eras(rows: list[Any], left: dict[str, np.ndarray[Any, Any]]) -> list[Era]:
    """The eras before the present one, each with its share of what was left."""
    found = []
    row_at = move_at = 0
    for row in rows:
        n_rows, n_moves = row[-1]
        of_rows, of_moves = slice(row_at, row_at + n_rows), slice(move_at, move_at + n_moves)
        part = Left(left["violations"][of_rows], left["when"][of_rows], left["transitions"][of_moves])
        found.append(Era.from_json(row, part))
        row_at, move_at = of_rows.stop, of_moves.stop
    return found


def _layout(dtype: np.dtype[Any]) -> Any:
    return dtype.str if dtype.names is None else [[name, dtype[name].str] for name in dtype.names]


def _tables(body: memoryview, layout: list[list[Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """The tables of a snapshot; SnapshotError when this engine lays one out differently."""
    empty = State.empty()
    expected = {field.name: getattr(empty, field.name).dtype for field in fields(State)}
    expected |= {
        "deaf": np.dtype("i8"),
        "told_when": np.dtype("i8"),
        "told_violations": VIOLATION,
        "told_transitions": TRANSITION,
    } | {f"left_{name}": dtype for name, dtype in _LEFT.items()}
    tables = {}
    offset = 0
    for name, dtype, shape in layout:
        if name not in expected or _layout(expected[name]) != dtype:
            raise SnapshotError(
                f"table {name} of the snapshot is laid out differently; "
                "start without it and replay the stored inputs"
            )
        size = int(np.prod(shape)) * expected[name].itemsize
        tables[name] = np.frombuffer(body[offset : offset + size], expected[name]).reshape(shape).copy()
        offset += size
    return tables
