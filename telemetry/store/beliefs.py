"""How sure the engine was, fix by fix: decided again over stored pings, because beliefs are not stored.

A look, not a decision: the engine starts blank a while before the asked time, so a belief near its beginning
can differ from the one of then, and one that hangs on check-ins or on a tick is not shown at all. What was
decided, and how sure that was, stands in the violations; ``ringfence replay`` repeats it exactly.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence import Devices, Engine, Ruleset
from telemetry.api.reader import Belief, BeliefSeries
from telemetry.store import lookups, rulesets
from telemetry.store.caseload import CASELOAD
from telemetry.store.errors import TooManyPings
from telemetry.store.link import Link
from telemetry.store.rows import bound, time_us_of

if TYPE_CHECKING:
    from telemetry.store.pool import ReadingPool

__all__ = ["Believing", "belief_over_time"]

WARM_US: Final = 2 * 3_600_000_000  # evidence older than this weighs next to nothing
MOST_PINGS: Final = 5_000  # about a second of work
_ONE_AT_A_TIME = asyncio.Semaphore(1)  # it takes a core
# A request that is cancelled leaves its thread at work, and engines beside each other share their calendars.
_ALONE = threading.Lock()

_BETWEEN: Final = """
SELECT version, document::text, effective_time FROM rules r
WHERE effective_time > %s AND effective_time < %s AND NOT EXISTS (
    SELECT FROM rules n WHERE n.version > r.version AND n.effective_time <= r.effective_time)
ORDER BY effective_time
"""


_OWN_TIME: Final = """
SELECT from_time, until_time FROM enrollments
WHERE device_id = %s AND until_version IS NULL AND groups && %s::text[]
"""


def belief_over_time(
    url: str, device_id: str, from_us: int, to_us: int, groups: frozenset[str] | None = None
) -> Belief:
    """Every zone in question of a device, after each of its judged pings with from <= fix time < to.

    groups : a caseload: it sees, and is shown beliefs from, its own time of the device alone. None: all of it

    Raises TooManyPings, StoreUnavailable.
    """
    with _ALONE:
        return _decide_again(url, device_id, from_us, to_us, groups)


def _decide_again(
    url: str, device_id: str, from_us: int, to_us: int, groups: frozenset[str] | None
) -> Belief:
    devices = Devices([device_id])
    warm_us = from_us - WARM_US
    with closing(Link(url)) as link, link.use("reading a device's history") as connection:
        if groups is not None:
            own = connection.execute(_OWN_TIME, (device_id, sorted(groups))).fetchone()
            begin, end = own if own is not None else (None, bound(from_us))
            warm_us = warm_us if begin is None else max(warm_us, time_us_of(begin))
            from_us, to_us = max(from_us, warm_us), to_us if end is None else min(to_us, time_us_of(end))
            if from_us >= to_us:
                return Belief(warm_us, [], [])
        stored = lookups.between(connection, device_id, warm_us, to_us, devices)
        first = rulesets.load(connection.execute(rulesets.IN_FORCE_SQL, (bound(warm_us),)).fetchone())
        rows = connection.execute(_BETWEEN, (bound(warm_us), bound(to_us))).fetchall()
    pings = stored.pings.take(stored.judged)
    if len(pings) > MOST_PINGS:
        raise TooManyPings(len(pings), MOST_PINGS)
    if first is None or not len(pings):
        return Belief(warm_us, [], [])
    later = [found for row in rows if (found := rulesets.load(row)) is not None and found[0] > first[0]]
    indexed = _engine(url, first[0])
    ruleset = indexed.ruleset
    engine = Engine(ruleset, devices, beside=indexed)
    times: list[int] = []
    series: dict[tuple[str, str], BeliefSeries] = {}
    for i, time_us in enumerate(pings.fix_time_us.tolist()):
        while later and later[0][2] < time_us:
            version, _, effective_us = later.pop(0)
            ruleset = _ruleset(url, version)
            engine.adopt(ruleset, effective_us)
        engine.check(pings.take(np.array([i])))
        if time_us < from_us:
            continue
        for held in engine.belief(device_id):
            key = (held["rule_id"], held["zone_id"])
            if key not in series:
                profile = ruleset.rules[ruleset.rule_ids.index(key[0])].profile
                series[key] = BeliefSeries(*key, profile.confidence, profile.clear, [], [], [], [])
            line = series[key]
            gap: list[Any] = [None] * (len(times) - len(line.confidence))
            for column, value in (
                (line.log_odds, round(held["log_odds"], 3)),
                (line.confidence, held["confidence"]),
                (line.distance_m, held["distance_mm"] / 1000),
                (line.state, held["state"]),
            ):
                column.extend([*gap, value])
        times.append(time_us)
    for line in series.values():
        gap = [None] * (len(times) - len(line.confidence))
        for column in (line.log_odds, line.confidence, line.distance_m, line.state):
            column.extend(gap)
    return Belief(warm_us, times, list(series.values()))


@lru_cache(maxsize=4)
def _ruleset(url: str, version: int) -> Ruleset:
    """A version never changes, and compiling one with thousands of zones takes a second."""
    with closing(Link(url)) as link, link.use("loading the rules") as connection:
        found = rulesets.load(connection.execute(rulesets.LOAD_SQL, (version,)).fetchone())
    assert found is not None
    return Ruleset.from_document(found[1])


@lru_cache(maxsize=4)
def _engine(url: str, version: int) -> Engine:
    """An engine that judges nothing: others take its indices, which take most of a second to build."""
    return Engine(_ruleset(url, version))


class Believing:
    """The part of ``Reader`` that is about beliefs."""

    _pool: ReadingPool

    async def belief(self, device_id: str, from_us: int, to_us: int) -> Belief:
        """``belief_over_time`` in a thread, one at a time: deciding is other threads' work first."""
        async with _ONE_AT_A_TIME:
            return await asyncio.to_thread(
                belief_over_time, self._pool.url, device_id, from_us, to_us, CASELOAD.get()
            )
