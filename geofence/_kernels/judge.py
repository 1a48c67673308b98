"""Pings against rules: one device after the other, one ping after the other, each of its rules in turn.

A call hands over every array of ``world``, ``said`` and ``batch``, some 250 words, which costs more than
most of what is done here; so the functions on the way of each ping are built into their caller (forceinline).
Time alone acts through `advance`: it runs before each ping, and for devices whose hour has come in a tick.
The words of docs/decisions.md are those of this module.
"""

from __future__ import annotations

from numba import njit

from geofence._kernels.chains import binds, bring_into_reach, far_after, records_of
from geofence._kernels.conditions import judge_condition
from geofence._kernels.deadlines import advance, begin_check_ins, has_room, next_edge, rest
from geofence._kernels.evidence import moved, weight_of
from geofence._kernels.fixes import CAME, FROM_NETWORK, HAS_FIX, NETWORK, USED, at_most_mm, roughly_at_most_mm
from geofence._kernels.kinds import BEACON, CHECK_IN, INSIDE, OUTSIDE, RECORD
from geofence._kernels.options import PLAIN
from geofence._kernels.settle import settle_inside, settle_pair
from geofence._kernels.stretch import NOTHING, RIGHT, WRONG, follow, reach_of, say, settled, tell, wrong_mm
from geofence._kernels.world import FAR_FUTURE, NO_TIME, NONE, window_of

__all__ = ["judge"]

BEACON_MM = -2  # a beacon in range is a fix two errors inside: all that one fix can say


@njit(**PLAIN)
def _cross(said, batch, i, d, duty, rule, pair, distance_mm, sure, breaks):
    """Note that the track may have passed through the pair's zone."""
    if not sure and pair.last_mm + distance_mm > at_most_mm(
        batch.from_lon[i], batch.from_lat[i], batch.lon[i], batch.lat[i]
    ):
        return
    k = said.count[2]
    row = said.crosses[k]
    row.ping = i
    row.device = d
    row.rule = duty.rule
    row.zone = pair.zone
    row.distance_mm = min(distance_mm, reach_of(batch.error_mm[i]) + rule.offset_mm)
    row.sure = 1 if sure else 0
    row.records = pair.records
    row.breaks = 1 if breaks else 0
    said.count[2] = k + 1


@njit(**PLAIN)
def _in_force(world, duty, t):
    begin, _ = window_of(world, duty, t)
    return begin <= t


@njit(**PLAIN)
def _outside(pair, rule):
    """Whether the pair's state is that the wearer is outside, and the last fix was."""
    return pair.last_mm > 0 and ((pair.state != WRONG) == (rule.sense > 0))


@njit(**PLAIN, forceinline=True)
def _judge_own(world, said, batch, i, d, duty, rule, base):
    """The private zones of one duty at ping i."""
    row = world.devices[d]
    t = batch.time_us[i]
    used = batch.bits[i] & USED
    error_mm = batch.error_mm[i]
    source = (batch.status[i] >> 8) & 3
    heard = rule.beacon and batch.status[i] & BEACON
    beacon_weight = 0
    if heard:
        beacon_weight = weight_of(t - duty.since_us, False) if duty.since_us != NO_TIME else 1024
        duty.since_us = t
    if not (used or heard):
        return
    track = used and batch.gap_us[i] > 0 and batch.gap_us[i] <= rule.cross_us
    track = track and not batch.bits[i] & (NETWORK | FROM_NETWORK)
    bound_mm = 0.0
    if track:
        bound_mm = roughly_at_most_mm(batch.from_lon[i], batch.from_lat[i], batch.lon[i], batch.lat[i])
    gnss = source == 0
    others = 0  # zones of the rule that the wearer is not sure to have left
    for p in range(duty.first, duty.stop):
        others += world.pairs[p].state != WRONG
    any_wrong = False
    for p in range(duty.first, duty.stop):
        pair = world.pairs[p]
        before = pair.state
        was_outside = _outside(pair, rule)
        distance_mm = pair.last_mm
        wrong = BEACON_MM
        if used:
            distance_mm = batch.own_mm[base + p - row.pair]
            wrong = wrong_mm(rule, distance_mm)
            if wrong < 0 and gnss and settled(pair) and not heard:
                # nothing but a crossing can be said, and that not if the track is too short for it
                if not track or pair.last_mm + distance_mm > bound_mm or distance_mm <= 0:
                    pair.last_mm = distance_mm
                    continue
            if not (heard and wrong > 0):
                tell(pair, rule, wrong, error_mm, batch.weight[i], source, batch.bits[i] & CAME)
        if heard:
            pair.belief, _ = moved(pair.belief, 0, 0, BEACON_MM, 1, beacon_weight, False)
            wrong = min(wrong, 0)
        found = follow(pair, rule, wrong, error_mm, t)
        if used:
            crossed = track and was_outside and pair.records | rule.crossing
            crossed = crossed and pair.last_mm + distance_mm <= bound_mm
            if crossed and distance_mm > 0 and ((pair.state != WRONG) == (rule.sense > 0)):
                _cross(
                    said,
                    batch,
                    i,
                    d,
                    duty,
                    rule,
                    pair,
                    distance_mm,
                    False,
                    rule.crossing and _in_force(world, duty, t),
                )
            pair.last_mm = distance_mm
        if found != NOTHING:
            alone = rule.kind != INSIDE or others - (before != WRONG) == 0
            shown_mm = distance_mm
            if rule.sense > 0 and used:  # as far as it was measured
                shown_mm = min(distance_mm, reach_of(error_mm) + rule.offset_mm)
            say(world, said, d, duty, pair, rule, found, before, alone, shown_mm, t)
        if rule.kind == OUTSIDE and (pair.state == WRONG or pair.open != NONE):
            settle_pair(world, said, d, duty, pair, rule, t, error_mm)
        any_wrong = any_wrong or pair.state == WRONG
    if rule.kind == INSIDE:
        any_wrong = settle_inside(world, said, d, duty, rule, t, error_mm)
    if rule.kind != RECORD:
        duty.due_us = next_edge(world, duty, t) if any_wrong else FAR_FUTURE


@njit(**PLAIN, forceinline=True)
def _judge_chained(world, said, batch, i, d, u, duty, rule):
    """The zones in reach of one duty at ping i."""
    if not batch.bits[i] & USED:
        return
    row = world.devices[d]
    t = batch.time_us[i]
    error_mm = batch.error_mm[i]
    source = (batch.status[i] >> 8) & 3
    far, far_wifi, far_cell = far_after(row, error_mm, batch.weight[i], source)
    if batch.hit_start[i] < batch.hit_start[i + 1]:
        bring_into_reach(world, batch, i, d, u, duty, rule, i)
    track = batch.gap_us[i] > 0 and batch.gap_us[i] <= rule.cross_us
    track = track and not batch.bits[i] & (NETWORK | FROM_NETWORK)
    if track:
        for c in range(batch.cut_start[i], batch.cut_start[i + 1]):
            zone = batch.cut_zone[c]
            if not binds(world, zone, duty.rule):
                continue
            p = duty.chain
            while p != NONE and world.pairs[p].zone != zone:
                p = world.pairs[p].next
            if p == NONE:  # it was far away before and after
                records = records_of(world, d, u, zone) if rule.records else 0
                if records or rule.crossing:
                    k = said.count[2]
                    cross = said.crosses[k]
                    cross.ping = i
                    cross.device = d
                    cross.rule = duty.rule
                    cross.zone = zone
                    cross.distance_mm = reach_of(error_mm)
                    cross.sure = 1
                    cross.records = records
                    cross.breaks = 1 if rule.crossing and _in_force(world, duty, t) else 0
                    said.count[2] = k + 1
    any_wrong = False
    previous = NONE
    p = duty.chain
    while p != NONE:
        pair = world.pairs[p]
        after = pair.next
        before = pair.state
        was_outside = _outside(pair, rule)
        distance_mm = reach_of(error_mm) + rule.offset_mm
        if pair.stamp == i:
            distance_mm = min(distance_mm, pair.stamp_mm)
        pair.stamp = NONE
        wrong = wrong_mm(rule, distance_mm)
        tell(pair, rule, wrong, error_mm, batch.weight[i], source, batch.bits[i] & CAME)
        found = follow(pair, rule, wrong, error_mm, t)
        if track and was_outside and distance_mm > 0 and pair.state != WRONG and pair.records | rule.crossing:
            for c in range(batch.cut_start[i], batch.cut_start[i + 1]):
                if batch.cut_zone[c] == pair.zone:
                    breaks = rule.crossing and _in_force(world, duty, t)
                    _cross(said, batch, i, d, duty, rule, pair, distance_mm, True, breaks)
        pair.last_mm = distance_mm
        if found != NOTHING:
            say(world, said, d, duty, pair, rule, found, before, True, distance_mm, t)
        if rule.kind == OUTSIDE and (pair.state == WRONG or pair.open != NONE):
            settle_pair(world, said, d, duty, pair, rule, t, error_mm)
        any_wrong = any_wrong or pair.state == WRONG
        if (
            distance_mm > 0  # else it must be known at the next fix that this one was inside
            and pair.open == NONE
            and pair.first_us == NO_TIME
            and pair.told_us < t  # else another opening at this very time would have the same id
            and pair.state != WRONG
            and pair.belief == far
            and pair.mark == far
            and pair.wifi == far_wifi
            and pair.cell == far_cell
            and (pair.state == RIGHT) == (far <= rule.clear_log_odds)
        ):
            if previous == NONE:
                duty.chain = after
            else:
                world.pairs[previous].next = after
            pair.next = world.free[0]
            world.free[0] = p
            row.chained -= 1
        else:
            previous = p
        p = after
    if rule.kind == OUTSIDE:
        duty.due_us = next_edge(world, duty, t) if any_wrong else FAR_FUTURE


@njit(**PLAIN)
def judge(world, said, batch, start):
    """Judge the pings from ``start`` on; returns the first that was not judged for want of room, else n."""
    n = len(batch.device)
    for i in range(start, n):
        d = batch.device[i]
        row = world.devices[d]
        t = batch.time_us[i]
        if world.due_us[d] < t and not advance(world, said, d, t - 1):
            return i
        hits = batch.hit_start[i + 1] - batch.hit_start[i] + batch.cut_start[i + 1] - batch.cut_start[i]
        if not has_room(world, said, d, hits):
            return i
        if row.ping_us == NO_TIME:
            begin_check_ins(world, d, t)
            row.position_us = t
        base = batch.own_start[i]
        for u in range(row.duty, row.duty_stop):
            duty = world.duties[u]
            rule = world.rules[duty.rule]
            if rule.kind > OUTSIDE:
                if rule.kind != CHECK_IN:
                    judge_condition(world, said, batch, i, d, duty, rule)
            elif rule.chained:
                _judge_chained(world, said, batch, i, d, u, duty, rule)
            else:
                _judge_own(world, said, batch, i, d, duty, rule, base)
        if batch.bits[i] & HAS_FIX:
            row.position_us = t
        if batch.bits[i] & USED:
            source = (batch.status[i] >> 8) & 3
            row.far, row.far_wifi, row.far_cell = far_after(row, batch.error_mm[i], batch.weight[i], source)
            row.judged_error_mm = batch.error_mm[i]
        charge = int(batch.battery[i])
        if charge <= 100:
            if row.battery_us == NO_TIME or charge > row.battery_pct:
                row.battery_us = t
                row.battery_from = charge
            row.battery_pct = charge
        row.ping_us = t
        row.boot = batch.boot[i]
        row.seq = batch.seq[i]
        rest(world, d)
    return n
