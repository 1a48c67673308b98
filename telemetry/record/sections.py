"""A record as titles, explanations and tables in plain words; HTML and PDF are written from these."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from geofence import to_rfc3339
from telemetry.store.records import FOREVER_US

if TYPE_CHECKING:
    from telemetry.store.records import Record

__all__ = ["Section", "document_of", "sections_of"]

STATES: Final = {
    "open": "it still lasts",
    "closed": "it has ended",
    "withdrawn": "taken back: positions that came late showed that the rule was not broken",
    "held_back": "not held against you: it was too uncertain, so nobody was alerted",
}
OUTCOMES: Final = {
    "real": "it was found to be true",
    "false": "it was found to be a false alarm",
    "excused": "it was excused",
    "equipment": "the equipment was at fault",
}
CHANGES: Final = {
    "opened": "the alert was raised",
    "updated": "more became known",
    "withdrawn": "the alert was taken back",
    "acknowledged": "somebody took it up",
    "assigned": "it was given to somebody",
    "resolved": "it was closed",
    "reopened": "it was opened again",
    "escalated": "it was passed on, because nobody had taken it up",
    "suppressed": "it was kept quiet",
    "unsuppressed": "it was kept quiet no longer",
}
CHECK_INS: Final = {
    "verified": "you were recognized",
    "failed": "you were not recognized",
    "no_answer": "no answer",
}
LOOKS: Final = {
    "track": "looked at where you were",
    "export": "took a file of where you were",
    "record": "read this record",
    "erase": "erased what was recorded",
}


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the record. empty: what to say when there is no row."""

    title: str
    explanation: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    empty: str


def sections_of(record: Record) -> list[Section]:
    """The record for the person whom it is about."""
    steps: dict[int, list[str]] = {}
    for step in record.steps:
        steps.setdefault(step["alert_id"], []).append(_step(step))
    sections = [
        Section(
            "Your devices",
            "Which devices you were given, and from when to when. What a device sent in that time counts as "
            "yours.",
            ("device", "kind", "from", "until"),
            [
                (
                    w.device_id,
                    w.kind,
                    _since(w.from_us),
                    "now" if w.until_us >= FOREVER_US else _us(w.until_us),
                )
                for w in record.worn
            ],
            "No device was given to you.",
        ),
        Section(
            "What your devices sent",
            "A device sends a short message every so often, most with a position. Here they are counted by "
            "day; you can ask for the positions themselves. Positions are deleted after the time that the "
            "rules on keeping data set.",
            ("day", "device", "messages", "with a position", "first", "last"),
            [
                (
                    row["day"],
                    row["device_id"],
                    str(row["pings"]),
                    str(row["with_position"]),
                    _clock(row["first_time"]),
                    _clock(row["last_time"]),
                )
                for row in record.days
            ],
            "Nothing is stored.",
        ),
        Section(
            "Where the system saw a rule broken",
            "The system compares positions with the rules that were set for you. A position is never exact, "
            "so each entry says how sure it is. Entries that were held back are shown too.",
            ("when", "what was seen", "how sure", "what became of it"),
            [
                (_when(row), _seen(row), _sure(row["confidence_ppm"]), STATES[row["state"]])
                for row in record.violations
            ],
            "None.",
        ),
        Section(
            "Alerts to the people who supervise you",
            "When an entry above was sure enough, people were told. Each step of theirs is kept.",
            ("when", "how serious", "what they were told", "what they did", "outcome"),
            [
                (
                    _time(row["opened_time"]),
                    row["severity"],
                    row["sentence"] or "(erased)",
                    "; ".join(steps.get(row["alert_id"], [])),
                    OUTCOMES.get(row["outcome"] or "", row["state"]),
                )
                for row in record.alerts
            ],
            "None.",
        ),
        Section(
            "Check-ins",
            "Calls and other ways in which you were asked to confirm who and where you are.",
            ("when", "device", "how", "result"),
            [
                (
                    _time(row["time"]),
                    row["device_id"],
                    row["method"],
                    CHECK_INS.get(row["outcome"], row["outcome"]),
                )
                for row in record.check_ins
            ],
            "None.",
        ),
        Section(
            "Leave that you were granted",
            "Times in which rules did not hold for you.",
            ("from", "until", "for", "reason"),
            [
                (
                    str(leave.get("from", "")),
                    str(leave.get("until", "")),
                    ", ".join(leave.get("subjects", [])),
                    str(leave.get("reason") or leave.get("note") or ""),
                )
                for leave in record.leaves
            ],
            "None.",
        ),
        Section(
            "What was sent to your devices",
            "Messages and requests from the people who supervise you.",
            ("when", "device", "what", "by whom", "text"),
            [
                (_time(row["asked_time"]), row["device_id"], row["command"], row["who"], row["message"] or "")
                for row in record.commands
            ],
            "Nothing.",
        ),
        Section(
            "Who looked at your data",
            "Every look at where you were, and at this record, is written down with who it was and why.",
            ("when", "who", "what", "time that was looked at", "reason given"),
            [
                (
                    _time(row["time"]),
                    f"{row['who']} ({row['role'].replace('_', ' ') or 'unknown'})",
                    LOOKS.get(row["what"], row["what"]),
                    _range(row),
                    row["reason"] or "none",
                )
                for row in record.looks
            ],
            "Nobody.",
        ),
    ]
    if record.positions is not None:
        sections.insert(
            2,
            Section(
                "Your positions",
                "Every stored message, with latitude and longitude in degrees where there was a position.",
                ("when", "device", "latitude", "longitude", "accuracy"),
                [
                    (
                        _time(row["time"]),
                        row["device_id"],
                        "" if row["lat"] is None else f"{row['lat']:.7f}",
                        "" if row["lon"] is None else f"{row['lon']:.7f}",
                        "" if row["accuracy_m"] is None else f"about {row['accuracy_m']:.0f} m",
                    )
                    for row in record.positions
                ],
                "None is stored any more.",
            ),
        )
    return sections


def document_of(record: Record) -> dict[str, Any]:
    """The record as JSON: times as RFC 3339, ids that can pass 2^53 as text."""
    worn = [
        {
            "device_id": w.device_id,
            "kind": w.kind,
            "groups": w.groups,
            "from": to_rfc3339(w.from_us) if w.from_us else None,
            "until": None if w.until_us >= FOREVER_US else to_rfc3339(w.until_us),
        }
        for w in record.worn
    ]
    rest = {name: value for name, value in asdict(record).items() if name not in {"participant", "worn"}}
    return {"participant": record.participant, "devices": worn, **_plain(rest)}


def _plain(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _plain(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value) if name == "alert_id" else value


def _time(value: datetime | None) -> str:
    return "" if value is None else f"{value:%d %B %Y, %H:%M} UTC"


def _clock(value: datetime) -> str:
    return f"{value:%H:%M}"


def _us(time_us: int) -> str:
    return str(to_rfc3339(time_us))


def _since(time_us: int) -> str:
    return _us(time_us) if time_us else "the beginning"


def _when(row: dict[str, Any]) -> str:
    until = _time(row["closed_time"])
    return f"{_time(row['opened_time'])}" + (f" until {until}" if until else "")


def _seen(row: dict[str, Any]) -> str:
    where = f" at the zone {row['zone_id']}" if row["zone_id"] else ""
    depth = (
        f", up to {row['depth_mm'] / 1000:.0f} m past its line" if row["zone_id"] and row["depth_mm"] else ""
    )
    return f"the rule {row['rule_id']}{where}{depth}; {row['fixes']} positions of {row['device_id']}"


def _sure(confidence_ppm: int) -> str:
    return f"{min(confidence_ppm / 1e4, 99.9):.1f} %"


def _step(step: dict[str, Any]) -> str:
    who = step["who"] or "the system"
    note = f": {step['note']}" if step["note"] else ""
    return f"{_time(step['recorded_time'])}, {who}: {CHANGES.get(step['change'], step['change'])}{note}"


def _range(row: dict[str, Any]) -> str:
    if row["from_time"] is None and row["to_time"] is None:
        return ""
    return f"{_time(row['from_time']) or 'the beginning'} to {_time(row['to_time']) or 'then'}"
