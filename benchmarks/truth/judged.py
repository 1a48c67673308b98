"""One world judged in every way: what each way said, held against what truly happened."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.truth.events import KINDS, Pair, Truth, deep_enough, truth_of
from benchmarks.truth.ours import PROFILES, Ours
from benchmarks.truth.ways import MISSED, Way, credit, judge, settled, usual_ways
from benchmarks.truth.world import Fixes, FixStore, World
from firmware_sim.exact import signed_distance_m

__all__ = ["FALSE", "MISS", "OURS", "Judged", "all_ways", "judge_world", "merge"]

OURS: Final = "ringfence"

# A false violation of ours, with the fix that opened it.
FALSE: Final = np.dtype(
    [
        ("scenario", "U16"),
        ("seed", "i8"),
        ("device_id", "U12"),
        ("rule_id", "U32"),
        ("zone_id", "U32"),
        ("opened_us", "i8"),
        ("confirmed_us", "i8"),
        ("closed_us", "i8"),
        ("depth_m", "f4"),  # of the fix that opened it, past the edge
        ("accuracy_m", "f4"),  # it claimed; -1: unknown
        ("error_m", "f4"),  # it truly had
    ]
)

# A deep event that ours did not find.
MISS: Final = np.dtype(
    [
        ("scenario", "U16"),
        ("seed", "i8"),
        ("device_id", "U12"),
        ("rule_id", "U32"),
        ("zone_id", "U32"),
        ("from_us", "i8"),
        ("to_us", "i8"),
        ("depth_m", "f4"),  # deepest true point
        ("error_m", "f4"),  # 68 % quantile of its fixes' true errors
        ("fixes", "i4"),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What s ways made of e events.

    events     : EVENT (e,)
    delay_us   : int64 (s, e)  from an event's beginning to the fix that opened a violation; -1: missed
    pings      : int32 (s, e)  fixes taken in the event up to and with that one
    deep_pings : int32 (s, e)  the same, counted from the first fix that is deep enough; 0: before it
    violations : int64 (s,)    that the way opened
    false      : int64 (3, s)  of those, about no event, by kind
    months     : device-months
    our_false  : FALSE (f,)    of our standard profile
    our_missed : MISS (m,)     deep events that it did not find
    """

    events: NDArray[Any]
    delay_us: NDArray[np.int64]
    pings: NDArray[np.int32]
    deep_pings: NDArray[np.int32]
    violations: NDArray[np.int64]
    false: NDArray[np.int64]
    months: float
    fixes: int
    our_false: NDArray[Any]
    our_missed: NDArray[Any]


def all_ways() -> list[Way]:
    """Our profiles, then every usual way with every setting: the rows of a `Judged`."""
    ours = [
        Way(OURS, "standard" if name == "standard" else _profile(name), name == "standard", usual=False)
        for name in PROFILES
    ]
    return ours + usual_ways()[0]


def judge_world(world: World, progress: Callable[[float], None] = lambda _: None) -> Judged:
    """Live through a world and judge it; ``progress`` hears the share that is done."""
    fixes = FixStore(world.city)
    with tempfile.TemporaryDirectory() as directory:
        ours = Ours(world, Path(directory), PROFILES)
        for number, day in enumerate(world):
            fixes.add(day)
            ours.add(day)
            progress(0.6 * (number + 1) / world.days)
    truth = truth_of(world, fixes)
    progress(0.65)
    found = ours.violations(truth.pairs)
    settings = usual_ways()[1]
    first, rows, events = len(PROFILES), len(PROFILES) + len(settings), len(truth.events)
    delay_us = np.full((rows, events), MISSED, np.int64)
    pings = np.zeros((rows, events), np.int32)
    deep_pings = np.zeros((rows, events), np.int32)
    violations, false = np.zeros(rows, np.int64), np.zeros((len(KINDS), rows), np.int64)
    our_false: list[tuple[Any, ...]] = []
    of, device = None, -1
    for k, pair in enumerate(truth.pairs):
        if pair.device != device:
            device, of = pair.device, fixes.of(pair.device)
        assert of is not None
        depth = (pair.sign * signed_distance_m(pair.zone, of.lon, of.lat)).astype(np.float32)
        mine = truth.of(k)
        delays = np.full((rows, mine.stop - mine.start), MISSED, np.int64)
        of_kind = false[pair.kind]
        _ways(world, truth, k, of, depth, settings, violations[first:], of_kind[first:], delays[first:])
        for row, profile in enumerate(PROFILES):
            for violation in found.get(profile, {}).get(k, ()):
                edges = tuple(int(edge) for edge in violation)
                here = truth.events[mine]
                about_none = credit(*edges, here["from_us"].copy(), here["to_us"].copy(), delays[row])
                violations[row] += 1
                of_kind[row] += about_none
                if about_none and row == 0:
                    our_false.append(_false(world, pair, edges, of, depth))
        delay_us[:, mine] = delays
        _count_pings(truth, mine, of, delays, pings, deep_pings)
        progress(0.65 + 0.35 * (k + 1) / len(truth.pairs))
    return Judged(
        events=truth.events,
        delay_us=delay_us,
        pings=pings,
        deep_pings=deep_pings,
        violations=violations,
        false=false,
        months=world.device_months,
        fixes=fixes.count,
        our_false=np.array(our_false, FALSE),
        our_missed=np.array(_missed(world, truth, delay_us[0]), MISS),
    )


def merge(parts: list[Judged]) -> Judged:
    """Several worlds as one."""
    return Judged(
        events=np.concatenate([part.events for part in parts]),
        delay_us=np.concatenate([part.delay_us for part in parts], axis=1),
        pings=np.concatenate([part.pings for part in parts], axis=1),
        deep_pings=np.concatenate([part.deep_pings for part in parts], axis=1),
        violations=np.sum([part.violations for part in parts], axis=0),
        false=np.sum([part.false for part in parts], axis=0),
        months=sum(part.months for part in parts),
        fixes=sum(part.fixes for part in parts),
        our_false=np.concatenate([part.our_false for part in parts]),
        our_missed=np.concatenate([part.our_missed for part in parts]),
    )


def _ways(  # noqa: PLR0917 (columns)
    world: World,
    truth: Truth,
    k: int,
    of: Fixes,
    depth: NDArray[np.float32],
    settings: NDArray[Any],
    violations: NDArray[np.int64],
    false: NDArray[np.int64],
    delays: NDArray[np.int64],
) -> None:
    """Judge a pair in the usual ways."""
    pair, here = truth.pairs[k], truth.events[truth.of(k)]
    keep = np.ones(len(depth), np.bool_)
    settled(of.time_us, depth, of.accuracy_m, keep)
    judge(
        settings,
        of.time_us[keep],
        depth[keep],
        of.accuracy_m[keep],
        pair.sign,
        pair.inner_m,
        pair.windows,
        world.end_us,
        here["from_us"].copy(),
        here["to_us"].copy(),
        violations,
        false,
        delays,
    )


def _count_pings(  # noqa: PLR0917 (columns)
    truth: Truth,
    mine: slice,
    of: Fixes,
    delays: NDArray[np.int64],
    pings: NDArray[np.int32],
    deep_pings: NDArray[np.int32],
) -> None:
    """How many fixes each way took for a pair's events."""
    for e in range(mine.start, mine.stop):
        event = truth.events[e]
        late = delays[:, e - mine.start]
        until = np.searchsorted(of.time_us, event["from_us"] + np.maximum(late, 0), "right")
        found = late != MISSED
        first = np.searchsorted(of.time_us, event["from_us"])
        pings[:, e] = np.where(found, np.maximum(until - first, 0), 0)
        if event["first_deep_us"] >= 0:
            deep = np.searchsorted(of.time_us, event["first_deep_us"])
            deep_pings[:, e] = np.where(found, np.maximum(until - deep, 0), 0)


def _false(
    world: World, pair: Pair, edges: tuple[int, ...], of: Fixes, depth: NDArray[np.float32]
) -> tuple[Any, ...]:
    """One of our false violations, with the fix that opened it."""
    at = min(int(np.searchsorted(of.time_us, edges[1])), len(depth) - 1)
    name = world.city.device_ids[pair.device]
    where = (world.scenario, world.seed, name, pair.rule_id, pair.zone.id)
    return (*where, *edges, depth[at], of.accuracy_m[at], of.error_m[at])


def _missed(world: World, truth: Truth, delay_us: NDArray[np.int64]) -> list[tuple[Any, ...]]:
    """The deep events that a way did not find, as rows of MISS."""
    missed = truth.events[deep_enough(truth.events) & (delay_us == MISSED)]
    rows = []
    for event in missed:
        pair = truth.pairs[event["pair"]]
        who = (world.scenario, world.seed, world.city.device_ids[pair.device], pair.rule_id, pair.zone.id)
        rows.append((*who, *(event[name] for name in ("from_us", "to_us", "depth_m", "error_m", "fixes"))))
    return rows


def _profile(name: str) -> str:
    return f"confidence {int(name[1:]) / 1000:g}" if name.startswith("c") else name
