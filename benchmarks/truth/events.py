"""What truly happened, as events that a way of judging has to find.

A *pair* is a wearer and a zone that a rule binds them to. An *event* is a stretch of time in which the wearer
was truly on the wrong side of that zone's edge while the rule was in force: inside of a school's or the
victim's zone, or outside of the home's during the curfew. A curfew is in force from five minutes after its
hour (the rule's grace) to its end. Nothing is too short or too shallow to be an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.truth.world import FixStore, World
from firmware_sim.city import Zone
from firmware_sim.exact import bounds, signed_distance_m
from firmware_sim.windows import curfew_windows, less

__all__ = ["EVENT", "KINDS", "Pair", "Truth", "deep_enough", "truth_of"]

KINDS: Final = ("curfew", "school", "victim")
GRACE_US: Final = 5 * 60_000_000  # as firmware_sim.rules writes it
LONG_US: Final = 120_000_000
DEEP_M: Final = 25.0
DEEP_ERRORS: Final = 3.0

EVENT: Final = np.dtype(
    [
        ("pair", "i4"),
        ("device", "i4"),
        ("kind", "u1"),  # index into KINDS
        ("from_us", "i8"),
        ("to_us", "i8"),
        ("depth_m", "f4"),  # deepest true point past the edge
        ("fixes", "i4"),  # fixes that the device took in it
        ("error_m", "f4"),  # the 68 % quantile of how far these were off; 0 without fixes
        ("first_deep_us", "i8"),  # the first fix taken at a depth that counts as deep; -1: none
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A wearer and a zone.

    windows : int64 (w, 2)  UTC microseconds, when the rule is in force
    inner_m : the zone's radius: how deep its deepest point lies
    """

    device: int
    zone: Zone
    rule_id: str
    kind: int
    sign: int  # times the signed distance gives the depth on the wrong side
    windows: NDArray[np.int64]
    inner_m: float


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Pairs, and their events: EVENT (e,), by pair and time."""

    pairs: list[Pair]
    events: NDArray[Any]

    def of(self, pair: int) -> slice:
        """The events of a pair."""
        return slice(*np.searchsorted(self.events["pair"], [pair, pair + 1]).tolist())


def deep_enough(events: NDArray[Any]) -> NDArray[np.bool_]:
    """The events that must be found: deeper than 25 m and than three times their fixes' error, for two
    minutes or longer, with at least one fix in them: bool (e,)."""
    return np.asarray(
        (events["depth_m"] > DEEP_M)
        & (events["depth_m"] > DEEP_ERRORS * events["error_m"])
        & (events["to_us"] - events["from_us"] >= LONG_US)
        & (events["fixes"] > 0)
    )


def truth_of(world: World, fixes: FixStore) -> Truth:
    """The pairs of a world and what truly happened to them."""
    city, people = world.city, world.city.people
    homes = {zone.id: zone for zone in city.zones if zone.layer == "homes"}
    always = np.array([[world.start_us, world.end_us]], np.int64)
    inner = {zone.id: _inner_m(zone) for zone in city.zones if zone.layer != "water"}
    pairs: list[Pair] = []
    for i in np.flatnonzero(world.worn).tolist():
        home = homes[f"home-{city.device_ids[i]}"]
        windows = [
            (begins, ends)
            for begins, ends in curfew_windows(city, i, world.start_us, world.end_us, grace_us=GRACE_US)
        ]
        pairs.append(
            Pair(i, home, f"home-curfew-{city.device_ids[i]}", 0, 1, _array(windows), inner[home.id])
        )
        for layer, rule_id, kind, bound in (
            ("schools", "schools", 1, people["school_exclusion"][i]),
            ("victims", "victim", 2, people["no_contact"][i]),
        ):
            if bound:
                pairs += [
                    Pair(i, zone, rule_id, kind, -1, always, inner[zone.id])
                    for zone in city.zones
                    if zone.layer == layer
                ]
    return Truth(pairs, _events(world, fixes, pairs))


def _events(world: World, fixes: FixStore, pairs: list[Pair]) -> NDArray[Any]:
    stays: dict[tuple[int, str], list[tuple[int, int, float]]] = {}
    for stay in world.stays():
        until_us = world.end_us if stay.to_us is None else stay.to_us
        key = stay.device, world.city.zones[stay.zone].id
        stays.setdefault(key, []).append((stay.from_us, until_us, stay.deepest_m))
    rows = []
    of, device = None, -1
    for k, pair in enumerate(pairs):
        if pair.device != device:
            device, of = pair.device, fixes.of(pair.device)
        assert of is not None
        within = stays.get((pair.device, pair.zone.id), [])
        if pair.kind:
            found = [(a, b, deepest) for a, b, deepest in within]
        else:
            at_home = [(a, b) for a, b, _ in within]
            found = [(a, b, np.nan) for window in pair.windows for a, b in less(tuple(window), at_home)]
        for from_us, to_us, deepest in sorted(found):
            a, b = np.searchsorted(of.time_us, [from_us, to_us])
            depth = pair.sign * signed_distance_m(pair.zone, of.true_lon[a:b], of.true_lat[a:b])
            error_m = float(np.quantile(of.error_m[a:b], 0.68)) if b > a else 0.0
            deepest_m = float(depth.max(initial=0.0)) if np.isnan(deepest) else deepest
            deep = np.flatnonzero(depth > max(DEEP_M, DEEP_ERRORS * error_m))
            first_us = int(of.time_us[a + deep[0]]) if len(deep) else -1
            rows.append(
                (k, pair.device, pair.kind, from_us, to_us, deepest_m, b - a, error_m, first_us),
            )
    return np.array(rows, EVENT)


def _array(windows: list[tuple[int, int]]) -> NDArray[np.int64]:
    return np.array(windows, np.int64).reshape(-1, 2)


def _inner_m(zone: Zone) -> float:
    """How deep the deepest point of a zone lies, to a few metres: a circle's radius."""
    if zone.shape == "circle":
        return zone.radius_m
    west, south, east, north = bounds(zone, 0.0)
    lon, lat = np.meshgrid(np.linspace(west, east, 65), np.linspace(south, north, 65))
    return float(-signed_distance_m(zone, lon.ravel(), lat.ravel()).min())
