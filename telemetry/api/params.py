"""What a request may ask: checked text, times, ids and filters, each with a message that says the remedy."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from geofence import from_rfc3339
from telemetry.api.problems import Problem

__all__ = [
    "MAX_LIMIT",
    "Acknowledgement",
    "AlertFilter",
    "AlertId",
    "AlertState",
    "Assignment",
    "Between",
    "DeviceFilter",
    "DeviceId",
    "Filter",
    "Looked",
    "Note",
    "Resolution",
    "Severity",
    "Text",
    "TimeUs",
    "TrackFilter",
    "TransitionFilter",
    "ViolationFilter",
    "parse_id",
]

MAX_LIMIT: Final = 1_000
_MAX_BIGINT: Final = 2**63 - 1
_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", flags=re.ASCII
)


def _time_us(value: Any) -> int:
    text = str(value)
    if not _RFC3339.fullmatch(text):
        hint = "; write + as %2B in an address" if " " in text else ""
        raise ValueError(f"{text[:60]!r} is no RFC 3339 time; write it like 2026-11-24T08:00:00Z{hint}")
    try:
        return from_rfc3339(text.upper())
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text[:60]!r} is no time: {error}") from error


def _plain_text(value: Any) -> Any:
    """Refuses what PostgreSQL can't store in text: NUL, and half of a surrogate pair."""
    if isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        raise ValueError("holds a NUL character or half of a surrogate pair; leave it out")
    return value


TimeUs = Annotated[
    int,
    BeforeValidator(_time_us),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-24T08:00:00Z"]}),
]
Text = Annotated[str, BeforeValidator(_plain_text), Field(min_length=1, max_length=200)]
Note = Annotated[str, BeforeValidator(_plain_text), Field(max_length=2_000)]
DeviceId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", examples=["a17"])]
AlertId = Annotated[
    str,
    Path(
        pattern=r"^[0-9]{1,19}$", examples=["6917529027641081856"], description="as text: it can exceed 2^53"
    ),
]
Severity = Literal["info", "low", "high", "critical"]
AlertState = Literal["open", "acknowledged", "resolved", "withdrawn"]


def parse_id(text: str, what: str) -> int:
    """An id from a path as a number; one past bigint is as unknown as any other."""
    number = int(text)
    if number > _MAX_BIGINT:
        raise Problem(
            404, f"no-such-{what}", f"no {what} {text} is known", f"GET /api/v1/{what}s lists those that are"
        )
    return number


class Filter(BaseModel):
    """A parameter that does not exist is refused: a misspelt filter would show everything instead."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class DeviceFilter(Filter):
    """Which devices."""

    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="most items of one answer")
    cursor: Text | None = Field(None, description="``next`` of the answer before")


class Between(Filter):
    """A stretch of time."""

    from_us: TimeUs | None = Field(None, alias="from", description="not before this time")
    to_us: TimeUs | None = Field(None, alias="to", description="before this time")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.from_us is not None and self.to_us is not None and self.from_us > self.to_us:
            raise ValueError("`from` is after `to`; swap them")
        return self


class Looked(Between):
    """Which part of what is kept about a person, and why somebody looks at it."""

    reason: Annotated[str, BeforeValidator(_plain_text), Field(max_length=500)] | None = Field(
        None,
        description="why you look, for the log; the header `Ringfence-Reason` (percent-encoded where it is "
        "not ASCII) stays out of the logs of proxies",
    )


class TrackFilter(Looked):
    """Which part of a track, and how it is written."""

    format: Literal["json", "csv", "geojson", "mfjson"] | None = Field(
        None, description="instead of an Accept header: for links in a browser"
    )


class _Listed(Between):
    device_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = Field(None, alias="device")
    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="most items of one answer")
    cursor: Text | None = Field(None, description="``next`` of the answer before")


class TransitionFilter(_Listed):
    """Which transitions; times are those of the transition."""

    zone_id: Text | None = Field(None, alias="zone")
    kind: Literal["ENTER", "EXIT", "CROSS"] | None = None


class ViolationFilter(_Listed):
    """Which violations; times are those of the opening."""

    rule_id: Text | None = Field(None, alias="rule")
    zone_id: Text | None = Field(None, alias="zone")
    severity: Severity | None = None
    state: Literal["open", "closed", "withdrawn", "held_back"] | None = None


class AlertFilter(_Listed):
    """Which alerts; times are those of the opening."""

    rule_id: Text | None = Field(None, alias="rule")
    zone_id: Text | None = Field(None, alias="zone")
    severity: Severity | None = None
    assigned_to: Text | None = Field(None, description="who deals with it")
    state: list[AlertState] = Field(default_factory=list, description="repeat it to ask for several")


class _Step(BaseModel):
    model_config = ConfigDict(extra="forbid")

    who: Annotated[Text, Field(max_length=100)] = Field("local operator", description="who takes this step")
    note: Note | None = Field(None, description="for the log")


class Acknowledgement(_Step):
    """Who takes up an alert, and why."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"who": "m.ito", "note": "calling the wearer"}]}
    )


class Assignment(_Step):
    """Who deals with an alert from now on."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"to": "k.osei", "who": "m.ito", "note": "night shift"}]},
    )

    to: Annotated[Text, Field(max_length=100)] | None = Field(description="null: nobody yet")


class Resolution(_Step):
    """How an alert ended."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"outcome": "excused", "who": "m.ito", "note": "hospital visit"}]},
    )

    outcome: Literal["real", "false", "excused", "equipment"]
