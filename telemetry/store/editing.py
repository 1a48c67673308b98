"""Rules changed in the database: made on the newest version, checked as files are, saved as a new one.

A version takes effect at a stated time, a few seconds ahead at the earliest, so that every engine knows it
before. Of the versions whose time has come the newest is in force; nothing is ever overwritten.
"""

from __future__ import annotations

import asyncio
import copy
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from geofence import Ruleset, to_rfc3339
from telemetry.access.scope import document_for
from telemetry.api.reader import Edited, Page, VersionRow
from telemetry.store import rulesets
from telemetry.store.caseload import CASELOAD
from telemetry.store.cursors import read_cursor, write_cursor
from telemetry.store.errors import RulesConflict, RulesScheduled, RulesTooSoon
from telemetry.store.link import Link
from telemetry.store.rows import moment, time_us_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemetry.store.pool import ReadingPool

    Change = Callable[[dict[str, Any]], dict[str, Any]]

__all__ = ["LEAD_US", "RulesEditing", "edit_rules"]

LEAD_US: Final = 5_000_000  # engines look for new versions each second; so each has one before its time comes
EMPTY: Final[dict[str, Any]] = {"zones": {"type": "FeatureCollection", "features": []}, "rules": {}}

_VERSIONS: Final = """
SELECT r.version, r.effective_time, r.saved_time, r.saved_by, r.note,
       coalesce(json_array_length(r.document #> '{zones,features}'), 0),
       coalesce(json_array_length(r.document #> '{rules,rules}'), 0),
       CASE WHEN r.version = (SELECT max(version) FROM rules WHERE effective_time <= now()) THEN 'in_force'
            WHEN EXISTS (SELECT FROM rules n WHERE n.version > r.version
                         AND n.effective_time <= r.effective_time) THEN 'replaced'
            WHEN r.effective_time > now() THEN 'scheduled'
            ELSE 'past' END
FROM rules r WHERE r.version < %(before)s ORDER BY r.version DESC LIMIT %(limit)s
"""


def edit_rules(
    url: str,
    change: Change,
    *,
    base: int | None,
    effective_us: int | None,
    saved_by: str,
    note: str | None,
    dry_run: bool,
    cancels: bool = False,
) -> Edited:
    """Make a change on the newest version, check the outcome, and save it.

    change       : gives the new ``{"zones": …, "rules": …}``; its argument is its own to change
    base         : the version that the caller saw as the newest; None: whichever it is
    effective_us : None: as soon as every engine knows it
    dry_run      : check it and save nothing
    cancels      : ``change`` gets the version in force, and what is scheduled is replaced

    Raises RulesConflict, RulesScheduled, RulesTooSoon, geofence's RuleError and ZoneError, what ``change``
    raises, and StoreUnavailable.
    """
    with closing(Link(url)) as link, link.use("changing the rules") as connection:
        now_us = time.time_ns() // 1000
        newest = rulesets.load(connection.execute(rulesets.LOAD_SQL, (None,)).fetchone())
        newest_version, document, newest_effective_us = newest or (0, EMPTY, 0)
        if base is not None and base != newest_version:
            raise RulesConflict(base, newest_version)
        earliest_us = now_us + LEAD_US
        if effective_us is None:
            effective_us = earliest_us
        elif effective_us < earliest_us:
            raise RulesTooSoon(to_rfc3339(effective_us), to_rfc3339(earliest_us))
        if cancels:
            in_force = connection.execute(rulesets.IN_FORCE_SQL, (moment(now_us),)).fetchone()
            _, document, _ = rulesets.load(in_force) or (0, EMPTY, 0)
        elif newest_effective_us > effective_us:
            raise RulesScheduled(newest_version, to_rfc3339(newest_effective_us))
        before = {"zones": document["zones"], "rules": document["rules"]}
        ruleset = Ruleset.from_document(change(copy.deepcopy(before)))
        after = {"zones": ruleset.document["zones"], "rules": ruleset.document["rules"]}
        changed = cancels or after != before
        version = newest_version
        if changed and not dry_run:
            version = rulesets.save(
                connection, ruleset.document, ruleset.digest, effective_us, saved_by, note, newest_version
            )
        return Edited(
            version=version,
            effective_us=effective_us if changed else newest_effective_us,
            changed=changed,
            saved=changed and not dry_run,
            warnings=list(ruleset.warnings),
            before=before,
            after=after,
        )


class RulesEditing:
    """The part of ``Reader`` that is about versions of zones and rules."""

    _pool: ReadingPool

    async def edit_rules(
        self,
        change: Change,
        *,
        base: int | None,
        effective_us: int | None,
        saved_by: str,
        note: str | None,
        dry_run: bool,
        cancels: bool = False,
    ) -> Edited:
        """``edit_rules`` in a thread: compiling thousands of zones takes its time."""
        return await asyncio.to_thread(
            edit_rules,
            self._pool.url,
            change,
            base=base,
            effective_us=effective_us,
            saved_by=saved_by,
            note=note,
            dry_run=dry_run,
            cancels=cancels,
        )

    async def ruleset(self, version: int | None = None) -> tuple[int, dict[str, Any], int] | None:
        """Version, document ({"zones": …, "rules": …}), effective_us: of a version, or of that in force."""
        async with self._pool.use("loading the rules") as connection:
            if version is None:
                cursor = await connection.execute(rulesets.IN_FORCE_SQL, (moment(time.time_ns() // 1000),))
            else:
                cursor = await connection.execute(rulesets.LOAD_SQL, (version,))
            found = rulesets.load(await cursor.fetchone())
        if found is None:
            return None
        number, document, effective_us = found
        return number, document_for(CASELOAD.get(), document), effective_us

    async def version_before(self, version: int) -> int | None:
        """The version before this one; None: it is the first."""
        async with self._pool.use("looking for the version before") as connection:
            found = await connection.execute("SELECT max(version) FROM rules WHERE version < %s", (version,))
            row = await found.fetchone()
        return None if row is None else row[0]

    async def rules_versions(self, *, cursor: str | None, limit: int) -> Page[VersionRow]:
        """Versions, newest first."""
        (before,) = read_cursor(cursor, "versions", int) if cursor else (2**63 - 1,)
        async with self._pool.use("listing versions of the rules") as connection:
            found = await connection.execute(_VERSIONS, {"before": before, "limit": limit + 1})
            rows = await found.fetchall()
        items = [VersionRow(row[0], time_us_of(row[1]), time_us_of(row[2]), *row[3:]) for row in rows[:limit]]
        if CASELOAD.get() is not None:  # why somebody changed something can be about anybody
            items = [replace(item, note=None) for item in items]
        return Page(items, write_cursor("versions", items[-1].version) if len(rows) > limit else None)
