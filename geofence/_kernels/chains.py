"""Zones in reach of rules over layers, groups or everybody: pairs that hang in a chain from their duty."""

from __future__ import annotations

from numba import njit

from geofence._kernels.evidence import CLIP, moved
from geofence._kernels.fixes import NETWORK
from geofence._kernels.options import PLAIN
from geofence._kernels.stretch import RIGHT, UNKNOWN, blank_pair, reach_of, wrong_mm
from geofence._kernels.world import NONE

__all__ = ["binds", "bring_into_reach", "far_after", "records_of"]


@njit(**PLAIN)
def binds(world, zone, rule):
    """Whether a chained rule is about this zone."""
    for k in range(world.zone_start[zone], world.zone_start[zone + 1]):
        if world.zone_rules[k] == rule:
            return True
    return False


@njit(**PLAIN)
def records_of(world, d, duty_index, zone):
    """Whether no earlier rule of the device writes this zone's transitions."""
    row = world.devices[d]
    for u in range(row.duty, duty_index):
        earlier = world.duties[u]
        rule = world.rules[earlier.rule]
        if not rule.records:
            continue
        if rule.chained:
            if binds(world, zone, earlier.rule):
                return 0
        else:
            for p in range(earlier.first, earlier.stop):
                if world.pairs[p].zone == zone:
                    return 0
    return 1


@njit(**PLAIN)
def _take_pair(world):
    k = world.free[0]
    if k != NONE:
        world.free[0] = world.pairs[k].next
    else:
        k = int(world.used[2])
        world.used[2] += 1
    return k


@njit(**PLAIN)
def bring_into_reach(world, batch, i, d, u, duty, rule, stamp):
    """Stamp the chained pairs that ping i has in reach with their distance; make those that are new."""
    row = world.devices[d]
    network = batch.bits[i] & NETWORK
    for h in range(batch.hit_start[i], batch.hit_start[i + 1]):
        zone = batch.hit_zone[h]
        if not binds(world, zone, duty.rule):
            continue
        p = duty.chain
        while p != NONE and world.pairs[p].zone != zone:
            p = world.pairs[p].next
        if p == NONE:
            if row.far == -CLIP and wrong_mm(rule, batch.hit_mm[h]) < 0 and not network:
                continue  # it could say nothing but what "far away" says
            p = _take_pair(world)
            pair = world.pairs[p]
            blank_pair(pair, zone)
            pair.belief = row.far
            pair.wifi = row.far_wifi
            pair.cell = row.far_cell
            pair.mark = row.far
            pair.state = RIGHT if row.far <= rule.clear_log_odds else UNKNOWN
            pair.records = records_of(world, d, u, zone) if rule.records else 0
            if row.far != 0:
                pair.last_mm = reach_of(row.judged_error_mm)
            pair.next = duty.chain
            duty.chain = p
            row.chained += 1
        world.pairs[p].stamp = stamp
        world.pairs[p].stamp_mm = batch.hit_mm[h]


@njit(**PLAIN, forceinline=True)
def far_after(row, error_mm, weight, source):
    """What a fix says of a zone that it does not reach: belief, and its network parts.

    Such a belief never speaks for the wrong side, so a move takes nothing from it (`evidence.after_a_move`).
    """
    said, other = row.far_cell, row.far_wifi
    if source == 1:
        said, other = other, said
    network = source == 1 or source == 2
    far, said = moved(row.far, said if network else 0, other, -reach_of(error_mm), error_mm, weight, network)
    return far, said if source == 1 else row.far_wifi, said if source == 2 else row.far_cell
