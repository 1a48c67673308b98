"""What travels when zones and rules are changed: what may be asked, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from geofence import to_rfc3339
from telemetry.api import edits
from telemetry.api.params import MAX_LIMIT, Filter, Text, TimeUs
from telemetry.api.shapes import PageOf, Time

if TYPE_CHECKING:
    from telemetry.api.reader import Edited, VersionRow

__all__ = [
    "EditOutcome",
    "EditQuery",
    "Leave",
    "LeaveGrant",
    "LeaveList",
    "NewVersion",
    "RulesDifference",
    "Version",
    "VersionDetail",
    "VersionFilter",
    "VersionPage",
    "leave_of",
    "outcome_of",
    "version_of",
]


class EditQuery(Filter):
    """When a change takes effect, and why it is made."""

    effective_us: TimeUs | None = Field(
        None, alias="effective_at", description="when it takes effect; left out: in five seconds"
    )
    note: Annotated[Text, Field(max_length=2_000)] | None = Field(None, description="why, for the record")
    validate_only: Literal["only"] | None = Field(
        None, alias="validate", description="`only`: check the change and say what it would do, save nothing"
    )


class VersionFilter(Filter):
    """Which versions."""

    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="most items of one answer")
    cursor: Text | None = Field(None, description="``next`` of the answer before")


class NewVersion(BaseModel):
    """Zones and rules, whole."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "zones": {"type": "FeatureCollection", "features": []},
                    "rules": {
                        "timezone": "America/New_York",
                        "rules": [{"id": "strap", "subjects": ["all"], "require": "strap_closed"}],
                    },
                }
            ]
        },
    )

    zones: dict[str, Any] = Field(description="a GeoJSON FeatureCollection")
    rules: dict[str, Any] = Field(description="the tables of `rules.toml`, as JSON")


class LeaveGrant(BaseModel):
    """A permission for a time."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        json_schema_extra={
            "examples": [
                {
                    "subjects": ["device:a17"],
                    "rules": ["home-curfew-a17"],
                    "from": "2026-12-01T14:00:00Z",
                    "until": "2026-12-03T23:00:00Z",
                    "reason": "hospital",
                }
            ]
        },
    )

    subjects: list[Text] = Field(min_length=1, max_length=1_000, description="as in rules")
    rules: list[Text] = Field(
        default_factory=list, max_length=1_000, description="which are suspended; none named: all of them"
    )
    from_us: TimeUs = Field(alias="from")
    until_us: TimeUs = Field(alias="until")
    reason: Annotated[Text, Field(max_length=2_000)] | None = None

    def table(self, granted_by: str) -> dict[str, Any]:
        """As a table of `rules.toml`."""
        table: dict[str, Any] = {
            "subjects": self.subjects,
            "from": to_rfc3339(self.from_us),
            "until": to_rfc3339(self.until_us),
            "granted_by": granted_by,
        }
        if self.rules:
            table["rules"] = self.rules
        if self.reason:
            table["reason"] = self.reason
        return table


class Leave(BaseModel):
    """A leave as it stands in the rules."""

    leave_id: str = Field(description="follows from what the leave says", examples=["5f0c2a9be113"])
    subjects: list[str]
    rules: list[str]
    from_: str = Field(alias="from")
    until: str
    granted_by: str
    reason: str


class LeaveList(BaseModel):
    """Every leave of a version, and the version."""

    version: int
    items: list[Leave]
    next: None = None


class Changed(BaseModel):
    """One thing before and after."""

    id: str
    before: Any
    after: Any


class TableDifference(BaseModel):
    """What became of the items of one table, by id."""

    added: list[str]
    changed: list[Changed]
    retired: list[str]


class RulesDifference(BaseModel):
    """What differs between two versions. ``settings`` is everything else in `rules.toml`."""

    zones: TableDifference
    rules: TableDifference
    devices: TableDifference
    leaves: TableDifference
    settings: list[Changed]


class EditOutcome(BaseModel):
    """What became of a change."""

    version: int = Field(description="the newest version now")
    effective_at: Time = Field(description="when it takes effect")
    changed: bool = Field(description="false: everything was so already")
    saved: bool = Field(description="false: nothing changed, or `validate=only`")
    warnings: list[str] = Field(description="what is odd, but was accepted")
    diff: RulesDifference


class Version(BaseModel):
    """A version of zones and rules."""

    version: int
    state: str = Field(
        description="``in_force``, ``scheduled``, ``past``, or ``replaced`` (before its time came)"
    )
    effective_at: Time
    saved_at: Time
    saved_by: str | None = Field(description="null: it came from files")
    note: str | None
    zones: int = Field(description="how many")
    rules: int = Field(description="how many")


class VersionPage(PageOf[Version]):
    """Versions, newest first."""


class VersionDetail(BaseModel):
    """A version, whole, without the devices' keys."""

    version: int
    effective_at: Time
    zones: dict[str, Any]
    rules: dict[str, Any]


def outcome_of(edited: Edited) -> EditOutcome:
    """An edit as it is answered."""
    return EditOutcome(
        version=edited.version,
        effective_at=to_rfc3339(edited.effective_us),
        changed=edited.changed,
        saved=edited.saved,
        warnings=list(edited.warnings),
        diff=RulesDifference(**edits.difference(edited.before, edited.after)),
    )


def version_of(row: VersionRow) -> Version:
    """A version as it is listed."""
    return Version(
        version=row.version,
        state=row.state,
        effective_at=to_rfc3339(row.effective_us),
        saved_at=to_rfc3339(row.saved_us),
        saved_by=row.saved_by,
        note=row.note,
        zones=row.zones,
        rules=row.rules,
    )


def leave_of(table: dict[str, Any]) -> Leave:
    """A leave of the rules document."""
    return Leave.model_validate(
        {
            "leave_id": edits.leave_id(table),
            "subjects": table.get("subjects", []),
            "rules": table.get("rules", []),
            "from": str(table.get("from")),
            "until": str(table.get("until")),
            "granted_by": table.get("granted_by", ""),
            "reason": table.get("reason", ""),
        }
    )
