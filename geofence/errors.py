"""Errors of this package: each says what is wrong, the value, and the remedy."""

from __future__ import annotations

__all__ = ["GeofenceError", "PingError", "RuleError", "SnapshotError", "ZoneError"]


class GeofenceError(Exception):
    """Base of every error that geofence raises on purpose."""


class PingError(GeofenceError, ValueError):
    """A column of pings has the wrong length, dtype or range."""


class ZoneError(GeofenceError, ValueError):
    """One or more zones can't be used. ``problems`` lists each: zone id, place, what to do.

    The whole load is refused, so nothing invalid reaches a kernel.
    """

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__("\n".join(f'zone "{zone_id}": {what}' for zone_id, what in problems))


class RuleError(GeofenceError, ValueError):
    """A rules file is wrong. The message names file, line and key; ``problems`` lists them all.

    paths : for each problem the way to its key (``("rules", 3, "zones")``); () where it is the whole file
    """

    def __init__(self, problems: list[str], paths: list[tuple[str | int, ...]] | None = None) -> None:
        self.problems = problems
        self.paths = paths or [()] * len(problems)
        super().__init__("\n".join(problems))


class SnapshotError(GeofenceError, ValueError):
    """A snapshot is damaged, of another version, or of other rules."""
