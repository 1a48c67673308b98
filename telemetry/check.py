"""``ringfence check``: a file of pings through the same decoding, admission and engine that live pings take.

Each row becomes the JSON v1 message that a device would have published, so a row is refused for the reasons
for which a message is, and what is decided here is what would have been decided live.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from geofence import (
    HELD_BACK,
    NO_TIME,
    SEVERITIES,
    TRANSITION_KINDS,
    WITHDRAWN,
    Devices,
    Engine,
    Pings,
    Ruleset,
    sentence,
    to_rfc3339,
)
from geofence.records import FLAG_INITIAL
from telemetry.admission import Admission
from telemetry.columns import Decoded, Messages, Reject
from telemetry.formats import decode
from telemetry.mqtt.topics import Topics, device_topic, is_device_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from geofence import Decided

__all__ = ["Checked", "PingFileError", "check_file"]

ROWS_AT_ONCE: Final = 50_000
NOTES_SHOWN: Final = 20  # a file of the wrong kind has as many problems as rows

_NUMBERS: Final = frozenset(
    (
        "boot",
        "seq",
        "lat",
        "lon",
        "accuracy_m",
        "speed_mps",
        "heading_deg",
        "altitude_m",
        "battery_pct",
        "satellites",
    )
)
_COLUMNS: Final = _NUMBERS | {"device_id", "time", "status", "source"}
_OURS: Final = frozenset(
    ("received_time", "marks")
)  # of a downloaded track: what we noted, not what was sent


class PingFileError(Exception):
    """The file can't be read as pings; the message says what is wrong and the remedy."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a file's pings come to. ``notes`` tells of refused rows, for people."""

    decided: list[Decided]
    notes: list[str]

    def document(self, *, transitions: bool) -> dict[str, list[dict[str, Any]]]:
        """Violations as they stand at the end, and the transitions: the shape of ``--json``."""
        found = {"violations": self._current()}
        if transitions:
            found["transitions"] = [
                _transition(decided, row) for decided in self.decided for row in decided.transitions
            ]
            found["transitions"].sort(key=lambda row: (row["device_id"], row["time"]))
        return found

    def _current(self) -> list[dict[str, Any]]:
        """The last revision of each violation, of those that ever opened and were not withdrawn."""
        last: dict[int, tuple[Decided, Any]] = {}
        for decided in self.decided:
            for row in decided.violations:
                last[int(row["violation_id"])] = (decided, row)
        standing = [
            (decided, row) for decided, row in last.values() if row["change"] not in {HELD_BACK, WITHDRAWN}
        ]
        standing.sort(key=lambda pair: (pair[0].devices.ids[pair[1]["device"]], pair[1]["opened_us"]))
        return [_violation(decided, row) for decided, row in standing]


def check_file(rules: Path, path: Path) -> Checked:
    """Decide over a CSV or Parquet file against a rules directory.

    Raises PingFileError, and what Ruleset.load raises. Rows that a live engine
    would have quarantined are left out, and told in ``notes``.
    """
    ruleset = Ruleset.load(rules)
    devices = Devices()
    decoded, notes = _read(path, devices)
    order = np.lexsort(
        (decoded.pings.seq, decoded.pings.boot, decoded.pings.fix_time_us, decoded.pings.device)
    )
    decoded = Decoded(
        pings=decoded.pings.take(order), message=decoded.message[order], marks=decoded.marks[order]
    )
    admitted = Admission(devices, _nothing_stored).admit(
        decoded, ruleset.enrolled if ruleset.roster is not None else None
    )
    if admitted.duplicates:
        notes.append(f"{admitted.duplicates} rows are copies of others and count once")
    strangers = len(admitted.pings) - int(np.count_nonzero(admitted.judged))
    if strangers:
        notes.append(
            f"{strangers} pings are of devices that the roster does not enroll then; they are not judged"
        )
    engine = Engine(ruleset, devices)
    judged = admitted.pings.take(admitted.judged)
    decided = []
    if len(admitted.pings):
        end_us = int(admitted.pings.fix_time_us.max())
        decided.append(engine.tick(end_us))  # the file is whole: a silence between two of its pings was one
        decided += [engine.check(judged.take(part)) for part in _parts(len(judged))]
        decided.append(engine.tick(end_us))
    return Checked(decided, notes)


def _parts(n: int) -> Iterator[slice]:
    return (slice(begin, begin + ROWS_AT_ONCE) for begin in range(0, n, ROWS_AT_ONCE))


def _nothing_stored(pings: Pings) -> NDArray[np.bool_]:
    return np.zeros(len(pings), np.bool_)


# --- reading ------------------------------------------------------------------------------------


def _read(path: Path, devices: Devices) -> tuple[Decoded, list[str]]:
    """All rows, decoded in the file's order; and what is to be told of the refused ones."""
    topics = Topics()
    notes: list[str] = []
    pings, marks = [Pings.empty(devices)], [np.zeros(0, np.uint16)]
    refused = 0
    first_row = 1
    for rows in _rows(path):
        problems: list[tuple[int, str]] = []
        messages = _messages(rows, topics, problems)
        part = decode(messages, devices, _no_key)
        problems += _refusals(messages, part.rejects)
        refused += len(problems)
        for row, what in sorted(problems)[: max(0, NOTES_SHOWN - len(notes))]:
            notes.append(f"{path.name}, row {first_row + row}: {what}")
        pings.append(replace(part.pings, received_time_us=part.pings.fix_time_us))
        marks.append(part.marks)
        first_row += len(rows)
    if refused > len(notes):
        notes.append(f"{refused - len(notes)} more rows were refused")
    whole = Pings.concat(pings)
    if refused and not len(whole):
        raise PingFileError(f"{path}: not one of {refused} rows can be read as a ping; the first: {notes[0]}")
    return Decoded(whole, np.arange(len(whole), dtype=np.int32), np.concatenate(marks)), notes


def _rows(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Rows as dictionaries, some at a time; CSV values are text, empty ones None."""
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        if is_parquet:
            source = pa_parquet.ParquetFile(path)
            names = source.schema_arrow.names
            batches = source.iter_batches(ROWS_AT_ONCE)
        else:
            table = _read_csv(path)
            names = table.column_names
            batches = iter(table.to_batches(ROWS_AT_ONCE))
        _check_names(path, names)
        for batch in batches:
            yield batch.to_pylist()
    except OSError as error:
        raise PingFileError(f"{path}: {error.strerror or error}; give a file that can be read") from error
    except pa.ArrowInvalid as error:
        raise PingFileError(
            f"{path}: {error}; give a CSV file with a header line, or a Parquet file"
        ) from error


def _read_csv(path: Path) -> pa.Table:
    with path.open("rb") as file:
        header = file.readline().decode("utf-8-sig", "replace").strip()
    names = [name.strip().strip('"') for name in header.split(",")]
    return pa_csv.read_csv(
        path,
        read_options=pa_csv.ReadOptions(column_names=names, skip_rows=1),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )


def _check_names(path: Path, names: list[str]) -> None:
    missing = [name for name in ("device_id", "time") if name not in names]
    if missing:
        raise PingFileError(
            f"{path}: there is no column {' and no column '.join(missing)} among {', '.join(names)}; "
            f"name the columns as JSON v1 does: {', '.join(sorted(_COLUMNS))}"
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise PingFileError(f"{path}: there are two columns called {twice[0]}; drop one")
    unknown = [name for name in names if name not in _COLUMNS | _OURS]
    if unknown:
        raise PingFileError(
            f"{path}: column {unknown[0]} is not one of {', '.join(sorted(_COLUMNS))}; rename or drop it"
        )


def _messages(rows: list[dict[str, Any]], topics: Topics, problems: list[tuple[int, str]]) -> Messages:
    """Each row as the message a device would have published. Rows without a device id become problems."""
    payloads: list[bytes] = []
    slots: list[int] = []
    for number, row in enumerate(rows):
        device_id = row.pop("device_id")
        if not isinstance(device_id, str) or not is_device_id(device_id):
            problems.append((number, f"device_id {device_id!r} is not 1 to 64 letters, digits, _ and -"))
            device_id, row = "-", {}  # noqa: PLW2901 - keeps rows and messages in step; refused below for its time
        slots.append(topics.slot(device_topic(topics.root, device_id, "pings")))
        payloads.append(msgspec.json.encode(_as_json_v1(row)) if row else b"")
    stop = np.cumsum([len(payload) for payload in payloads], dtype=np.int64)
    return Messages(
        topics=topics,
        buffer=np.frombuffer(b"".join(payloads), np.uint8),
        start=np.concatenate((np.zeros(1, np.int64), stop[:-1])) if len(stop) else stop,
        stop=stop,
        topic=np.array(slots, np.int32),
        received_time_us=np.zeros(len(slots), np.int64),
        acknowledge=lambda: None,
    )


def _as_json_v1(row: dict[str, Any]) -> dict[str, Any]:
    """The row with numbers as numbers and status as a list; what is no number stays text, to be refused."""
    ping: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or name in _OURS:
            continue
        if isinstance(value, str):
            if name in _NUMBERS or (name == "time" and value.lstrip("-").replace(".", "", 1).isdigit()):
                value = _number(value)  # noqa: PLW2901
            elif name == "status":
                value = value.split()  # noqa: PLW2901
        elif name in _NUMBERS:
            value = _plain(value)  # noqa: PLW2901
        elif name == "time" and hasattr(value, "tzinfo") and value.tzinfo is None:
            value = value.isoformat()  # noqa: PLW2901 - without an offset: refused, and the note says why
        ping[name] = value
    return ping


def _number(text: str) -> int | float | str:
    """A finite number, or the text as it is."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return _plain(value) if np.isfinite(value) else text
    return text


def _plain(value: Any) -> Any:
    """A number as JSON has it; 3.0 as 3: where a column has gaps, many programs write whole numbers so."""
    if isinstance(value, Decimal):
        value = float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refusals(messages: Messages, rejects: list[Reject]) -> Iterator[tuple[int, str]]:
    """Which row each reject is of, and why; the rows that were told of already are left out."""
    rows: dict[bytes, list[int]] = {}
    for number in range(len(messages)):
        rows.setdefault(messages.payload(number), []).append(number)
    for reject in rejects:
        if reject.payload:
            yield rows[reject.payload].pop(0), f"{reject.reason}: {reject.detail}"


def _no_key(_device_id: str) -> bytes | None:
    """A file carries no tags, so none is asked for."""
    return None


# --- telling ------------------------------------------------------------------------------------


def _violation(decided: Decided, row: Any) -> dict[str, Any]:
    zones, zone = decided.ruleset.zones.ids, int(row["zone"])
    return {
        "device_id": decided.devices.ids[row["device"]],
        "rule_id": decided.ruleset.rule_ids[row["rule"]],
        "zone_id": zones[zone] if zone >= 0 else None,
        "opened_at": to_rfc3339(row["opened_us"]),
        "confirmed_at": to_rfc3339(row["confirmed_us"]),
        "closed_at": None if row["closed_us"] == NO_TIME else to_rfc3339(row["closed_us"]),
        "confidence": int(row["confidence_ppm"]) / 1e6,
        "depth_m": int(row["depth_mm"]) / 1e3,
        "severity": SEVERITIES[row["severity"]],
        "sentence": sentence(decided.ruleset, decided.devices, row),
    }


def _transition(decided: Decided, row: Any) -> dict[str, Any]:
    return {
        "device_id": decided.devices.ids[row["device"]],
        "zone_id": decided.ruleset.zones.ids[row["zone"]],
        "kind": TRANSITION_KINDS[row["kind"]],
        "time": to_rfc3339(row["time_us"]),
        "initial": bool(row["flags"] & FLAG_INITIAL),
    }
