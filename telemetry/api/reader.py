"""What the API asks of the store: the reading side of ``telemetry.store``, as a protocol.

Rows carry the store's units (``_us``, ``_e7``, ``_mm``, ``_ppm``); ``telemetry.api.shapes`` turns them into
what travels over HTTP. Every list is walked with an opaque keyset cursor, so rows that arrive while a client
walks neither shift nor repeat what it sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from telemetry.api.work import AlertWork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from telemetry.store.gate import Gate
    from telemetry.store.records import Record

__all__ = [
    "AlertRow",
    "Belief",
    "BeliefSeries",
    "CheckInRow",
    "CommandRow",
    "DeviceRow",
    "Edited",
    "EventRow",
    "LogRow",
    "Page",
    "PositionRow",
    "Reader",
    "TrackRow",
    "TransitionRow",
    "VersionRow",
    "ViolationRow",
]

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows and where to go on; ``next`` is None at the end."""

    items: Sequence[Row]
    next: str | None


@dataclass(frozen=True, slots=True)
class PositionRow:
    """The newest ping of a device. lat_e7 and lon_e7 are those of its newest fix (NO_FIX: never one)."""

    device_id: str
    fix_time_us: int
    received_time_us: int
    lat_e7: int
    lon_e7: int
    accuracy_mm: int
    speed_cmps: int
    heading_cdeg: int
    status: int
    battery_pct: int
    marks: int


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device that is enrolled or has spoken."""

    device_id: str
    kind: str | None
    participant: str | None
    groups: Sequence[str]
    online: bool | None
    position: PositionRow | None
    open_alerts: int


@dataclass(frozen=True, slots=True)
class TrackRow:
    """One stored ping."""

    fix_time_us: int
    received_time_us: int
    boot: int
    seq: int
    lat_e7: int
    lon_e7: int
    accuracy_mm: int
    speed_cmps: int
    heading_cdeg: int
    altitude_m: int
    status: int
    battery_pct: int
    satellites: int
    marks: int


@dataclass(frozen=True, slots=True)
class TransitionRow:
    """One confirmed ENTER, EXIT or CROSS."""

    transition_id: int
    device_id: str
    zone_id: str
    kind: str
    initial: bool
    late: bool
    withdrawn: bool
    time_us: int
    confirmed_us: int
    distance_mm: int
    confidence_ppm: int
    rules_version: int


@dataclass(frozen=True, slots=True)
class ViolationRow:
    """The current revision of a violation. closed_us is None while it is open."""

    violation_id: int
    revision: int
    change: str
    device_id: str
    rule_id: str
    zone_id: str | None
    severity: str
    opened_us: int
    confirmed_us: int
    closed_us: int | None
    confidence_ppm: int
    depth_mm: int
    depth_error_mm: int
    fixes: int
    supersedes: int | None
    rules_version: int


@dataclass(frozen=True, slots=True)
class AlertRow:
    """An operator's work item with the current row of its newest violation."""

    alert_id: int
    state: str  # open, acknowledged, resolved, withdrawn
    outcome: str | None
    device_id: str
    rule_id: str
    zone_id: str | None
    severity: str
    sentence: str
    opened_us: int
    updated_us: int
    acknowledged_us: int | None
    resolved_us: int | None
    assigned_to: str | None
    note: str | None
    suppression_id: int | None
    violation: ViolationRow | None


@dataclass(frozen=True, slots=True)
class LogRow:
    """One step in an alert's life."""

    time_us: int
    change: str
    who: str | None
    note: str | None
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    """A row of the outbox: the CloudEvents JSON that operators get. Ids grow in the order of commits."""

    id: int
    payload: bytes
    created_us: int


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version of zones and rules. saved_by is None where they came from files."""

    version: int
    effective_us: int
    saved_us: int
    saved_by: str | None
    note: str | None
    zones: int
    rules: int
    state: str  # in_force, scheduled, past, replaced: another came before its time


@dataclass(frozen=True, slots=True)
class Edited:
    """What became of a change to the rules. before, after: ``{"zones": FeatureCollection, "rules": {…}}``."""

    version: int
    effective_us: int
    changed: bool
    saved: bool
    warnings: Sequence[str]
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CommandRow:
    """What was asked of a device, and what it said. sent_us, answered_us are None until then."""

    command_id: int
    device_id: str
    command: str
    who: str
    payload: dict[str, Any]
    asked_us: int
    sent_us: int | None
    outcome: str | None
    detail: str | None
    answered_us: int | None


@dataclass(frozen=True, slots=True)
class BeliefSeries:
    """What was held of one rule and zone at each time of a Belief; None: it was not in question."""

    rule_id: str
    zone_id: str
    opens_at: float
    clears_at: float
    confidence: list[float | None]
    log_odds: list[float | None]
    distance_m: list[float | None]
    state: list[str | None]


@dataclass(frozen=True, slots=True)
class Belief:
    """Beliefs of a device over time, from an engine that started blank at ``warm_us``."""

    warm_us: int
    times_us: list[int]
    series: list[BeliefSeries]


@dataclass(frozen=True, slots=True)
class CheckInRow:
    """One check-in as it was reported."""

    device_id: str
    time_us: int
    received_us: int
    outcome: str
    method: str


class Reader(AlertWork, Protocol):
    """Async reading side of the store. Raises StoreUnavailable when the database does not answer."""

    @property
    def gate(self) -> Gate:
        """Accounts, tokens, sessions and the access log."""
        ...

    async def record(
        self, participant: str, *, groups: frozenset[str] | None, positions: bool
    ) -> Record | None:
        """All that is stored about a participant."""
        ...

    async def open(self) -> None:
        """Open the pool on the running event loop; does not fail when the database is away."""

    async def close(self) -> None:
        """Close the pool."""

    async def check(self) -> None:
        """Return when the database answers."""

    async def devices(self, *, cursor: str | None, limit: int) -> Page[DeviceRow]:
        """Devices by id."""
        ...

    async def device(self, device_id: str) -> DeviceRow | None:
        """One device."""
        ...

    async def positions(self, since_us: int | None = None) -> Sequence[PositionRow]:
        """The newest position of every device that was received after ``since_us``."""
        ...

    def track(self, device_id: str, from_us: int, to_us: int) -> AsyncIterator[Sequence[TrackRow]]:
        """Every stored ping of a device with from <= fix time < to, by fix time, in chunks."""
        ...

    async def transitions(
        self,
        *,
        device_id: str | None,
        zone_id: str | None,
        kind: str | None,
        from_us: int | None,
        to_us: int | None,
        cursor: str | None,
        limit: int,
    ) -> Page[TransitionRow]:
        """Newest first."""
        ...

    async def violations(
        self,
        *,
        device_id: str | None,
        rule_id: str | None,
        zone_id: str | None,
        severity: str | None,
        state: str | None,
        from_us: int | None,
        to_us: int | None,
        cursor: str | None,
        limit: int,
    ) -> Page[ViolationRow]:
        """Current revisions, newest opening first. state: open, closed, withdrawn, held_back."""
        ...

    async def alerts(
        self,
        *,
        device_id: str | None,
        rule_id: str | None,
        zone_id: str | None,
        severity: str | None,
        states: Sequence[str],
        assigned_to: str | None,
        from_us: int | None,
        to_us: int | None,
        cursor: str | None,
        limit: int,
    ) -> Page[AlertRow]:
        """Newest opening first."""
        ...

    async def alert(self, alert_id: int) -> AlertRow | None:
        """One alert."""
        ...

    async def alert_log(self, alert_id: int) -> Sequence[LogRow]:
        """Its history, oldest first."""
        ...

    async def ruleset(self, version: int | None = None) -> tuple[int, dict[str, Any], int] | None:
        """Version, document ({"zones": …, "rules": …}), effective_us: of a version, or of that in force."""
        ...

    async def version_before(self, version: int) -> int | None:
        """The version before this one; None: it is the first."""
        ...

    async def belief(self, device_id: str, from_us: int, to_us: int) -> Belief:
        """How sure an engine is of each zone in question, after each judged ping of a device."""
        ...

    async def ask_device(
        self, device_id: str, command: str, who: str, arguments: dict[str, Any]
    ) -> CommandRow:
        """Have a command sent to a device."""
        ...

    async def commands(self, device_id: str, *, cursor: str | None, limit: int) -> Page[CommandRow]:
        """What was asked of a device, newest first, with its answers."""
        ...

    async def check_ins(
        self, device_id: str, *, from_us: int | None, to_us: int | None, cursor: str | None, limit: int
    ) -> Page[CheckInRow]:
        """The check-ins of a device, newest first."""
        ...

    async def rules_versions(self, *, cursor: str | None, limit: int) -> Page[VersionRow]:
        """Versions of zones and rules, newest first."""
        ...

    async def edit_rules(
        self,
        change: Callable[[dict[str, Any]], dict[str, Any]],
        *,
        base: int | None,
        effective_us: int | None,
        saved_by: str,
        note: str | None,
        dry_run: bool,
        cancels: bool = False,
    ) -> Edited:
        """Make a change on the newest version (``cancels``: on that in force), check it, and save it."""
        ...

    async def outbox_since(self, after_id: int, limit: int) -> Sequence[EventRow]:
        """Rows with a greater id, by id; never one that a smaller id could later precede."""
        ...

    def outbox_wakes(self) -> AsyncIterator[int]:
        """The newest id of the outbox: at once, and each time that something was committed to it."""
        ...

    async def newest_outbox_id(self) -> int:
        """The greatest id that ``outbox_since`` could have given; 0: none yet."""
        ...
