"""Whose rows somebody with a caseload sees, as conditions: no query gives others, and pages stay whole.

The caseload is a context variable that the API's guard sets for each request: a parameter could be
forgotten, and then a route would show everything.

A row belongs to a group when its device does by the newest roster and, where the row has a time, when the
device was on that person then: one that was handed on shows nobody the track of who wore it before.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

__all__ = ["CASELOAD", "and_of_caseload", "device_of_caseload", "of_caseload", "with_groups"]

# Names of groups; None: everyone. What runs beside requests (the engine, the hub) sees everyone.
CASELOAD: ContextVar[frozenset[str] | None] = ContextVar("caseload", default=None)

_MINE = "FROM enrollments e WHERE e.until_version IS NULL AND e.groups && %(groups)s::text[]"


def of_caseload(device: str, time: str | None = None, until: str | None = None) -> str:
    """A condition on columns of a table, each with the table's name before it. Needs the value ``groups``.

    until : where the row is about a stretch that begins at ``time``: any part of it will do
    """
    then = ""
    if time is not None:
        then = (
            f" AND {until or time} >= coalesce(e.from_time, '-infinity')"
            f" AND {time} < coalesce(e.until_time, 'infinity')"
        )
    return f"EXISTS (SELECT {_MINE} AND e.device_id = {device}{then})"


def device_of_caseload(device: str) -> str:
    """The same where the column can't be told apart by a table's name."""
    return f"{device} IN (SELECT e.device_id {_MINE})"


def and_of_caseload(device: str, time: str | None = None, until: str | None = None) -> str:
    """What a query of the request at hand adds to its conditions: nothing where it has no caseload."""
    return "" if CASELOAD.get() is None else " AND " + of_caseload(device, time, until)


def with_groups(values: dict[str, Any]) -> dict[str, Any]:
    """The values of such a query."""
    return values | {"groups": sorted(CASELOAD.get() or ())}
